//! A bare-metal guest with two services, for campaigns in milliseconds: `a` loads from one of sixteen pages in turn, `b`
//! from a page of its own. Each says after each round that it lives, and is ended by an abort on its page.
//!
//! It runs from anywhere, on QEMU's `virt`, with the MMU off. After four rounds it says `campaign: begin`. An SError, or an
//! abort elsewhere, is its kernel's end.

use crate::asm::{Asm, ELR_EL1, VBAR_EL1, a64, sysreg};
use crate::layout::UART;
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// The pages of `a`: guest physical addresses. The page behind them is that of `b`.
pub const SERVICE_PAGES: std::ops::Range<u64> = 0x4010_0000..0x4011_0000;
const STACK: u64 = 0x4018_1000;
const PAGE_SHIFT: u32 = 12;
const SIZE: u64 = 0x2000;
const VECTORS: u64 = 0x800;
/// PSCI (DEN 0022): SYSTEM_RESET.
const SYSTEM_RESET: u64 = 0x8400_0009;
const FAR_EL1: u32 = sysreg(3, 0, 6, 0, 0);
/// MSR DAIFClr, #4: SErrors are taken.
const UNMASK_SERROR: u32 = 0xd503_44ff;

/// The guest: a flat image.
pub fn services() -> Vec<u8> {
    let mut asm = Asm::new();
    a64!(asm ; adr x0, ->vectors ; msr VBAR_EL1, x0);
    asm.constant(0, STACK);
    a64!(asm ; mov sp, x0);
    asm.ops.push_u32(UNMASK_SERROR);
    asm.constant(9, SERVICE_PAGES.start);
    asm.constant(10, SERVICE_PAGES.end);
    // x8: the round; x11 and x12: a and b are ended.
    a64!(asm ; movz x8, #0 ; movz x11, #0 ; movz x12, #0
        ; ->round: ; add x8, x8, #1
        ; cbnz x11, >other
        ; and x15, x8, #15
        ; ldr x13, [x9, x15, lsl #3] // the first page, at one of two lines
        ; lsl x15, x15, PAGE_SHIFT
        ; cbnz x11, >other
        ; ldr x13, [x9, x15]
        ; cbnz x11, >other);
    asm.say_dec("a: alive ", 8);
    asm.say("\n");
    a64!(asm ; other: ; cbnz x12, >end ; ldr x13, [x10] ; cbnz x12, >end);
    asm.say_dec("b: alive ", 8);
    asm.say("\n");
    a64!(asm ; end: ; cmp x8, #4 ; b.ne ->round);
    asm.say("campaign: begin\n");
    a64!(asm ; b ->round
        ; ->abort: ; mrs x14, FAR_EL1 ; cmp x14, x9 ; b.lo ->serror ; cmp x14, x10 ; b.lo >of_a
        ; movz x12, #1);
    asm.say("workload: b ended: SIGBUS\n");
    a64!(asm ; b >on ; of_a: ; movz x11, #1);
    asm.say("workload: a ended: SIGBUS\n");
    a64!(asm ; on: ; mrs x0, ELR_EL1 ; add x0, x0, #4 ; msr ELR_EL1, x0 ; eret ; ->serror:);
    asm.say("Kernel panic - not syncing: memory is bad\n");
    asm.constant(0, SYSTEM_RESET);
    a64!(asm ; hvc #0 ; ->stay: ; b ->stay);
    asm.console(UART);
    asm.pad_to(VECTORS);
    a64!(asm ; ->vectors:);
    for entry in 0..16 {
        asm.pad_to(VECTORS + entry * 0x80);
        // A synchronous exception and an SError at EL1h.
        match entry {
            4 => a64!(asm ; b ->abort),
            7 => a64!(asm ; b ->serror),
            _ => a64!(asm ; b ->stay),
        }
    }
    asm.finish(SIZE)
}
