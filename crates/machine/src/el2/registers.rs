//! MRS and MSR of the registers that end in EL2, EL12 and EL02.
//!
//! Those of EL2 that EL1 has as well are the ones in place. Those that end in EL12 and EL02 are EL1's, which are parked while
//! EL2 runs.
//!
//! Source: DDI 0487, D24.2, the accessors of each register; D24.1.1 for what names EL2's registers when E2H is 1.

use seawall_arm::sysreg::{
    AFSR0_EL1, AFSR1_EL1, AMAIR_EL1, CNTKCTL_EL1, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0, CNTV_CTL_EL0,
    CNTV_CVAL_EL0, CNTV_TVAL_EL0, CONTEXTIDR_EL1, CPACR_EL1, ELR_EL1, ESR_EL1, FAR_EL1, HCR_EL2, HCRX_EL2,
    MAIR_EL1, SCTLR_EL1, SCTLR2_EL1, SCTLR2_EL2, SP_EL1, SPSR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1,
    VSESR_EL2,
};

use super::{Banked, hcr};
use crate::cpu::Cpu;
use crate::sysreg::id;

const VPIDR_EL2: u16 = id(3, 4, 0, 0, 0);
const VMPIDR_EL2: u16 = id(3, 4, 0, 0, 5);
const ACTLR_EL2: u16 = id(3, 4, 1, 0, 1);
const MDCR_EL2: u16 = id(3, 4, 1, 1, 1);
const CPTR_EL2: u16 = id(3, 4, 1, 1, 2);
const HSTR_EL2: u16 = id(3, 4, 1, 1, 3);
const HACR_EL2: u16 = id(3, 4, 1, 1, 7);
const VTTBR_EL2: u16 = id(3, 4, 2, 1, 0);
const VTCR_EL2: u16 = id(3, 4, 2, 1, 2);
const SPSR_IRQ: u16 = id(3, 4, 4, 3, 0);
const SPSR_FIQ: u16 = id(3, 4, 4, 3, 3);
const HPFAR_EL2: u16 = id(3, 4, 6, 0, 4);
const VDISR_EL2: u16 = id(3, 4, 12, 1, 1);
const ICC_SRE_EL2: u16 = id(3, 4, 12, 9, 5);
const TPIDR_EL2: u16 = id(3, 4, 13, 0, 2);
const CNTVOFF_EL2: u16 = id(3, 4, 14, 0, 3);

/// ICC_SRE_EL2: system registers alone (SRE, DFB, DIB), and EL1 has ICC_SRE_EL1.
const SRE: u64 = 0xf;
/// VSESR_EL2 and VDISR_EL2: IDS and ISS; VDISR_EL2.A.
const SERROR_SYNDROME: u64 = 0x1ff_ffff;
const DISR_A: u64 = 1 << 31;
/// VTTBR_EL2: VMID and BADDR. CnP changes nothing.
const VTTBR: u64 = 0xffff_ffff_ffff_fffe;
/// VTCR_EL2: T0SZ, SL0, IRGN0, ORGN0, SH0, TG0, PS, VS, HA, HD, HWU59 to 62.
const VTCR: u64 = 0x1e6f_ffff;
/// VTCR_EL2 bit 31, RES1.
const VTCR_RES1: u64 = 1 << 31;
/// HPFAR_EL2.FIPA, as far as 48 bits of address go.
const HPFAR: u64 = 0xff_ffff_fff0;

/// The register of EL1 whose number is that of one of EL2, EL12 or EL02, but for op1. `None`: EL1 has none.
fn twin(register: u16) -> Option<u16> {
    let rest = register & 0x7ff;
    let of_el1 = id(3, 0, 0, 0, 0) | rest;
    match of_el1 {
        SCTLR_EL1 | SCTLR2_EL1 | TTBR0_EL1 | TTBR1_EL1 | TCR_EL1 | SPSR_EL1 | ELR_EL1 | AFSR0_EL1
        | AFSR1_EL1 | ESR_EL1 | FAR_EL1 | MAIR_EL1 | AMAIR_EL1 | VBAR_EL1 | CONTEXTIDR_EL1 | CNTKCTL_EL1 => {
            Some(of_el1)
        }
        _ => {
            let timer = id(3, 3, 0, 0, 0) | rest;
            matches!(
                timer,
                CNTP_TVAL_EL0 | CNTP_CTL_EL0 | CNTP_CVAL_EL0 | CNTV_TVAL_EL0 | CNTV_CTL_EL0 | CNTV_CVAL_EL0
            )
            .then_some(timer)
        }
    }
}

/// The register that a number names at EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// EL2's own of a register that EL1 has as well, by that one's name.
    InPlace(u16),
    /// EL1's.
    Parked(u16),
    /// One that only EL2 has.
    Own,
}

fn name(register: u16) -> Option<Name> {
    let op1 = register >> 11 & 7;
    match register {
        CPTR_EL2 => Some(Name::InPlace(CPACR_EL1)),
        // SCTLR2_ELx are not among the banked ones.
        SCTLR2_EL2 => Some(Name::Own),
        _ if op1 == 4 => Some(twin(register).map_or(Name::Own, Name::InPlace)),
        _ if register & 0x7ff == CPACR_EL1 & 0x7ff => Some(Name::Parked(CPACR_EL1)),
        _ => twin(register).map(Name::Parked),
    }
}

/// True if a number is in the space of EL2's registers: UNDEFINED at EL1 and EL0.
pub(crate) fn is_el2_register(register: u16) -> bool {
    register >> 14 == 3 && matches!(register >> 11 & 7, 4 | 5)
}

fn is_list_register_interface(register: u16) -> bool {
    register & !0x7f == id(3, 4, 12, 0, 0) && register >> 3 & 15 >= 8 && register != ICC_SRE_EL2
}

impl Cpu {
    /// MRS at EL2. `None`: UNDEFINED.
    pub(crate) fn read_el2_register(&mut self, register: u16) -> Option<u64> {
        match name(register)? {
            Name::InPlace(of_el1) => self.value(of_el1),
            Name::Parked(SCTLR2_EL1) => {
                self.el2.as_ref().filter(|_| self.ras).map(|el2| el2.registers.sctlr2[0])
            }
            Name::Parked(of_el1) => self.as_el1(|cpu| cpu.value(of_el1)),
            Name::Own => self.read_own(register),
        }
    }

    fn read_own(&self, register: u16) -> Option<u64> {
        let el2 = self.el2.as_ref()?;
        let own = &el2.registers;
        Some(match register {
            VPIDR_EL2 => own.vpidr,
            VMPIDR_EL2 => own.vmpidr,
            SCTLR2_EL2 if self.ras => own.sctlr2[1],
            HCR_EL2 => own.hcr,
            HCRX_EL2 => own.hcrx,
            MDCR_EL2 => own.mdcr,
            VTTBR_EL2 => own.vttbr,
            VTCR_EL2 => own.vtcr | VTCR_RES1,
            SP_EL1 => self.sp_el1(),
            VSESR_EL2 if self.ras => own.vsesr,
            VDISR_EL2 if self.ras => own.vdisr,
            HPFAR_EL2 => own.hpfar,
            ICC_SRE_EL2 => SRE,
            TPIDR_EL2 => own.tpidr,
            CNTVOFF_EL2 => own.cntvoff,
            // RES0 without AArch32, or with nothing in them.
            ACTLR_EL2 | HSTR_EL2 | HACR_EL2 | SPSR_IRQ..=SPSR_FIQ => 0,
            _ if is_list_register_interface(register) => return el2.interface.read_ich(register),
            _ => return None,
        })
    }

    /// MSR at EL2. `None`: UNDEFINED.
    pub(crate) fn write_el2_register(&mut self, register: u16, value: u64) -> Option<()> {
        match name(register)? {
            Name::InPlace(of_el1) => self.set_value(of_el1, value),
            Name::Parked(SCTLR2_EL1) => self.set_sctlr2(Banked::El10, value),
            Name::Parked(of_el1) => self.as_el1(|cpu| cpu.set_value(of_el1, value)),
            Name::Own => self.write_own(register, value),
        }
    }

    fn write_own(&mut self, register: u16, value: u64) -> Option<()> {
        let ras = self.ras;
        let el2 = self.el2.as_mut()?;
        let own = &mut el2.registers;
        match register {
            VPIDR_EL2 => own.vpidr = value & 0xffff_ffff,
            VMPIDR_EL2 => own.vmpidr = value & 0xff_c1ff_ffff | 1 << 31,
            SCTLR2_EL2 => return self.set_sctlr2(Banked::El20, value),
            HCR_EL2 => own.hcr = value & hcr::ALL | hcr::RES1,
            HCRX_EL2 => own.hcrx = value & hcr::X_ALL,
            MDCR_EL2 => own.mdcr = value & hcr::MDCR_ALL,
            VTTBR_EL2 => own.vttbr = value & VTTBR,
            VTCR_EL2 => own.vtcr = value & VTCR,
            SP_EL1 => self.set_sp_el1(value),
            VSESR_EL2 if ras => own.vsesr = value & SERROR_SYNDROME,
            VDISR_EL2 if ras => own.vdisr = value & (DISR_A | SERROR_SYNDROME),
            HPFAR_EL2 => own.hpfar = value & HPFAR,
            TPIDR_EL2 => own.tpidr = value,
            CNTVOFF_EL2 => {
                own.cntvoff = value;
                self.deadline_changed();
            }
            ACTLR_EL2 | HSTR_EL2 | HACR_EL2 | ICC_SRE_EL2 | SPSR_IRQ..=SPSR_FIQ => {}
            _ if is_list_register_interface(register) => {
                el2.interface.write_ich(register, value)?;
                // The maintenance interrupt's line goes with the timers'.
                self.deadline_changed();
            }
            _ => return None,
        }
        Some(())
    }

    /// SCTLR2_EL1 or SCTLR2_EL2 (FEAT_DoubleFault2, which comes with RAS).
    pub(crate) fn set_sctlr2(&mut self, of: Banked, value: u64) -> Option<()> {
        let el2 = self.el2.as_mut().filter(|_| self.ras)?;
        el2.registers.sctlr2[usize::from(of == Banked::El20)] = value & hcr::SCTLR2_ALL;
        self.call_attention();
        Some(())
    }

    /// SCTLR2_EL1 by that name: EL2's at EL2.
    pub(crate) fn named_sctlr2(&self) -> Option<u64> {
        let el2 = self.el2.as_ref().filter(|_| self.ras)?;
        Some(el2.registers.sctlr2[usize::from(el2.host)])
    }

    /// DISR_EL1 is VDISR_EL2 below an EL2 that takes SErrors.
    pub(crate) fn virtual_disr(&self) -> Option<u64> {
        self.hypervisor().filter(|el2| el2.registers.has(hcr::AMO)).map(|el2| el2.registers.vdisr)
    }

    /// Sets DISR_EL1, where it is VDISR_EL2. Whether it is.
    pub(crate) fn set_virtual_disr(&mut self, value: u64) -> bool {
        let is_virtual = self.virtual_disr().is_some();
        if let Some(el2) = self.el2.as_mut().filter(|_| is_virtual) {
            el2.registers.vdisr = value & (DISR_A | SERROR_SYNDROME);
        }
        is_virtual
    }

    /// ESB with a virtual SError that PSTATE.A masks: it is put off into VDISR_EL2. Whether there was one.
    /// Source: `AArch64.vESBOperation`.
    pub(crate) fn defer_virtual_serror(&mut self) -> bool {
        use seawall_arm::Pstate;
        let is_masked = self.state.rest & Pstate::A != 0 && !self.serror_is_unmaskable();
        let is_pending = self.signals.has(crate::gic::Signals::VIRTUAL_SERROR);
        let Some(el2) = self.el2.as_mut().filter(|_| is_masked && is_pending && self.ras) else {
            return false;
        };
        el2.registers.vdisr = DISR_A | el2.registers.vsesr;
        el2.registers.hcr &= !hcr::VSE;
        self.refresh_virtual_signals();
        true
    }

    /// The syndrome of the virtual SError, which is taken with this. Source: `AArch64.TakeVirtualSErrorException`.
    pub(super) fn consume_virtual_serror(&mut self) -> u32 {
        let Some(el2) = &mut self.el2 else { return 0 };
        el2.registers.hcr &= !hcr::VSE;
        let syndrome = el2.registers.vsesr;
        self.refresh_virtual_signals();
        syndrome as u32
    }

    /// MIDR_EL1 and MPIDR_EL1 as EL1 reads them.
    pub(crate) fn virtual_ids(&self) -> Option<(u64, u64)> {
        self.hypervisor().map(|el2| (el2.registers.vpidr, el2.registers.vmpidr))
    }

    /// The writable bits of the register that is CNTKCTL_EL1 or CNTHCTL_EL2 here.
    pub(crate) fn counter_control_mask(&self) -> u64 {
        if self.is_host() { 0x3ff | hcr::CNTHCTL_EL1PCTEN | hcr::CNTHCTL_EL1PTEN } else { 0x3ff }
    }

    /// The writable bits of the register that is CPACR_EL1 or CPTR_EL2 here.
    pub(crate) fn fp_control_mask(&self) -> u64 {
        crate::sysreg::CPACR_FPEN | if self.is_host() { hcr::CPTR_TCPAC } else { 0 }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// D24.2: SCTLR_EL2 is 3 4 1 0 0, SCTLR_EL12 is 3 5 1 0 0; CNTHP_CTL_EL2 is 3 4 14 2 1, CNTP_CTL_EL02 is 3 5 14 2 1.
    #[test]
    fn a_register_of_el2_or_el12_is_found_by_its_twin_at_el1() {
        for (register, expected) in [
            (id(3, 4, 1, 0, 0), Some(Name::InPlace(SCTLR_EL1))),
            (id(3, 5, 1, 0, 0), Some(Name::Parked(SCTLR_EL1))),
            (id(3, 4, 14, 2, 1), Some(Name::InPlace(CNTP_CTL_EL0))),
            (id(3, 5, 14, 2, 1), Some(Name::Parked(CNTP_CTL_EL0))),
            (id(3, 4, 14, 3, 2), Some(Name::InPlace(CNTV_CVAL_EL0))),
            (id(3, 4, 1, 1, 2), Some(Name::InPlace(CPACR_EL1))),
            (id(3, 5, 1, 0, 2), Some(Name::Parked(CPACR_EL1))),
            (id(3, 4, 1, 0, 3), Some(Name::Own)),
            (id(3, 5, 1, 0, 3), Some(Name::Parked(SCTLR2_EL1))),
            (id(3, 4, 13, 0, 1), Some(Name::InPlace(CONTEXTIDR_EL1))),
            // There is no TPIDR_EL12, no HCR_EL12.
            (id(3, 5, 13, 0, 4), None),
            (id(3, 5, 1, 1, 0), None),
        ] {
            assert_eq!(name(register), expected, "{register:#x}");
        }
    }
}
