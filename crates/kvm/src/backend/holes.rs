//! Guest memory that is bad without bad hardware: what was bad where the guest came from.
//!
//! `UFFDIO_POISON` marks pages of one address space: an access of the guest's is then what it is to a page that the host
//! knows to be bad, SIGBUS with `BUS_MCEERR_AR` on the vCPU's thread and [`Exit::Sigbus`](seawall_inject::Exit::Sigbus).
//! It takes no privilege: no fault is ever handled by user space. The marks outlive the userfaultfd.
//!
//! Source: ioctl_userfaultfd(2), UFFDIO_POISON(2const); Linux uapi `linux/userfaultfd.h`. Since Linux 6.6.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use super::{Error, Vm, failed};

/// `UFFD_USER_MODE_ONLY`.
const USER_MODE_ONLY: libc::c_int = 1;
/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFD_FEATURE_POISON`.
const FEATURE_POISON: u64 = 1 << 14;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;
/// `_IOWR(0xAA, 0x3f, struct uffdio_api)`.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
/// `_IOWR(0xAA, 0x00, struct uffdio_register)`.
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
/// `_IOWR(0xAA, 0x08, struct uffdio_poison)`.
const UFFDIO_POISON: libc::Ioctl = 0xc020_aa08_u32 as libc::Ioctl;

/// `struct uffdio_api`.
#[repr(C)]
struct ApiArgument {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register` and `struct uffdio_poison`, which look the same: the range, the mode, and what the kernel
/// says.
#[repr(C)]
struct RangeArgument {
    start: u64,
    size: u64,
    mode: u64,
    answer: i64,
}

const _: () = assert!(size_of::<ApiArgument>() == 0x18 && size_of::<RangeArgument>() == 0x20);

impl Vm {
    /// Makes holes of these ranges of guest memory (guest physical): what is in them is lost, and an access comes to
    /// [`Exit::Sigbus`](seawall_inject::Exit::Sigbus), for ever, or until [`Vm::remap`]. A read by this process is a
    /// SIGBUS too, and fails with EFAULT in a system call. Ranges are widened to the host's pages. The guest must not run
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::Missing`] before Linux 6.6, or without CONFIG_USERFAULTFD; [`Error::NotInMemory`], [`Error::Ioctl`].
    pub fn make_holes(&self, ranges: &[Range<u64>]) -> Result<(), Error> {
        if ranges.is_empty() {
            return Ok(());
        }
        let marker = Marker::open()?;
        let page = page_size();
        for range in ranges {
            let (start, end) = (range.start & !(page - 1), range.end.next_multiple_of(page));
            let size = end.saturating_sub(start);
            let address = self.host_address(start, size)?;
            // SAFETY: the range is a part of a mapping of ours that stays, and that is only ever accessed as volatile
            // bytes: whoever accesses it now gets zeroes, or a SIGBUS.
            if unsafe { libc::madvise(address.cast(), size as usize, libc::MADV_DONTNEED) } != 0 {
                return Err(failed("madvise(MADV_DONTNEED)")(vmm_sys_util::errno::Error::last()));
            }
            marker.mark(address as u64, size)?;
        }
        Ok(())
    }
}

/// A userfaultfd that can mark pages.
struct Marker(File);

impl Marker {
    fn open() -> Result<Self, Error> {
        let advice =
            "expected Linux 6.6 or newer with CONFIG_USERFAULTFD, to keep memory bad that was bad elsewhere";
        let missing = || Error::Missing { capability: "UFFD_FEATURE_POISON", number: 14, advice };
        let flags = libc::O_CLOEXEC | USER_MODE_ONLY;
        // SAFETY: the call takes flags alone.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(match vmm_sys_util::errno::Error::last().errno() {
                libc::ENOSYS => missing(),
                errno => failed("userfaultfd")(vmm_sys_util::errno::Error::new(errno)),
            });
        }
        // SAFETY: the kernel has just given it to us.
        let marker = Self(unsafe { File::from_raw_fd(fd as libc::c_int) });
        let mut argument = ApiArgument { api: API, features: FEATURE_POISON, ioctls: 0 };
        // SAFETY: the kernel reads and writes the structure that this request takes.
        match unsafe { libc::ioctl(marker.0.as_raw_fd(), UFFDIO_API, &raw mut argument) } {
            0 => Ok(marker),
            // A feature that it does not know.
            _ => Err(missing()),
        }
    }

    /// Marks pages that are not there.
    fn mark(&self, start: u64, size: u64) -> Result<(), Error> {
        self.call("UFFDIO_REGISTER", UFFDIO_REGISTER, start, size, MODE_MISSING)?;
        self.call("UFFDIO_POISON", UFFDIO_POISON, start, size, 0)
    }

    fn call(
        &self,
        name: &'static str,
        request: libc::Ioctl,
        start: u64,
        size: u64,
        mode: u64,
    ) -> Result<(), Error> {
        let mut argument = RangeArgument { start, size, mode, answer: 0 };
        // SAFETY: the kernel reads and writes the structure that this request takes. The range is a mapping of guest
        // memory: what changes of it is what `make_holes` promises.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut argument) } {
            0 => Ok(()),
            _ => Err(failed(name)(vmm_sys_util::errno::Error::last())),
        }
    }
}

/// Bytes of the host's pages.
pub fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}
