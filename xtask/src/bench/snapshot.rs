//! Going back to a snapshot.

use super::{Figure, Promise, median};
use seawall_events::Reg;
use seawall_guest::bench::load_store_loop;
use seawall_inject::{Exit, Inject as _};
use seawall_machine::{Config, RAM_BASE, Vm};
use std::time::{Duration, Instant};

pub(crate) const RESTORE: &str = "restore, 1000 dirty pages of 512 MiB";
pub(crate) const RATE: &str = "restore and run 10,000 instructions";

const PAGE: usize = 4096;
/// Dirty pages, and how many pages lie between two of them: none shares a page of the host's tables' cache line with the
/// next.
const PAGES: usize = 1000;
const STEP: usize = 16;
/// What the guest touched: 100 MiB.
const TOUCHED: usize = 100 << 20;
/// Restores in one measurement.
const RESTORES: u32 = 20;
/// How long one measurement of the rate takes.
const PERIOD: Duration = Duration::from_millis(300);

/// Milliseconds that a restore takes; the peer copies as many pages, and does nothing else.
pub(crate) fn restore(repeat: u32) -> Figure {
    Figure {
        name: RESTORE,
        unit: "ms",
        value: restores(repeat).map_err(|error| error.to_string()),
        promise: Promise::AtMost(1.0),
        peer: Some(("memcpy", copies(repeat))),
    }
}

fn restores(repeat: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let mut vm = Vm::new(Config { memory_size: 512 << 20, ..Config::default() })?;
    vm.memory_mut().store(RAM_BASE, &noise(TOUCHED))?;
    let snapshot = vm.snapshot()?;
    let value = median(repeat, || {
        let mut spent = Duration::ZERO;
        for _ in 0..RESTORES {
            for page in 0..PAGES {
                let pa = RAM_BASE + (page * STEP * PAGE) as u64;
                vm.memory_mut().store(pa, &[1]).map_err(|error| error.to_string())?;
            }
            let start = Instant::now();
            vm.restore(&snapshot).map_err(|error| error.to_string())?;
            spent += start.elapsed();
        }
        Ok(spent.as_secs_f64() * 1e3 / f64::from(RESTORES))
    })?;
    Ok(value)
}

fn copies(repeat: u32) -> Result<f64, String> {
    let (from, mut to) = (noise(PAGES * STEP * PAGE), vec![1; PAGES * STEP * PAGE]);
    median(repeat, || {
        let mut spent = Duration::ZERO;
        for _ in 0..RESTORES {
            let start = Instant::now();
            for (to, from) in to.chunks_mut(STEP * PAGE).zip(from.chunks(STEP * PAGE)) {
                to[..PAGE].copy_from_slice(&from[..PAGE]);
            }
            spent += start.elapsed();
            std::hint::black_box(&to);
        }
        Ok(spent.as_secs_f64() * 1e3 / f64::from(RESTORES))
    })
}

/// Bytes that no page has all zero.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect()
}

/// Restores with a run of 10,000 instructions each, per second, on one core: loads and stores with the MMU on.
pub(crate) fn rate(repeat: u32) -> Figure {
    Figure {
        name: RATE,
        unit: "/s",
        value: rates(repeat).map_err(|error| error.to_string()),
        promise: Promise::AtLeast(5000.0),
        peer: None,
    }
}

fn rates(repeat: u32) -> Result<f64, Box<dyn std::error::Error>> {
    const INSTRUCTIONS: u64 = 10_000;
    let image = load_store_loop(u64::from(u32::MAX));
    let mut vm = Vm::new(Config { memory_size: 512 << 20, ..Config::default() })?;
    vm.memory_mut().store(image.load_address, &image.bytes)?;
    vm.vcpu(0)?.set_reg(Reg::Pc, image.entry)?;
    vm.set_budget(Some(1_000_000));
    if vm.run()?.1 != Exit::Intr {
        return Err("the guest ended too early".into());
    }
    let snapshot = vm.snapshot()?;
    let value = median(repeat, || {
        let (start, mut runs) = (Instant::now(), 0);
        while start.elapsed() < PERIOD {
            vm.restore(&snapshot).map_err(|error| error.to_string())?;
            vm.set_budget(Some(INSTRUCTIONS));
            let (_, exit) = vm.run().map_err(|error| error.to_string())?;
            if exit != Exit::Intr || vm.instructions() != 1_000_000 + INSTRUCTIONS {
                return Err(format!("it did not run on: {exit:?}"));
            }
            runs += 1;
        }
        Ok(f64::from(runs) / start.elapsed().as_secs_f64())
    })?;
    Ok(value)
}
