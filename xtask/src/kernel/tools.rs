//! What Linux with Rust is built with, and where it comes from: compilers and generators are Debian packages of the host; the
//! rest is unpacked or built below `target/kernel`, and nothing of it is installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::apt::Apt;
use crate::lab::cache::Cached;
use crate::lab::error::{Error, Result};
use crate::lab::progress::Step;
use crate::lab::{Folders, cross, files, host};

/// As Debian names them.
const PACKAGES: [&str; 7] = ["bc", "bison", "flex", "gcc-aarch64-linux-gnu", "libc6-dev", "make", "xz-utils"];
/// Reads C headers for Rust. Debian 12's is too old, that of Debian 13 does not run there.
const BINDGEN: (&str, &str) = ("bindgen-cli", "0.72.1");
/// What bindgen reads C by; with a number at its end.
const LIBCLANG: &str = "libclang1-";
/// Linux's scripts/min-tool-version.sh asks for 17 at least.
const OLDEST_CLANG: u32 = 17;
/// What libclang needs and every host has, in its own version.
const OF_THE_HOST: [&str; 3] = ["libc6", "libgcc-s1", "libstdc++6"];
/// Where Debian's LLVM is, by its number.
const LLVM: &str = "usr/lib/llvm-";
/// Changed when this file makes something else of the packages.
const KEY: &str = "1";

/// The environment for Linux's make.
pub(super) struct Tools {
    bindgen: PathBuf,
    libclang: PathBuf,
    /// Of libclang's own libraries.
    libraries: Vec<PathBuf>,
    /// `core`, as source.
    core: PathBuf,
}

impl Tools {
    /// Linux's make in a tree, with its output in another folder.
    pub(super) fn make(&self, tree: &Path, output: &Path) -> Command {
        let mut make = Command::new("make");
        let mut libraries = self.libraries.clone();
        libraries.extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
        make.arg("-C")
            .arg(tree)
            .arg(format!("O={}", output.display()))
            .args(["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"])
            .arg(argument("BINDGEN=", &self.bindgen))
            .arg(argument("RUST_LIB_SRC=", &self.core))
            .env("LIBCLANG_PATH", &self.libclang)
            .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default());
        // Of cargo's and of a make around us.
        for name in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "MAKEFLAGS", "MAKELEVEL", "KBUILD_OUTPUT"]
        {
            make.env_remove(name);
        }
        make
    }
}

fn argument(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(name);
    argument.push(path);
    argument
}

/// Everything, from Debian and crates.io where it is not there yet.
///
/// # Errors
/// Something cannot be had here ([`Error::is_unavailable`]), with what to do.
pub(super) fn prepare(folders: &Folders, apt: &Apt) -> Result<Tools> {
    host::need(&PACKAGES, "building Linux", &folders.logs.join("packages.log"))?;
    let clang = libclang(folders)?;
    Ok(Tools { bindgen: bindgen(folders)?, libclang: clang.0, libraries: clang.1, core: core(folders, apt)? })
}

/// Built from crates.io.
fn bindgen(folders: &Folders) -> Result<PathBuf> {
    let (name, version) = BINDGEN;
    let cached = Cached::new(folders.target.join("bindgen"), format!("{KEY} {version}"));
    cached.make(|folder| {
        let step = Step::begin(format!("{name} {version} from crates.io"));
        let built = folder.join("built");
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--locked", name, "--version", version, "--root"]).arg(folder);
        cargo.arg("--target-dir").arg(&built).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        step.run_counted(&mut cargo, &folders.logs.join("bindgen.log"), 120).map_err(|error| {
            Error::unavailable(error.to_string())
                .advise("is there a network? bindgen is built from crates.io, once")
        })?;
        files::remove_folder(&built)?;
        step.done("");
        Ok(())
    })?;
    Ok(cached.folder.join("bin/bindgen"))
}

/// libclang of the host's own Debian, and the folders of what it needs.
fn libclang(folders: &Folders) -> Result<(PathBuf, Vec<PathBuf>)> {
    let cached = Cached::new(folders.target.join("libclang"), format!("{KEY} {}", host::suite()?));
    cached.make(|folder| {
        let step = Step::begin("libclang, for bindgen");
        let apt_folder = folder.join("apt");
        let apt = Apt::of_host(apt_folder.clone())?;
        let number = newest(&apt.names(LIBCLANG)?).ok_or_else(|| {
            Error::unavailable(format!(
                "Debian {} has no {LIBCLANG}{OLDEST_CLANG} or newer",
                host::suite().unwrap_or_default()
            ))
            .advise("use Debian 12 or newer")
        })?;
        let wanted = |package: &str| !OF_THE_HOST.contains(&package);
        apt.unpack_with_dependencies(&step, &format!("{LIBCLANG}{number}"), &wanted, folder)?;
        apt.unpack(&step, &format!("libclang-common-{number}-dev"), folder)?;
        files::remove_folder(&apt_folder)?;
        step.done(&number.to_string());
        Ok(())
    })?;
    let llvm = files::list(&cached.folder.join("usr/lib"))?;
    let start = cached.folder.join(LLVM).display().to_string();
    let library = llvm.iter().find(|path| path.display().to_string().starts_with(&start));
    let library = library.ok_or_else(|| {
        Error::failed(format!("no llvm in {}", cached.folder.display()))
            .advise("remove that folder and try again")
    })?;
    // Debian's folders of an architecture: x86_64-linux-gnu.
    let libraries = llvm.iter().filter(|path| path.display().to_string().ends_with("-linux-gnu")).cloned();
    Ok((library.join("lib"), libraries.collect()))
}

/// The greatest number among `libclang1-N`, if it is not too small.
fn newest(names: &[String]) -> Option<u32> {
    let numbers = names.iter().filter_map(|name| name.strip_prefix(LIBCLANG)?.parse().ok());
    numbers.max().filter(|&number: &u32| number >= OLDEST_CLANG)
}

/// The compiler's own source of `core`, else Debian's of the same release.
fn core(folders: &Folders, apt: &Apt) -> Result<PathBuf> {
    let rustc = cross::rustc()?;
    let own = rustc.sysroot.join("lib/rustlib/src/rust/library");
    if own.join("core/src/lib.rs").exists() {
        return Ok(own);
    }
    let cached = Cached::new(folders.target.join("rust-src"), format!("{KEY} {}", rustc.release));
    cached.make(|folder| cross::unpack_source(&rustc, apt, folder).map(drop))?;
    Ok(cross::source_folder(&rustc, &cached.folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_libclang_is_taken_unless_it_is_older_than_linux_takes() {
        let names = ["libclang1-9", "libclang1-14", "libclang1-19", "libclang1-19-dbgsym"].map(str::to_owned);
        assert_eq!(newest(&names), Some(19));
        assert_eq!(newest(&names[..2]), None);
    }
}
