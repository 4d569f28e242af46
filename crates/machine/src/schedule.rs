//! Several CPUs in one thread: whose turn it is, and what happens when all wait.
//!
//! The CPUs take turns by steps, in the order of their numbers, so that a run is the same each time
//! and however it is cut into budgets. All of them do their steps in one time: the machine's time
//! is the sum of all CPUs' steps, as on a host with a single core. A CPU that waits gives up its
//! turn. When all wait, time goes on to the next timer interrupt or event.

use seawall_inject::Exit;

use crate::cpu::{Cpu, Wait};
use crate::gic::Signals;
use crate::run::{Runner, Stop};
use crate::timer::{self, STEPS_PER_TICK};
use crate::vm::{Error, Vm};

/// Steps of a turn: ten microseconds of the guest's time.
pub(crate) const TURN: u64 = 10_000;
/// Ticks that time is not skipped to: 36 years. A timer that is set so far ahead is one that is not to fire.
const NEVER: u64 = 1 << 56;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Turn {
    pub(crate) cpu: usize,
    left: u64,
}

impl Turn {
    pub(crate) const FIRST: Turn = Turn { cpu: 0, left: TURN };

    /// True if it can be a turn among so many CPUs.
    pub(crate) fn is_sound(self, cpus: usize) -> bool {
        self.cpu < cpus && self.left <= TURN
    }
}

/// The CPUs that do not run now.
pub(crate) struct Others<'a> {
    before: &'a mut [Cpu],
    after: &'a mut [Cpu],
}

impl Others<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cpu> {
        self.before.iter().chain(self.after.iter())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// With their numbers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Cpu)> {
        let after = self.before.len() + 1;
        self.before.iter_mut().enumerate().chain((after..).zip(self.after.iter_mut()))
    }
}

/// One CPU, and the others.
fn split(cpus: &mut [Cpu], index: usize) -> Option<(&mut Cpu, Others<'_>)> {
    let (before, rest) = cpus.split_at_mut_checked(index)?;
    let (cpu, after) = rest.split_first_mut()?;
    Some((cpu, Others { before, after }))
}

impl Vm {
    /// One CPU with all that it needs to run.
    pub(crate) fn runner(&mut self, index: usize) -> Result<Runner<'_>, Error> {
        let count = self.cpus.len();
        let Vm { config, memory, icache, cpus, undefined, gic, broadcasts, kick, .. } = self;
        let (cpu, others) = split(cpus, index).ok_or(Error::NoCpu { index, count })?;
        Ok(Runner { config, index, cpu, others, broadcasts, gic, memory, icache, undefined, kick: &kick.0 })
    }

    /// Runs one CPU for at most `left` steps.
    fn run_cpu(&mut self, index: usize, left: &mut u64) -> Result<Stop, Error> {
        let now = self.now;
        let mut runner = self.runner(index)?;
        let clock = now.wrapping_sub(runner.cpu.steps);
        if runner.cpu.clock != clock {
            runner.cpu.clock = clock;
            runner.cpu.timers_changed = true;
        }
        let result = runner.run(left);
        self.now = runner.cpu.time();
        result
    }

    /// Runs the guest on all its CPUs until it needs its host: gives the CPU that does, and why.
    /// [`Exit::Idle`]: all CPUs wait or are off, and nothing can wake one but the host.
    ///
    /// # Errors
    /// [`Error::NoSyndrome`].
    pub fn run(&mut self) -> Result<(usize, Exit), Error> {
        loop {
            let current = self.turn.cpu;
            if self.budget == Some(0) || self.until_alarm() == Some(0) || self.kick.take() {
                return Ok((current, Exit::Intr));
            }
            let Some(index) = self.next_cpu() else {
                // A CPU that began to wait with the last step of a budget has given up its turn, too.
                self.turn.left = 0;
                if self.skip_time(self.alarm) {
                    continue;
                }
                self.wake(current);
                return Ok((current, Exit::Idle));
            };
            if index != current || self.turn.left == 0 {
                self.begin_turn(index);
            }
            let own = self.cpus.get(index).and_then(|cpu| cpu.budget).unwrap_or(u64::MAX);
            let alarm = self.until_alarm().unwrap_or(u64::MAX);
            let limit = self.turn.left.min(self.budget.unwrap_or(u64::MAX)).min(own).min(alarm);
            let mut left = limit;
            let result = self.run_cpu(index, &mut left);
            let done = limit - left;
            self.turn.left -= done;
            self.budget = self.budget.map(|budget| budget - done);
            if let Some(cpu) = self.cpus.get_mut(index) {
                cpu.budget = cpu.budget.map(|budget| budget - done);
            }
            match result? {
                Stop::Exit(exit) => return Ok((index, exit)),
                Stop::Wait => self.turn.left = 0,
                Stop::Limit if done == own => return Ok((index, Exit::Intr)),
                // What is up is seen above.
                Stop::Limit | Stop::Kicked => {}
            }
        }
    }

    /// Runs one CPU, as KVM_RUN does, with the others standing still.
    pub(crate) fn run_one(&mut self, index: usize) -> Result<Exit, Error> {
        loop {
            let budget = self.cpus.get(index).and_then(|cpu| cpu.budget);
            let mut left = budget.unwrap_or(u64::MAX);
            let result = self.run_cpu(index, &mut left);
            if let Some(cpu) = self.cpus.get_mut(index) {
                cpu.budget = budget.and(Some(left));
            }
            match result? {
                Stop::Exit(exit) => return Ok(exit),
                Stop::Limit => return Ok(Exit::Intr),
                Stop::Kicked => {
                    self.kick.take();
                    return Ok(Exit::Intr);
                }
                // It waits on in the next run.
                Stop::Wait if budget.is_some() && left == 0 => return Ok(Exit::Intr),
                Stop::Wait => {}
            }
            let is_off = self.cpus.get(index).is_none_or(|cpu| cpu.wait == Wait::Off);
            if is_off || self.next_cpu().is_some_and(|other| other != index) || !self.wait_over(index) {
                self.wake(index);
                return Ok(Exit::Idle);
            }
        }
    }

    /// Let time go on until a CPU that waits can go on. Whether it can.
    fn wait_over(&mut self, index: usize) -> bool {
        while !self.can_run(index) {
            if !self.skip_time(None) {
                return false;
            }
        }
        true
    }

    /// The CPU whose turn it is, or the first behind it that can run.
    fn next_cpu(&mut self) -> Option<usize> {
        let count = self.cpus.len();
        let Turn { cpu, left } = self.turn;
        let first = if left == 0 { cpu + 1 } else { cpu };
        (first..first + count).map(|n| n % count).find(|&index| self.can_run(index))
    }

    /// True if a CPU does not wait, or what it waits for has come.
    fn can_run(&mut self, index: usize) -> bool {
        let wait = self.cpus.get(index).map_or(Wait::Off, |cpu| cpu.wait);
        match wait {
            Wait::No => true,
            Wait::Off => false,
            Wait::Event | Wait::Interrupt => {
                let now = self.now;
                self.runner(index).is_ok_and(|mut runner| {
                    runner.cpu.clock = now.wrapping_sub(runner.cpu.steps);
                    runner.update_timers();
                    runner.wakes()
                })
            }
        }
    }

    /// Another CPU's turn begins. The others' exclusive monitors are cleared, as it may store to what
    /// they marked; which is an event to who waits for one.
    fn begin_turn(&mut self, index: usize) {
        if index != self.turn.cpu {
            for (_, cpu) in self.cpus.iter_mut().enumerate().filter(|(other, _)| *other != index) {
                cpu.event |= cpu.monitor.take().is_some() || cpu.wait == Wait::Event;
            }
        }
        self.turn = Turn { cpu: index, left: TURN };
        if self.config.el2 {
            self.note_steps_of_others();
        }
    }

    /// Steps to the host's alarm.
    fn until_alarm(&self) -> Option<u64> {
        self.alarm.map(|alarm| alarm.saturating_sub(self.now))
    }

    /// All CPUs wait: time goes on to the next timer interrupt, to the next event for a CPU in WFE, which without an event
    /// stream is now, or to the host's alarm. `false`: nothing comes.
    fn skip_time(&mut self, alarm: Option<u64>) -> bool {
        let now = self.now / STEPS_PER_TICK;
        let mut next: Option<u64> = None;
        for cpu in self.cpus.iter().filter(|cpu| cpu.wait != Wait::Off) {
            let interrupts = cpu.timers().filter_map(|(_, timer, offset)| timer.next_with(now, offset));
            let event =
                (cpu.wait == Wait::Event).then(|| timer::next_event(cpu.sys.cntkctl, now).unwrap_or(now));
            next = interrupts.chain(event).chain(next).min();
        }
        let next = next.filter(|tick| *tick < NEVER);
        if let Some(alarm) = alarm.filter(|alarm| next.is_none_or(|tick| *alarm < tick * STEPS_PER_TICK)) {
            self.now = self.now.max(alarm);
            return true;
        }
        let Some(next) = next else { return false };
        for cpu in self.cpus.iter_mut().filter(|cpu| cpu.wait == Wait::Event) {
            cpu.event |= timer::next_event(cpu.sys.cntkctl, now).unwrap_or(now) <= next;
        }
        if next > now {
            self.now = next.saturating_mul(STEPS_PER_TICK);
        }
        true
    }

    /// A CPU goes on without what it waited for, as the architecture lets it.
    fn wake(&mut self, index: usize) {
        if let Some(cpu) = self.cpus.get_mut(index) {
            if cpu.wait != Wait::Off {
                cpu.wait = Wait::No;
            }
        }
    }
}

impl Runner<'_> {
    /// True if the CPU's wait is over.
    pub(crate) fn wakes(&self) -> bool {
        let cpu = &self.cpu;
        let masked = cpu.state.rest;
        match cpu.wait {
            Wait::No => true,
            Wait::Off => false,
            Wait::Interrupt => cpu.is_signalled(),
            // Of interrupts only those that are not masked.
            Wait::Event => {
                cpu.event
                    || cpu.serror.pending
                    || cpu.signals.has(Signals::IRQ) && masked & seawall_arm::Pstate::I == 0
                    || cpu.signals.has(Signals::FIQ) && masked & seawall_arm::Pstate::F == 0
                    || cpu.el2.is_some() && cpu.has_unmasked_interrupt()
            }
        }
    }
}
