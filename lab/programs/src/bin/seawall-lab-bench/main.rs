//! `seawall-lab-bench`: the cost of an injection on real KVM, in calls and in time, compared with the
//! kernel's own.
//!
//! The number of calls is the same on any CPU. Times are those of a software CPU: they say nothing about
//! hardware, but their ratio to the kernel's own data-abort injection in the same run shows where the cost
//! is. A time is the median of the batches' medians; a ratio is the median of the batches' ratios.
//!
//! In addition to single injections it measures the whole path from a memory error to the guest's handler:
//! the shares of our own code and of the kernel, and the time that the guest sees, with Seawall and with
//! QEMU.
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
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod own;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod silent;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod way;

use std::process::ExitCode;

use clap::Parser as _;
use seawall_lab::options::Bench;

fn main() -> ExitCode {
    let options = Bench::parse();
    match run(&options) {
        Ok(is_kept) if is_kept => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seawall-lab-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the bench; returns true if nothing took more calls or time than promised.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn run(options: &Bench) -> Result<bool, Box<dyn std::error::Error>> {
    let not_asked = || "not asked for by --peer".to_owned();
    let peer = options.peer.as_deref().ok_or_else(|| options.no_peer.clone().unwrap_or_else(not_asked));
    let report = measure::report(options.batches, options.repeat, &peer)?;
    if options.json {
        println!("{:#}", table::json(&report));
    } else {
        print!("{}", table::text(&report));
    }
    Ok(report.is_kept())
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn run(_: &Bench) -> Result<bool, Box<dyn std::error::Error>> {
    Err("not available here: this needs /dev/kvm on aarch64 Linux; `cargo xtask lab bench` runs it in the lab".into())
}
