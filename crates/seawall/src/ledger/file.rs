//! The ledger in a file, or in the stream of a migration.
//!
//! A save replaces the whole file: a reader finds the last save or the one before it, never a mixture.
//! Damaged, truncated or foreign files are refused.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SEAWALL` and a zero |
//! | 4 | version, 1 |
//! | 4 | zero |
//! | 8 | number of ranges that follow |
//! | 24 each | first address, pages (8 bytes each), seconds since 1970 (4), [`Cause`] (1), zeros (3) |
//! | 32 | BLAKE3 of all of the above |
//!
//! Numbers are little-endian.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BadRange, Cause, END, Ledger, PAGE, seconds};

/// The largest file in bytes that is read: enough for eleven million scattered pages.
pub const LARGEST: u64 = 256 << 20;
const MAGIC: [u8; 8] = *b"SEAWALL\0";
const VERSION: u32 = 1;
const HASH_SIZE: usize = 32;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    zero: U32,
    count: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    start: U64,
    pages: U64,
    seconds: U32,
    cause: u8,
    zero: [u8; 3],
}

const _: () = assert!(size_of::<Header>() == 24 && size_of::<Entry>() == 24);

/// The reason why bytes are not a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// They are in another format.
    #[error("expected a ledger, which begins with `SEAWALL`, got something else")]
    Foreign,
    /// They have another version.
    #[error("expected a ledger of version 1, got version {0}: it was written by another release")]
    Version(u32),
    /// They are truncated, or there are more than a ledger has.
    #[error("expected {expected} bytes, got {got}: the ledger was cut short, or something was added to it")]
    Length {
        /// Bytes by the header.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// The checksum is wrong.
    #[error("the checksum is wrong: the ledger was damaged")]
    Damaged,
    /// An entry makes no sense, though the checksum is right.
    #[error(
        "expected entry {index} to be whole pages behind those before it, with a cause from 1 to 4: this was not written \
         by Seawall"
    )]
    Entry {
        /// The entry's number, from 0.
        index: u64,
    },
}

/// The reason why a ledger could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be read.
    #[error("cannot read the ledger {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not a ledger.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: FormatError,
    },
    /// The file could not be written. The old file is still there.
    #[error("cannot write the ledger {path}, what was there stays: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Ledger {
    /// The ledger as bytes, for a file or the other side of a migration.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            magic: MAGIC,
            version: VERSION.into(),
            zero: 0.into(),
            count: (self.ranges().count() as u64).into(),
        };
        let mut bytes = header.as_bytes().to_vec();
        for bad in self.ranges() {
            let entry = Entry {
                start: bad.range.start.into(),
                pages: ((bad.range.end - bad.range.start) / PAGE).into(),
                seconds: seconds(bad.time).into(),
                cause: bad.cause as u8,
                zero: [0; 3],
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// The ledger in these bytes.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Foreign);
        }
        let got = bytes.len() as u64;
        let least = (size_of::<Header>() + HASH_SIZE) as u64;
        let (header, _) =
            Header::ref_from_prefix(bytes).map_err(|_| FormatError::Length { expected: least, got })?;
        if header.version.get() != VERSION {
            return Err(FormatError::Version(header.version.get()));
        }
        let entries = header.count.get().saturating_mul(size_of::<Entry>() as u64);
        let expected = entries.saturating_add(least);
        if expected != got {
            return Err(FormatError::Length { expected, got });
        }
        let (content, hash) = bytes.split_at(bytes.len() - HASH_SIZE);
        if blake3::hash(content).as_bytes() != hash {
            return Err(FormatError::Damaged);
        }
        let mut ledger = Self::default();
        let mut end = 0;
        let entries = content.get(size_of::<Header>()..).unwrap_or_default();
        for (index, entry) in (0..).zip(entries.chunks_exact(size_of::<Entry>())) {
            let bad = Entry::ref_from_bytes(entry).ok().and_then(bad_range);
            let bad = bad.filter(|bad| bad.range.start >= end).ok_or(FormatError::Entry { index })?;
            end = bad.range.end;
            ledger.insert(bad.range, bad.cause, bad.time);
        }
        Ok(ledger)
    }

    /// Writes the ledger to a file, replacing the old one. When it returns, the file is on the disk. A
    /// symbolic link is followed, and stays.
    ///
    /// # Errors
    /// [`FileError::Write`]; the old file stays.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        replace(path, &self.to_bytes())
    }

    /// The ledger of a regular file of at most [`LARGEST`] bytes; `None` if there is no file yet. A symbolic
    /// link is followed.
    ///
    /// # Errors
    /// [`FileError::Read`], [`FileError::Format`].
    pub fn load(path: &Path) -> Result<Option<Self>, FileError> {
        let bytes = match seawall_files::read(path, LARGEST).map_err(io::Error::from) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::Read { path: path.to_owned(), source }),
        };
        let ledger = Self::from_bytes(&bytes);
        ledger.map(Some).map_err(|source| FileError::Format { path: path.to_owned(), source })
    }
}

/// Replaces the file by these bytes: whole, or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    seawall_files::replace(path, bytes).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

fn bad_range(entry: &Entry) -> Option<BadRange> {
    let (start, pages) = (entry.start.get(), entry.pages.get());
    let end = start.checked_add(pages.checked_mul(PAGE)?)?;
    if start % PAGE != 0 || pages == 0 || end > END || entry.zero != [0; 3] {
        return None;
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(entry.seconds.get().into());
    Some(BadRange { range: start..end, cause: Cause::from_bits(entry.cause)?, time })
}
