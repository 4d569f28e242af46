//! The one loop of a run, for every backend. It runs in slices; between them memory goes bad, keys are typed,
//! and the guest's output is shown. It also is the one way out: the ledger is flushed, and the end is
//! reported.

use std::path::Path;
use std::time::{Duration, Instant};

use seawall::MemoryError;
use seawall::ledger::{Ledger, PAGE};
use seawall_vmm::{End, Guest};
use serde_json::json;

use super::deadline::Deadline;
use super::ending::Ending;
use super::exits::ExitTable;
use super::keep::Keeper;
use super::keyboard::{Keyboard, Typed};
use super::machine::{Machine, Slice};
use super::metrics::Endpoint;
use super::output::Output;
use super::poison::{Schedule, named_page};
use super::signals::Signals;
use super::{Args, MAX_INSNS};
use crate::watch::{Seen, Watch};
use crate::{Failure, exit};

/// The interval between checks of the clock while the guest waits for keys.
const WAIT: Duration = Duration::from_millis(50);
/// The delay that a busy guest may catch up by waiting less afterwards.
const LAG: Duration = Duration::from_secs(1);

/// A run, from its guest's first instruction to its end.
pub(super) struct Run<'a> {
    args: &'a Args,
    machine: Box<dyn Machine>,
    watch: Watch,
    output: Output,
    keyboard: Keyboard,
    signals: Signals,
    /// Typed bytes that the machine has no room for yet.
    typed: Vec<u8>,
    schedule: Schedule,
    keeper: Keeper<'a>,
    exits: Option<ExitTable>,
    deadline: &'a Deadline,
    /// The limit of instructions.
    limit: u64,
    /// The start of the guest's pace: the host's clock, and the machine's.
    pace: Option<(Instant, Duration)>,
    _metrics: Option<Endpoint>,
}

impl<'a> Run<'a> {
    /// A run of this machine, observed by `watch`.
    pub(super) fn new(
        args: &'a Args,
        mut machine: Box<dyn Machine>,
        watch: Watch,
        output: Output,
        deadline: &'a Deadline,
    ) -> Result<Self, Failure> {
        let metrics = args.metrics()?;
        let exits =
            args.trace_exits.as_deref().map(|path| ExitTable::new(path, &mut *machine)).transpose()?;
        deadline.ends_by(machine.waker());
        let keyboard = args.keyboard(machine.waker());
        let signals = Signals::new(machine.waker())
            .map_err(|error| Failure::new(exit::UNAVAILABLE, format!("no handler of signals: {error}")))?;
        let limit = args.max_insns.unwrap_or(if keyboard.is_terminal() { u64::MAX } else { MAX_INSNS });
        Ok(Self {
            args,
            machine,
            watch,
            output,
            keyboard,
            signals,
            typed: Vec::new(),
            schedule: Schedule::new(&args.poison),
            keeper: Keeper::new(&args.snapshot),
            exits,
            deadline,
            limit,
            pace: None,
            _metrics: metrics,
        })
    }

    /// Runs the guest to its end, or to that of its last reboot, which needs `guest`; returns the exit code.
    pub(super) fn run(mut self, guest: Option<&Guest>) -> Result<u8, Failure> {
        let ended = self.with_reboots(guest);
        let stopped = self.machine.stop();
        self.deadline.seen();
        // The terminal is restored before anything is printed.
        self.keyboard = Keyboard::none();
        let rest = stopped.and_then(|()| self.show_rest());
        let ending = ended.and_then(|ending| rest.map(|()| ending)).unwrap_or_else(Ending::Failed);
        self.finish(ending)
    }

    fn with_reboots(&mut self, guest: Option<&Guest>) -> Result<Ending, Failure> {
        let mut ending = self.until_end()?;
        for _ in 0..self.args.reboot {
            let Some(guest) = guest.filter(|_| ending.wants_reboot()) else { break };
            let bad = self.machine.ledger().with(Ledger::pages);
            self.machine.reset(guest)?;
            let left = self.machine.ledger().with(Ledger::pages);
            self.output.starts(self.machine.when(), Some(ending.name()), bad - left, left);
            ending = self.until_end()?;
        }
        Ok(ending)
    }

    fn until_end(&mut self) -> Result<Ending, Failure> {
        loop {
            let now = self.instructions();
            let kept = self.keeper.at_count(&mut *self.machine)?;
            self.kept(&kept);
            self.poison()?;
            if now >= self.limit {
                return Ok(Ending::InstructionLimit);
            }
            if let Some(seconds) = self.args.timeout.filter(|_| self.deadline.is_over()) {
                return Ok(Ending::TimeLimit(seconds));
            }
            if let Some(signal) = self.signals.came() {
                return Ok(Ending::Signal(signal));
            }
            let ahead = self.ahead();
            if self.keys(ahead) {
                return Ok(Ending::Keyboard);
            }
            let end = self.machine.run(self.slice(now))?;
            self.show()?;
            self.output.check()?;
            if self.args.has_metrics() {
                self.machine.gauge();
            }
            let ending = match end {
                None if self.schedule.is_empty() => self.machine.is_stuck()?,
                None => None,
                // Further input would not wake a guest that does not take the input it has.
                Some(End::Idle) if self.keyboard.is_open() && self.typed.is_empty() => {
                    self.keys(WAIT).then_some(Ending::Keyboard)
                }
                Some(end) => Some(Ending::Guest(end)),
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
            self.output.progress(self.machine.when());
        }
    }

    /// The limits of the guest's next slice.
    fn slice(&self, now: u64) -> Slice {
        let due = self.schedule.left(now).min(self.keeper.left(now));
        Slice { is_typed_to: self.keyboard.is_open(), instructions: due.min(self.limit - now) }
    }

    /// The number of instructions that the guest did, if they are counted.
    fn instructions(&self) -> u64 {
        self.machine.when().instructions.unwrap_or_default()
    }

    /// Turns due ranges bad.
    fn poison(&mut self) -> Result<(), Failure> {
        while let Some(due) = self.schedule.take(self.instructions()) {
            let page = due.page.as_deref();
            self.machine.poison(due.range.clone()).map_err(|Failure { code, message }| {
                let page = page.map(|page| format!("page {page}: ")).unwrap_or_default();
                Failure::new(code, format!("--poison {page}{message}"))
            })?;
            self.output.poisoned(self.machine.when(), &due.range, page);
            self.schedule.is_bad(due);
        }
        Ok(())
    }

    /// Shows the guest's actions in the last slice.
    fn show(&mut self) -> Result<(), Failure> {
        let (when, now) = (self.machine.when(), self.instructions());
        if let Some(exits) = &mut self.exits {
            exits.write(&self.machine.take_exits())?;
        }
        for seen in self.watch.take() {
            match seen {
                Seen::Console(bytes) => self.output.console(&bytes),
                Seen::Line(line) => {
                    if let Some((name, address)) = named_page(&line) {
                        self.schedule.named(name, address, now);
                    }
                    let kept = self.keeper.at_line(&mut *self.machine, &line)?;
                    self.kept(&kept);
                }
                Seen::MemoryError { report, outcome } => {
                    self.schedule.consumed(place(&outcome.error));
                    self.output.memory_error(when, &report, &outcome);
                }
                Seen::Unanswered { report, outcome } => self.output.unanswered(when, &report, &outcome),
                Seen::DeviceError { address } => {
                    self.schedule.consumed(Some(address));
                    self.output.device_error(when, address);
                }
            }
        }
        Ok(())
    }

    /// Notes that a snapshot was written to each of these files.
    fn kept(&mut self, paths: &[&Path]) {
        for path in paths {
            let now = self.instructions();
            self.output.note(format!("a snapshot after {now} instructions is in {}", path.display()));
        }
    }

    /// The time by which a guest with input is ahead of the host's clock: a waiting guest skips time.
    fn ahead(&mut self) -> Duration {
        if !self.keyboard.is_terminal() {
            return Duration::ZERO;
        }
        let time = self.machine.when().time;
        let (clock, since) = *self.pace.get_or_insert_with(|| (Instant::now(), time));
        let (guest, host) = (time.saturating_sub(since), clock.elapsed());
        if guest + LAG < host {
            self.pace = None;
        }
        guest.saturating_sub(host).min(WAIT)
    }

    /// Types the user's input, within `wait`, as far as the guest takes it; returns true if the user asks to
    /// leave.
    fn keys(&mut self, wait: Duration) -> bool {
        let mut wait = wait;
        loop {
            let taken = self.machine.type_in(&self.typed);
            self.typed.drain(..taken);
            if !self.typed.is_empty() {
                return self.keyboard.wants_to_leave();
            }
            match self.keyboard.typed(wait) {
                Some(Typed::Bytes(bytes)) => self.typed = bytes,
                Some(Typed::Leave) => return true,
                Some(Typed::Nothing) | None => return false,
            }
            wait = Duration::ZERO;
        }
    }

    /// Shows the guest's actions until it stood still, and takes the snapshot if it is due at the end.
    fn show_rest(&mut self) -> Result<(), Failure> {
        self.show()?;
        let kept = self.keeper.at_end(&mut *self.machine)?;
        self.kept(&kept);
        for path in self.keeper.missed() {
            self.output.note(format_args!(
                "no snapshot is in {}: the guest ended before the moment for it came",
                path.display()
            ));
        }
        Ok(())
    }

    /// Flushes the ledger, and reports the end; returns the exit code.
    fn finish(mut self, ending: Ending) -> Result<u8, Failure> {
        let (when, at) = (self.machine.when(), self.machine.place());
        let text = ending.explain(at);
        self.output.end(when, ending.name(), &text);
        if !matches!(ending, Ending::Failed(_)) {
            self.output.say_end(ending.code(), &text);
        }
        let code = self.tell_of_poison(&ending);
        if let Err(error) = self.machine.ledger().flush() {
            self.output.note(&error);
        }
        let pages_not_named: Vec<&str> = self.schedule.unnamed().collect();
        let mut report = json!({
            "backend": self.machine.name(),
            "policy": self.args.policy,
            "outcome": ending.name(),
            "text": text,
            "pc": at.pc.map(|pc| format!("{pc:#x}")),
            "instructions": when.instructions,
            "guest_time_ns": when.time.as_nanos() as u64,
            "poison_to_come": self.schedule.to_come() + pages_not_named.len(),
            "poison_not_consumed": self.schedule.unconsumed().count(),
            "pages_named": self.schedule.names(),
            "pages_not_named": pages_not_named,
            "bad_pages": self.machine.ledger().with(Ledger::pages),
        });
        for (name, value) in self.machine.report() {
            report[name] = value;
        }
        let told = self.output.finish(report);
        match ending {
            Ending::Failed(failure) => Err(failure),
            _ => told.map(|()| code),
        }
    }

    /// Reports the poison that had no effect; returns the exit code.
    fn tell_of_poison(&mut self, ending: &Ending) -> u8 {
        let to_come = self.schedule.to_come();
        if to_come > 0 {
            self.output.note(format_args!(
                "{to_come} of the --poison ranges did not go bad: the guest ended before their @COUNT"
            ));
        }
        for due in self.schedule.unconsumed() {
            let page = due.page.as_ref().map(|page| format!("page {page}, ")).unwrap_or_default();
            self.output.note(format_args!(
                "{page}{:#x}..{:#x}, was bad and was never consumed: nothing read it",
                due.range.start, due.range.end
            ));
        }
        let unnamed: Vec<&str> = self.schedule.unnamed().collect();
        if unnamed.is_empty() {
            return ending.code();
        }
        let named = match self.schedule.names() {
            [] => "it named no page at all".to_owned(),
            names => format!("it named {}", names.join(", ")),
        };
        let text = format!("--poison page:{}: the guest never named it; {named}", unnamed.join(", page:"));
        if ending.is_as_the_guest_wanted() {
            self.output.error(text);
            return exit::NO_SUCH_PAGE;
        }
        self.output.note(text);
        ending.code()
    }
}

/// The physical address at which an access met bad memory, if it is known.
fn place(error: &MemoryError) -> Option<u64> {
    // The exit names the page, the gva is exact.
    error.named.map(|page| page + error.gva.unwrap_or_default() % PAGE)
}

#[cfg(test)]
mod tests {
    use seawall_arm::{Esr, Pstate};
    use seawall_events::SeaExit;

    use super::*;

    /// A guest with 64 KiB pages loses a whole page; poison is in a line.
    #[test]
    fn a_place_is_exact_whatever_the_size_of_what_is_lost() {
        let exit = SeaExit { flags: 1, esr: Esr::from_bits(0x9200_0210), gva: 0x50_2040, gpa: 0x4021_2000 };
        let error = MemoryError::from_sea(&exit, 0x40_1000, Pstate::from_bits(0));
        assert_eq!(place(&error), Some(0x4021_2040));
        assert_eq!(place(&error.in_pages_of(0x1_0000)), Some(0x4021_2040));
    }
}
