//! Exception handlers that read their registers and report them by MMIO.

use super::{REPORT, VECTORS};

/// The report of an AArch64 handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Address of the vector that was entered.
    pub(crate) vector: u64,
    pub(crate) esr: u64,
    pub(crate) far: u64,
    pub(crate) elr: u64,
    pub(crate) spsr: u64,
    /// `[9:6]`, as MRS returns it.
    pub(crate) daif: u64,
}

impl Report {
    pub(super) fn from_words([vector, esr, far, elr, spsr, daif, ..]: [u64; 8]) -> Self {
        Self { vector, esr, far, elr, spsr, daif }
    }
}

/// The report of an AArch32 handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report32 {
    /// Address of the vector that was entered.
    pub(crate) vector: u64,
    pub(crate) dfsr: u64,
    pub(crate) ifsr: u64,
    pub(crate) dfar: u64,
    pub(crate) ifar: u64,
    pub(crate) lr: u64,
    /// As MRS returns it: NZCV, Q, GE, E, A, I, F and the mode.
    pub(crate) cpsr: u64,
}

impl Report32 {
    pub(super) fn from_words([vector, dfsr, ifsr, dfar, ifar, lr, _, cpsr]: [u64; 8]) -> Self {
        Self { vector: VECTORS + vector, dfsr, ifsr, dfar, ifar, lr, cpsr }
    }
}

const _: () = assert!(REPORT == 0x0a00_0000 && VECTORS % 0x800 == 0);

/// A vector table whose 16 vectors report, and then return from the exception.
pub(super) fn el1() -> Vec<u8> {
    // mrs x11, esr_el1; mrs x12, far_el1; mrs x13, elr_el1; mrs x14, spsr_el1
    aarch64([0xd538_520b, 0xd538_600c, 0xd538_402d, 0xd538_400e])
}

/// The same for EL2.
pub(super) fn el2() -> Vec<u8> {
    // mrs x11, esr_el2; mrs x12, far_el2; mrs x13, elr_el2; mrs x14, spsr_el2
    aarch64([0xd53c_520b, 0xd53c_600c, 0xd53c_402d, 0xd53c_400e])
}

fn aarch64([esr, far, elr, spsr]: [u32; 4]) -> Vec<u8> {
    let handler = [
        0x1000_000a, // adr x10, .
        0xd2a1_4009, // movz x9, #0x0a00, lsl #16
        esr,
        far,
        elr,
        spsr,
        0xd53b_422f, // mrs x15, daif
        0xf900_012a, // str x10, [x9]
        0xf900_052b, // str x11, [x9, #8]
        0xf900_092c, // str x12, [x9, #16]
        0xf900_0d2d, // str x13, [x9, #24]
        0xf900_112e, // str x14, [x9, #32]
        0xf900_152f, // str x15, [x9, #40]
        0xf900_193f, // str xzr, [x9, #48]
        0xf900_1d3f, // str xzr, [x9, #56]
        0xd69f_03e0, // eret
    ];
    (0..16).flat_map(|_| padded(&handler)).collect()
}

/// Eight branches, and the handlers after them. They do not return. LR is copied through R11: the syndrome of
/// a store of a banked register would need its AArch64 name, and QEMU's software CPU (10.0) gives the AArch32
/// one.
pub(super) fn aarch32() -> Vec<u8> {
    // b VECTORS + 0x100 + 0x80 * n
    let branches: Vec<u32> = (0..8).map(|n| 0xea00_003e + 0x1f * n).collect();
    let mut code: Vec<u8> = branches.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.resize(0x100, 0);
    for n in 0..8 {
        code.extend(padded(&[
            0xe300_9000,         // movw r9, #0
            0xe340_9a00,         // movt r9, #0x0a00
            0xe3a0_a000 + 4 * n, // mov r10, #4 * n
            0xe589_a000,         // str r10, [r9]
            0xee15_bf10,         // mrc p15, 0, r11, c5, c0, 0: DFSR
            0xe589_b004,         // str r11, [r9, #4]
            0xee15_bf30,         // mrc p15, 0, r11, c5, c0, 1: IFSR
            0xe589_b008,         // str r11, [r9, #8]
            0xee16_bf10,         // mrc p15, 0, r11, c6, c0, 0: DFAR
            0xe589_b00c,         // str r11, [r9, #12]
            0xee16_bf50,         // mrc p15, 0, r11, c6, c0, 2: IFAR
            0xe589_b010,         // str r11, [r9, #16]
            0xe1a0_b00e,         // mov r11, lr
            0xe589_b014,         // str r11, [r9, #20]
            0xe589_a018,         // str r10, [r9, #24]
            0xe10f_b000,         // mrs r11, cpsr
            0xe589_b01c,         // str r11, [r9, #28]
            0xeaff_fffe,         // b .
        ]));
    }
    code
}

/// 0x80 bytes, filled up with zeros.
fn padded(words: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(0x80, 0);
    bytes
}
