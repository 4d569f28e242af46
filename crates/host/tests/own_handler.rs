//! A program with its own SIGBUS handler; it needs a process of its own, because a handler belongs to the
//! process.

#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use seawall_host::{HostKnows, sigbus, tell};

extern "C" fn own(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The present SIGBUS handler.
fn handler() -> usize {
    // SAFETY: a zeroed sigaction is valid and ours; nothing is installed.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut now), 0);
        now.sa_sigaction
    }
}

#[test]
fn a_handler_of_the_programs_own_is_never_replaced() {
    // SAFETY: a zeroed sigaction is a valid one; the handler does nothing.
    unsafe {
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = own as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()), 0);
    }
    sigbus::leave_to_program();
    sigbus::install().unwrap();
    assert_eq!(handler(), own as *const () as usize);
    // Nothing is mapped at these addresses: no page is taken.
    assert_eq!(tell(0x1000..0x2000), HostKnows::Unknown);
    assert_eq!(handler(), own as *const () as usize);
}
