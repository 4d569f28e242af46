//! The registers that exceptions read and write, by name.

use crate::sysreg;

/// A register of an Arm vCPU that aborts, their delivery or their observers need.
///
/// `*El2` registers are those of a guest hypervisor at virtual EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reg {
    /// `X0` to `X30`. In AArch32 state they hold the banked registers as DDI 0487 D1.20.2 maps them: `LR_abt`
    /// is `X20`. A number above 30 reads as zero and ignores writes, like `XZR`.
    X(u8),
    /// Program counter.
    Pc,
    /// PSTATE, in the format of `SPSR_ELx`.
    Pstate,
    /// `SP_EL0`.
    SpEl0,
    /// `SP_EL1`.
    SpEl1,
    /// `ELR_EL1`.
    ElrEl1,
    /// `SPSR_EL1`.
    SpsrEl1,
    /// `SPSR_abt`.
    SpsrAbt,
    /// `ESR_EL1`; in AArch32 state, `DFSR`.
    EsrEl1,
    /// `FAR_EL1`; in AArch32 state, `IFAR` in `[63:32]` and `DFAR` in `[31:0]`.
    FarEl1,
    /// `IFSR32_EL2`: the AArch32 `IFSR`.
    Ifsr32,
    /// `VBAR_EL1`.
    VbarEl1,
    /// `SCTLR_EL1`.
    SctlrEl1,
    /// `SCTLR2_EL1`.
    Sctlr2El1,
    /// `TCR_EL1`; in AArch32 state, `TTBCR`.
    TcrEl1,
    /// `TTBR0_EL1`.
    Ttbr0El1,
    /// `TTBR1_EL1`.
    Ttbr1El1,
    /// `MAIR_EL1`.
    MairEl1,
    /// `CPACR_EL1`.
    CpacrEl1,
    /// `CONTEXTIDR_EL1`.
    ContextidrEl1,
    /// `TPIDR_EL0`.
    TpidrEl0,
    /// `TPIDR_EL1`.
    TpidrEl1,
    /// `DISR_EL1`.
    DisrEl1,
    /// `ELR_EL2`.
    ElrEl2,
    /// `SPSR_EL2`.
    SpsrEl2,
    /// `ESR_EL2`.
    EsrEl2,
    /// `FAR_EL2`.
    FarEl2,
    /// `VBAR_EL2`.
    VbarEl2,
    /// `SCTLR_EL2`.
    SctlrEl2,
    /// `SCTLR2_EL2`.
    Sctlr2El2,
    /// `HCR_EL2`.
    HcrEl2,
    /// `HCRX_EL2`.
    HcrxEl2,
    /// `VSESR_EL2`.
    VsesrEl2,
}

impl Reg {
    /// The number of a system register; `None` for `X`, PC and PSTATE.
    pub const fn encoding(self) -> Option<u16> {
        Some(match self {
            Self::X(_) | Self::Pc | Self::Pstate => return None,
            Self::SpEl0 => sysreg::SP_EL0,
            Self::SpEl1 => sysreg::SP_EL1,
            Self::ElrEl1 => sysreg::ELR_EL1,
            Self::SpsrEl1 => sysreg::SPSR_EL1,
            Self::SpsrAbt => sysreg::SPSR_ABT,
            Self::EsrEl1 => sysreg::ESR_EL1,
            Self::FarEl1 => sysreg::FAR_EL1,
            Self::Ifsr32 => sysreg::IFSR32_EL2,
            Self::VbarEl1 => sysreg::VBAR_EL1,
            Self::SctlrEl1 => sysreg::SCTLR_EL1,
            Self::Sctlr2El1 => sysreg::SCTLR2_EL1,
            Self::TcrEl1 => sysreg::TCR_EL1,
            Self::Ttbr0El1 => sysreg::TTBR0_EL1,
            Self::Ttbr1El1 => sysreg::TTBR1_EL1,
            Self::MairEl1 => sysreg::MAIR_EL1,
            Self::CpacrEl1 => sysreg::CPACR_EL1,
            Self::ContextidrEl1 => sysreg::CONTEXTIDR_EL1,
            Self::TpidrEl0 => sysreg::TPIDR_EL0,
            Self::TpidrEl1 => sysreg::TPIDR_EL1,
            Self::DisrEl1 => sysreg::DISR_EL1,
            Self::ElrEl2 => sysreg::ELR_EL2,
            Self::SpsrEl2 => sysreg::SPSR_EL2,
            Self::EsrEl2 => sysreg::ESR_EL2,
            Self::FarEl2 => sysreg::FAR_EL2,
            Self::VbarEl2 => sysreg::VBAR_EL2,
            Self::SctlrEl2 => sysreg::SCTLR_EL2,
            Self::Sctlr2El2 => sysreg::SCTLR2_EL2,
            Self::HcrEl2 => sysreg::HCR_EL2,
            Self::HcrxEl2 => sysreg::HCRX_EL2,
            Self::VsesrEl2 => sysreg::VSESR_EL2,
        })
    }
}

/// Access to a vCPU's registers. A register that the vCPU does not have reads as zero and ignores
/// writes.
pub trait Registers {
    /// The value of a register.
    fn reg(&self, reg: Reg) -> u64;

    /// Sets a register.
    fn set_reg(&mut self, reg: Reg, value: u64);
}

/// Bits of `SCTLR_EL1`, `SCTLR_EL2` and the AArch32 `SCTLR` that exception entry reads.
pub mod sctlr {
    /// AArch32 V, `[13]`: vectors at 0xffff_0000.
    pub const V: u64 = 1 << 13;
    /// SPAN, `[23]`: PSTATE.PAN does not change on exception entry.
    pub const SPAN: u64 = 1 << 23;
    /// AArch32 EE, `[25]`: data accesses of the handler are big-endian.
    pub const EE: u64 = 1 << 25;
    /// AArch32 TE, `[30]`: the handler runs in T32.
    pub const TE: u64 = 1 << 30;
    /// AArch32 DSSBS, `[31]`: PSTATE.SSBS on exception entry.
    pub const DSSBS32: u64 = 1 << 31;
    /// DSSBS, `[44]`: PSTATE.SSBS on exception entry.
    pub const DSSBS: u64 = 1 << 44;
    /// SPINTMASK, `[62]`: PSTATE.ALLINT is cleared, not set, on exception entry.
    pub const SPINTMASK: u64 = 1 << 62;
}

/// Bits of `SCTLR2_ELx` (`FEAT_SCTLR2`, `FEAT_DoubleFault2`).
pub mod sctlr2 {
    /// NMEA, `[2]`: PSTATE.A does not mask SErrors.
    pub const NMEA: u64 = 1 << 2;
    /// EASE, `[5]`: synchronous external aborts are taken at the SError vector.
    pub const EASE: u64 = 1 << 5;
}

/// Bits of `HCR_EL2`.
pub mod hcr {
    /// VM, `[0]`: stage 2 translation is on.
    pub const VM: u64 = 1 << 0;
    /// AMO, `[5]`: physical SErrors are routed to EL2, virtual ones are enabled.
    pub const AMO: u64 = 1 << 5;
    /// VSE, `[8]`: a virtual SError is pending.
    pub const VSE: u64 = 1 << 8;
    /// TGE, `[27]`: exceptions to EL1 are routed to EL2.
    pub const TGE: u64 = 1 << 27;
    /// E2H, `[34]`: EL2 hosts an operating system.
    pub const E2H: u64 = 1 << 34;
    /// TEA, `[37]`: synchronous external aborts are routed to EL2.
    pub const TEA: u64 = 1 << 37;
}

/// Bits of `HCRX_EL2`.
pub mod hcrx {
    /// SCTLR2En, `[15]`: `SCTLR2_EL1` has its effect and is not trapped.
    pub const SCTLR2EN: u64 = 1 << 15;
    /// TMEA, `[19]`: masked external aborts are routed to EL2.
    pub const TMEA: u64 = 1 << 19;
}

/// Bits of `TCR_EL1`.
pub mod tcr {
    /// AArch32 `TTBCR.EAE`, `[31]`: the guest uses the long-descriptor (LPAE) format.
    pub const EAE: u64 = 1 << 31;

    /// The size in bytes of the page at a virtual address: 4, 16 or 64 KiB, by TG1 (`[31:30]`) if bit 55 is
    /// set, else by TG0 (`[15:14]`). A reserved encoding counts as 4 KiB, as does a register that was never
    /// written.
    pub const fn granule(tcr: u64, va: u64) -> u64 {
        let is_upper = va >> 55 & 1 == 1;
        match (is_upper, if is_upper { tcr >> 30 & 3 } else { tcr >> 14 & 3 }) {
            (false, 0b10) | (true, 0b01) => 0x4000,
            (false, 0b01) | (true, 0b11) => 0x1_0000,
            _ => 0x1000,
        }
    }

    #[cfg(test)]
    mod tests {
        /// DDI 0487, `TCR_EL1`: TG0 0b00 4 KiB, 0b01 64 KiB, 0b10 16 KiB; TG1 0b01 16 KiB, 0b10 4 KiB, 0b11 64 KiB.
        #[test]
        fn the_granule_is_that_of_the_addresss_half() {
            const UPPER: u64 = 0xffff_8000_0000_0000;
            for (tcr, lower, upper) in [
                (0, 0x1000, 0x1000),
                (2 << 30, 0x1000, 0x1000),
                (2 << 14 | 1 << 30, 0x4000, 0x4000),
                (1 << 14 | 3 << 30, 0x1_0000, 0x1_0000),
                (3 << 14, 0x1000, 0x1000),
                (2 << 14 | 3 << 30, 0x4000, 0x1_0000),
            ] {
                assert_eq!(
                    (super::granule(tcr, 0x40_1000), super::granule(tcr, UPPER)),
                    (lower, upper),
                    "{tcr:#x}"
                );
            }
        }
    }
}
