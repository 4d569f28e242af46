//! Words of MRS and MSR, by the numbers that name a register.

/// op0, op1, `CRn`, `CRm`, op2.
pub(crate) type Name = (u32, u32, u32, u32, u32);

pub(crate) const PMCR: Name = (3, 3, 9, 12, 0);
pub(crate) const PMCNTENSET: Name = (3, 3, 9, 12, 1);
pub(crate) const PMCNTENCLR: Name = (3, 3, 9, 12, 2);
pub(crate) const PMOVSCLR: Name = (3, 3, 9, 12, 3);
pub(crate) const PMSWINC: Name = (3, 3, 9, 12, 4);
pub(crate) const PMSELR: Name = (3, 3, 9, 12, 5);
pub(crate) const PMCEID0: Name = (3, 3, 9, 12, 6);
pub(crate) const PMCEID1: Name = (3, 3, 9, 12, 7);
pub(crate) const PMCCNTR: Name = (3, 3, 9, 13, 0);
pub(crate) const PMXEVTYPER: Name = (3, 3, 9, 13, 1);
pub(crate) const PMXEVCNTR: Name = (3, 3, 9, 13, 2);
pub(crate) const PMUSERENR: Name = (3, 3, 9, 14, 0);
pub(crate) const PMOVSSET: Name = (3, 3, 9, 14, 3);
pub(crate) const PMINTENSET: Name = (3, 0, 9, 14, 1);
pub(crate) const PMINTENCLR: Name = (3, 0, 9, 14, 2);
pub(crate) const PMCCFILTR: Name = (3, 3, 14, 15, 7);

/// MSR from X`rt`.
pub(crate) const fn msr((op0, op1, crn, crm, op2): Name, rt: u32) -> u32 {
    0xd500_0000 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt
}

/// MRS to X`rt`.
pub(crate) const fn mrs(name: Name, rt: u32) -> u32 {
    msr(name, rt) | 1 << 21
}

pub(crate) const MDCCINT: Name = (2, 0, 0, 2, 0);
pub(crate) const MDSCR: Name = (2, 0, 0, 2, 2);
pub(crate) const OSLAR: Name = (2, 0, 1, 0, 4);
pub(crate) const OSLSR: Name = (2, 0, 1, 1, 4);
pub(crate) const OSDLR: Name = (2, 0, 1, 3, 4);
pub(crate) const DBGCLAIMSET: Name = (2, 0, 7, 8, 6);
pub(crate) const DBGCLAIMCLR: Name = (2, 0, 7, 9, 6);
pub(crate) const MDCCSR: Name = (2, 3, 0, 1, 0);
pub(crate) const CONTEXTIDR: Name = (3, 0, 13, 0, 1);

/// DBGBVRn, DBGBCRn, DBGWVRn, DBGWCRn.
pub(crate) const fn dbgbvr(n: u32) -> Name {
    (2, 0, 0, n, 4)
}
pub(crate) const fn dbgbcr(n: u32) -> Name {
    (2, 0, 0, n, 5)
}
pub(crate) const fn dbgwvr(n: u32) -> Name {
    (2, 0, 0, n, 6)
}
pub(crate) const fn dbgwcr(n: u32) -> Name {
    (2, 0, 0, n, 7)
}
