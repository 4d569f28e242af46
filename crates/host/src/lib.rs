//! Bad memory on a Linux host, for any VMM: functions over host virtual addresses, which work with any crates
//! for KVM and guest memory.
//!
//! - [`sigbus`]: a handler that records the memory that a vCPU's thread was about to consume, and passes on
//!   other signals
//! - [`read`]: a copy of memory that may be bad; it returns an error where `memcpy` would be killed (aarch64
//!   and x86-64)
//! - [`tell`]: tells the host's kernel that memory is bad, or else keeps the page while the process lives
//! - [`heal`]: puts fresh memory in place of bad memory: anonymous, shared and hugetlb
//! - [`make_holes`]: makes memory that aborts without bad hardware
//! - [`hwpoison`]: makes memory bad on purpose
//! - [`seccomp`]: the system calls of all these, and of containment, for a VMM's filters
//!
//! Ranges are host virtual addresses of this process, in bytes. They are widened to whole pages.
//!
//! After a SEA exit the host's kernel does not know that the page is bad, and would give it to the next
//! owner. A VMM tells the kernel, and heals the page when the guest restarts:
//!
//! ```
//! # #[cfg(target_os = "linux")]
//! # fn main() -> Result<(), seawall_host::Error> {
//! use std::ops::Range;
//! use seawall_host::{Backing, HostKnows, heal, tell};
//!
//! fn after_an_error(bad: Range<u64>) {
//!     match tell(bad) {
//!         HostKnows::Told => {}
//!         HostKnows::Kept => eprintln!("the page is kept until this VMM ends; as root the host could be told"),
//!         HostKnows::Unknown => eprintln!("the host will give this page to somebody else"),
//!     }
//! }
//!
//! fn at_reset(bad: Range<u64>) -> Result<(), seawall_host::Error> {
//!     // SAFETY: guest memory, mapped private and anonymous, while no vCPU runs.
//!     unsafe { heal(bad, Backing::ANONYMOUS) }.map(|_| ())
//! }
//! # let size = seawall_host::page_size() as usize;
//! # let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
//! # // SAFETY: new memory, where the kernel likes.
//! # let memory = unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
//! # let range = memory as u64..memory as u64 + size as u64;
//! # at_reset(range)
//! # }
//! # #[cfg(not(target_os = "linux"))]
//! # fn main() {}
//! ```
#![cfg(target_os = "linux")]
// This crate consists of system calls on memory.
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod copy;
mod heal;
mod holes;
mod keep;
pub mod seccomp;
pub mod sigbus;
mod tell;
mod unread;

use std::ops::Range;

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub use copy::{BadMemory, read, recover};
pub use heal::{Backing, heal};
pub use holes::make_holes;
pub use keep::replaced;
pub use tell::{HostKnows, hwpoison, tell};

/// A system call failed, or the kernel lacks it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{call} failed: {}", std::io::Error::from_raw_os_error(*errno))]
    Call {
        /// The system call.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
    /// The kernel cannot make holes.
    #[error("this kernel has no UFFDIO_POISON; expected Linux 6.6 or newer with CONFIG_USERFAULTFD")]
    NoHoles,
    /// A healed page would go to another owner, because the host was not told and the page could not be kept.
    #[error("the bad page at {address:#x} can neither be told of nor kept: it is left where it is")]
    NotKept {
        /// Host virtual address.
        address: u64,
    },
    /// The old page is still there after healing.
    #[error("the page at {address:#x} is still there; expected memory that is mapped as {backing:?}")]
    StillThere {
        /// Host virtual address.
        address: u64,
        /// The mapping as the caller described it.
        backing: Backing,
    },
    /// No huge page is free to heal with. An access to the range is a SIGBUS until one is.
    #[error("there is no free huge page of {size:#x} bytes in the place of the one at {address:#x}")]
    NoHugePage {
        /// Host virtual address.
        address: u64,
        /// Size in bytes.
        size: u64,
    },
}

impl Error {
    /// The underlying errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Names the call that has just failed.
fn failed(call: &'static str) -> Error {
    Error::Call { call, errno: errno() }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Size of the host's pages in bytes.
pub fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The range, widened to whole pages of this size (a power of two).
fn widened(range: &Range<u64>, page: u64) -> Range<u64> {
    let last = !(page - 1);
    if range.is_empty() {
        return range.start & last..range.start & last;
    }
    range.start & last..range.end.checked_next_multiple_of(page).unwrap_or(last)
}

/// `madvise`.
///
/// # Safety
/// The effect of the advice on the range must be sound.
unsafe fn advise(range: &Range<u64>, call: &'static str, advice: libc::c_int) -> Result<(), Error> {
    let size = range.end.saturating_sub(range.start) as usize;
    // SAFETY: the caller answers for the effect of the advice; a range that is not mapped is an error.
    match unsafe { libc::madvise(range.start as *mut libc::c_void, size, advice) } {
        0 => Ok(()),
        _ => Err(failed(call)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_widened_to_whole_pages_and_an_empty_one_stays_empty() {
        assert_eq!(widened(&(0x1fff..0x2001), 0x1000), 0x1000..0x3000);
        assert_eq!(widened(&(0x1000..0x2000), 0x1000), 0x1000..0x2000);
        assert_eq!(widened(&(0x20_1000..0x20_1040), 0x20_0000), 0x20_0000..0x40_0000);
        assert_eq!(widened(&(0x1800..0x1800), 0x1000), 0x1000..0x1000);
        assert_eq!(widened(&(u64::MAX - 1..u64::MAX), 0x1000), 0xffff_ffff_ffff_f000..0xffff_ffff_ffff_f000);
    }
}
