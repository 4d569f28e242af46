//! The identification registers: exactly what this CPU has, nothing more.
//!
//! Source: DDI 0487, D24.2, the registers by name.

/// Log2 of the words (4 bytes) of a cache line and of a DC ZVA block: 64 bytes.
const LINE_WORDS_LOG2: u64 = 4;

/// MIDR_EL1: implementer 0x53 ("S", no one's), variant 0, architecture 0xf (by ID registers),
/// part 0x5ea, revision 1.
pub(crate) const MIDR: u64 = 0x53 << 24 | 0xf << 16 | 0x5ea << 4 | 1;

/// CTR_EL0: 64-byte lines, PIPT instruction cache, RES1 bit 31; the guest must do the cache
/// maintenance that the architecture asks for (IDC and DIC are 0).
pub(crate) const CTR: u64 = 1 << 31
    | LINE_WORDS_LOG2 << 24
    | LINE_WORDS_LOG2 << 20
    | LINE_WORDS_LOG2 << 16
    | 3 << 14
    | LINE_WORDS_LOG2;

/// DCZID_EL0: DC ZVA writes 64 bytes.
pub(crate) const DCZID: u64 = LINE_WORDS_LOG2;

/// CLIDR_EL1: separate level 1 caches, unification and coherency at level 1.
pub(crate) const CLIDR: u64 = 3 | 1 << 21 | 1 << 24 | 1 << 27;

/// CCSIDR_EL1 of either cache: 32 KiB, 4 ways, 128 sets, 64-byte lines.
pub(crate) const CCSIDR: u64 = 2 | 3 << 3 | 127 << 13;

/// ID_AA64PFR0_EL1: EL0 and EL1 in AArch64 only; FP and AdvSIMD (0) without half-precision arithmetic; the
/// system registers of a GICv3; DIT; RAS if the VM has it. Nothing is done speculatively, so no secret leaks by
/// it: CSV2, CSV3. EL2 if the CPU has it.
pub(crate) const fn aa64pfr0(ras: bool, el2: bool) -> u64 {
    (el2 as u64) << 8 | 0x1 | 0x1 << 4 | 0x1 << 24 | (ras as u64) << 28 | 0x1 << 48 | 0x1 << 56 | 0x1 << 60
}

/// ID_AA64PFR1_EL1: BTI, SSBS with its MSR and MRS; with EL2 and RAS, DoubleFault2 (DF2).
pub(crate) const fn aa64pfr1(double_fault: bool) -> u64 {
    0x1 | 0x2 << 4 | (double_fault as u64) << 56
}

/// ID_AA64DFR0_EL1: Armv8 debug, two breakpoints, both context-aware, and two watchpoints (the fewest that there can be),
/// PMUv3, no trace.
pub(crate) const AA64DFR0: u64 = 0x6 | 0x1 << 8 | 0x1 << 12 | 0x1 << 20 | 0x1 << 28;

/// ID_AA64ISAR0_EL1: AES with PMULL, SHA-1, SHA-256, CRC32, LSE atomics, FlagM.
pub(crate) const AA64ISAR0: u64 = 0x2 << 4 | 0x1 << 8 | 0x1 << 12 | 0x1 << 16 | 0x2 << 20 | 0x1 << 52;

/// ID_AA64ISAR1_EL1: DC CVAP, LRCPC2, SB.
pub(crate) const AA64ISAR1: u64 = 0x1 | 0x2 << 20 | 0x1 << 36;

/// ID_AA64MMFR0_EL1: 48 bits of physical address, 16 bits of ASID, all three granules.
pub(crate) const AA64MMFR0: u64 = 0x5 | 0x2 << 4 | 0x1 << 20;

/// ID_AA64MMFR1_EL1: hardware access flag and dirty state, hierarchical permission disables, PAN
/// with its AT instructions; no branch history (ECBHB). With EL2: VHE, 16 bits of VMID, HCRX_EL2.
pub(crate) const fn aa64mmfr1(el2: bool) -> u64 {
    let of_el2 = if el2 { 0x2 << 4 | 0x1 << 8 | 0x1 << 40 } else { 0 };
    0x2 | 0x1 << 12 | 0x2 << 20 | 0x1 << 60 | of_el2
}

/// ID_AA64MMFR2_EL1: UAO, small translation tables, LSE2 (AT).
pub(crate) const AA64MMFR2: u64 = 0x1 << 4 | 0x1 << 28 | 0x1 << 32;

/// ID_AA64MMFR3_EL1: SCTLR2_ELx, with EL2 and RAS.
pub(crate) const fn aa64mmfr3(double_fault: bool) -> u64 {
    (double_fault as u64) << 4
}

/// ID_AA64MMFR4_EL1.E2H0: HCR_EL2.E2H is RES1, and no nested virtualization.
pub(crate) const fn aa64mmfr4(el2: bool) -> u64 {
    if el2 { 0xf << 24 } else { 0 }
}
