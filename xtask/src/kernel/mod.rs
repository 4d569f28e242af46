//! `cargo xtask kernel`: Linux with the kernel half in it.

use std::path::PathBuf;
use std::process::ExitCode;

mod apply;
mod bench;
mod build;
mod changes;
mod test;
mod tools;

pub(crate) use build::Built;

use crate::lab::apt::Apt;
use crate::lab::error::Result;
use crate::lab::{self, Folders};

/// What to do with it.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0; 1: a test failed, or a figure is missed; 125: it could not be done; 77: what it \
                        takes cannot be had here."
)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Builds a kernel of Debian's source, for the lab: `cargo xtask lab --kernel seawall`
    Build,
    /// Changes a Linux tree of your own (7.2 or newer); nothing, if anything in it is not what is expected
    Apply {
        /// The source, without these changes
        tree: PathBuf,
    },
    /// Everything that the project says of a kernel, on this one; and its objects' names and stack
    Test {
        /// Only what has this in its name
        #[arg(long, default_value = "", value_name = "TEXT")]
        only: String,
        /// All of it on QEMU, not only what Seawall's machine lacks: AArch32 guests, nested ones, nVHE
        #[arg(long)]
        qemu: bool,
    },
    /// Instructions of each ioctl, ours beside C's, on Seawall's machine
    Bench,
}

/// Does it.
pub(crate) fn run(options: &Options) -> ExitCode {
    lab::ended(match &options.task {
        Task::Build => alone().map(|built| {
            println!("Linux {}: {}", built.release, built.image.display());
            0
        }),
        Task::Test { only, qemu } => test::run(only, *qemu),
        Task::Bench => bench::run(),
        Task::Apply { tree } => apply::run(tree).map(|()| 0),
    })
}

/// The kernel, and no lab.
fn alone() -> Result<Built> {
    let folders = Folders::of_lab()?;
    let apt = Apt::new(folders.target.join("apt"));
    folders.alone(|| prepare(&apt))
}

/// The kernel, built if it is not there or if something of ours changed. The lab's lock is held.
///
/// # Errors
/// A step failed, or something cannot be had here.
pub(crate) fn prepare(apt: &Apt) -> Result<Built> {
    build::prepare(&folders()?, apt)
}

/// Beside the lab's: 2 GB that a lab with Debian's kernel does without.
fn folders() -> Result<Folders> {
    Folders::new(lab::root().join("target/kernel"))
}
