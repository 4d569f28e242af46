//! The bits of HCR_EL2, HCRX_EL2, MDCR_EL2, CPTR_EL2, CNTHCTL_EL2 and SCTLR2_ELx that this CPU has.
//!
//! Source: DDI 0487, D24.2, the registers by name. Bits of absent features are RES0.

/// Stage 2 is on.
pub(crate) const VM: u64 = 1 << 0;
/// Physical FIQs go to EL2, virtual ones to EL1.
pub(crate) const FMO: u64 = 1 << 3;
/// Physical IRQs go to EL2, virtual ones to EL1.
pub(crate) const IMO: u64 = 1 << 4;
/// Physical SErrors go to EL2, virtual ones to EL1.
pub(crate) const AMO: u64 = 1 << 5;
/// A walk of stage 1 must not go through Device memory.
pub(crate) const PTW: u64 = 1 << 2;
/// A virtual FIQ, IRQ, SError is pending.
pub(crate) const VF: u64 = 1 << 6;
pub(crate) const VI: u64 = 1 << 7;
pub(crate) const VSE: u64 = 1 << 8;
/// TLB maintenance of EL1 goes to the Inner Shareable domain.
pub(crate) const FB: u64 = 1 << 9;
/// Memory is Normal Write-Back while stage 1 is off, and stage 1 is off.
pub(crate) const DC: u64 = 1 << 12;
/// Traps: WFI, WFE.
pub(crate) const TWI: u64 = 1 << 13;
pub(crate) const TWE: u64 = 1 << 14;
/// Traps of identification registers: REVIDR and AIDR; caches; all others.
pub(crate) const TID1: u64 = 1 << 16;
pub(crate) const TID2: u64 = 1 << 17;
pub(crate) const TID3: u64 = 1 << 18;
/// SMC.
pub(crate) const TSC: u64 = 1 << 19;
/// IMPLEMENTATION DEFINED registers and instructions.
pub(crate) const TIDCP: u64 = 1 << 20;
/// ACTLR_EL1.
pub(crate) const TACR: u64 = 1 << 21;
/// Cache maintenance by set and way; to the point of coherency; to the point of unification.
pub(crate) const TSW: u64 = 1 << 22;
pub(crate) const TPC: u64 = 1 << 23;
pub(crate) const TPU: u64 = 1 << 24;
/// TLB maintenance.
pub(crate) const TTLB: u64 = 1 << 25;
/// Writes of the registers of translation; reads.
pub(crate) const TVM: u64 = 1 << 26;
pub(crate) const TRVM: u64 = 1 << 30;
/// EL0 is EL2's.
pub(crate) const TGE: u64 = 1 << 27;
/// DC ZVA.
pub(crate) const TDZ: u64 = 1 << 28;
/// HVC is UNDEFINED.
pub(crate) const HCD: u64 = 1 << 29;
/// EL1 is in AArch64 state: RES1, as there is no AArch32.
pub(crate) const RW: u64 = 1 << 31;
/// EL2 hosts: RES1.
pub(crate) const E2H: u64 = 1 << 34;
/// The registers of error records.
pub(crate) const TERR: u64 = 1 << 36;
/// Synchronous External aborts go to EL2.
pub(crate) const TEA: u64 = 1 << 37;

/// SWIO, BSU, CD, ID: they change nothing here.
const WITHOUT_EFFECT: u64 = 1 << 1 | 3 << 10 | 1 << 32 | 1 << 33;
pub(crate) const RES1: u64 = RW | E2H;
/// The bits that keep a value.
pub(crate) const ALL: u64 = VM
    | PTW
    | FMO
    | IMO
    | AMO
    | VF
    | VI
    | VSE
    | FB
    | DC
    | TWI
    | TWE
    | TID1
    | TID2
    | TID3
    | TSC
    | TIDCP
    | TACR
    | TSW
    | TPC
    | TPU
    | TTLB
    | TVM
    | TGE
    | TDZ
    | HCD
    | TRVM
    | RW
    | E2H
    | TERR
    | TEA
    | WITHOUT_EFFECT;

/// HCRX_EL2.SCTLR2En: EL1 has SCTLR2_EL1.
pub(crate) const X_SCTLR2EN: u64 = 1 << 15;
/// HCRX_EL2.TMEA: External aborts go to EL2 while PSTATE.A masks them.
pub(crate) const X_TMEA: u64 = 1 << 21;
pub(crate) const X_ALL: u64 = X_SCTLR2EN | X_TMEA;

/// SCTLR2_ELx.NMEA: PSTATE.A does not mask an SError.
pub(crate) const NMEA: u64 = 1 << 2;
/// SCTLR2_ELx.EASE: synchronous External aborts are taken at the vector of SErrors.
pub(crate) const EASE: u64 = 1 << 5;
pub(crate) const SCTLR2_ALL: u64 = NMEA | EASE;

/// MDCR_EL2: traps of PMCR_EL0, of all of the performance monitor, of debug registers; debug exceptions go to EL2.
pub(crate) const MDCR_TPMCR: u64 = 1 << 5;
pub(crate) const MDCR_TPM: u64 = 1 << 6;
pub(crate) const MDCR_TDE: u64 = 1 << 8;
pub(crate) const MDCR_TDA: u64 = 1 << 9;
pub(crate) const MDCR_TDOSA: u64 = 1 << 10;
pub(crate) const MDCR_TDRA: u64 = 1 << 11;
/// HPMN and HPME keep their values; there is no event counter that they could be about.
pub(crate) const MDCR_ALL: u64 =
    0x1f | 1 << 7 | MDCR_TPMCR | MDCR_TPM | MDCR_TDE | MDCR_TDA | MDCR_TDOSA | MDCR_TDRA;

/// CPTR_EL2.TCPAC: CPACR_EL1 is trapped. FPEN is where CPACR_EL1 has it.
pub(crate) const CPTR_TCPAC: u64 = 1 << 31;

/// CNTHCTL_EL2: EL1 may read the physical counter; may use its physical timer.
pub(crate) const CNTHCTL_EL1PCTEN: u64 = 1 << 10;
pub(crate) const CNTHCTL_EL1PTEN: u64 = 1 << 11;
