//! Rust for aarch64 Linux: the standard library for the installed compiler, and a linker for static programs.
//!
//! The standard library is the installed one, else rustup's, else built from Debian's `rust-src` of the same version into
//! a sysroot of the lab's own. Programs are linked by the toolchain's own rust-lld against Debian's glibc for arm64, so
//! no cross compiler is needed.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::{Apt, Candidate};
use super::cache::Cached;
use super::error::{Error, Result};
use super::progress::Step;
use super::{Folders, files};

/// What is built for.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Set to anything, the standard library is built even if it could be had.
const OWN_STD: &str = "SEAWALL_LAB_OWN_STD";
/// Of Debian 13: glibc's start files and static libraries, and gcc's.
const GLIBC: &str = "libc6-dev-arm64-cross";
const GCC_PREFIX: &str = "libgcc-";
const GCC_SUFFIX: &str = "-dev-arm64-cross";
/// Changed when this file makes something else of the packages.
const KEY: &str = "1";

/// How cargo builds for the lab.
pub(crate) struct Toolchain {
    /// A sysroot that has the target's standard library, where the compiler's own has not.
    sysroot: Option<PathBuf>,
    linker: PathBuf,
}

impl Toolchain {
    /// The environment that makes `cargo build --target aarch64-unknown-linux-gnu` give static programs.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut flags =
            OsString::from("-Clinker-flavor=ld -Ctarget-feature=+crt-static -Crelocation-model=static");
        self.add_sysroot(&mut flags);
        vec![
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", self.linker.clone().into()),
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags),
        ]
    }

    /// The same for shared libraries, which Debian's cross compiler links.
    pub(crate) fn environment_for_shared(&self) -> Vec<(&'static str, OsString)> {
        let mut flags = OsString::from("-Ctarget-feature=-crt-static");
        self.add_sysroot(&mut flags);
        vec![
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc".into()),
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags),
        ]
    }

    fn add_sysroot(&self, flags: &mut OsString) {
        if let Some(sysroot) = &self.sysroot {
            flags.push(" --sysroot=");
            flags.push(sysroot);
        }
    }
}

/// The compiler that cargo uses here.
pub(crate) struct Rustc {
    pub(crate) release: String,
    commit: String,
    host: String,
    pub(crate) sysroot: PathBuf,
}

/// Everything to build for the lab with.
pub(crate) fn prepare(folders: &Folders, apt: &Apt) -> Result<Toolchain> {
    let rustc = rustc()?;
    let sysroot = standard_library(&rustc, folders, apt)?;
    let linker = linker(&rustc, folders, apt)?;
    Ok(Toolchain { sysroot, linker })
}

pub(crate) fn rustc() -> Result<Rustc> {
    let asked = |arguments: &[&str]| -> Result<String> {
        let program = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let output = Command::new(&program).args(arguments).current_dir(super::root()).output();
        let output = output.map_err(|error| Error::failed(format!("{program}: {error}")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let version = asked(&["-vV"])?;
    let field = |name: &str| {
        version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    Ok(Rustc {
        release: field("release:"),
        commit: field("commit-hash:"),
        host: field("host:"),
        sysroot: asked(&["--print", "sysroot"])?.trim().into(),
    })
}

fn has_std(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let is_std =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libstd-"));
    files::list(&libraries).is_ok_and(|found| found.iter().any(is_std))
}

/// Whether the compiler itself has the target's standard library.
pub(crate) fn is_installed() -> bool {
    rustc().is_ok_and(|rustc| has_std(&rustc.sysroot))
}

/// `None`: the compiler has it.
fn standard_library(rustc: &Rustc, folders: &Folders, apt: &Apt) -> Result<Option<PathBuf>> {
    let own = std::env::var_os(OWN_STD).is_some();
    if !own && (has_std(&rustc.sysroot) || (rustup(folders) && has_std(&rustc.sysroot))) {
        return Ok(None);
    }
    let key = format!("{KEY} {} {}", rustc.release, rustc.commit);
    let cached = Cached::new(folders.target.join("std"), key);
    cached.make(|folder| build_std(folder, rustc, folders, apt))?;
    Ok(Some(cached.folder.join("sysroot")))
}

/// Whether rustup could fetch it.
fn rustup(folders: &Folders) -> bool {
    let step = Step::begin(format!("rustup target add {TARGET}"));
    let mut command = Command::new("rustup");
    command.args(["target", "add", TARGET]).current_dir(super::root());
    let added = step.run(&mut command, &folders.logs.join("rustup.log")).is_ok();
    step.done(if added { "" } else { "rustup cannot: it is built from source" });
    added
}

fn build_std(folder: &Path, rustc: &Rustc, folders: &Folders, apt: &Apt) -> Result<()> {
    let unpacked = folder.join("unpacked");
    let library = unpack_source(rustc, apt, &unpacked)?;
    // A shared std would need a linker now; only the static one is used.
    let manifest = library.join("std/Cargo.toml");
    let text = files::read_text(&manifest)?;
    files::write(&manifest, text.replace("crate-type = [\"dylib\", \"rlib\"]", "crate-type = [\"rlib\"]"))?;

    let step = Step::begin(format!("Rust's standard library for {TARGET}"));
    let built = folder.join("built");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", TARGET, "--features", "backtrace,panic-unwind"])
        .arg("--manifest-path")
        .arg(library.join("sysroot/Cargo.toml"))
        .arg("--target-dir")
        .arg(&built)
        .current_dir(&library)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes");
    step.run(&mut cargo, &folders.logs.join("std.log"))?;
    let place = folder.join("sysroot/lib/rustlib").join(TARGET).join("lib");
    files::create_folder(&place)?;
    let libraries = built.join(TARGET).join("release/deps");
    for library in files::with_extension(&libraries, "rlib")? {
        files::copy(&library, &place.join(library.file_name().unwrap_or_default()))?;
    }
    step.done("");
    files::remove_folder(&unpacked)?;
    files::remove_folder(&built)
}

/// Unpacks the source of exactly this compiler's standard library. Gives the folder of its crates.
pub(crate) fn unpack_source(rustc: &Rustc, apt: &Apt, into: &Path) -> Result<PathBuf> {
    let step = Step::begin(format!("source of Rust's standard library {}", rustc.release));
    let package = source_package(&rustc.release, apt)?;
    apt.unpack(&step, &package, into)?;
    step.done(&package);
    Ok(source_folder(rustc, into))
}

/// Where Debian's package has it.
pub(crate) fn source_folder(rustc: &Rustc, unpacked: &Path) -> PathBuf {
    unpacked.join("usr/src").join(format!("rustc-{}", rustc.release)).join("library")
}

/// Debian's package with the source of exactly this release.
fn source_package(release: &str, apt: &Apt) -> Result<String> {
    for sid in [false, true] {
        if sid {
            apt.add_sid();
        }
        if let Some(version) = matching(&apt.versions("rust-src")?, release) {
            return Ok(format!("rust-src={version}"));
        }
    }
    Err(Error::unavailable(format!("Debian has no rust-src {release}, and rustup has not what is needed here"))
        .advise(format!(
            "`rustup target add {TARGET}` and `rustup component add rust-src`, or use a Rust release that Debian's \
             suites have"
        )))
}

/// The version of a candidate that is this release: `1.95.0+dfsg1-2` is 1.95.0, `1.95.01` is not.
fn matching<'a>(candidates: &'a [Candidate], release: &str) -> Option<&'a str> {
    let versions = candidates.iter().map(|candidate| candidate.version.as_str());
    let mut of_release = versions.filter(|version| {
        version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~']) || rest.is_empty())
    });
    of_release.next()
}

/// A script that links static programs by rust-lld.
fn linker(rustc: &Rustc, folders: &Folders, apt: &Apt) -> Result<PathBuf> {
    let lld = rustc.sysroot.join("lib/rustlib").join(&rustc.host).join("bin/rust-lld");
    if !lld.exists() {
        return Err(Error::unavailable(format!("{} is missing", lld.display()))
            .advise("use a toolchain of rustup: Linux distributions' compilers come without rust-lld"));
    }
    let cached = Cached::new(folders.target.join("glibc"), KEY);
    cached.make(|folder| {
        let step = Step::begin("glibc for arm64");
        let gcc = newest_gcc(&apt.names(GCC_PREFIX)?);
        let gcc = gcc.ok_or_else(|| Error::unavailable(format!("no package {GCC_PREFIX}N{GCC_SUFFIX}")))?;
        apt.unpack(&step, GLIBC, folder)?;
        apt.unpack(&step, &gcc, folder)?;
        step.done("");
        Ok(())
    })?;
    let gcc = files::list(&cached.folder.join("usr/lib/gcc-cross/aarch64-linux-gnu"))?;
    let gcc = gcc.into_iter().next_back().ok_or_else(|| {
        Error::failed(format!("no libgcc in {}", cached.folder.display()))
            .advise("remove that folder and try again")
    })?;
    let script = folders.target.join("ld-aarch64");
    files::write(&script, script_text(&lld, &cached.folder, &gcc))?;
    std::fs::set_permissions(&script, Permissions::from_mode(0o755))
        .map_err(|error| Error::file(&script, &error))?;
    Ok(script)
}

/// The name with the greatest number among `libgcc-N-dev-arm64-cross`.
fn newest_gcc(names: &[String]) -> Option<String> {
    let number = |name: &String| -> Option<u32> {
        name.strip_prefix(GCC_PREFIX)?.strip_suffix(GCC_SUFFIX)?.parse().ok()
    };
    let newest = names.iter().filter_map(|name| Some((number(name)?, name))).max()?;
    Some(newest.1.clone())
}

/// What gcc would do for `-static`: start files, what rustc asks for, the libraries, end files. Some of glibc's libraries
/// are scripts with paths from the root: those are taken below `--sysroot`.
fn script_text(lld: &Path, root: &Path, gcc: &Path) -> String {
    let (lld, root, gcc) = (lld.display(), root.display(), gcc.display());
    let glibc = format!("{root}/usr/aarch64-linux-gnu/lib");
    format!(
        "#!/bin/sh\n\
         exec \"{lld}\" -flavor gnu --sysroot=\"{root}\" \"{glibc}/crt1.o\" \"{glibc}/crti.o\" \
         \"{gcc}/crtbeginT.o\" -L\"{glibc}\" -L\"{gcc}\" \"$@\" \
         --start-group -lc -lgcc_eh -lgcc --end-group \"{gcc}/crtend.o\" \"{glibc}/crtn.o\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_src_must_be_of_the_very_release() {
        let candidates =
            ["1.96.1+dfsg1-2~bpo13+1", "1.95.01+dfsg1-1", "1.95.0+dfsg1-2~bpo13+1", "1.85.1+dfsg1-1"]
                .map(|version| Candidate { package: "rust-src".into(), version: version.into() });
        assert_eq!(matching(&candidates, "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(matching(&candidates, "1.97.0"), None);
    }

    #[test]
    fn the_newest_gcc_is_the_one_with_the_greatest_number() {
        let names = [
            "libgcc-9-dev-arm64-cross",
            "libgcc-14-dev-arm64-cross",
            "libgcc-14-dev",
            "libgcc-s1-arm64-cross",
        ];
        assert_eq!(newest_gcc(&names.map(str::to_owned)).as_deref(), Some("libgcc-14-dev-arm64-cross"));
        assert_eq!(newest_gcc(&[]), None);
    }

    #[test]
    fn an_own_sysroot_is_among_the_flags() {
        let toolchain = Toolchain { sysroot: Some("/lab/sysroot".into()), linker: "/lab/ld".into() };
        let environment = toolchain.environment();
        assert_eq!(environment[0].1, "/lab/ld");
        assert_eq!(
            environment[1].1,
            "-Clinker-flavor=ld -Ctarget-feature=+crt-static -Crelocation-model=static --sysroot=/lab/sysroot"
        );
    }
}
