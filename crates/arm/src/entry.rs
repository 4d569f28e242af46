//! Exception entry into AArch64 state.

use crate::registers::{sctlr, sctlr2};
use crate::{Esr, ExceptionLevel, Mode, Pstate, Reg, Registers};

/// The Exception level that takes an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// EL1.
    El1,
    /// EL2: a guest hypervisor, or a hypervisor itself.
    El2,
}

/// One of the four vectors in a group of `VBAR_ELx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vector {
    /// Offset 0x000.
    Synchronous,
    /// Offset 0x080.
    Irq,
    /// Offset 0x100.
    Fiq,
    /// Offset 0x180.
    SError,
}

impl Vector {
    /// The offset within the group, in bytes.
    pub const fn offset(self) -> u64 {
        match self {
            Self::Synchronous => 0x000,
            Self::Irq => 0x080,
            Self::Fiq => 0x100,
            Self::SError => 0x180,
        }
    }
}

/// An exception to take. The preferred return address is the current PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The Exception level that takes it.
    pub target: Target,
    /// The vector.
    pub vector: Vector,
    /// `ESR_ELx`; unchanged if `None` (interrupts).
    pub esr: Option<Esr>,
    /// `FAR_ELx`; unchanged if `None`.
    pub far: Option<u64>,
}

/// The state outside of the registers on which exception entry depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryContext {
    /// The CPU has `FEAT_MTE2`: PSTATE.TCO is set on entry.
    pub mte: bool,
    /// The CPU has `FEAT_NMI`: PSTATE.ALLINT is set on entry, or cleared if `SCTLR_ELx.SPINTMASK`.
    pub nmi: bool,
    /// For EL2: `SCTLR_EL2.SPAN` has an effect, as EL2 hosts EL0 (E2H and TGE).
    pub span_at_el2: bool,
    /// For EL2, taken from AArch32 EL0 below an AArch64 EL1: the vector is the one for AArch64.
    pub el1_is_aarch64: bool,
    /// `VBAR_ELx[10:0]`, RES0 in the architecture, are added to the vector as well.
    pub vbar_low_bits: bool,
}

/// The vector for a synchronous external abort: that of SErrors if `SCTLR2_ELx.EASE` is set.
///
/// `sctlr2` is the effective value at the target: 0 where `FEAT_DoubleFault2` is absent or EL2 does
/// not enable it.
///
/// Source: DDI 0487, `AArch64.TakeException`; rule for `SCTLR2_EL1.EASE`.
pub const fn synchronous_abort_vector(sctlr2: u64) -> Vector {
    if sctlr2 & sctlr2::EASE != 0 { Vector::SError } else { Vector::Synchronous }
}

/// Takes an exception into AArch64 state: ELR, SPSR, ESR, FAR, PSTATE and PC of the target.
///
/// The PSTATE of the handler: NZCV, DIT and PAN kept (PAN set if `SCTLR.SPAN` is 0); SSBS from `SCTLR.DSSBS`;
/// TCO and ALLINT by [`EntryContext`]; UAO, SS, IL and BTYPE 0; D, A, I and F set; mode `ELxh`. Bits
/// `[63:32]` are 0: the effects of `FEAT_GCS` (EXLOCK) and `FEAT_EBEP` (PM) on entry are not modelled.
///
/// Source: DDI 0487, `AArch64.TakeException`.
pub fn take_exception(cpu: &mut impl Registers, exception: &Exception, context: EntryContext) {
    // Each with its registers as constants, so that a CPU in software finds them without a search.
    match exception.target {
        Target::El1 => enter(cpu, exception, &Bank::EL1, context),
        Target::El2 => enter(cpu, exception, &Bank::EL2, context),
    }
}

// Only then are they constants.
#[allow(clippy::inline_always)]
#[inline(always)]
fn enter(cpu: &mut impl Registers, exception: &Exception, bank: &Bank, context: EntryContext) {
    let old = Pstate::from_bits(cpu.reg(Reg::Pstate));
    let sctlr = cpu.reg(bank.sctlr);
    let group = vector_group(old, exception.target, context);
    let span = exception.target == Target::El1 || context.span_at_el2;

    cpu.set_reg(bank.elr, cpu.reg(Reg::Pc));
    cpu.set_reg(bank.spsr, old.bits());
    if let Some(esr) = exception.esr {
        cpu.set_reg(bank.esr, esr.bits());
    }
    if let Some(far) = exception.far {
        cpu.set_reg(bank.far, far);
    }
    cpu.set_reg(Reg::Pstate, entry_pstate(old, exception.target, sctlr, span, context).bits());
    let vbar = cpu.reg(bank.vbar) & if context.vbar_low_bits { !0 } else { !0x7ff };
    cpu.set_reg(Reg::Pc, vbar.wrapping_add(group).wrapping_add(exception.vector.offset()));
}

/// The registers of the target.
struct Bank {
    elr: Reg,
    spsr: Reg,
    esr: Reg,
    far: Reg,
    vbar: Reg,
    sctlr: Reg,
}

impl Bank {
    const EL1: Self = Self {
        elr: Reg::ElrEl1,
        spsr: Reg::SpsrEl1,
        esr: Reg::EsrEl1,
        far: Reg::FarEl1,
        vbar: Reg::VbarEl1,
        sctlr: Reg::SctlrEl1,
    };
    const EL2: Self = Self {
        elr: Reg::ElrEl2,
        spsr: Reg::SpsrEl2,
        esr: Reg::EsrEl2,
        far: Reg::FarEl2,
        vbar: Reg::VbarEl2,
        sctlr: Reg::SctlrEl2,
    };
}

/// The offset of the group of four vectors, which depends on the source of the exception.
fn vector_group(old: Pstate, target: Target, context: EntryContext) -> u64 {
    const CURRENT_SP_EL0: u64 = 0x000;
    const CURRENT_SP_ELX: u64 = 0x200;
    const LOWER_AARCH64: u64 = 0x400;
    const LOWER_AARCH32: u64 = 0x600;

    let target_level = match target {
        Target::El1 => ExceptionLevel::El1,
        Target::El2 => ExceptionLevel::El2,
    };
    if old.is_aarch32() {
        let past_el1 = target == Target::El2 && old.exception_level() == ExceptionLevel::El0;
        return if past_el1 && context.el1_is_aarch64 { LOWER_AARCH64 } else { LOWER_AARCH32 };
    }
    if old.exception_level() < target_level {
        return LOWER_AARCH64;
    }
    // M[0] of the AArch64 modes is PSTATE.SP.
    if old.has(1) { CURRENT_SP_ELX } else { CURRENT_SP_EL0 }
}

fn entry_pstate(old: Pstate, target: Target, sctlr: u64, span: bool, context: EntryContext) -> Pstate {
    let mut new = old.masked(Pstate::NZCV | Pstate::DIT | Pstate::PAN);
    let set = |on: bool, bits: u64| if on { bits } else { 0 };
    new |= set(span && sctlr & sctlr::SPAN == 0, Pstate::PAN);
    new |= set(sctlr & sctlr::DSSBS != 0, Pstate::SSBS);
    new |= set(context.mte, Pstate::TCO);
    new |= set(context.nmi && sctlr & sctlr::SPINTMASK == 0, Pstate::ALLINT);
    new |= Pstate::DAIF;
    new |= match target {
        Target::El1 => u64::from(Mode::El1h.bits()),
        Target::El2 => u64::from(Mode::El2h.bits()),
    };
    Pstate::from_bits(new)
}
