//! The way from an exit to the guest's handler: how long our own code has it, how long the kernel, and how long it is as
//! the guest sees it, with us and with QEMU.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use seawall::Source;
use seawall::apei::ghes::Ghes;
use seawall_events::{Exit, Vcpu as _};
use seawall_kvm::assist::Last;
use seawall_kvm::lab::{PoisonRegister, physical_address};
use seawall_kvm::{Bytes as _, GuestAddress};
use vm_memory::GuestMemoryBackend as _;

use crate::conductor::Ways;
use crate::counting::Counting;
use crate::figure::{Measured, Promise, Time, Way, median, ratio};
use crate::guest::{Guest, SOURCE, unexpected};
use crate::image::{PAGE, PAGES};
use crate::own::{Contained, Own, Poisoner, is_at_vector};
use crate::peer::{self, Qemu};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What our own code may take, of a software CPU.
const OWN_MOST: Duration = Duration::from_micros(20);
/// Our way may not be longer than QEMU's.
const PEER_MOST: f64 = 1.0;
/// How many pages a guest consumes in one round, each once.
const PAGES_OF_A_ROUND: u64 = 32;
/// How often each VMM is started for it.
const ROUNDS: usize = 3;

pub(crate) const AFTER_SEA: &str = "after a SEA exit";
pub(crate) const AFTER_SIGBUS: &str = "after SIGBUS";

/// Medians of batches, or of rounds.
type Medians = Vec<Duration>;

/// QEMU for arm64, or why there is none.
pub(crate) type Peer<'a> = std::result::Result<&'a Path, String>;

fn time(after: &'static str, name: &str, medians: &Medians, promise: Option<Promise>) -> Result<Way> {
    let time = Time::of(medians).ok_or("expected at least one batch")?;
    Ok(Way { after, name: name.into(), measured: Measured::Time(time), promise })
}

/// What one containment took.
struct Share {
    /// Of our code.
    own: Duration,
    /// Of the system calls that it made.
    calls: Duration,
}

/// How a guest that loads from bad memory again and again is contained: what our code takes of it, and its system calls.
///
/// Its vCPU is at the load, with the address of bad memory.
pub(crate) fn shares(
    guest: &mut Guest,
    after: &'static str,
    last: Last,
    (batches, repeat): (u32, u32),
) -> Result<Vec<Way>> {
    let memory = guest.vm.memory().clone();
    let mut contained = Contained::new(&memory, Ghes::new(SOURCE))?;
    let (mut own, mut calls) = (Medians::new(), Medians::new());
    let mut number = 0;
    let mut now = Duration::ZERO;
    for _ in 0..batches {
        let mut batch = (Medians::new(), Medians::new());
        for _ in 0..repeat {
            // The guard shall not take the bench for a storm.
            now += Duration::from_secs(60);
            let (share, count) = one(guest, &mut contained, last, now)?;
            batch.0.push(share.own);
            batch.1.push(share.calls);
            number = count;
            // The guest has read the record; and the page is new to the ledger the next time.
            memory.write_obj(1_u64, GuestAddress(SOURCE.base + 8))?;
            contained.ledger = seawall::ledger::Ledger::default();
            guest.report()?;
        }
        own.extend(median(&batch.0));
        calls.extend(median(&batch.1));
    }
    guest.finish_the_store()?;
    Ok(vec![
        time(
            after,
            "our own code: decide, record, ledger, inject",
            &own,
            Some(Promise::Time(OWN_MOST)),
        )?,
        time(after, &format!("the kernel, in its {number} calls"), &calls, None)?,
    ])
}

/// Runs to the exit, and contains it. Also gives how many system calls that took.
fn one(guest: &mut Guest, contained: &mut Contained, last: Last, now: Duration) -> Result<(Share, u64)> {
    let exit = guest.vcpu.run()?;
    let start = Instant::now();
    let source = match &exit {
        Exit::Sea(sea) => Some(Source::Sea(*sea)),
        Exit::Sigbus(sigbus) if sigbus.action_required => contained.source(sigbus),
        _ => None,
    };
    let source = source.ok_or_else(|| unexpected("bad memory", &exit))?;
    let ras = guest.vm.has_ras();
    let mut counting = Counting::new(&mut guest.vcpu, last, ras);
    let action = contained.contain(&mut counting, &source, now)?;
    let whole = start.elapsed();
    let (calls, number) = (counting.spent(), counting.calls());
    if !is_at_vector(&action) || contained.ledger.is_empty() {
        return Err(unexpected("the guest at its handler, and its page in the ledger", &action));
    }
    Ok((Share { own: whole.saturating_sub(calls), calls }, number))
}

/// What a reading of the clock takes: two of them are in each call's time.
pub(crate) fn clock((batches, repeat): (u32, u32)) -> Result<Way> {
    let mut medians = Medians::new();
    for _ in 0..batches {
        let times: Medians = (0..repeat).map(|_| Instant::now().elapsed()).collect();
        medians.extend(median(&times));
    }
    time("for scale", "reading the clock", &medians, None)
}

/// As the guest sees it: from before its load to its handler's first instruction.
pub(crate) fn seen_by_the_guest(peer: &Peer<'_>) -> Result<Vec<Way>> {
    let (mut sea, mut sigbus, mut peers) = (Medians::new(), Medians::new(), Medians::new());
    for _ in 0..ROUNDS {
        sea.extend(median(&own_round(poison_by_register)?.times));
        sigbus.extend(median(&own_round(|file, _| Poisoner::new(file)?.poison(PAGES_OF_A_ROUND))?.times));
        if let Ok(program) = peer {
            peers.extend(median(&peer_round(program)?.times));
        }
    }
    let name = "the guest's load to its handler";
    let mut ways = vec![time(AFTER_SEA, name, &sea, None)?, time(AFTER_SIGBUS, name, &sigbus, None)?];
    let of_peer = |name: String, measured, promise| Way { after: AFTER_SIGBUS, name, measured, promise };
    let (version, times, of_times) = match peer {
        Ok(program) => {
            let times = Measured::Time(Time::of(&peers).ok_or("expected at least one round")?);
            let of_times = ratio(&sigbus, &peers).ok_or("expected times that can be compared")?;
            (peer::version(program)?, times, Measured::Ratio(of_times))
        }
        Err(why) => ("QEMU".to_owned(), Measured::Skipped(why.clone()), Measured::Skipped(why.clone())),
    };
    ways.push(of_peer(format!("the same with {version}, ras=on"), times, None));
    ways.push(of_peer("ours to QEMU's".into(), of_times, Some(Promise::Ratio(PEER_MOST))));
    Ok(ways)
}

/// Loads of pages that `poison` made bad, from a file that is the guest's RAM and is mapped in `Own::memory`. What it
/// gives is kept until they are over.
fn own_round<T>(poison: impl FnOnce(&File, &Own) -> Result<T>) -> Result<Ways> {
    let file = tempfile::tempfile_in("/dev/shm")?;
    let own = Own::start(&file, PAGES_OF_A_ROUND)?;
    let found = own.conduct(|guest| {
        guest.touch(PAGES_OF_A_ROUND)?;
        let _bad = poison(&file, &own)?;
        let ways = guest.consume(PAGES_OF_A_ROUND)?;
        guest.power_off()?;
        Ok(ways)
    });
    // If it ended early, it knows best why.
    if found.is_ok() || own.has_ended() {
        own.end()?;
    }
    found
}

/// Lines of the lab's memory that are bad, until it is dropped: pages are not given back before.
struct BadLines {
    register: PoisonRegister,
    physical: Vec<u64>,
}

impl Drop for BadLines {
    fn drop(&mut self) {
        self.physical.iter().for_each(|address| self.register.heal(*address));
    }
}

/// The lab's machine makes the first line of each page bad.
fn poison_by_register(_: &File, own: &Own) -> Result<BadLines> {
    let mut bad = BadLines { register: PoisonRegister::open()?, physical: Vec::new() };
    for page in 0..PAGES_OF_A_ROUND {
        let host = own.memory.get_host_address(GuestAddress(PAGES + page * PAGE))?;
        let physical = physical_address(host as u64)?;
        bad.register.poison(physical, 64)?;
        bad.physical.push(physical);
    }
    Ok(bad)
}

fn peer_round(program: &Path) -> Result<Ways> {
    let mut qemu = Qemu::start(program, PAGES_OF_A_ROUND)?;
    qemu.tell_sources()?;
    qemu.conduct(|guest| guest.touch(PAGES_OF_A_ROUND))?;
    Poisoner::new(qemu.file())?.poison(PAGES_OF_A_ROUND)?;
    qemu.conduct(|guest| guest.consume(PAGES_OF_A_ROUND))
}
