//! `seawall demo`, from start to end: the process as a person starts it.

use super::{Figure, Promise, median};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) const DEMO: &str = "seawall demo, start to end";

/// Builds the CLI, then measures how long `seawall demo` takes.
pub(crate) fn demo(repeat: u32) -> Figure {
    let value = build().and_then(|binary| median(repeat, || once(&binary)));
    Figure { name: DEMO, unit: "ms", value, promise: Promise::AtMost(200.0), peer: None }
}

/// The release binary of the CLI: beside this one.
pub(crate) fn build() -> Result<PathBuf, String> {
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

fn once(binary: &PathBuf) -> Result<f64, String> {
    let start = Instant::now();
    let output = Command::new(binary)
        .arg("demo")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", binary.display()))?;
    let elapsed = start.elapsed();
    if !output.status.success() {
        return Err(format!("`seawall demo` ended with {}", output.status));
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}
