//! The lab's packages, by a private apt: `seawall_linux::apt` with the lab's suites, steps and errors.

use std::path::{Path, PathBuf};

use seawall_linux::apt;

pub(crate) use apt::Candidate;

use super::error::Result;
use super::host;
use super::progress::Step;

/// Debian 13 for what must stay, its backports for the kernel; and where newer versions come first.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
const UNSTABLE: &str = "sid";

/// A private apt, of arm64 unless told otherwise.
pub(crate) struct Apt(apt::Apt);

impl Apt {
    /// In a folder of its own; nothing is fetched yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(apt::Apt::new(folder, &SUITES))
    }

    /// The same for another architecture, by dpkg's name of it.
    pub(crate) fn for_architecture(folder: PathBuf, architecture: &str) -> Self {
        Self(apt::Apt::for_architecture(folder, &SUITES, architecture))
    }

    /// The same for the host's own suite and architecture: what is unpacked runs here.
    ///
    /// # Errors
    /// Unavailable: the host is no Debian.
    pub(crate) fn of_host(folder: PathBuf) -> Result<Self> {
        Ok(Self(apt::Apt::for_architecture(folder, &[&host::suite()?], &host::architecture()?)))
    }

    /// Adds Debian's unstable suite to what there is.
    pub(crate) fn add_sid(&self) {
        self.0.add(UNSTABLE);
    }

    /// The names of all packages that begin like this.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.0.names(prefix, &|_| ())?)
    }

    /// The versions of a package: the best of each name first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<Candidate>> {
        Ok(self.0.versions(package, &|_| ())?)
    }

    /// Fetches a package with all that it depends on, and unpacks what is `wanted` of them into a folder.
    pub(crate) fn unpack_with_dependencies(
        &self,
        step: &Step,
        package: &str,
        wanted: &dyn Fn(&str) -> bool,
        into: &Path,
    ) -> Result<()> {
        Ok(self.0.unpack_with_dependencies(package, &[], wanted, into, &|text| step.note(text))?)
    }

    /// Fetches a package, written as apt writes it, and unpacks it into a folder.
    pub(crate) fn unpack(&self, step: &Step, package: &str, into: &Path) -> Result<()> {
        Ok(self.0.unpack(package, into, &|text| step.note(text)).map(drop)?)
    }

    /// Fetches the upstream tarball of a source package of Debian 13, where the version stays the same but for its last
    /// digit.
    pub(crate) fn tarball(&self, step: &Step, source: &str) -> Result<PathBuf> {
        Ok(self.0.tarball(source, &|text| step.note(text))?)
    }
}
