//! Pages that nobody else gets while this process lives.
//!
//! A pipe into which `vmsplice` put a page holds a reference to it, for every kind of mapping, even after the
//! mapping has another page in its place. Nothing of the page is read or copied. Because of the reference the
//! kernel does not move the page (compaction, NUMA) or write it to swap either: both would read it. A page
//! moved to another address (`mremap`) would be kept too, but it would not be held still, and would be
//! missing at its old address.
//!
//! Source: vmsplice(2), pipe(7).

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{errno, page_size, widened};

/// The default pipe size limit of an unprivileged process (`/proc/sys/fs/pipe-max-size`): 256 pages of 4 KiB.
const PIPE_BYTES: libc::c_int = 1 << 20;

static KEPT: Mutex<Kept> = Mutex::new(Kept { pages: BTreeSet::new(), open: None, full: Vec::new() });

#[derive(Default)]
struct Kept {
    /// Addresses whose present page is kept.
    pages: BTreeSet<u64>,
    /// The pipe for the next page.
    open: Option<Pipe>,
    /// The reading ends of full pipes: the pages stay in a pipe as long as one end is open.
    full: Vec<OwnedFd>,
}

struct Pipe {
    reads: OwnedFd,
    writes: OwnedFd,
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns true if the page at this address is kept now.
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

/// Notes that a VMM has put other memory at these addresses, other than by [`heal`](crate::heal). Otherwise
/// [`tell`](crate::tell) would take the new page for the one that is already kept. The old page stays kept.
pub fn replaced(range: Range<u64>) {
    let pages = widened(&range, page_size());
    kept().pages.retain(|page| !pages.contains(page));
}

impl Kept {
    fn splice(&mut self, page: u64) -> bool {
        // The first pipe may be full.
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
        // SAFETY: the kernel has just given us these descriptors.
        let [reads, writes] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // SAFETY: the call takes only numbers. If it fails the pipe is small, and the next one is needed
        // sooner.
        unsafe { libc::fcntl(writes.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        Some(Self { reads, writes })
    }

    /// Takes one byte of the page, which suffices: the reference is to the whole page or huge page.
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
        // SAFETY: new memory at an address of the kernel's choice, whose two pages are written.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            start.cast::<u8>().write(7);
            start.cast::<u8>().add(page_size() as usize).write(7);
            start as u64
        }
    }

    /// Only a test reads it: here the page is good.
    #[test]
    fn a_kept_page_outlives_its_mapping() {
        let page = memory();
        let mut kept = Kept::default();
        assert!(kept.splice(page));
        // SAFETY: nobody uses the page any more.
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
