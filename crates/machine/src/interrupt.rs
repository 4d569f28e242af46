//! Interrupts as a CPU has them: what the GIC signals and the CPU takes, the lines of its timers, and
//! its accesses to the GIC's registers.

use seawall_arm::{EntryContext, Exception, ExceptionClass, Pstate, Target, Vector, take_exception};
use seawall_events::kernel::{PendingSError, prepare_run};

use crate::decode::{Insn, Kind};
use crate::pmu;
use crate::run::Runner;
use crate::timer::{PHYSICAL_PPI, STEPS_PER_TICK, VIRTUAL_PPI};
use crate::trap::Trap;

impl Runner<'_> {
    /// Take what is pending and not masked: an SError, an FIQ, an IRQ. Whether there was one.
    pub(crate) fn take_interrupt(&mut self) -> bool {
        if self.cpu.serror.pending && matches!(prepare_run(&mut self.kernel()), PendingSError::Taken(_)) {
            return true;
        }
        let masked = self.cpu.state.rest;
        let vector = if self.cpu.signals.fiq && masked & Pstate::F == 0 {
            Vector::Fiq
        } else if self.cpu.signals.irq && masked & Pstate::I == 0 {
            Vector::Irq
        } else {
            return false;
        };
        let exception = Exception { target: Target::El1, vector, esr: None, far: None };
        take_exception(self.cpu, &exception, EntryContext::default());
        true
    }

    /// MRS or MSR of a register of the CPU interface.
    pub(crate) fn gic_register(&mut self, left: &mut u64, register: u16, rt: u8, is_read: bool) {
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
        let timers = [(PHYSICAL_PPI, self.cpu.sys.physical_timer), (VIRTUAL_PPI, self.cpu.sys.virtual_timer)];
        let mut changed = false;
        for (intid, timer) in timers {
            changed |= self.gic.set_private_line(self.index, intid, timer.line(now));
        }
        self.cpu.pmu.advance(self.cpu.steps);
        changed |= self.gic.set_private_line(self.index, pmu::PPI, self.cpu.pmu.line());
        if changed {
            self.refresh_signals();
        }
        let next = timers.into_iter().filter_map(|(_, timer)| timer.next(now)).min();
        let timer = next.map_or(u64::MAX, |tick| {
            let distance = tick.saturating_mul(STEPS_PER_TICK).saturating_sub(self.cpu.time());
            self.cpu.steps.saturating_add(distance)
        });
        self.cpu.deadline = timer.min(self.cpu.pmu.next_overflow().unwrap_or(u64::MAX));
    }

    /// Tell all CPUs what the GIC signals them.
    pub(crate) fn refresh_signals(&mut self) {
        self.cpu.signals = self.gic.signals(self.index);
        for (index, cpu) in self.others.iter_mut() {
            cpu.signals = self.gic.signals(index);
        }
    }
}
