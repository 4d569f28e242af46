//! A VMM of rust-vmm's crates that knows nothing of Seawall, for `cargo xtask lab wrap`: dynamically linked, and its vCPU's
//! thread has a seccomp filter that forbids reading registers and injecting events.
//!
//! ```text
//! seawall-lab-small-vmm FILE loads FIRST COUNT STEP   # the guest loads from COUNT addresses, STEP bytes apart
//! seawall-lab-small-vmm FILE vms FIRST COUNT          # COUNT VMs one after the other, each of which loads from FIRST
//! seawall-lab-small-vmm FILE exits COUNT              # COUNT exits, and how long the quickest 64 of them took
//! ```
//!
//! FILE is the guest's memory, at 0x40000000. What the guest met is told on stdout: `load 0xADDRESS: VALUE` or `abort
//! 0xADDRESS: ESR 0xX FAR 0xX`, of more than 16 of them the numbers alone; then `files N memory N` at the begin and at the
//! end, and `end`.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[allow(unsafe_code)]
mod guest;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[allow(unsafe_code)]
mod vmm;

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match vmm::work(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seawall-lab-small-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> ExitCode {
    eprintln!("seawall-lab-small-vmm: not available here: `cargo xtask lab wrap` runs it in the lab");
    ExitCode::from(2)
}
