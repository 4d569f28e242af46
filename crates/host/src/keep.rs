//! Pages that nobody else gets while this process lives.
//!
//! A pipe that a page was spliced into by `vmsplice` holds a reference to it, whatever kind of mapping the page is from, and
//! after the mapping has another page in its place. Nothing of the page is read or copied. Because of the reference the
//! kernel does not move the page (compaction, NUMA) or write it out to swap either: both would read it. A page that was moved
//! to another address (`mremap`) would be kept, too, but not held still, and would be missing where it was.
//!
//! Source: vmsplice(2), pipe(7).

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{errno, page_size, widened};

/// What an unprivileged process may make a pipe hold, as Linux comes (`/proc/sys/fs/pipe-max-size`): 256 pages of 4 KiB.
const PIPE_BYTES: libc::c_int = 1 << 20;

static KEPT: Mutex<Kept> = Mutex::new(Kept { pages: BTreeSet::new(), open: None, full: Vec::new() });

#[derive(Default)]
struct Kept {
    /// Addresses at which the page that is there is kept.
    pages: BTreeSet<u64>,
    /// The pipe that the next page goes into.
    open: Option<Pipe>,
    /// Their reading ends: the pages are in the pipe as long as one end is open.
    full: Vec<OwnedFd>,
}

struct Pipe {
    reads: OwnedFd,
    writes: OwnedFd,
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the page at this address is kept now.
pub(crate) fn keep(page: u64) -> bool {
    let mut kept = kept();
    if kept.pages.contains(&page) {
        return true;
    }
    let is_kept = kept.splice(page);
    if is_kept {
        kept.pages.insert(page);
    }
    is_kept
}

/// A VMM that puts other memory at these addresses, and not by [`heal`](crate::heal), says so: [`tell`](crate::tell)
/// would else take the new page for the one that is kept already. The old page stays kept.
pub fn replaced(range: Range<u64>) {
    let pages = widened(&range, page_size());
    kept().pages.retain(|page| !pages.contains(page));
}

impl Kept {
    fn splice(&mut self, page: u64) -> bool {
        // A pipe that is full first, perhaps.
        for _ in 0..2 {
            if self.open.is_none() {
                self.open = Pipe::new();
            }
            let Some(pipe) = &self.open else { return false };
            match pipe.take(page) {
                Ok(()) => return true,
                Err(libc::EAGAIN) => self.full.extend(self.open.take().map(|pipe| pipe.reads)),
                Err(_) => return false,
            }
        }
        false
    }
}

impl Pipe {
    fn new() -> Option<Self> {
        let mut ends = [0; 2];
        // SAFETY: there is room for both file descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return None;
        }
        // SAFETY: the kernel has just given them to us.
        let [reads, writes] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // SAFETY: the call takes numbers alone. If it fails the pipe is small, and the next one is needed sooner.
        unsafe { libc::fcntl(writes.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        Some(Self { reads, writes })
    }

    /// One byte of the page is enough: the reference is to all of it, or to all of the huge page.
    fn take(&self, page: u64) -> Result<(), i32> {
        let byte = libc::iovec { iov_base: page as *mut libc::c_void, iov_len: 1 };
        // SAFETY: the kernel takes a reference to the page at this address, if there is one. Nobody reads from the pipe.
        match unsafe { libc::vmsplice(self.writes.as_raw_fd(), &raw const byte, 1, libc::SPLICE_F_NONBLOCK) }
        {
            1 => Ok(()),
            _ => Err(errno()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Two pages whose first bytes are 7.
    fn memory() -> u64 {
        let (size, access) = (2 * page_size() as usize, libc::PROT_READ | libc::PROT_WRITE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, where the kernel likes, whose two pages are written.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            start.cast::<u8>().write(7);
            start.cast::<u8>().add(page_size() as usize).write(7);
            start as u64
        }
    }

    /// Only a test reads it: here it is good.
    #[test]
    fn a_kept_page_outlives_its_mapping() {
        let page = memory();
        let mut kept = Kept::default();
        assert!(kept.splice(page));
        // SAFETY: nobody uses it any more.
        assert_eq!(unsafe { libc::munmap(page as *mut libc::c_void, 2 * page_size() as usize) }, 0);
        let mut byte = [0];
        std::fs::File::from(kept.open.unwrap().reads).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn pages_go_into_a_new_pipe_when_one_is_full() {
        let page = memory();
        let mut kept = Kept::default();
        assert!((0..600).all(|_| kept.splice(page)));
        assert!(!kept.full.is_empty());
    }

    #[test]
    fn a_page_is_kept_once_and_its_successor_is_another() {
        let page = memory();
        assert!(keep(page) && kept().pages.contains(&page));
        replaced(page..page + 1);
        assert!(!kept().pages.contains(&page));
        assert!(keep(page));
    }

    #[test]
    fn what_is_not_mapped_is_not_kept() {
        assert!(!keep(page_size()));
    }
}
