//! Debian packages of the host itself: compilers and libraries to build with.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::progress::Step;

/// How long another apt may hold what ours needs.
const PATIENCE: Duration = Duration::from_secs(600);
/// apt waits for the lock of its packages alone, if told so: not for those of its lists and downloads.
const WAIT_FOR_PACKAGES: &str = "DPkg::Lock::Timeout=600";
/// How apt says that another holds one of those.
const IS_LOCKED: [&str; 2] = ["Could not get lock", "Unable to lock"];
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// Installs what is missing of these, if we are root. Where another apt is at work it waits for that.
///
/// # Errors
/// Something is missing and cannot be installed: unavailable, with the command for the user.
pub(crate) fn need(packages: &[&str], why: &str, log: &Path) -> Result<()> {
    let missing = missing(packages, installed);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let lacking = || Error::unavailable(format!("{why} needs packages that are missing: {list}"));
    if !is_root() {
        return Err(lacking().advise(format!("sudo apt-get install --no-install-recommends {list}")));
    }
    let step = Step::begin(format!("install {list}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-o", WAIT_FOR_PACKAGES, "-o", "Acquire::Retries=3"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        while_locked(PATIENCE, PAUSE, || step.run(&mut command, log))
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    // The lists may be there and fresh: they are fetched if it did not work without.
    if apt(&install).is_err() {
        apt(&["update"]).and_then(|()| apt(&install)).map_err(|error| {
            lacking().advise(format!("see why `apt-get install {list}` fails\n{}", error.what()))
        })?;
    }
    step.done("");
    Ok(())
}

/// Does it again, as long as it fails for another's lock.
fn while_locked(patience: Duration, pause: Duration, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        match work() {
            Err(error)
                if start.elapsed() < patience && IS_LOCKED.iter().any(|it| error.what().contains(it)) =>
            {
                std::thread::sleep(pause);
            }
            other => return other,
        }
    }
}

fn missing<'a>(packages: &[&'a str], installed: impl Fn(&str) -> bool) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout.starts_with(b"installed"))
}

/// As dpkg names the host's.
pub(crate) fn architecture() -> Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output();
    let output = output.map_err(|error| {
        Error::unavailable(format!("cannot run dpkg: {error}")).advise("use a Debian host")
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The name of the host's release of Debian: `bookworm`.
pub(crate) fn suite() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    codename(&text).ok_or_else(|| {
        Error::unavailable("/etc/os-release names no release of Debian").advise("use a Debian host")
    })
}

/// `VERSION_CODENAME` of os-release(5), if the system is Debian.
fn codename(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    field("ID").filter(|id| id == "debian").and_then(|_| field("VERSION_CODENAME"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_installed_is_missing() {
        assert_eq!(missing(&["flex", "bison", "patch"], |package| package == "bison"), ["flex", "patch"]);
    }

    #[test]
    fn only_debians_release_has_a_suite() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(codename(debian).as_deref(), Some("bookworm"));
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(codename(""), None);
    }

    /// As apt 2.6 says it of /var/lib/apt/lists/lock.
    #[test]
    fn apt_is_tried_again_while_another_holds_a_lock_and_not_for_other_reasons() {
        let locked = || {
            Err(Error::failed(
                "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)",
            ))
        };
        let mut tries = 0;
        let third_time = || {
            tries += 1;
            if tries < 3 { locked() } else { Ok(()) }
        };
        assert_eq!(while_locked(Duration::MAX, Duration::ZERO, third_time), Ok(()));
        assert_eq!(tries, 3);
        assert_eq!(while_locked(Duration::ZERO, Duration::ZERO, locked), locked());
        let other = || Err(Error::failed("E: Unable to locate package flecks"));
        assert_eq!(while_locked(Duration::MAX, Duration::ZERO, other), other());
    }
}
