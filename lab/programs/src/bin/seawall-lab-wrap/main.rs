//! `seawall-lab-wrap`: VMMs that are not changed, under `seawall wrap`, on the lab's KVM; and their memory goes bad.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod lines;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod monitor;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod ram;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod scenarios;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod vmm;

use std::process::ExitCode;

use clap::Parser as _;
use seawall_lab::options::Wrap;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> ExitCode {
    let options = Wrap::parse();
    if options.list {
        print!("{}", Wrap::list());
        return ExitCode::SUCCESS;
    }
    let mut report = seawall_lab::report::Report::default();
    for scenario in options.scenarios() {
        scenarios::run(scenario, &mut report, &options);
    }
    println!("{}", report.summary());
    if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> ExitCode {
    let _ = Wrap::parse();
    eprintln!("seawall-lab-wrap: not available here: `cargo xtask lab wrap` runs it in the lab");
    ExitCode::from(2)
}
