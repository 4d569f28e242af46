//! Accesses without memory: the exit, the answer, the step over the instruction.

use seawall_arm::{Esr, ExceptionLevel, Pstate, Reg, Registers as _};
use seawall_events::kernel::{LastFault, finish_run};
use seawall_events::{MmioExit, NisvExit};
use seawall_inject::Exit;

use crate::Vcpu;

/// SCTLR_ELx.EE, data accesses of EL1 or EL2 are big-endian.
const EE: u64 = 1 << 25;
/// SCTLR_EL1.E0E, data accesses of EL0 are big-endian.
const E0E: u64 = 1 << 24;
/// ESR_ELx.ISV of a data abort.
const ISV: u64 = 1 << 24;

/// A load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The address.
    pub address: u64,
    /// The CPU's ESR_EL2 of the abort; with ISV, it describes the access.
    pub esr: Esr,
    /// Size in bytes, a power of two up to 8.
    pub bytes: u8,
    /// The direction, and the register.
    pub transfer: Transfer,
    /// True if the instruction is a halfword.
    pub narrow: bool,
}

/// A transfer between a register and memory. `None` is the zero register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Into the register.
    Load {
        /// The register.
        target: Option<u8>,
        /// True for sign extension.
        signed: bool,
        /// True for all 64 bits of the register.
        wide: bool,
    },
    /// Out of the register.
    Store {
        /// The register.
        source: Option<u8>,
    },
}

/// An MMIO access that user space has to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Size in bytes.
    pub bytes: u8,
    /// The transfer; user space has already done a store.
    pub transfer: Transfer,
    /// True if the instruction is a halfword.
    pub narrow: bool,
    /// User space's answer to a load. Without one, an access reads as zero.
    pub answer: [u8; 8],
}

impl Vcpu {
    /// The exit for an access to an address without memory. Source: api.rst, `KVM_EXIT_MMIO`,
    /// `KVM_EXIT_ARM_NISV`.
    pub fn mmio_exit(&mut self, access: &Access) -> Exit {
        let Access { address, esr, bytes, transfer, narrow } = *access;
        self.last_fault = LastFault { esr, far: address, ipa: Some(address & !0xfff) };
        finish_run(self);
        let is_write = matches!(transfer, Transfer::Store { .. });
        if esr.bits() & ISV == 0 {
            // KVM reports only WnR and the kind of fault, a translation fault.
            return Exit::Nisv(NisvExit { esr_iss: u64::from(is_write) << 6 | 4, fault_ipa: address });
        }
        self.waiting = Some(Waiting { bytes, transfer, narrow, answer: [0; 8] });
        let mut exit = MmioExit { phys_addr: address, data: [0; 8], len: bytes.into(), is_write };
        if let Transfer::Store { source } = transfer {
            let value = source.map_or(0, |source| self.reg(Reg::X(source)));
            let value = self.swap_if_big_endian(value, bytes).to_le_bytes();
            let size = usize::from(bytes).min(value.len());
            exit.data[..size].copy_from_slice(&value[..size]);
        }
        Exit::Mmio(exit)
    }

    /// Sets user space's answer to the waiting load.
    pub fn answer_mmio(&mut self, data: [u8; 8]) {
        if let Some(Waiting { transfer: Transfer::Load { .. }, answer, .. }) = &mut self.waiting {
            *answer = data;
        }
    }

    /// The SCTLR in effect.
    pub fn sctlr(&self) -> Reg {
        if self.is_hyp_context() { Reg::SctlrEl2 } else { Reg::SctlrEl1 }
    }

    /// Swaps the value if the guest is big-endian at that moment.
    fn swap_if_big_endian(&self, value: u64, bytes: u8) -> u64 {
        let pstate = self.pstate();
        let is_el0 = pstate.exception_level() == ExceptionLevel::El0;
        let is_big = if pstate.is_aarch32() {
            pstate.has(Pstate::E)
        } else {
            self.reg(self.sctlr()) & if is_el0 { E0E } else { EE } != 0
        };
        let unused = 64 - 8 * u32::from(bytes);
        if is_big { value.swap_bytes() >> unused } else { value << unused >> unused }
    }

    /// Completes the load of the last exit in the next run. Source: api.rst, `KVM_RUN`.
    pub(crate) fn write_loaded(&mut self, waiting: &Waiting) {
        let Transfer::Load { target: Some(target), signed, wide } = waiting.transfer else { return };
        let unused = 64 - 8 * u32::from(waiting.bytes);
        let mut data = self.swap_if_big_endian(u64::from_le_bytes(waiting.answer), waiting.bytes);
        if signed {
            data = ((data << unused) as i64 >> unused) as u64;
        }
        if !wide {
            data &= 0xffff_ffff;
        }
        self.set_reg(Reg::X(target), data);
    }

    /// Steps to the instruction after the access.
    pub(crate) fn step_over(&mut self, waiting: &Waiting) {
        let pstate = self.pstate();
        let is_thumb = pstate.is_aarch32() && pstate.has(Pstate::T);
        let pc = self.reg(Reg::Pc).wrapping_add(if is_thumb && waiting.narrow { 2 } else { 4 });
        let new = match (pstate.is_aarch32(), is_thumb) {
            (false, _) => pstate.bits() & !Pstate::BTYPE,
            (true, true) => advance_it(pstate.bits()),
            (true, false) => pstate.bits(),
        };
        self.set_reg(Reg::Pc, if pstate.is_aarch32() { pc & 0xffff_ffff } else { pc });
        self.set_reg(Reg::Pstate, new & !Pstate::SS);
    }
}

/// `IT` after one instruction. Source: DDI 0487, `AArch32.ITAdvance`.
fn advance_it(cpsr: u64) -> u64 {
    let it = cpsr >> 8 & 0xfc | cpsr >> 25 & 3;
    let advanced = if it.trailing_zeros() >= 3 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    cpsr & !Pstate::IT | (advanced & 0xfc) << 8 | (advanced & 3) << 25
}
