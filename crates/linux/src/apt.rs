//! Debian's packages by a private apt: its own sources, lists and cache, from the mirror of the host's apt.
//! It needs no root, and changes nothing of the host's own apt.
//!
//! apt verifies each download: the suite's signature by Debian's archive keys, the lists by the suite's
//! hashes, the packages by the lists' hashes.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::files;
use crate::process::{self, Note, cannot_run};

/// Paths of Debian's archive keys; without them nothing is accepted.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
/// The variable with a Debian mirror for hosts whose apt has none, such as Ubuntu.
const MIRROR: &str = "SEAWALL_DEBIAN_MIRROR";
/// Advice for a host without apt or a network.
const BY_HAND: &str = "fetch on a Debian host, or give an arm64 kernel and a static arm64 busybox yourself";

/// A version of a package in a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The package's name.
    pub package: String,
    /// The version as Debian writes it.
    pub version: String,
}

/// A private apt.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    architecture: String,
    /// The suites; the first one has the sources as well.
    suites: RefCell<Vec<String>>,
    updated: Cell<bool>,
}

impl Apt {
    /// An apt in its own folder, for packages of these suites for arm64; nothing is fetched yet. Two
    /// processes must not use one folder at once: there is no other lock, because the host's own apt is not
    /// involved.
    pub fn new(folder: PathBuf, suites: &[&str]) -> Self {
        Self::for_architecture(folder, suites, "arm64")
    }

    /// The same for another architecture, by dpkg's name.
    pub fn for_architecture(folder: PathBuf, suites: &[&str], architecture: &str) -> Self {
        let suites = suites.iter().map(ToString::to_string).collect();
        let architecture = architecture.to_owned();
        Self { folder, architecture, suites: RefCell::new(suites), updated: Cell::new(false) }
    }

    /// Adds a suite, at the cost of a larger list.
    pub fn add(&self, suite: &str) {
        if self.suites.borrow().iter().all(|known| known != suite) {
            self.suites.borrow_mut().push(suite.to_owned());
            self.updated.set(false);
        }
    }

    /// The names of all packages with this prefix.
    ///
    /// # Errors
    /// [`Error`].
    pub fn names(&self, prefix: &str, note: Note<'_>) -> Result<Vec<String>> {
        self.update(note)?;
        let output = self.ask(&["pkgnames", prefix])?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// The versions of a package, in apt's order: the best of each name first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn versions(&self, package: &str, note: Note<'_>) -> Result<Vec<Candidate>> {
        self.update(note)?;
        let output = self.ask(&["madison", package])?;
        Ok(candidates(&output))
    }

    /// Fetches a package in apt's notation (`NAME`, `NAME=VERSION`, `NAME:arm64`), and unpacks it into a
    /// folder. Returns the name of the package's file, which contains its version and architecture.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not available, and [`Error`].
    pub fn unpack(&self, package: &str, into: &Path, note: Note<'_>) -> Result<String> {
        let folder = self.empty_folder(package)?;
        let mut command = self.tool("apt-get");
        command.args(["download", package]).current_dir(&folder);
        let package_file = self.fetch(command, &folder, "deb", note)?;
        files::create_folder(into)?;
        self.unpack_file(&package_file, into, note)?;
        let name = package_file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files::remove_folder(&folder)?;
        Ok(name)
    }

    /// Fetches a package with all its dependencies, even those that the host has, except for the packages in
    /// `left_out`; then unpacks the `wanted` ones (by the package's name) into a folder. Recommended packages
    /// are not fetched.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not available, and [`Error`].
    pub fn unpack_with_dependencies(
        &self,
        package: &str,
        left_out: &[&str],
        wanted: &dyn Fn(&str) -> bool,
        into: &Path,
        note: Note<'_>,
    ) -> Result<()> {
        let folder = self.empty_folder(&format!("{package}-and-dependencies"))?;
        files::create_folder(&folder.join("partial"))?;
        let status = self.folder.join("status");
        files::write(&status, installed(left_out))?;
        let architecture = &self.architecture;
        let mut command = self.tool("apt-get");
        command
            .args(["install", "--yes", "--download-only", "--no-install-recommends"])
            // As if nothing else were installed, on a host of that architecture.
            .args(["-o", "Debug::NoLocking=true", "-o"])
            .arg(format!("Dir::State::status={}", status.display()))
            .args(["-o", &format!("APT::Architecture={architecture}")])
            .args(["-o", &format!("APT::Architectures::={architecture}")])
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", folder.display()))
            .arg(package);
        self.fetch(command, &folder, "deb", note)?;
        files::create_folder(into)?;
        for path in files::list(&folder)? {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = file.strip_suffix(".deb").and_then(|file| file.split('_').next());
            if name.is_some_and(wanted) {
                self.unpack_file(&path, into, note)?;
            }
        }
        files::remove_folder(&folder)
    }

    fn unpack_file(&self, package_file: &Path, into: &Path, note: Note<'_>) -> Result<()> {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(package_file).arg(into);
        process::run(&mut command, &self.folder.join("dpkg.log"), note)
    }

    /// Fetches the upstream tarball of a source package of the first suite, of any size.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not available, and [`Error`].
    pub fn tarball(&self, source: &str, note: Note<'_>) -> Result<PathBuf> {
        let folder = self.empty_folder(&format!("source-{source}"))?;
        let suite = self.suites.borrow().first().cloned().unwrap_or_default();
        let mut command = self.tool("apt-get");
        command.args([
            "source",
            "--download-only",
            "--tar-only",
            "--only-source",
            "--target-release",
            &suite,
        ]);
        command.arg(source).current_dir(&folder);
        self.fetch(command, &folder, "xz", note)
    }

    fn empty_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join("downloads").join(name.replace(['/', ':', '='], "_"));
        files::remove_folder(&folder)?;
        files::create_folder(&folder)?;
        Ok(folder)
    }

    /// The file that an apt command put into the folder.
    fn fetch(&self, mut command: Command, folder: &Path, extension: &str, note: Note<'_>) -> Result<PathBuf> {
        self.update(note)?;
        process::run(&mut command, &self.folder.join("download.log"), note).map_err(unavailable)?;
        let mut found = files::list(folder)?.into_iter();
        let found = found.find(|path| path.extension().is_some_and(|of_path| of_path == extension));
        found.ok_or_else(|| Error::unavailable(format!("apt fetched no *.{extension}"), BY_HAND))
    }

    /// Fetches the lists, once for all suites.
    fn update(&self, note: Note<'_>) -> Result<()> {
        if self.updated.get() {
            return Ok(());
        }
        note("Debian's package lists");
        let mirror = mirror()?;
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
            Error::unavailable("Debian's archive keys are missing", "install debian-archive-keyring")
        })?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            files::create_folder(&self.folder.join(folder))?;
        }
        let sources = sources(&mirror, keyring, &self.suites.borrow(), &self.architecture);
        files::write(&self.folder.join("sources.list"), sources)?;
        files::write(&self.folder.join("apt.conf"), configuration(&self.folder))?;
        let mut command = self.tool("apt-get");
        command.args(["update", "--error-on=any"]);
        process::run(&mut command, &self.folder.join("update.log"), note).map_err(unavailable)?;
        self.updated.set(true);
        Ok(())
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.tool("apt-cache").args(arguments).output();
        let output = output.map_err(|error| cannot_run("apt-cache", &error))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The error of a program whose download failed.
fn unavailable(error: Error) -> Error {
    match error {
        Error::Program { .. } => {
            Error::unavailable(error.to_string(), format!("is there a network? Else {BY_HAND}"))
        }
        other => other,
    }
}

/// The Debian mirror that the host's apt uses.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR) {
        return Ok(mirror);
    }
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let output = command
        .output()
        .map_err(|error| Error::unavailable(format!("cannot run apt-get: {error}"), BY_HAND))?;
    archive(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        Error::unavailable(
            "the host's apt uses no mirror of Debian",
            format!("name one in {MIRROR}, as it would stand in sources.list; or {BY_HAND}"),
        )
    })
}

/// The main archive among apt's addresses: those of security updates and of other vendors have another
/// ending.
fn archive(addresses: &str) -> Option<String> {
    addresses.lines().find(|line| line.trim_end_matches('/').ends_with("/debian")).map(str::to_owned)
}

/// A dpkg `status` file that lists these packages as installed, in any version.
fn installed(packages: &[&str]) -> String {
    if packages.is_empty() {
        return String::new();
    }
    let provided: Vec<String> = packages.iter().map(|package| format!("{package} (= 1000)")).collect();
    format!(
        "Package: seawall-left-out\n\
         Status: install ok installed\n\
         Maintainer: none\n\
         Architecture: all\n\
         Version: 1\n\
         Provides: {}\n\
         Description: packages that are not fetched\n",
        provided.join(", ")
    )
}

/// The private `sources.list`: one architecture (with the packages for all), and sources of the first suite.
fn sources(mirror: &str, keyring: &str, suites: &[String], architecture: &str) -> String {
    let mut lines = String::new();
    if let Some(suite) = suites.first() {
        let _ = writeln!(lines, "deb-src [signed-by={keyring}] {mirror} {suite} main");
    }
    for suite in suites {
        let _ = writeln!(lines, "deb [arch={architecture} signed-by={keyring}] {mirror} {suite} main");
    }
    lines
}

/// The private `apt.conf`.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"2\";\n"
    )
}

/// The candidates in the output of `apt-cache madison`: `PACKAGE | VERSION | ADDRESS SUITE ARCHITECTURE
/// Packages`; sources are left out.
fn candidates(madison: &str) -> Vec<Candidate> {
    let lines = madison.lines().filter(|line| line.ends_with(" Packages"));
    let fields = lines.filter_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        Some(Candidate { package: fields.next()?.to_owned(), version: fields.next()?.to_owned() })
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_the_mirror_that_ends_in_debian() {
        let addresses =
            "https://a.example/apt/\nhttp://m.example/debian-security/\nhttp://m.example/debian/\n";
        assert_eq!(archive(addresses).as_deref(), Some("http://m.example/debian/"));
        assert_eq!(archive("http://m.example/debian").as_deref(), Some("http://m.example/debian"));
        assert_eq!(archive("http://m.example/ubuntu/\n"), None);
    }

    #[test]
    fn packages_that_are_left_out_are_there_already_for_apt() {
        assert_eq!(installed(&[]), "");
        let status = installed(&["gcc", "binutils"]);
        assert!(status.contains("\nProvides: gcc (= 1000), binutils (= 1000)\n"), "{status}");
        assert!(status.contains("\nStatus: install ok installed\n"), "{status}");
    }

    #[test]
    fn versions_are_read_from_madison_without_sources() {
        let madison = "\
linux-source-7.2 | 7.2.12-1~bpo13+1 | http://m.example/debian trixie-backports/main arm64 Packages
linux-source-7.2 | 7.2.11-1~bpo13+1 | http://m.example/debian trixie-backports/main arm64 Packages
     linux | 7.2.12-1~bpo13+1 | http://m.example/debian trixie-backports/main Sources
";
        let candidate =
            |version: &str| Candidate { package: "linux-source-7.2".into(), version: version.into() };
        assert_eq!(candidates(madison), [candidate("7.2.12-1~bpo13+1"), candidate("7.2.11-1~bpo13+1")]);
        assert_eq!(candidates(""), []);
    }

    #[test]
    fn sources_name_the_mirror_the_keys_and_each_suite() {
        let suites = ["trixie", "trixie-backports"].map(str::to_owned);
        assert_eq!(
            sources("http://m.example/debian/", "/keys", &suites, "arm64"),
            "deb-src [signed-by=/keys] http://m.example/debian/ trixie main\n\
             deb [arch=arm64 signed-by=/keys] http://m.example/debian/ trixie main\n\
             deb [arch=arm64 signed-by=/keys] http://m.example/debian/ trixie-backports main\n"
        );
    }
}
