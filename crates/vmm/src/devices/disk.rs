//! A disk's image: a file that is never written, and if the guest may write, what it wrote.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use seawall_files::ReadError;
use thiserror::Error;

use crate::marks::{self, Use};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Bytes of what is copied at the first write to it.
const CLUSTER: usize = 4096;

/// What becomes of the guest's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// They fail: the device says that it is read-only.
    Refused,
    /// They are kept in memory until the disk is dropped, up to [`Disk::WRITE_LIMIT`]; the file stays as it is.
    InMemory,
}

/// What the guest wrote to a disk: clusters, by number. A clone shares them until either is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<(u64, Cluster)>", into = "Vec<(u64, Cluster)>")]
pub(crate) struct Written(Arc<BTreeMap<u64, Arc<[u8; CLUSTER]>>>);

/// A cluster on its way into a snapshot or out of one. Another size is refused as it comes.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
struct Cluster(Arc<[u8; CLUSTER]>);

impl From<Cluster> for Vec<u8> {
    fn from(cluster: Cluster) -> Self {
        cluster.0.to_vec()
    }
}

impl TryFrom<Vec<u8>> for Cluster {
    type Error = &'static str;

    fn try_from(bytes: Vec<u8>) -> Result<Self, &'static str> {
        Ok(Self(Arc::<[u8]>::from(bytes).try_into().map_err(|_| "expected whole clusters")?))
    }
}

impl Written {
    /// Whether a disk of this size can have it.
    pub(crate) fn fits(&self, size: u64) -> bool {
        self.0.keys().next_back().is_none_or(|last| *last < size.div_ceil(CLUSTER as u64))
    }
}

impl From<Written> for Vec<(u64, Cluster)> {
    fn from(written: Written) -> Self {
        written.0.iter().map(|(number, bytes)| (*number, Cluster(bytes.clone()))).collect()
    }
}

impl From<Vec<(u64, Cluster)>> for Written {
    fn from(clusters: Vec<(u64, Cluster)>) -> Self {
        Self(Arc::new(clusters.into_iter().map(|(number, cluster)| (number, cluster.0)).collect()))
    }
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    file: File,
    size: u64,
    /// By cluster; none if writes are refused.
    written: Option<Written>,
    /// Bytes that may be kept of what is written.
    limit: u64,
}

/// Why a file is no disk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskError {
    /// It cannot be opened.
    #[error("cannot open it: {0}")]
    Open(#[from] ReadError),
    /// It is no raw image: what it is, and what to do.
    #[error("expected a raw image, got {0}")]
    Format(String),
    /// Its size is not a disk's.
    #[error("expected a size that is a multiple of {SECTOR} bytes and not 0, got {0}")]
    Size(u64),
}

impl Disk {
    /// How much of what is written is kept if nothing else is said, bytes.
    pub const WRITE_LIMIT: u64 = 1 << 30;

    /// Opens an image: sectors as they are, in a regular file. What has the mark of another format, or is packed, is
    /// refused.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(path: &Path, writes: Writes) -> Result<Self, DiskError> {
        let file = seawall_files::open_regular(path)?;
        let size = file.metadata().map_err(ReadError::from)?.len();
        let mut head = [0; SECTOR as usize];
        let head = head.get_mut(..size.min(SECTOR) as usize).unwrap_or_default();
        file.read_exact_at(head, 0).map_err(ReadError::from)?;
        if let Some(what) = marks::mistaken(head, Use::Disk) {
            return Err(DiskError::Format(what));
        }
        if size == 0 || size % SECTOR != 0 {
            return Err(DiskError::Size(size));
        }
        let written = (writes == Writes::InMemory).then(Written::default);
        Ok(Self { file, size, written, limit: Self::WRITE_LIMIT })
    }

    /// Keeps at most so many bytes of what is written, in clusters of 4 KiB: writes that need more fail. What a cluster
    /// holds can be written over at any time.
    pub fn set_write_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What becomes of writes.
    pub fn writes(&self) -> Writes {
        if self.written.is_some() { Writes::InMemory } else { Writes::Refused }
    }

    /// What was written to it; none if writes are refused.
    pub(crate) fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// Only this was written to it, which must fit.
    pub(crate) fn set_written(&mut self, written: Option<Written>) {
        self.written = written;
    }

    /// Reads `bytes` from byte `offset`.
    ///
    /// # Errors
    /// The file's; `InvalidInput` beyond the end.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.check(offset, bytes.len())?;
        let Some(written) = &self.written else { return self.file.read_exact_at(bytes, offset) };
        let mut rest = bytes;
        let mut offset = offset;
        while !rest.is_empty() {
            let (cluster, at, length) = part(offset, rest.len());
            let (now, later) = rest.split_at_mut(length);
            match written.0.get(&cluster).and_then(|cluster| cluster.get(at..at + length)) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => self.file.read_exact_at(now, offset)?,
            }
            rest = later;
            offset += length as u64;
        }
        Ok(())
    }

    /// Writes `bytes` from byte `offset`.
    ///
    /// # Errors
    /// `ReadOnlyFilesystem` if writes are refused, `InvalidInput` beyond the end, `StorageFull` if no more may be kept
    /// (what comes before in `bytes` is written then), the file's.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len())?;
        let written = self.written.as_mut().ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        let mut rest = bytes;
        let mut offset = offset;
        while !rest.is_empty() {
            let (cluster, at, length) = part(offset, rest.len());
            let (now, later) = rest.split_at(length);
            let clusters = Arc::make_mut(&mut written.0);
            let is_full = clusters.len() as u64 >= self.limit / CLUSTER as u64;
            let copy = match clusters.entry(cluster) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(_) if is_full => return Err(io::ErrorKind::StorageFull.into()),
                Entry::Vacant(vacant) => vacant.insert(original(&self.file, self.size, cluster)?),
            };
            if let Some(to) = Arc::make_mut(copy).get_mut(at..at + length) {
                to.copy_from_slice(now);
            }
            rest = later;
            offset += length as u64;
        }
        Ok(())
    }

    /// True if so many bytes from byte `offset` are on the disk.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(crate) fn check(&self, offset: u64, length: usize) -> io::Result<()> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// A cluster as the file has it; the last one may be longer than what is left of the file.
fn original(file: &File, size: u64, cluster: u64) -> io::Result<Arc<[u8; CLUSTER]>> {
    let start = cluster * CLUSTER as u64;
    let mut copy = [0; CLUSTER];
    let length = size.saturating_sub(start).min(CLUSTER as u64) as usize;
    if let Some(bytes) = copy.get_mut(..length) {
        file.read_exact_at(bytes, start)?;
    }
    Ok(Arc::new(copy))
}

/// The cluster that `offset` is in, where in it, and how much of `length` bytes it has.
fn part(offset: u64, length: usize) -> (u64, usize, usize) {
    let at = (offset % CLUSTER as u64) as usize;
    (offset / CLUSTER as u64, at, length.min(CLUSTER - at))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// An image of sectors that each hold their number, under a name of the test's own.
    fn image(name: &str, sectors: u8) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("seawall-disk-{}-{name}", std::process::id()));
        let bytes: Vec<u8> = (0..sectors).flat_map(|n| [n; 512]).collect();
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn writes_are_read_back_and_the_file_stays_as_it_is() {
        let path = image("cow", 17);
        let mut disk = Disk::open(&path, Writes::InMemory).unwrap();
        // Over a cluster's end, and in the last cluster, which is shorter.
        disk.write(7 * 512, &[0xaa; 1024]).unwrap();
        disk.write(16 * 512, &[0xbb; 512]).unwrap();
        let mut bytes = vec![0; 17 * 512];
        disk.read(0, &mut bytes).unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[511]).collect();
        assert_eq!(sectors, [0, 1, 2, 3, 4, 5, 6, 0xaa, 0xaa, 9, 10, 11, 12, 13, 14, 15, 0xbb]);
        let file = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((file[7 * 512], file[16 * 512]), (7, 16));
    }

    #[test]
    fn a_read_only_disk_refuses_writes() {
        let path = image("ro", 2);
        let mut disk = Disk::open(&path, Writes::Refused).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(disk.write(0, &[0; 512]).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        let mut sector = [0; 512];
        disk.read(512, &mut sector).unwrap();
        assert_eq!(sector[0], 1);
    }

    #[test]
    fn nothing_is_beyond_the_end() {
        let path = image("end", 2);
        let disk = Disk::open(&path, Writes::InMemory).unwrap();
        fs::remove_file(&path).unwrap();
        for offset in [513, 1024, u64::MAX] {
            let error = disk.read(offset, &mut [0; 512]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset}");
        }
    }

    #[test]
    fn a_file_that_is_not_whole_sectors_is_no_disk() {
        let path = image("size", 1);
        fs::write(&path, [0; 513]).unwrap();
        let error = Disk::open(&path, Writes::Refused).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(error.to_string(), "expected a size that is a multiple of 512 bytes and not 0, got 513");
        assert!(Disk::open(&path, Writes::Refused).unwrap_err().to_string().starts_with("cannot open it: "));
    }
}
