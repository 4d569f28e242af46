//! QEMU with poisonable memory: Debian's source with our changes, the one target that is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

mod changes;

use changes::CHANGES;

use super::apt::Apt;
use super::cache::Cached;
use super::error::{Error, Result};
use super::progress::Step;
use super::{Folders, files, host};

/// What the build needs of the host. Python's modules come from the private apt.
pub(crate) const PACKAGES: [&str; 9] = [
    "bison",
    "build-essential",
    "flex",
    "libfdt-dev",
    "libglib2.0-dev",
    "ninja-build",
    "pkg-config",
    "python3-venv",
    "xz-utils",
];
/// Pure Python, and newer than what Debian 12 has.
const PYTHON_MODULES: [&str; 2] = ["meson", "python3-pycotap"];
const CONFIGURE: [&str; 13] = [
    "--target-list=aarch64-softmmu",
    "--without-default-features",
    "--without-default-devices",
    "--with-devices-aarch64=lab",
    "--enable-tcg",
    "--enable-fdt=system",
    "--disable-docs",
    "--disable-tools",
    "--disable-guest-agent",
    "--disable-werror",
    "--disable-install-blobs",
    "--disable-debug-info",
    "--disable-download",
];
const PROGRAM: &str = "qemu-lab";

/// The changed QEMU: built if it is not there, or if a change of ours differs.
pub(crate) fn prepare(folders: &Folders, apt: &Apt) -> Result<PathBuf> {
    let cached = Cached::new(folders.target.join("qemu"), key());
    let program = cached.folder.join(PROGRAM);
    if cached.is_made() && program.exists() {
        return Ok(program);
    }
    host::need(&PACKAGES, "building QEMU", &folders.logs.join("qemu-packages.log"))?;
    cached.make(|folder| build(folder, folders, apt))?;
    Ok(program)
}

/// All that the result depends on, but for the digit of Debian's version.
fn key() -> String {
    format!("{}\n{CHANGES:?}", CONFIGURE.join(" "))
}

fn build(folder: &Path, folders: &Folders, apt: &Apt) -> Result<()> {
    let source = folder.join("source");
    let python = folder.join("python");

    let step = Step::begin("QEMU: fetch the source");
    let tarball = apt.tarball(&step, "qemu").map_err(|error| {
        error.advise("the lab's changes are for QEMU 10.0 of Debian 13: its source must be on the mirror")
    })?;
    let version = tarball.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for module in PYTHON_MODULES {
        apt.unpack(&step, module, &python)?;
    }
    files::create_folder(&source)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xJf").arg(&tarball).arg("-C").arg(&source).arg("--strip-components=1");
    step.run(&mut unpack, &folders.logs.join("qemu-unpack.log"))?;
    step.done(&version);

    let step = Step::begin("QEMU: change");
    change(&source, &version)?;
    step.done("");

    let output = source.join("build");
    files::create_folder(&output)?;
    let modules = python.join("usr/lib/python3/dist-packages");
    let step = Step::begin("QEMU: configure");
    let mut configure = Command::new("../configure");
    configure.args(CONFIGURE).current_dir(&output).env("PYTHONPATH", &modules);
    step.run(&mut configure, &folders.logs.join("qemu-configure.log"))?;
    step.done("");
    let step = Step::begin("QEMU: compile (minutes, once)");
    let mut ninja = Command::new("ninja");
    ninja.arg("qemu-system-aarch64").current_dir(&output).env("PYTHONPATH", &modules);
    step.run(&mut ninja, &folders.logs.join("qemu-compile.log"))?;
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(folder.join(PROGRAM)).arg(output.join("qemu-system-aarch64"));
    step.run(&mut strip, &folders.logs.join("qemu-strip.log"))?;
    step.done("");
    // 700 MB that nobody needs any more.
    files::remove_folder(&source)?;
    files::remove_folder(&python)?;
    std::fs::remove_file(&tarball).map_err(|error| Error::file(&tarball, &error))
}

/// Changes the source, all of it or nothing.
fn change(source: &Path, version: &str) -> Result<()> {
    let changed = CHANGES.plan(source).and_then(seawall_anchor_edit::Plan::apply);
    changed.map_err(|error| {
        Error::failed(format!("{version} is not what the lab's changes expect: {error}"))
            .advise("Debian's QEMU moved on: bring the anchors in xtask/src/lab/qemu/changes.rs up to it")
    })
}
