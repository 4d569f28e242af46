//! The `seawall` command.
#![forbid(unsafe_code)]

mod check;
mod decode;
mod demo;
mod guest;
mod out;
mod parse;
mod probe;
mod run;
mod style;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Contain uncorrectable memory errors in Arm virtual machines.
///
/// When an Arm VM touches memory that the hardware could not correct, KVM by default panics the whole
/// guest. Seawall injects the abort as it happened, so that only what used the memory is lost. This
/// command shows it on a software Arm machine with memory that can go bad: no Arm hardware, no root.
#[derive(Parser)]
#[command(name = "seawall", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Start here:
  seawall demo                            what survives, under three policies, side by side
  seawall decode 0x92000210               an ESR in words
  dmesg | seawall decode --log            what a log says of aborts and hardware errors
  seawall check                           does this host treat external aborts right?
  seawall probe                           what this host offers, and advice
  seawall run --kernel vmlinuz --initrd initrd.gz
                                          Linux on the software machine, on any host
  seawall run --kernel guest.elf --poison 0x40210000@100000
                                          your own bare-metal guest, with memory that goes bad

Exit codes:
  0  done; the guest powered itself off    6  stopped: the guest took the same abort for ever
  1  an outcome was not what it must be    7  the guest needs what the machine does not have
  2  wrong usage                           8  the guest asked for a reset
  3  a file cannot be read or written,     9  what was asked for is not available on this host
     or is no guest                       10  the guest's kernel panicked
  4  a range is not in memory             11  the guest does not fit into its memory
  5  the guest hung: limit reached, or idle for ever";

#[derive(Subcommand)]
enum Command {
    /// Run one guest three times with the same two memory errors, and show what survived each policy.
    Demo(demo::Args),
    /// Check how external aborts are treated, on the software machine or on this host's KVM.
    Check(check::Args),
    /// Show what this host offers: its KVM, injections, errors, memory; with advice.
    Probe(probe::Args),
    /// Explain an ESR, DFSR, IFSR, SPSR, a kvm_vcpu_events, a record of an error (CPER), or a whole log.
    Decode(decode::Args),
    /// Run a guest of your own, Linux or bare metal, with poison where and when you say.
    Run(Box<run::Args>),
    /// Get a Linux guest: Debian's kernel, and an initramfs with a workload.
    Guest(guest::Args),
}

/// The exit codes; `AFTER_HELP` explains them.
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
}

/// What a command failed with: an exit code, and what to do about it.
#[derive(Debug, thiserror::Error)]
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

/// `seawall` alone: what it can do.
fn help() -> Result<u8, Failure> {
    out::stdout(&Cli::command().render_help().ansi().to_string())?;
    Ok(0)
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Some(Command::Demo(args)) => demo::main(&args),
        Some(Command::Check(args)) => check::main(&args),
        Some(Command::Probe(args)) => probe::main(&args),
        Some(Command::Decode(args)) => decode::main(&args),
        Some(Command::Run(args)) => run::main(&args),
        Some(Command::Guest(args)) => guest::main(&args),
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
