//! Going back to a snapshot.

use seawall_events::Reg;
use seawall_guest::bench::load_store_loop;
use seawall_inject::{Exit, Inject as _};
use seawall_machine::{Config, RAM_BASE, Snapshot, Vm};

use super::cost::{Cost, Stopwatch};
use super::{Measure, Promise, Times, Trial};

pub(crate) const RESTORE: &str = "restore, 1000 dirty pages of 512 MiB";
pub(crate) const RATE: &str = "restore and run 10,000 instructions";
pub(crate) const THREADS: &str = "the same on two threads, machines of one snapshot";

const PAGE: usize = 4096;
/// Dirty pages, and how many pages lie between two of them: none shares a page of the host's tables' cache line with the
/// next.
const PAGES: usize = 1000;
const STEP: usize = 16;
/// What the guest touched: 100 MiB.
const TOUCHED: usize = 100 << 20;
/// Restores in one measurement.
const RESTORES: u32 = 20;
/// Runs of 10,000 instructions in one measurement.
const RUNS: u32 = 50_000;

/// Milliseconds that a restore takes; the peer copies as many pages, and does nothing else.
pub(super) fn restore() -> Result<Trial<'static>, String> {
    let peers = vec![("memcpy".to_owned(), copies())];
    Ok(Trial { name: RESTORE, unit: "ms", promise: Promise::AtMost(1.0), ours: restores()?, peers })
}

fn restores() -> Result<Measure<'static>, String> {
    let mut vm =
        Vm::new(Config { memory_size: 512 << 20, ..Config::default() }).map_err(|error| text(&error))?;
    vm.memory_mut().store(RAM_BASE, &noise(TOUCHED)).map_err(|error| text(&error))?;
    let snapshot = vm.snapshot().map_err(|error| text(&error))?;
    Ok(Box::new(move || {
        let mut spent = Cost::default();
        for _ in 0..RESTORES {
            for page in 0..PAGES {
                let pa = RAM_BASE + (page * STEP * PAGE) as u64;
                vm.memory_mut().store(pa, &[1]).map_err(|error| text(&error))?;
            }
            let start = Stopwatch::start();
            vm.restore(&snapshot).map_err(|error| text(&error))?;
            spent = spent + start.stop();
        }
        Ok(spent.map(|seconds| seconds * 1e3 / f64::from(RESTORES)))
    }))
}

fn copies() -> Measure<'static> {
    let (from, mut to) = (noise(PAGES * STEP * PAGE), vec![1; PAGES * STEP * PAGE]);
    Box::new(move || {
        let mut spent = Cost::default();
        for _ in 0..RESTORES {
            let start = Stopwatch::start();
            for (to, from) in to.chunks_mut(STEP * PAGE).zip(from.chunks(STEP * PAGE)) {
                to[..PAGE].copy_from_slice(&from[..PAGE]);
            }
            spent = spent + start.stop();
            std::hint::black_box(&to);
        }
        Ok(spent.map(|seconds| seconds * 1e3 / f64::from(RESTORES)))
    })
}

fn text(error: &impl std::error::Error) -> String {
    error.to_string()
}

/// Bytes that no page has all zero.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect()
}

/// Restores with a run of 10,000 instructions each, per second, on one core: loads and stores with the MMU on.
pub(super) fn rate() -> Result<Trial<'static>, String> {
    let snapshot = origin()?;
    let promise = Promise::AtLeast(40_000.0);
    Ok(Trial { name: RATE, unit: "/s", promise, ours: rates(&snapshot, 1)?, peers: Vec::new() })
}

/// The same in two machines on a thread each: by CPU time, as if each thread had a core that it never waits on; by wall time,
/// as it is.
pub(super) fn threads() -> Result<Trial<'static>, String> {
    let snapshot = origin()?;
    let peers = vec![("one thread".to_owned(), rates(&snapshot, 1)?)];
    let promise = Promise::RateOfPeers(Times { cpu: 1.8, wall: Some(1.8) });
    Ok(Trial { name: THREADS, unit: "/s", promise, ours: rates(&snapshot, 2)?, peers })
}

/// Instructions before the snapshot.
const BEFORE: u64 = 1_000_000;

/// A machine in the middle of its work.
fn origin() -> Result<Snapshot, String> {
    let image = load_store_loop(u64::from(u32::MAX));
    let mut vm =
        Vm::new(Config { memory_size: 512 << 20, ..Config::default() }).map_err(|error| text(&error))?;
    vm.memory_mut().store(image.load_address, &image.bytes).map_err(|error| text(&error))?;
    vm.vcpu(0).map_err(|error| text(&error))?.set_reg(Reg::Pc, image.entry).map_err(|error| text(&error))?;
    vm.set_budget(Some(BEFORE));
    if vm.run().map_err(|error| text(&error))?.1 != Exit::Intr {
        return Err("the guest ended too early".to_owned());
    }
    vm.snapshot().map_err(|error| text(&error))
}

/// A machine of the snapshot for each thread, which all together make so many runs per second.
fn rates(snapshot: &Snapshot, threads: u32) -> Result<Measure<'static>, String> {
    let machine = |_| snapshot.machine().map_err(|error| text(&error));
    let mut machines = (0..threads).map(machine).collect::<Result<Vec<_>, _>>()?;
    let snapshot = snapshot.clone();
    Ok(Box::new(move || {
        let start = Stopwatch::start();
        std::thread::scope(|scope| {
            let runs: Vec<_> =
                machines.iter_mut().map(|vm| scope.spawn(|| many_runs(vm, &snapshot))).collect();
            runs.into_iter()
                .try_for_each(|run| run.join().unwrap_or_else(|_| Err("a thread failed".to_owned())))
        })?;
        let Cost { cpu, wall } = start.stop();
        let runs = f64::from(RUNS * threads);
        Ok(Cost { cpu: runs / (cpu / f64::from(threads)), wall: runs / wall })
    }))
}

fn many_runs(vm: &mut Vm, snapshot: &Snapshot) -> Result<(), String> {
    const INSTRUCTIONS: u64 = 10_000;
    for _ in 0..RUNS {
        vm.restore(snapshot).map_err(|error| text(&error))?;
        vm.set_budget(Some(INSTRUCTIONS));
        let (_, exit) = vm.run().map_err(|error| text(&error))?;
        if exit != Exit::Intr || vm.instructions() != BEFORE + INSTRUCTIONS {
            return Err(format!("it did not run on: {exit:?}"));
        }
    }
    Ok(())
}
