//! The guest: it asks a device for an address, loads from there, and tells the device what it got.
//!
//! | register of the device | the guest |
//! |---|---|
//! | 0x00 | reads: the next address, or 0: the end |
//! | 0x08 | writes: the value that it loaded |
//! | 0x10 | writes: `ESR_EL1`, if it took an exception instead |
//! | 0x18 | writes: `FAR_EL1` |

use std::slice;

/// The device.
pub(crate) const DEVICE: u64 = 0x0900_0000;

std::arch::global_asm!(
    ".pushsection .rodata.small_guest, \"a\", %progbits",
    ".balign 4096",
    ".global seawall_lab_small_guest",
    ".hidden seawall_lab_small_guest",
    "seawall_lab_small_guest:",
    "adr x0, 3f",
    "msr vbar_el1, x0",
    "isb",
    "mov x20, #0x09000000",
    "1: ldr x1, [x20]",
    "cbz x1, 2f",
    "ldr x2, [x1]",
    "str x2, [x20, #8]",
    "b 1b",
    "2: wfi",
    "b 2b",
    // The vectors: an exception of EL1 with SP_EL1, synchronous.
    ".balign 2048",
    "3: .space 0x200",
    "mrs x3, esr_el1",
    "mrs x4, far_el1",
    "str x4, [x20, #24]",
    "str x3, [x20, #16]",
    "adr x5, 1b",
    "msr elr_el1, x5",
    "eret",
    ".balign 4096",
    ".global seawall_lab_small_guest_end",
    ".hidden seawall_lab_small_guest_end",
    "seawall_lab_small_guest_end:",
    ".popsection",
);

unsafe extern "C" {
    static seawall_lab_small_guest: u8;
    static seawall_lab_small_guest_end: u8;
}

/// Its bytes, for the beginning of its memory.
pub(crate) fn program() -> &'static [u8] {
    let (start, end) = (&raw const seawall_lab_small_guest, &raw const seawall_lab_small_guest_end);
    // SAFETY: both are labels around constant bytes of this program.
    unsafe { slice::from_raw_parts(start, end.offset_from(start) as usize) }
}
