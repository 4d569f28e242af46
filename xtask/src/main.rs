//! Developer tasks: `cargo xtask TASK`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod kernel;
mod lab;
mod tool;

/// This program, also after cargo has built it again. Linux, proc_pid_exe(5).
const OWN: &str = "/proc/self/exe";

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
    /// tools/diff-isa: the machine's CPU against qemu-aarch64 in random instruction sequences
    #[command(disable_help_flag = true)]
    DiffIsa(tool::Arguments),
    /// Linux with the kernel half in it: built, put into a tree of yours, tested
    Kernel(kernel::Options),
    /// tools/kernel-fit: the objects of the kernel half can be linked into a kernel
    #[command(disable_help_flag = true)]
    KernelFit(tool::Arguments),
    /// An Arm server in software with real KVM and poisonable memory: runs a command, a shell, the suites
    Lab(Box<lab::Options>),
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::DiffIsa(arguments) => tool::run("seawall-diff-isa", &arguments),
        Task::Kernel(options) => kernel::run(&options),
        Task::KernelFit(arguments) => tool::run("seawall-kernel-fit", &arguments),
        Task::Lab(options) => lab::run(&options),
    }
}
