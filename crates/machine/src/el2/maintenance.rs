//! TLB maintenance and address translation that EL2 asks for.
//!
//! Entries of the EL1&0 regime have neither an IPA nor a VMID: maintenance by either drops all of them, as an
//! implementation may.
//!
//! Source: DDI 0487, C5.4 (AT), C5.5 (TLBI), `AArch64.AT`, `AArch64.EncodePAR`.

use seawall_arm::Pstate;

use super::{Banked, hcr};
use crate::cpu::{Cpu, Invalidation, Maintenance};
use crate::memory::Memory;
use crate::sysreg::id;
use crate::trap::Intent;
use crate::walk::{self, Access, AccessKind, Fault, FaultKind, Regime, Translation};

/// PAR_EL1 bit 11, RES1 in either format.
const PAR_RES1: u64 = 1 << 11;
/// PAR_EL1 of a fault: PTW, S.
const PAR_PTW: u64 = 1 << 8;
const PAR_S: u64 = 1 << 9;

/// The maintenance that TLBI with op1 = 4 does, and whether to other CPUs too. `None`: there is no such instruction.
fn tlbi_of_el2(instruction: u16, value: u64) -> Option<(Maintenance, bool)> {
    let to_all = |of| Maintenance { of, what: Invalidation::All };
    let (crm, op2) = (instruction >> 3 & 15, instruction & 7);
    let maintenance = match (crm, op2) {
        // IPAS2E1, IPAS2LE1; ALLE1, VMALLS12E1.
        (0 | 4, 1 | 5) | (3 | 7, 4 | 6) => to_all(Banked::El10),
        // ALLE2.
        (3 | 7, 0) => to_all(Banked::El20),
        // VAE2, VALE2.
        (3 | 7, 1 | 5) => Maintenance { of: Banked::El20, what: Invalidation::Address(value << 12) },
        _ => return None,
    };
    Some((maintenance, matches!(crm, 0 | 3)))
}

impl Cpu {
    /// TLBI ALLE2, VAE2, ALLE1, VMALLS12E1, IPAS2E1 and their fellows. Whether `instruction` is one.
    pub(crate) fn invalidate_tlb_of_el2(&mut self, instruction: u16, value: u64) -> bool {
        let is_tlbi = instruction & !0x7f == id(1, 4, 8, 0, 0);
        if !is_tlbi || self.exception_level() != 2 {
            return false;
        }
        let Some((maintenance, to_others)) = tlbi_of_el2(instruction, value) else { return false };
        self.invalidate(maintenance);
        if to_others {
            self.broadcast.push(maintenance);
        }
        self.call_attention();
        true
    }

    /// The regime that TLBI and AT with op1 = 0 are about: from EL2, EL1's unless EL0 is EL2's own.
    pub(crate) fn maintained(&self) -> Banked {
        match &self.el2 {
            Some(el2) if el2.host && el2.registers.has(hcr::TGE) => Banked::El20,
            _ => Banked::El10,
        }
    }

    /// True if HCR_EL2.FB makes TLB maintenance of EL1 one for all CPUs.
    pub(crate) fn broadcasts_all(&self) -> bool {
        self.hypervisor().is_some_and(|el2| el2.registers.has(hcr::FB))
    }
}

/// An AT instruction: of which regime, through which stages, with what access.
struct Query {
    access: Access,
    regime: Regime,
    both_stages: bool,
}

const AT_S1E1R: u16 = id(1, 0, 7, 8, 0);
const AT_S1E0W: u16 = id(1, 0, 7, 8, 3);
const AT_S1E1RP: u16 = id(1, 0, 7, 9, 0);
const AT_S1E1WP: u16 = id(1, 0, 7, 9, 1);
const AT_S1E2R: u16 = id(1, 4, 7, 8, 0);
const AT_S1E2W: u16 = id(1, 4, 7, 8, 1);
const AT_S12E1R: u16 = id(1, 4, 7, 8, 4);
const AT_S12E0W: u16 = id(1, 4, 7, 8, 7);

impl Query {
    fn new(cpu: &Cpu, instruction: u16) -> Option<Self> {
        let with_pan = matches!(instruction, AT_S1E1RP | AT_S1E1WP);
        let (write, privileged) = match instruction {
            AT_S1E1R..=AT_S1E0W | AT_S12E1R..=AT_S12E0W => (instruction & 1 != 0, instruction & 2 == 0),
            AT_S1E1RP | AT_S1E1WP | AT_S1E2R | AT_S1E2W => (instruction & 1 != 0, true),
            _ => return None,
        };
        let of_el2 = instruction >> 11 & 7 == 4;
        if of_el2 && cpu.exception_level() != 2 {
            return None;
        }
        let both_stages = matches!(instruction, AT_S12E1R..=AT_S12E0W);
        let in_place = match instruction {
            AT_S1E2R | AT_S1E2W => true,
            _ if both_stages => false,
            _ => cpu.maintained() == cpu.banked(),
        };
        let access = Access {
            kind: if write {
                AccessKind::AddressTranslationWrite
            } else {
                AccessKind::AddressTranslationRead
            },
            privileged,
            pan: with_pan && cpu.state.rest & Pstate::PAN != 0,
        };
        Some(Self { access, regime: if in_place { cpu.regime() } else { cpu.guest_regime() }, both_stages })
    }

    fn translate(&self, memory: &mut Memory, va: u64) -> Result<Translation, Fault> {
        if self.both_stages {
            walk::translate(memory, &self.regime, va, self.access)
        } else {
            walk::translate_stage1(memory, &self.regime, va, self.access)
        }
    }
}

/// AT: the result goes to PAR_EL1. `None`: it traps, or, with the CPU's trap empty, there is no such instruction.
///
/// An External abort on the walk is one, and not in PAR_EL1. A fault of stage 2 on a walk for EL1 is EL2's; EL2's own AT
/// reports it.
pub(crate) fn translate_address(
    cpu: &mut Cpu,
    memory: &mut Memory,
    instruction: u16,
    va: u64,
) -> Option<bool> {
    let Some(query) = Query::new(cpu, instruction) else { return Some(false) };
    cpu.sys.par = match query.translate(memory, va) {
        Ok(translation) => {
            let attributes = translation.attributes;
            PAR_RES1
                | u64::from(attributes.mair) << 56
                | translation.pa & 0x000f_ffff_ffff_f000
                | u64::from(attributes.shareability) << 7
        }
        Err(fault) => {
            let stage = match fault.kind {
                FaultKind::Stage1 => 0,
                FaultKind::Stage2 { of_walk, .. } if cpu.exception_level() == 2 => {
                    PAR_S | if of_walk { PAR_PTW } else { 0 }
                }
                FaultKind::Stage2 { .. } | FaultKind::External { .. } => {
                    // Reported like a fault of cache maintenance: CM and WnR set.
                    cpu.raise_fault(&fault, va, Intent::MAINTENANCE, 0);
                    return None;
                }
            };
            PAR_RES1 | stage | u64::from(fault.status.bits()) << 1 | 1
        }
    };
    Some(true)
}

#[cfg(test)]
mod unit {
    use super::*;

    /// C5.5: CRm and op2 of each TLBI with op1 = 4.
    #[test]
    fn tlbi_of_el2_is_told_apart_by_regime_and_reach() {
        let all = |of| Maintenance { of, what: Invalidation::All };
        for (crm, op2, expected) in [
            (0, 1, Some((all(Banked::El10), true))),
            (4, 5, Some((all(Banked::El10), false))),
            (3, 4, Some((all(Banked::El10), true))),
            (7, 6, Some((all(Banked::El10), false))),
            (3, 0, Some((all(Banked::El20), true))),
            (7, 1, Some((Maintenance { of: Banked::El20, what: Invalidation::Address(0x5000) }, false))),
            (3, 3, None),
            (1, 0, None),
        ] {
            assert_eq!(tlbi_of_el2(id(1, 4, 8, crm, op2), 5), expected, "CRm {crm} op2 {op2}");
        }
    }
}
