//! The first mode: an extended `KVM_SET_VCPU_EVENTS`.

use std::ffi::{c_int, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use seawall_events::Layout;
use seawall_events::wire::{
    KVM_GET_ONE_REG, KVM_GET_VCPU_EVENTS, KVM_SET_ONE_REG, KVM_SET_VCPU_EVENTS, VCPU_EVENTS_SIZE,
};
use seawall_inject::{Errno, KvmVcpu};

use crate::events::{self, Call, Host};
use crate::hook::IOCTL;

/// `KVM_HAS_DEVICE_ATTR`: reads a `struct kvm_device_attr` and writes nothing.
const KVM_HAS_DEVICE_ATTR: u32 = 0x4018_aee3;
/// Bytes of a `struct kvm_device_attr`.
const DEVICE_ATTR_SIZE: usize = 24;
/// The vCPU does not have the attribute.
const ENXIO: Errno = Errno(6);

static HOST: Host = Host::new();
/// `SEAWALL_LAYOUT=trailing`.
pub(crate) static TRAILING: AtomicBool = AtomicBool::new(false);

/// The arguments stay where they are, so that `ioctl` only jumps.
#[cold]
pub(crate) extern "C" fn set_vcpu_events(fd: c_int, _request: c_ulong, argument: *mut c_void) -> c_int {
    let layout = if TRAILING.load(Ordering::Relaxed) { Layout::Trailing } else { Layout::Posted };
    let before = errno();
    match events::set_events(&VcpuCall { fd, argument }, layout, &HOST) {
        Ok(value) => {
            set_errno(before);
            value
        }
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// The program's call.
struct VcpuCall {
    fd: c_int,
    argument: *mut c_void,
}

/// `struct kvm_one_reg`.
#[repr(C)]
struct OneReg {
    id: u64,
    address: u64,
}

impl VcpuCall {
    /// Another request on the same descriptor.
    ///
    /// # Safety
    /// `argument` must be what `request` takes, but that it need not be mapped.
    unsafe fn ioctl(&self, request: u32, argument: *mut c_void) -> Result<c_int, Errno> {
        // SAFETY: the caller's.
        match unsafe { IOCTL.get()(self.fd, request.into(), argument) } {
            -1 => Err(errno()),
            value => Ok(value),
        }
    }

    fn one_reg(&self, request: u32, id: u64, value: &mut u64) -> Result<(), Errno> {
        let mut one_reg = OneReg { id, address: ptr::from_mut(value) as u64 };
        // SAFETY: the kernel reads or writes the value behind it; ids of 64 bits only come here.
        unsafe { self.ioctl(request, (&raw mut one_reg).cast()) }.map(drop)
    }

    /// The kernel reads 24 bytes there without a fault.
    fn is_readable(&self, bytes: *const u8) -> bool {
        // SAFETY: the kernel only reads it.
        let asked = unsafe { self.ioctl(KVM_HAS_DEVICE_ATTR, bytes.cast_mut().cast()) };
        matches!(asked, Ok(_) | Err(ENXIO))
    }
}

impl Call for VcpuCall {
    fn pass(&self) -> Result<i32, Errno> {
        // SAFETY: the program's own call, as it made it.
        unsafe { self.ioctl(KVM_SET_VCPU_EVENTS, self.argument) }
    }

    fn bytes(&self) -> Option<[u8; VCPU_EVENTS_SIZE]> {
        let bytes = self.argument.cast::<u8>().cast_const();
        // 64 bytes lie in two pages at most, and these are in the first and in the last.
        let ends = [bytes, bytes.wrapping_add(VCPU_EVENTS_SIZE - DEVICE_ATTR_SIZE)];
        if !ends.into_iter().all(|end| self.is_readable(end)) {
            return None;
        }
        // SAFETY: the kernel just read there. Volatile: another thread of the program may write.
        Some(unsafe { bytes.cast::<[u8; VCPU_EVENTS_SIZE]>().read_volatile() })
    }
}

impl KvmVcpu for VcpuCall {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        // SAFETY: the kernel only reads the 64 bytes.
        unsafe { self.ioctl(KVM_SET_VCPU_EVENTS, bytes.as_ptr().cast_mut().cast()) }.map(drop)
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        let mut bytes = [0; VCPU_EVENTS_SIZE];
        // SAFETY: the kernel writes the 64 bytes.
        unsafe { self.ioctl(KVM_GET_VCPU_EVENTS, bytes.as_mut_ptr().cast()) }?;
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

fn errno() -> Errno {
    // SAFETY: it points to this thread's errno.
    Errno(unsafe { *libc::__errno_location() })
}

fn set_errno(errno: Errno) {
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() = errno.0 };
}
