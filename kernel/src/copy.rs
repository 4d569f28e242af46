//! A vCPU as `events` sees it: a copy of its registers, which remembers what was written.

use seawall_arm::{Esr, Reg};
use seawall_events::kernel::{LastFault, VcpuConfig, VcpuState, VirtualSError};

use crate::c::{Base, KvmVcpu, NO_IPA, Registers, config, seawall_walk_level, serror, written};

/// The copy, for the time of one call.
pub(crate) struct Copy<'a> {
    pub(crate) kvm: &'a KvmVcpu,
    pub(crate) base: &'a mut Base,
    /// `None` for a call that injects nothing, and so asks for none: they read as 0.
    pub(crate) registers: Option<&'a mut Registers>,
}

impl Copy<'_> {
    fn wrote(&mut self, what: u64) {
        if let Some(registers) = &mut self.registers {
            registers.written |= what;
        }
    }
}

/// The number of a register in `enum seawall_reg`; `None` for what an injection never asks for.
const fn number(reg: Reg) -> Option<u32> {
    Some(match reg {
        Reg::Pc => 0,
        Reg::Pstate => 1,
        Reg::ElrEl1 => 2,
        Reg::SpsrEl1 => 3,
        Reg::EsrEl1 => 4,
        Reg::FarEl1 => 5,
        Reg::VbarEl1 => 6,
        Reg::SctlrEl1 => 7,
        Reg::Sctlr2El1 => 8,
        Reg::TcrEl1 => 9,
        // LR_abt.
        Reg::X(20) => 10,
        Reg::SpsrAbt => 11,
        Reg::Ifsr32 => 12,
        Reg::ElrEl2 => 13,
        Reg::SpsrEl2 => 14,
        Reg::EsrEl2 => 15,
        Reg::FarEl2 => 16,
        Reg::VbarEl2 => 17,
        Reg::SctlrEl2 => 18,
        Reg::Sctlr2El2 => 19,
        Reg::HcrEl2 => 20,
        Reg::HcrxEl2 => 21,
        _ => return None,
    })
}

impl seawall_arm::Registers for Copy<'_> {
    fn reg(&self, reg: Reg) -> u64 {
        let (Some(number), Some(registers)) = (number(reg), &self.registers) else { return 0 };
        registers.reg.get(number as usize).copied().unwrap_or_default()
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        let (Some(number), Some(registers)) = (number(reg), &mut self.registers) else { return };
        if let Some(place) = registers.reg.get_mut(number as usize) {
            *place = value;
            registers.written |= 1 << number;
        }
    }
}

impl VcpuState for Copy<'_> {
    fn config(&self) -> VcpuConfig {
        let has = |bit| self.base.config & bit != 0;
        VcpuConfig {
            ras: has(config::RAS),
            mte: has(config::MTE),
            sctlr2: has(config::SCTLR2),
            el2: has(config::EL2),
            el1_aarch32: has(config::EL1_32),
        }
    }

    fn last_fault(&self) -> LastFault {
        let Some(Registers { fault, .. }) = &self.registers else { return LastFault::default() };
        LastFault {
            esr: Esr::from_bits(fault.esr),
            far: fault.far,
            ipa: (fault.ipa != NO_IPA).then_some(fault.ipa),
        }
    }

    fn walk_level(&self, va: u64, descriptor_ipa: u64) -> Option<i8> {
        let mut level = 0;
        seawall_walk_level(self.kvm, va, descriptor_ipa, &mut level).then_some(level as i8)
    }

    fn drop_mmio(&mut self) {
        self.wrote(written::NO_MMIO);
    }

    fn serror(&self) -> VirtualSError {
        VirtualSError {
            pending: self.base.serror & serror::PENDING != 0,
            vsesr: self.base.vsesr,
            held_for_el2: self.base.serror & serror::HELD != 0,
        }
    }

    fn set_serror(&mut self, serror: VirtualSError) {
        let bit = |on, bit| if on { bit } else { 0 };
        self.base.serror = bit(serror.pending, serror::PENDING) | bit(serror.held_for_el2, serror::HELD);
        self.base.vsesr = serror.vsesr;
        self.wrote(written::SERROR);
    }

    /// C refuses both ioctls before `KVM_ARM_VCPU_INIT`.
    fn is_initialised(&self) -> bool {
        true
    }

    fn has_run(&self) -> bool {
        self.base.config & config::HAS_RUN != 0
    }
}
