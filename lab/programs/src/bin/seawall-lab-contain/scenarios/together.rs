//! Several processes meet bad memory at once, on two vCPUs.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::linux::{Linux, Run};
use crate::report::{Verdict, expect};
use crate::watch::Road;

/// A load at EL0: SET and EA.
const LOAD: u64 = 0x9200_0210;
const PROCESSES: usize = 16;
/// More than a second, for a busy host: once it is over, the next record is written beside an unread one.
/// Linux may then read another process's record, and that process gets SIGBUS without the reason
/// (`BUS_OBJERR`).
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// The processes wait in a loop of loads until all pages go bad at once.
pub(super) const SIXTEEN: Linux = Linux {
    cpus: 2,
    patience: PATIENCE,
    road: Road::Register(PROCESSES),
    script: "
for n in $(seq 16); do
    seawall-lab-victim p$n load &
done
wait
",
    ..Linux::DEFAULT
};

pub(super) fn judge_sixteen(run: &Run) -> Verdict {
    run.expect_outcomes(PROCESSES, Some(LOAD), true)?;
    let pages: BTreeSet<u64> =
        run.seen.outcomes.iter().filter_map(|(_, outcome)| outcome.error.gpa).collect();
    expect("pages met", &pages.len(), &PROCESSES)?;
    let sigbus = run.sigbus();
    let names: BTreeSet<&str> = sigbus.iter().map(|sigbus| sigbus.name.as_str()).collect();
    expect("processes with SIGBUS", &(names.len(), sigbus.len()), &(PROCESSES, PROCESSES))?;
    sigbus.iter().try_for_each(crate::report::Sigbus::expect_action_required)?;
    run.expect_offline("dirty LRU page")?;
    run.expect_alive(64)?;
    let on_second = run.seen.outcomes.iter().filter(|(cpu, _)| *cpu == 1).count();
    Ok(format!("16 records ({on_second} by the second vCPU), 16 SIGBUS si_code 4, 16 pages offline, 64 kB"))
}

/// The first vCPU is held in the VMM, with its record written and its abort injected, while the other meets the page too.
pub(super) const SAME_PAGE: Linux = Linux {
    cpus: 2,
    patience: PATIENCE,
    road: Road::Later(2, Duration::from_millis(300)),
    hold: Duration::from_millis(300),
    script: "
taskset 1 seawall-lab-victim first spin /tmp/page &
taskset 2 seawall-lab-victim second spin /tmp/page &
wait
",
    ..Linux::DEFAULT
};

/// The other vCPU waits until the first one's record is read. Then it gets its own record; or Linux was so
/// quick that the page is gone, and its own page fault tells the process.
pub(super) fn judge_same_page(run: &Run) -> Verdict {
    let met = run.seen.outcomes.len();
    for (number, (_, outcome)) in run.seen.outcomes.iter().enumerate() {
        // The first vCPU told the host of the page: the other gets SIGBUS for it, or its exit came before
        // that.
        let esr = if number > 0 && outcome.error.esr.is_none() { None } else { Some(LOAD) };
        run.expect_outcome(outcome, esr, true)?;
    }
    let cpus: BTreeSet<u32> = run.seen.outcomes.iter().map(|(cpu, _)| *cpu).collect();
    if !(1..=2).contains(&met) || cpus.len() != met {
        return Err(format!("expected one record of each vCPU, or one in all, got {met} of {cpus:?}"));
    }
    let sigbus = run.sigbus();
    let names: BTreeSet<&str> = sigbus.iter().map(|sigbus| sigbus.name.as_str()).collect();
    expect("processes with SIGBUS", &names, &BTreeSet::from(["first", "second"]))?;
    expect("SIGBUS", &sigbus.len(), &2)?;
    sigbus.iter().try_for_each(crate::report::Sigbus::expect_action_required)?;
    run.expect_alive(4)?;
    Ok(format!("{met} recorded one after the other, 2 SIGBUS si_code 4, one page offline, 4 kB"))
}
