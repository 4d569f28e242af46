//! `/dev/kvm` as a backend, where there is one.

use std::sync::Arc;

use crate::backend::{Backend, Error};

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod host;

/// `/dev/kvm` of an arm64 Linux host. What it [offers](Backend::offers) is asked of the host; poison is had in
/// the lab only (`cargo xtask lab`).
///
/// As root, scenarios about SIGBUS take a few pages of the host's memory out of use by `MADV_HWPOISON`, until
/// it is started anew.
///
/// # Errors
/// Why there is none, and what to do.
pub fn kvm() -> Result<Arc<dyn Backend>, Error> {
    open()
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn open() -> Result<Arc<dyn Backend>, Error> {
    Ok(Arc::new(host::Host::open()?))
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn open() -> Result<Arc<dyn Backend>, Error> {
    match seawall_kvm::Kvm::open() {
        Ok(kvm) => match kvm {},
        Err(error) => Err(Error::Other(error.to_string())),
    }
}
