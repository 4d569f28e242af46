//! Developer tasks: `cargo xtask TASK`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod diff_isa;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of Seawall")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Random instruction sequences on the machine's CPU and on qemu-aarch64: registers, flags, memory and faults compared
    DiffIsa(diff_isa::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::DiffIsa(options) => diff_isa::run(&options),
    }
}
