//! The system calls, and all `unsafe` of this program.

use std::ffi::c_void;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::time::Instant;

pub(crate) const KVM_GET_API_VERSION: u32 = 0xae00;
const KVM_CREATE_VM: u32 = 0xae01;
pub(crate) const KVM_CHECK_EXTENSION: u32 = 0xae03;
const KVM_GET_VCPU_MMAP_SIZE: u32 = 0xae04;
const KVM_CREATE_VCPU: u32 = 0xae41;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_RUN: u32 = 0xae80;
const KVM_GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
const KVM_SET_VCPU_EVENTS: u32 = 0x4040_aea0;
const KVM_ENABLE_CAP: u32 = 0x4068_aea3;
const KVM_GET_ONE_REG: u32 = 0x4010_aeab;
const KVM_SET_ONE_REG: u32 = 0x4010_aeac;
const KVM_ARM_VCPU_INIT: u32 = 0x4020_aeae;
const KVM_ARM_PREFERRED_TARGET: u32 = 0x8020_aeaf;

/// A call's result, or its errno.
pub(crate) type Answer = Result<i32, i32>;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// # Safety
/// `argument` must be valid for `request`.
unsafe fn ioctl(fd: RawFd, request: u32, argument: u64) -> Answer {
    // SAFETY: by the caller.
    match unsafe { libc::ioctl(fd, request.into(), argument) } {
        -1 => Err(errno()),
        value => Ok(value),
    }
}

/// A request whose argument is a number.
pub(crate) fn by_value(fd: RawFd, request: u32, argument: u64) -> Answer {
    assert!(matches!(request, KVM_GET_API_VERSION | KVM_CHECK_EXTENSION), "expected one that takes a number");
    // SAFETY: these take no pointer.
    unsafe { ioctl(fd, request, argument) }
}

fn owned(answer: Answer) -> Result<OwnedFd, i32> {
    // SAFETY: a descriptor that the kernel just made.
    answer.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn create_vm(kvm: RawFd) -> Result<OwnedFd, i32> {
    // SAFETY: it takes a number, the machine type.
    owned(unsafe { ioctl(kvm, KVM_CREATE_VM, 0) })
}

pub(crate) fn create_vcpu(vm: RawFd, index: u64) -> Result<OwnedFd, i32> {
    // SAFETY: it takes a number.
    owned(unsafe { ioctl(vm, KVM_CREATE_VCPU, index) })
}

/// `KVM_ENABLE_CAP` without flags or arguments.
pub(crate) fn enable_cap(vm: RawFd, cap: u32) -> Answer {
    let mut bytes = [0_u8; 104];
    bytes[..4].copy_from_slice(&cap.to_le_bytes());
    // SAFETY: `struct kvm_enable_cap` has 104 bytes, which the kernel only reads.
    unsafe { ioctl(vm, KVM_ENABLE_CAP, bytes.as_ptr() as u64) }
}

/// `KVM_ARM_VCPU_INIT` of the preferred target with these features.
pub(crate) fn init(vm: RawFd, vcpu: RawFd, features: u32) -> Answer {
    // `struct kvm_vcpu_init`: target, features[7].
    let mut words = [0_u32; 8];
    // SAFETY: the kernel writes the 32 bytes.
    unsafe { ioctl(vm, KVM_ARM_PREFERRED_TARGET, words.as_mut_ptr() as u64) }?;
    words[1] |= features;
    // SAFETY: the kernel only reads the 32 bytes.
    unsafe { ioctl(vcpu, KVM_ARM_VCPU_INIT, words.as_ptr() as u64) }
}

/// `KVM_SET_VCPU_EVENTS` with any address: the kernel only reads there, or fails.
pub(crate) fn set_events_at(fd: RawFd, address: u64) -> Answer {
    // SAFETY: the kernel only reads.
    unsafe { ioctl(fd, KVM_SET_VCPU_EVENTS, address) }
}

pub(crate) fn get_events(fd: RawFd) -> Result<[u8; 64], i32> {
    let mut bytes = [0xee_u8; 64];
    // SAFETY: the kernel writes the 64 bytes.
    unsafe { ioctl(fd, KVM_GET_VCPU_EVENTS, bytes.as_mut_ptr() as u64) }?;
    Ok(bytes)
}

pub(crate) fn get_reg(fd: RawFd, id: u64) -> Result<u64, i32> {
    let mut value = 0_u64;
    let one_reg = [id, (&raw mut value) as u64];
    // SAFETY: `struct kvm_one_reg`; the kernel writes the 64 bits of the value.
    unsafe { ioctl(fd, KVM_GET_ONE_REG, one_reg.as_ptr() as u64) }?;
    Ok(value)
}

pub(crate) fn set_reg(fd: RawFd, id: u64, value: u64) -> Answer {
    let one_reg = [id, (&raw const value) as u64];
    // SAFETY: `struct kvm_one_reg`; the kernel only reads.
    unsafe { ioctl(fd, KVM_SET_ONE_REG, one_reg.as_ptr() as u64) }
}

/// Errno after a `KVM_SET_VCPU_EVENTS`, set to 77 before.
pub(crate) fn errno_after(fd: RawFd, bytes: &[u8; 64]) -> (Answer, i32) {
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() = 77 };
    let answer = set_events_at(fd, bytes.as_ptr() as u64);
    (answer, errno())
}

/// The same call in a child: its value, or its errno.
pub(crate) fn set_events_in_child(fd: RawFd, bytes: &[u8; 64]) -> Answer {
    // SAFETY: the child makes one system call and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let answer = set_events_at(fd, bytes.as_ptr() as u64);
        // SAFETY: it exits at once.
        unsafe { libc::_exit(answer.err().unwrap_or(0)) };
    }
    let mut status = 0;
    // SAFETY: our child, and a place for its status.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(errno());
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(0),
        errno => Err(errno),
    }
}

/// Duplicates `fd` to this number, which is free.
pub(crate) fn duplicate_to(fd: &OwnedFd, number: RawFd) -> Result<OwnedFd, i32> {
    // SAFETY: dup2 takes numbers; the caller closed the one that was there.
    owned(match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(errno()),
        fd => Ok(fd),
    })
}

/// Duplicates `fd` to the number of another descriptor, which is closed in the same step.
pub(crate) fn replace(fd: &OwnedFd, other: OwnedFd) -> Result<OwnedFd, i32> {
    duplicate_to(fd, other.into_raw_fd())
}

/// Pages of this process.
pub(crate) struct Pages {
    address: *mut u8,
    size: usize,
}

// SAFETY: plain memory, accessed by volatile words.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(size: usize, fd: RawFd, flags: i32) -> Result<Self, i32> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, fd, 0) };
        if address == libc::MAP_FAILED { Err(errno()) } else { Ok(Self { address: address.cast(), size }) }
    }

    /// Zeroed memory.
    pub(crate) fn new(size: usize) -> Result<Self, i32> {
        Self::map(size, -1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    /// `struct kvm_run` of a vCPU.
    pub(crate) fn of_vcpu(kvm: RawFd, vcpu: RawFd) -> Result<Self, i32> {
        // SAFETY: it takes no argument.
        let size = unsafe { ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0) }?;
        Self::map(size as usize, vcpu, libc::MAP_SHARED)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address as u64
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset % size_of::<T>() == 0 && offset + size_of::<T>() <= self.size, "{offset:#x}");
        // SAFETY: in the mapping, as just checked.
        unsafe { self.address.add(offset).cast() }
    }

    pub(crate) fn write_u32(&self, offset: usize, value: u32) {
        // SAFETY: in the mapping, and aligned.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }

    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            // SAFETY: in the mapping.
            unsafe { self.at::<u8>(offset + n).write_volatile(*byte) }
        }
    }

    pub(crate) fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: in the mapping, and aligned.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    pub(crate) fn read_u64(&self, offset: usize) -> u64 {
        // SAFETY: in the mapping, and aligned.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }

    /// mprotect(2) from `offset` to the end.
    pub(crate) fn protect(&self, offset: usize, access: i32) -> Answer {
        // SAFETY: a part of the mapping; no reference to it exists.
        match unsafe { libc::mprotect(self.at::<c_void>(offset), self.size - offset, access) } {
            0 => Ok(0),
            _ => Err(errno()),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: we mapped it, and it is no longer used.
        unsafe { libc::munmap(self.address.cast(), self.size) };
    }
}

/// Makes pages the guest's memory.
pub(crate) fn set_memory(vm: RawFd, gpa: u64, pages: &Pages) -> Answer {
    // `struct kvm_userspace_memory_region`: slot and flags, gpa, size, address.
    let region = [0_u64, gpa, pages.size as u64, pages.address()];
    // SAFETY: the kernel only reads the 32 bytes; the pages belong to the guest until the VM is closed, and
    // are only accessed as volatile words.
    unsafe { ioctl(vm, KVM_SET_USER_MEMORY_REGION, region.as_ptr() as u64) }
}

pub(crate) fn run(vcpu: RawFd) -> Answer {
    // SAFETY: it takes no argument.
    unsafe { ioctl(vcpu, KVM_RUN, 0) }
}

/// Measures the cost of the path through `ioctl` for a foreign request: the best of many batches, because the
/// machine may have other work.
pub(crate) fn measure() {
    const BATCHES: u32 = 50;
    const CALLS: u32 = 10_000;
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: there is no descriptor, so it does nothing.
            unsafe { libc::ioctl(-1, KVM_GET_API_VERSION.into(), 0) };
        }
        start.elapsed()
    };
    let best = (0..BATCHES).map(batch).min().unwrap_or_default() / CALLS;
    println!(
        "time  an ioctl that is none of ours (EBADF): {} ns, best of {BATCHES} batches",
        best.as_nanos()
    );
}
