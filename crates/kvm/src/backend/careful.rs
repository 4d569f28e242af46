//! Reads guest memory that may be bad, and lives.
//!
//! The copy is done by a few instructions of our own. A SIGBUS on one of them sends the thread to the end of the copy, which
//! then says that it failed: be it for memory that the host knows to be bad (`BUS_MCEERR_AR`), for memory that just turns
//! out to be (`BUS_OBJERR`), or for a [hole](Vm::make_holes). The kernel never reads it: a bad line that a system call meets
//! can take the whole host down.

use std::arch::global_asm;

use libc::{c_int, c_void};

use super::{Error, Vm};

global_asm!(
    ".pushsection .text.seawall_kvm_copy, \"ax\", %progbits",
    ".balign 16",
    ".global seawall_kvm_copy",
    ".hidden seawall_kvm_copy",
    ".type seawall_kvm_copy, %function",
    // x0: to; x1: from; x2: bytes, a multiple of 16, not 0. Gives 0.
    "seawall_kvm_copy:",
    "1: ldp x3, x4, [x1], #16",
    "stp x3, x4, [x0], #16",
    "subs x2, x2, #16",
    "b.ne 1b",
    "mov x0, #0",
    "ret",
    ".global seawall_kvm_copy_failed",
    ".hidden seawall_kvm_copy_failed",
    "seawall_kvm_copy_failed:",
    "mov x0, #1",
    "ret",
    ".size seawall_kvm_copy, . - seawall_kvm_copy",
    ".popsection",
);

unsafe extern "C" {
    fn seawall_kvm_copy(to: *mut u8, from: *const u8, bytes: usize) -> u64;
    /// No function: where a copy that failed goes on.
    fn seawall_kvm_copy_failed();
}

/// What guest memory was read to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// It was read.
    Good,
    /// Something of it is bad. What was read is worth nothing.
    Bad,
}

impl Vm {
    /// Reads guest memory that may be bad. SIGBUS must be caught, as [`Config::catch_sigbus`](super::Config) does, or be
    /// given to [`recover`] by the program's own handler.
    ///
    /// A read of bad memory is an error like any: the host's firmware and kernel take note of it.
    ///
    /// # Errors
    /// [`Error::NotInMemory`]; [`Error::Unaligned`] unless it is a multiple of 16 bytes.
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<Readable, Error> {
        let size = bytes.len();
        let from = self.host_address(gpa, size as u64)?;
        if size % 16 != 0 {
            return Err(Error::Unaligned { size });
        }
        if size == 0 {
            return Ok(Readable::Good);
        }
        // SAFETY: both ranges are mapped and of this size, one is ours alone, and the size is a multiple of 16 and not 0.
        // Guest memory may change meanwhile: it is read as plain bytes, each once. What the copy does to registers is
        // what a function of C may do; if a signal's handler moves it to its end, it has the same stack and link register.
        match unsafe { seawall_kvm_copy(bytes.as_mut_ptr(), from, size) } {
            0 => Ok(Readable::Good),
            _ => Ok(Readable::Bad),
        }
    }
}

/// For a program that has a SIGBUS handler of its own: give it the `ucontext_t` first. True if the signal met
/// [`Vm::read`], which fails when the handler returns, as it shall. Async-signal-safe.
///
/// # Safety
/// `context` must be what the kernel gave the handler of SIGBUS.
pub unsafe fn recover(context: *mut c_void) -> bool {
    let (start, end) = (seawall_kvm_copy as *const () as u64, seawall_kvm_copy_failed as *const () as u64);
    // SAFETY: by the caller it is a whole ucontext_t, and nobody else's until the handler returns.
    let pc = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc };
    let is_copy = (start..end).contains(pc);
    if is_copy {
        *pc = end;
    }
    is_copy
}

/// SIGBUS by a fault at a copy of ours, not one that somebody sent.
pub(super) unsafe fn recover_from(code: c_int, context: *mut c_void) -> bool {
    // SAFETY: by the caller.
    code > 0 && unsafe { recover(context) }
}
