//! The machine's CPU, running the bench images of `seawall-guest`; QEMU runs the same bytes, and must say the same.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use seawall::{Containment, Now, Rules, StormGuard};
use seawall_events::Reg;
use seawall_guest::Image;
use seawall_guest::bench::{BenchLoop, SEA_TARGET, alu_loop, load_store_loop, sea_loop};
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_machine::{Config, Vm};

use super::cost::{Cost, Stopwatch};
use super::peer::{self, Qemu};
use super::{Measure, Promise, Times, Trial};

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
pub(super) fn alu(qemus: &[Qemu]) -> Result<Trial<'_>, String> {
    instructions(ALU, Times::of_cpu_time(0.95), qemus, ALU_ITERATIONS, alu_loop)
}

/// Guest instructions per second of loads and stores through translation tables.
pub(super) fn load_store(qemus: &[Qemu]) -> Result<Trial<'_>, String> {
    instructions(LOAD_STORE, Times::of_cpu_time(1.7), qemus, LOAD_STORE_ITERATIONS, load_store_loop)
}

fn instructions<'a>(
    name: &'static str,
    promise: Times,
    qemus: &'a [Qemu],
    iterations: Iterations,
    image: fn(u64) -> Image<BenchLoop>,
) -> Result<Trial<'a>, String> {
    let millions = f64::from(image(1).layout.instructions) / 1e6;
    // QEMU is so much faster that it gets more to do; to the shorter run both must say the same.
    let [few, many] = iterations;
    let (_, expected) = run(&image(few.into()), None)?;
    let peers = qemus.iter().map(|qemu| {
        let expected = expected.clone();
        let run = move |count| {
            let (cost, console) = qemu.run(&image(count).bytes)?;
            let is_same = count != u64::from(few) || console == expected;
            if is_same { Ok(cost) } else { Err(format!("said {console:?}, the machine {expected:?}")) }
        };
        (qemu.name.clone(), rate([few, 5 * many], millions, run))
    });
    let peers = peers.collect();
    let ours = rate(iterations, millions, move |count| run(&image(count), None).map(|(cost, _)| cost));
    Ok(Trial { name, unit: "M/s", promise: Promise::RateOfPeers(promise), ours, peers })
}

/// SEAs per second: the access, the exit to the host, decision and injection, the guest's handler and its ERET.
///
/// QEMU's external aborts come from a hole and go straight to the guest: there is no host in between.
pub(super) fn sea(qemus: &[Qemu]) -> Trial<'_> {
    let said = |count: u64, esr: &str| format!("bench: sea_loop iterations={count} seas={count} esr={esr}\n");
    let checked = |(cost, console): (Cost, String), expected: String| {
        if console == expected { Ok(cost) } else { Err(format!("said {console:?}")) }
    };
    let ours = rate(SEA_ITERATIONS, 1e-6, move |count| {
        checked(run(&sea_loop(count, SEA_TARGET), Some(SEA_TARGET))?, said(count, "0x96000210"))
    });
    let peers = qemus.iter().map(|qemu| {
        let run =
            move |count| checked(qemu.run(&sea_loop(count, peer::HOLE).bytes)?, said(count, "0x96000010"));
        (qemu.name.clone(), rate(SEA_ITERATIONS, 1e-6, run))
    });
    let peers = peers.collect();
    Trial { name: SEA, unit: "M/s", promise: Promise::RateOfPeers(Times::of_cpu_time(2.0)), ours, peers }
}

/// Iterations per second times `scale`, from the difference of a longer and a shorter run.
fn rate<'a>(
    [few, many]: Iterations,
    scale: f64,
    mut run: impl FnMut(u64) -> Result<Cost, String> + 'a,
) -> Measure<'a> {
    Box::new(move || {
        let short = run(few.into())?;
        let difference = run(many.into())? - short;
        if difference.cpu <= 0.0 || difference.wall <= 0.0 {
            return Err("the longer run was not longer".to_owned());
        }
        Ok(difference.map(|seconds| f64::from(many - few) * scale / seconds))
    })
}

/// Runs an image on the machine to its SYSTEM_OFF; gives the cost and the console. The line at `poison` is bad,
/// and each SEA exit is contained by the policy `full`: decided, injected, and read back.
fn run(image: &Image<BenchLoop>, poison: Option<u64>) -> Result<(Cost, String), String> {
    run_on(image, poison).map_err(|error| error.to_string())
}

fn run_on(
    image: &Image<BenchLoop>,
    poison: Option<u64>,
) -> Result<(Cost, String), Box<dyn std::error::Error>> {
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
    let start = Stopwatch::start();
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
    Ok((start.stop(), String::from_utf8_lossy(&console).into_owned()))
}
