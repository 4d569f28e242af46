//! The machine's CPU, running the bench images of `seawall-guest`; QEMU runs the same bytes, and must say the same.

use super::{Figure, Promise, median, peer};
use seawall::{Containment, Now, Rules, StormGuard};
use seawall_events::Reg;
use seawall_guest::Image;
use seawall_guest::bench::{BenchLoop, SEA_TARGET, alu_loop, load_store_loop, sea_loop};
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_machine::{Config, Vm};
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

/// The PL011, as far as the images see it: its data register first, and UARTFR with both FIFOs empty.
const UART: Range<u64> = 0x0900_0000..0x0900_1000;
const FR: u64 = 0x18;
const EMPTY: u8 = 0x90;

pub(crate) const ALU: &str = "ALU loop";
pub(crate) const LOAD_STORE: &str = "load/store loop, MMU on";
pub(crate) const SEA: &str = "SEAs taken, with ERET back";

/// Iterations of the shorter run and of the longer.
type Iterations = [u32; 2];

const ALU_ITERATIONS: Iterations = [2_000_000, 32_000_000];
const LOAD_STORE_ITERATIONS: Iterations = [1_000_000, 21_000_000];
const SEA_ITERATIONS: Iterations = [100_000, 1_100_000];

/// Guest instructions per second in registers.
pub(crate) fn alu(repeat: u32) -> Figure {
    instructions(ALU, Promise::AtLeast(150.0), repeat, ALU_ITERATIONS, alu_loop)
}

/// Guest instructions per second of loads and stores through translation tables.
pub(crate) fn load_store(repeat: u32) -> Figure {
    instructions(LOAD_STORE, Promise::AtLeast(100.0), repeat, LOAD_STORE_ITERATIONS, load_store_loop)
}

fn instructions(
    name: &'static str,
    promise: Promise,
    repeat: u32,
    iterations: Iterations,
    image: fn(u64) -> Image<BenchLoop>,
) -> Figure {
    let millions = f64::from(image(1).layout.instructions) / 1e6;
    // QEMU is so much faster that it gets more to do; to the shorter run both must say the same.
    let [few, many] = iterations;
    let expected = run(&image(few.into()), None);
    let value = rate(repeat, iterations, |count| run(&image(count), None).map(|(time, _)| time));
    let qemu = rate(repeat, [few, 5 * many], |count| {
        let (time, console) = peer::run(&image(count).bytes)?;
        let (_, expected) = expected.as_ref().map_err(Clone::clone)?;
        let is_same = count != u64::from(few) || console == *expected;
        if is_same { Ok(time) } else { Err(format!("said {console:?}, the machine {expected:?}")) }
    });
    Figure {
        name,
        unit: "M/s",
        value: value.map(|rate| rate * millions),
        promise,
        peer: Some((peer::QEMU, qemu.map(|rate| rate * millions))),
    }
}

/// SEAs per second: the access, the exit to the host, decision and injection, the guest's handler and its ERET.
///
/// QEMU's external aborts come from a hole and go straight to the guest: there is no host in between.
pub(crate) fn sea(repeat: u32) -> Figure {
    let said = |count: u64, esr: &str| format!("bench: sea_loop iterations={count} seas={count} esr={esr}\n");
    let checked = |(time, console): (Duration, String), expected: String| {
        if console == expected { Ok(time) } else { Err(format!("said {console:?}")) }
    };
    let value = rate(repeat, SEA_ITERATIONS, |count| {
        checked(run(&sea_loop(count, SEA_TARGET), Some(SEA_TARGET))?, said(count, "0x96000210"))
    });
    let qemu = rate(repeat, SEA_ITERATIONS, |count| {
        checked(peer::run(&sea_loop(count, peer::HOLE).bytes)?, said(count, "0x96000010"))
    });
    Figure {
        name: SEA,
        unit: "M/s",
        value: value.map(|rate| rate / 1e6),
        promise: Promise::AtLeast(2.0),
        peer: Some((peer::QEMU, qemu.map(|rate| rate / 1e6))),
    }
}

/// Iterations per second, from the difference of a longer and a shorter run, in the median.
fn rate(
    repeat: u32,
    [few, many]: Iterations,
    mut run: impl FnMut(u64) -> Result<Duration, String>,
) -> Result<f64, String> {
    median(repeat, || {
        let short = run(few.into())?;
        let long = run(many.into())?;
        let difference = long.checked_sub(short).filter(|difference| !difference.is_zero());
        let difference = difference.ok_or_else(|| "the longer run was not longer".to_owned())?;
        Ok(f64::from(many - few) / difference.as_secs_f64())
    })
}

/// Runs an image on the machine to its SYSTEM_OFF; gives the wall time and the console. The line at `poison` is bad,
/// and each SEA exit is contained by the policy `full`: decided, injected, and read back.
fn run(image: &Image<BenchLoop>, poison: Option<u64>) -> Result<(Duration, String), String> {
    run_on(image, poison).map_err(|error| error.to_string())
}

fn run_on(
    image: &Image<BenchLoop>,
    poison: Option<u64>,
) -> Result<(Duration, String), Box<dyn std::error::Error>> {
    let mut vm = Vm::new(Config::default())?;
    vm.memory_mut().store(image.load_address, &image.bytes)?;
    if let Some(pa) = poison {
        vm.poison(pa..pa + 1)?;
    }
    // The same abort a million times is no storm here: each is noted at a time of its own.
    let storm = StormGuard::new(StormGuard::MEMORY, Duration::ZERO);
    let mut containment = Containment::new(Rules::FULL).with_storm_guard(storm);
    let mut vcpu = vm.vcpu(0)?;
    vcpu.set_reg(Reg::Pc, image.entry)?;
    let mut console = Vec::new();
    let start = Instant::now();
    loop {
        match vcpu.run()? {
            Exit::Sea(sea) => {
                let running = Duration::from_nanos(vcpu.instructions());
                let now = Now { vcpu: 0, running, time: SystemTime::UNIX_EPOCH, exited: None };
                if let Some(reason) = containment.contain(&mut vcpu, &sea.into(), None, &now)?.stop() {
                    return Err(reason.into());
                }
            }
            Exit::Mmio(access) if UART.contains(&access.phys_addr) => {
                if access.is_write && access.phys_addr == UART.start {
                    console.extend(access.data.first());
                } else if access.phys_addr == UART.start + FR {
                    vcpu.answer_mmio([EMPTY, 0, 0, 0, 0, 0, 0, 0]);
                }
            }
            Exit::SystemEvent(SystemEvent::Shutdown) => break,
            exit => return Err(format!("unexpected exit: {exit:x?}").into()),
        }
    }
    Ok((start.elapsed(), String::from_utf8_lossy(&console).into_owned()))
}
