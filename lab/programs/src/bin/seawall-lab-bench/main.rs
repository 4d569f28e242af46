//! `seawall-lab-bench`: what an injection costs on real KVM, in calls and in time, against the kernel's own.
//!
//! Calls are counted, and are what they are on any CPU. Times are those of a software CPU: they say nothing of
//! hardware's, but their ratio to the kernel's own data-abort injection in the same run says where the cost is.
//! A time is the median of the batches' medians; a ratio is the median of the batches' ratios.
#![forbid(unsafe_code)]
#![cfg_attr(not(all(target_os = "linux", target_arch = "aarch64")), allow(dead_code))]

mod figure;
mod table;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod counting;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod guest;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod measure;

use std::process::ExitCode;

use clap::Parser as _;

/// What an injection costs on real KVM: calls, and time against the kernel's own data abort. Runs in the lab
#[derive(clap::Parser)]
#[command(name = "seawall-lab-bench", version)]
struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// How many batches; the median counts
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// How often each case is timed in a batch; the median counts
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(is_kept) if is_kept => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seawall-lab-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether no case took more calls than promised.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let report = measure::report(options.batches, options.repeat)?;
    if options.json {
        println!("{:#}", table::json(&report));
    } else {
        print!("{}", table::text(&report));
    }
    Ok(report.figures.iter().all(figure::Figure::is_kept))
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn run(_: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    Err("not available here: this needs /dev/kvm on aarch64 Linux; `cargo xtask lab bench` runs it in the lab".into())
}
