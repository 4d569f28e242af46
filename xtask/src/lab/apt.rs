//! Debian's packages by a private apt: own sources, lists and cache, from the mirror that the host's apt uses. No root,
//! and nothing of the host's own apt is changed.

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Error, Result};
use super::files;
use super::progress::Step;

/// Where Debian's archive keys are; without them nothing is taken.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
/// Names a mirror of Debian where the host's apt has none, such as on Ubuntu.
const MIRROR: &str = "SEAWALL_DEBIAN_MIRROR";
/// Debian 13 for what must stay, its backports for the kernel; and where newer kernels come first.
const STABLE: [&str; 2] = ["trixie", "trixie-backports"];
const UNSTABLE: [&str; 3] = ["trixie", "trixie-backports", "sid"];

/// A version of a package that a suite has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) package: String,
    pub(crate) version: String,
}

/// A private apt.
pub(crate) struct Apt {
    folder: PathBuf,
    updated: Cell<bool>,
    with_sid: Cell<bool>,
}

impl Apt {
    /// In a folder of its own; nothing is fetched yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, updated: Cell::new(false), with_sid: Cell::new(false) }
    }

    /// Adds Debian's unstable suite to what there is, at the cost of two larger lists.
    pub(crate) fn add_sid(&self) {
        self.with_sid.set(true);
        self.updated.set(false);
    }

    /// The names of all packages of arm64 that begin like this.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        self.update()?;
        let output = self.ask(&["pkgnames", prefix])?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// The versions of a package, as apt lists them: the best of each name first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<Candidate>> {
        self.update()?;
        let output = self.ask(&["madison", package])?;
        Ok(candidates(&output))
    }

    /// Fetches a package, written as apt writes it (`NAME`, `NAME=VERSION`, `NAME:arm64`), and unpacks it into a folder.
    pub(crate) fn unpack(&self, step: &Step, package: &str, into: &Path) -> Result<()> {
        let package_file = self.download(step, package)?;
        files::create_folder(into)?;
        let log = self.folder.join("dpkg.log");
        step.run(Command::new("dpkg-deb").arg("-x").arg(&package_file).arg(into), &log)?;
        std::fs::remove_file(&package_file).map_err(|error| Error::file(&package_file, &error))
    }

    /// Fetches a package; the file is the caller's.
    fn download(&self, step: &Step, package: &str) -> Result<PathBuf> {
        self.update()?;
        let folder = self.folder.join("downloads").join(package.replace(['/', ':', '='], "_"));
        files::remove_folder(&folder)?;
        files::create_folder(&folder)?;
        let mut command = self.tool("apt-get");
        command.args(["download", package]).current_dir(&folder);
        step.run(&mut command, &self.folder.join("download.log")).map_err(Error::into_unavailable)?;
        one_file(&folder, "deb")
    }

    /// Fetches the upstream tarball of a source package, as large as it is.
    pub(crate) fn tarball(&self, step: &Step, source: &str) -> Result<PathBuf> {
        self.update()?;
        let folder = self.folder.join("downloads").join(format!("source-{source}"));
        files::remove_folder(&folder)?;
        files::create_folder(&folder)?;
        let mut command = self.tool("apt-get");
        // Only of Debian 13, where the version stays the same but for its last digit.
        command.args([
            "source",
            "--download-only",
            "--tar-only",
            "--only-source",
            "--target-release",
            "trixie",
        ]);
        command.arg(source).current_dir(&folder);
        step.run(&mut command, &self.folder.join("download.log")).map_err(Error::into_unavailable)?;
        one_file(&folder, "xz")
    }

    /// Fetches the lists, once in a run.
    fn update(&self) -> Result<()> {
        if self.updated.get() {
            return Ok(());
        }
        let step = Step::begin("Debian's package lists");
        let mirror = mirror()?;
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
            Error::unavailable("Debian's archive keys are missing").advise("install debian-archive-keyring")
        })?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            files::create_folder(&self.folder.join(folder))?;
        }
        let suites: &[&str] = if self.with_sid.get() { &UNSTABLE } else { &STABLE };
        files::write(&self.folder.join("sources.list"), sources(&mirror, keyring, suites))?;
        files::write(&self.folder.join("apt.conf"), configuration(&self.folder))?;
        let mut command = self.tool("apt-get");
        command.args(["update", "--error-on=any"]);
        let log = self.folder.join("update.log");
        step.run(&mut command, &log).map_err(|error| {
            error.into_unavailable().advise(format!("is there a network? see {}", log.display()))
        })?;
        step.done("");
        self.updated.set(true);
        Ok(())
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .tool("apt-cache")
            .args(arguments)
            .output()
            .map_err(|error| Error::unavailable(format!("apt-cache: {error}")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The Debian mirror that the host's apt uses.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR) {
        return Ok(mirror);
    }
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let output = command.output().map_err(|error| {
        Error::unavailable(format!("apt-get: {error}"))
            .advise("the lab is made of Debian's packages: use a Debian host")
    })?;
    archive(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        Error::unavailable("the host's apt uses no mirror of Debian")
            .advise(format!("name one in {MIRROR}, as it would stand in sources.list"))
    })
}

/// The main archive among the addresses that apt uses: those of security updates and of other vendors end otherwise.
fn archive(addresses: &str) -> Option<String> {
    addresses.lines().find(|line| line.trim_end_matches('/').ends_with("/debian")).map(str::to_owned)
}

/// The private `sources.list`: arm64 (with what is for all architectures), and sources of the stable suite.
fn sources(mirror: &str, keyring: &str, suites: &[&str]) -> String {
    let mut lines = format!("deb-src [signed-by={keyring}] {mirror} {} main\n", STABLE[0]);
    for suite in suites {
        let _ = writeln!(lines, "deb [arch=arm64 signed-by={keyring}] {mirror} {suite} main");
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

/// What `apt-cache madison` says: `PACKAGE | VERSION | ADDRESS SUITE ARCHITECTURE Packages`; sources are left out.
fn candidates(madison: &str) -> Vec<Candidate> {
    let lines = madison.lines().filter(|line| line.ends_with(" Packages"));
    let fields = lines.filter_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        Some(Candidate { package: fields.next()?.to_owned(), version: fields.next()?.to_owned() })
    });
    fields.collect()
}

fn one_file(folder: &Path, extension: &str) -> Result<PathBuf> {
    let found = files::with_extension(folder, extension)?;
    found.into_iter().next().ok_or_else(|| Error::unavailable(format!("apt fetched no *.{extension}")))
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
        assert_eq!(
            sources("http://m.example/debian/", "/keys", &["trixie", "trixie-backports"]),
            "deb-src [signed-by=/keys] http://m.example/debian/ trixie main\n\
             deb [arch=arm64 signed-by=/keys] http://m.example/debian/ trixie main\n\
             deb [arch=arm64 signed-by=/keys] http://m.example/debian/ trixie-backports main\n"
        );
    }
}
