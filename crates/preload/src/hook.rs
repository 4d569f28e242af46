//! `ioctl` in the place of libc's.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::{mem, ptr};

use seawall_events::Layout;
use seawall_events::wire::{
    KVM_GET_ONE_REG, KVM_GET_VCPU_EVENTS, KVM_SET_ONE_REG, KVM_SET_VCPU_EVENTS, VCPU_EVENTS_SIZE,
};
use seawall_inject::{Errno, KvmVcpu};

use crate::events::{self, Call, Host};

/// `KVM_HAS_DEVICE_ATTR`: reads a `struct kvm_device_attr` and writes nothing.
const KVM_HAS_DEVICE_ATTR: u32 = 0x4018_aee3;
/// Bytes of a `struct kvm_device_attr`.
const DEVICE_ATTR_SIZE: usize = 24;
/// The vCPU does not have the attribute.
const ENXIO: Errno = Errno(6);

static HOST: Host = Host::new();
/// `SEAWALL_LAYOUT=trailing`.
static TRAILING: AtomicBool = AtomicBool::new(false);
/// The `ioctl` behind ours. Before [`init`], which other libraries' constructors may precede, it is the
/// system call.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(system_call as *const () as *mut c_void);

/// libc declares it variadic. The procedure call standard of aarch64 Linux passes the third argument in the
/// same register either way.
type Ioctl = unsafe extern "C" fn(c_int, c_ulong, *mut c_void) -> c_int;

/// `ioctl(2)`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // The kernel takes 32 bits of it.
    if request as u32 == KVM_SET_VCPU_EVENTS {
        return set_vcpu_events(fd, request, argument);
    }
    // SAFETY: the program's own call, as it made it.
    unsafe { next(fd, request, argument) }
}

/// The arguments stay where they are, so that `ioctl` only jumps.
#[cold]
extern "C" fn set_vcpu_events(fd: c_int, _request: c_ulong, argument: *mut c_void) -> c_int {
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

/// # Safety
/// As `ioctl`.
#[inline]
unsafe fn next(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: it is `system_call`, or what the dynamic linker gave for `ioctl`; both have this type.
    let next = unsafe { mem::transmute::<*mut c_void, Ioctl>(NEXT.load(Ordering::Relaxed)) };
    // SAFETY: the caller's.
    unsafe { next(fd, request, argument) }
}

/// # Safety
/// As `ioctl`.
unsafe extern "C" fn system_call(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    (unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) }) as c_int
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
        match unsafe { next(self.fd, request.into(), argument) } {
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

/// The dynamic linker calls it before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = init;

extern "C" fn init() {
    // SAFETY: a C string.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"ioctl".as_ptr()) };
    if !next.is_null() {
        NEXT.store(next, Ordering::Relaxed);
    }
    // SAFETY: a C string.
    let value = unsafe { libc::getenv(c"SEAWALL_LAYOUT".as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: a C string, which stays until the environment changes, and is used at once.
    let layout = unsafe { CStr::from_ptr(value) };
    match layout.to_bytes() {
        b"posted" => {}
        b"trailing" => TRAILING.store(true, Ordering::Relaxed),
        _ => {
            let words = b"libseawall_preload.so: expected SEAWALL_LAYOUT=posted or =trailing; it is posted\n";
            // SAFETY: the bytes are there. Nothing is to be done if they cannot be written.
            unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
        }
    }
}
