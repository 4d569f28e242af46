//! A bare-metal guest with five bad pages, each bad in another way.

use std::time::SystemTime;

use seawall::ledger::{Cause, Ledger};
use seawall_guest::{migrant, migrant_page};
use seawall_kvm::{Bytes as _, GuestAddress};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, KvmMachine};

use super::destination::{BAD, CONSOLE, ERROR};
use super::source::{Healed, Source, Watch, poison};
use super::{Verdict, expect, text};
use crate::Transcript;

const PAGE: u64 = 4096;
const MEMORY: u64 = 64 << 20;

/// | page | bad by | in the ledger |
/// |---|---|---|
/// | 1 | the poison register; the guest met it before | yes |
/// | 2 | the poison register | yes |
/// | 3 | MADV_HWPOISON | yes |
/// | 4 | the poison register, unknown to everybody | no: found by the transfer |
/// | 5 | MADV_HWPOISON | no: found by the transfer |
/// | 6 | | no |
const KNOWN: [u64; 3] = [1, 2, 3];
const FOUND: [u64; 2] = [4, 5];
const GOOD: u64 = 6;
/// The time at which 2 and 3 went bad: seconds since 1970.
const THEN: u64 = 1_700_000_000;

/// A load at EL1 by an SEA exit: EA and SET from the hardware. SIGBUS has no syndrome.
const BY_SEA: &str = "96000210";
const BY_SIGBUS: &str = "96000010";

fn says(page: u64, esr: &str) -> String {
    format!("migrant: page {page}: abort esr=0x{esr} far=0x{:016x}", migrant_page(page))
}

/// Bare metal: registers, memory and clock are transferred; bad pages are bad at the destination, and nobody
/// read them; the connection may break.
///
/// # Errors
/// The wrong result.
pub fn bare_metal(transcript: &Transcript) -> Verdict {
    let _healed = Healed;
    let mut source = start(transcript)?;
    let met = source.run_until("1", "page 1", |line| line.contains("page 1"))?;
    expect("page 1 at the source", met.as_str(), &says(1, BY_SEA))?;
    for page in [2, 3] {
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(THEN);
        source.machine.ledger().insert(migrant_page(page)..migrant_page(page) + PAGE, Cause::Found, then);
    }
    expect("pages known", &source.machine.ledger().with(Ledger::pages), &(KNOWN.len() as u64))?;

    let broken = source.send_to_nobody(10_000)?;
    let here = source.run_until("v", "registers", |line| line.contains("registers"))?;
    look(&here)?;

    let (mut there, sent, still) = source.send()?;
    // Found by this transfer, or by the broken one.
    for page in FOUND {
        let entry =
            source.machine.ledger().with(|ledger| ledger.get(migrant_page(page))).map(|bad| bad.cause);
        expect("the ledger's word for what was found", &entry, &Some(Cause::Found))?;
    }
    expect("bad pages sent", &sent.bad, &5)?;
    for page in [1, 2, 3, 4, 5] {
        let said = there.wait_for(&page.to_string(), "a page", |line| {
            line.starts_with(&format!("{CONSOLE}migrant: page"))
        })?;
        expect("at the destination", said.as_str(), &format!("{CONSOLE}{}", says(page, BY_SIGBUS)))?;
    }
    let said = there.wait_for(&GOOD.to_string(), "the good page", |line| {
        line.starts_with(&format!("{CONSOLE}migrant: page"))
    })?;
    expect("a good page", said.as_str(), &format!("{CONSOLE}migrant: page 6: value 0x1122334455667788"))?;
    let said = there.wait_for("v", "registers", |line| line.contains("registers"))?;
    look(said.trim_start_matches(CONSOLE))?;
    there.end("q", &End::PowerOff)?;

    let ledger: Vec<&String> = there.lines.iter().filter(|line| line.starts_with(BAD)).collect();
    expect("entries of the ledger there", &ledger.len(), &5)?;
    expect("an entry there", ledger[1].as_str(), &format!("{BAD}0x40420000..0x40421000 Migrated {THEN}"))?;
    let errors = there.lines.iter().filter(|line| line.starts_with(ERROR)).count();
    expect("errors contained there", &errors, &5)?;
    Ok(format!(
        "5 bad pages went over, 3 of them unread, 2 found on the way; {} pages read; still for {:.1} s; all 5 abort there; \
         before that: {broken}",
        sent.pages,
        still.as_secs_f32()
    ))
}

fn start(transcript: &Transcript) -> Result<Source, String> {
    let guest =
        Guest { kernel: Kernel::Flat(migrant()), address: None, initrd: None, command_line: String::new() };
    let (watch, seen, _) = Watch::new(|_| None, transcript);
    let machine = KvmMachine::new(Config::new(MEMORY), &guest, watch).map_err(text)?;
    let memory = machine.memory().clone();
    for page in 1..=GOOD {
        let value = 0x1122_3344_5566_7788_u64.to_le_bytes();
        memory.write_slice(&value, GuestAddress(migrant_page(page))).map_err(text)?;
    }
    // First, because it splits huge pages, and the host's kernel then reads them (`memcmp_pages`): a bad line
    // that it does not know would bring it down.
    for page in [3, 5] {
        machine.vm().hwpoison(migrant_page(page), PAGE).map_err(text)?;
    }
    for page in [1, 2, 4] {
        poison(&memory, migrant_page(page))?;
    }
    Ok(Source { machine, seen, lines: Vec::new(), transcript: transcript.clone() })
}

/// Checks the guest's report on itself.
fn look(said: &str) -> Result<(), String> {
    let verdict = said.split(", polls").next().unwrap_or_default();
    expect("the guest", verdict, "migrant: registers ok, memory ok, clock ok")
}
