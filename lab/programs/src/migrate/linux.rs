//! Debian's kernel with ACPI: a bad page killed a process, the page is offline, and the other processes go on
//! elsewhere.

use std::fs;
use std::path::Path;

use seawall_vmm::{Config, End, Guest, KvmMachine};

use super::destination::{BAD, CONSOLE, ERROR};
use super::source::{Healed, Source, Watch};
use super::{Verdict, expect, text};
use crate::Transcript;

const MEMORY: u64 = 256 << 20;
const COMMAND_LINE: &str =
    "console=ttyAMA0 panic=-1 quiet cryptomgr.notests seawall.workload=workload seawall.rounds=300";
const WITNESS: &str = "witness: alive ";
/// The end of the one process that is killed.
const KILLED: &str = "workload: anonymous ended: SIGBUS";

/// The page of `anonymous`, which goes bad.
fn wanted(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("seawall: page anonymous 0x")?, 16).ok()
}

fn alive(line: &str) -> Option<u64> {
    line.strip_prefix(WITNESS)?.parse().ok()
}

/// Debian's kernel, with the initramfs of `seawall guest fetch debian`, on `cpus` vCPUs. `busybox`: a static
/// one.
///
/// # Errors
/// The wrong result.
pub fn linux(kernel: &Path, busybox: &Path, cpus: u32, transcript: &Transcript) -> Verdict {
    let _healed = Healed;
    let mut guest = Guest::read(kernel, None, COMMAND_LINE, MEMORY).map_err(text)?;
    let busybox = fs::read(busybox).map_err(text)?;
    guest.initrd = Some(seawall_linux::initramfs::build(&busybox, &[]));
    let mut config = Config::new(MEMORY);
    config.cpus = cpus;
    config.acpi = true;
    let (watch, seen, memory) = Watch::new(wanted, transcript);
    let machine = KvmMachine::new(config, &guest, watch).map_err(text)?;
    *memory.lock().map_err(text)? = Some(machine.memory().clone());
    let mut source = Source { machine, seen, lines: Vec::new(), transcript: transcript.clone() };

    source.run_until("", KILLED, |line| line == KILLED)?;
    let bad = source.lines.iter().find_map(|line| wanted(line)).ok_or("no page was named")? & !0xfff;
    expect(
        "the ledger",
        &source.machine.ledger().with(|ledger| ledger.get(bad)).map(|bad| bad.range),
        &Some(bad..bad + 4096),
    )?;
    let broken = source.send_to_nobody(10_000_000)?;
    // The kernel prints this when its console's thread gets to it, possibly after the process's end.
    let offline = format!("Memory failure: {:#x}: recovery action for dirty LRU page: Recovered", bad >> 12);
    let mut is_offline = source.lines.iter().any(|line| line.ends_with(&offline));
    let last = source.run_until("", &format!("{offline}, and then {WITNESS}"), |line| {
        is_offline |= line.ends_with(&offline);
        is_offline && alive(line).is_some()
    })?;
    let last = alive(&last).unwrap_or_default();

    let (mut there, sent, still) = source.send()?;
    let first = there.wait_for("", WITNESS, |line| line.starts_with(&format!("{CONSOLE}{WITNESS}")))?;
    let first = alive(first.trim_start_matches(CONSOLE)).unwrap_or_default();
    // No line is printed twice or left out, except for the output before the guest stood still.
    let said = source.seen.try_iter().filter(|line| alive(line).is_some());
    expect("the witness's next sign of life", &first, &(last + 10 * (1 + said.count() as u64)))?;
    there.end("", &End::PowerOff)?;
    for line in ["workload: 4 of 5 live", "workload: witness ended: all rounds done", "kernel: no complaint"]
    {
        let line = format!("{CONSOLE}{line}");
        let is_there = there.lines.contains(&line);
        expect(&line, &is_there, &true)?;
    }
    expect("errors there", &there.lines.iter().filter(|line| line.starts_with(ERROR)).count(), &0)?;
    let entry = there
        .lines
        .iter()
        .any(|line| line.starts_with(&format!("{BAD}{bad:#x}..{:#x} Migrated", bad + 4096)));
    expect("the ledger there has the page", &entry, &true)?;
    Ok(format!(
        "page {bad:#x} offline, unread; {} pages of {} sent; still for {:.1} s; witness {last} -> {first}; 4 of 5 live; before \
         that: {broken}",
        sent.pages,
        MEMORY / 4096,
        still.as_secs_f32()
    ))
}
