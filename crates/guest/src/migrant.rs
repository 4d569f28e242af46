//! A bare-metal guest that takes input, and reports if its state is unchanged: for migrations.
//!
//! It runs from any address, on QEMU's `virt`, with the MMU off, and takes these characters from the PL011:
//!
//! | | action | output |
//! |---|---|---|
//! | `1` to `9` | loads from the page [`migrant_page`] | `migrant: page N: abort esr=0x… far=0x…`, or `… value 0x…` |
//! | `v` | checks its registers, its memory and its clock | `migrant: registers ok, memory ok, clock ok, polls N` |
//! | `q` | powers off | |
//!
//! While it waits it counts its polls for a character. At the start it prints `migrant: ready`.

use crate::asm::{Asm, ELR_EL1, ESR_EL1, FAR_EL1, TPIDR_EL1, VBAR_EL1, a64, sysreg};
use crate::console;
use dynasmrt::{DynasmApi, DynasmLabelApi};

const UART: u64 = 0x0900_0000;
/// The address of its pages.
const PAGES: u64 = 0x4040_0000;
const STEP: u64 = 0x1_0000;
/// Memory that it fills, and checks later: 512 words.
const MEMORY: u64 = 0x4060_0000;
const WORDS: u32 = 512;
/// The end of its stack.
const STACK: u64 = MEMORY;
const SIZE: u64 = 0x2000;
const VECTORS: u64 = 0x800;

const CPACR_EL1: u32 = sysreg(3, 0, 1, 0, 2);
const TPIDR_EL0: u32 = sysreg(3, 3, 13, 0, 2);
const CNTVCT_EL0: u32 = sysreg(3, 3, 14, 0, 2);

/// The value in a register, different for each.
const fn value(register: u8) -> u64 {
    0x0101_0101_0101_0101 * register as u64
}
/// General registers that hold values, besides V0, V31, TPIDR_EL0 and TPIDR_EL1.
const HELD: std::ops::RangeInclusive<u8> = 19..=28;

/// Guest physical address of the page that the character `'0' + number` asks for.
pub const fn migrant_page(number: u64) -> u64 {
    PAGES + number * STEP
}

/// The guest: a flat image.
pub fn migrant() -> Vec<u8> {
    let mut asm = Asm::new();
    a64!(asm ; b ->start);
    vectors(&mut asm);
    a64!(asm ; ->start: ; movz x0, #0x30, LSL #16 ; msr CPACR_EL1, x0 ; isb
        ; adr x0, ->vectors ; msr VBAR_EL1, x0);
    asm.constant(0, STACK);
    a64!(asm ; mov sp, x0);
    hold(&mut asm);
    fill(&mut asm);
    a64!(asm ; mrs x9, CNTVCT_EL0 ; movz x8, #0);
    asm.say("migrant: ready\n");
    asm.constant(10, UART);
    a64!(asm ; ->next: ; add x8, x8, #1 ; ldr w1, [x10, #0x18] ; tbnz w1, #4, ->next ; ldr w12, [x10]
        ; cmp w12, u32::from(b'v') ; b.eq ->look
        ; cmp w12, u32::from(b'q') ; b.eq ->off
        ; sub w12, w12, u32::from(b'0') ; cmp w12, #9 ; b.hi ->next);
    load(&mut asm);
    look(&mut asm);
    a64!(asm ; ->off:);
    asm.constant(0, 0x8400_0008);
    a64!(asm ; hvc #0 ; b ->off);
    console::emit(&mut asm, UART);
    asm.finish(SIZE)
}

/// The vectors: synchronous exceptions and SErrors of EL1h; the others end the guest.
fn vectors(asm: &mut Asm) {
    asm.pad_to(VECTORS);
    a64!(asm ; ->vectors:);
    for entry in 0..16 {
        asm.pad_to(VECTORS + entry * 0x80);
        if entry == 4 {
            a64!(asm ; b ->abort);
        } else {
            a64!(asm ; b ->lost);
        }
    }
    asm.pad_to(VECTORS + 0x800);
    // x11: the abort was taken.
    a64!(asm ; ->abort: ; mrs x13, ESR_EL1 ; mrs x14, FAR_EL1 ; mrs x0, ELR_EL1 ; add x0, x0, #4 ; msr ELR_EL1, x0
        ; movz x11, #1 ; eret
        ; ->lost: ; mrs x13, ESR_EL1);
    asm.say_esr("migrant: lost esr=0x", 13);
    asm.say("\n");
    a64!(asm ; b ->off);
}

fn hold(asm: &mut Asm) {
    for register in HELD {
        asm.constant(register, value(register));
    }
    a64!(asm ; msr TPIDR_EL0, x19 ; msr TPIDR_EL1, x20 ; dup v0.d2, x21 ; dup v31.d2, x22);
}

/// Fills each word with its inverted address.
fn fill(asm: &mut Asm) {
    asm.constant(0, MEMORY);
    a64!(asm ; movz x1, WORDS ; more: ; mvn x2, x0 ; str x2, [x0], #8 ; sub x1, x1, #1 ; cbnz x1, <more);
}

/// Loads from page w12.
fn load(asm: &mut Asm) {
    asm.say_dec("migrant: page ", 12);
    asm.constant(1, PAGES);
    asm.constant(2, STEP);
    a64!(asm ; madd x1, x12, x2, x1 ; movz x11, #0 ; ldr x15, [x1] ; cbz x11, >good);
    asm.say_esr(": abort esr=0x", 13);
    asm.say_hex(" far=0x", 14, 16);
    a64!(asm ; b >done ; good:);
    asm.say_hex(": value 0x", 15, 16);
    a64!(asm ; done:);
    asm.say("\n");
    a64!(asm ; b ->next);
}

/// Reports for each part if it is unchanged.
fn look(asm: &mut Asm) {
    a64!(asm ; ->look: ; movz x12, #0);
    let differs = |asm: &mut Asm, register: u8, expected: u8| {
        asm.constant(0, value(expected));
        a64!(asm ; eor x1, X(register), x0 ; orr x12, x12, x1);
    };
    for register in HELD {
        differs(asm, register, register);
    }
    a64!(asm ; mrs x13, TPIDR_EL0);
    differs(asm, 13, 19);
    a64!(asm ; mrs x13, TPIDR_EL1);
    differs(asm, 13, 20);
    for half in 0..2 {
        a64!(asm ; mov x13, v0.d[half]);
        differs(asm, 13, 21);
        a64!(asm ; mov x13, v31.d[half]);
        differs(asm, 13, 22);
    }
    verdict(asm, "migrant: registers ");
    asm.constant(0, MEMORY);
    a64!(asm ; movz x1, WORDS ; movz x12, #0 ; more: ; ldr x2, [x0] ; mvn x3, x0 ; eor x2, x2, x3 ; orr x12, x12, x2
        ; add x0, x0, #8 ; sub x1, x1, #1 ; cbnz x1, <more);
    verdict(asm, ", memory ");
    // The clock goes on, but not as if a day had passed: at most 2^40 ticks.
    a64!(asm ; mrs x13, CNTVCT_EL0 ; sub x13, x13, x9 ; lsr x12, x13, #40);
    verdict(asm, ", clock ");
    asm.say_dec(", polls ", 8);
    asm.say("\n");
    a64!(asm ; b ->next);
}

/// Prints `what`, and `ok` if x12 is 0, otherwise `bad`.
fn verdict(asm: &mut Asm, what: &str) {
    asm.say(what);
    asm.text(1, "bad");
    asm.text(0, "ok");
    a64!(asm ; cmp x12, #0 ; csel x0, x0, x1, eq ; bl ->puts);
}
