//! The programs.
//!
//! Registers: x19 rounds, x20 bytes of a page, x21 this round from 1, x22 the named page, x23 to x26 for the
//! program; see `runtime` for the others.

use super::elf::{self, HEADERS};
use super::runtime::{self, call};
use super::{MAX_PAGE, TEXT};
use crate::asm::{Asm, a64};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// The programs' names.
pub const PROGRAMS: [&str; 6] = ["code", "anonymous", "shared-a", "shared-b", "witness", "device"];

/// Rounds between two `alive` lines.
const SIGN: u32 = 10;
/// Nanoseconds between rounds.
const SLEEP: u64 = 10_000_000;
/// `code` and `witness` count to this plus the round's number.
const COUNT: u32 = 1000;
/// log2 of the number of pages of `anonymous`, and of the index of the named one.
const PAGES_SHIFT: u32 = 4;
const NAMED_SHIFT: u32 = 3;
/// log2 of the bytes of a word.
const WORD_SHIFT: u32 = 3;
/// `anonymous` stores in word n of round r: r times this, plus n.
const STRIDE: u32 = 0xffff;
/// The descriptor that keeps the page of `anonymous`.
const KEEPER: u32 = 3;

/// open(2) and mmap(2): Linux, include/uapi/asm-generic/fcntl.h and mman-common.h.
const READ_ONLY: u32 = 0;
const READ_WRITE_CREATE: u32 = 0o102;
const READ_WRITE_DSYNC: u32 = 0o10002;
const PROT_READ_EXEC: u32 = 5;
const PROT_READ_WRITE: u32 = 3;
const MAP_SHARED: u32 = 1;
const MAP_PRIVATE: u32 = 2;
const MAP_PRIVATE_ANONYMOUS: u32 = 0x22;

/// The RTC of `virt`, a PL031 (DDI 0224): its address, its match register, and its four PrimeCell IDs: 0xd,
/// 0xf0, 0x5, 0xb1.
const RTC: u64 = 0x0901_0000;
const RTC_MATCH: u32 = 0x004;
const RTC_CELL_ID: u32 = 0xff0;

/// The file of one of [`PROGRAMS`]; `None` for another name.
pub fn program(name: &str) -> Option<Vec<u8>> {
    Some(match name {
        "code" => elf::executable(
            &text(name, start_code, |asm| count_by(asm, |asm| a64!(asm ; blr x22))),
            &function(),
        ),
        "anonymous" => elf::executable(&text(name, start_anonymous, work_anonymous), &[]),
        "shared-a" => {
            elf::executable(&text(name, |asm| start_shared(asm, true), |asm| work_shared(asm, 0, 8)), &[])
        }
        "shared-b" => {
            elf::executable(&text(name, |asm| start_shared(asm, false), |asm| work_shared(asm, 8, 0)), &[])
        }
        "witness" => {
            elf::executable(&text(name, |_| (), |asm| count_by(asm, |asm| a64!(asm ; bl ->count))), &[])
        }
        "device" => elf::executable(&text(name, start_device, work_device), &[]),
        _ => return None,
    })
}

/// A program's text: its start, then rounds of its work.
fn text(name: &str, start: impl FnOnce(&mut Asm), work: impl FnOnce(&mut Asm)) -> Vec<u8> {
    let mut asm = Asm::new();
    runtime::emit_entry(&mut asm);
    start(&mut asm);
    a64!(asm ; movz x21, #0 ; ->round: ; cmp x21, x19 ; b.hs ->done ; add x21, x21, #1);
    work(&mut asm);
    a64!(asm ; movz x0, SIGN ; udiv x1, x21, x0 ; msub x1, x1, x0, x21 ; cbnz x1, ->sleep);
    asm.append(&format!("{name}: alive "));
    a64!(asm ; mov x0, x21 ; bl ->decimal ; bl ->flush ; ->sleep:);
    asm.constant(1, SLEEP);
    a64!(asm ; stp xzr, x1, [sp] ; mov x0, sp ; movz x1, #0);
    asm.call(call::NANOSLEEP);
    a64!(asm ; b ->round ; ->done:);
    asm.exit(0);
    a64!(asm ; ->count:);
    count(&mut asm);
    runtime::emit(&mut asm, name);
    asm.finish(TEXT - HEADERS)
}

/// x0 = 1 + 2 + … + x0, by adding. Changes x1 and the flags.
fn count(asm: &mut Asm) {
    a64!(asm
        ; movz x1, #0
        ; next: ; add x1, x1, x0 ; subs x0, x0, #1 ; b.ne <next
        ; mov x0, x1
        ; ret);
}

/// [`count`], for a page of its own.
fn function() -> Vec<u8> {
    let mut asm = Asm::new();
    count(&mut asm);
    asm.finish(TEXT)
}

/// Lets `call` do the sum, and compares with n (n + 1) / 2.
fn count_by(asm: &mut Asm, call: impl FnOnce(&mut Asm)) {
    a64!(asm ; add x0, x21, COUNT);
    call(asm);
    a64!(asm
        ; add x2, x21, COUNT
        ; madd x3, x2, x2, x2
        ; cmp x0, x3, lsr #1
        ; b.ne ->wrong);
}

/// x0 = address of a new mapping of x1 bytes, of the file in x4 from an offset, if it is not anonymous.
fn map(asm: &mut Asm, protection: u32, flags: u32, offset: u64) {
    asm.constant(5, offset);
    a64!(asm ; movz x0, #0 ; movz x2, protection ; movz x3, flags);
    asm.must_call(call::MMAP);
}

/// x22 = the function, mapped from the program's own file and called once.
fn start_code(asm: &mut Asm) {
    asm.open("/proc/self/exe", READ_ONLY);
    a64!(asm ; mov x4, x0 ; mov x1, x20);
    map(asm, PROT_READ_EXEC, MAP_PRIVATE, MAX_PAGE);
    a64!(asm ; mov x22, x0 ; movz x0, #1 ; blr x22);
    asm.name_page("code");
}

/// x24 = the memory of x25 words, with each word's number in it; x22 = one of its pages, to which the keeper
/// has a reference as well.
fn start_anonymous(asm: &mut Asm) {
    a64!(asm ; movn x4, #0 ; lsl x1, x20, PAGES_SHIFT);
    map(asm, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, 0);
    a64!(asm
        ; mov x24, x0
        ; lsl x25, x20, PAGES_SHIFT - WORD_SHIFT
        ; movz x1, #0
        ; fill: ; str x1, [x0], #8 ; add x1, x1, #1 ; cmp x1, x25 ; b.lo <fill
        ; add x22, x24, x20, lsl NAMED_SHIFT
        // struct iovec
        ; stp x22, x20, [sp]
        ; movz x0, KEEPER
        ; mov x1, sp
        ; movz x2, #1
        ; movz x3, #0);
    asm.call(call::VMSPLICE);
    asm.name_page("anonymous");
}

/// Checks that every word is the one stored in the round before, then stores this round's.
fn work_anonymous(asm: &mut Asm) {
    a64!(asm
        ; movz x0, STRIDE
        ; sub x1, x21, #1
        ; mul x1, x1, x0
        ; mov x2, x24
        ; add x3, x24, x25, lsl #3
        ; word:
        ; ldr x4, [x2]
        ; cmp x4, x1
        ; b.ne ->wrong
        ; add x4, x4, x0
        ; str x4, [x2], #8
        ; add x1, x1, #1
        ; cmp x2, x3
        ; b.lo <word);
}

/// x22 = the shared page; x23 and x24 = 0, the last known values of the counters.
fn start_shared(asm: &mut Asm, names_it: bool) {
    asm.open("/run/shared", READ_WRITE_CREATE);
    a64!(asm ; mov x23, x0 ; mov x1, x20);
    asm.must_call(call::FTRUNCATE);
    a64!(asm ; mov x4, x23 ; mov x1, x20);
    map(asm, PROT_READ_WRITE, MAP_SHARED, 0);
    a64!(asm ; mov x22, x0 ; movz x23, #0 ; movz x24, #0 ; ldr x0, [x22]);
    if names_it {
        asm.name_page("shared");
    }
}

/// The own counter is unchanged and goes up by one; the other's never goes down.
fn work_shared(asm: &mut Asm, own: u32, other: u32) {
    a64!(asm
        ; ldr x0, [x22, own]
        ; cmp x0, x23
        ; b.ne ->wrong
        ; add x23, x23, #1
        ; str x23, [x22, own]
        ; ldr x0, [x22, other]
        ; cmp x0, x24
        ; b.lo ->wrong
        ; mov x24, x0);
}

/// x22 = the RTC, x23 = its IDs, x24 = its match register. Prints the result of each kind of access that no
/// syndrome describes (DDI 0487, ISS encoding for an exception from a Data Abort: ISV).
fn start_device(asm: &mut Asm) {
    asm.open("/dev/mem", READ_WRITE_DSYNC);
    a64!(asm ; mov x4, x0 ; mov x1, x20);
    map(asm, PROT_READ_WRITE, MAP_SHARED, RTC);
    a64!(asm
        ; mov x22, x0
        ; add x23, x22, RTC_CELL_ID
        ; add x24, x22, RTC_MATCH
        ; ldp w9, w10, [x23]);
    tell(asm, "pair", &[9, 10]);
    a64!(asm ; mov x11, x23 ; ldr w9, [x11], #4 ; sub x10, x11, x23);
    tell(asm, "post-index", &[9, 10]);
    a64!(asm
        ; movz w12, #0x1234
        ; again: ; ldxr w9, [x24] ; stxr w11, w12, [x24] ; cbnz w11, <again
        ; ldr w10, [x24]);
    tell(asm, "exclusive", &[9, 10]);
    a64!(asm
        ; ldr q0, [x23]
        ; umov w9, v0.s[0] ; umov w10, v0.s[1] ; umov w11, v0.s[2] ; umov w12, v0.s[3]);
    tell(asm, "SIMD", &[9, 10, 11, 12]);
    a64!(asm ; mov x11, x24 ; movz w12, #0x5678 ; str w12, [x11], #4 ; ldr w9, [x24]);
    tell(asm, "post-index store", &[9]);
    a64!(asm ; str s0, [x24] ; ldr w9, [x24]);
    tell(asm, "SIMD store", &[9]);
}

/// Checks that the match register holds the last value of a pair of the IDs.
fn work_device(asm: &mut Asm) {
    a64!(asm
        ; ldp w9, w10, [x23]
        ; add w9, w9, w21
        ; str w9, [x24]
        ; ldr w10, [x24]
        ; cmp w9, w10
        ; b.ne ->wrong);
}

/// Writes a line: its kind, and these registers, from x9 to x15.
fn tell(asm: &mut Asm, what: &str, registers: &[u8]) {
    asm.append(&format!("device: {what}"));
    for &register in registers {
        asm.append(" 0x");
        a64!(asm ; mov x0, X(register) ; bl ->hexadecimal);
    }
    a64!(asm ; bl ->flush);
}
