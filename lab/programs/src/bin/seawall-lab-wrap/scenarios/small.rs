//! A small VMM that knows nothing of Seawall, whose vCPU's thread may do nothing but run it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use seawall_lab::Transcript;
use seawall_lab::report::{Verdict, expect};

use crate::ram::{BASE, Ram, text};

const PROGRAM: &str = "seawall-lab-small-vmm";
/// Where the guest's data begin.
const DATA: u64 = BASE + 0x10_0000;
const PAGE: u64 = 4096;
/// Exits in one turn, of which the quickest [`BATCH`] count, and turns.
const EXITS: u64 = 20_000;
const BATCH: u64 = 64;
const TURNS: usize = 2;
/// An exit may take one more of so many instructions: 1 %.
const MOST_MORE: u64 = 100;

/// What the VMM said, or why it went wrong.
fn run(wrap: Option<&[&str]>, ram: &Ram, words: &[&str], said: &Transcript) -> Result<Vec<String>, String> {
    let mut command = match wrap {
        None => Command::new(PROGRAM),
        Some(options) => {
            let mut command = Command::new("seawall");
            command.arg("wrap").args(options).arg("--").arg(PROGRAM);
            command
        }
    };
    let output = command.arg(ram.path()).args(words).stdin(Stdio::null()).output().map_err(text)?;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    let (lines, notes) = (lines(&output.stdout), lines(&output.stderr));
    for line in &lines {
        said.add(line.clone());
    }
    // Of ten thousand the first are enough.
    for note in notes.iter().take(40) {
        said.add(format!("VMM: {note}"));
    }
    expect("the VMM's exit code", &output.status.code(), &Some(0))?;
    expect("its last line", &lines.last().map(String::as_str), &Some("end"))?;
    Ok(lines)
}

fn number(lines: &[String], start: &str, word: usize) -> Result<Vec<u64>, String> {
    let found = lines.iter().filter(|line| line.starts_with(start));
    let numbers = found.map(|line| line.split(' ').nth(word).unwrap_or_default().parse::<u64>());
    numbers.collect::<Result<_, _>>().map_err(text)
}

/// Nothing stays: the files are as many, and the memory is at most this many KiB more.
fn expect_nothing_stays(lines: &[String], more: u64) -> Result<(), String> {
    let (files, memory) = (number(lines, "files ", 1)?, number(lines, "files ", 3)?);
    let ([files, files_after], [memory, memory_after]) = (&files[..], &memory[..]) else {
        return Err("expected two lines of files and memory".to_owned());
    };
    expect("files, before and after", files_after, files)?;
    if *memory_after > memory + more {
        return Err(format!("expected at most {more} KiB more than {memory}, got {memory_after}"));
    }
    Ok(())
}

/// Of three pages one is bad and nobody knows, and one the host knows.
pub(super) fn loads(said: &Transcript) -> Verdict {
    let ram = Ram::new(16 << 20)?;
    ram.poison(DATA + PAGE)?;
    ram.tell_host(DATA + 2 * PAGE)?;
    let words = ["loads", &format!("{DATA:#x}"), "3", &PAGE.to_string()];
    let lines = run(Some(&[]), &ram, &words, said)?;
    for line in [
        "load 0x40100000: 0x0",
        // FAR is exact. An abort of the same Exception level: EC 0x25; after SIGBUS KVM gives no more than that.
        "abort 0x40101000: ESR 0x96000210 FAR 0x40101000",
        "abort 0x40102000: ESR 0x96000010 FAR 0x40102000",
        "1 loaded, 2 aborted",
    ] {
        expect(line, &lines.iter().any(|seen| seen == line), &true)?;
    }
    Ok("an SEA and a SIGBUS under a filter without KVM_GET_ONE_REG: both aborts at the guest's handler"
        .to_owned())
}

pub(super) fn many(count: u64, said: &Transcript) -> Verdict {
    let ram = Ram::new(64 << 20)?;
    for page in 0..count {
        ram.poison(DATA + page * PAGE)?;
    }
    let words = ["loads", &format!("{DATA:#x}"), &count.to_string(), &PAGE.to_string()];
    let lines = run(Some(&["--quiet"]), &ram, &words, said)?;
    expect("loads", &lines.iter().any(|line| *line == format!("0 loaded, {count} aborted")), &true)?;
    // The helper's first error has it make its own things.
    expect_nothing_stays(&lines, 1024)?;
    Ok(format!("{count} errors contained; no file and no memory stays"))
}

pub(super) fn vms(count: u64, said: &Transcript) -> Verdict {
    let ram = Ram::new(16 << 20)?;
    ram.poison(DATA)?;
    let is_done = AtomicBool::new(false);
    let lines = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let words = ["vms", &format!("{DATA:#x}"), &count.to_string()];
        let lines = run(Some(&["--quiet"]), &ram, &words, said);
        is_done.store(true, Ordering::Relaxed);
        lines
    })?;
    expect("loads", &lines.iter().any(|line| *line == format!("0 loaded, {count} aborted")), &true)?;
    expect_nothing_stays(&lines, 512)?;
    Ok(format!("{count} VMs in one process under load, an error in each: all contained, nothing stays"))
}

/// Each is a process of its own, two at a time, and all of them have one file of events.
pub(super) fn starts(count: u64, said: &Transcript) -> Verdict {
    let events = tempfile::NamedTempFile::new().map_err(text)?;
    let path = events.path().display().to_string();
    let words = ["loads", &format!("{DATA:#x}"), "1", &PAGE.to_string()];
    let rams = [Ram::new(16 << 20)?, Ram::new(16 << 20)?];
    for ram in &rams {
        ram.poison(DATA)?;
    }
    let each = |ram: &Ram| {
        (0..count / 2).try_for_each(|_| {
            let lines = run(Some(&["--quiet", "--events", &path]), ram, &words, said)?;
            expect("loads", &lines.iter().any(|line| line == "0 loaded, 1 aborted"), &true)
        })
    };
    thread::scope(|scope| {
        let both = rams.each_ref().map(|ram| scope.spawn(|| each(ram)));
        both.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("a panic".to_owned())))
    })?;
    let lines = std::fs::read_to_string(&path).map_err(text)?;
    let (mut wrapped, mut errors) = (0, 0);
    for line in lines.lines() {
        match line.split('"').nth(3) {
            Some("wrapped") if line.ends_with('}') => wrapped += 1,
            Some("memory-error") if line.ends_with('}') => errors += 1,
            _ => return Err(format!("expected a whole event, got {line}")),
        }
    }
    expect("events of starts and of errors", &(wrapped, errors), &(count / 2 * 2, count / 2 * 2))?;
    Ok(format!("{count} starts and ends, two at a time, an error in each: all contained, each event whole"))
}

/// In a lab whose nanosecond is an instruction (`-icount`). Time would tell of the lab's CPU, which drops its translations at
/// each change between guest and host: a page that is used more costs it microseconds.
pub(super) fn cost(said: &Transcript) -> Verdict {
    let ram = Ram::new(16 << 20)?;
    let exits = EXITS.to_string();
    let mut instructions = [u64::MAX; 2];
    for turn in 0..2 * TURNS {
        let wrap: Option<&[&str]> = if turn % 2 == 0 { None } else { Some(&[]) };
        let lines = run(wrap, &ram, &["exits", &exits], said)?;
        let least = &mut instructions[turn % 2];
        *least = number(&lines, "64 exits in ns ", 4)?.into_iter().fold(*least, u64::min);
    }
    if instructions.contains(&u64::MAX) {
        return Err("the VMM told no figure".to_owned());
    }
    let [without, with] = instructions.map(|of_batch| of_batch / BATCH);
    let more = with.saturating_sub(without);
    let seen = format!("{without} instructions an exit without, {more} more with");
    if more * MOST_MORE > without {
        Err(format!("{seen}: more than 1 %, the promise with Debian's kernel"))
    } else {
        Ok(seen)
    }
}
