//! The assembler behind all guests: `dynasmrt`'s, with what its dialect lacks.
//!
//! System registers are numbers in that dialect ([`sysreg`] makes them), strings have no pool ([`Asm::text`] has
//! one), and no instruction loads a 64-bit constant ([`Asm::constant`] does).

use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler};

/// `a64!(asm ; instruction ; …)` is `dynasm!` for AArch64, with names for the registers that the kernel keeps for
/// itself from an exception's entry to its end.
macro_rules! a64 {
    ($asm:expr ; $($code:tt)*) => {
        dynasmrt::dynasm!($asm.ops
            ; .arch aarch64
            ; .alias task, x19
            ; .alias kernel, x20
            ; .alias esr, x21
            ; .alias far, x22
            ; .alias elr, x23
            ; .alias spsr, x24
            ; .alias frame, x25
            ; .alias entry, x26
            ; .alias spare, x27
            ; .alias reason, x28
            ; $($code)*)
    };
}
pub(crate) use a64;

/// Numbers of the registers that [`a64`] names, for instructions that take a number.
pub(crate) mod named {
    pub(crate) const KERNEL: u8 = 20;
    pub(crate) const ESR: u8 = 21;
    pub(crate) const FAR: u8 = 22;
    pub(crate) const ELR: u8 = 23;
    pub(crate) const SPSR: u8 = 24;
    pub(crate) const FRAME: u8 = 25;
    pub(crate) const ENTRY: u8 = 26;
    pub(crate) const SPARE: u8 = 27;
    pub(crate) const REASON: u8 = 28;
}

/// The operand of MRS and MSR: op0, op1, CRn, CRm, op2 as DDI 0487 C5.3 prints them, packed in instruction bits `[19:5]`.
pub(crate) const fn sysreg(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    (op0 & 1) << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

pub(crate) const SCTLR_EL1: u32 = sysreg(3, 0, 1, 0, 0);
pub(crate) const TTBR0_EL1: u32 = sysreg(3, 0, 2, 0, 0);
pub(crate) const TTBR1_EL1: u32 = sysreg(3, 0, 2, 0, 1);
pub(crate) const TCR_EL1: u32 = sysreg(3, 0, 2, 0, 2);
pub(crate) const SPSR_EL1: u32 = sysreg(3, 0, 4, 0, 0);
pub(crate) const ELR_EL1: u32 = sysreg(3, 0, 4, 0, 1);
pub(crate) const SP_EL0: u32 = sysreg(3, 0, 4, 1, 0);
pub(crate) const ESR_EL1: u32 = sysreg(3, 0, 5, 2, 0);
pub(crate) const FAR_EL1: u32 = sysreg(3, 0, 6, 0, 0);
pub(crate) const MAIR_EL1: u32 = sysreg(3, 0, 10, 2, 0);
pub(crate) const VBAR_EL1: u32 = sysreg(3, 0, 12, 0, 0);
pub(crate) const TPIDR_EL1: u32 = sysreg(3, 0, 13, 0, 4);
pub(crate) const CTR_EL0: u32 = sysreg(3, 3, 0, 0, 1);

/// Code being assembled, and the strings that will follow it.
pub(crate) struct Asm {
    pub(crate) ops: VecAssembler<Aarch64Relocation>,
    strings: Vec<(DynamicLabel, String)>,
}

impl Asm {
    /// An empty program that will run at `base`, or anywhere: all guests' code is position independent.
    pub(crate) fn new() -> Self {
        Self { ops: VecAssembler::new(0), strings: Vec::new() }
    }

    /// Offset of the next instruction, in bytes from the start.
    pub(crate) fn here(&self) -> u64 {
        self.ops.offset().0 as u64
    }

    /// Fills with zeros (UDF #0, an undefined instruction) up to `offset` bytes from the start.
    ///
    /// # Panics
    /// If the code is already longer: a mistake in this crate, seen by every test.
    pub(crate) fn pad_to(&mut self, offset: u64) {
        let here = self.here();
        assert!(here <= offset, "code ends at {here:#x}, behind {offset:#x}");
        for _ in here..offset {
            self.ops.push(0);
        }
    }

    /// Xn = `value`: MOVZ and as many MOVK as it takes.
    pub(crate) fn constant(&mut self, xn: u8, value: u64) {
        a64!(self ; movz X(xn), (value & 0xffff) as u32);
        if value >> 16 & 0xffff != 0 {
            a64!(self ; movk X(xn), (value >> 16 & 0xffff) as u32, LSL #16);
        }
        if value >> 32 & 0xffff != 0 {
            a64!(self ; movk X(xn), (value >> 32 & 0xffff) as u32, LSL #32);
        }
        if value >> 48 != 0 {
            a64!(self ; movk X(xn), (value >> 48) as u32, LSL #48);
        }
    }

    /// Xn = address of `text`, NUL-terminated.
    pub(crate) fn text(&mut self, xn: u8, text: &str) {
        let known = self.strings.iter().find(|(_, s)| s == text).map(|(label, _)| *label);
        let label = known.unwrap_or_else(|| {
            let label = self.ops.new_dynamic_label();
            self.strings.push((label, text.to_owned()));
            label
        });
        a64!(self ; adr X(xn), =>label);
    }

    /// The program: code, strings, and zeros up to `len` bytes.
    ///
    /// # Panics
    /// If a label is missing or the program is longer than `len`: a mistake in this crate, seen by every test.
    pub(crate) fn finish(mut self, len: u64) -> Vec<u8> {
        for (label, text) in std::mem::take(&mut self.strings) {
            self.ops.dynamic_label(label);
            self.ops.extend(text.as_bytes());
            self.ops.push(0);
        }
        self.pad_to(len);
        self.ops.finalize().expect("every label of a built-in guest is defined")
    }
}
