//! A guest on the software machine: in slices, between which memory goes bad, keys are typed, and what the guest said
//! is shown.

use std::path::Path;
use std::time::{Duration, Instant};

use seawall::MemoryError;
use seawall::ledger::{Ledger, PAGE};
use seawall_arm::Esr;
use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_vmm::{Config, End, Guest, Snapshot, SoftwareMachine};
use serde_json::json;

use super::deadline::Deadline;
use super::ending::{Ending, Where};
use super::keep::Keeper;
use super::keyboard::{Keyboard, Typed};
use super::output::{Output, When};
use super::poison::{Schedule, named_page};
use super::{Args, MAX_INSNS};
use crate::watch::{Seen, Watch};
use crate::{Failure, exit};

/// Instructions between two looks at the console.
const SLICE: u64 = 5_000_000;
/// The same if somebody types: about a millisecond.
const KEY_SLICE: u64 = 200_000;
/// Between two looks at the clock while the guest waits for keys.
const WAIT: Duration = Duration::from_millis(50);

/// What a guest that was busy may catch up by waiting less afterwards.
const LAG: Duration = Duration::from_secs(1);

/// Runs the guest to its end: the exit code.
pub(super) fn run(
    args: &Args,
    config: Config,
    guest: Guest,
    mut output: Output,
    deadline: &Deadline,
) -> Result<u8, Failure> {
    let watch = Watch::default();
    let bad = config.ledger.with(Ledger::pages);
    let machine = SoftwareMachine::new(config, &guest, Box::new(watch.clone()))?;
    let left = machine.ledger().with(Ledger::pages);
    output.starts(When::default(), None, bad - left, left);
    // Unless it is to start anew, its files are in its memory now.
    let guest = (args.reboot > 0).then_some(guest);
    go(args, machine, guest.as_ref(), watch, output, deadline)
}

/// Runs a guest from a snapshot to its end: the exit code.
pub(super) fn resume(
    args: &Args,
    snapshot: &Snapshot,
    config: Config,
    output: Output,
    deadline: &Deadline,
) -> Result<u8, Failure> {
    let watch = Watch::default();
    let machine = SoftwareMachine::resume(snapshot, config, Box::new(watch.clone()))?;
    go(args, machine, None, watch, output, deadline)
}

fn go(
    args: &Args,
    machine: SoftwareMachine,
    guest: Option<&Guest>,
    watch: Watch,
    output: Output,
    deadline: &Deadline,
) -> Result<u8, Failure> {
    let _metrics = args.metrics(|| ())?;
    deadline.ends(machine.kicker());
    let kicker = machine.kicker();
    let keyboard = args.keyboard(move || kicker.kick());
    let limit = args.max_insns.unwrap_or(if keyboard.is_terminal() { u64::MAX } else { MAX_INSNS });
    let schedule = Schedule::new(&args.poison);
    let keeper = Keeper::new(args.snapshot.as_ref());
    let mut run =
        Run { machine, watch, output, keyboard, typed: Vec::new(), schedule, keeper, deadline, pace: None };
    let mut ending = run.until_end(args, limit)?;
    for _ in 0..args.reboot {
        let Some(guest) = guest.filter(|_| ending.wants_reboot()) else { break };
        run.reboot(guest, &ending)?;
        ending = run.until_end(args, limit)?;
    }
    deadline.seen();
    run.finish(args, &ending)
}

struct Run<'a> {
    machine: SoftwareMachine,
    watch: Watch,
    output: Output,
    keyboard: Keyboard,
    /// Typed bytes that the machine has no room for yet.
    typed: Vec<u8>,
    schedule: Schedule,
    keeper: Keeper<'a>,
    deadline: &'a Deadline,
    /// Since when the guest keeps up with the host's clock: that clock, and the machine's.
    pace: Option<(Instant, u64)>,
}

impl Run<'_> {
    fn until_end(&mut self, args: &Args, limit: u64) -> Result<Ending, Failure> {
        loop {
            let now = self.machine.instructions();
            let kept = self.keeper.at_count(&mut self.machine)?;
            self.kept(kept);
            self.poison()?;
            if now >= limit {
                return Ok(Ending::InstructionLimit);
            }
            if let Some(seconds) = args.timeout.filter(|_| self.deadline.is_over()) {
                return Ok(Ending::TimeLimit(seconds));
            }
            let ahead = self.ahead();
            if self.keys(ahead) {
                return Ok(Ending::Keyboard);
            }
            let slice = if self.keyboard.is_open() { KEY_SLICE } else { SLICE };
            let steps = slice.min(limit - now).min(self.schedule.left(now)).min(self.keeper.left(now));
            let end = self.machine.run(Some(steps))?;
            self.show()?;
            self.output.check()?;
            if args.has_metrics() {
                // A guest whose records are not in its memory hears of it at its next error.
                let _ = self.machine.gauge();
            }
            let ending = match end {
                None => self.bad_vector()?,
                // Nothing that could still be typed would wake a guest that does not take what is there.
                Some(End::Idle) if self.keyboard.is_open() && self.typed.is_empty() => {
                    if self.keys(WAIT) {
                        return Ok(Ending::Keyboard);
                    }
                    None
                }
                Some(end) => Some(Ending::Guest(end)),
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
            self.output.progress(self.machine.instructions());
        }
    }

    /// Starts the guest anew.
    fn reboot(&mut self, guest: &Guest, ending: &Ending) -> Result<(), Failure> {
        let bad = self.machine.ledger().with(Ledger::pages);
        self.machine.reset(guest)?;
        let left = self.machine.ledger().with(Ledger::pages);
        let when = self.when();
        self.output.starts(when, Some(ending.name()), bad - left, left);
        Ok(())
    }

    /// Turns bad what is due.
    fn poison(&mut self) -> Result<(), Failure> {
        while let Some(due) = self.schedule.take(self.machine.instructions()) {
            let page = due.page.as_deref();
            self.machine.poison(due.range.clone()).map_err(|error| {
                let page = page.map(|page| format!("page {page}: ")).unwrap_or_default();
                Failure::new(exit::RANGE, format!("--poison {page}{error}"))
            })?;
            let when = self.when();
            self.output.poisoned(when, &due.range, page);
            self.schedule.is_bad(due);
        }
        Ok(())
    }

    fn when(&self) -> When {
        let time = Duration::from_nanos(self.machine.time());
        When { time, instructions: Some(self.machine.instructions()) }
    }

    /// Shows what the guest did in the last slice.
    fn show(&mut self) -> Result<(), Failure> {
        let (when, now) = (self.when(), self.machine.instructions());
        for seen in self.watch.take() {
            match seen {
                Seen::Console(bytes) => self.output.console(&bytes),
                Seen::Line(line) => {
                    if let Some((name, address)) = named_page(&line) {
                        self.schedule.named(name, address, now);
                    }
                    let kept = self.keeper.at_line(&mut self.machine, &line)?;
                    self.kept(kept);
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

    /// A snapshot was written to this file.
    fn kept(&mut self, path: Option<&Path>) {
        if let Some(path) = path {
            let now = self.machine.instructions();
            self.output.note(format!("a snapshot after {now} instructions is in {}", path.display()));
        }
    }

    /// How far a guest that somebody types to is ahead of the host's clock: one that waits skips time.
    fn ahead(&mut self) -> Duration {
        if !self.keyboard.is_terminal() {
            return Duration::ZERO;
        }
        let time = self.machine.time();
        let (clock, since) = *self.pace.get_or_insert_with(|| (Instant::now(), time));
        let (guest, host) = (Duration::from_nanos(time.saturating_sub(since)), clock.elapsed());
        if guest + LAG < host {
            self.pace = None;
        }
        guest.saturating_sub(host).min(WAIT)
    }

    /// Types what somebody typed, within so long, as far as the guest takes it; whether the user wants to leave.
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

    /// Whether every CPU that is on stands at a vector that itself aborts: PC is in the vectors and `ELR_EL1` is PC.
    /// The same exception comes again then, and nothing changes but by poison that is still to come.
    fn bad_vector(&mut self) -> Result<Option<Ending>, Failure> {
        const FROM_SAME_LEVEL: [u64; 2] = [0x000, 0x200];
        if !self.schedule.is_empty() {
            return Ok(None);
        }
        let mut ending = None;
        let vm = self.machine.vm_mut();
        for cpu in 0..vm.cpu_count() {
            let vcpu = vm.vcpu(cpu)?;
            let reg = |reg| vcpu.reg(reg);
            let (pc, elr, vbar) = (reg(Reg::Pc)?, reg(Reg::ElrEl1)?, reg(Reg::VbarEl1)?);
            if !vcpu.is_on() {
                continue;
            }
            let is_there = pc == elr && FROM_SAME_LEVEL.contains(&pc.wrapping_sub(vbar & !0x7ff));
            if !is_there {
                return Ok(None);
            }
            ending = Some(Ending::BadVector { pc, esr: Esr::from_bits(reg(Reg::EsrEl1)?) });
        }
        Ok(ending)
    }

    /// Says how it ended: the exit code.
    fn finish(mut self, args: &Args, ending: &Ending) -> Result<u8, Failure> {
        // A terminal is as it was before anything is said.
        self.keyboard = Keyboard::none();
        let kept = self.keeper.at_end(&mut self.machine)?;
        self.kept(kept);
        if let Some(path) = self.keeper.missed() {
            self.output.note(format_args!(
                "no snapshot is in {}: the guest ended before the moment for it came",
                path.display()
            ));
        }
        let (when, instructions) = (self.when(), self.machine.instructions());
        let cpu = self.machine.current_cpu();
        let vcpu = self.machine.vm_mut().vcpu(cpu)?;
        let pc = vcpu.reg(Reg::Pc)?;
        let text = ending.explain(Where { pc: Some(pc), instructions: Some(instructions) });
        self.output.end(when, ending.name(), ending.code(), &text);
        let code = self.tell_of_poison(ending);
        if let Err(error) = self.machine.ledger().flush() {
            self.output.note(&error);
        }
        let pages_not_named: Vec<&str> = self.schedule.unnamed().collect();
        self.output.finish(json!({
            "backend": "machine",
            "policy": args.policy,
            "outcome": ending.name(),
            "text": text,
            "pc": format!("{pc:#x}"),
            "instructions": instructions,
            "guest_time_ns": self.machine.time(),
            "guest_memory_touched": self.machine.vm().memory().touched(),
            "undefined_instructions": self.machine.vm().undefined().count(),
            "poison_to_come": self.schedule.to_come() + pages_not_named.len(),
            "poison_not_consumed": self.schedule.unconsumed().count(),
            "pages_named": self.schedule.names(),
            "pages_not_named": pages_not_named,
            "bad_pages": self.machine.ledger().with(Ledger::pages),
        }))?;
        Ok(code)
    }

    /// Says what of the poison came to nothing: the exit code.
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

/// The physical address that an access met bad memory at, as far as that is known.
fn place(error: &MemoryError) -> Option<u64> {
    // The exit names the page, the gva is exact.
    let offset = error.gva.unwrap_or_default() % PAGE;
    error.gpa.map(|gpa| if error.size == PAGE { gpa + offset } else { gpa })
}
