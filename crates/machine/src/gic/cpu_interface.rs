//! The CPU interface: what an interrupt's priority is compared with, and which are being handled.
//!
//! Source: Arm IHI 0069, 12.2 (ICC_* system registers) and 4.8 (priorities). The view is that of
//! EL1 in a system with one Security state.

pub(super) use seawall_arm::sysreg::{
    ICC_AP0R0_EL1, ICC_AP1R0_EL1, ICC_ASGI1R_EL1, ICC_BPR0_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1,
    ICC_EOIR0_EL1, ICC_EOIR1_EL1, ICC_HPPIR0_EL1, ICC_HPPIR1_EL1, ICC_IAR0_EL1, ICC_IAR1_EL1,
    ICC_IGRPEN0_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_RPR_EL1, ICC_SGI0R_EL1, ICC_SGI1R_EL1, ICC_SRE_EL1,
};

/// ICC_CTLR_EL1: A3V, 16 bits of INTID (0), five priority bits (less 1).
const CTLR_FIXED: u64 = 1 << 15 | 4 << 8;
/// ICC_CTLR_EL1.CBPR: both groups use ICC_BPR0_EL1.
const CBPR: u64 = 1;
/// ICC_CTLR_EL1.EOImode: EOIR only drops the priority, DIR deactivates.
const EOI_MODE: u64 = 1 << 1;
/// The least ICC_BPR0_EL1 with five priority bits, all of them for preemption.
const MIN_BPR0: u8 = 2;
/// The running priority when nothing is active.
const IDLE_PRIORITY: u8 = 0xff;

/// One CPU's interface.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct CpuInterface {
    /// Only interrupts of higher priority (lower value) are signalled.
    priority_mask: u8,
    binary_point: [u8; 2],
    /// Which priorities are active, a bit each, by group.
    active_priorities: [u32; 2],
    control: u64,
    /// ICC_IGRPEN0_EL1 and ICC_IGRPEN1_EL1.
    enabled: [bool; 2],
}

impl CpuInterface {
    pub(super) fn new() -> Self {
        Self {
            priority_mask: 0,
            binary_point: [MIN_BPR0, MIN_BPR0 + 1],
            active_priorities: [0; 2],
            control: 0,
            enabled: [false; 2],
        }
    }

    /// True if this is a state that an interface can come to.
    pub(super) fn is_sound(&self) -> bool {
        let [first, second] = self.binary_point;
        (MIN_BPR0..8).contains(&first)
            && (MIN_BPR0 + 1..8).contains(&second)
            && self.priority_mask & !super::bank::PRIORITY_MASK == 0
            && self.control & !(CBPR | EOI_MODE) == 0
    }

    /// The groups enabled, bit 0 and 1.
    pub(super) fn groups(&self) -> u8 {
        u8::from(self.enabled[0]) | u8::from(self.enabled[1]) << 1
    }

    /// True if EOIR also deactivates.
    pub(super) fn eoi_deactivates(&self) -> bool {
        self.control & EOI_MODE == 0
    }

    /// The bits of a priority that preemption looks at.
    pub(super) fn group_priority(&self, group: u8, priority: u8) -> u8 {
        let point = if group == 0 || self.control & CBPR != 0 {
            self.binary_point[0]
        } else {
            self.binary_point[1].saturating_sub(1)
        };
        priority & (0xff_u32 << (point + 1)) as u8
    }

    /// ICC_BPR0_EL1 or ICC_BPR1_EL1, the latter as it is without CBPR.
    pub(super) fn own_binary_point(&self, group: usize) -> u64 {
        self.binary_point[group & 1].into()
    }

    /// The priority of what is being handled.
    pub(super) fn running_priority(&self) -> u8 {
        let active = self.active_priorities[0] | self.active_priorities[1];
        if active == 0 { IDLE_PRIORITY } else { (active.trailing_zeros() << 3) as u8 }
    }

    /// True if an interrupt may be signalled, or acknowledged.
    pub(super) fn signals(&self, group: u8, priority: u8) -> bool {
        let running = self.running_priority();
        priority < self.priority_mask
            && (running == IDLE_PRIORITY
                || self.group_priority(group, priority) < self.group_priority(group, running))
    }

    /// An interrupt was acknowledged.
    pub(super) fn activate(&mut self, group: u8, priority: u8) {
        let bit = self.group_priority(group, priority) >> 3;
        self.active_priorities[usize::from(group & 1)] |= 1 << (bit & 31);
    }

    /// The highest active priority of a group ends, if it is the running one. Whether it did.
    pub(super) fn drop_priority(&mut self, group: u8) -> bool {
        let [this, other] = if group == 0 { [0, 1] } else { [1, 0] };
        let active = self.active_priorities[this];
        if active == 0 || active.trailing_zeros() > self.active_priorities[other].trailing_zeros() {
            return false;
        }
        self.active_priorities[this] &= active - 1;
        true
    }

    /// The registers that only the interface itself is about; `None` if `register` is none of them.
    pub(super) fn read(&self, register: u16) -> Option<u64> {
        Some(match register {
            ICC_PMR_EL1 => self.priority_mask.into(),
            ICC_BPR0_EL1 => self.binary_point[0].into(),
            ICC_BPR1_EL1 if self.control & CBPR != 0 => (self.binary_point[0] + 1).min(7).into(),
            ICC_BPR1_EL1 => self.binary_point[1].into(),
            ICC_AP0R0_EL1 => self.active_priorities[0].into(),
            ICC_AP1R0_EL1 => self.active_priorities[1].into(),
            ICC_RPR_EL1 => self.running_priority().into(),
            ICC_CTLR_EL1 => self.control | CTLR_FIXED,
            // Only system registers: SRE, DFB and DIB.
            ICC_SRE_EL1 => 7,
            ICC_IGRPEN0_EL1 => self.enabled[0].into(),
            ICC_IGRPEN1_EL1 => self.enabled[1].into(),
            _ => return None,
        })
    }

    /// As [`Self::read`].
    pub(super) fn write(&mut self, register: u16, value: u64) -> Option<()> {
        let point = |least: u8| (value as u8 & 7).max(least);
        match register {
            ICC_PMR_EL1 => self.priority_mask = value as u8 & super::bank::PRIORITY_MASK,
            ICC_BPR0_EL1 => self.binary_point[0] = point(MIN_BPR0),
            ICC_BPR1_EL1 if self.control & CBPR != 0 => {}
            ICC_BPR1_EL1 => self.binary_point[1] = point(MIN_BPR0 + 1),
            ICC_AP0R0_EL1 => self.active_priorities[0] = value as u32,
            ICC_AP1R0_EL1 => self.active_priorities[1] = value as u32,
            ICC_CTLR_EL1 => self.control = value & (CBPR | EOI_MODE),
            ICC_SRE_EL1 => {}
            ICC_IGRPEN0_EL1 => self.enabled[0] = value & 1 != 0,
            ICC_IGRPEN1_EL1 => self.enabled[1] = value & 1 != 0,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> CpuInterface {
        let mut interface = CpuInterface::new();
        interface.write(ICC_PMR_EL1, 0xff).expect("a register");
        interface
    }

    #[test]
    fn five_priority_bits_are_there() {
        let mut interface = open();
        assert_eq!(interface.read(ICC_PMR_EL1), Some(0xf8));
        assert_eq!(interface.read(ICC_CTLR_EL1), Some(0x8400));
        interface.write(ICC_BPR0_EL1, 0).expect("a register");
        interface.write(ICC_BPR1_EL1, 0).expect("a register");
        assert_eq!((interface.read(ICC_BPR0_EL1), interface.read(ICC_BPR1_EL1)), (Some(2), Some(3)));
    }

    #[test]
    fn the_mask_holds_back_its_own_priority_and_lower_ones() {
        let mut interface = open();
        interface.write(ICC_PMR_EL1, 0xa0).expect("a register");
        assert!(interface.signals(1, 0x98));
        assert!(!interface.signals(1, 0xa0));
        assert!(!interface.signals(1, 0xf8));
    }

    #[test]
    fn preemption_needs_a_higher_group_priority() {
        let mut interface = open();
        interface.activate(1, 0x80);
        assert_eq!(interface.read(ICC_RPR_EL1), Some(0x80));
        assert_eq!(interface.read(ICC_AP1R0_EL1), Some(1 << 16));
        assert!(interface.signals(1, 0x78) && !interface.signals(1, 0x80));
        // With BPR1 = 6 preemption looks at bits [7:6] of a group 1 priority.
        interface.write(ICC_BPR1_EL1, 6).expect("a register");
        assert!(!interface.signals(1, 0x88));
        assert!(interface.signals(1, 0x78), "another of the four groups");
        interface.write(ICC_CTLR_EL1, 1).expect("a register");
        assert_eq!(interface.read(ICC_BPR1_EL1), Some(3), "CBPR: BPR0 + 1");
    }

    #[test]
    fn an_end_drops_the_running_priority_and_only_of_its_own_group() {
        let mut interface = open();
        interface.activate(1, 0x80);
        interface.activate(0, 0x40);
        assert_eq!(interface.running_priority(), 0x40);
        assert!(!interface.drop_priority(1), "group 0 is running");
        assert!(interface.drop_priority(0));
        assert_eq!(interface.running_priority(), 0x80);
        assert!(interface.drop_priority(1));
        assert_eq!(interface.running_priority(), 0xff);
        assert!(!interface.drop_priority(1));
    }
}
