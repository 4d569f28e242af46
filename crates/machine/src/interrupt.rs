//! Interrupts as a CPU has them: what the GIC signals and the CPU takes, the lines of its timers, and
//! its accesses to the GIC's registers.

use seawall_arm::{Exception, ExceptionClass, Pstate, Target, Vector};
use seawall_events::kernel::{PendingSError, prepare_run};

use crate::decode::{Insn, Kind};
use crate::gic::Signals;
use crate::pmu;
use crate::run::Runner;
use crate::timer::{MAINTENANCE_PPI, STEPS_PER_TICK};
use crate::trap::Trap;

impl Runner<'_> {
    /// Take what is pending and not masked: an SError, an FIQ, an IRQ. Whether there was one.
    pub(crate) fn take_interrupt(&mut self) -> bool {
        if self.cpu.el2.is_some() {
            return self.take_interrupt_with_el2();
        }
        if self.cpu.serror.pending && matches!(prepare_run(&mut self.kernel()), PendingSError::Taken(_)) {
            return true;
        }
        let masked = self.cpu.state.rest;
        let vector = if self.cpu.signals.has(Signals::FIQ) && masked & Pstate::F == 0 {
            Vector::Fiq
        } else if self.cpu.signals.has(Signals::IRQ) && masked & Pstate::I == 0 {
            Vector::Irq
        } else {
            return false;
        };
        self.cpu.take_exception(&Exception { target: Target::El1, vector, esr: None, far: None });
        true
    }

    /// MRS or MSR of a register of the CPU interface.
    pub(crate) fn gic_register(&mut self, left: &mut u64, register: u16, rt: u8, is_read: bool) {
        if self.cpu.has_virtual(register) {
            self.virtual_gic_register(left, register, rt, is_read);
            return;
        }
        let done = if is_read {
            self.gic.read_register(self.index, register).map(|value| self.cpu.set_slot(rt, value))
        } else {
            self.gic.write_register(self.index, register, self.cpu.slot(rt))
        };
        if done.is_some() {
            self.refresh_signals();
            self.retire(left);
            return;
        }
        self.undefined_gic_register(left, register, rt, is_read);
    }

    /// MRS or MSR of a register of the virtual CPU interface. An interrupt that is the hardware's too is deactivated there.
    fn virtual_gic_register(&mut self, left: &mut u64, register: u16, rt: u8, is_read: bool) {
        let value = self.cpu.slot(rt);
        let Some(el2) = &mut self.cpu.el2 else { return };
        let done = if is_read {
            el2.interface.read(register).map(Some)
        } else {
            el2.interface.write(register, value).map(|()| None)
        };
        let Some(value) = done else {
            self.undefined_gic_register(left, register, rt, is_read);
            return;
        };
        if let Some(intid) = el2.interface.take_deactivated() {
            self.gic.deactivate_any(self.index, intid);
            self.refresh_signals();
        }
        if let Some(value) = value {
            self.cpu.set_slot(rt, value);
        }
        self.cpu.refresh_virtual_signals();
        // The maintenance interrupt's line goes with the timers'.
        self.cpu.timers_changed = true;
        self.retire(left);
    }

    fn undefined_gic_register(&mut self, left: &mut u64, register: u16, rt: u8, is_read: bool) {
        self.cpu.raise_system_undefined(register, rt, is_read);
        if let Trap::Undefined(word) = std::mem::replace(&mut self.cpu.trap, Trap::None) {
            self.undefined.record(word);
        }
        self.enter(ExceptionClass::UNKNOWN, 0, None);
        self.step(left, 1);
    }

    /// A load or store of a register of the distributor or a redistributor.
    pub(crate) fn gic_access(&mut self, left: &mut u64, insn: &Insn, kind: Kind, pa: u64) {
        let len = 1 << kind.size();
        if kind.is_store() {
            self.gic.store(pa, len, self.cpu.slot(insn.rd));
            self.refresh_signals();
        } else {
            self.cpu.set_slot(insn.rd, kind.extend(self.gic.load(pa, len)));
        }
        self.retire(left);
    }

    /// Bring the lines of the timers and of the cycle counter up to date, and find out when they next change.
    pub(crate) fn update_timers(&mut self) {
        self.cpu.timers_changed = false;
        let now = self.cpu.counter();
        let mut changed = false;
        let mut next = u64::MAX;
        for (intid, timer, offset) in self.cpu.timers() {
            changed |= self.gic.set_private_line(self.index, intid, timer.line(now.wrapping_sub(offset)));
            next = next.min(timer.next_with(now, offset).unwrap_or(u64::MAX));
        }
        self.cpu.pmu.advance(self.cpu.steps);
        changed |= self.gic.set_private_line(self.index, pmu::PPI, self.cpu.pmu.line());
        if let Some(el2) = &self.cpu.el2 {
            let line = el2.interface.maintenance();
            changed |= self.gic.set_private_line(self.index, MAINTENANCE_PPI, line);
        }
        if changed {
            self.refresh_signals();
        }
        let timer = if next == u64::MAX {
            u64::MAX
        } else {
            let distance = next.saturating_mul(STEPS_PER_TICK).saturating_sub(self.cpu.time());
            self.cpu.steps.saturating_add(distance)
        };
        self.cpu.deadline = timer.min(self.cpu.pmu.next_overflow().unwrap_or(u64::MAX));
    }

    /// Tell all CPUs what the GIC signals them.
    pub(crate) fn refresh_signals(&mut self) {
        self.cpu.set_signals(self.gic.signals(self.index));
        for (index, cpu) in self.others.iter_mut() {
            cpu.set_signals(self.gic.signals(index));
        }
    }
}
