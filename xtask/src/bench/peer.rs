//! QEMU's software CPU (TCG), running the same images: the one that is installed, and Debian 13's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use super::cost::{self, Cost};
use crate::lab::apt::Apt;
use crate::lab::cache::Cached;
use crate::lab::error::{Error, Result};
use crate::lab::progress::Step;

/// Beyond the 128 MiB of RAM that QEMU's `virt` has unless told otherwise: a load there aborts.
pub(super) const HOLE: u64 = 0x9000_0000;

const PACKAGE: &str = "qemu-system-arm";
const PROGRAM: &str = "qemu-system-aarch64";
/// Changed when this file makes something else of the packages.
const KEY: &str = "1";

/// A QEMU.
pub(super) struct Qemu {
    /// `qemu 7.2.22`.
    pub(super) name: String,
    /// How it is started: a program and its first arguments.
    start: Vec<OsString>,
}

/// Those that can be had here.
pub(super) fn all() -> Vec<Qemu> {
    let fetched = fetched().map_err(|error| eprintln!("no QEMU of Debian 13 to compare with: {error}"));
    let start = [Some(vec![PROGRAM.into()]), fetched.ok()];
    start.into_iter().flatten().filter_map(Qemu::new).collect()
}

impl Qemu {
    /// None if it does not start.
    fn new(start: Vec<OsString>) -> Option<Self> {
        let mut qemu = Self { name: String::new(), start };
        let process = cost::to_end(qemu.command().arg("--version")).ok()?;
        qemu.name = format!("qemu {}", version(&process.stdout)?);
        Some(qemu)
    }

    /// With its software CPU's work on one thread.
    pub(super) fn tcg(&self) -> Command {
        let mut command = self.command();
        command.args(["-accel", "tcg,thread=single", "-nic", "none", "-display", "none", "-monitor", "none"]);
        command.args(["-serial", "stdio"]);
        command
    }

    fn command(&self) -> Command {
        let mut words = self.start.iter();
        let mut command = Command::new(words.next().cloned().unwrap_or_default());
        command.args(words);
        command
    }

    /// Runs a flat image to its SYSTEM_OFF: the cost of the whole process, and the console.
    pub(super) fn run(&self, image: &[u8]) -> std::result::Result<(Cost, String), String> {
        let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        std::fs::write(&file, image).map_err(|error| error.to_string())?;
        let mut command = self.tcg();
        command.args(["-M", "virt", "-cpu", "max", "-kernel"]).arg(file.path());
        let process = cost::to_end(&mut command)?;
        if process.status.success() {
            Ok((process.cost, process.stdout))
        } else {
            Err(format!("ended with {}", process.status))
        }
    }
}

/// `7.2.22` of `QEMU emulator version 7.2.22 (Debian ...)`.
fn version(said: &str) -> Option<&str> {
    said.lines().next()?.strip_prefix("QEMU emulator version ")?.split_whitespace().next()
}

/// How the QEMU of Debian 13 is started, with its own C library: fetched once.
fn fetched() -> Result<Vec<OsString>> {
    let (architecture, triplet, loader) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        "aarch64" => ("arm64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        other => return Err(Error::failed(format!("expected a host of x86_64 or aarch64, this is {other}"))),
    };
    let target = crate::lab::root().join("target/bench");
    let cached = Cached::new(target.join("qemu"), KEY);
    cached.make(|folder| {
        let apt = Apt::for_architecture(target.join("apt"), architecture);
        let step = Step::begin("QEMU of Debian 13");
        apt.unpack_with_dependencies(&step, PACKAGE, &is_wanted, folder)?;
        step.done("");
        Ok(())
    })?;
    let usr = cached.folder.join("usr");
    let libraries = usr.join("lib").join(triplet);
    let path = |path: PathBuf| OsString::from(path);
    Ok(vec![
        path(libraries.join(loader)),
        "--library-path".into(),
        path(libraries),
        path(usr.join("bin").join(PROGRAM)),
        "-L".into(),
        path(usr.join("share/qemu")),
    ])
}

/// Libraries, and the program.
fn is_wanted(package: &str) -> bool {
    package == PACKAGE || package.starts_with("lib") || package.starts_with("zlib")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_qemu_says() {
        let said = "QEMU emulator version 10.0.8 (Debian 1:10.0.8+ds-0+deb13u1)\nCopyright (c)\n";
        assert_eq!(version(said), Some("10.0.8"));
        assert_eq!(version("sh: not found\n"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_no_peer() {
        assert!(Qemu::new(vec!["/nonexistent/qemu".into()]).is_none());
    }
}
