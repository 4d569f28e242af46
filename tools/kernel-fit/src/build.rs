//! The objects: the two crates, and the example that calls them, built as a kernel would build them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// An archive, and its crate.
pub(crate) struct Built {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
}

/// Linux's options for its Rust, as far as they change the paths to a panic: overflow is checked
/// (CONFIG_RUST_OVERFLOW_CHECKS), a panic aborts, no red zone. The unwind tables give the size of each frame.
const RUSTFLAGS: &str = "-Cforce-unwind-tables=yes -Cno-redzone=yes";

/// Builds the crates with cargo, then the example against them.
///
/// rustc builds the example directly: cargo would build the test dependencies of the crate for it.
pub(crate) fn build(root: &Path) -> Result<Vec<Built>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args([
            "build",
            "--release",
            "--package",
            "seawall-events",
            "--message-format=json-render-diagnostics",
        ])
        .arg("--target-dir")
        .arg(target_dir(root))
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo build: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build: {}", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let archives =
        [rlib(&messages, "seawall_arm")?, rlib(&messages, "seawall_events")?, rlib(&messages, "zerocopy")?];
    let [arm, events, zerocopy] = &archives;
    let embed = events.with_file_name("libembed_object.rlib");
    compile(
        &root.join("crates/events/examples/embed_object.rs"),
        &embed,
        &[("seawall_arm", arm), ("seawall_events", events), ("zerocopy", zerocopy)],
    )?;
    let [arm, events, _] = archives;
    Ok(vec![
        Built { name: "embed_object", path: embed },
        Built { name: "seawall_events", path: events },
        Built { name: "seawall_arm", path: arm },
    ])
}

/// Compiles one source file into an archive.
pub(crate) fn compile(source: &Path, archive: &Path, crates: &[(&str, &PathBuf)]) -> Result<(), String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "--crate-type=rlib", "--cap-lints=allow"])
        .arg(source)
        .arg("-o")
        .arg(archive);
    command.args([
        "-Copt-level=3",
        "-Ccodegen-units=1",
        "-Cembed-bitcode=no",
        "-Cpanic=abort",
        "-Coverflow-checks=on",
    ]);
    command.args(RUSTFLAGS.split(' '));
    for (name, path) in crates {
        command.arg("--extern").arg(format!("{name}={}", path.display()));
        if let Some(folder) = path.parent() {
            command.arg("-L").arg(format!("dependency={}", folder.display()));
        }
    }
    let status = command.status().map_err(|error| format!("rustc: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("rustc {}: {status}", source.display())) }
}

/// A directory beside the other target directories, or in the configured one.
fn target_dir(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("kernel-fit")
}

/// The archive of a crate, from cargo's messages.
fn rlib(messages: &str, name: &str) -> Result<PathBuf, String> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_crate = artifacts
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == name);
    let files = of_crate.find_map(|message| message["filenames"].as_array().cloned()).unwrap_or_default();
    let mut files = files.iter().filter_map(Value::as_str).map(PathBuf::from);
    files
        .find(|file| file.extension().is_some_and(|extension| extension == "rlib"))
        .ok_or_else(|| format!("cargo built no archive of {name}"))
}
