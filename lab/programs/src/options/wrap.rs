//! Those of `seawall-lab-wrap`, with the table of its scenarios.

use std::fmt::Write as _;

use clap::ValueEnum;

/// Memory errors under VMMs that are not changed, by `seawall wrap`; judged by what the guests say. Runs in the lab
#[derive(Debug, clap::Parser)]
#[command(name = "seawall-lab-wrap", version)]
pub struct Wrap {
    /// Run these only
    #[arg(value_enum, value_name = "SCENARIO")]
    pub only: Vec<WrapScenario>,
    /// Print the scenarios and end
    #[arg(long)]
    pub list: bool,
    /// Print each guest's console and the VMM's words, also where a scenario passed
    #[arg(long)]
    pub console: bool,
}

/// A scenario, in the order in which they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WrapScenario {
    /// QEMU without `seawall wrap`: bad memory under a process, and the guest's kernel panics
    Bare,
    /// QEMU: data of one process and code of another go bad: both die, the guest lives
    Wrapped,
    /// the same with 2 vCPUs
    WrappedSmp,
    /// a dry run ends as without, and reports
    WrappedDry,
}

impl WrapScenario {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Wrap {
    /// The scenarios that are asked for: all, if none is named.
    pub fn scenarios(&self) -> impl Iterator<Item = WrapScenario> {
        let all = WrapScenario::value_variants().iter().copied();
        all.filter(|scenario| self.only.is_empty() || self.only.contains(scenario))
    }

    /// What `--list` prints: a line for each scenario.
    pub fn list() -> String {
        let values = WrapScenario::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        values.fold(String::new(), |mut list, value| {
            let about = value.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(list, "{:<14} {about}", value.get_name());
            list
        })
    }
}
