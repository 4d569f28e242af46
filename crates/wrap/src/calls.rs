//! The C library's functions behind ours, and a vCPU by its file descriptor.

use std::ffi::{c_int, c_ulong, c_void};
use std::ptr;

use seawall_events::wire::{
    KVM_GET_ONE_REG, KVM_GET_VCPU_EVENTS, KVM_SET_ONE_REG, KVM_SET_VCPU_EVENTS, VCPU_EVENTS_SIZE,
};
use seawall_inject::{Errno, KvmVcpu};

/// The functions that would have been called without us.
///
/// # Safety
/// Each does what the function of its name does in the C library, and nothing else.
pub unsafe trait Calls: Sync + 'static {
    /// `ioctl(2)`.
    ///
    /// # Safety
    /// As libc's.
    unsafe fn ioctl(&self, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int;

    /// `sigaction(2)`.
    ///
    /// # Safety
    /// As libc's.
    unsafe fn sigaction(
        &self,
        signal: c_int,
        new: *const libc::sigaction,
        old: *mut libc::sigaction,
    ) -> c_int;
}

/// An ioctl of ours, by its result.
///
/// # Safety
/// `argument` must be what `request` takes.
pub(crate) unsafe fn ask(
    calls: &impl Calls,
    fd: c_int,
    request: u32,
    argument: *mut c_void,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's.
    match unsafe { calls.ioctl(fd, request.into(), argument) } {
        -1 => Err(Errno(errno())),
        value => Ok(value),
    }
}

/// A vCPU that is out of its run.
#[derive(Clone, Copy)]
pub(crate) struct Vcpu<'a, C> {
    pub(crate) calls: &'a C,
    pub(crate) fd: c_int,
}

/// `struct kvm_one_reg`.
#[repr(C)]
struct OneReg {
    id: u64,
    address: u64,
}

impl<C: Calls> Vcpu<'_, C> {
    fn one_reg(&self, request: u32, id: u64, value: &mut u64) -> Result<(), Errno> {
        let mut one_reg = OneReg { id, address: ptr::from_mut(value) as u64 };
        // SAFETY: the kernel reads or writes the value behind it; ids of 64 bits only come here.
        unsafe { ask(self.calls, self.fd, request, (&raw mut one_reg).cast()) }.map(drop)
    }
}

impl<C: Calls> KvmVcpu for Vcpu<'_, C> {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        let argument = bytes.as_ptr().cast_mut().cast();
        // SAFETY: the kernel only reads the 64 bytes.
        unsafe { ask(self.calls, self.fd, KVM_SET_VCPU_EVENTS, argument) }.map(drop)
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        let mut bytes = [0; VCPU_EVENTS_SIZE];
        // SAFETY: the kernel writes the 64 bytes.
        unsafe { ask(self.calls, self.fd, KVM_GET_VCPU_EVENTS, bytes.as_mut_ptr().cast()) }?;
        Ok(bytes)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let mut value = 0;
        self.one_reg(KVM_GET_ONE_REG, id, &mut value)?;
        Ok(value)
    }

    fn set_one_reg(&self, id: u64, mut value: u64) -> Result<(), Errno> {
        self.one_reg(KVM_SET_ONE_REG, id, &mut value)
    }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() = errno };
}
