//! The scenarios: a row of the table each.

mod code;
mod data;
mod ledger;
mod many;
mod reset;
mod signals;
mod storm;
mod together;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use seawall_lab::migrate;

use crate::files::{BUSYBOX, KERNEL};
use crate::linux::{Linux, Run};
use crate::report::{Report, Verdict};

/// A scenario.
pub(crate) struct Scenario {
    /// For the command line and the report.
    pub(crate) name: &'static str,
    /// For `--list`.
    pub(crate) about: &'static str,
    how: How,
}

/// How it is run.
#[derive(Clone, Copy)]
enum How {
    /// A Linux guest, and who judges its run.
    Boot(Linux, fn(&Run) -> Verdict),
    /// Something else.
    Other(fn() -> Verdict),
}

/// All of them, in order.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "data",
        about: "ACPI: a process's data goes bad: SIGBUS with BUS_MCEERR_AR, the page offline, the guest lives",
        how: How::Boot(data::ACPI, data::judge_acpi),
    },
    Scenario {
        name: "code",
        about: "ACPI: clean code on ext4 is read anew and its process goes on; code on tmpfs costs its process",
        how: How::Boot(code::LINUX, code::judge),
    },
    Scenario {
        name: "sixteen",
        about: "ACPI, 2 vCPUs: sixteen processes lose a page each at once: sixteen records, none lost",
        how: How::Boot(together::SIXTEEN, together::judge_sixteen),
    },
    Scenario {
        name: "same-page",
        about: "ACPI, 2 vCPUs on one page at the same instant: both are handled",
        how: How::Boot(together::SAME_PAGE, together::judge_same_page),
    },
    Scenario {
        name: "sigbus",
        about: "ACPI: the host knows the page to be bad (MADV_HWPOISON): contained as a SEA exit is",
        how: How::Boot(data::SIGBUS, data::judge_sigbus),
    },
    Scenario {
        name: "fdt",
        about: "device tree, no records: a process gets SIGBUS, the guest lives",
        how: How::Boot(data::FDT, data::judge_fdt),
    },
    Scenario {
        name: "fdt-serror",
        about: "the same with the policy serror, which is KVM's own way: the guest's kernel panics",
        how: How::Boot(data::SERROR, data::judge_serror),
    },
    Scenario {
        name: "storm",
        about: "the guest's exception vectors go bad: it is stopped with the reason, soon",
        how: How::Boot(storm::LINUX, storm::judge),
    },
    Scenario {
        name: "ten-thousand",
        about: "bare metal: 10,000 errors on 10,000 pages, each contained, nothing leaks",
        how: How::Other(many::run),
    },
    Scenario {
        name: "signals",
        about: "bare metal: SIGBUS under KVM_RUN, events and registers in a tight loop: none lost, nothing corrupted",
        how: How::Other(signals::run),
    },
    Scenario {
        name: "reset",
        about: "ACPI: a guest that lost a page boots again on healed memory",
        how: How::Other(reset::heals),
    },
    Scenario {
        name: "reset-pinned",
        about: "the same where memory cannot be healed: the page is not in the next boot's memory map",
        how: How::Other(reset::leaves_out),
    },
    Scenario {
        name: "resets",
        about: "bare metal, ACPI's records: twenty resets, each while another vCPU meets bad memory",
        how: How::Other(reset::under_errors),
    },
    Scenario {
        name: "killed",
        about: "a VMM is killed with SIGKILL while errors come: its ledger is whole, its successor heals",
        how: How::Other(ledger::survives_sigkill),
    },
    Scenario {
        name: "disk-full",
        about: "the disk is full: the ledger's file stays what it was, and is written when there is room",
        how: How::Other(ledger::survives_a_full_disk),
    },
    Scenario {
        name: "migrate",
        about: "bare metal goes to another process: bad pages unread, bad on the other side, and all else as it was",
        how: How::Other(migrate::bare_metal),
    },
    Scenario {
        name: "migrate-linux",
        about: "ACPI: the same with Debian's kernel at work, one page of which is offline",
        how: How::Other(|| migrate::linux(Path::new(KERNEL), Path::new(BUSYBOX), 1)),
    },
    Scenario {
        name: "migrate-smp",
        about: "the same on 2 vCPUs",
        how: How::Other(|| migrate::linux(Path::new(KERNEL), Path::new(BUSYBOX), 2)),
    },
];

/// This program again, as the VMM that a scenario kills, or that a guest goes to.
pub(crate) fn child_if_asked() -> Option<ExitCode> {
    ledger::child_if_asked().or_else(migrate::destination_if_asked)
}

impl Scenario {
    /// Runs it and prints its line; and the guest's console to stderr if it failed, or if it is wanted.
    pub(crate) fn run(&self, report: &mut Report, with_console: bool) {
        let start = Instant::now();
        let (verdict, console) = match self.how {
            How::Other(run) => (run(), Vec::new()),
            How::Boot(linux, judge) => match linux.run() {
                Ok(run) => (judge(&run), run.transcript()),
                Err((error, lines)) => (Err(error), lines),
            },
        };
        println!("{}", report.line(self.name, start.elapsed(), &verdict));
        if with_console || verdict.is_err() {
            for line in console {
                eprintln!("    {line}");
            }
        }
    }
}
