//! The cases, counted and timed.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use seawall::{Action, Containment, Delivery, Now, Rules, Source};
use seawall_arm::Target;
use seawall_events::kernel::AbortDelivery;
use seawall_events::{Abi, Reg, SeaExit, VcpuEvents};
use seawall_inject::{Exited, Inject as _, KvmVcpu as _, Last, Vcpu as _, Way};
use seawall_kvm::Vcpu;

use crate::counting::Counting;
use crate::figure::{Figure, Report, Time, median, ratio};
use crate::guest::{Guest, unexpected};
use crate::way::{self, AFTER_SEA, AFTER_SIGBUS, Peer};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// An injection.
struct Case {
    name: &'static str,
    events: VcpuEvents,
    /// `ESR_EL1` before it.
    old_esr: u64,
    /// `ESR_EL1` after it.
    esr: u64,
}

const DATA: VcpuEvents = VcpuEvents {
    serror_pending: false,
    serror_has_esr: false,
    ext_dabt_pending: true,
    ext_iabt_pending: false,
    ext_abt_has_esr: false,
    serror_esr: 0,
    ext_abt_esr: 0,
};
const INSTRUCTION: VcpuEvents = VcpuEvents { ext_dabt_pending: false, ext_iabt_pending: true, ..DATA };
/// SET and EA, as in the exit.
const ISS: u64 = 0x210;

/// The kernel's own data abort at EL1, left by an earlier injection.
const OLD: u64 = 0x9600_0010;

const CASES: [Case; 5] = [
    Case { name: "data abort", events: DATA, old_esr: 0, esr: 0x9600_0010 },
    Case { name: "data abort, ESR", events: with_esr(DATA), old_esr: 0, esr: 0x9600_0210 },
    Case { name: "instruction abort", events: INSTRUCTION, old_esr: 0, esr: 0x8600_0010 },
    Case { name: "instruction abort, ESR", events: with_esr(INSTRUCTION), old_esr: 0, esr: 0x8600_0210 },
    Case {
        name: "the same, over an old abort's ESR",
        events: with_esr(INSTRUCTION),
        old_esr: OLD,
        esr: 0x8600_0210,
    },
];

const fn with_esr(events: VcpuEvents) -> VcpuEvents {
    VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: ISS, ..events }
}

/// The calls beyond the kernel's own injection: the table of `seawall_inject::Injector`.
const fn promise(last: Last, case: &Case) -> u64 {
    let is_plain = case.events.ext_dabt_pending && !case.events.ext_abt_has_esr;
    match (last, is_plain) {
        (Last::NoWalk, true) => 0,
        (Last::NoWalk, false) | (Last::Any, true) => 2,
        (Last::Any, false) => 3 + (case.old_esr != 0) as u64,
    }
}

/// Calls of a whole containment after a SEA exit, in addition to the one that delivers: PC, PSTATE and TCR to
/// decide; PC to identify the vCPU; ESR, and ESR again, to inject; PC and FAR to find the guest's position.
const CONTAINMENT_MORE: u64 = 7;

/// The medians of the batches of one case.
type Medians = Vec<Duration>;

/// Measures everything.
pub(crate) fn report(batches: u32, repeat: u32, peer: &Peer<'_>) -> Result<Report> {
    let seen = way::seen_by_the_guest(peer)?;
    let mut guest = Guest::new()?;
    let way = match guest.vcpu.way() {
        Way::Assisted => "assisted".to_owned(),
        Way::Native(layout) => format!("native ({layout:?})"),
    };
    let bench = Bench { batches, repeat };
    let mut figures = vec![bench.round_trip(&mut guest)?];
    let sea = guest.consume()?;
    figures.extend(bench.injections(&mut guest, Last::NoWalk, AFTER_SEA, Some(&sea))?);
    let mut ways = vec![way::clock((batches, repeat))?];
    guest.consume()?;
    ways.extend(way::shares(&mut guest, AFTER_SEA, Last::NoWalk, (batches, repeat))?);
    guest.touch_the_bad_page()?;
    figures.extend(bench.injections(&mut guest, Last::Any, AFTER_SIGBUS, None)?);
    guest.at_the_load(0)?;
    ways.extend(way::shares(&mut guest, AFTER_SIGBUS, Last::Any, (batches, repeat))?);
    ways.extend(seen);
    ways.sort_by_key(|way| [AFTER_SEA, AFTER_SIGBUS].iter().position(|after| *after == way.after));
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(Report { kernel, way, batches, repeat, figures, ways })
}

struct Bench {
    batches: u32,
    repeat: u32,
}

impl Bench {
    /// A KVM_RUN that ends at once with a store to a device.
    fn round_trip(&self, guest: &mut Guest) -> Result<Figure> {
        guest.at_the_reports()?;
        let mut medians = Medians::new();
        for _ in 0..self.batches {
            medians.push(self.batch(|| time(|| guest.report()))?);
        }
        guest.finish_the_store()?;
        figure("for scale", "KVM_RUN to an MMIO exit", 1, None, &medians, None)
    }

    /// Measures the kernel's own data abort, each case, and after a SEA exit the whole containment.
    fn injections(
        &self,
        guest: &mut Guest,
        last: Last,
        after: &'static str,
        sea: Option<&SeaExit>,
    ) -> Result<Vec<Figure>> {
        let injector = guest.vcpu.injector()?;
        let mut calls = Vec::new();
        for case in &CASES {
            guest.at_the_load(case.old_esr)?;
            let counting = Counting::new(&guest.vcpu);
            let delivery = injector.set_events(&counting, last, &case.events)?;
            calls.push(counting.calls());
            check(&guest.vcpu, delivery, case)?;
        }
        let contained = sea.map(|sea| count_containment(guest, last, sea)).transpose()?;

        let mut own = Medians::new();
        let mut medians = vec![Medians::new(); CASES.len()];
        let mut whole = Medians::new();
        let own_bytes = DATA.to_bytes(Abi::Mainline)?;
        let mut containment = Containment::new(Rules::FULL);
        let mut now = Duration::ZERO;
        for _ in 0..self.batches {
            own.push(self.batch(|| {
                guest.at_the_load(0)?;
                time(|| Ok(guest.vcpu.set_vcpu_events(&own_bytes)?))
            })?);
            for (case, medians) in CASES.iter().zip(&mut medians) {
                medians.push(self.batch(|| {
                    guest.at_the_load(case.old_esr)?;
                    time(|| Ok(injector.set_events(&guest.vcpu, last, &case.events).map(drop)?))
                })?);
            }
            if let Some(sea) = sea {
                whole.push(self.batch(|| {
                    guest.at_the_load(0)?;
                    // The guard must not take the bench for a storm.
                    now += Duration::from_secs(60);
                    time(|| {
                        Ok(containment
                            .contain(&mut guest.vcpu, &Source::Sea(*sea), None, &at(now))
                            .map(drop)?)
                    })
                })?);
            }
        }

        let mut figures = vec![figure(after, "the kernel's own data abort", 1, None, &own, Some(&own))?];
        for ((case, calls), medians) in CASES.iter().zip(calls).zip(&medians) {
            figures.push(figure(after, case.name, calls, Some(promise(last, case)), medians, Some(&own))?);
        }
        if let Some(calls) = contained {
            let name = "containment: decide, inject, read back";
            figures.push(figure(after, name, calls, Some(CONTAINMENT_MORE), &whole, Some(&own))?);
            figures.push(self.whole_way(guest, &own)?);
        }
        Ok(figures)
    }

    /// Measures from the load of a bad line to the store of its handler, and back to the load.
    fn whole_way(&self, guest: &mut Guest, own: &Medians) -> Result<Figure> {
        let mut containment = Containment::new(Rules::FULL);
        let mut now = Duration::ZERO;
        let mut medians = Medians::new();
        let mut sea = guest.consume()?;
        for _ in 0..self.batches {
            medians.push(self.batch(|| {
                now += Duration::from_secs(60);
                time(|| {
                    let _ = containment.contain(&mut guest.vcpu, &Source::Sea(sea), None, &at(now))?;
                    guest.report()?;
                    match guest.vcpu.run()? {
                        seawall_inject::Exit::Sea(again) => sea = again,
                        other => return Err(unexpected("a SEA exit", &other)),
                    }
                    Ok(())
                })
            })?);
        }
        // The containment, and two runs.
        let calls = count_containment(guest, Last::NoWalk, &sea)? + 2;
        figure(AFTER_SEA, "load, exit, containment, handler, MMIO, back", calls, None, &medians, Some(own))
    }

    /// The median of a batch.
    fn batch(&self, mut one: impl FnMut() -> Result<Duration>) -> Result<Duration> {
        let times = (0..self.repeat).map(|_| one()).collect::<Result<Vec<Duration>>>()?;
        median(&times).ok_or_else(|| "an empty batch".into())
    }
}

/// Counts the system calls of a containment, and checks the guest's position.
fn count_containment(guest: &mut Guest, last: Last, sea: &SeaExit) -> Result<u64> {
    guest.at_the_load(0)?;
    let injector = guest.vcpu.injector()?;
    let counting = Counting::new(&guest.vcpu);
    let mut vcpu = Exited::new(&counting, injector, last);
    let mut containment = Containment::new(Rules::FULL);
    let contained = containment.contain(&mut vcpu, &Source::Sea(*sea), None, &at(Duration::ZERO))?;
    let calls = counting.calls();
    match contained.outcome().map(|outcome| &outcome.action) {
        Some(Action::Injected { guest: Delivery::AtVector { target: Target::El1, esr, .. }, .. })
            if esr.bits() == 0x9600_0210 =>
        {
            Ok(calls)
        }
        other => Err(unexpected("a data abort with the hardware's ISS", &other)),
    }
}

/// Checks the delivery, because a bench of an injection without effect measures nothing.
fn check(vcpu: &Vcpu, delivery: Option<AbortDelivery>, case: &Case) -> Result<()> {
    let esr = vcpu.reg(Reg::EsrEl1)?;
    if delivery != Some(AbortDelivery::Delivered(Target::El1)) || esr != case.esr {
        let expected = format!("{} with ESR {:#x}", case.name, case.esr);
        return Err(unexpected(&expected, &(delivery, esr)));
    }
    Ok(())
}

fn time(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}

fn figure(
    after: &'static str,
    name: &'static str,
    calls: u64,
    promise: Option<u64>,
    medians: &Medians,
    own: Option<&Medians>,
) -> Result<Figure> {
    let time = Time::of(medians).ok_or("expected at least one batch")?;
    Ok(Figure { after, name, calls, promise, time, ratio: own.and_then(|own| ratio(medians, own)) })
}

/// A clock of the guest's own, without measurement of durations.
fn at(running: Duration) -> Now {
    Now { vcpu: 0, running, time: SystemTime::UNIX_EPOCH, exited: None }
}
