//! Debian packages of the host itself: compilers and libraries to build with.

use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{Error, Result};
use super::progress::Step;

/// Installs what is missing of these, if we are root.
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
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        step.run(&mut command, log)
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

fn missing<'a>(packages: &[&'a str], installed: impl Fn(&str) -> bool) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout.starts_with(b"installed"))
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
}
