//! The options of `seawall-lab-contain`, with the table of its scenarios.

use clap::ValueEnum;

use super::table::{list, requested};

/// Memory errors under guests of real KVM, contained; judged by what the guests say. Runs in the lab
#[derive(Debug, clap::Parser)]
#[command(name = "seawall-lab-contain", version)]
pub struct Contain {
    /// Run these only
    #[arg(value_enum, value_name = "SCENARIO")]
    pub only: Vec<Scenario>,
    /// Print the scenarios and end
    #[arg(long)]
    pub list: bool,
    /// Print each guest's console, even if a scenario passed
    #[arg(long)]
    pub console: bool,
}

/// A scenario, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// ACPI: a process's data goes bad: SIGBUS with BUS_MCEERR_AR, the page offline, the guest lives
    Data,
    /// ACPI: clean code on ext4 is read again and its process goes on; code on tmpfs costs its process
    Code,
    /// ACPI, 2 vCPUs: sixteen processes lose a page each at once: sixteen records, none lost
    Sixteen,
    /// ACPI, 2 vCPUs on one page at the same instant: both are handled
    SamePage,
    /// ACPI: the host knows the page to be bad (MADV_HWPOISON): contained as a SEA exit is
    Sigbus,
    /// device tree, no records: a process gets SIGBUS, the guest lives
    Fdt,
    /// the same with the policy serror, which is KVM's own way: the guest's kernel panics
    FdtSerror,
    /// the guest's exception vectors go bad: it is stopped with the reason, soon
    Storm,
    /// bare metal: 10,000 errors on 10,000 pages, each contained, nothing leaks
    TenThousand,
    /// bare metal: SIGBUS under KVM_RUN, events and registers in a tight loop: none lost, nothing corrupted
    Signals,
    /// ACPI: a guest that lost a page boots again on healed memory
    Reset,
    /// the same where memory cannot be healed: the page is not in the next boot's memory map
    ResetPinned,
    /// bare metal, ACPI's records: twenty resets, each while another vCPU meets bad memory
    Resets,
    /// a VMM is killed with SIGKILL while errors come: its ledger is whole, its successor heals
    Killed,
    /// the disk is full: the ledger's file stays what it was, and is written when there is room
    DiskFull,
    /// bare metal goes to another process: bad pages unread, bad on the other side, and all else as it was
    Migrate,
    /// ACPI: the same with Debian's kernel at work, one page of which is offline
    MigrateLinux,
    /// the same on 2 vCPUs
    MigrateSmp,
    /// bare metal: all of containment under seccomp filters of its own rules; without any of them the VMM is killed
    Seccomp,
    /// the host is told of bad pages, the VMM ends, the host uses all of its memory: nobody meets them
    HostTold,
    /// the same by a VMM that may not tell, which keeps the pages and heals, while it lives
    HostKept,
    /// the baseline: nobody tells the host, and a process is killed, or the host goes down
    HostUntold,
}

impl Scenario {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Returns true if it uses up its host, and therefore needs one of its own.
    pub fn has_own_host(self) -> bool {
        matches!(self, Self::HostTold | Self::HostKept | Self::HostUntold)
    }

    /// Returns true if it is expected to take its host down, or to make it kill a process.
    pub fn ends_its_host(self) -> bool {
        self == Self::HostUntold
    }
}

impl Contain {
    /// The requested scenarios: all, if none is named.
    pub fn scenarios(&self) -> impl Iterator<Item = Scenario> {
        requested(&self.only)
    }

    /// The output of `--list`: a line for each scenario.
    pub fn list() -> String {
        list::<Scenario>()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn scenarios_are_run_in_the_tables_order_and_all_of_them_unless_some_are_named() {
        let named = |words: &[&str]| -> Vec<String> {
            let words = ["seawall-lab-contain"].iter().chain(words);
            Contain::try_parse_from(words).expect("scenarios").scenarios().map(Scenario::name).collect()
        };
        assert_eq!(named(&["migrate-linux", "data"]), ["data", "migrate-linux"]);
        assert_eq!(named(&[]).len(), 22);
    }

    #[test]
    fn a_scenario_that_there_is_not_is_an_error_that_names_those_there_are() {
        let error = Contain::try_parse_from(["seawall-lab-contain", "dat"]).expect_err("no such scenario");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("ten-thousand"), "{error}");
    }

    #[test]
    fn the_list_has_a_line_for_each_scenario() {
        let list = Contain::list();
        assert!(list.starts_with("data           ACPI: a process's data goes bad: SIGBUS"), "{list}");
        assert_eq!(list.lines().count(), 22);
    }

    /// The table of lab/README.md describes each in more detail.
    #[test]
    fn the_readme_has_a_row_for_each_scenario_in_the_same_order() {
        let readme = include_str!("../../../README.md");
        let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows = rows.map(|(name, _)| name.to_owned());
        let scenarios: Vec<String> = Scenario::value_variants().iter().map(|it| it.name()).collect();
        assert_eq!(rows.filter(|name| scenarios.contains(name)).collect::<Vec<_>>(), scenarios);
    }
}
