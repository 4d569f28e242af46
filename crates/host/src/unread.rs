//! Pages beside a bad one that the kernel must not read.
//!
//! For `MADV_HWPOISON` Linux splits a transparent huge page. It then checks each of the other pages for
//! zeroes, to put the zero page in its place (since 6.12; before 6.18 it checks the bad page, too). If a
//! second line of the huge page is bad, and nobody knows, that check is a load by the kernel: the host goes
//! down. Linux does not check locked memory.
//!
//! Source: Linux `mm/migrate.c`, `try_to_map_unused_to_zeropage`; mlock2(2), msync(2).

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{page_size, widened};

/// Bytes of a page table entry on aarch64 and x86-64; a table of such entries fills a page.
const ENTRY: u64 = 8;

/// One call at a time: none may take another call's lock for the VMM's.
static ONE: Mutex<()> = Mutex::new(());

/// The huge pages around these pages, locked until this is dropped. If locking fails, they stay unlocked.
pub(crate) struct Unread {
    locked: Option<Range<u64>>,
    _one: MutexGuard<'static, ()>,
}

impl Unread {
    pub(crate) fn new(pages: &Range<u64>) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = widened(pages, page_size() / ENTRY * page_size());
        let lock = !blocks.is_empty() && !is_locked(&blocks);
        if lock {
            // SAFETY: the content does not change; with MLOCK_ONFAULT nothing is brought in.
            unsafe { libc::mlock2(start(&blocks), size(&blocks), libc::MLOCK_ONFAULT) };
        }
        Self { locked: lock.then_some(blocks), _one: one }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(blocks) = &self.locked {
            // SAFETY: the content does not change.
            unsafe { libc::munlock(start(blocks), size(blocks)) };
        }
    }
}

/// Returns true if part of it is locked: by the VMM, which does not expect it to be unlocked.
fn is_locked(blocks: &Range<u64>) -> bool {
    // SAFETY: an asynchronous sync writes nothing; MS_INVALIDATE only refuses locked memory.
    let refused =
        unsafe { libc::msync(start(blocks), size(blocks), libc::MS_ASYNC | libc::MS_INVALIDATE) } != 0;
    refused && crate::errno() == libc::EBUSY
}

fn start(blocks: &Range<u64>) -> *mut libc::c_void {
    blocks.start as *mut libc::c_void
}

fn size(blocks: &Range<u64>) -> usize {
    (blocks.end - blocks.start) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `VmLck` of this process, KiB.
    fn locked() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// 8 MiB, which contain two whole huge pages of 2 MiB.
    fn memory() -> Range<u64> {
        let (bytes, access) = (8 << 20, libc::PROT_READ | libc::PROT_WRITE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        let huge = (memory as u64).next_multiple_of(2 << 20);
        huge..huge + (4 << 20)
    }

    /// One test, because locked memory is counted for the process.
    #[test]
    fn huge_pages_around_are_locked_meanwhile_and_what_was_locked_before_stays_so() {
        if page_size() != 4096 {
            return;
        }
        let memory = memory();
        assert_eq!(locked(), 0);
        let page = memory.start + 0x5000..memory.start + 0x6000;
        let unread = Unread::new(&page);
        let meanwhile = locked();
        drop(unread);
        if meanwhile == 0 {
            println!("skipped: this process may not lock memory");
            return;
        }
        assert_eq!((meanwhile, locked()), (2048, 0));

        // SAFETY: the content does not change.
        assert_eq!(unsafe { libc::mlock(page.start as *const libc::c_void, 4096) }, 0);
        let unread = Unread::new(&page);
        assert_eq!(locked(), 4);
        drop(unread);
        assert_eq!(locked(), 4);
    }
}
