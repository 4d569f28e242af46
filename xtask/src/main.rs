//! Developer tasks: `cargo xtask TASK`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod diff_isa;
mod kernel_fit;
mod lab;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of Seawall")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The figures that are promised, measured, beside QEMU's from the same run
    Bench(bench::Options),
    /// Everything that a change must pass: the README's test command
    Ci(ci::Options),
    /// Random instruction sequences on the machine's CPU and on qemu-aarch64: registers, flags, memory and faults compared
    DiffIsa(diff_isa::Options),
    /// Whether the kernel half is fit to run inside a kernel: no path to a panic, no heap, no floats, a bounded stack
    KernelFit,
    /// An Arm server in software with real KVM and poisonable memory: runs a command, a shell, the suites
    Lab(lab::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::DiffIsa(options) => diff_isa::run(&options),
        Task::KernelFit => kernel_fit::run(),
        Task::Lab(options) => lab::run(&options),
    }
}
