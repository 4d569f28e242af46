//! `/dev/kvm` as a backend, if there is one.

use std::sync::Arc;

use crate::backend::{Backend, Error};

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod host;

/// `/dev/kvm` of an arm64 Linux host. The host answers what it [offers](Backend::offers); only the lab has
/// poison (`cargo xtask lab`).
///
/// As root, scenarios about SIGBUS take a few pages of the host's memory out of use by `MADV_HWPOISON`, until
/// it reboots.
///
/// # Errors
/// The reason why there is none, and advice.
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
