//! Aborts taken to AArch32 Abort mode.

use crate::registers::sctlr;
use crate::{Mode, Pstate, Reg, Registers};

/// An abort that an AArch32 EL1 takes, with the FSR that describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort32 {
    /// Prefetch Abort: vector 0x0c, `LR_abt` = PC + 4, `IFSR` and `IFAR`.
    Prefetch {
        /// `IFSR`.
        ifsr: u32,
        /// `IFAR`.
        ifar: u32,
    },
    /// Data Abort: vector 0x10, `LR_abt` = PC + 8, `DFSR` and `DFAR`.
    Data {
        /// `DFSR`.
        dfsr: u32,
        /// `DFAR`; unchanged if `None` (asynchronous aborts).
        dfar: Option<u32>,
    },
}

/// Takes an abort into AArch32 Abort mode: FSR, FAR, `LR_abt`, `SPSR_abt`, CPSR and PC.
///
/// The CPSR of the handler: NZCV, Q, GE, DIT, F and PAN kept (PAN set if `SCTLR.SPAN` is 0); E from
/// `SCTLR.EE`, T from `SCTLR.TE`, SSBS from `SCTLR.DSSBS`; IT, IL and SS 0; A and I set. DIT of `SPSR_abt` is
/// at `[21]`, its place in AArch32.
///
/// Source: DDI 0487, `AArch32.TakePrefetchAbortException`, `AArch32.TakeDataAbortException`,
/// `AArch32.EnterMode`.
pub fn take_abort32(cpu: &mut impl Registers, abort: Abort32) {
    let old = Pstate::from_bits(cpu.reg(Reg::Pstate));
    let sctlr = cpu.reg(Reg::SctlrEl1);
    let (return_offset, vector) = match abort {
        Abort32::Prefetch { .. } => (4, 0x0c),
        Abort32::Data { .. } => (8, 0x10),
    };
    report_abort32(cpu, abort);
    let return_address = (cpu.reg(Reg::Pc) as u32).wrapping_add(return_offset);
    // LR_abt is X20: DDI 0487 D1.20.2.
    cpu.set_reg(Reg::X(20), return_address.into());
    cpu.set_reg(Reg::SpsrAbt, old.to_aarch32_spsr());
    cpu.set_reg(Reg::Pstate, abort_mode_cpsr(old, sctlr).bits());
    let base = if sctlr & sctlr::V != 0 { 0xffff_0000 } else { cpu.reg(Reg::VbarEl1) as u32 };
    cpu.set_reg(Reg::Pc, base.wrapping_add(vector).into());
}

/// Writes the FSR and the FAR of an abort without taking it.
///
/// Source: DDI 0487, `AArch32.ReportDataAbort`, `AArch32.ReportPrefetchAbort`.
pub fn report_abort32(cpu: &mut impl Registers, abort: Abort32) {
    let far = cpu.reg(Reg::FarEl1);
    match abort {
        Abort32::Prefetch { ifsr, ifar } => {
            cpu.set_reg(Reg::Ifsr32, ifsr.into());
            cpu.set_reg(Reg::FarEl1, far & 0xffff_ffff | u64::from(ifar) << 32);
        }
        Abort32::Data { dfsr, dfar } => {
            cpu.set_reg(Reg::EsrEl1, dfsr.into());
            if let Some(dfar) = dfar {
                cpu.set_reg(Reg::FarEl1, far & !0xffff_ffff | u64::from(dfar));
            }
        }
    }
}

fn abort_mode_cpsr(old: Pstate, sctlr: u64) -> Pstate {
    let kept = Pstate::NZCV | Pstate::Q | Pstate::GE | Pstate::DIT | Pstate::PAN | Pstate::F;
    let mut new = old.masked(kept) | Pstate::A | Pstate::I;
    let set = |on: bool, bits: u64| if on { bits } else { 0 };
    new |= set(sctlr & sctlr::SPAN == 0, Pstate::PAN);
    new |= set(sctlr & sctlr::DSSBS32 != 0, Pstate::SSBS32);
    new |= set(sctlr & sctlr::EE != 0, Pstate::E);
    new |= set(sctlr & sctlr::TE != 0, Pstate::T);
    Pstate::from_bits(new | u64::from(Mode::Abort.bits()))
}
