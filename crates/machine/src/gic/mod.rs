//! The interrupt controller: a GICv3 with one Security state (GICD_CTLR.DS = 1), 256 SPIs, without
//! LPIs and ITS, where QEMU's `virt` has it.
//!
//! As with KVM's own, guest accesses to its registers do not come out of the VM. Group 0 is
//! signalled as FIQ, group 1 as IRQ. Legacy operation and 1 of N are not there; reserved registers
//! are RAZ/WI, accesses of a size that a register does not have too.
//!
//! Source: Arm IHI 0069 (GICv3 and v4).

mod bank;
mod cpu_interface;
mod distributor;
mod redistributor;
pub(crate) mod virtual_interface;

use std::ops::Range;

use cpu_interface::{
    CpuInterface, ICC_ASGI1R_EL1, ICC_DIR_EL1, ICC_EOIR0_EL1, ICC_EOIR1_EL1, ICC_HPPIR0_EL1, ICC_HPPIR1_EL1,
    ICC_IAR0_EL1, ICC_IAR1_EL1, ICC_PMR_EL1, ICC_SGI0R_EL1, ICC_SGI1R_EL1,
};
use distributor::Distributor;
use redistributor::Redistributor;

/// Physical addresses of the distributor.
pub const DISTRIBUTOR: Range<u64> = 0x0800_0000..0x0801_0000;
/// Physical addresses of the region for redistributors, two frames of 64 KiB a CPU.
pub const REDISTRIBUTORS: Range<u64> = 0x080a_0000..0x0900_0000;
/// INTIDs that there are: SGIs 0 to 15, PPIs to 31, SPIs to 287.
pub const INTIDS: u32 = 288;
/// As many CPUs as the region has room for.
pub(crate) const MAX_CPUS: usize =
    ((REDISTRIBUTORS.end - REDISTRIBUTORS.start) / redistributor::SIZE) as usize;

/// INTID that says that there is no interrupt.
const SPURIOUS: u32 = 1023;
/// The first INTID that is none: 1020 to 1023 are special.
const SPECIAL: u32 = 1020;
/// CPUs in a cluster: what a target list of ICC_SGI1R_EL1 can name.
const CLUSTER: usize = 16;

/// Affinity of a CPU, Aff3:Aff2:Aff1:Aff0.
pub(crate) fn affinity(cpu: usize) -> u32 {
    ((cpu / CLUSTER) << 8 | (cpu % CLUSTER)) as u32
}

/// True if a system register belongs to the CPU interface.
pub(crate) fn is_register(register: u16) -> bool {
    register == ICC_PMR_EL1 || (ICC_IAR0_EL1..=cpu_interface::ICC_IGRPEN1_EL1).contains(&register)
}

/// An interrupt that waits for a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    intid: u32,
    priority: u8,
    group: u8,
}

/// The interrupts that are signalled to a CPU: those of the controller, and the virtual ones of its own EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Signals(u8);

impl Signals {
    pub(crate) const NONE: Signals = Signals(0);
    pub(crate) const IRQ: Signals = Signals(1 << 0);
    pub(crate) const FIQ: Signals = Signals(1 << 1);
    pub(crate) const VIRTUAL_IRQ: Signals = Signals(1 << 2);
    pub(crate) const VIRTUAL_FIQ: Signals = Signals(1 << 3);
    pub(crate) const VIRTUAL_SERROR: Signals = Signals(1 << 4);
    const PHYSICAL: u8 = Self::IRQ.0 | Self::FIQ.0;

    /// True if there is any.
    #[inline]
    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }

    /// True if this one is there.
    pub(crate) fn has(self, one: Signals) -> bool {
        self.0 & one.0 != 0
    }

    /// Those of both.
    #[must_use]
    pub(crate) fn and(self, more: Signals) -> Self {
        Self(self.0 | more.0)
    }

    /// This one, if the condition holds.
    #[must_use]
    pub(crate) fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    /// With these of the controller.
    #[must_use]
    pub(crate) fn with_physical(self, physical: Signals) -> Self {
        Self(self.0 & !Self::PHYSICAL | physical.0)
    }

    /// With these of the CPU's EL2.
    #[must_use]
    pub(crate) fn with_virtual(self, of_el2: Signals) -> Self {
        Self(self.0 & Self::PHYSICAL | of_el2.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Private {
    redistributor: Redistributor,
    interface: CpuInterface,
}

/// The whole controller.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Gic {
    distributor: Distributor,
    cpus: Vec<Private>,
}

impl Gic {
    /// As it comes out of reset, for so many CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        let private = |cpu| Private {
            redistributor: Redistributor::new(cpu as u64, affinity(cpu), cpu + 1 == cpus),
            interface: CpuInterface::new(),
        };
        Self { distributor: Distributor::new(), cpus: (0..cpus).map(private).collect() }
    }

    /// True if this is a state that a controller for so many CPUs can come to.
    pub(crate) fn is_sound(&self, cpus: usize) -> bool {
        let new = Self::new(cpus);
        self.distributor.is_sound()
            && self.cpus.len() == cpus
            && self
                .cpus
                .iter()
                .zip(&new.cpus)
                .all(|(cpu, new)| cpu.redistributor.is_sound(&new.redistributor) && cpu.interface.is_sound())
    }

    /// A CPU comes out of reset: its interface does, its redistributor stays as it is.
    pub(crate) fn reset_interface(&mut self, cpu: usize) {
        if let Some(private) = self.cpus.get_mut(cpu) {
            private.interface = CpuInterface::new();
        }
    }

    /// True if a physical address is one of the controller's registers.
    pub(crate) fn has(&self, pa: u64) -> bool {
        DISTRIBUTOR.contains(&pa) || self.redistributor(pa).is_some()
    }

    /// The CPU whose redistributor is at `pa`, and the offset in it.
    fn redistributor(&self, pa: u64) -> Option<(usize, u64)> {
        let offset = pa.checked_sub(REDISTRIBUTORS.start)?;
        let cpu = (offset / redistributor::SIZE) as usize;
        (cpu < self.cpus.len()).then_some((cpu, offset % redistributor::SIZE))
    }

    fn read_word(&self, pa: u64) -> u32 {
        if DISTRIBUTOR.contains(&pa) {
            return self.distributor.read(pa - DISTRIBUTOR.start);
        }
        let place = self.redistributor(pa);
        place.and_then(|(cpu, offset)| Some(self.cpus.get(cpu)?.redistributor.read(offset))).unwrap_or(0)
    }

    fn write_word(&mut self, pa: u64, value: u32) {
        if DISTRIBUTOR.contains(&pa) {
            self.distributor.write(pa - DISTRIBUTOR.start, value);
        } else if let Some((cpu, offset)) = self.redistributor(pa) {
            if let Some(private) = self.cpus.get_mut(cpu) {
                private.redistributor.write(offset, value);
            }
        }
    }

    /// True if the register at `pa` is 64 bits wide: GICR_TYPER and GICD_IROUTER.
    fn is_wide(&self, pa: u64) -> bool {
        if DISTRIBUTOR.contains(&pa) {
            return (0x6000..0x8000).contains(&(pa - DISTRIBUTOR.start));
        }
        self.redistributor(pa).is_some_and(|(_, offset)| offset == 8)
    }

    /// True if `pa` is in a register that has one byte for each interrupt.
    fn is_byte(&self, pa: u64) -> bool {
        let offset = if DISTRIBUTOR.contains(&pa) {
            pa - DISTRIBUTOR.start
        } else {
            self.redistributor(pa).map_or(0, |(_, offset)| offset.wrapping_sub(0x1_0000))
        };
        (0x400..0x800).contains(&offset)
    }

    /// A load of `len` bytes. The address is aligned: this is Device memory.
    pub(crate) fn load(&self, pa: u64, len: u32) -> u64 {
        match len {
            4 => self.read_word(pa).into(),
            8 if self.is_wide(pa) => u64::from(self.read_word(pa + 4)) << 32 | u64::from(self.read_word(pa)),
            1 if self.is_byte(pa) => (self.read_word(pa & !3) >> (8 * (pa & 3))).into(),
            _ => 0,
        }
    }

    /// A store of `len` bytes.
    pub(crate) fn store(&mut self, pa: u64, len: u32, value: u64) {
        match len {
            4 => self.write_word(pa, value as u32),
            8 if self.is_wide(pa) => {
                self.write_word(pa, value as u32);
                self.write_word(pa + 4, (value >> 32) as u32);
            }
            1 if DISTRIBUTOR.contains(&pa) => {
                self.distributor.write_byte(pa - DISTRIBUTOR.start, value as u8);
            }
            1 => {
                if let Some((cpu, offset)) = self.redistributor(pa) {
                    if let Some(private) = self.cpus.get_mut(cpu) {
                        private.redistributor.write_byte(offset, value as u8);
                    }
                }
            }
            _ => {}
        }
    }

    /// Drive the line of an SPI. Whether it changed; `None`: there is no such interrupt.
    pub(crate) fn set_line(&mut self, intid: u32, high: bool) -> Option<bool> {
        Some(self.distributor.bank_mut(intid)?.set_line(intid % 32, high))
    }

    /// Drive the line of a CPU's PPI. Whether it changed.
    pub(crate) fn set_private_line(&mut self, cpu: usize, intid: u32, high: bool) -> bool {
        self.cpus.get_mut(cpu).is_some_and(|private| private.redistributor.bank.set_line(intid, high))
    }

    /// The interrupt of highest priority that waits for a CPU, whatever the CPU's priority mask:
    /// of equals, the one with the lowest INTID.
    fn highest_pending(&self, cpu: usize) -> Option<Candidate> {
        let private = self.cpus.get(cpu)?;
        let groups = self.distributor.groups() & private.interface.groups();
        let own = u64::from(affinity(cpu));
        let mut best: Option<Candidate> = None;
        let own_bank = std::iter::once((0, &private.redistributor.bank));
        for (first, bank) in own_bank.chain(self.distributor.banks()) {
            let mut candidates = bank.candidates(groups);
            while candidates != 0 {
                let n = candidates.trailing_zeros();
                candidates &= candidates - 1;
                let (intid, priority) = (first + n, bank.priority(n));
                let is_here = intid < 32 || self.distributor.route(intid) == own;
                if is_here && best.is_none_or(|best| priority < best.priority) {
                    best = Some(Candidate { intid, priority, group: bank.group(n) });
                }
            }
        }
        best
    }

    /// The interrupt that is signalled to a CPU.
    fn signalled(&self, cpu: usize) -> Option<Candidate> {
        let interface = &self.cpus.get(cpu)?.interface;
        self.highest_pending(cpu).filter(|best| interface.signals(best.group, best.priority))
    }

    /// What a CPU is signalled.
    pub(crate) fn signals(&self, cpu: usize) -> Signals {
        let group = self.signalled(cpu).map(|best| best.group);
        Signals::IRQ.when(group == Some(1)).and(Signals::FIQ.when(group == Some(0)))
    }

    fn bank_mut(&mut self, cpu: usize, intid: u32) -> Option<&mut bank::Bank> {
        match intid {
            0..32 => self.cpus.get_mut(cpu).map(|private| &mut private.redistributor.bank),
            _ => self.distributor.bank_mut(intid),
        }
    }

    /// MRS of a register of the CPU interface. `None`: it is not there, or write-only.
    pub(crate) fn read_register(&mut self, cpu: usize, register: u16) -> Option<u64> {
        let of_group = |best: Option<Candidate>, group| best.filter(|best| best.group == group);
        let intid = |best: Option<Candidate>| u64::from(best.map_or(SPURIOUS, |best| best.intid));
        match register {
            ICC_IAR0_EL1 => Some(self.acknowledge(cpu, 0)),
            ICC_IAR1_EL1 => Some(self.acknowledge(cpu, 1)),
            ICC_HPPIR0_EL1 => Some(intid(of_group(self.highest_pending(cpu), 0))),
            ICC_HPPIR1_EL1 => Some(intid(of_group(self.highest_pending(cpu), 1))),
            _ => self.cpus.get(cpu)?.interface.read(register),
        }
    }

    /// MSR of a register of the CPU interface. `None`: it is not there, or read-only.
    pub(crate) fn write_register(&mut self, cpu: usize, register: u16, value: u64) -> Option<()> {
        let intid = value as u32 & 0xff_ffff;
        match register {
            ICC_EOIR0_EL1 => self.end(cpu, 0, intid),
            ICC_EOIR1_EL1 => self.end(cpu, 1, intid),
            ICC_DIR_EL1 => self.deactivate(cpu, intid),
            ICC_SGI1R_EL1 => self.send(cpu, value, 1),
            ICC_SGI0R_EL1 | ICC_ASGI1R_EL1 => self.send(cpu, value, 0),
            _ => return self.cpus.get_mut(cpu)?.interface.write(register, value),
        }
        Some(())
    }

    /// ICC_IARn_EL1: the interrupt becomes active, its priority the running one.
    fn acknowledge(&mut self, cpu: usize, group: u8) -> u64 {
        let Some(best) = self.signalled(cpu).filter(|best| best.group == group) else {
            return SPURIOUS.into();
        };
        if let Some(private) = self.cpus.get_mut(cpu) {
            private.interface.activate(group, best.priority);
        }
        if let Some(bank) = self.bank_mut(cpu, best.intid) {
            bank.activate(best.intid % 32);
        }
        best.intid.into()
    }

    /// ICC_EOIRn_EL1: drop the priority, and in EOI mode 0 deactivate.
    fn end(&mut self, cpu: usize, group: u8, intid: u32) {
        if intid >= SPECIAL {
            return;
        }
        let Some(private) = self.cpus.get_mut(cpu) else { return };
        let dropped = private.interface.drop_priority(group);
        if dropped && private.interface.eoi_deactivates() {
            self.deactivate_any(cpu, intid);
        }
    }

    /// ICC_DIR_EL1: ignored in EOI mode 0.
    fn deactivate(&mut self, cpu: usize, intid: u32) {
        if self.cpus.get(cpu).is_some_and(|private| !private.interface.eoi_deactivates()) {
            self.deactivate_any(cpu, intid);
        }
    }

    pub(crate) fn deactivate_any(&mut self, cpu: usize, intid: u32) {
        if let Some(bank) = self.bank_mut(cpu, intid) {
            bank.deactivate(intid % 32);
        }
    }

    /// ICC_SGInR_EL1: an SGI to all other CPUs (IRM), or to those of a cluster's list. It comes only
    /// where it is configured for that group.
    fn send(&mut self, from: usize, value: u64, group: u8) {
        let intid = (value >> 24 & 15) as u32;
        let to_others = value >> 40 & 1 != 0;
        let cluster = (value >> 48 & 0xff) << 24 | (value >> 32 & 0xff) << 16 | (value >> 16 & 0xff) << 8;
        let range = value >> 44 & 15;
        for (cpu, private) in self.cpus.iter_mut().enumerate() {
            let own = u64::from(affinity(cpu));
            let is_listed =
                own & !0xff == cluster && (own & 0xf0) >> 4 == range && value >> (own & 15) & 1 != 0;
            let is_target = if to_others { cpu != from } else { is_listed };
            if is_target && private.redistributor.bank.group(intid) == group {
                private.redistributor.bank.latch(intid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
