//! Linux's `einj` driver, from Debian's package of the kernel's modules, for a lab whose firmware can inject errors.

use std::path::Path;
use std::process::Command;

use super::cache::Cached;
use super::error::{Error, Result};
use super::initramfs::Guest;
use super::progress::Step;
use super::{Lab, files};

/// Changed when this file makes something else of the package.
const KEY: &str = "1";
/// The driver's place below the kernel's modules.
const DRIVER: &str = "kernel/drivers/acpi/apei/einj.ko.xz";
/// Loads it in the lab.
pub(crate) const LOAD: &str = "insmod /lib/einj.ko";

/// The driver of the lab's kernel, as Debian built it.
pub(crate) fn prepare(lab: &Lab) -> Result<Guest> {
    let release = &lab.kernel.release;
    let cached = Cached::new(lab.folders.target.join("einj"), format!("{KEY} {release}"));
    let host = cached.folder.join("einj.ko");
    lab.folders.alone(|| cached.make(|folder| unpack(folder, &host, lab)))?;
    Ok(Guest { host, lab: "lib/einj.ko".into() })
}

fn unpack(folder: &Path, driver: &Path, lab: &Lab) -> Result<()> {
    let release = &lab.kernel.release;
    let step = Step::begin("Linux's einj driver");
    let package = folder.join("package");
    lab.apt.unpack(&step, &format!("linux-modules-{release}:arm64"), &package)?;
    let packed = package.join("usr/lib/modules").join(release).join(DRIVER);
    let unpacked = Command::new("xz").args(["--decompress", "--stdout"]).arg(&packed).output();
    let unpacked = unpacked.map_err(|error| Error::failed(format!("xz: {error}")))?;
    if !unpacked.status.success() {
        let words = String::from_utf8_lossy(&unpacked.stderr);
        return Err(Error::failed(format!("xz {}: {}", packed.display(), words.trim())));
    }
    files::write(driver, unpacked.stdout)?;
    step.done("");
    files::remove_folder(&package)
}
