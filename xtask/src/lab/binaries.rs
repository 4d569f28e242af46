//! Our own programs for the lab: built by cargo each time, so that they are never stale.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cross::{TARGET, Toolchain};
use super::error::{Error, Result};
use super::{Folders, root};

/// A program that goes into the lab's /bin, if the workspace has it.
pub(crate) struct Binary {
    pub(crate) name: &'static str,
}

/// What the lab is used with: the command, the differential test, the bench, the kernel's interface by hand.
pub(crate) const BINARIES: &[Binary] =
    &[Binary { name: "seawall" }, Binary { name: "seawall-lab-diff" }, Binary { name: "seawall-lab-bench" }];
/// Packages whose tests are run in the lab by `cargo xtask lab tests`.
const TESTED: &[&str] = &["seawall-kvm"];
/// The library for LD_PRELOAD.
const PRELOAD: &str = "seawall-preload";

/// A program that was built: its name in the lab, and where it is on the host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds the programs of the table that the workspace has.
pub(crate) fn build(folders: &Folders, toolchain: &Toolchain) -> Result<Vec<Built>> {
    let metadata = metadata()?;
    let mut arguments = vec!["build".to_owned()];
    for binary in BINARIES {
        if let Some(package) = package_of(&metadata, "bin", binary.name) {
            arguments.extend(["--package".into(), package, "--bin".into(), binary.name.into()]);
        }
    }
    cargo(
        &arguments,
        &folders.target.join("cargo"),
        toolchain.environment(),
        "our programs for arm64",
        is_program,
    )
}

/// Builds the tests that run in the lab.
pub(crate) fn build_tests(folders: &Folders, toolchain: &Toolchain) -> Result<Vec<Built>> {
    let metadata = metadata()?;
    let mut arguments = vec!["test".to_owned(), "--no-run".to_owned()];
    let tested = TESTED.iter().filter(|package| has_package(&metadata, package));
    arguments.extend(tested.flat_map(|package| ["--package".to_owned(), (*package).to_owned()]));
    if arguments.len() == 2 {
        return Ok(Vec::new());
    }
    cargo(&arguments, &folders.target.join("cargo"), toolchain.environment(), "tests for arm64", is_test)
}

/// Builds the library for `LD_PRELOAD`; none if the workspace has none. It takes Debian's cross compiler.
pub(crate) fn build_preload(folders: &Folders, toolchain: &Toolchain) -> Result<Option<PathBuf>> {
    if !has_package(&metadata()?, PRELOAD) {
        return Ok(None);
    }
    let arguments = ["build", "--package", PRELOAD].map(str::to_owned);
    let environment = toolchain.environment_for_shared();
    let folder = folders.target.join("cargo-shared");
    let built = cargo(&arguments, &folder, environment, "libseawall_preload.so for arm64", is_shared)?;
    Ok(built.into_iter().next().map(|built| built.path))
}

fn cargo(
    arguments: &[String],
    folder: &Path,
    environment: Vec<(&'static str, OsString)>,
    what: &str,
    wanted: fn(&Value) -> Option<Built>,
) -> Result<Vec<Built>> {
    eprintln!("lab: {what}");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(arguments)
        .args(["--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .arg("--target-dir")
        .arg(folder)
        .current_dir(root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .envs(environment)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(|error| Error::failed(format!("{cargo}: {error}")))?;
    if !output.status.success() {
        return Err(Error::failed(format!("cargo {}: {}", arguments.join(" "), output.status))
            .advise("see cargo's messages above"));
    }
    Ok(artifacts(&String::from_utf8_lossy(&output.stdout), wanted))
}

/// The workspace's packages and their targets, as cargo tells them.
fn metadata() -> Result<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(root());
    let output = command.output().map_err(|error| Error::failed(format!("{cargo}: {error}")))?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        Error::failed(format!("cargo metadata: {error}\n{said}"))
    })
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn has_package(metadata: &Value, name: &str) -> bool {
    packages(metadata).any(|package| package["name"] == name)
}

/// The package that has a target of this kind and name.
fn package_of(metadata: &Value, kind: &str, name: &str) -> Option<String> {
    let has = |package: &&Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        let mut named = targets.filter(|target| target["name"] == name);
        named.any(|target| {
            target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|each| each == kind))
        })
    };
    packages(metadata).find(has)?["name"].as_str().map(str::to_owned)
}

/// What cargo says it built, as far as it is wanted.
fn artifacts(messages: &str, wanted: fn(&Value) -> Option<Built>) -> Vec<Built> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| wanted(&message))
        .collect()
}

fn is_program(message: &Value) -> Option<Built> {
    let path = message["executable"].as_str()?;
    Some(Built { name: message["target"]["name"].as_str()?.into(), path: path.into() })
}

fn is_test(message: &Value) -> Option<Built> {
    let path = message["executable"].as_str()?;
    let of_test = message["profile"]["test"].as_bool()?;
    of_test.then(|| Built {
        name: message["target"]["name"].as_str().unwrap_or("test").into(),
        path: path.into(),
    })
}

fn is_shared(message: &Value) -> Option<Built> {
    let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
    let path = PathBuf::from(files.find(|file| file.ends_with("/libseawall_preload.so"))?);
    Some(Built { name: "libseawall_preload.so".into(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages":[
        {"name":"seawall-cli","targets":[{"name":"seawall","kind":["bin"]},{"name":"usage","kind":["test"]}]},
        {"name":"seawall","targets":[{"name":"seawall","kind":["lib"]}]}]}"#;

    #[test]
    fn the_package_of_a_program_is_found_by_kind_and_name() {
        let metadata: Value = serde_json::from_str(METADATA).unwrap_or_default();
        assert_eq!(package_of(&metadata, "bin", "seawall").as_deref(), Some("seawall-cli"));
        assert_eq!(package_of(&metadata, "bin", "usage"), None);
        assert!(has_package(&metadata, "seawall") && !has_package(&metadata, "seawall-preload"));
    }

    #[test]
    fn programs_tests_and_libraries_are_told_apart_in_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"seawall"},"profile":{"test":false},"executable":null,"filenames":["/t/libseawall.rlib"]}
{"reason":"compiler-artifact","target":{"name":"seawall"},"profile":{"test":false},"executable":"/t/seawall","filenames":["/t/seawall"]}
{"reason":"compiler-artifact","target":{"name":"probe"},"profile":{"test":true},"executable":"/t/deps/probe-1","filenames":["/t/deps/probe-1"]}
{"reason":"compiler-artifact","target":{"name":"seawall_preload"},"profile":{"test":false},"executable":null,"filenames":["/t/libseawall_preload.so"]}
{"reason":"build-finished","success":true}"#;
        let built = |name: &str, path: &str| Built { name: name.into(), path: path.into() };
        assert_eq!(artifacts(messages, is_test), [built("probe", "/t/deps/probe-1")]);
        assert_eq!(
            artifacts(messages, is_shared),
            [built("libseawall_preload.so", "/t/libseawall_preload.so")]
        );
        assert!(artifacts(messages, is_program).contains(&built("seawall", "/t/seawall")));
    }
}
