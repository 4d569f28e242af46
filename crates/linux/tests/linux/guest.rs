//! A run of the guest: the tests read its console as it comes, and answer by typing or by bad memory.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall::telemetry::{AccessReport, ErrorReport};
use seawall::{Outcome, UnansweredOutcome};
use seawall_arm::Esr;
use seawall_linux::{COMMAND_LINE, Fetch, Flavour, cache_directory};
use seawall_vmm::{Config, End, Guest, Observer, Snapshot, SoftwareMachine, Translation};

/// The answer to a line of the console.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Nothing.
    None,
    /// The first line of 64 bytes in each page with one of these names goes bad.
    Poison(&'static [&'static str]),
    /// This text is typed.
    Type(&'static str),
}

/// The result of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Boot {
    /// Everything that the guest wrote, for human readers.
    pub(crate) console: String,
    /// Its lines, with kernel messages split from those of processes, for the checks.
    pub(crate) lines: Vec<String>,
    /// The end of the run; `None`: the budget was used up.
    pub(crate) end: Option<End>,
    /// `ESR_EL2` of each memory error, in order.
    pub(crate) errors: Vec<u64>,
    /// Unanswered accesses, in order: the Exception level and the address.
    pub(crate) unanswered: Vec<(u8, u64)>,
    /// Steps of each vCPU.
    pub(crate) steps: Vec<u64>,
    /// The ledger at the end: guest physical addresses.
    pub(crate) bad: Vec<Range<u64>>,
    /// The machine's time, nanoseconds.
    pub(crate) time: u64,
    /// The hash of the machine's whole state, including RAM: [`seawall_machine::StateHash`].
    pub(crate) hash: String,
}

impl Boot {
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The physical address of a page that the guest named.
    pub(crate) fn page(&self, name: &str) -> Option<u64> {
        self.lines().filter_map(page).find_map(|(named, address)| (named == name).then_some(address))
    }

    /// Returns true if a line equals this text.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.lines().any(|of_console| of_console == line)
    }
}

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    console: Vec<u8>,
    lines: Vec<String>,
    /// The number of lines that the caller has seen.
    looked_at: usize,
    errors: Vec<u64>,
    unanswered: Vec<(u8, u64)>,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The new lines since the last call.
    fn new_lines(&self) -> Vec<String> {
        let mut seen = self.seen();
        let new = seen.lines[seen.looked_at..].to_vec();
        seen.looked_at = seen.lines.len();
        new
    }
}

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.seen().console.extend(bytes);
    }

    fn line(&mut self, line: &str) {
        self.seen().lines.push(line.trim_end().to_owned());
    }

    fn memory_error(&mut self, _: &ErrorReport, outcome: &Outcome) {
        self.seen().errors.extend(outcome.error.esr.map(Esr::bits));
    }

    fn unanswered_access(&mut self, report: &AccessReport, _: &UnansweredOutcome) {
        self.seen().unanswered.push((report.exception_level, report.gpa.0));
    }

    fn wants_pause(&mut self) -> bool {
        let seen = self.seen();
        seen.looked_at < seen.lines.len()
    }
}

/// The guest's machine: 512 MiB.
pub(crate) fn config(cpus: u32, policy_name: &str) -> Config {
    let mut config = Config::new(512 << 20);
    config.cpus = cpus;
    config.policy = Box::new(policy_name.parse::<seawall::Rules>().expect("a policy"));
    config
}

/// A loaded Debian kernel with these words on its command line.
fn start(config: Config, flavour: Flavour, append: &str) -> (SoftwareMachine, Watch) {
    let directory = cache_directory().expect("a home");
    let fetch = Fetch { flavour, ..Fetch::new(directory) };
    let debian = fetch.guest(&|_| ()).expect("Debian's packages");
    let command_line = format!("{COMMAND_LINE} {append}");
    let guest = Guest::read(&debian.kernel, Some(&debian.initrd), &command_line, config.memory);
    let guest = guest.expect("a kernel");
    let watch = Watch::default();
    let machine = SoftwareMachine::new(config, &guest, Box::new(watch.clone())).expect("it fits");
    (machine, watch)
}

/// Boots until this line is on the console, and takes a snapshot.
pub(crate) fn boot_to(config: Config, append: &str, line: &str) -> (SoftwareMachine, Snapshot) {
    let (mut machine, watch) = start(config, Flavour::Cloud, append);
    while !watch.new_lines().iter().any(|seen| seen == line) {
        assert_eq!(machine.run(Some(super::BUDGET)).expect("no error of the host"), None, "no {line}");
    }
    let snapshot = machine.snapshot().expect("room");
    (machine, snapshot)
}

/// Runs a machine from this snapshot to its end: the console's lines, the end, and the state hash.
pub(crate) fn end_of(snapshot: &Snapshot) -> (Vec<String>, Option<End>, String) {
    let watch = Watch::default();
    let mut machine =
        SoftwareMachine::resume(snapshot, snapshot.config(), Box::new(watch.clone())).expect("room");
    let end = to_the_end(&mut machine, &watch);
    let lines = std::mem::take(&mut watch.seen().lines);
    (lines, end, machine.state_hash().to_string())
}

/// The state hash of this machine at its end, and the end.
pub(crate) fn hash_at_end(machine: &mut SoftwareMachine) -> (Option<End>, String) {
    let end = to_the_end(machine, &Watch::default());
    (end, machine.state_hash().to_string())
}

fn to_the_end(machine: &mut SoftwareMachine, watch: &Watch) -> Option<End> {
    while machine.instructions() < super::BUDGET {
        let end = machine.run(Some(super::BUDGET)).expect("no error of the host");
        let _ = watch.new_lines();
        if end.is_some() {
            return end;
        }
    }
    None
}

/// Boots Debian's cloud kernel with these words on its command line, and answers each line of its console.
pub(crate) fn boot(config: Config, append: &str, answer: impl Fn(&str) -> Answer) -> Boot {
    boot_flavour(config, Flavour::Cloud, append, answer)
}

/// The same with another of Debian's kernels.
pub(crate) fn boot_flavour(
    config: Config,
    flavour: Flavour,
    append: &str,
    answer: impl Fn(&str) -> Answer,
) -> Boot {
    run(start(config, flavour, append), answer)
}

/// Boots the cloud kernel with its code run in this way.
pub(crate) fn boot_translated(
    config: Config,
    translation: Translation,
    append: &str,
    answer: impl Fn(&str) -> Answer,
) -> Boot {
    let (mut machine, watch) = start(config, Flavour::Cloud, append);
    machine.set_translation(translation);
    run((machine, watch), answer)
}

fn run((mut machine, watch): (SoftwareMachine, Watch), answer: impl Fn(&str) -> Answer) -> Boot {
    let cpus = machine.vm().cpu_count();
    let mut pages = Vec::new();
    let end = loop {
        let left = super::BUDGET.saturating_sub(machine.instructions());
        if left == 0 {
            break None;
        }
        let end = machine.run(Some(left)).expect("no error of the host");
        for line in watch.new_lines() {
            pages.extend(page(&line));
            match answer(&line) {
                Answer::Poison(names) => {
                    for name in names {
                        let mut bad = 0;
                        for (_, address) in pages.iter().filter(|(named, _)| named == name) {
                            bad += machine.poison(*address..address + 64).expect("in RAM");
                        }
                        assert_ne!(bad, 0, "{name}: the guest named it");
                    }
                }
                Answer::Type(text) => assert_eq!(machine.type_in(text.as_bytes()), text.len()),
                Answer::None => {}
            }
        }
        if end.is_some() {
            break end;
        }
    };
    let (time, hash) = (machine.time(), machine.vm().state_hash().to_string());
    let bad = machine.ledger().with(|ledger| ledger.ranges().map(|bad| bad.range).collect());
    let vm = machine.vm_mut();
    let steps = (0..cpus).map(|cpu| vm.vcpu(cpu).expect("a vCPU").instructions()).collect();
    let Seen { console, lines, errors, unanswered, .. } = std::mem::take(&mut *watch.seen());
    let console = String::from_utf8_lossy(&console).into_owned();
    Boot { console, lines, end, errors, unanswered, steps, bad, time, hash }
}

/// Name and physical address in `seawall: page NAME 0xADDRESS`.
fn page(line: &str) -> Option<(String, u64)> {
    let (name, address) = line.strip_prefix("seawall: page ")?.split_once(" 0x")?;
    Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
}
