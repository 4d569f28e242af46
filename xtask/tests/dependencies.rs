//! What the manifests say of dependencies.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whoever takes the oldest versions that the manifests allow builds what is tested here: none of ours says `1` and needs 1.5.
#[test]
fn the_oldest_version_of_a_dependency_that_is_allowed_is_the_one_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["source"].is_null() {
                continue;
            }
            let (name, requirement) = (text(dependency, "name"), text(dependency, "req"));
            let oldest = requirement.trim_start_matches(['^', '=']);
            // What follows a `+` is no part of the order of versions.
            let entry = |end: char| format!("name = \"{name}\"\nversion = \"{oldest}{end}");
            assert!(
                lock.contains(&entry('"')) || lock.contains(&entry('+')),
                "{} allows {name} {requirement}, and Cargo.lock has no {oldest}",
                text(package, "name")
            );
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} dependencies");
}
