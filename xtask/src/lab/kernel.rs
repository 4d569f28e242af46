//! Debian's own kernel for arm64 and its busybox: nothing of them is built or changed.

use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::cache::Cached;
use super::error::{Error, Result};
use super::progress::Step;
use super::{Folders, files};

/// What is booted.
pub(crate) struct Kernel {
    /// An arm64 Image, not compressed.
    pub(crate) image: PathBuf,
    /// Static.
    pub(crate) busybox: PathBuf,
    /// As `uname -r` says it: `7.2.12+deb13-cloud-arm64`.
    pub(crate) release: String,
}

/// `KVM_EXIT_ARM_SEA` came in 6.19; all that was measured was measured on 7.x.
const OLDEST: [u32; 3] = [7, 0, 0];
const PREFIX: &str = "linux-binary-";
const SUFFIX: &str = "-cloud-arm64";
/// A version whose package was removed already is passed over, this many times.
const TRIES: usize = 3;
const BUSYBOX: &str = "usr/bin/busybox";
/// Changed when this file makes something else of the packages.
const KEY: &str = "1";

/// The newest kernel that was there when the lab was first made. To have a newer one, remove the folder.
pub(crate) fn prepare(folders: &Folders, apt: &Apt) -> Result<Kernel> {
    let cached = Cached::new(folders.target.join("kernel"), KEY);
    cached.make(|folder| fetch(folder, apt))?;
    let modules = cached.folder.join("usr/lib/modules");
    let release = files::list(&modules)?.into_iter().next_back();
    let release = release.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let release = release.ok_or_else(|| {
        Error::failed(format!("no kernel in {}", modules.display()))
            .advise(format!("remove {} and try again", cached.folder.display()))
    })?;
    Ok(Kernel {
        image: modules.join(&release).join("vmlinuz"),
        busybox: cached.folder.join(BUSYBOX),
        release,
    })
}

fn fetch(folder: &Path, apt: &Apt) -> Result<()> {
    let step = Step::begin("Debian's kernel for arm64");
    let mut failure = None;
    let mut fetched = None;
    for sid in [false, true] {
        if sid {
            apt.add_sid();
        }
        for name in newest(&apt.names(PREFIX)?).iter().take(TRIES) {
            match apt.unpack(&step, name, folder) {
                Ok(()) => {
                    fetched = Some(name.clone());
                    break;
                }
                Err(error) => failure = Some(error),
            }
        }
        if fetched.is_some() {
            break;
        }
    }
    let name = fetched.ok_or_else(|| {
        let error = Error::unavailable(format!("no package {PREFIX}7.*{SUFFIX} on the mirror"));
        failure.unwrap_or(error).advise("Debian's trixie-backports or sid must be reachable")
    })?;
    apt.unpack(&step, "busybox-static:arm64", folder)?;
    let release = name.trim_start_matches(PREFIX);
    let image = folder.join("usr/lib/modules").join(release).join("vmlinuz");
    if !is_image(&files::read(&image)?) {
        return Err(Error::failed(format!("{} is no plain arm64 Image", image.display())));
    }
    step.done(release);
    Ok(())
}

/// The kernels among packages' names, the newest first.
fn newest(names: &[String]) -> Vec<String> {
    let with_version = names.iter().filter_map(|name| Some((version(name)?, name)));
    let mut kernels: Vec<_> = with_version.filter(|(version, _)| *version >= OLDEST).collect();
    kernels.sort();
    kernels.into_iter().rev().map(|(_, name)| name.clone()).collect()
}

/// The version in the name of a kernel's package, if it is one that the lab boots: `linux-binary-7.2.12+deb13-cloud-arm64`.
fn version(name: &str) -> Option<[u32; 3]> {
    let release = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let numbers = release.split(['+', '-', '~']).next()?;
    let mut parts = numbers.split('.').map(str::parse);
    let mut next = || parts.next().unwrap_or(Ok(0)).ok();
    Some([next()?, next()?, next()?])
}

/// The magic number of Documentation/arch/arm64/booting.rst.
fn is_image(content: &[u8]) -> bool {
    content.get(0x38..0x3c) == Some(b"ARM\x64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_greatest_version() {
        let names = [
            "linux-binary-7.2.9+deb13-cloud-arm64",
            "linux-binary-6.19.14+deb13-cloud-arm64",
            "linux-binary-7.2.12+deb13-cloud-arm64",
            "linux-binary-7.2.12+deb13-arm64-16k",
            "linux-binary-7.2.12+deb13-rt-arm64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-arm64",
            "linux-binary-7.1.13+deb13-cloud-arm64",
        ];
        assert_eq!(
            newest(&names.map(str::to_owned)),
            [
                "linux-binary-7.2.12+deb13-cloud-arm64",
                "linux-binary-7.2.9+deb13-cloud-arm64",
                "linux-binary-7.1.13+deb13-cloud-arm64",
            ]
        );
    }

    #[test]
    fn a_release_candidate_has_a_version() {
        assert_eq!(version("linux-binary-7.3-rc2+deb14-cloud-arm64"), Some([7, 3, 0]));
        assert_eq!(version("linux-binary-7.3.4-cloud-arm64"), Some([7, 3, 4]));
        assert_eq!(version("linux-binary-cloud-arm64"), None);
    }

    #[test]
    fn an_image_has_its_magic_number() {
        let mut image = vec![0; 64];
        assert!(!is_image(&image));
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert!(is_image(&image));
        assert!(!is_image(b"MZ"));
    }
}
