//! The generic timers: a counter that counts the machine's steps, and two timers of EL1 on each CPU, with EL2 two more.
//!
//! There is an offset between physical and virtual counter below EL2 alone (CNTVOFF_EL2). Source: DDI 0487, D12.

use crate::cpu::Cpu;
use crate::el2::Banked;

/// Frequency of the counter, Hz. See [`STEPS_PER_TICK`].
pub(crate) const COUNTER_HZ: u64 = 62_500_000;
/// How many steps make a tick of the counter: 16, so that the counter's second is a billion
/// steps. Time in the machine is steps done, by whatever CPU, and what is skipped while all CPUs
/// wait; nothing else.
pub(crate) const STEPS_PER_TICK: u64 = 16;

/// INTIDs of the timers' PPIs, as on QEMU's `virt`.
pub(crate) const VIRTUAL_PPI: u32 = 27;
pub(crate) const PHYSICAL_PPI: u32 = 30;
pub(crate) const HYPERVISOR_PPI: u32 = 26;
pub(crate) const HYPERVISOR_VIRTUAL_PPI: u32 = 28;
/// INTID of the maintenance interrupt of the list registers.
pub(crate) const MAINTENANCE_PPI: u32 = 25;

const ENABLE: u64 = 1 << 0;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;

/// One timer. Times are in ticks of the counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Timer {
    /// ENABLE and IMASK.
    control: u64,
    /// When it fires.
    pub(crate) compare: u64,
}

impl Timer {
    /// True if this is a state that a timer can come to.
    pub(crate) fn is_sound(self) -> bool {
        self.control & !(ENABLE | IMASK) == 0
    }

    fn fires(self, now: u64) -> bool {
        self.control & ENABLE != 0 && now >= self.compare
    }

    /// CTL.
    pub(crate) fn control(self, now: u64) -> u64 {
        self.control | if self.fires(now) { ISTATUS } else { 0 }
    }

    pub(crate) fn set_control(&mut self, value: u64) {
        self.control = value & (ENABLE | IMASK);
    }

    /// TVAL: a signed 32-bit distance from now.
    pub(crate) fn value(self, now: u64) -> u64 {
        self.compare.wrapping_sub(now) & 0xffff_ffff
    }

    pub(crate) fn set_value(&mut self, now: u64, value: u64) {
        self.compare = now.wrapping_add(value as u32 as i32 as u64);
    }

    /// True if its interrupt is asserted.
    pub(crate) fn line(self, now: u64) -> bool {
        self.fires(now) && self.control & IMASK == 0
    }

    /// When its interrupt will be asserted, if it is not yet, in ticks of the counter that is `offset` ahead of its own.
    pub(crate) fn next_with(self, now: u64, offset: u64) -> Option<u64> {
        let own = now.wrapping_sub(offset);
        self.next(own).map(|compare| now.saturating_add(compare.wrapping_sub(own)))
    }

    /// When its interrupt will be asserted, if it is not yet.
    pub(crate) fn next(self, now: u64) -> Option<u64> {
        (self.control & (ENABLE | IMASK) == ENABLE && now < self.compare).then_some(self.compare)
    }
}

impl Cpu {
    /// The timers, each with the INTID of its PPI and by how much its counter is behind the physical one.
    pub(crate) fn timers(&self) -> impl Iterator<Item = (u32, Timer, u64)> + use<> {
        let own = self.registers_of(Banked::El10);
        let offset = self.el2.as_ref().map_or(0, |el2| el2.registers.virtual_offset());
        let of_el1 = [(PHYSICAL_PPI, own.physical_timer, 0), (VIRTUAL_PPI, own.virtual_timer, offset)];
        let of_el2 = self.el2.is_some().then(|| {
            let own = self.registers_of(Banked::El20);
            [(HYPERVISOR_PPI, own.physical_timer, 0), (HYPERVISOR_VIRTUAL_PPI, own.virtual_timer, 0)]
        });
        of_el1.into_iter().chain(of_el2.into_iter().flatten())
    }
}

/// CNTKCTL_EL1: the event stream.
mod cntkctl {
    pub(super) const EVNTEN: u64 = 1 << 2;
    pub(super) const EVNTDIR: u64 = 1 << 3;
    pub(super) const EVNTI_SHIFT: u32 = 4;
}

/// When the event stream next wakes a CPU from WFE: the counter's bit EVNTI goes to 1, or to 0 with
/// EVNTDIR. `None` if it is off.
pub(crate) fn next_event(cntkctl: u64, now: u64) -> Option<u64> {
    if cntkctl & cntkctl::EVNTEN == 0 {
        return None;
    }
    let half = 1_u64 << (cntkctl >> cntkctl::EVNTI_SHIFT & 15);
    let phase = if cntkctl & cntkctl::EVNTDIR == 0 { half } else { 0 };
    let period = 2 * half;
    // Ticks from now to the next time that the counter is `phase`, modulo the period; never 0.
    let distance = (phase.wrapping_sub(now).wrapping_sub(1) & (period - 1)) + 1;
    now.checked_add(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_from_its_compare_value_on() {
        let mut timer = Timer::default();
        timer.set_value(100, 50);
        assert_eq!(
            (timer.compare, timer.control(1000), timer.line(1000), timer.next(100)),
            (150, 0, false, None)
        );
        timer.set_control(0xff);
        assert_eq!((timer.control(149), timer.control(150), timer.line(150)), (3, 7, false), "IMASK");
        timer.set_control(1);
        assert_eq!(
            (timer.line(149), timer.line(150), timer.next(149), timer.next(150)),
            (false, true, Some(150), None)
        );
    }

    /// D12.2: the virtual counter is the physical one less CNTVOFF_EL2.
    #[test]
    fn a_timer_with_an_offset_fires_by_its_own_counter() {
        let mut timer = Timer::default();
        timer.set_control(1);
        timer.compare = 50;
        assert_eq!((timer.next_with(1000, 990), timer.next_with(1000, 950)), (Some(1040), None));
        // The counter is ahead of the physical one.
        timer.compare = 1100;
        assert_eq!(timer.next_with(1000, 50_u64.wrapping_neg()), Some(1050));
    }

    #[test]
    fn the_timer_value_is_signed_and_counts_on_below_zero() {
        let mut timer = Timer::default();
        timer.set_value(100, 0xffff_fff6);
        assert_eq!((timer.compare, timer.value(100)), (90, 0xffff_fff6));
    }

    #[test]
    fn the_event_stream_follows_a_bit_of_the_counter() {
        assert_eq!(next_event(0x40, 0), None);
        // Bit 4, rising: at 16, 48, 80.
        let rising = |now| next_event(0x44, now);
        assert_eq!([0, 15, 16, 47, 48].map(rising), [16, 16, 48, 48, 80].map(Some));
        // Falling: at 32, 64.
        let falling = |now| next_event(0x4c, now);
        assert_eq!([0, 31, 32].map(falling), [32, 32, 64].map(Some));
    }
}
