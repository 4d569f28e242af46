//! The assembler behind all guests: `dynasmrt`, with additions to its dialect.
//!
//! In that dialect system registers are numbers ([`sysreg`] makes them), strings have no pool ([`Asm::text`]
//! has one), and no instruction loads a 64-bit constant ([`Asm::constant`] does). Your own program uses
//! [`assemble!`](crate::assemble), and depends on `dynasmrt` 5 too, because the macro's code names it:
//!
//! ```
//! use seawall_guest::asm::{Asm, DynasmApi, DynasmLabelApi, ESR_EL1};
//! use seawall_guest::{UART, assemble};
//!
//! let mut asm = Asm::new();
//! assemble!(asm ; mrs x20, ESR_EL1);
//! asm.say_hex("ESR 0x", 20, 8);
//! asm.constant(0, 0x8400_0008); // PSCI SYSTEM_OFF
//! assemble!(asm ; hvc #0 ; still: ; wfi ; b <still);
//! asm.console(UART);
//! let image = asm.finish(0x1000);
//! assert_eq!(image[..4], 0xd538_5214_u32.to_le_bytes());
//! ```
//!
//! <https://censoredusername.github.io/dynasm-rs/language/> describes the dialect.
//! `crates/machine/examples/flat_guest.rs` is a whole guest.

use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynamicLabel, VecAssembler};
/// The traits that [`assemble!`](crate::assemble) needs: import them where you use it.
pub use dynasmrt::{DynasmApi, DynasmLabelApi};

/// `assemble!(asm ; instruction ; …)`: AArch64 instructions and labels, in the dialect of `dynasm!`, for an
/// [`Asm`](crate::asm::Asm).
#[macro_export]
macro_rules! assemble {
    ($asm:expr ; $($code:tt)*) => {
        #[allow(clippy::unnecessary_semicolon, clippy::used_underscore_binding, reason = "the macro's code")]
        {
            ::dynasmrt::dynasm!($asm.ops ; .arch aarch64 ; $($code)*);
        }
    };
}

/// `a64!(asm ; instruction ; …)` is [`assemble!`](crate::assemble) with names for the registers that the
/// kernel reserves from an exception's entry to its end.
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
pub const fn sysreg(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    (op0 & 1) << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// The register's number for MRS and MSR.
pub const SCTLR_EL1: u32 = sysreg(3, 0, 1, 0, 0);
/// The register's number for MRS and MSR.
pub const TTBR0_EL1: u32 = sysreg(3, 0, 2, 0, 0);
/// The register's number for MRS and MSR.
pub const TTBR1_EL1: u32 = sysreg(3, 0, 2, 0, 1);
/// The register's number for MRS and MSR.
pub const TCR_EL1: u32 = sysreg(3, 0, 2, 0, 2);
/// The register's number for MRS and MSR.
pub const SPSR_EL1: u32 = sysreg(3, 0, 4, 0, 0);
/// The register's number for MRS and MSR.
pub const ELR_EL1: u32 = sysreg(3, 0, 4, 0, 1);
/// The register's number for MRS and MSR.
pub const SP_EL0: u32 = sysreg(3, 0, 4, 1, 0);
/// The register's number for MRS and MSR.
pub const ESR_EL1: u32 = sysreg(3, 0, 5, 2, 0);
/// The register's number for MRS and MSR.
pub const FAR_EL1: u32 = sysreg(3, 0, 6, 0, 0);
/// The register's number for MRS and MSR.
pub const MAIR_EL1: u32 = sysreg(3, 0, 10, 2, 0);
/// The register's number for MRS and MSR.
pub const VBAR_EL1: u32 = sysreg(3, 0, 12, 0, 0);
/// The register's number for MRS and MSR.
pub const TPIDR_EL1: u32 = sysreg(3, 0, 13, 0, 4);
/// The register's number for MRS and MSR.
pub const CTR_EL0: u32 = sysreg(3, 3, 0, 0, 1);

/// Code being assembled, and the strings that follow it.
pub struct Asm {
    /// The instructions so far; [`assemble!`](crate::assemble) adds to them.
    pub ops: VecAssembler<Aarch64Relocation>,
    strings: Vec<(DynamicLabel, String)>,
}

impl Default for Asm {
    fn default() -> Self {
        Self::new()
    }
}

impl Asm {
    /// An empty program that will run at `base`, or anywhere: all guests' code is position independent.
    pub fn new() -> Self {
        Self { ops: VecAssembler::new(0), strings: Vec::new() }
    }

    /// Offset of the next instruction, in bytes from the start.
    pub fn here(&self) -> u64 {
        self.ops.offset().0 as u64
    }

    /// Fills with zeros (UDF #0, an undefined instruction) up to `offset` bytes from the start.
    ///
    /// # Panics
    /// If the code is already longer, a mistake in the guest.
    pub fn pad_to(&mut self, offset: u64) {
        let here = self.here();
        assert!(here <= offset, "code ends at {here:#x}, behind {offset:#x}");
        for _ in here..offset {
            self.ops.push(0);
        }
    }

    /// Xn = `value`, n from 0 to 30: MOVZ and as many MOVK as needed.
    pub fn constant(&mut self, xn: u8, value: u64) {
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
    pub fn text(&mut self, xn: u8, text: &str) {
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
    /// If a label is missing or the program is longer than `len`: a mistake in the guest.
    pub fn finish(mut self, len: u64) -> Vec<u8> {
        for (label, text) in std::mem::take(&mut self.strings) {
            self.ops.dynamic_label(label);
            self.ops.extend(text.as_bytes());
            self.ops.push(0);
        }
        self.pad_to(len);
        self.ops.finalize().expect("every label of a guest is defined")
    }
}
