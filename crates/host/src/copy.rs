//! Reads memory that may be bad, and lives.
//!
//! The copy is done by a few instructions of our own. A SIGBUS on one of them sends the thread to the end of the copy, which
//! then says that it failed: be it for memory that the host knows to be bad (`BUS_MCEERR_AR`), for memory that just turns
//! out to be (`BUS_OBJERR`), or for a [hole](crate::make_holes). The kernel never reads it: a bad line that a system call
//! meets can take the whole host down.

use std::arch::global_asm;

use libc::{c_int, c_void, ucontext_t};

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.seawall_host_copy, \"ax\", %progbits",
    ".balign 16",
    ".global seawall_host_copy",
    ".hidden seawall_host_copy",
    ".type seawall_host_copy, %function",
    // x0: to; x1: from; x2: units of 16 bytes; x3: bytes behind them. Gives 0.
    "seawall_host_copy:",
    "cbz x2, 2f",
    "1: ldp x4, x5, [x1], #16",
    "stp x4, x5, [x0], #16",
    "subs x2, x2, #1",
    "b.ne 1b",
    "2: cbz x3, 4f",
    "3: ldrb w4, [x1], #1",
    "strb w4, [x0], #1",
    "subs x3, x3, #1",
    "b.ne 3b",
    "4: mov x0, #0",
    "ret",
    ".global seawall_host_copy_failed",
    ".hidden seawall_host_copy_failed",
    "seawall_host_copy_failed:",
    "mov x0, #1",
    "ret",
    ".size seawall_host_copy, . - seawall_host_copy",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.seawall_host_copy, \"ax\", @progbits",
    ".balign 16",
    ".global seawall_host_copy",
    ".hidden seawall_host_copy",
    ".type seawall_host_copy, @function",
    // rdi: to; rsi: from; rdx: units of 16 bytes; rcx: bytes behind them. Gives 0.
    "seawall_host_copy:",
    "test rdx, rdx",
    "jz 3f",
    "2: movups xmm0, [rsi]",
    "movups [rdi], xmm0",
    "add rsi, 16",
    "add rdi, 16",
    "dec rdx",
    "jnz 2b",
    "3: test rcx, rcx",
    "jz 5f",
    "4: mov al, [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rcx",
    "jnz 4b",
    "5: xor eax, eax",
    "ret",
    ".global seawall_host_copy_failed",
    ".hidden seawall_host_copy_failed",
    "seawall_host_copy_failed:",
    "mov eax, 1",
    "ret",
    ".size seawall_host_copy, . - seawall_host_copy",
    ".popsection",
);

unsafe extern "C" {
    fn seawall_host_copy(to: *mut u8, from: *const u8, units: usize, bytes: usize) -> usize;
    /// No function: where a copy that failed goes on.
    fn seawall_host_copy_failed();
}

/// Something of the memory is bad. What was read is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory is bad")]
pub struct BadMemory;

/// Reads memory that may be bad. SIGBUS must be caught, as [`sigbus::install`](crate::sigbus::install) does, or be given
/// to [`recover`] by the program's own handler, and must not be blocked.
///
/// A read of bad memory is an error like any: the host's firmware and kernel take note of it.
///
/// # Errors
/// [`BadMemory`].
///
/// # Safety
/// As many bytes as `to` has must be mapped at `from`. They may be bad, and may change meanwhile.
pub unsafe fn read(from: *const u8, to: &mut [u8]) -> Result<(), BadMemory> {
    // SAFETY: both ranges are mapped and of this size, and one is ours alone. The other is read as plain bytes, each once.
    // What the copy does to registers is what a function of C may do; if a signal's handler moves it to its end, it has
    // the same stack and return address.
    match unsafe { seawall_host_copy(to.as_mut_ptr(), from, to.len() / 16, to.len() % 16) } {
        0 => Ok(()),
        _ => Err(BadMemory),
    }
}

/// For a program that has a SIGBUS handler of its own: give it the `ucontext_t` after
/// [`handle`](crate::sigbus::handle), which takes early warnings: they may come during a copy, and are not of it. True if the signal met
/// [`read`], which fails when the handler returns, as it shall. Async-signal-safe.
///
/// # Safety
/// `context` must be what the kernel gave the handler of SIGBUS.
pub unsafe fn recover(context: *mut c_void) -> bool {
    let (start, end) = (seawall_host_copy as *const () as u64, seawall_host_copy_failed as *const () as u64);
    // SAFETY: by the caller it is a whole ucontext_t, and nobody else's until the handler returns.
    let pc = unsafe { program_counter(&mut *context.cast()) };
    let is_copy = (start..end).contains(&u64::from_ne_bytes(pc.to_ne_bytes()));
    if is_copy {
        *pc = end as _;
    }
    is_copy
}

#[cfg(target_arch = "aarch64")]
fn program_counter(context: &mut ucontext_t) -> &mut u64 {
    &mut context.uc_mcontext.pc
}

#[cfg(target_arch = "x86_64")]
fn program_counter(context: &mut ucontext_t) -> &mut i64 {
    &mut context.uc_mcontext.gregs[libc::REG_RIP as usize]
}

/// SIGBUS by a fault at a copy of ours, not one that somebody sent.
///
/// # Safety
/// As [`recover`].
pub(crate) unsafe fn recover_from(code: c_int, context: *mut c_void) -> bool {
    // SAFETY: `context` is what the kernel gave the handler.
    code > 0 && unsafe { recover(context) }
}

/// A context whose PC is in the copy.
#[cfg(test)]
pub(crate) fn context_in_copy() -> ucontext_t {
    // SAFETY: it is numbers and pointers that nobody follows.
    let mut context: ucontext_t = unsafe { std::mem::zeroed() };
    *program_counter(&mut context) = seawall_host_copy as *const () as _;
    context
}

#[cfg(test)]
pub(crate) fn is_in_copy(context: &mut ucontext_t) -> bool {
    std::ptr::addr_eq(*program_counter(context) as *const (), seawall_host_copy as *const ())
}
