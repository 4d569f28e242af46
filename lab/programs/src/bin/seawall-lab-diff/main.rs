//! `seawall-lab-diff`: the model of the kernel half against the lab's real KVM.

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod campaign;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> ExitCode {
    campaign::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> ExitCode {
    eprintln!("not available here: this compares with /dev/kvm on aarch64 Linux; run it in the lab");
    ExitCode::from(2)
}
