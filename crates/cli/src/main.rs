//! The `seawall` command.
#![forbid(unsafe_code)]

mod campaign;
mod check;
mod decode;
mod demo;
mod guest;
mod help;
mod ledger;
mod manual;
mod out;
mod parse;
mod probe;
mod run;
mod style;
mod watch;
#[cfg(unix)]
mod wrap;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The crate's version, and the commit if it is known, from `build/main.rs`.
const VERSION: &str = env!("SEAWALL_VERSION");

/// Contain uncorrectable memory errors in Arm virtual machines.
///
/// When an Arm VM touches memory that the hardware could not correct, KVM injects an SError by default, and the
/// guest's kernel panics. Seawall injects the abort as it happened, so the guest loses only the process that used
/// the memory. This command shows it on a software Arm machine with memory that can go bad. It needs no Arm
/// hardware and no root.
#[derive(Parser)]
#[command(name = "seawall", version = VERSION, after_help = help::START, after_long_help = help::start())]
struct Cli {
    /// Write only errors to stderr: no notes, no progress.
    #[arg(short, long, global = true, display_order = 1000)]
    quiet: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Check(check::Args),
    Probe(probe::Args),
    Decode(decode::Args),
    Run(Box<run::Args>),
    #[cfg(unix)]
    Wrap(Box<wrap::Args>),
    Campaign(campaign::Args),
    Guest(guest::Args),
    Ledger(ledger::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// The exit codes. They keep their meaning; a new one gets the next number.
mod exit {
    pub(crate) const UNEXPECTED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const FILE: u8 = 3;
    pub(crate) const RANGE: u8 = 4;
    pub(crate) const HUNG: u8 = 5;
    pub(crate) const STORM: u8 = 6;
    pub(crate) const UNSUPPORTED: u8 = 7;
    pub(crate) const RESET: u8 = 8;
    pub(crate) const UNAVAILABLE: u8 = 9;
    pub(crate) const PANIC: u8 = 10;
    pub(crate) const TOO_LITTLE_MEMORY: u8 = 11;
    pub(crate) const DRY_RUN: u8 = 12;
    pub(crate) const NO_SUCH_PAGE: u8 = 13;
    pub(crate) const STATIC: u8 = 14;
    pub(crate) const FOREIGN: u8 = 15;
    pub(crate) const SECURE: u8 = 16;
    pub(crate) const NOT_LOADED: u8 = 17;
    pub(crate) const NO_SEA: u8 = 18;
    pub(crate) const NO_RAS: u8 = 19;
    pub(crate) const FILTERED: u8 = 20;

    /// All exit codes with their meanings, for the help and the manual.
    pub(crate) const ALL: [(u8, &str); 22] = [
        (0, "done; the guest powered itself off"),
        (UNEXPECTED, "an outcome was not what it must be, or `decode` found nothing to explain"),
        (USAGE, "wrong usage"),
        (FILE, "a file cannot be read or written, or is no guest"),
        (RANGE, "a range is not in memory, or a size cannot be"),
        (HUNG, "the guest hung: a limit was reached, or it is idle for ever"),
        (STORM, "stopped: the guest took the same abort for ever, or a rule says so"),
        (UNSUPPORTED, "the guest needs something that the machine does not have"),
        (RESET, "the guest asked for a reset"),
        (UNAVAILABLE, "this host does not have what was asked for"),
        (PANIC, "the guest's kernel panicked"),
        (TOO_LITTLE_MEMORY, "the guest does not fit into its memory"),
        (DRY_RUN, "a dry run met bad memory"),
        (NO_SUCH_PAGE, "the guest ended without having named the page of a --poison page:NAME"),
        (STATIC, "`wrap`: the program is statically linked"),
        (FOREIGN, "`wrap`: the program is a script, or of another architecture or C library"),
        (SECURE, "`wrap`: the program is setuid or has capabilities, so that no library is brought into it"),
        (NOT_LOADED, "`wrap`: the library is not there, or does not fit the program's C library"),
        (NO_SEA, "`wrap`: the host's kernel has no SEA exits"),
        (NO_RAS, "`wrap`: the host's CPUs have no RAS extension"),
        (FILTERED, "`wrap`: the command is in seccomp's strict mode"),
        (143, "ended by SIGTERM; 129: by SIGHUP, 130: by SIGINT"),
    ];
}

/// The failure of a command: an exit code, and advice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// `seawall` without arguments: an overview.
fn help() -> Result<u8, Failure> {
    out::stdout(&Cli::command().render_help().ansi().to_string())?;
    Ok(0)
}

fn main() -> ExitCode {
    let Cli { quiet, command } = Cli::parse();
    let outcome = match command {
        Some(Command::Demo(args)) => demo::main(&args),
        Some(Command::Check(args)) => check::main(&args),
        Some(Command::Probe(args)) => probe::main(&args),
        Some(Command::Decode(args)) => decode::main(&args, quiet),
        Some(Command::Run(args)) => run::main(&args, quiet),
        #[cfg(unix)]
        Some(Command::Wrap(args)) => wrap::main(&args, quiet),
        Some(Command::Campaign(args)) => campaign::main(&args, quiet),
        Some(Command::Guest(args)) => guest::main(&args, quiet),
        Some(Command::Ledger(args)) => ledger::main(&args),
        Some(Command::Completions(args)) => manual::completions(&args),
        Some(Command::Man(args)) => manual::man(&args),
        None => help(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            out::stderr(format!("{}: {failure}", style::bad("error")));
            ExitCode::from(failure.code)
        }
    }
}
