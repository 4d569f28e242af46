//! The performance monitor: PMUv3 with the cycle counter and no event counter (PMCR_EL0.N = 0).
//!
//! A cycle is a step of this CPU: an instruction completed or an exception taken. A CPU that waits, or that
//! is not at its turn, counts none, as one that is in WFI. The counter is 64 bits wide, as it is where there
//! is no AArch32 (PMCR_EL0.LC is RES1).
//!
//! Source: DDI 0487, D13 "The Performance Monitors Extension", and the registers by name in D24.5.

use seawall_arm::sysreg::{
    PMCCFILTR_EL0, PMCCNTR_EL0, PMCEID0_EL0, PMCEID1_EL0, PMCNTENCLR_EL0, PMCNTENSET_EL0, PMCR_EL0,
    PMINTENCLR_EL1, PMINTENSET_EL1, PMOVSCLR_EL0, PMOVSSET_EL0, PMSELR_EL0, PMSWINC_EL0, PMUSERENR_EL0,
    PMXEVCNTR_EL0, PMXEVTYPER_EL0,
};

use crate::sysreg::id;

/// INTID of the PPI that says that the counter overflowed, as on QEMU's `virt`.
pub(crate) const PPI: u32 = 23;

/// PMCR_EL0: enable; reset the cycle counter; a 64-bit cycle counter (RES1).
mod pmcr {
    pub(super) const E: u64 = 1 << 0;
    pub(super) const C: u64 = 1 << 2;
    pub(super) const LC: u64 = 1 << 6;
}

/// PMUSERENR_EL0: what EL0 may do.
mod userenr {
    pub(super) const EN: u64 = 1 << 0;
    pub(super) const SW: u64 = 1 << 1;
    pub(super) const CR: u64 = 1 << 2;
    pub(super) const ER: u64 = 1 << 3;
    pub(super) const ALL: u64 = 0xf;
}

/// PMCCFILTR_EL0: not at EL1, not at EL0, also at EL2. The rest is about levels and states that are not there.
mod filter {
    pub(super) const NSH: u64 = 1 << 27;
    pub(super) const P: u64 = 1 << 31;
    pub(super) const U: u64 = 1 << 30;
}

/// The cycle counter in the registers that have a bit for each counter; also its number.
const CYCLE_COUNTER: u32 = 31;
const CYCLE: u64 = 1 << CYCLE_COUNTER;
/// PMCEID0_EL0: the one common event that is counted, CPU_CYCLES (0x11).
const CPU_CYCLES: u64 = 1 << 0x11;

/// One CPU's performance monitor. Times are in steps of the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pmu {
    /// PMCR_EL0.E.
    enabled: bool,
    /// The cycle counter's bit of PMCNTEN, PMINTEN and PMOVS.
    counter_enabled: bool,
    interrupt_enabled: bool,
    overflowed: bool,
    /// PMCCFILTR_EL0.
    filter: u64,
    /// PMSELR_EL0.SEL.
    selected: u64,
    /// PMUSERENR_EL0.
    user: u64,
    /// PMCCNTR_EL0 at `since`.
    count: u64,
    since: u64,
    /// The counter goes on.
    counting: bool,
}

/// True if a system register is one of the performance monitor's, read or written.
pub(crate) fn is_register(register: u16) -> bool {
    match register {
        PMINTENSET_EL1 | PMINTENCLR_EL1 | PMCCFILTR_EL0 => true,
        // 9, 12 to 14 and 0 to 7: the rest of the space is UNDEFINED all the same.
        _ => (PMCR_EL0..=id(3, 3, 9, 14, 7)).contains(&register),
    }
}

impl Pmu {
    /// As it comes out of reset. What is UNKNOWN then is 0.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// True if this is a state that it can come to at this Exception level.
    pub(crate) fn is_sound(&self, el: u8) -> bool {
        self.filter & !(filter::P | filter::U | filter::NSH) == 0
            && self.selected <= 31
            && self.user & !userenr::ALL == 0
            && self.counting == self.counts_at(el)
    }

    /// Brings the counter up to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        if self.counting {
            let (count, overflow) = self.count.overflowing_add(now.wrapping_sub(self.since));
            self.count = count;
            self.overflowed |= overflow;
        }
        self.since = now;
    }

    /// True if the counter goes on at this Exception level.
    fn counts_at(&self, el: u8) -> bool {
        let included = match el {
            0 => self.filter & filter::U == 0,
            1 => self.filter & filter::P == 0,
            _ => self.filter & filter::NSH != 0,
        };
        self.enabled && self.counter_enabled && included
    }

    /// The CPU is at this Exception level from `now` on. Whether the counter starts or stops.
    pub(crate) fn enter_el(&mut self, el: u8, now: u64) -> bool {
        let counting = self.counts_at(el);
        if counting == self.counting {
            return false;
        }
        self.advance(now);
        self.counting = counting;
        true
    }

    /// True if the counter's interrupt is asserted; [`Pmu::advance`] first.
    pub(crate) fn line(&self) -> bool {
        self.enabled && self.overflowed && self.interrupt_enabled
    }

    /// After how many steps of the CPU the counter overflows; [`Pmu::advance`] first.
    pub(crate) fn next_overflow(&self) -> Option<u64> {
        // From 0 it takes 2^64 steps.
        if !self.counting || self.count == 0 {
            return None;
        }
        self.since.checked_add(self.count.wrapping_neg())
    }

    /// True if EL0 may access a register: PMUSERENR_EL0. `None`: it never may.
    pub(crate) fn el0_right(&self, register: u16, is_read: bool) -> Option<bool> {
        let also = match register {
            PMUSERENR_EL0 => return is_read.then_some(true),
            PMCEID0_EL0 | PMCEID1_EL0 if !is_read => return None,
            PMSWINC_EL0 if is_read => return None,
            PMCCNTR_EL0 if is_read => userenr::CR,
            PMXEVCNTR_EL0 if is_read => userenr::ER,
            PMSELR_EL0 => userenr::ER,
            PMSWINC_EL0 => userenr::SW,
            PMCR_EL0 | PMCNTENSET_EL0 | PMCNTENCLR_EL0 | PMOVSCLR_EL0 | PMOVSSET_EL0 | PMCEID0_EL0
            | PMCEID1_EL0 | PMCCNTR_EL0 | PMXEVTYPER_EL0 | PMXEVCNTR_EL0 | PMCCFILTR_EL0 => 0,
            _ => return None,
        };
        Some(self.user & (userenr::EN | also) != 0)
    }

    /// MRS at `now`. `None`: UNDEFINED.
    pub(crate) fn read(&self, register: u16, now: u64) -> Option<u64> {
        let mut current = self.clone();
        current.advance(now);
        let bit = |set: bool| u64::from(set) << CYCLE_COUNTER;
        Some(match register {
            PMCR_EL0 => pmcr::LC | u64::from(self.enabled),
            PMCNTENSET_EL0 | PMCNTENCLR_EL0 => bit(self.counter_enabled),
            PMINTENSET_EL1 | PMINTENCLR_EL1 => bit(self.interrupt_enabled),
            PMOVSSET_EL0 | PMOVSCLR_EL0 => bit(current.overflowed),
            PMSELR_EL0 => self.selected,
            PMCEID0_EL0 => CPU_CYCLES,
            PMCCNTR_EL0 => current.count,
            PMCCFILTR_EL0 => self.filter,
            PMXEVTYPER_EL0 if self.selected == u64::from(CYCLE_COUNTER) => self.filter,
            // No counter is selected, or one that is not there: RAZ/WI, as the architecture lets it be.
            PMCEID1_EL0 | PMXEVTYPER_EL0 | PMXEVCNTR_EL0 => 0,
            PMUSERENR_EL0 => self.user,
            _ => return None,
        })
    }

    /// MSR at `now` and Exception level `el`. `None`: UNDEFINED.
    pub(crate) fn write(&mut self, register: u16, value: u64, now: u64, el: u8, has_el2: bool) -> Option<()> {
        self.advance(now);
        let filter_mask = filter::P | filter::U | if has_el2 { filter::NSH } else { 0 };
        let cycle = value & CYCLE != 0;
        match register {
            PMCR_EL0 => {
                self.enabled = value & pmcr::E != 0;
                if value & pmcr::C != 0 {
                    self.count = 0;
                }
            }
            PMCNTENSET_EL0 => self.counter_enabled |= cycle,
            PMCNTENCLR_EL0 => self.counter_enabled &= !cycle,
            PMINTENSET_EL1 => self.interrupt_enabled |= cycle,
            PMINTENCLR_EL1 => self.interrupt_enabled &= !cycle,
            PMOVSSET_EL0 => self.overflowed |= cycle,
            PMOVSCLR_EL0 => self.overflowed &= !cycle,
            PMSELR_EL0 => self.selected = value & 31,
            PMCCNTR_EL0 => self.count = value,
            PMCCFILTR_EL0 => self.filter = value & filter_mask,
            PMXEVTYPER_EL0 if self.selected == u64::from(CYCLE_COUNTER) => {
                self.filter = value & filter_mask;
            }
            PMUSERENR_EL0 => self.user = value & userenr::ALL,
            PMSWINC_EL0 | PMXEVTYPER_EL0 | PMXEVCNTR_EL0 => {}
            _ => return None,
        }
        self.counting = self.counts_at(el);
        Some(())
    }
}
