//! The path from an exit to the guest's handler: the shares of our own code and of the kernel, and its
//! duration as the guest sees it, with Seawall and with QEMU.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use seawall::Source;
use seawall::apei::ghes::Ghes;
use seawall::ledger::Ledger;
use seawall_inject::{Exit, Exited, GuestKind as Kind, Injector, Last, Vcpu as _, Way as How};
use seawall_kvm::{Bytes as _, GuestAddress};
use seawall_lab::peer::conductor::Ways;
use seawall_lab::peer::image::{PAGE, PAGES};
use seawall_lab::peer::qemu::{self, Qemu};
use seawall_lab_machine::{PoisonRegister, physical_address};
use vm_memory::GuestMemoryBackend as _;

use crate::counting::Counting;
use crate::figure::{Measured, Promise, Time, Way, median, ratio};
use crate::guest::{Guest, SOURCE, unexpected};
use crate::own::{Contained, Own, Poisoner, is_at_vector};
use crate::silent::Silent;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The upper bound for our own code: decide, record, ledger, inject. It is measured without calls, on a vCPU
/// that answers at once. Two effects would distort a measurement between timed calls: the excess of two
/// readings of the clock, and the loss of all software translations in the lab's CPU at each switch to and
/// from a guest, which no CPU with VMIDs has. Both are shown beside it.
const OWN_MOST: Duration = Duration::from_micros(20);
/// The upper bound of the ratio of our path to QEMU's.
const PEER_MOST: f64 = 1.0;
/// The number of pages that a guest consumes in one round, each once.
const PAGES_OF_A_ROUND: u64 = 32;
/// The number of starts of each VMM.
const ROUNDS: usize = 3;

pub(crate) const AFTER_SEA: &str = "after a SEA exit";
pub(crate) const AFTER_SIGBUS: &str = "after SIGBUS";

/// Medians of batches, or of rounds.
type Medians = Vec<Duration>;

/// QEMU for arm64, or the reason why it is missing.
pub(crate) type Peer<'a> = std::result::Result<&'a Path, String>;

fn time(after: &'static str, name: &str, medians: &Medians, promise: Option<Promise>) -> Result<Way> {
    let time = Time::of(medians).ok_or("expected at least one batch")?;
    Ok(Way { after, name: name.into(), measured: Measured::Time(time), promise })
}

/// The times of one containment, without the readings of the clock.
struct Share {
    /// The time of our code.
    own: Duration,
    /// The time of its system calls.
    calls: Duration,
    number: u64,
}

/// A guest that loads from bad memory again and again.
struct Loads<'a> {
    guest: &'a mut Guest,
    contained: Contained,
    last: Last,
    /// The time of a reading of the clock: there are two for each call, one of them in the call's time.
    clock: Duration,
    now: Duration,
}

fn source(exit: &Exit) -> Result<Source> {
    match exit {
        Exit::Sea(sea) => Ok(Source::Sea(*sea)),
        Exit::Sigbus(sigbus) => Ok(Source::Sigbus(*sigbus)),
        _ => Err(unexpected("bad memory", exit)),
    }
}

impl Loads<'_> {
    /// Runs to the exit, contains it, and lets the guest return to its load.
    fn after_the_exit(&mut self) -> Result<Share> {
        let exit = self.guest.vcpu.run()?;
        let share = self.contain(&exit)?;
        self.guest.report()?;
        Ok(share)
    }

    /// Contains the same exit again, without a run in between.
    fn once_more(&mut self, exit: &Exit) -> Result<Share> {
        self.guest.at_the_load(0)?;
        self.contain(exit)
    }

    /// The time of our code without system calls: the mean of `repeat` containments in a row, with one
    /// reading of the clock.
    fn silently(&mut self, exit: &Exit, repeat: u32) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..repeat {
            self.now += Duration::from_secs(60);
            let source = source(exit)?;
            let silent = Silent::at_the_load();
            let injector = Injector { guest: Kind::Aarch64, ras: true, way: How::Assisted };
            let mut vcpu = Exited::new(&silent, injector, self.last);
            let action = self.contained.contain(&mut vcpu, &source, self.now)?;
            if !is_at_vector(&action) || self.contained.ledger.with(Ledger::is_empty) {
                return Err(unexpected("the guest at its handler, and its page in the ledger", &action));
            }
            self.done()?;
        }
        Ok(start.elapsed() / repeat)
    }

    /// Completes a round: the guest has read the record, and the next page is new to the ledger.
    fn done(&mut self) -> Result<()> {
        self.contained.memory.write_obj(1_u64, GuestAddress(SOURCE.base + 8))?;
        self.contained.ledger.replace(Ledger::default());
        Ok(())
    }

    fn contain(&mut self, exit: &Exit) -> Result<Share> {
        // The guard must not take the bench for a storm.
        self.now += Duration::from_secs(60);
        let injector = self.guest.vcpu.injector()?;
        let start = Instant::now();
        let source = source(exit)?;
        let counting = Counting::new(&self.guest.vcpu);
        let mut vcpu = Exited::new(&counting, injector, self.last);
        let action = self.contained.contain(&mut vcpu, &source, self.now)?;
        let whole = start.elapsed();
        let (calls, number) = (counting.spent(), counting.calls());
        if !is_at_vector(&action) || self.contained.ledger.with(Ledger::is_empty) {
            return Err(unexpected("the guest at its handler, and its page in the ledger", &action));
        }
        self.done()?;
        let clock = self.clock * number as u32;
        let own = whole.saturating_sub(calls + clock + self.clock);
        Ok(Share { own, calls: calls.saturating_sub(clock), number })
    }
}

/// Batches of containments: the time of our code for one, and of its system calls.
#[derive(Default)]
struct Batches {
    own: Medians,
    calls: Medians,
    number: u64,
}

impl Batches {
    fn add(&mut self, repeat: u32, mut one: impl FnMut() -> Result<Share>) -> Result<()> {
        let shares = (0..repeat).map(|_| one()).collect::<Result<Vec<Share>>>()?;
        self.own.extend(median(&shares.iter().map(|share| share.own).collect::<Medians>()));
        self.calls.extend(median(&shares.iter().map(|share| share.calls).collect::<Medians>()));
        self.number = shares.last().map_or(self.number, |share| share.number);
        Ok(())
    }
}

/// The shares of our code and of the kernel in a containment: right after the exit, and again without a run
/// in between.
///
/// The vCPU is at the load, with the address of bad memory.
pub(crate) fn shares(
    guest: &mut Guest,
    after: &'static str,
    last: Last,
    (batches, repeat): (u32, u32),
) -> Result<Vec<Way>> {
    let contained = Contained::new(guest.vm.memory(), Ghes::new(SOURCE))?;
    let clock = reading((batches, repeat));
    let clock = median(&clock).ok_or("expected at least one batch")?;
    let mut loads = Loads { guest, contained, last, clock, now: Duration::ZERO };
    let (mut cold, mut warm, mut silent) = (Batches::default(), Batches::default(), Medians::new());
    for _ in 0..batches {
        cold.add(repeat, || loads.after_the_exit())?;
        loads.guest.finish_the_store()?;
        loads.guest.at_the_load(0)?;
        let exit = loads.guest.vcpu.run()?;
        warm.add(repeat, || loads.once_more(&exit))?;
        silent.push(loads.silently(&exit, repeat)?);
        loads.guest.at_the_load(0)?;
    }
    let calls = |when: &str| format!("the kernel, in its {} calls, {when}", cold.number);
    let most = Some(Promise::Time(OWN_MOST));
    Ok(vec![
        time(after, "our own code, without a call", &silent, most)?,
        time(after, "our own code, between its calls", &warm.own, None)?,
        time(after, "our own code, right after the exit", &cold.own, None)?,
        time(after, &calls("by themselves"), &warm.calls, None)?,
        time(after, &calls("right after the exit"), &cold.calls, None)?,
    ])
}

/// The time of a reading of the clock.
fn reading((batches, repeat): (u32, u32)) -> Medians {
    let batch = |_| median(&(0..repeat).map(|_| Instant::now().elapsed()).collect::<Medians>());
    (0..batches).filter_map(batch).collect()
}

/// The same as a figure of its own: the others do not include it.
pub(crate) fn clock(sizes: (u32, u32)) -> Result<Way> {
    time("for scale", "reading the clock", &reading(sizes), None)
}

/// The path as the guest sees it: from before its load to its handler's first instruction.
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
            (qemu::version(program)?, times, Measured::Ratio(of_times))
        }
        Err(why) => ("QEMU".to_owned(), Measured::Skipped(why.clone()), Measured::Skipped(why.clone())),
    };
    ways.push(of_peer(format!("the same with {version}, ras=on"), times, None));
    ways.push(of_peer("ours to QEMU's".into(), of_times, Some(Promise::Ratio(PEER_MOST))));
    Ok(ways)
}

/// Loads from pages that `poison` made bad, in a file that is the guest's RAM and is mapped in `Own::memory`.
/// The result of `poison` is kept until the loads are over.
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
    // If it ended early, its own error tells best why.
    if found.is_ok() || own.has_ended() {
        own.end()?;
    }
    found
}

/// Bad lines of the lab's memory, until this is dropped: pages are not given back before.
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
    let mut qemu = Qemu::start(Command::new(program), PAGES_OF_A_ROUND)?;
    qemu.tell_sources()?;
    qemu.conduct(|guest| guest.touch(PAGES_OF_A_ROUND))?;
    Poisoner::new(qemu.file())?.poison(PAGES_OF_A_ROUND)?;
    qemu.conduct(|guest| guest.consume(PAGES_OF_A_ROUND))
}
