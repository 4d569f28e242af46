//! The scenarios, one row of the table for each.

mod code;
mod data;
mod host;
mod ledger;
mod many;
mod reset;
mod seccomp;
mod signals;
mod storm;
mod together;
mod use_up;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use seawall_lab::options::Scenario;
use seawall_lab::{Transcript, migrate};

use crate::files::{BUSYBOX, KERNEL};
use crate::linux::{Linux, Run};
use crate::report::{Report, Verdict};

/// The form of a scenario.
#[derive(Clone, Copy)]
enum How {
    /// A Linux guest, and the judge of its run.
    Boot(Linux, fn(&Run) -> Verdict),
    /// Another form, which keeps the output of its guests.
    Other(fn(&Transcript) -> Verdict),
}

fn how(scenario: Scenario) -> How {
    match scenario {
        Scenario::Data => How::Boot(data::ACPI, data::judge_acpi),
        Scenario::Code => How::Boot(code::LINUX, code::judge),
        Scenario::Sixteen => How::Boot(together::SIXTEEN, together::judge_sixteen),
        Scenario::SamePage => How::Boot(together::SAME_PAGE, together::judge_same_page),
        Scenario::Sigbus => How::Boot(data::SIGBUS, data::judge_sigbus),
        Scenario::Fdt => How::Boot(data::FDT, data::judge_fdt),
        Scenario::FdtSerror => How::Boot(data::SERROR, data::judge_serror),
        Scenario::Storm => How::Boot(storm::LINUX, storm::judge),
        Scenario::TenThousand => How::Other(many::run),
        Scenario::Signals => How::Other(|_| signals::run()),
        Scenario::Reset => How::Other(reset::heals),
        Scenario::ResetPinned => How::Other(reset::leaves_out),
        Scenario::Resets => How::Other(|_| reset::under_errors()),
        Scenario::Killed => How::Other(ledger::survives_sigkill),
        Scenario::DiskFull => How::Other(|_| ledger::survives_a_full_disk()),
        Scenario::Migrate => How::Other(migrate::bare_metal),
        Scenario::MigrateLinux => {
            How::Other(|said| migrate::linux(Path::new(KERNEL), Path::new(BUSYBOX), 1, said))
        }
        Scenario::MigrateSmp => {
            How::Other(|said| migrate::linux(Path::new(KERNEL), Path::new(BUSYBOX), 2, said))
        }
        Scenario::Seccomp => How::Other(seccomp::run_all),
        Scenario::HostTold => How::Other(host::told),
        Scenario::HostKept => How::Other(host::kept),
        Scenario::HostUntold => How::Other(host::untold),
    }
}

/// Runs this program as a child: the VMM that a scenario kills or outlives, the destination of a migration,
/// or a process that uses memory.
pub(crate) fn child_if_asked() -> Option<ExitCode> {
    ledger::child_if_asked()
        .or_else(migrate::destination_if_asked)
        .or_else(host::child_if_asked)
        .or_else(seccomp::child_if_asked)
        .or_else(use_up::child_if_asked)
}

/// Runs a scenario and prints its line, followed by its guests' consoles if it failed or if they are
/// requested.
pub(crate) fn run(scenario: Scenario, report: &mut Report, with_consoles: bool) {
    let start = Instant::now();
    let (verdict, said) = match how(scenario) {
        How::Other(run) => {
            let transcript = Transcript::default();
            (run(&transcript), transcript.take())
        }
        How::Boot(linux, judge) => match linux.run() {
            Ok(run) => (judge(&run), run.transcript()),
            Err((error, lines)) => (Err(error), lines),
        },
    };
    println!("{}", report.line(&scenario.name(), start.elapsed(), &verdict));
    if with_consoles || verdict.is_err() {
        for line in said {
            println!("    {line}");
        }
    }
}
