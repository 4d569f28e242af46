//! Signals and system calls that no VMM makes.

use std::io;
use std::os::fd::AsRawFd;

/// `_IOW(KVMIO, 0xa0, struct kvm_vcpu_events)`.
const KVM_SET_VCPU_EVENTS: libc::Ioctl = 0x4040_aea0_u32 as libc::Ioctl;

/// Sends SIGBUS to the calling thread, with the `siginfo_t` of a memory error as the kernel would send it:
/// `code` is `BUS_MCEERR_AR` (4) or `BUS_MCEERR_AO` (5), `lsb` the bad range's size as a power of two. (No
/// thread may send such a signal to another: Linux, `do_rt_tgsigqueueinfo`.)
///
/// # Errors
/// EAGAIN if too many signals are queued already.
pub fn send_sigbus(code: i32, address: u64, lsb: i16) -> io::Result<()> {
    // A siginfo_t of 128 bytes: signal, errno, code, and the union at 16.
    let mut info = [0_u64; 16];
    info[0] = libc::SIGBUS as u64;
    info[1] = code as u32 as u64;
    info[2] = address;
    info[3] = lsb as u64;
    // SAFETY: `info` has the size of a siginfo_t, and outlives the call; the others have no arguments.
    let sent = unsafe {
        let (process, thread) = (libc::getpid(), libc::gettid());
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, info.as_ptr())
    };
    match sent {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `KVM_SET_VCPU_EVENTS` of KVM/arm64 with an address that the kernel cannot read, to test which check comes
/// first.
///
/// # Errors
/// EFAULT, or the error of an earlier check.
pub fn set_events_unreadable(vcpu: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the kernel only reads from the address, and nothing is mapped there.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_VCPU_EVENTS, std::ptr::null::<u8>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
