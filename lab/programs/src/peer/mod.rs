//! Debian's own QEMU for arm64 as a VMM with records of errors, and the bare-metal guest that it runs: for
//! `seawall-lab-bench`, and for `seawall-lab-wrap`.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub mod conductor;
pub mod image;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub mod qemu;
