//! The ledger's file under the hardest conditions: its writer is killed, and the disk is full.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use seawall::Outcome;
use seawall::ledger::{Cause, Keeper, Ledger};
use seawall::telemetry::ErrorReport;
use seawall_lab::Transcript;
use seawall_lab_machine::PoisonRegister;
use seawall_vmm::{Config, End, KvmMachine, Observer};

use super::many::{ERRORS, LIMIT, MEMORY, PAGE, PAGES, guest, turn_bad};
use crate::linux::text;
use crate::report::{Verdict, expect};

/// The first argument of a child.
const CHILD: &str = "--vmm-with-ledger";
/// The number of errors after which the child is killed.
const ENOUGH: u64 = 200;
/// The time limit for a child to handle any errors.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that takes its time with each error, so that the kill comes in the middle.
struct Slow;

impl Observer for Slow {
    fn memory_error(&mut self, _: &ErrorReport, _: &Outcome) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Keeps the console's lines.
#[derive(Clone, Default)]
struct Lines(Transcript);

impl Observer for Lines {
    fn line(&mut self, line: &str) {
        self.0.add(line);
    }
}

fn config(ledger: &Path) -> Result<Config, String> {
    let mut config = Config::new(MEMORY);
    config.ledger = Arc::new(Keeper::open(ledger).map_err(text)?);
    Ok(config)
}

/// The VMM to be killed: its guest meets errors until then.
pub(super) fn child_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != CHILD {
        return None;
    }
    let ledger = PathBuf::from(arguments.next().unwrap_or_default());
    let run = || -> Result<End, String> {
        let mut machine = KvmMachine::new(config(&ledger)?, &guest(), Box::new(Slow)).map_err(text)?;
        turn_bad(machine.memory())?;
        machine.run(Some(LIMIT)).map_err(text)
    };
    match run() {
        Ok(end) => eprintln!("seawall-lab-contain: expected to be killed, but the guest {end}"),
        Err(error) => eprintln!("seawall-lab-contain: {error}"),
    }
    Some(ExitCode::FAILURE)
}

pub(super) fn survives_sigkill(transcript: &Transcript) -> Verdict {
    let ledger = Path::new("/tmp/killed/ledger");
    fs::create_dir_all("/tmp/killed").map_err(text)?;
    let program = std::env::current_exe().map_err(text)?;
    let mut child =
        Command::new(program).args([OsString::from(CHILD), ledger.into()]).spawn().map_err(text)?;
    let watched = watch(&mut child, ledger);
    // Its memory goes back to the host at its end. The memory must be good then, so the process stands still
    // until it is healed.
    signal(&child, Signal::STOP)?;
    let mut register = PoisonRegister::open().map_err(text)?;
    register.heal_all();
    signal(&child, Signal::KILL)?;
    let status = child.wait().map_err(text)?;
    let looks = watched?;
    expect("the signal that ended it", &std::os::unix::process::ExitStatusExt::signal(&status), &Some(9))?;

    let left = Ledger::load(ledger).map_err(text)?.unwrap_or_default();
    let pages = left.pages();
    let ranges: Vec<_> = left.ranges().collect();
    let is_as_met = ranges.first().is_some_and(|bad| bad.range.start == PAGES)
        && ranges.last().is_some_and(|bad| bad.range.end == PAGES + pages * PAGE)
        && ranges.iter().all(|bad| bad.cause == Cause::Consumed);
    if !is_as_met || !(ENOUGH..ERRORS).contains(&pages) {
        return Err(format!(
            "expected the first pages that the guest met, at least {ENOUGH}, got {ranges:x?}"
        ));
    }

    let lines = Lines::default();
    let mut machine = KvmMachine::new(config(ledger)?, &guest(), Box::new(lines.clone())).map_err(text)?;
    expect("bad pages of the successor", &machine.ledger().with(Ledger::pages), &0)?;
    let end = machine.run(Some(LIMIT)).map_err(text)?;
    expect("the end of the successor's guest", &end, &End::PowerOff)?;
    machine.ledger().flush().map_err(text)?;
    let lines = lines.0.take();
    for line in &lines {
        transcript.add(line);
    }
    expect("errors that it met", &lines, &vec!["00000000".to_owned()])?;
    expect("the file then", &Ledger::load(ledger).map_err(text)?, &Some(Ledger::default()))?;
    expect("files beside it", &fs::read_dir("/tmp/killed").map_err(text)?.count(), &1)?;
    Ok(format!(
        "{pages} pages in it, whole each of {looks} times that it was read; the successor's guest met none"
    ))
}

/// Reads the file over and over while the child writes it, until it has enough entries; returns the number of
/// reads.
fn watch(child: &mut Child, ledger: &Path) -> Result<u64, String> {
    let start = Instant::now();
    for looks in 0.. {
        // A file that is not whole is an error, and ends the scenario.
        let pages = Ledger::load(ledger).map_err(text)?.map_or(0, |ledger| ledger.pages());
        if pages >= ENOUGH {
            return Ok(looks);
        }
        if start.elapsed() > PATIENCE || child.try_wait().map_err(text)?.is_some() {
            return Err(format!("expected {ENOUGH} pages in the ledger, got {pages}"));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Err("it was read for ever".into())
}

fn signal(child: &Child, signal: Signal) -> Result<(), String> {
    kill_process(Pid::from_child(child), signal).map_err(text)
}

/// Enters `count` scattered pages from `first` on.
fn enter(keeper: &Keeper, first: u64, count: u64) {
    for page in first..first + count {
        let start = page * 2 * PAGE;
        keeper.insert(start..start + PAGE, Cause::Found, SystemTime::UNIX_EPOCH);
    }
}

pub(super) fn survives_a_full_disk() -> Verdict {
    /// 24 bytes for each range, and the old and the new file exist at once: 1000 ranges fit twice, 2000 do
    /// not.
    const SIZE: &str = "size=64k";
    let folder = Path::new("/tmp/full");
    fs::create_dir_all(folder).map_err(text)?;
    mount(&["-t", "tmpfs", "-o", SIZE, "none", "/tmp/full"])?;
    let path = folder.join("ledger");
    let keeper = Keeper::open(&path).map_err(text)?;
    enter(&keeper, 0, 1000);
    keeper.flush().map_err(text)?;
    enter(&keeper, 1000, 1000);
    let error = keeper.flush().err().ok_or("expected the disk to be full")?;
    let kind = error.io().map(std::io::Error::kind);
    expect("why", &kind, &Some(std::io::ErrorKind::StorageFull))?;
    let on_disk = || Ledger::load(&path).map_err(text).map(|ledger| ledger.unwrap_or_default().pages());
    // The writer may have succeeded once more before the disk was full.
    let kept = on_disk()?;
    if !(1000..2000).contains(&kept) {
        return Err(format!(
            "expected the file as it was last written, of 1000 pages or some more, got {kept}"
        ));
    }
    expect("pages in memory", &keeper.with(Ledger::pages), &2000)?;
    expect("files", &fs::read_dir(folder).map_err(text)?.count(), &1)?;
    mount(&["-o", "remount,size=1m", "/tmp/full"])?;
    keeper.flush().map_err(text)?;
    expect("pages in the file, with room again", &on_disk()?, &2000)?;
    Ok(format!("{error}; {kept} pages in it, whole; with room again all 2000"))
}

fn mount(arguments: &[&str]) -> Result<(), String> {
    let status = Command::new("mount").args(arguments).status().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("mount {arguments:?}: {status}")) }
}
