//! RAM as the host gives it: anonymous memory, or a private mapping of an [`Image`], whose pages all
//! machines that map it share until they write to them.
//!
//! This is the only module of the crate with `unsafe`: a mapped file is only as safe as the file is
//! still.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::ops::{Deref, DerefMut};

use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::memory::PAGE_SIZE;

/// The bytes of a page.
pub(crate) type Page = [u8; PAGE_SIZE as usize];

/// All bytes of a RAM. Nobody else sees what is written to them; untouched ones cost nothing.
#[derive(Debug)]
pub(crate) struct Ram(MmapMut);

impl Ram {
    /// Zeros.
    ///
    /// # Errors
    /// The host refuses so much.
    pub(crate) fn zeroed(size: usize) -> io::Result<Self> {
        Ok(Self(MmapOptions::new().len(size).map_anon()?))
    }
}

impl Deref for Ram {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Ram {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// An [`Image`] that is being written.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    file: File,
    size: usize,
    present: Vec<u64>,
}

impl ImageWriter {
    /// An image of `size` bytes, a multiple of [`PAGE_SIZE`], all zero.
    ///
    /// # Errors
    /// The host has no room, or refuses a mapping of that size.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        // Asked first: of what is refused here, nothing is allocated.
        Ram::zeroed(size)?;
        let file = anonymous_file()?;
        file.set_len(size as u64)?;
        Ok(Self { file, size, present: vec![0; (size / PAGE_SIZE as usize).div_ceil(64)] })
    }

    /// Puts whole pages at page number `first`.
    ///
    /// # Errors
    /// `InvalidInput` if they are not all in the image; the host has no room.
    pub(crate) fn put(&mut self, first: usize, pages: &[u8]) -> io::Result<()> {
        let count = pages.len() / PAGE_SIZE as usize;
        if first.checked_add(count).is_none_or(|end| end > self.size / PAGE_SIZE as usize) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.seek(SeekFrom::Start(first as u64 * PAGE_SIZE))?;
        self.file.write_all(pages)?;
        for page in first..first + count {
            if let Some(word) = self.present.get_mut(page / 64) {
                *word |= 1 << (page % 64);
            }
        }
        Ok(())
    }

    /// Nothing more is written.
    ///
    /// # Errors
    /// The host refuses the mapping.
    pub(crate) fn finish(self) -> io::Result<Image> {
        let Self { file, size, present } = self;
        seal(&file)?;
        let map = map_to_read(&file, size)?;
        let count = present.iter().map(|word| word.count_ones() as usize).sum();
        Ok(Image { file, map, present, count })
    }
}

/// What RAM held at one moment, in a file that has no name and does not change any more.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    map: Mmap,
    /// A bit for each page that was put; the others are zero.
    present: Vec<u64>,
    count: usize,
}

impl Image {
    /// How many pages were put.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// RAM that holds this. Pages are the host's page cache until they are written to.
    ///
    /// # Errors
    /// The host refuses the mapping.
    pub(crate) fn ram(&self) -> io::Result<Ram> {
        map_to_copy(&self.file, self.map.len()).map(Ram)
    }

    /// A page that was put.
    pub(crate) fn page(&self, page: usize) -> Option<&Page> {
        if self.present.get(page / 64)? >> (page % 64) & 1 == 0 {
            return None;
        }
        self.map.get(page * PAGE_SIZE as usize..)?.first_chunk()
    }

    /// The numbers of the pages that were put, in rising order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = usize> {
        self.present.iter().enumerate().flat_map(|(n, &word)| {
            let bits = std::iter::successors(Some(word), |bits| Some(bits & bits.checked_sub(1)?));
            bits.take_while(|bits| *bits != 0).map(move |bits| 64 * n + bits.trailing_zeros() as usize)
        })
    }
}

/// A file without a name.
#[cfg(target_os = "linux")]
fn anonymous_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("seawall-snapshot", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

/// A file without a name.
#[cfg(not(target_os = "linux"))]
fn anonymous_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// From now on nobody can write to the file, nor change its size.
#[cfg(target_os = "linux")]
fn seal(file: &File) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    Ok(fcntl_add_seals(file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?)
}

/// There are no seals; but nobody else can open a file that has no name.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
fn seal(_: &File) -> io::Result<()> {
    Ok(())
}

#[allow(unsafe_code)]
fn map_to_read(file: &File, size: usize) -> io::Result<Mmap> {
    // SAFETY: the file has no name and its descriptor is this module's, which writes to it no more; where the
    // host has seals, it is sealed against writing and truncation by whoever gets at the descriptor.
    unsafe { MmapOptions::new().len(size).map_copy_read_only(file) }
}

#[allow(unsafe_code)]
fn map_to_copy(file: &File, size: usize) -> io::Result<MmapMut> {
    // SAFETY: as in `map_to_read`; what is written to this mapping stays in it.
    unsafe { MmapOptions::new().len(size).map_copy(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = PAGE_SIZE as usize;

    fn image() -> Image {
        let mut writer = ImageWriter::new(200 * PAGE).expect("200 pages");
        writer.put(1, &[7; 2 * PAGE]).expect("in the image");
        writer.put(199, &[9; PAGE]).expect("in the image");
        writer.finish().expect("sealed")
    }

    #[test]
    fn an_image_has_the_pages_that_were_put_and_no_others() {
        let image = image();
        assert_eq!(image.pages().collect::<Vec<_>>(), [1, 2, 199]);
        assert_eq!(image.page(2), Some(&[7; PAGE]));
        assert_eq!((image.page(0), image.page(3), image.page(200)), (None, None, None));
    }

    #[test]
    fn what_is_written_to_one_ram_of_an_image_is_in_no_other_and_not_in_the_image() {
        let image = image();
        let (mut first, second) = (image.ram().expect("mapped"), image.ram().expect("mapped"));
        first[PAGE] = 1;
        first[0] = 2;
        assert_eq!((second[PAGE], second[0], second.len()), (7, 0, 200 * PAGE));
        assert_eq!(image.page(1), Some(&[7; PAGE]));
    }

    #[test]
    fn a_page_outside_the_image_is_refused() {
        let mut writer = ImageWriter::new(2 * PAGE).expect("2 pages");
        let kind = |result: io::Result<()>| result.map_err(|error| error.kind());
        assert_eq!(kind(writer.put(1, &[1; 2 * PAGE])), Err(io::ErrorKind::InvalidInput));
        assert_eq!(kind(writer.put(usize::MAX, &[1; PAGE])), Err(io::ErrorKind::InvalidInput));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_finished_image_cannot_be_written_or_truncated() {
        let image = image();
        assert_eq!(
            (&image.file).write(&[1]).map_err(|error| error.kind()),
            Err(io::ErrorKind::PermissionDenied)
        );
        assert_eq!(image.file.set_len(0).map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied));
    }
}
