//! Linux's error numbers, as ioctls return them.

use std::fmt;
use std::io;

/// The error of a system call: a positive number, as in errno(3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// `ENOENT`: the vCPU has no such register.
    pub const ENOENT: Self = Self(2);
    /// `EINTR`: a signal arrived.
    pub const EINTR: Self = Self(4);
    /// `ENXIO`: the device has no such register.
    pub const ENXIO: Self = Self(6);
    /// `ENOEXEC`: `KVM_ARM_VCPU_INIT` is missing.
    pub const ENOEXEC: Self = Self(8);
    /// `EFAULT`.
    pub const EFAULT: Self = Self(14);
    /// `EINVAL`.
    pub const EINVAL: Self = Self(22);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

impl From<seawall_events::Errno> for Errno {
    fn from(errno: seawall_events::Errno) -> Self {
        Self(errno.number())
    }
}
