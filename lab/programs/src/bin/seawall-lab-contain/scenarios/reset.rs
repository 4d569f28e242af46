//! Guests that restart after memory went bad.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use seawall::ledger::Ledger;
use seawall::telemetry::ErrorReport;
use seawall::{Action, Outcome, Recorded};
use seawall_guest::{RESTLESS_PAGES, restless};
use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap};
use seawall_lab::Transcript;
use seawall_lab_machine::PoisonRegister;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, KvmMachine, Observer, firmware, layout};

use crate::linux::{LIMIT, Linux, MEMORY, Run, text};
use crate::report::{Verdict, expect};
use crate::watch::{Road, Watch, poison};

const PAGE: u64 = 4096;

/// A guest that loses a page, and asks for a reset.
const FIRST: Linux = Linux {
    script: "
seawall-lab-victim data load
echo \"init: data ended with $?\"
grep 'System RAM' /proc/iomem
reboot -f
",
    ..Linux::DEFAULT
};

/// A guest that uses all of its memory.
const SECOND: Linux = Linux {
    script: "
grep 'System RAM' /proc/iomem
free=$(grep MemAvailable /proc/meminfo | tr -cd 0-9)
mount -o remount,size=95% /tmp
dd if=/dev/zero of=/tmp/all bs=1M count=$((free / 1024 - 40)) 2>/dev/null
echo \"init: $((free / 1024 - 40)) MiB written, $(tr -d '\\000' </tmp/all | wc -c) bytes of them wrong\"
rm /tmp/all
",
    ..Linux::DEFAULT
};

/// The results of both boots.
struct Twice {
    first: Run,
    second: Run,
    /// The ledger before the reset, and after it.
    bad: [Vec<Range<u64>>; 2],
}

fn twice(heal: bool, transcript: &Transcript) -> Result<Twice, String> {
    let watch = Watch::new(Road::Register(1), Duration::ZERO);
    let done = run_twice(heal, &watch, transcript);
    if let Ok(mut register) = PoisonRegister::open() {
        register.heal_all();
    }
    done
}

fn run_twice(heal: bool, watch: &Watch, transcript: &Transcript) -> Result<Twice, String> {
    let mut config = Config::new(MEMORY);
    (config.acpi, config.heal) = (true, heal);
    let mut machine = KvmMachine::new(config, &FIRST.guest()?, Box::new(watch.clone())).map_err(text)?;
    watch.set_memory(machine.memory());
    let bad = |machine: &KvmMachine| {
        machine.ledger().with(|ledger| ledger.ranges().map(|bad| bad.range).collect::<Vec<_>>())
    };
    let run = |machine: &mut KvmMachine| -> Result<Run, String> {
        let end = machine.run(Some(LIMIT));
        let seen = watch.take();
        seen.lines.iter().for_each(|line| transcript.add(line));
        let end = end.map_err(text)?;
        match &seen.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(Run { end, seen, after: None }),
        }
    };
    let first = run(&mut machine)?;
    let before = bad(&machine);
    machine.reset(&SECOND.guest()?).map_err(text)?;
    let after = bad(&machine);
    let second = run(&mut machine)?;
    Ok(Twice { first, second, bad: [before, after] })
}

impl Twice {
    /// The page that the first guest lost.
    fn lost(&self) -> Result<Range<u64>, String> {
        let [(gpa, _)] = self.first.seen.bad[..] else { return Err("expected one bad page".into()) };
        let page = gpa & !(PAGE - 1);
        Ok(page..page + PAGE)
    }

    /// Checks that are independent of healing: the first guest lost a page and lived on, the second met no
    /// error.
    fn expect_sound(&self) -> Result<(), String> {
        expect("the first end", &self.first.end, &End::Reset)?;
        self.first.expect_outcomes(1, Some(0x9200_0210), true)?;
        self.first.line("init: data ended with 3")?;
        expect("the ledger before the reset", &self.bad[0], &vec![self.lost()?])?;
        self.second.expect_outcomes(0, None, false)?;
        self.second.expect_alive(0)?;
        let written = self.second.line("init: ")?;
        let ending = "MiB written, 0 bytes of them wrong";
        if written.ends_with(ending) { Ok(()) } else { Err(format!("expected `{ending}`, got `{written}`")) }
    }
}

/// The ranges that a guest uses as RAM: `40200000-4fffffff : System RAM`.
fn system_ram(run: &Run) -> Vec<Range<u64>> {
    let parse = |line: &String| {
        let (start, end) = line.strip_suffix(" : System RAM")?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(number(start)?..number(end)? + 1)
    };
    run.seen.lines.iter().filter_map(parse).collect()
}

pub(super) fn heals(transcript: &Transcript) -> Verdict {
    let twice = twice(true, transcript)?;
    twice.expect_sound()?;
    expect("the ledger after it", &twice.bad[1], &vec![])?;
    let (first, second) = (system_ram(&twice.first), system_ram(&twice.second));
    expect("the second guest's RAM", &second, &first)?;
    let lost = twice.lost()?;
    if !second.iter().any(|ram| ram.contains(&lost.start)) {
        return Err(format!("expected {lost:x?} in the guest's RAM, {second:x?}"));
    }
    Ok(format!("gpa {:#x} was bad; after the reset {}", lost.start, twice.second.line("init: ")?))
}

pub(super) fn leaves_out(transcript: &Transcript) -> Verdict {
    let twice = twice(false, transcript)?;
    twice.expect_sound()?;
    let lost = twice.lost()?;
    expect("the ledger after it", &twice.bad[1], &vec![lost.clone()])?;
    let ram = system_ram(&twice.second);
    if ram.is_empty() || ram.iter().any(|ram| ram.start < lost.end && lost.start < ram.end) {
        return Err(format!("expected RAM without {lost:x?}, got {ram:x?}"));
    }
    Ok(format!(
        "gpa {:#x} stays bad and is in no RAM of the second boot; {}",
        lost.start,
        twice.second.line("init: ")?
    ))
}

const RESETS: usize = 20;
const RESTLESS_MEMORY: u64 = 128 << 20;

/// Acknowledges each record on behalf of the guest.
#[derive(Clone, Default)]
struct Acknowledger {
    memory: Arc<OnceLock<GuestMemoryMmap>>,
    seen: Arc<Mutex<Vec<Outcome>>>,
}

/// The distance between two sources of records, and the offset of the read-ack register:
/// `seawall::apei::ghes`.
const SOURCE: u64 = 512;
const READ_ACK: u64 = 8;
const BLOCK: u64 = 16;
const SOURCES: u64 = 40;

fn source(number: u64) -> u64 {
    layout::RAM + RESTLESS_MEMORY - firmware::SIZE + number * SOURCE
}

impl Observer for Acknowledger {
    fn memory_error(&mut self, _: &ErrorReport, outcome: &Outcome) {
        if let (Recorded::AtSource(number), Some(memory)) = (outcome.recorded, self.memory.get()) {
            // The registers are in the guest's memory.
            let _ = memory.write_obj(1_u64, GuestAddress(source(number.into()) + READ_ACK));
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(*outcome);
    }
}

pub(super) fn under_errors() -> Verdict {
    let acknowledger = Acknowledger::default();
    let done = run_under_errors(&acknowledger);
    if let Ok(mut register) = PoisonRegister::open() {
        register.heal_all();
    }
    let healed = done?;
    let seen = std::mem::take(&mut *acknowledger.seen.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(wrong) = seen.iter().find(|outcome| {
        !matches!(outcome.action, Action::Injected { .. })
            || !matches!(outcome.recorded, Recorded::AtSource(_))
    }) {
        return Err(format!("expected each error to be injected and recorded, got {wrong}"));
    }
    let mut pages: Vec<_> = seen.iter().filter_map(|outcome| outcome.error.gpa).collect();
    pages.sort_unstable();
    pages.dedup();
    // The next reset heals a page that was met, and it is not met again.
    expect("distinct pages met", &pages.len(), &seen.len())?;
    expect("pages healed", &healed, &(seen.len() as u64))?;
    if seen.len() < RESETS {
        return Err(format!("expected at least one error before each reset, got {}", seen.len()));
    }
    Ok(format!(
        "{} errors under {RESETS} resets: each recorded, each page healed, none met twice",
        seen.len()
    ))
}

/// The number of pages that the resets healed.
fn run_under_errors(acknowledger: &Acknowledger) -> Result<u64, String> {
    let kernel = Kernel::Flat(restless());
    let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
    let mut config = Config::new(RESTLESS_MEMORY);
    (config.cpus, config.acpi) = (2, true);
    let mut machine = KvmMachine::new(config, &guest, Box::new(acknowledger.clone())).map_err(text)?;
    let _ = acknowledger.memory.set(machine.memory().clone());
    let mut register = PoisonRegister::open().map_err(text)?;
    for page in RESTLESS_PAGES.step_by(PAGE as usize) {
        machine.memory().write_slice(&[1; 8], GuestAddress(page)).map_err(text)?;
        poison(&mut register, machine.memory(), page, 64)?;
    }
    let mut healed = 0;
    for _ in 0..RESETS {
        expect("the guest's end", &machine.run(Some(LIMIT)).map_err(text)?, &End::Reset)?;
        healed += machine.ledger().with(Ledger::pages);
        machine.reset(&guest).map_err(text)?;
        expect("bad pages after a reset", &machine.ledger().with(Ledger::pages), &0)?;
        for number in 0..SOURCES {
            let word =
                |offset| machine.memory().read_obj(GuestAddress(source(number) + offset)).map_err(text);
            let (acknowledged, status): (u64, u64) = (word(READ_ACK)?, word(BLOCK)? & 0xffff_ffff);
            expect("a source after a reset: read-ack, status", &(acknowledged, status), &(1, 0))?;
        }
    }
    Ok(healed)
}
