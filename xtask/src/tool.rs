//! Tasks that are programs of their own, in `tools/`.

use std::process::{Command, ExitCode};

use super::lab::root;

/// Arguments for such a program.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Builds the package and runs its program; the exit code is the program's.
pub(crate) fn run(package: &str, arguments: &Arguments) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root())
        .args(["run", "--quiet", "--package", package, "--"])
        .args(&arguments.arguments);
    match command.status() {
        Ok(status) => {
            status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("error: cargo run --package {package}: {error}");
            ExitCode::FAILURE
        }
    }
}
