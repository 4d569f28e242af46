//! The virtual CPU interface: list registers of EL2, and what EL1 sees through them (ICV_* registers).
//!
//! Source: Arm IHI 0069, 12.4 (ICH_*), 12.5 (ICV_*), 6 (virtual interrupt handling).

use serde::{Deserialize, Serialize};

use super::bank::PRIORITY_MASK;
use super::cpu_interface::{
    CpuInterface, ICC_AP0R0_EL1, ICC_AP1R0_EL1, ICC_ASGI1R_EL1, ICC_BPR0_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1,
    ICC_DIR_EL1, ICC_EOIR0_EL1, ICC_EOIR1_EL1, ICC_HPPIR0_EL1, ICC_HPPIR1_EL1, ICC_IAR0_EL1, ICC_IAR1_EL1,
    ICC_IGRPEN0_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_RPR_EL1, ICC_SGI0R_EL1, ICC_SGI1R_EL1, ICC_SRE_EL1,
};
pub(crate) use super::is_register;
use super::{SPECIAL, SPURIOUS};

/// How many list registers there are, as on QEMU's `virt`.
const LIST_REGISTERS: usize = 4;
/// ICH_VTR_EL2: five bits of priority and of preemption, 16 bits of INTID (0), A3V, no GICv4 (nV4), TDIR (TDS).
const VTR: u64 = 4 << 29 | 4 << 26 | 1 << 21 | 1 << 20 | 1 << 19 | (LIST_REGISTERS as u64 - 1);

/// ICH_HCR_EL2.
mod control {
    pub(super) const EN: u64 = 1 << 0;
    /// The maintenance interrupts but for EOI's, by their bits of ICH_MISR_EL2.
    pub(super) const MAINTENANCE: u64 = 0xfe;
    pub(super) const TC: u64 = 1 << 10;
    pub(super) const TALL0: u64 = 1 << 11;
    pub(super) const TALL1: u64 = 1 << 12;
    pub(super) const TSEI: u64 = 1 << 13;
    pub(super) const TDIR: u64 = 1 << 14;
    pub(super) const EOI_COUNT_SHIFT: u32 = 27;
    pub(super) const EOI_COUNT: u64 = 0x1f << EOI_COUNT_SHIFT;
    pub(super) const ALL: u64 = EN | MAINTENANCE | TC | TALL0 | TALL1 | TSEI | TDIR | EOI_COUNT;
}

/// ICH_MISR_EL2.
mod misr {
    pub(super) const EOI: u64 = 1 << 0;
    pub(super) const UNDERFLOW: u64 = 1 << 1;
    pub(super) const LIST_ENTRY_NOT_PRESENT: u64 = 1 << 2;
    pub(super) const NO_PENDING: u64 = 1 << 3;
    pub(super) const GROUP_0_ENABLED: u64 = 1 << 4;
    pub(super) const GROUP_0_DISABLED: u64 = 1 << 5;
    pub(super) const GROUP_1_ENABLED: u64 = 1 << 6;
    pub(super) const GROUP_1_DISABLED: u64 = 1 << 7;
}

/// ICH_VMCR_EL2.VFIQEn: RES1 with system registers.
const VFIQEN: u64 = 1 << 3;

/// `ICH_LR<n>_EL2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
struct ListRegister(u64);

impl ListRegister {
    const PENDING: u64 = 1 << 62;
    const ACTIVE: u64 = 1 << 63;
    const STATE: u64 = Self::PENDING | Self::ACTIVE;
    /// A physical interrupt is behind it.
    const HW: u64 = 1 << 61;
    const GROUP_1: u64 = 1 << 60;
    /// Its end is a maintenance interrupt. Part of pINTID where there is one.
    const EOI: u64 = 1 << 41;
    const ALL: u64 =
        Self::STATE | Self::HW | Self::GROUP_1 | (PRIORITY_MASK as u64) << 48 | 0x1fff << 32 | 0xffff_ffff;

    fn state(self) -> u64 {
        self.0 & Self::STATE
    }

    fn group(self) -> u8 {
        u8::from(self.0 & Self::GROUP_1 != 0)
    }

    fn priority(self) -> u8 {
        (self.0 >> 48) as u8
    }

    fn intid(self) -> u32 {
        self.0 as u32
    }

    fn physical(self) -> Option<u32> {
        (self.0 & Self::HW != 0).then_some((self.0 >> 32) as u32 & 0x1fff)
    }

    fn with_state(self, state: u64) -> Self {
        Self(self.0 & !Self::STATE | state)
    }
}

/// One CPU's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VirtualInterface {
    /// What ICH_VMCR_EL2 and ICH_APnR0_EL2 are views of.
    interface: CpuInterface,
    control: u64,
    list: [ListRegister; LIST_REGISTERS],
    /// A physical interrupt that is to be deactivated. None between two instructions.
    #[serde(skip)]
    deactivated: Option<u32>,
}

impl VirtualInterface {
    pub(crate) fn new() -> Self {
        let list = [ListRegister::default(); LIST_REGISTERS];
        Self { interface: CpuInterface::new(), control: 0, list, deactivated: None }
    }

    /// True if this is a state that it can come to.
    pub(crate) fn is_sound(&self) -> bool {
        self.interface.is_sound()
            && self.control & !control::ALL == 0
            && self.list.iter().all(|entry| entry.0 & !ListRegister::ALL == 0)
    }

    /// The pending interrupt of highest priority in an enabled group: of equals, that of the lowest list register.
    fn highest_pending(&self) -> Option<usize> {
        let groups = self.interface.groups();
        let pending =
            self.list.iter().enumerate().filter(|(_, entry)| {
                entry.state() == ListRegister::PENDING && groups >> entry.group() & 1 != 0
            });
        pending.min_by_key(|(_, entry)| entry.priority()).map(|(n, _)| n)
    }

    /// The interrupt that is signalled.
    fn signalled(&self) -> Option<usize> {
        let best = self.highest_pending().filter(|_| self.control & control::EN != 0)?;
        let entry = self.list.get(best)?;
        self.interface.signals(entry.group(), entry.priority()).then_some(best)
    }

    /// The group of the interrupt that is signalled: 0 by FIQ, 1 by IRQ.
    pub(crate) fn signalled_group(&self) -> Option<u8> {
        self.signalled().and_then(|n| self.list.get(n)).map(|entry| entry.group())
    }

    /// The list registers of which this holds, a bit each.
    fn those(&self, holds: impl Fn(ListRegister) -> bool) -> u64 {
        (0..).zip(self.list).fold(0, |all, (n, entry)| all | u64::from(holds(entry)) << n)
    }

    /// ICH_EISR_EL2: those whose end is to be told.
    fn ended(&self) -> u64 {
        self.those(|entry| {
            entry.0 & (ListRegister::STATE | ListRegister::HW | ListRegister::EOI) == ListRegister::EOI
        })
    }

    /// ICH_ELRSR_EL2: those that are free.
    fn free(&self) -> u64 {
        self.those(|entry| {
            entry.state() == 0 && entry.0 & (ListRegister::HW | ListRegister::EOI) != ListRegister::EOI
        })
    }

    /// ICH_MISR_EL2.
    fn maintenance_state(&self) -> u64 {
        let valid = self.those(|entry| entry.state() != 0).count_ones();
        let pending = self.those(|entry| entry.state() == ListRegister::PENDING);
        let groups = self.interface.groups();
        let is = |bit: u64, holds: bool| if holds { bit } else { 0 };
        let conditions = is(misr::UNDERFLOW, valid <= 1)
            | is(misr::LIST_ENTRY_NOT_PRESENT, self.control & control::EOI_COUNT != 0)
            | is(misr::NO_PENDING, pending == 0)
            | is(misr::GROUP_0_ENABLED, groups & 1 != 0)
            | is(misr::GROUP_0_DISABLED, groups & 1 == 0)
            | is(misr::GROUP_1_ENABLED, groups & 2 != 0)
            | is(misr::GROUP_1_DISABLED, groups & 2 == 0);
        // Each enable has the place of its condition.
        is(misr::EOI, self.ended() != 0) | conditions & self.control & control::MAINTENANCE
    }

    /// True if the maintenance interrupt is asserted.
    pub(crate) fn maintenance(&self) -> bool {
        self.control & control::EN != 0 && self.maintenance_state() != 0
    }

    /// ICH_VMCR_EL2.
    fn vmcr(&self) -> u64 {
        let of = |register| self.interface.read(register).unwrap_or(0);
        let control = of(ICC_CTLR_EL1);
        VFIQEN
            | u64::from(self.interface.groups())
            | (control & 1) << 4
            | (control >> 1 & 1) << 9
            | self.interface.own_binary_point(1) << 18
            | self.interface.own_binary_point(0) << 21
            | of(ICC_PMR_EL1) << 24
    }

    fn set_vmcr(&mut self, value: u64) {
        let interface = &mut self.interface;
        for (register, value) in [
            // BPR1 cannot be written with CBPR.
            (ICC_CTLR_EL1, 0),
            (ICC_BPR1_EL1, value >> 18 & 7),
            (ICC_BPR0_EL1, value >> 21 & 7),
            (ICC_IGRPEN0_EL1, value & 1),
            (ICC_IGRPEN1_EL1, value >> 1 & 1),
            (ICC_CTLR_EL1, value >> 4 & 1 | (value >> 9 & 1) << 1),
            (ICC_PMR_EL1, value >> 24 & 0xff),
        ] {
            let done = interface.write(register, value);
            debug_assert!(done.is_some(), "{register:#x} is a register");
        }
    }

    /// MRS of ICH_*_EL2, by CRm and op2. `None`: there is none.
    pub(crate) fn read_ich(&self, register: u16) -> Option<u64> {
        Some(match (register >> 3 & 15, register & 7) {
            (8, 0) => self.interface.read(ICC_AP0R0_EL1)?,
            (9, 0) => self.interface.read(ICC_AP1R0_EL1)?,
            (11, 0) => self.control,
            (11, 1) => VTR,
            (11, 2) => self.maintenance_state(),
            (11, 3) => self.ended(),
            (11, 5) => self.free(),
            (11, 7) => self.vmcr(),
            (12, n) => self.list.get(usize::from(n))?.0,
            _ => return None,
        })
    }

    /// MSR of ICH_*_EL2. `None`: there is none, or it is read-only.
    pub(crate) fn write_ich(&mut self, register: u16, value: u64) -> Option<()> {
        match (register >> 3 & 15, register & 7) {
            (8, 0) => self.interface.write(ICC_AP0R0_EL1, value)?,
            (9, 0) => self.interface.write(ICC_AP1R0_EL1, value)?,
            (11, 0) => self.control = value & control::ALL,
            (11, 7) => self.set_vmcr(value),
            (12, n) => self.list.get_mut(usize::from(n))?.0 = value & ListRegister::ALL,
            _ => return None,
        }
        Some(())
    }

    /// True if EL2 traps EL1's access to a register of the CPU interface, with HCR_EL2.IMO and FMO.
    pub(crate) fn traps(&self, register: u16, imo: bool, fmo: bool) -> bool {
        let is_sgi = matches!(register, ICC_SGI1R_EL1 | ICC_SGI0R_EL1 | ICC_ASGI1R_EL1);
        let bits = match group_of(register) {
            Some(0) => control::TALL0,
            Some(_) => control::TALL1,
            None if register == ICC_SRE_EL1 => 0,
            None if register == ICC_DIR_EL1 => control::TC | control::TDIR,
            None => control::TC,
        };
        is_sgi && (imo || fmo) || self.control & bits != 0
    }

    /// MRS of an ICV_* register. `None`: UNDEFINED.
    pub(crate) fn read(&mut self, register: u16) -> Option<u64> {
        let pending_in = |group| {
            let best = self.highest_pending().and_then(|n| self.list.get(n));
            best.filter(|entry| entry.group() == group).map_or(SPURIOUS, |entry| entry.intid())
        };
        match register {
            ICC_IAR0_EL1 => Some(self.acknowledge(0)),
            ICC_IAR1_EL1 => Some(self.acknowledge(1)),
            ICC_HPPIR0_EL1 => Some(pending_in(0).into()),
            ICC_HPPIR1_EL1 => Some(pending_in(1).into()),
            _ => self.interface.read(register),
        }
    }

    /// ICV_IARn_EL1: from pending to active; one with a special INTID is gone at once.
    fn acknowledge(&mut self, group: u8) -> u64 {
        let best = self.signalled().and_then(|n| self.list.get_mut(n));
        let Some(entry) = best.filter(|entry| entry.group() == group) else { return SPURIOUS.into() };
        let intid = entry.intid();
        if (SPECIAL..=SPURIOUS).contains(&intid) {
            *entry = entry.with_state(0);
        } else {
            *entry = entry.with_state(ListRegister::ACTIVE);
            self.interface.activate(group, entry.priority());
        }
        intid.into()
    }

    /// MSR of an ICV_* register. `None`: UNDEFINED.
    pub(crate) fn write(&mut self, register: u16, value: u64) -> Option<()> {
        let intid = value as u32 & 0xff_ffff;
        match register {
            ICC_EOIR0_EL1 => self.end(0, intid),
            ICC_EOIR1_EL1 => self.end(1, intid),
            ICC_DIR_EL1 if !self.interface.eoi_deactivates() => self.deactivate(intid),
            ICC_DIR_EL1 => {}
            _ => return self.interface.write(register, value),
        }
        Some(())
    }

    /// ICV_EOIRn_EL1: the highest active priority is dropped, whichever group's; in EOI mode 0 the interrupt is
    /// deactivated, if it was of that priority and this group.
    fn end(&mut self, group: u8, intid: u32) {
        if (SPECIAL..=SPURIOUS).contains(&intid) {
            return;
        }
        let running = self.interface.running_priority();
        if !self.interface.drop_priority(0) && !self.interface.drop_priority(1) {
            return;
        }
        if !self.interface.eoi_deactivates() {
            return;
        }
        let is_other = self.active(intid).and_then(|n| self.list.get(n)).is_some_and(|entry| {
            entry.group() != group || self.interface.group_priority(group, entry.priority()) != running
        });
        if !is_other {
            self.deactivate(intid);
        }
    }

    /// The list register with this interrupt, active.
    fn active(&self, intid: u32) -> Option<usize> {
        self.list.iter().position(|entry| entry.0 & ListRegister::ACTIVE != 0 && entry.intid() == intid)
    }

    fn deactivate(&mut self, intid: u32) {
        if intid >= SPECIAL {
            return;
        }
        let Some(entry) = self.active(intid).and_then(|n| self.list.get_mut(n)) else {
            let count = (self.control & control::EOI_COUNT).wrapping_add(1 << control::EOI_COUNT_SHIFT);
            self.control = self.control & !control::EOI_COUNT | count & control::EOI_COUNT;
            return;
        };
        *entry = entry.with_state(entry.state() & !ListRegister::ACTIVE);
        self.deactivated = entry.physical();
    }

    /// The physical interrupt that goes with the last deactivation.
    pub(crate) fn take_deactivated(&mut self) -> Option<u32> {
        self.deactivated.take().filter(|intid| *intid < SPECIAL)
    }
}

/// The group that a register of the CPU interface is of; `None`: of both.
pub(crate) fn group_of(register: u16) -> Option<u8> {
    match register {
        ICC_DIR_EL1 | ICC_RPR_EL1 | ICC_SGI0R_EL1 | ICC_SGI1R_EL1 | ICC_ASGI1R_EL1 | ICC_CTLR_EL1
        | ICC_SRE_EL1 | ICC_PMR_EL1 => None,
        ICC_IGRPEN0_EL1 => Some(0),
        // CRm 8: group 0; 9 and 12: group 1.
        _ if register >> 3 & 15 == 8 => Some(0),
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICH_HCR: u16 = crate::sysreg::id(3, 4, 12, 11, 0);
    const ICH_VTR: u16 = crate::sysreg::id(3, 4, 12, 11, 1);
    const ICH_MISR: u16 = crate::sysreg::id(3, 4, 12, 11, 2);
    const ICH_EISR: u16 = crate::sysreg::id(3, 4, 12, 11, 3);
    const ICH_ELRSR: u16 = crate::sysreg::id(3, 4, 12, 11, 5);
    const ICH_VMCR: u16 = crate::sysreg::id(3, 4, 12, 11, 7);
    const ICH_LR: [u16; 2] = [crate::sysreg::id(3, 4, 12, 12, 0), crate::sysreg::id(3, 4, 12, 12, 1)];

    /// Enabled, both groups, no mask; with these list registers.
    fn with(list: [u64; 2]) -> VirtualInterface {
        let mut interface = VirtualInterface::new();
        for (register, value) in
            [(ICH_HCR, 1), (ICH_VMCR, 0xff00_0003), (ICH_LR[0], list[0]), (ICH_LR[1], list[1])]
        {
            interface.write_ich(register, value).expect("a register");
        }
        interface
    }

    /// A pending interrupt of group 1.
    fn pending(intid: u64, priority: u64) -> u64 {
        1 << 62 | 1 << 60 | priority << 48 | intid
    }

    /// 12.4.9: ICH_VTR_EL2. PRIbits and PREbits are one less than there are.
    #[test]
    fn four_list_registers_with_five_bits_of_priority_are_there() {
        assert_eq!(VirtualInterface::new().read_ich(ICH_VTR), Some(0x9038_0003));
        assert_eq!(VirtualInterface::new().read_ich(crate::sysreg::id(3, 4, 12, 12, 4)), None);
    }

    /// 12.5.9: ICV_IAR1_EL1.
    #[test]
    fn the_highest_priority_is_acknowledged_and_becomes_active() {
        let mut interface = with([pending(40, 0xa0), pending(41, 0x80)]);
        assert_eq!(interface.signalled_group(), Some(1));
        assert_eq!(interface.read(ICC_HPPIR1_EL1), Some(41));
        assert_eq!(interface.read(ICC_IAR0_EL1), Some(1023));
        assert_eq!(interface.read(ICC_IAR1_EL1), Some(41));
        assert_eq!(interface.read_ich(ICH_LR[1]), Some(2 << 62 | 1 << 60 | 0x80 << 48 | 0x29));
        assert_eq!((interface.read(ICC_RPR_EL1), interface.read(ICC_IAR1_EL1)), (Some(0x80), Some(1023)));
        interface.write(ICC_EOIR1_EL1, 41).expect("a register");
        assert_eq!(interface.read_ich(ICH_LR[1]), Some(1 << 60 | 0x80 << 48 | 0x29));
        assert_eq!(interface.read(ICC_IAR1_EL1), Some(40));
    }

    /// 12.4.10: VEOIM splits priority drop and deactivation.
    #[test]
    fn in_eoi_mode_1_the_write_of_dir_deactivates() {
        let mut interface = with([pending(40, 0xa0), 0]);
        interface.write_ich(ICH_VMCR, 0xff00_0203).expect("a register");
        assert_eq!(interface.read(ICC_IAR1_EL1), Some(40));
        interface.write(ICC_EOIR1_EL1, 40).expect("a register");
        assert_eq!(interface.read_ich(ICH_LR[0]).map(|entry| entry >> 62), Some(2));
        interface.write(ICC_DIR_EL1, 40).expect("a register");
        assert_eq!(interface.read_ich(ICH_LR[0]).map(|entry| entry >> 62), Some(0));
    }

    /// 12.4.6: ICH_LR<n>_EL2.HW and pINTID.
    #[test]
    fn the_end_of_an_interrupt_with_hardware_behind_it_deactivates_that() {
        let mut interface = with([1 << 61 | 27 << 32 | pending(40, 0xa0), 0]);
        assert_eq!(interface.read(ICC_IAR1_EL1), Some(40));
        assert_eq!(interface.take_deactivated(), None);
        interface.write(ICC_EOIR1_EL1, 40).expect("a register");
        assert_eq!((interface.take_deactivated(), interface.take_deactivated()), (Some(27), None));
    }

    /// 12.4.3, 12.4.5, 12.4.7: ICH_EISR_EL2, ICH_ELRSR_EL2 and ICH_MISR_EL2.EOI.
    #[test]
    fn an_end_that_is_to_be_told_is_a_maintenance_interrupt() {
        let mut interface = with([1 << 41 | pending(40, 0xa0), 0]);
        assert_eq!((interface.read_ich(ICH_EISR), interface.read_ich(ICH_ELRSR)), (Some(0), Some(0b1110)));
        assert!(!interface.maintenance());
        assert_eq!(interface.read(ICC_IAR1_EL1), Some(40));
        interface.write(ICC_EOIR1_EL1, 40).expect("a register");
        assert_eq!((interface.read_ich(ICH_EISR), interface.read_ich(ICH_ELRSR)), (Some(1), Some(0b1110)));
        assert_eq!((interface.read_ich(ICH_MISR), interface.maintenance()), (Some(1), true));
        interface.write_ich(ICH_HCR, 0).expect("a register");
        assert!(!interface.maintenance(), "ICH_HCR_EL2.En");
    }

    /// 12.4.7: each condition shows if its enable in ICH_HCR_EL2 is set.
    #[test]
    fn the_other_maintenance_interrupts_have_an_enable_each() {
        let mut interface = with([pending(40, 0xa0), 0]);
        let mut misr = |control| {
            interface.write_ich(ICH_HCR, control).expect("a register");
            interface.read_ich(ICH_MISR)
        };
        // One valid entry: underflow. Pending: no NP. Both groups are enabled.
        assert_eq!([0x01, 0x03, 0x09, 0xff].map(&mut misr), [0, 2, 0, 0x52].map(Some));
        assert_eq!(misr(1 << 27 | 0x5), Some(4), "EOIcount with LRENPIE");
    }

    /// 12.4.4: EOIcount.
    #[test]
    fn the_end_of_an_interrupt_that_is_in_no_list_register_is_counted() {
        let mut interface = with([pending(40, 0xa0), 0]);
        assert_eq!(interface.read(ICC_IAR1_EL1), Some(40));
        interface.write_ich(ICH_LR[0], 0).expect("a register");
        interface.write(ICC_EOIR1_EL1, 40).expect("a register");
        assert_eq!(interface.read_ich(ICH_HCR), Some(1 << 27 | 1));
        // Nothing is active any more.
        interface.write(ICC_EOIR1_EL1, 40).expect("a register");
        assert_eq!(interface.read_ich(ICH_HCR), Some(1 << 27 | 1));
    }

    /// 12.4.10: ICH_VMCR_EL2 is a view of ICV_PMR, BPRn, CTLR and IGRPENn.
    #[test]
    fn the_machine_control_register_is_a_view_of_the_interface() {
        let mut interface = VirtualInterface::new();
        assert_eq!(interface.read_ich(ICH_VMCR), Some(2 << 21 | 3 << 18 | 1 << 3));
        interface.write_ich(ICH_VMCR, 0xf0b8_0212).expect("a register");
        assert_eq!(interface.read_ich(ICH_VMCR), Some(0xf0b8_021a));
        assert_eq!(
            [ICC_PMR_EL1, ICC_BPR0_EL1, ICC_IGRPEN0_EL1, ICC_IGRPEN1_EL1].map(|n| interface.read(n)),
            [0xf0, 5, 0, 1].map(Some)
        );
        interface.write(ICC_IGRPEN0_EL1, 1).expect("a register");
        assert_eq!(interface.read_ich(ICH_VMCR), Some(0xf0b8_021b));
    }

    /// 12.4.4: TC, TALL0, TALL1, TDIR; D24.2: ICC_SGI1R_EL1 with HCR_EL2.IMO or FMO.
    #[test]
    fn each_trap_names_its_registers() {
        let trapped = |control| {
            let mut interface = VirtualInterface::new();
            interface.write_ich(ICH_HCR, control).expect("a register");
            [ICC_PMR_EL1, ICC_DIR_EL1, ICC_IAR0_EL1, ICC_IAR1_EL1, ICC_IGRPEN0_EL1, ICC_SRE_EL1]
                .map(|register| interface.traps(register, true, true))
        };
        assert_eq!(trapped(1 << 10), [true, true, false, false, false, false]);
        assert_eq!(trapped(1 << 11), [false, false, true, false, true, false]);
        assert_eq!(trapped(1 << 12), [false, false, false, true, false, false]);
        assert_eq!(trapped(1 << 14), [false, true, false, false, false, false]);
        let interface = VirtualInterface::new();
        assert_eq!(
            [(false, false), (true, false), (false, true)].map(|(imo, fmo)| interface.traps(
                ICC_SGI1R_EL1,
                imo,
                fmo
            )),
            [false, true, true]
        );
    }
}
