//! The four tasks: the computation of each, its data, and the checksum of a good round.
//!
//! A round's work reads every line of the task's data, so that it meets any poison there within one round,
//! and its checksum depends on every word read. The checksums are computed here a second time, in Rust.

use crate::asm::{Asm, a64};
use crate::kernel::ROUND_DONE;
use crate::layout::{DATA_VA, LINE, MAIN_LOOP, PAGE, REGION_PAGES, TASKS, WORK};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// Bytes of a task's data, and of its text.
const BYTES: u64 = REGION_PAGES * PAGE;
/// Lines of a task's data.
const LINES: u64 = BYTES / LINE;
/// FNV-1a, 64 bits: offset basis and prime.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
/// The log's entry n is n times this.
const LOG_ENTRY: u64 = 0x9e37_79b9_7f4a_7c15;

/// Names of the tasks, in the order of their numbers.
pub(crate) const NAMES: [&str; TASKS] = ["web", "db", "batch", "log"];

/// The parts of a task for the loader.
pub(crate) struct Program {
    pub(crate) text: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) expected: u64,
}

/// The tasks, in the order of [`NAMES`].
pub(crate) fn programs() -> [Program; TASKS] {
    [web(), db(), batch(), log()]
}

/// `web` answers requests: it hashes two pages of them, word by word.
fn web() -> Program {
    let data = noise(1);
    let expected = data.iter().fold(FNV_BASIS, |hash, word| (hash ^ word).wrapping_mul(FNV_PRIME));
    let text = program(|asm| {
        asm.constant(0, FNV_BASIS);
        asm.constant(1, DATA_VA);
        asm.constant(2, DATA_VA + BYTES);
        asm.constant(3, FNV_PRIME);
        a64!(asm ; next: ; ldr x4, [x1], #8 ; eor x0, x0, x4 ; mul x0, x0, x3 ; cmp x1, x2 ; b.lo <next);
    });
    Program { text, data: to_bytes(&data), expected }
}

/// `db` follows an index: a linked list of 128 records, one in each line, in an order far from that of addresses.
fn db() -> Program {
    let keys = noise(2);
    let slot = |n: u64| n * 37 % LINES;
    let mut data = vec![0; keys.len()];
    let mut expected: u64 = 0;
    for n in 0..LINES {
        let record = (slot(n) * LINE / 8) as usize;
        let next = if n + 1 < LINES { DATA_VA + slot(n + 1) * LINE } else { 0 };
        let key = keys[n as usize];
        data[record] = next;
        data[record + 1] = key;
        expected = expected.rotate_right(7).wrapping_add(key);
    }
    let text = program(|asm| {
        asm.constant(1, DATA_VA + slot(0) * LINE);
        a64!(asm ; movz x0, #0 ; next: ; ldp x1, x2, [x1] ; ror x0, x0, #7 ; add x0, x0, x2 ; cbnz x1, <next);
    });
    Program { text, data: to_bytes(&data), expected }
}

/// `batch` does sums: the dot product of its two pages.
fn batch() -> Program {
    let data = noise(3);
    let (left, right) = data.split_at(data.len() / 2);
    let expected = left.iter().zip(right).fold(0u64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
    let text = program(|asm| {
        asm.constant(1, DATA_VA);
        asm.constant(2, DATA_VA + BYTES / 2);
        asm.constant(3, DATA_VA + BYTES / 2);
        a64!(asm
            ; movz x0, #0
            ; next:
            ; ldr x4, [x1], #8
            ; ldr x5, [x2], #8
            ; madd x0, x4, x5, x0
            ; cmp x1, x3
            ; b.lo <next);
    });
    Program { text, data: to_bytes(&data), expected }
}

/// `log` writes 128 entries, one in each line, and reads them back. No other task stores to its data.
fn log() -> Program {
    let expected =
        (1..=LINES).fold(0u64, |sum, n| (sum ^ n.wrapping_mul(LOG_ENTRY)).rotate_right(13).wrapping_add(n));
    let text = program(|asm| {
        asm.constant(1, DATA_VA);
        asm.constant(2, DATA_VA + BYTES);
        asm.constant(3, LOG_ENTRY);
        a64!(asm ; movz x4, #0 ; write:
            ; add x4, x4, #1
            ; mul x5, x4, x3
            ; stp x4, x5, [x1], #64
            ; cmp x1, x2
            ; b.lo <write);
        asm.constant(1, DATA_VA);
        a64!(asm ; movz x0, #0 ; read:
            ; ldp x4, x5, [x1], #64
            ; eor x0, x0, x5
            ; ror x0, x0, #13
            ; add x0, x0, x4
            ; cmp x1, x2
            ; b.lo <read);
    });
    Program { text, data: vec![0; BYTES as usize], expected }
}

/// A task's text: the main loop in the first page, `work` (result in x0) in the second.
fn program(work: impl FnOnce(&mut Asm)) -> Vec<u8> {
    let mut asm = Asm::new();
    a64!(asm ; b ->main);
    asm.pad_to(MAIN_LOOP);
    a64!(asm ; ->main: ; bl ->work ; svc ROUND_DONE ; b ->main);
    asm.pad_to(WORK);
    a64!(asm ; ->work: ; stp x29, x30, [sp, #-16]! ; mov x29, sp);
    work(&mut asm);
    a64!(asm ; ldp x29, x30, [sp], #16 ; ret);
    asm.finish(BYTES)
}

/// [`BYTES`] of reproducible noise, as words: splitmix64.
fn noise(seed: u64) -> Vec<u64> {
    let mut state = seed;
    (0..BYTES / 8)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        })
        .collect()
}

fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
