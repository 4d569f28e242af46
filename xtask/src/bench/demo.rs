//! `seawall demo`, from start to end: the process as a person starts it.

use std::path::PathBuf;
use std::process::Command;

use super::{Promise, Trial, cost};

pub(crate) const DEMO: &str = "seawall demo, start to end";

/// Builds the CLI, then measures how long `seawall demo` takes.
pub(super) fn demo() -> Result<Trial<'static>, String> {
    let binary = build()?;
    let ours = Box::new(move || {
        let process = cost::to_end(Command::new(&binary).arg("demo"))?;
        if !process.status.success() {
            return Err(format!("`seawall demo` ended with {}", process.status));
        }
        Ok(process.cost.map(|seconds| seconds * 1e3))
    });
    Ok(Trial { name: DEMO, unit: "ms", promise: Promise::AtMost(200.0), ours, peers: Vec::new() })
}

/// The release binary of the CLI: beside this one.
pub(super) fn build() -> Result<PathBuf, String> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "--package", "seawall-cli"])
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !status.success() {
        return Err("the CLI does not build".to_owned());
    }
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    Ok(own.with_file_name("seawall"))
}
