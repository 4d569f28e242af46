//! The examples of the workspace's crates, as cargo knows them.

use std::process::Command;

use serde_json::Value;

use super::error::{Error, Result};
use super::root;

/// An example, and the package that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Example {
    pub(crate) package: String,
    pub(crate) name: String,
}

/// The example of this name.
///
/// # Errors
/// There is none, with those there are; or cargo does not say.
pub(crate) fn find(name: &str) -> Result<Example> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(root());
    let output = command.output().map_err(|error| Error::failed(format!("{cargo}: {error}")))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Error::failed(format!("cargo metadata: {}: {}", output.status, why.trim())));
    }
    choose(&examples(&String::from_utf8_lossy(&output.stdout)), name)
}

fn choose(examples: &[Example], name: &str) -> Result<Example> {
    let found = examples.iter().find(|example| example.name == name);
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = examples.iter().map(|example| example.name.as_str()).collect();
        Error::failed(format!("no crate has an example {name:?}"))
            .advise(format!("take one of {}", known.join(", ")))
    })
}

/// The part of `cargo metadata` that names example programs.
fn examples(metadata: &str) -> Vec<Example> {
    let metadata: Value = serde_json::from_str(metadata).unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_program = |target: &Value| {
        list(&target["kind"]).iter().any(|kind| kind == "example")
            && list(&target["crate_types"]).iter().any(|kind| kind == "bin")
    };
    let mut examples = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]).iter().filter(|target| is_program(target)) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            examples.push(Example { package: text(&package["name"]), name: text(&target["name"]) });
        }
    }
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages": [
        {"name": "seawall-kvm", "targets": [
            {"kind": ["lib"], "crate_types": ["lib"], "name": "seawall_kvm"},
            {"kind": ["example"], "crate_types": ["bin"], "name": "sea"}]},
        {"name": "seawall-events", "targets": [
            {"kind": ["example"], "crate_types": ["rlib"], "name": "embed_object"},
            {"kind": ["example"], "crate_types": ["bin"], "name": "own_vcpu"}]}]}"#;

    #[test]
    fn an_example_is_found_in_whatever_crate_has_it() {
        let example = |package: &str, name: &str| Example { package: package.into(), name: name.into() };
        let known = examples(METADATA);
        assert_eq!(known, [example("seawall-kvm", "sea"), example("seawall-events", "own_vcpu")]);
        assert_eq!(choose(&known, "own_vcpu"), Ok(example("seawall-events", "own_vcpu")));
    }

    #[test]
    fn an_example_that_there_is_not_is_an_error_that_names_those_there_are() {
        let error = choose(&examples(METADATA), "see").expect_err("no such example");
        assert_eq!(
            error.to_string(),
            "no crate has an example \"see\"\n  what to do: take one of sea, own_vcpu"
        );
    }
}
