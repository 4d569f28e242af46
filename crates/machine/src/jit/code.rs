//! Memory for translated code: written through one mapping, executed through another.
//!
//! One of the two modules of the translator with `unsafe`. No page is ever writable and executable at once: the file
//! behind both mappings has no name, and is sealed so that nobody can map it to write again. Code is appended, 64-byte
//! aligned, and never changed: what was executed once is not written to until the whole arena is gone. So an instruction
//! cache, which may hold what it fetched, never holds what is stale, and no other thread can see half an instruction.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Code begins on a cache line of its own.
const ALIGNMENT: usize = 64;

/// Memory for code that is appended to.
#[derive(Debug)]
pub(super) struct Arena {
    free: Mutex<Free>,
    code: Mmap,
}

/// The part that is writable.
#[derive(Debug)]
struct Free {
    map: MmapMut,
    used: usize,
}

impl Arena {
    /// An arena of so many bytes, which cost host memory as they are used.
    ///
    /// # Errors
    /// The host refuses the memory, or to execute it.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let file: File =
            memfd_create("seawall-code", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into();
        file.set_len(bytes as u64)?;
        let map = map_to_write(&file, bytes)?;
        fcntl_add_seals(
            &file,
            SealFlags::FUTURE_WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        let code = map_to_execute(&file, bytes)?;
        Ok(Self { free: Mutex::new(Free { map, used: 0 }), code })
    }

    /// Append code. Gives its address; `None`: there is no room.
    pub(super) fn place(&self, code: &[u8]) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.used;
        let end = start.checked_add(code.len())?;
        free.map.get_mut(start..end)?.copy_from_slice(code);
        free.used = end.next_multiple_of(ALIGNMENT);
        Some(self.code.as_ptr().expose_provenance() as u64 + start as u64)
    }
}

#[allow(unsafe_code)]
fn map_to_write(file: &File, bytes: usize) -> io::Result<MmapMut> {
    // SAFETY: the file has no name and its descriptor does not leave `Arena::new`. Through the other mapping of it these
    // bytes are only ever executed, never referred to from Rust.
    unsafe { MmapOptions::new().len(bytes).map_mut(file) }
}

#[allow(unsafe_code)]
fn map_to_execute(file: &File, bytes: usize) -> io::Result<Mmap> {
    // SAFETY: as above, and this one is only asked for its address.
    unsafe { MmapOptions::new().len(bytes).map_exec(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_appended_on_cache_lines_until_there_is_no_room() {
        let arena = Arena::new(4096).expect("a page");
        let first = arena.place(&[0xc3; 65]).expect("room");
        assert_eq!(arena.place(&[0xc3]).map(|second| second - first), Some(128));
        assert_eq!(arena.place(&[0xc3; 4096 - 191]), None);
        assert_eq!(arena.place(&[0xc3; 4096 - 192]).map(|last| last - first), Some(192));
        assert_eq!(arena.place(&[0xc3]), None);
    }

    #[test]
    fn no_mapping_is_writable_and_executable() {
        let arena = Arena::new(1 << 20).expect("a megabyte");
        assert!(arena.place(&[0xc3]).is_some());
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
        let of_code: Vec<&str> = maps.lines().filter(|line| line.contains("seawall-code")).collect();
        let rights = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        assert!(
            of_code.iter().all(|line| matches!(rights(line).as_deref(), Some("rw-s" | "r-xs"))),
            "{of_code:?}"
        );
        assert!(of_code.len() >= 2, "{of_code:?}");
    }
}
