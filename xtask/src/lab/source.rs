//! Linux's source, as Debian packs it.

use std::path::Path;
use std::process::Command;

use super::apt::{Apt, Candidate};
use super::error::{Error, Result};
use super::progress::Step;
use super::{Folders, files};

/// What Debian's packages of it are named by.
const PREFIX: &str = "linux-source-";

/// Depends on the newest.
const NEWEST: &str = "linux-source";

/// A package with the source of a kernel.
pub(crate) struct Source {
    /// `linux-source-7.3`.
    name: String,
    /// Of the package.
    version: String,
}

impl Source {
    /// That of a kernel (`7.2.12+deb13-cloud-arm64`): of the very version if it is there, else of its series.
    pub(crate) fn of(release: &str, apt: &Apt) -> Result<Self> {
        let mut numbers = release.split('.');
        let series = format!("{}.{}", numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let name = format!("{PREFIX}{series}");
        let candidates = apt.versions(&name)?;
        let version = closest(&candidates, release).ok_or_else(|| {
            Error::unavailable(format!("no package {name} on the mirror"))
                .advise("remove target/lab/kernel, so that a kernel is taken whose source is there")
        })?;
        Ok(Self { version: version.to_owned(), name })
    }

    /// The newest that the mirror has.
    pub(crate) fn newest(apt: &Apt) -> Result<Self> {
        let packages = apt.versions(NEWEST)?;
        let newest = packages.first().ok_or_else(|| {
            Error::unavailable(format!("no package {NEWEST} on the mirror"))
                .advise("name a mirror that has Debian's backports")
        })?;
        Self::of(upstream(&newest.version), apt)
    }

    /// As apt writes it.
    pub(crate) fn package(&self) -> String {
        format!("{}={}", self.name, self.version)
    }

    /// Fetches the package (160 MB) and unpacks parts of the tree, or all but some; a folder `package` beside is used
    /// meanwhile.
    pub(crate) fn unpack(
        &self,
        step: &Step,
        apt: &Apt,
        folders: &Folders,
        parts: &Parts<'_>,
        into: &Path,
    ) -> Result<()> {
        let Self { name, .. } = self;
        let unpacked = into.with_extension("package");
        apt.unpack(step, &self.package(), &unpacked)?;
        files::create_folder(into)?;
        let mut tar = Command::new("tar");
        tar.arg("-xJf").arg(unpacked.join("usr/src").join(format!("{name}.tar.xz")));
        tar.arg("-C").arg(into).arg("--strip-components=1");
        match parts {
            Parts::These(parts) => tar.args(parts.iter().map(|part| format!("{name}/{part}"))),
            Parts::AllBut(parts) => tar.args(parts.iter().map(|part| format!("--exclude={name}/{part}"))),
        };
        step.run(&mut tar, &folders.logs.join("source-unpack.log"))?;
        files::remove_folder(&unpacked)
    }
}

/// What of the tree is unpacked; patterns as tar(1) takes them.
pub(crate) enum Parts<'a> {
    /// These.
    These(&'a [&'a str]),
    /// All but these.
    AllBut(&'a [&'a str]),
}

/// The candidate of a kernel's version (7.2.12 of `7.2.12+deb13-cloud-arm64`), else apt's first.
fn closest<'a>(candidates: &'a [Candidate], release: &str) -> Option<&'a str> {
    let version = release.split('+').next().unwrap_or_default();
    let of_kernel = |candidate: &&Candidate| {
        candidate.version.strip_prefix(version).is_some_and(|rest| rest.starts_with(['-', '~']))
    };
    candidates.iter().find(of_kernel).or(candidates.first()).map(|candidate| candidate.version.as_str())
}

/// Linux's version in a package's: 7.3.4 of `7.3.4-1~bpo13+1`.
fn upstream(version: &str) -> &str {
    version.split(['-', '~']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_that_of_the_kernel_if_it_is_still_there() {
        let candidates = ["7.2.12-1~bpo13+1", "7.2.1-1~bpo13+1"]
            .map(|version| Candidate { package: "linux-source-7.2".into(), version: version.into() });
        assert_eq!(closest(&candidates, "7.2.1+deb13-cloud-arm64"), Some("7.2.1-1~bpo13+1"));
        assert_eq!(closest(&candidates, "7.2.9+deb13-cloud-arm64"), Some("7.2.12-1~bpo13+1"));
        assert_eq!(closest(&[], "7.2.9+deb13-cloud-arm64"), None);
    }

    #[test]
    fn a_package_has_the_version_of_its_kernel() {
        assert_eq!(upstream("7.3.4-1~bpo13+1"), "7.3.4");
        assert_eq!(upstream("7.4~rc2-1"), "7.4");
    }
}
