//! Memory that is bad without bad hardware, for pages that were bad at the source of a migration.
//!
//! `UFFDIO_POISON` marks pages of one address space: a guest's access to them is then the same as to a page
//! that the host knows to be bad, SIGBUS with `BUS_MCEERR_AR` on the vCPU's thread. It takes no privilege,
//! because user space never handles a fault. The marks outlive the userfaultfd.
//!
//! Source: ioctl_userfaultfd(2), UFFDIO_POISON(2const); Linux uapi `linux/userfaultfd.h`. Since Linux 6.6.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use crate::{Error, advise, errno, failed, page_size, widened};

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

/// `struct uffdio_register` and `struct uffdio_poison`, which have the same layout: the range, the mode, and
/// the kernel's answer.
#[repr(C)]
struct RangeArgument {
    start: u64,
    size: u64,
    mode: u64,
    answer: i64,
}

const _: () = assert!(size_of::<ApiArgument>() == 0x18 && size_of::<RangeArgument>() == 0x20);

/// Makes holes of these ranges of private anonymous memory: their content is lost, and an access is a SIGBUS
/// with `BUS_MCEERR_AR` until [`heal`](crate::heal). System calls on it fail with EFAULT. Nobody may use the
/// memory meanwhile.
///
/// # Errors
/// [`Error::NoHoles`] before Linux 6.6, or without CONFIG_USERFAULTFD; [`Error::Call`].
///
/// # Safety
/// The ranges must be mapped, private and anonymous, and nothing may rely on their content.
pub unsafe fn make_holes(ranges: &[Range<u64>]) -> Result<(), Error> {
    if ranges.is_empty() {
        return Ok(());
    }
    let marker = Marker::open()?;
    let page = page_size();
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        let pages = widened(range, page);
        // SAFETY: by the caller's mapping it reads as zeros afterwards, and nothing relies on its old
        // content.
        unsafe { advise(&pages, "madvise(MADV_DONTNEED)", libc::MADV_DONTNEED)? };
        marker.mark(&pages)?;
    }
    Ok(())
}

/// A userfaultfd that can mark pages.
struct Marker(File);

impl Marker {
    fn open() -> Result<Self, Error> {
        let flags = libc::O_CLOEXEC | USER_MODE_ONLY;
        // SAFETY: the call takes only flags.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(if errno() == libc::ENOSYS { Error::NoHoles } else { failed("userfaultfd") });
        }
        // SAFETY: the kernel has just given us this descriptor.
        let marker = Self(unsafe { File::from_raw_fd(fd as libc::c_int) });
        let mut argument = ApiArgument { api: API, features: FEATURE_POISON, ioctls: 0 };
        // SAFETY: the kernel reads and writes the structure of this request.
        match unsafe { libc::ioctl(marker.0.as_raw_fd(), UFFDIO_API, &raw mut argument) } {
            0 => Ok(marker),
            // A feature that this kernel lacks.
            _ => Err(Error::NoHoles),
        }
    }

    /// Marks pages that are not present.
    fn mark(&self, pages: &Range<u64>) -> Result<(), Error> {
        self.call("UFFDIO_REGISTER", UFFDIO_REGISTER, pages, MODE_MISSING)?;
        self.call("UFFDIO_POISON", UFFDIO_POISON, pages, 0)
    }

    fn call(
        &self,
        name: &'static str,
        request: libc::Ioctl,
        pages: &Range<u64>,
        mode: u64,
    ) -> Result<(), Error> {
        let size = pages.end - pages.start;
        let mut argument = RangeArgument { start: pages.start, size, mode, answer: 0 };
        // SAFETY: the kernel reads and writes the structure of this request. It changes memory only as
        // `make_holes` promises.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut argument) } {
            0 => Ok(()),
            _ => Err(failed(name)),
        }
    }
}
