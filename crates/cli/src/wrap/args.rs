//! The options of `seawall wrap`.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};

use clap::ValueEnum;
use seawall::{Rule, Rules};
use seawall_wrap::{Settings, Sigbus};
use tracing_subscriber::filter::Targets;

use crate::{Failure, exit, help, parse};

/// Run a VMM as it is, and contain the memory errors of its guests.
///
/// PROGRAM is a VMM on KVM for arm64 that knows nothing of Seawall, such as qemu-system-aarch64. Its guests survive memory
/// errors as under `seawall run`: nothing of the VMM is rebuilt, and none of its options changes. The command checks what it
/// needs of the program and of the host, and then becomes the program, with libseawall_preload.so in it. docs/wrap.md says
/// how to try it on one host, and what it cannot do.
#[derive(clap::Args)]
#[command(after_help = help::WRAP, after_long_help = help::wrap())]
pub(crate) struct Args {
    /// The VMM, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(super) command: Vec<OsString>,
    /// Policy: the exception that the guest gets for a memory error.
    ///
    /// `rules` is the abort as it happened, and stops a guest hypervisor whose own guest met the error; `full` is the abort as
    /// it happened; `mainline` a data abort without an ESR; `serror` an SError, as KVM does today.
    #[arg(long, default_value = "rules", value_parser = ["rules", "full", "mainline", "serror"])]
    policy: String,
    /// Answer errors of one kind differently from the policy; may be given again.
    #[arg(long, value_name = "KIND=ANSWER")]
    rule: Vec<Rule>,
    /// Decide and report, and leave each guest to what happens without the wrapper.
    #[arg(long)]
    dry_run: bool,
    /// The receiver of an error: `contain`, or the VMM's own handler of SIGBUS.
    ///
    /// `vmm` tells the host's kernel of the bad page, and lets the guest touch it again: the VMM then gets SIGBUS, for which
    /// QEMU with `-M virt,ras=on` writes a record of the error for the guest's kernel. It needs CAP_SYS_ADMIN; errors of
    /// which the host cannot be told are contained.
    #[arg(long, value_enum, default_value_t = To::Contain)]
    sigbus: To,
    /// Write events to the end of this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Keep the numbers for Prometheus in this file, as node_exporter's textfile collector reads them.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// List the bad pages of the guest in this file; `seawall ledger FILE` shows it.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Write log lines of this level and above to stderr.
    ///
    /// Levels: error, warn, info, debug, trace, or by target as seawall=warn [default: none]
    #[arg(long, value_name = "LEVEL", value_parser = parse::log)]
    log: Option<Targets>,
    /// libseawall_preload.so [default: beside this command, in ../lib/seawall or in ../lib]
    #[arg(long, value_name = "FILE")]
    pub(super) library: Option<PathBuf>,
    /// Check the program and the host, and do not run the program.
    #[arg(long)]
    pub(super) check: bool,
    /// Check, and print the variables that do the same where another program starts the VMM.
    #[arg(long, conflicts_with = "check")]
    pub(super) env: bool,
}

/// The receiver of an error for which the VMM could have a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Contain,
    Vmm,
}

impl Args {
    /// The library's settings, for this executable.
    pub(super) fn settings(&self, program: &Path, quiet: bool) -> Result<Settings, Failure> {
        let rules: Rules = self.policy.parse().unwrap_or_default();
        Ok(Settings {
            rules: self.rule.iter().fold(rules, |rules, rule| rules.with(rule.kind, rule.answer)),
            dry_run: self.dry_run,
            sigbus: match self.sigbus {
                To::Contain => Sigbus::Contain,
                To::Vmm => Sigbus::Vmm,
            },
            events: whole("--events", self.events.as_deref())?,
            metrics: whole("--metrics", self.metrics.as_deref())?,
            ledger: whole("--ledger", self.ledger.as_deref())?,
            log: self.log.as_ref().map(ToString::to_string),
            quiet,
            program: Some(program.to_owned()),
        })
    }
}

/// Wherever the VMM goes.
fn whole(option: &str, path: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let failed = |error| Failure::new(exit::FILE, format!("{option}: {error}"));
    path.map(absolute).transpose().map_err(failed)
}
