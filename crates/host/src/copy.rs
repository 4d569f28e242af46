//! A copy of memory that may be bad, which survives the read.
//!
//! A few instructions of this crate do the copy. A SIGBUS on one of them moves the thread to the end of the
//! copy, which then reports failure. It covers memory that the host knows to be bad (`BUS_MCEERR_AR`), memory
//! that turns out to be bad (`BUS_OBJERR`), and a [hole](crate::make_holes). The kernel never reads the
//! memory: a system call that meets a bad line can take the whole host down.

use std::arch::global_asm;

use libc::{c_int, c_void, ucontext_t};

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.seawall_host_copy, \"ax\", %progbits",
    ".balign 16",
    ".global seawall_host_copy",
    ".hidden seawall_host_copy",
    ".type seawall_host_copy, %function",
    // x0: to; x1: from; x2: units of 16 bytes; x3: bytes after them. Returns 0.
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
    // rdi: to; rsi: from; rdx: units of 16 bytes; rcx: bytes after them. Returns 0.
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
    /// Not a function, but the address at which a failed copy continues.
    fn seawall_host_copy_failed();
}

/// Part of the memory is bad. The bytes read are not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory is bad")]
pub struct BadMemory;

/// Reads memory that may be bad. SIGBUS must be caught, as by [`sigbus::install`](crate::sigbus::install), or
/// be passed to [`recover`] by the program's own handler, and must not be blocked.
///
/// A read of bad memory is an error like any other: the host's firmware and kernel record it.
///
/// # Errors
/// [`BadMemory`].
///
/// # Safety
/// `to.len()` bytes must be mapped at `from`. They may be bad, and may change meanwhile.
pub unsafe fn read(from: *const u8, to: &mut [u8]) -> Result<(), BadMemory> {
    // SAFETY: both ranges are mapped and of this size, and one belongs to us alone. The other is read as
    // plain bytes, each once. The copy changes only registers that a C function may change; if a signal
    // handler moves it to its end, it has the same stack and return address.
    match unsafe { seawall_host_copy(to.as_mut_ptr(), from, to.len() / 16, to.len() % 16) } {
        0 => Ok(()),
        _ => Err(BadMemory),
    }
}

/// Moves a failed copy to its end, for a program with its own SIGBUS handler. Pass the `ucontext_t` after
/// [`handle`](crate::sigbus::handle): that takes early warnings, which may arrive during a copy without
/// belonging to it. Returns true if the signal met [`read`]; then let the handler return, and `read` fails.
/// Async-signal-safe.
///
/// # Safety
/// `context` must be the pointer that the kernel passed to the SIGBUS handler.
pub unsafe fn recover(context: *mut c_void) -> bool {
    let (start, end) = (seawall_host_copy as *const () as u64, seawall_host_copy_failed as *const () as u64);
    // SAFETY: by the caller it is a whole ucontext_t, which nobody else uses until the handler returns.
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

/// Returns true for SIGBUS by a fault in our copy, not one that somebody sent.
///
/// # Safety
/// As [`recover`].
pub(crate) unsafe fn recover_from(code: c_int, context: *mut c_void) -> bool {
    // SAFETY: the kernel passed `context` to the handler.
    code > 0 && unsafe { recover(context) }
}

/// A context whose PC is in the copy.
#[cfg(test)]
pub(crate) fn context_in_copy() -> ucontext_t {
    // SAFETY: it consists of numbers and of pointers that nobody follows.
    let mut context: ucontext_t = unsafe { std::mem::zeroed() };
    *program_counter(&mut context) = seawall_host_copy as *const () as _;
    context
}

#[cfg(test)]
pub(crate) fn is_in_copy(context: &mut ucontext_t) -> bool {
    std::ptr::addr_eq(*program_counter(context) as *const (), seawall_host_copy as *const ())
}
