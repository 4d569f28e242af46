//! Programs that run inside the lab (`cargo xtask lab`), against real KVM: one binary each in `src/bin`.
#![forbid(unsafe_code)]

pub mod diff;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub mod migrate;
pub mod options;
pub mod peer;
pub mod report;
mod transcript;

pub use transcript::Transcript;
