//! What is installed here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::{error::Error, host};

/// Programs that steps use, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 3] =
    [(QEMU_USER, "qemu-user"), (QEMU_SYSTEM, "qemu-system-arm"), ("cc", "gcc")];
/// The peer of the CPU, and that of the machine.
pub(super) const QEMU_USER: &str = "qemu-aarch64";
pub(super) const QEMU_SYSTEM: &str = "qemu-system-aarch64";

/// Installs the packages of programs that are missing.
///
/// # Errors
/// One cannot be installed, with its name.
pub(super) fn install() -> Result<(), Error> {
    let missing = PROGRAMS.iter().filter(|(program, _)| !on_path(program));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    host::need(&packages, "cargo xtask ci", &root().join("target/ci/packages.log"))
}

/// Which of these programs are missing, and the packages that have them; `None` if they are all there.
pub(super) fn lacking(programs: &[&str]) -> Option<String> {
    let missing = PROGRAMS.iter().filter(|(program, _)| programs.contains(program) && !on_path(program));
    let texts: Vec<String> =
        missing.map(|(program, package)| format!("{program} is missing (package {package})")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// The workspace.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Whether a program runs and exits with 0; what it says is not shown.
pub(super) fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether cargo has a subcommand.
pub(super) fn cargo_has(subcommand: &str) -> bool {
    works("cargo", &[subcommand, "--version"])
}

/// Whether there is a nightly toolchain whose cargo has a subcommand.
pub(super) fn nightly_has(subcommand: &str) -> bool {
    works("cargo", &["+nightly", subcommand, "--version"])
}

/// The nightly toolchain has the source of the standard library.
pub(super) fn nightly_has_source() -> bool {
    let output = Command::new("rustc").args(["+nightly", "--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// Whether a program is on the PATH.
pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The names of a folder's files without their extensions, sorted; none if there is no such folder.
pub(super) fn file_stems(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let stems = entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_string()));
    let mut stems: Vec<String> = stems.collect();
    stems.sort();
    stems
}
