//! Thirty-two interrupts: what one bit of each distributor register and the priorities say of them.
//!
//! Source: Arm IHI 0069, 12.9 (GICD) and 12.11 (GICR, frame SGI_base), whose registers lie at the
//! same offsets.

/// Priority bits that are there, the high ones: 32 levels, as most Arm cores have.
pub(crate) const PRIORITY_MASK: u8 = 0xf8;

/// A register of 32 interrupts' state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    /// Four priorities: the number of the word, 0 to 7.
    Priority(u8),
    /// Two bits for each of 16 interrupts: the number of the word, 0 or 1.
    Config(u8),
}

impl Register {
    /// The register at byte `offset` of a frame, a multiple of 4, and the number of the bank: its
    /// interrupts begin at 32 times that.
    pub(super) fn at(offset: u64) -> Option<(usize, Register)> {
        let one_bit = |register| Some(((offset as usize & 0x7f) / 4, register));
        match offset {
            0x080..0x100 => one_bit(Register::Group),
            0x100..0x180 => one_bit(Register::SetEnable),
            0x180..0x200 => one_bit(Register::ClearEnable),
            0x200..0x280 => one_bit(Register::SetPending),
            0x280..0x300 => one_bit(Register::ClearPending),
            0x300..0x380 => one_bit(Register::SetActive),
            0x380..0x400 => one_bit(Register::ClearActive),
            0x400..0x800 => {
                Some(((offset - 0x400) as usize / 32, Register::Priority((offset as u8 & 31) / 4)))
            }
            0xc00..0xd00 => Some(((offset - 0xc00) as usize / 8, Register::Config((offset as u8 & 7) / 4))),
            _ => None,
        }
    }
}

/// The state of 32 interrupts, a bit each.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Bank {
    /// Group 1, not 0.
    group: u32,
    enabled: u32,
    /// Made pending by an edge or by software.
    latched: u32,
    pub(super) active: u32,
    /// The inputs.
    level: u32,
    /// Edge-triggered, not level-sensitive.
    edge: u32,
    /// Whose trigger cannot be changed.
    fixed: u32,
    priority: [u8; 32],
}

impl Bank {
    /// All disabled, in group 0, priority 0, level-sensitive.
    pub(super) fn shared() -> Self {
        Self { group: 0, enabled: 0, latched: 0, active: 0, level: 0, edge: 0, fixed: 0, priority: [0; 32] }
    }

    /// The SGIs and PPIs of a CPU: SGIs are edge-triggered.
    pub(super) fn private() -> Self {
        Self { edge: 0xffff, fixed: 0xffff, ..Self::shared() }
    }

    /// Whether this is a state that a bank made like `new` can come to.
    pub(super) fn is_sound(&self, new: &Self) -> bool {
        self.fixed == new.fixed
            && self.edge & self.fixed == new.edge & new.fixed
            && self.priority.iter().all(|priority| priority & !PRIORITY_MASK == 0)
    }

    fn pending(&self) -> u32 {
        self.latched | self.level & !self.edge
    }

    /// Those that could be taken if `groups` (bit 0: group 0, bit 1: group 1) are enabled.
    pub(super) fn candidates(&self, groups: u8) -> u32 {
        let of_group = |bit: u8, which: u32| if groups >> bit & 1 != 0 { which } else { 0 };
        let in_groups = of_group(0, !self.group) | of_group(1, self.group);
        self.pending() & self.enabled & !self.active & in_groups
    }

    pub(super) fn priority(&self, n: u32) -> u8 {
        self.priority[n as usize & 31]
    }

    /// 0 or 1.
    pub(super) fn group(&self, n: u32) -> u8 {
        (self.group >> (n & 31) & 1) as u8
    }

    /// Drive the input of interrupt `n`. Whether it changed.
    pub(super) fn set_line(&mut self, n: u32, high: bool) -> bool {
        let bit = 1 << (n & 31);
        if (self.level & bit != 0) == high {
            return false;
        }
        self.level ^= bit;
        if high {
            self.latched |= self.edge & bit;
        }
        true
    }

    /// Make interrupt `n` pending, as an SGI is.
    pub(super) fn latch(&mut self, n: u32) {
        self.latched |= 1 << (n & 31);
    }

    /// Interrupt `n` was acknowledged.
    pub(super) fn activate(&mut self, n: u32) {
        self.active |= 1 << (n & 31);
        self.latched &= !(1 << (n & 31));
    }

    pub(super) fn deactivate(&mut self, n: u32) {
        self.active &= !(1 << (n & 31));
    }

    pub(super) fn read(&self, register: Register) -> u32 {
        match register {
            Register::Group => self.group,
            Register::SetEnable | Register::ClearEnable => self.enabled,
            Register::SetPending | Register::ClearPending => self.pending(),
            Register::SetActive | Register::ClearActive => self.active,
            Register::Priority(word) => {
                let bytes = self.priority.iter().skip(4 * usize::from(word)).take(4);
                bytes.rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
            }
            // The upper bit of each field; the lower is RES0.
            Register::Config(word) => {
                let edges = self.edge >> (16 * u32::from(word & 1));
                (0..16).fold(0, |value, n| value | (edges >> n & 1) << (2 * n + 1))
            }
        }
    }

    pub(super) fn write(&mut self, register: Register, value: u32) {
        match register {
            Register::Group => self.group = value,
            Register::SetEnable => self.enabled |= value,
            Register::ClearEnable => self.enabled &= !value,
            Register::SetPending => self.latched |= value,
            Register::ClearPending => self.latched &= !value,
            Register::SetActive => self.active |= value,
            Register::ClearActive => self.active &= !value,
            Register::Priority(word) => {
                for (n, byte) in (4 * word..).zip(value.to_le_bytes()) {
                    self.write_priority(n, byte);
                }
            }
            Register::Config(word) => {
                let shift = 16 * u32::from(word & 1);
                let edges = (0..16).fold(0, |edges, n| edges | (value >> (2 * n + 1) & 1) << n) << shift;
                let writable = 0xffff << shift & !self.fixed;
                self.edge = self.edge & !writable | edges & writable;
            }
        }
    }

    pub(super) fn write_priority(&mut self, n: u8, value: u8) {
        self.priority[usize::from(n) & 31] = value & PRIORITY_MASK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_lie_where_the_specification_puts_them() {
        for (offset, expected) in [
            (0x080, Some((0, Register::Group))),
            (0x104, Some((1, Register::SetEnable))),
            (0x1a0, Some((8, Register::ClearEnable))),
            (0x20c, Some((3, Register::SetPending))),
            (0x280, Some((0, Register::ClearPending))),
            (0x304, Some((1, Register::SetActive))),
            (0x3fc, Some((31, Register::ClearActive))),
            (0x41c, Some((0, Register::Priority(7)))),
            (0x424, Some((1, Register::Priority(1)))),
            (0xc04, Some((0, Register::Config(1)))),
            (0xc10, Some((2, Register::Config(0)))),
            (0x000, None),
            (0x800, None),
            (0xd00, None),
        ] {
            assert_eq!(Register::at(offset), expected, "{offset:#x}");
        }
    }

    #[test]
    fn a_level_interrupt_is_pending_while_its_line_is_high_and_an_edge_one_until_it_is_taken() {
        let mut bank = Bank::shared();
        bank.write(Register::Config(0), 0b1000);
        for n in [0, 1] {
            bank.set_line(n, true);
        }
        assert_eq!(bank.read(Register::SetPending), 0b11);
        bank.activate(0);
        bank.activate(1);
        assert_eq!(bank.read(Register::SetPending), 0b01, "the level is still there");
        bank.set_line(1, true);
        assert_eq!(bank.read(Register::SetPending), 0b01, "no new edge");
        for n in [0, 1] {
            bank.set_line(n, false);
        }
        assert_eq!(bank.read(Register::SetPending), 0);
        bank.set_line(1, true);
        bank.set_line(1, false);
        assert_eq!(bank.read(Register::SetPending), 0b10);
    }

    #[test]
    fn software_can_pend_a_level_interrupt_but_not_take_back_its_line() {
        let mut bank = Bank::shared();
        bank.write(Register::SetPending, 0b11);
        bank.set_line(0, true);
        bank.write(Register::ClearPending, 0b11);
        assert_eq!(bank.read(Register::ClearPending), 0b01);
    }

    #[test]
    fn only_enabled_and_inactive_interrupts_of_an_enabled_group_are_candidates() {
        let mut bank = Bank::shared();
        bank.write(Register::SetPending, 0b1111);
        bank.write(Register::SetEnable, 0b0111);
        bank.write(Register::Group, 0b0110);
        bank.write(Register::SetActive, 0b0100);
        assert_eq!([0, 1, 2, 3].map(|groups| bank.candidates(groups)), [0, 0b0001, 0b0010, 0b0011]);
    }

    #[test]
    fn priorities_keep_their_high_five_bits() {
        let mut bank = Bank::private();
        bank.write(Register::Priority(1), 0xff07_0980);
        assert_eq!(bank.read(Register::Priority(1)), 0xf800_0880);
        bank.write_priority(5, 0x77);
        assert_eq!(bank.read(Register::Priority(1)), 0xf800_7080);
    }

    #[test]
    fn the_trigger_of_an_sgi_is_fixed() {
        let mut bank = Bank::private();
        bank.write(Register::Config(0), 0);
        bank.write(Register::Config(1), 0x8000_0003);
        assert_eq!(
            (bank.read(Register::Config(0)), bank.read(Register::Config(1))),
            (0xaaaa_aaaa, 0x8000_0002)
        );
    }
}
