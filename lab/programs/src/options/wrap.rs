//! Those of `seawall-lab-wrap`, with the table of its scenarios.

use clap::ValueEnum;

use super::table::{list, requested};

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
    /// Errors of `small-many`
    #[arg(long, default_value_t = 2000, value_name = "COUNT")]
    pub errors: u64,
    /// VMs of `small-vms`
    #[arg(long, default_value_t = 30, value_name = "COUNT")]
    pub vms: u64,
    /// Processes of `small-starts`
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub starts: u64,
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
    /// the host knows the page to be bad (MADV_HWPOISON): contained before QEMU's own handler
    QemuSigbus,
    /// --sigbus vmm without ras=on: QEMU's own handler ends QEMU, as it does without `seawall wrap`
    QemuOwn,
    /// QEMU with ras=on and bare metal, an SEA and a SIGBUS: with --sigbus vmm QEMU's record, else the abort alone
    QemuRecords,
    /// QEMU's sandbox, a filter on all threads: contained
    QemuSandbox,
    /// the guest's exception vectors go bad: a storm ends with the reason, and QEMU pauses the guest
    QemuStorm,
    /// a rule stops the guest at its first error, and QEMU pauses it
    QemuStop,
    /// 4 vCPUs: a reset, and memory plugged in and out while the guest runs; then memory goes bad: contained
    QemuReset,
    /// the guest goes to a file and comes back in another QEMU; then memory goes bad: contained
    QemuMigrate,
    /// QEMU's savevm and loadvm: the guest is back where it was; then memory goes bad: contained
    QemuSavevm,
    /// QEMU is killed after an error: the ledger lists the page, and the next QEMU starts
    QemuKilled,
    /// alioth, a VMM from crates.io, without `seawall wrap`: the guest's kernel panics
    StrangerBare,
    /// the same with it, 2 vCPUs: data of one process and code of another go bad: both die, the guest lives
    Stranger,
    /// a small VMM whose vCPU's thread may not read registers: SEA exits and SIGBUS are contained
    Small,
    /// the same, thousands of errors: each contained, no memory and no file stays
    SmallMany,
    /// the same, many VMs in one process under load, each with an error: nothing is lost
    SmallVms,
    /// many starts and ends of the same, two at a time, each with an error: nothing is lost
    SmallStarts,
    /// programs and options that cannot be wrapped are refused by name, each with its exit code
    Refused,
    /// instructions of an exit, with and without `seawall wrap` in turn
    Cost,
}

impl WrapScenario {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Wrap {
    /// The requested scenarios: all, if none is named.
    pub fn scenarios(&self) -> impl Iterator<Item = WrapScenario> {
        requested(&self.only)
    }

    /// The arguments that ask for these scenarios, with the same options.
    pub fn words(&self, scenarios: &[WrapScenario]) -> Vec<String> {
        let Self { only: _, list: _, console, errors, vms, starts } = self;
        let mut words =
            vec![format!("--errors={errors}"), format!("--vms={vms}"), format!("--starts={starts}")];
        words.extend(console.then(|| "--console".to_owned()));
        words.extend(scenarios.iter().map(|scenario| scenario.name()));
        words
    }

    /// The output of `--list`: a line for each scenario.
    pub fn list() -> String {
        list::<WrapScenario>()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn scenarios_are_run_in_the_tables_order_and_all_of_them_unless_some_are_named() {
        let named = |words: &[&str]| -> Vec<String> {
            let words = ["seawall-lab-wrap"].iter().chain(words);
            Wrap::try_parse_from(words).expect("scenarios").scenarios().map(WrapScenario::name).collect()
        };
        assert_eq!(named(&["small", "bare"]), ["bare", "small"]);
        assert_eq!(named(&[]).len(), Wrap::list().lines().count());
    }

    /// The table is split over two machines.
    #[test]
    fn the_words_for_some_scenarios_keep_the_options() {
        let asked = ["seawall-lab-wrap", "--errors", "7", "small", "--console", "cost"];
        let asked = Wrap::try_parse_from(asked).expect("options");
        let words = asked.words(&[WrapScenario::Cost]);
        assert_eq!(words, ["--errors=7", "--vms=30", "--starts=20", "--console", "cost"]);
    }

    /// The table of lab/README.md says more of each.
    #[test]
    fn the_readme_has_a_row_for_each_scenario_in_the_same_order() {
        let readme = include_str!("../../../README.md");
        let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows = rows.map(|(name, _)| name.to_owned());
        let scenarios: Vec<String> = WrapScenario::value_variants().iter().map(|it| it.name()).collect();
        assert_eq!(rows.filter(|name| scenarios.contains(name)).collect::<Vec<_>>(), scenarios);
    }
}
