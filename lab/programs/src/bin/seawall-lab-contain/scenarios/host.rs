//! The next owner of a bad page after its VMM. If the host was told, or the page is kept, there is none; if
//! nobody tells, the next owner meets the error.
//!
//! Each scenario has its own host: `cargo xtask lab contain` boots one, and also judges a host that goes
//! down.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seawall::telemetry::ErrorReport;
use seawall::{HostKnows, Outcome};
use seawall_kvm::{Bytes as _, GuestAddress};
use seawall_lab::Transcript;
use seawall_lab_machine::PoisonRegister;
use seawall_vmm::{Config, End, KvmMachine, Observer};

use super::many::{LIMIT, MEMORY, PAGE, PAGES, guest};
use super::use_up::{Met, meminfo, use_up};
use crate::linux::text;
use crate::report::{Verdict, expect};
use crate::watch::poison;

/// The first argument of the VMM.
const CHILD: &str = "--vmm-that-ends";
/// The number of bad pages, and their distance.
const BAD: u64 = 16;
const APART: u64 = 500 * PAGE;
/// The guest's line about them.
const MET: &str = "00000010";
const MET_NONE: &str = "00000000";

/// A VMM's handling of bad pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// It tells the host.
    Tells,
    /// It may not: it heals, and stays until its input ends.
    Keeps,
    /// It does nothing.
    SaysNothing,
}

impl Manners {
    const ALL: [(&str, Self); 3] =
        [("tells", Self::Tells), ("keeps", Self::Keeps), ("says-nothing", Self::SaysNothing)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, manners)| *manners == self).map_or("", |(name, _)| name)
    }
}

/// Collects the console's lines, and the host's answer for each error.
#[derive(Clone, Default)]
struct Teller {
    lines: Transcript,
    answers: Arc<Mutex<Vec<HostKnows>>>,
}

impl Observer for Teller {
    fn line(&mut self, line: &str) {
        self.lines.add(line);
    }

    fn memory_error(&mut self, _: &ErrorReport, outcome: &Outcome) {
        let answers = &mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.extend(outcome.host);
    }
}

/// The VMM: prints a line with the number of errors that its guest met, and the host's answer for each.
pub(super) fn child_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != CHILD {
        return None;
    }
    let named = arguments.next().unwrap_or_default();
    let manners = Manners::ALL.iter().find(|(name, _)| *name == named)?.1;
    match vmm(manners) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            println!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn vmm(manners: Manners) -> Result<(), String> {
    let teller = Teller::default();
    let config = Config::new(MEMORY);
    let mut machine = KvmMachine::new(config, &guest(), Box::new(teller.clone())).map_err(text)?;
    if manners == Manners::SaysNothing {
        machine.set_untold();
    }
    let mut register = PoisonRegister::open().map_err(text)?;
    for page in (PAGES..).step_by(APART as usize).take(BAD as usize) {
        machine.memory().write_slice(&[1; 8], GuestAddress(page)).map_err(text)?;
        poison(&mut register, machine.memory(), page, 64)?;
    }
    if manners == Manners::Keeps {
        // Only now: the register takes physical addresses, which need root.
        let mut sets = capabilities(None).map_err(text)?;
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        sets.permitted.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).map_err(text)?;
    }
    expect("the guest's end", &machine.run(Some(LIMIT)).map_err(text)?, &End::PowerOff)?;
    println!("{}", said(&teller));
    if manners == Manners::Keeps {
        machine.reset(&guest()).map_err(text)?;
        expect("the second guest's end", &machine.run(Some(LIMIT)).map_err(text)?, &End::PowerOff)?;
        println!("{}", said(&teller));
        std::io::stdin().read_to_end(&mut Vec::new()).map_err(text)?;
    }
    Ok(())
}

/// The output since the last call: the guest's own line, and the count of each of the host's answers.
fn said(teller: &Teller) -> String {
    let answers = std::mem::take(&mut *teller.answers.lock().unwrap_or_else(PoisonError::into_inner));
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
    let all = [HostKnows::Told, HostKnows::Kept, HostKnows::Unknown];
    let counts: Vec<String> =
        all.into_iter().map(|knows| format!("{} {}", knows.name(), count(knows))).collect();
    format!("{}; {}", teller.lines.take().join(" "), counts.join(", "))
}

/// The VMM in its own process.
struct Vmm {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Vmm {
    fn start(manners: Manners) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(text)?;
        let mut command = Command::new(program);
        command.args([CHILD, manners.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(text)?;
        let lines = child.stdout.take().ok_or("expected the VMM's stdout")?;
        Ok(Self { child, lines: BufReader::new(lines) })
    }

    fn expect_line(&mut self, what: &str, expected: &str, said: &Transcript) -> Result<(), String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(text)?;
        said.add(format!("VMM: {}", line.trim_end()));
        expect(what, &line.trim_end(), &expected)
    }

    fn end(mut self) -> Result<(), String> {
        // Ends its input.
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(text)?;
        expect("how the VMM ended", &status.code(), &Some(0))
    }
}

/// The kB that the host has taken out of use.
fn corrupted() -> Result<u64, String> {
    Ok(meminfo("HardwareCorrupted")? >> 10)
}

/// Heals all lines before the host goes on; returns how many were bad.
fn heal_all() -> Result<u64, String> {
    let mut register = PoisonRegister::open().map_err(text)?;
    let bad = register.count();
    register.heal_all();
    Ok(bad)
}

pub(super) fn told(said: &Transcript) -> Verdict {
    let before = corrupted()?;
    let mut vmm = Vmm::start(Manners::Tells)?;
    vmm.expect_line("of the first guest", &format!("{MET}; told {BAD}, kept 0, unknown 0"), said)?;
    vmm.end()?;
    expect("HardwareCorrupted, kB more", &(corrupted()? - before), &((BAD * PAGE) >> 10))?;
    let used = use_up(said)?;
    expect("bad lines at the end", &heal_all()?, &BAD)?;
    match used {
        Met::Nothing(used) => Ok(format!("the host was told of {BAD} pages; the VMM ended; {used}")),
        Met::Signal(signal) => Err(format!("a process that did nothing was killed by signal {signal}")),
    }
}

pub(super) fn kept(said: &Transcript) -> Verdict {
    let before = corrupted()?;
    let mut vmm = Vmm::start(Manners::Keeps)?;
    vmm.expect_line("of the first guest", &format!("{MET}; told 0, kept {BAD}, unknown 0"), said)?;
    vmm.expect_line("of the second guest", &format!("{MET_NONE}; told 0, kept 0, unknown 0"), said)?;
    let used = use_up(said);
    // They must be good before anybody gets them.
    let bad = heal_all()?;
    let used = used?;
    vmm.end()?;
    expect("bad lines at the end", &bad, &BAD)?;
    expect("HardwareCorrupted, kB more", &(corrupted()? - before), &0)?;
    match used {
        Met::Nothing(used) => {
            Ok(format!("a VMM without privilege kept {BAD} pages, and its next guest met none; {used}"))
        }
        Met::Signal(signal) => Err(format!("a process that did nothing was killed by signal {signal}")),
    }
}

/// The baseline. If the host goes down, or this process is killed, `cargo xtask lab contain` judges.
pub(super) fn untold(said: &Transcript) -> Verdict {
    let mut vmm = Vmm::start(Manners::SaysNothing)?;
    vmm.expect_line("of the first guest", &format!("{MET}; told 0, kept 0, unknown 0"), said)?;
    vmm.end()?;
    let used = use_up(said);
    heal_all()?;
    match used? {
        Met::Signal(7) => {
            Ok("as expected, it goes wrong: a process that did nothing was killed by SIGBUS".to_owned())
        }
        Met::Signal(signal) => Err(format!("expected SIGBUS, got signal {signal}")),
        Met::Nothing(used) => Err(format!("expected that somebody meets a bad page, but {used}")),
    }
}
