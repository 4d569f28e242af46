//! `seawall-lab-contain`: memory errors under guests of real KVM, contained, judged by what the guest itself says.
//!
//! Each scenario boots Debian's kernel, or a bare-metal guest, on `seawall-vmm`, turns memory bad by the lab's poison
//! register or `MADV_HWPOISON`, and compares the guest's console and what was injected with literal expectations. One
//! line each: `pass` or `FAIL`, name, seconds, what was seen. Exit code 0 if all passed.
//!
//! `cargo xtask lab contain` builds and brings in what it takes (`files.rs`).
#![forbid(unsafe_code)]
#![cfg_attr(not(all(target_os = "linux", target_arch = "aarch64")), allow(dead_code))]

mod report;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod files;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod linux;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod scenarios;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

/// Memory errors under guests of real KVM, contained; judged by what the guests say. Runs in the lab
#[derive(clap::Parser)]
#[command(name = "seawall-lab-contain", version)]
struct Options {
    /// Run these only
    #[arg(value_name = "SCENARIO")]
    only: Vec<String>,
    /// Print the scenarios and end
    #[arg(long)]
    list: bool,
    /// Print each guest's console, also where a scenario passed
    #[arg(long)]
    console: bool,
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> ExitCode {
    use scenarios::{SCENARIOS, child_if_asked};

    if let Some(code) = child_if_asked() {
        return code;
    }
    let options = Options::parse();
    if options.list {
        for scenario in SCENARIOS {
            println!("{:<14} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options.only.iter().find(|name| SCENARIOS.iter().all(|known| known.name != **name))
    {
        eprintln!("seawall-lab-contain: no scenario {unknown:?}: see --list");
        return ExitCode::from(2);
    }
    let is_wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut report = report::Report::default();
    for scenario in SCENARIOS.iter().filter(|scenario| is_wanted(scenario.name)) {
        scenario.run(&mut report, options.console);
    }
    println!("{}", report.summary());
    if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> ExitCode {
    let _ = Options::parse();
    eprintln!("seawall-lab-contain: not available here: `cargo xtask lab contain` runs it in the lab");
    ExitCode::from(2)
}
