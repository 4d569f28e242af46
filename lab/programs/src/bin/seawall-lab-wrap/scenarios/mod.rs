//! The scenarios: a row of the table each.

mod live;
mod qemus;
mod records;
mod refused;
mod small;

use std::time::Instant;

use seawall_lab::Transcript;
use seawall_lab::options::{Wrap, WrapScenario};
use seawall_lab::report::{Report, Verdict};

fn judged(scenario: WrapScenario, options: &Wrap, said: &Transcript) -> Verdict {
    match scenario {
        WrapScenario::Bare => live::bare(said),
        WrapScenario::Wrapped => live::wrapped(1, said),
        WrapScenario::WrappedSmp => live::wrapped(2, said),
        WrapScenario::WrappedDry => live::dry_run(said),
        WrapScenario::QemuSigbus => live::sigbus(said),
        WrapScenario::QemuOwn => live::own_handler(said),
        WrapScenario::QemuRecords => records::run(),
        WrapScenario::QemuSandbox => live::sandbox(said),
        WrapScenario::QemuStorm => live::storm(said),
        WrapScenario::QemuStop => live::stop(said),
        WrapScenario::QemuReset => qemus::reset(said),
        WrapScenario::QemuMigrate => qemus::migrate(said),
        WrapScenario::QemuSavevm => qemus::savevm(said),
        WrapScenario::QemuKilled => qemus::killed(said),
        WrapScenario::StrangerBare => live::stranger_bare(said),
        WrapScenario::Stranger => live::stranger(said),
        WrapScenario::Small => small::loads(said),
        WrapScenario::SmallMany => small::many(options.errors, said),
        WrapScenario::SmallVms => small::vms(options.vms, said),
        WrapScenario::SmallStarts => small::starts(options.starts, said),
        WrapScenario::Refused => refused::run(said),
        WrapScenario::Cost => small::cost(said),
    }
}

/// Runs a scenario and prints its line; and behind it what was said if it failed, or if that is wanted.
pub(crate) fn run(scenario: WrapScenario, report: &mut Report, options: &Wrap) {
    let (start, said) = (Instant::now(), Transcript::default());
    let verdict = judged(scenario, options, &said);
    println!("{}", report.line(&scenario.name(), start.elapsed(), &verdict));
    if options.console || verdict.is_err() {
        for line in said.take() {
            println!("    {line}");
        }
    }
}
