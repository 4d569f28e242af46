//! System registers by number: one table for MRS and MSR, for KVM's register ids, and for names in messages.
//!
//! Source: DDI 0487, D24.2, the encoding in each register's accessors; ICC registers: IHI 0069, 12.2.

/// The number of a system register or instruction: op0:op1:CRn:CRm:op2, 16 bits. It is in `[20:5]` of MRS and
/// MSR, and in the low half of KVM's register id.
pub const fn encoding(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// The name of a register in the manual's spelling, in capitals; `None` if [`TABLE`] lacks it.
pub fn name(encoding: u16) -> Option<&'static str> {
    TABLE.iter().find(|(of_register, _)| *of_register == encoding).map(|(_, name)| *name)
}

macro_rules! registers {
    ($($name:ident: $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            pub const $name: u16 = encoding($op0, $op1, $crn, $crm, $op2);
        )*

        /// Every named register, by its number.
        pub const TABLE: &[(u16, &str)] = &[$(($name, stringify!($name))),*];
    };
}

registers! {
    // Debug: op0 is 2.
    OSDTRRX_EL1: 2 0 0 0 2;
    MDCCINT_EL1: 2 0 0 2 0;
    MDSCR_EL1: 2 0 0 2 2;
    OSDTRTX_EL1: 2 0 0 3 2;
    OSECCR_EL1: 2 0 0 6 2;
    MDRAR_EL1: 2 0 1 0 0;
    OSLAR_EL1: 2 0 1 0 4;
    OSLSR_EL1: 2 0 1 1 4;
    OSDLR_EL1: 2 0 1 3 4;
    DBGPRCR_EL1: 2 0 1 4 4;
    DBGCLAIMSET_EL1: 2 0 7 8 6;
    DBGCLAIMCLR_EL1: 2 0 7 9 6;
    DBGAUTHSTATUS_EL1: 2 0 7 14 6;
    MDCCSR_EL0: 2 3 0 1 0;
    DBGDTR_EL0: 2 3 0 4 0;
    // DBGDTRTX_EL0 when written.
    DBGDTRRX_EL0: 2 3 0 5 0;

    // EL1: op1 is 0.
    MIDR_EL1: 3 0 0 0 0;
    MPIDR_EL1: 3 0 0 0 5;
    REVIDR_EL1: 3 0 0 0 6;
    ID_AA64PFR0_EL1: 3 0 0 4 0;
    ID_AA64PFR1_EL1: 3 0 0 4 1;
    ID_AA64DFR0_EL1: 3 0 0 5 0;
    ID_AA64ISAR0_EL1: 3 0 0 6 0;
    ID_AA64ISAR1_EL1: 3 0 0 6 1;
    ID_AA64MMFR0_EL1: 3 0 0 7 0;
    ID_AA64MMFR1_EL1: 3 0 0 7 1;
    ID_AA64MMFR2_EL1: 3 0 0 7 2;
    ID_AA64MMFR3_EL1: 3 0 0 7 3;
    SCTLR_EL1: 3 0 1 0 0;
    ACTLR_EL1: 3 0 1 0 1;
    CPACR_EL1: 3 0 1 0 2;
    SCTLR2_EL1: 3 0 1 0 3;
    TTBR0_EL1: 3 0 2 0 0;
    TTBR1_EL1: 3 0 2 0 1;
    TCR_EL1: 3 0 2 0 2;
    SPSR_EL1: 3 0 4 0 0;
    ELR_EL1: 3 0 4 0 1;
    SP_EL0: 3 0 4 1 0;
    SPSEL: 3 0 4 2 0;
    CURRENT_EL: 3 0 4 2 2;
    PAN: 3 0 4 2 3;
    UAO: 3 0 4 2 4;
    ICC_PMR_EL1: 3 0 4 6 0;
    AFSR0_EL1: 3 0 5 1 0;
    AFSR1_EL1: 3 0 5 1 1;
    ESR_EL1: 3 0 5 2 0;
    ERRIDR_EL1: 3 0 5 3 0;
    ERRSELR_EL1: 3 0 5 3 1;
    FAR_EL1: 3 0 6 0 0;
    PAR_EL1: 3 0 7 4 0;
    PMINTENSET_EL1: 3 0 9 14 1;
    PMINTENCLR_EL1: 3 0 9 14 2;
    MAIR_EL1: 3 0 10 2 0;
    AMAIR_EL1: 3 0 10 3 0;
    VBAR_EL1: 3 0 12 0 0;
    ISR_EL1: 3 0 12 1 0;
    DISR_EL1: 3 0 12 1 1;
    ICC_IAR0_EL1: 3 0 12 8 0;
    ICC_EOIR0_EL1: 3 0 12 8 1;
    ICC_HPPIR0_EL1: 3 0 12 8 2;
    ICC_BPR0_EL1: 3 0 12 8 3;
    ICC_AP0R0_EL1: 3 0 12 8 4;
    ICC_AP0R1_EL1: 3 0 12 8 5;
    ICC_AP0R2_EL1: 3 0 12 8 6;
    ICC_AP0R3_EL1: 3 0 12 8 7;
    ICC_AP1R0_EL1: 3 0 12 9 0;
    ICC_AP1R1_EL1: 3 0 12 9 1;
    ICC_AP1R2_EL1: 3 0 12 9 2;
    ICC_AP1R3_EL1: 3 0 12 9 3;
    ICC_DIR_EL1: 3 0 12 11 1;
    ICC_RPR_EL1: 3 0 12 11 3;
    ICC_SGI1R_EL1: 3 0 12 11 5;
    ICC_ASGI1R_EL1: 3 0 12 11 6;
    ICC_SGI0R_EL1: 3 0 12 11 7;
    ICC_IAR1_EL1: 3 0 12 12 0;
    ICC_EOIR1_EL1: 3 0 12 12 1;
    ICC_HPPIR1_EL1: 3 0 12 12 2;
    ICC_BPR1_EL1: 3 0 12 12 3;
    ICC_CTLR_EL1: 3 0 12 12 4;
    ICC_SRE_EL1: 3 0 12 12 5;
    ICC_IGRPEN0_EL1: 3 0 12 12 6;
    ICC_IGRPEN1_EL1: 3 0 12 12 7;
    CONTEXTIDR_EL1: 3 0 13 0 1;
    TPIDR_EL1: 3 0 13 0 4;
    CNTKCTL_EL1: 3 0 14 1 0;
    CCSIDR_EL1: 3 1 0 0 0;
    CLIDR_EL1: 3 1 0 0 1;
    AIDR_EL1: 3 1 0 0 7;
    CSSELR_EL1: 3 2 0 0 0;

    // EL0: op1 is 3.
    CTR_EL0: 3 3 0 0 1;
    DCZID_EL0: 3 3 0 0 7;
    NZCV: 3 3 4 2 0;
    DAIF: 3 3 4 2 1;
    DIT: 3 3 4 2 5;
    SSBS: 3 3 4 2 6;
    FPCR: 3 3 4 4 0;
    FPSR: 3 3 4 4 1;
    PMCR_EL0: 3 3 9 12 0;
    PMCNTENSET_EL0: 3 3 9 12 1;
    PMCNTENCLR_EL0: 3 3 9 12 2;
    PMOVSCLR_EL0: 3 3 9 12 3;
    PMSWINC_EL0: 3 3 9 12 4;
    PMSELR_EL0: 3 3 9 12 5;
    PMCEID0_EL0: 3 3 9 12 6;
    PMCEID1_EL0: 3 3 9 12 7;
    PMCCNTR_EL0: 3 3 9 13 0;
    PMXEVTYPER_EL0: 3 3 9 13 1;
    PMXEVCNTR_EL0: 3 3 9 13 2;
    PMUSERENR_EL0: 3 3 9 14 0;
    PMOVSSET_EL0: 3 3 9 14 3;
    TPIDR_EL0: 3 3 13 0 2;
    TPIDRRO_EL0: 3 3 13 0 3;
    CNTFRQ_EL0: 3 3 14 0 0;
    CNTPCT_EL0: 3 3 14 0 1;
    CNTVCT_EL0: 3 3 14 0 2;
    CNTP_TVAL_EL0: 3 3 14 2 0;
    CNTP_CTL_EL0: 3 3 14 2 1;
    CNTP_CVAL_EL0: 3 3 14 2 2;
    CNTV_TVAL_EL0: 3 3 14 3 0;
    CNTV_CTL_EL0: 3 3 14 3 1;
    CNTV_CVAL_EL0: 3 3 14 3 2;
    PMCCFILTR_EL0: 3 3 14 15 7;

    // EL2, and the AArch32 registers that EL2 sees: op1 is 4.
    SCTLR_EL2: 3 4 1 0 0;
    SCTLR2_EL2: 3 4 1 0 3;
    HCR_EL2: 3 4 1 1 0;
    HCRX_EL2: 3 4 1 2 2;
    SPSR_EL2: 3 4 4 0 0;
    ELR_EL2: 3 4 4 0 1;
    SP_EL1: 3 4 4 1 0;
    SPSR_ABT: 3 4 4 3 1;
    IFSR32_EL2: 3 4 5 0 1;
    ESR_EL2: 3 4 5 2 0;
    VSESR_EL2: 3 4 5 2 3;
    FAR_EL2: 3 4 6 0 0;
    VBAR_EL2: 3 4 12 0 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DDI 0487: MRS X0, ESR_EL1 is 0xd5385200; MRS X0, HCRX_EL2 is 0xd53c1240; MRS X0, CNTVCT_EL0 is 0xd53be040.
    #[test]
    fn a_number_is_what_mrs_has_of_a_register() {
        for (register, word) in [(ESR_EL1, 0xd538_5200), (HCRX_EL2, 0xd53c_1240), (CNTVCT_EL0, 0xd53b_e040)] {
            assert_eq!(0xd520_0000 | u32::from(register) << 5, word, "{}", name(register).unwrap_or(""));
        }
    }

    #[test]
    fn each_register_is_there_once_and_has_its_name() {
        for (n, (register, of_register)) in TABLE.iter().enumerate() {
            assert_eq!(name(*register), Some(*of_register));
            assert!(TABLE[..n].iter().all(|(other, _)| other != register), "{of_register}");
        }
        assert_eq!(name(ESR_EL1), Some("ESR_EL1"));
        assert_eq!(name(encoding(3, 7, 15, 15, 7)), None);
    }
}
