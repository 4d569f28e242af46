//! The oldest Rust that we promise to build with, as people have it: Debian 13's rustc and cargo, out of its packages.
//!
//! They run on any Debian, as they come with the C library that they were built for, and are started by its own loader.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use seawall_linux::apt::Apt;

use super::Call;
use super::tools::root;
use crate::lab::cache::Cached;
use crate::lab::error::{Error, Result};
use crate::lab::progress::Step;
use crate::lab::{files, host};

/// Debian 13 has Rust 1.85.
const SUITE: &str = "trixie";
/// With rustc, which it depends on.
const PACKAGE: &str = "cargo";
/// What links build scripts: the host's own.
const OF_THE_HOST: [&str; 4] = ["gcc", "binutils", "libc-dev", "libc6-dev"];
/// Changed when this file makes something else of the packages.
const KEY: &str = "2";

/// rustc and cargo, as scripts that start them.
pub(super) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    target: PathBuf,
}

/// Fetched once.
///
/// # Errors
/// They cannot be had here, or cannot be unpacked.
pub(super) fn prepare() -> Result<Toolchain> {
    let target = root().join("target/msrv");
    let cached = Cached::new(target.join("toolchain"), KEY);
    cached.make(|folder| {
        let step = Step::begin("Debian 13's Rust (120 MB)");
        let apt = Apt::for_architecture(target.join("apt"), &[SUITE], &host::architecture()?);
        let unpacked = folder.join("root");
        apt.unpack_with_dependencies(PACKAGE, &OF_THE_HOST, &|_| true, &unpacked, &|text| step.note(text))?;
        let libraries = libraries(&unpacked)?;
        for (name, arguments) in
            [("rustc", format!("--sysroot \"{}\"", unpacked.join("usr").display())), ("cargo", String::new())]
        {
            let path = folder.join(name);
            files::write(&path, script(&unpacked, &libraries, name, &arguments))?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o755))
                .map_err(|error| Error::file(&path, &error))?;
        }
        files::remove_folder(&target.join("apt"))?;
        step.done("");
        Ok(())
    })?;
    let program = |name| cached.folder.join(name);
    Ok(Toolchain { rustc: program("rustc"), cargo: program("cargo"), target: target.join("build") })
}

/// The folder of the C library and of all others, with the loader's name.
fn libraries(unpacked: &Path) -> Result<(PathBuf, PathBuf)> {
    let is_loader =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux-"));
    for folder in files::list(&unpacked.join("usr/lib"))? {
        if let Some(loader) = files::list(&folder).unwrap_or_default().into_iter().find(is_loader) {
            return Ok((folder, loader));
        }
    }
    Err(Error::failed(format!("no loader of programs below {}", unpacked.display())))
}

/// For bash: other shells take variables such as `CARGO_BIN_EXE_seawall-hostile` out of the environment.
fn script(unpacked: &Path, libraries: &(PathBuf, PathBuf), name: &str, arguments: &str) -> String {
    let (folder, loader) = (libraries.0.display(), libraries.1.display());
    let program = unpacked.join("usr/bin").join(name);
    format!(
        "#!/bin/bash\nexec \"{loader}\" --library-path \"{folder}\" --argv0 {name} \"{}\" {arguments} \"$@\"\n",
        program.display()
    )
}

impl Toolchain {
    /// Crates are fetched by the cargo that is here; nothing is fetched with the old one.
    pub(super) fn check(&self) -> Vec<Call> {
        let [rustc, cargo, target] =
            [&self.rustc, &self.cargo, &self.target].map(|path| path.display().to_string());
        let arguments =
            ["check", "--workspace", "--all-targets", "--locked", "--offline", "--target-dir", &target];
        let check = Call::new(&cargo, &arguments).with("CARGO", &cargo).with("RUSTC", &rustc);
        vec![Call::cargo(&["fetch", "--locked"]), Call::new(&rustc, &["--version"]), check]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_started_by_the_loader_that_came_with_it() {
        let libraries = ("/t/root/usr/lib/l".into(), "/t/root/usr/lib/l/ld-linux-x86-64.so.2".into());
        assert_eq!(
            script(Path::new("/t/root"), &libraries, "rustc", "--sysroot \"/t/root/usr\""),
            "#!/bin/bash\nexec \"/t/root/usr/lib/l/ld-linux-x86-64.so.2\" --library-path \"/t/root/usr/lib/l\" \
             --argv0 rustc \"/t/root/usr/bin/rustc\" --sysroot \"/t/root/usr\" \"$@\"\n"
        );
    }
}
