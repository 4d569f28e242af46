//! The scenarios: a row of the table each.

mod live;

use std::time::Instant;

use seawall_lab::Transcript;
use seawall_lab::options::WrapScenario;
use seawall_lab::report::{Report, Verdict};

fn judged(scenario: WrapScenario, said: &Transcript) -> Verdict {
    match scenario {
        WrapScenario::Bare => live::bare(said),
        WrapScenario::Wrapped => live::wrapped(1, said),
        WrapScenario::WrappedSmp => live::wrapped(2, said),
        WrapScenario::WrappedDry => live::dry_run(said),
    }
}

/// Runs a scenario and prints its line; and behind it what was said if it failed, or if that is wanted.
pub(crate) fn run(scenario: WrapScenario, report: &mut Report, with_consoles: bool) {
    let (start, said) = (Instant::now(), Transcript::default());
    let verdict = judged(scenario, &said);
    println!("{}", report.line(&scenario.name(), start.elapsed(), &verdict));
    if with_consoles || verdict.is_err() {
        for line in said.take() {
            println!("    {line}");
        }
    }
}
