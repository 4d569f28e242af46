//! `seawall-lab-contain`: memory errors under guests of real KVM, contained, and judged by the guests' own
//! output.
//!
//! Each scenario boots Debian's kernel, or a bare-metal guest, on `seawall-vmm`, turns memory bad by the
//! lab's poison register or `MADV_HWPOISON`, and compares the guest's console and the injections with literal
//! expectations. It prints one line: `pass` or `FAIL`, name, seconds, the finding. The exit code is 0 if all
//! passed.
//!
//! `cargo xtask lab contain` builds and brings in all needed files (`files.rs`).
#![cfg_attr(not(all(target_os = "linux", target_arch = "aarch64")), allow(dead_code))]

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
use seawall_lab::report;

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
use seawall_lab::options::Contain;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> ExitCode {
    if let Some(code) = scenarios::child_if_asked() {
        return code;
    }
    let options = Contain::parse();
    if options.list {
        print!("{}", Contain::list());
        return ExitCode::SUCCESS;
    }
    let mut report = report::Report::default();
    for scenario in options.scenarios() {
        scenarios::run(scenario, &mut report, options.console);
    }
    println!("{}", report.summary());
    if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> ExitCode {
    let _ = Contain::parse();
    eprintln!("seawall-lab-contain: not available here: `cargo xtask lab contain` runs it in the lab");
    ExitCode::from(2)
}
