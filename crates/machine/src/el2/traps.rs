//! The accesses of EL1 and EL0 that EL2 sees first.
//!
//! Each function says of one access if HCR_EL2 or one of its fellows traps it. EL1's own rules over EL0 come before
//! (`AArch64.CheckSystemAccess`: the exception goes to the lowest Exception level that traps).
//!
//! Source: DDI 0487, D24.2, the accessors of each register; the bits of HCR_EL2, MDCR_EL2, CPTR_EL2 and CNTHCTL_EL2.

use seawall_arm::ExceptionClass;
use seawall_arm::sysreg::{
    ACTLR_EL1, AFSR0_EL1, AFSR1_EL1, AIDR_EL1, AMAIR_EL1, CCSIDR_EL1, CLIDR_EL1, CNTP_CTL_EL0, CNTP_CVAL_EL0,
    CNTP_TVAL_EL0, CNTPCT_EL0, CONTEXTIDR_EL1, CPACR_EL1, CSSELR_EL1, CTR_EL0, DBGPRCR_EL1, ESR_EL1, FAR_EL1,
    MAIR_EL1, MDRAR_EL1, OSDLR_EL1, OSLAR_EL1, OSLSR_EL1, PMCR_EL0, REVIDR_EL1, SCTLR_EL1, SCTLR2_EL1,
    TCR_EL1, TTBR0_EL1, TTBR1_EL1,
};

use super::{Banked, El2, hcr};
use crate::cpu::Cpu;
use crate::debug;
use crate::gic::virtual_interface as vgic;
use crate::pmu;
use crate::sysreg::{CPACR_FPEN, id};
use crate::trap::Trap;

/// CV = 1, COND = 0b1110: the ISS of a trap that may be of a conditional instruction.
const UNCONDITIONAL: u32 = 0x1e0_0000;

/// True if a number is IMPLEMENTATION DEFINED: CRn 11 or 15 (D24.2, op0 = 3; C5.1, op0 = 1).
fn is_implementation_defined(register: u16) -> bool {
    matches!(register >> 7 & 15, 11 | 15) && matches!(register >> 14, 1 | 3)
}

/// True if EL2 traps MRS or MSR of a register, at EL1 or EL0.
fn traps_register(el2: &El2, of_el2: &crate::sysreg::SysRegs, register: u16, el: u8, is_read: bool) -> bool {
    let own = &el2.registers;
    let any = |bits: u64| own.hcr & bits != 0;
    let debug = |bits: u64| own.mdcr & (bits | hcr::MDCR_TDE) != 0;
    let is_id = (id(3, 0, 0, 1, 0)..=id(3, 0, 0, 7, 7)).contains(&register);
    match register {
        REVIDR_EL1 | AIDR_EL1 => any(hcr::TID1),
        CTR_EL0 | CCSIDR_EL1 | CLIDR_EL1 | CSSELR_EL1 => any(hcr::TID2),
        _ if is_id => any(hcr::TID3),
        SCTLR2_EL1 if own.hcrx & hcr::X_SCTLR2EN == 0 => true,
        SCTLR_EL1 | SCTLR2_EL1 | TTBR0_EL1 | TTBR1_EL1 | TCR_EL1 | ESR_EL1 | FAR_EL1 | AFSR0_EL1
        | AFSR1_EL1 | MAIR_EL1 | AMAIR_EL1 | CONTEXTIDR_EL1 => {
            any(if is_read { hcr::TRVM } else { hcr::TVM })
        }
        ACTLR_EL1 => any(hcr::TACR),
        CPACR_EL1 => of_el2.cpacr & hcr::CPTR_TCPAC != 0,
        // The registers of error records: ERRIDR, ERRSELR, ERX*.
        _ if register & !0x3f == id(3, 0, 5, 0, 0) && (3..=5).contains(&(register >> 3 & 7)) => {
            any(hcr::TERR)
        }
        CNTPCT_EL0 => of_el2.cntkctl & hcr::CNTHCTL_EL1PCTEN == 0,
        CNTP_TVAL_EL0 | CNTP_CTL_EL0 | CNTP_CVAL_EL0 => of_el2.cntkctl & hcr::CNTHCTL_EL1PTEN == 0,
        PMCR_EL0 => own.mdcr & (hcr::MDCR_TPM | hcr::MDCR_TPMCR) != 0,
        _ if pmu::is_register(register) => own.mdcr & hcr::MDCR_TPM != 0,
        OSLAR_EL1 | OSLSR_EL1 | OSDLR_EL1 | DBGPRCR_EL1 => debug(hcr::MDCR_TDOSA),
        MDRAR_EL1 => debug(hcr::MDCR_TDRA),
        _ if debug::is_register(register) => debug(hcr::MDCR_TDA),
        _ if is_implementation_defined(register) => any(hcr::TIDCP),
        _ if vgic::is_register(register) => {
            el2.interface.traps(register, any(hcr::IMO), any(hcr::FMO)) && el == 1
        }
        _ => false,
    }
}

/// True if EL2 traps a system instruction (SYS), at EL1 or EL0.
fn traps_instruction(hcr: u64, instruction: u16) -> bool {
    let (op1, crn, crm, op2) =
        (instruction >> 11 & 7, instruction >> 7 & 15, instruction >> 3 & 15, instruction & 7);
    let bit = match (op1, crn, crm, op2) {
        // DC ISW, CSW, CISW.
        (0, 7, 6 | 10 | 14, 2) => hcr::TSW,
        // DC ZVA.
        (3, 7, 4, 1) => hcr::TDZ,
        // DC IVAC, CVAC, CVAP, CIVAC.
        (0, 7, 6, 1) | (3, 7, 10 | 12 | 14, 1) => hcr::TPC,
        // IC IALLUIS, IALLU, IVAU, DC CVAU.
        (0, 7, 1 | 5, 0) | (3, 7, 5 | 11, 1) => hcr::TPU,
        (0, 8, _, _) => hcr::TTLB,
        _ if is_implementation_defined(instruction) => hcr::TIDCP,
        _ => return false,
    };
    hcr & bit != 0
}

impl Cpu {
    /// Record a trap to EL2.
    #[cold]
    fn raise_to_el2(&mut self, class: ExceptionClass, iss: u32) {
        self.trap = Trap::ToEl2 { class, iss };
    }

    /// Checks that EL2 lets MRS or MSR of a register go on. `None`: it traps, as recorded.
    #[inline]
    pub(crate) fn el2_lets(&mut self, register: u16, rt: u8, is_read: bool) -> Option<()> {
        let Some(el2) = self.hypervisor() else { return Some(()) };
        let of_el2 = self.registers_of(Banked::El20);
        if !traps_register(el2, of_el2, register, self.state.el, is_read) {
            return Some(());
        }
        self.raise_to_el2(ExceptionClass::SYSREG, crate::sysreg::access_iss(register, rt, is_read));
        None
    }

    /// Checks that EL2 lets a system instruction go on. `None`: it traps, as recorded.
    #[inline]
    pub(crate) fn el2_lets_instruction(&mut self, instruction: u16, rt: u8) -> Option<()> {
        let Some(el2) = self.hypervisor() else { return Some(()) };
        if !traps_instruction(el2.registers.hcr, instruction) {
            return Some(());
        }
        self.raise_to_el2(ExceptionClass::SYSREG, crate::sysreg::access_iss(instruction, rt, false));
        None
    }

    /// True if EL2 lets DC ZVA go on (DCZID_EL0.DZP).
    pub(crate) fn el2_lets_zva(&self) -> bool {
        self.hypervisor().is_none_or(|el2| !el2.registers.has(hcr::TDZ))
    }

    /// True if CPTR_EL2.FPEN keeps EL1 and EL0 from FP and AdvSIMD. Source: `AArch64.CheckFPAdvSIMDTrap`.
    pub(crate) fn traps_fp(&self) -> bool {
        // 01 is about EL0 below EL2 alone.
        self.hypervisor().is_some() && self.registers_of(Banked::El20).cpacr & CPACR_FPEN & 1 << 20 == 0
    }

    /// The trap of an FP instruction that EL1 lets go on. Whether it is EL2's.
    pub(crate) fn raise_fp_trap_of_el2(&mut self) -> bool {
        let own = match self.sys.cpacr >> 20 & 3 {
            1 => self.state.el != 0,
            fpen => fpen == 3,
        };
        let is_el2s = own && self.traps_fp();
        if is_el2s {
            self.raise_to_el2(ExceptionClass::FP_ASIMD, UNCONDITIONAL);
        }
        is_el2s
    }

    /// Checks that EL2 lets WFI (`false`) or WFE (`true`) wait. `None`: it traps, as recorded.
    /// Source: `AArch64.CheckForWFxTrap`.
    pub(crate) fn el2_lets_wait(&mut self, for_event: bool) -> Option<()> {
        let bit = if for_event { hcr::TWE } else { hcr::TWI };
        if self.hypervisor().is_some_and(|el2| el2.registers.has(bit)) {
            self.raise_to_el2(ExceptionClass::WFX, UNCONDITIONAL | u32::from(for_event));
            return None;
        }
        Some(())
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::sysreg::SysRegs;

    fn el2(hcr: u64) -> El2 {
        let mut el2 = El2::new(1 << 31);
        el2.registers.hcr |= hcr;
        el2
    }

    fn traps(hcr: u64, register: u16, is_read: bool) -> bool {
        traps_register(&el2(hcr), &SysRegs::new(0), register, 1, is_read)
    }

    /// HCR_EL2.TVM, TRVM, TID1 to TID3, TACR, TERR, TIDCP: each bit traps what it names, and nothing else.
    #[test]
    fn each_bit_traps_its_registers() {
        for (bit, register, is_read) in [
            (1 << 26, SCTLR_EL1, false),
            (1 << 30, SCTLR_EL1, true),
            (1 << 26, CONTEXTIDR_EL1, false),
            (1 << 16, AIDR_EL1, true),
            (1 << 17, CLIDR_EL1, true),
            (1 << 18, id(3, 0, 0, 4, 0), true),
            (1 << 18, id(3, 0, 0, 7, 7), true),
            (1 << 21, ACTLR_EL1, true),
            (1 << 36, id(3, 0, 5, 3, 1), false),
            (1 << 36, id(3, 0, 5, 4, 0), true),
            (1 << 20, id(3, 0, 15, 2, 0), true),
        ] {
            assert!(traps(bit, register, is_read), "{bit:#x} {register:#x}");
            assert!(!traps(0, register, is_read), "{register:#x}");
            assert!(!traps(hcr::ALL & !bit & !hcr::RES1, register, is_read), "{register:#x}");
        }
    }

    /// CNTHCTL_EL2.EL1PCTEN and EL1PTEN (E2H = 1: bits 10 and 11) let EL1 have the physical counter and timer.
    #[test]
    fn the_physical_counter_and_timer_are_trapped_unless_el2_gives_them() {
        let mut of_el2 = SysRegs::new(0);
        let el2 = el2(0);
        let traps = |sys: &SysRegs, register| traps_register(&el2, sys, register, 1, true);
        assert!(traps(&of_el2, CNTPCT_EL0) && traps(&of_el2, CNTP_CTL_EL0));
        of_el2.cntkctl = 1 << 10;
        assert!(!traps(&of_el2, CNTPCT_EL0) && traps(&of_el2, CNTP_CTL_EL0));
        of_el2.cntkctl = 1 << 11;
        assert!(traps(&of_el2, CNTPCT_EL0) && !traps(&of_el2, CNTP_CTL_EL0));
    }

    /// MDCR_EL2: TDE counts as TDA, TDOSA and TDRA together.
    #[test]
    fn debug_registers_are_trapped_by_their_own_bits_or_all_by_tde() {
        let sys = SysRegs::new(0);
        let traps = |mdcr, register| {
            let mut el2 = el2(0);
            el2.registers.mdcr = mdcr;
            traps_register(&el2, &sys, register, 1, true)
        };
        let mdscr = id(2, 0, 0, 2, 2);
        assert_eq!(
            [1 << 9, 1 << 10, 1 << 11, 1 << 8].map(|mdcr| traps(mdcr, mdscr)),
            [true, false, false, true]
        );
        assert_eq!([1 << 9, 1 << 10, 1 << 8].map(|mdcr| traps(mdcr, OSLSR_EL1)), [false, true, true]);
        assert_eq!([1 << 6, 1 << 5, 1 << 8].map(|mdcr| traps(mdcr, PMCR_EL0)), [true, true, false]);
        assert_eq!([1 << 6, 1 << 5].map(|mdcr| traps(mdcr, id(3, 3, 9, 13, 0))), [true, false]);
    }

    /// HCR_EL2.TSW, TPC, TPU, TDZ, TTLB.
    #[test]
    fn each_bit_traps_its_instructions() {
        for (bit, instruction) in [
            (1 << 22, id(1, 0, 7, 6, 2)),
            (1 << 23, id(1, 3, 7, 14, 1)),
            (1 << 23, id(1, 0, 7, 6, 1)),
            (1 << 24, id(1, 3, 7, 11, 1)),
            (1 << 24, id(1, 0, 7, 5, 0)),
            (1 << 25, id(1, 0, 8, 3, 0)),
            (1 << 28, id(1, 3, 7, 4, 1)),
            (1 << 20, id(1, 0, 11, 0, 0)),
        ] {
            assert!(traps_instruction(bit, instruction), "{bit:#x} {instruction:#x}");
            assert!(!traps_instruction(!bit, instruction), "{instruction:#x}");
        }
        // AT S1E1R has no trap without nested virtualization.
        assert!(!traps_instruction(u64::MAX, id(1, 0, 7, 8, 0)));
    }
}
