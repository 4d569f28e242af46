//! A bare-metal guest with two CPUs: one meets bad memory over and over while the other asks for a reset.
//!
//! It runs from any address, on QEMU's `virt`, with the MMU off. The first CPU turns the second on, waits for
//! a tenth of a second and asks for a reset. The second loads from each page from [`RESTLESS_PAGES`] on; an
//! abort skips the load.

use crate::asm::{Asm, ELR_EL1, VBAR_EL1, a64, sysreg};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// The pages: guest physical addresses.
pub const RESTLESS_PAGES: std::ops::Range<u64> = 0x4400_0000..0x4500_0000;
const PAGE: u64 = 0x1000;
const SIZE: u64 = 0x2000;
const VECTORS: u64 = 0x800;
/// PSCI (DEN 0022): CPU_ON of 64 bits, SYSTEM_RESET.
const CPU_ON: u64 = 0xc400_0003;
const SYSTEM_RESET: u64 = 0x8400_0009;

const CNTFRQ_EL0: u32 = sysreg(3, 3, 14, 0, 0);
const CNTVCT_EL0: u32 = sysreg(3, 3, 14, 0, 2);

/// The guest: a flat image.
pub fn restless() -> Vec<u8> {
    let mut asm = Asm::new();
    a64!(asm ; adr x0, ->vectors ; msr VBAR_EL1, x0);
    asm.constant(0, CPU_ON);
    // MPIDR 1; its entry; its X0.
    a64!(asm ; movz x1, #1 ; adr x2, ->second ; movz x3, #0 ; hvc #0
        ; mrs x4, CNTFRQ_EL0 ; movz x5, #10 ; udiv x4, x4, x5 ; mrs x5, CNTVCT_EL0 ; add x4, x4, x5
        ; wait: ; isb ; mrs x5, CNTVCT_EL0 ; cmp x5, x4 ; b.lo <wait);
    asm.constant(0, SYSTEM_RESET);
    a64!(asm ; hvc #0 ; b ->stay
        ; ->second: ; adr x0, ->vectors ; msr VBAR_EL1, x0 ; isb
        ; again:);
    asm.constant(1, RESTLESS_PAGES.start);
    asm.constant(2, RESTLESS_PAGES.end);
    asm.constant(4, PAGE);
    a64!(asm ; next: ; ldr x3, [x1] ; add x1, x1, x4 ; cmp x1, x2 ; b.lo <next ; b <again ; ->stay: ; b ->stay);
    asm.pad_to(VECTORS);
    a64!(asm ; ->vectors:);
    for entry in 0..16 {
        asm.pad_to(VECTORS + entry * 0x80);
        // A synchronous exception at EL1h.
        if entry == 4 {
            a64!(asm ; mrs x0, ELR_EL1 ; add x0, x0, #4 ; msr ELR_EL1, x0 ; eret);
        } else {
            a64!(asm ; b ->stay);
        }
    }
    asm.finish(SIZE)
}
