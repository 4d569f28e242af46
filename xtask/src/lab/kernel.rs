//! Debian's own kernel for arm64 and its busybox: nothing of them is built or changed.

use std::path::PathBuf;

use seawall_linux::Fetch;

use super::Folders;
use super::error::Result;
use super::progress::Step;

/// What is booted.
pub(crate) struct Kernel {
    /// As Debian ships it.
    pub(crate) image: PathBuf,
    /// Busybox and a workload.
    pub(crate) initrd: PathBuf,
    /// Static.
    pub(crate) busybox: PathBuf,
    /// Its modules for a virtio disk with ext4, in the order in which they load.
    pub(crate) storage: Vec<PathBuf>,
    /// As `uname -r` says it: `7.2.12+deb13-cloud-arm64`.
    pub(crate) release: String,
}

/// The newest kernel that was there when the lab was first made. To have a newer one, remove the folder.
pub(crate) fn prepare(folders: &Folders) -> Result<Kernel> {
    let fetch = Fetch::new(folders.target.join("kernel"));
    let step = Step::begin("Debian's kernel for arm64");
    let guest = fetch.guest(&|text| step.note(text))?;
    step.done(&guest.release);
    let seawall_linux::Guest { kernel: image, initrd, busybox, storage, release, .. } = guest;
    Ok(Kernel { image, initrd, busybox, storage, release })
}
