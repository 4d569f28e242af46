//! `seawall wrap`: a VMM as it is, whose guests survive memory errors.

mod args;
mod host;
mod program;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use seawall_wrap::Settings;

pub(crate) use self::args::Args;
use self::program::LD_PRELOAD;
use crate::style::dim;
use crate::{Failure, exit, out};

/// Checks, and becomes the program.
pub(crate) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let Some((command, arguments)) = args.command.split_first() else {
        return Err(Failure::new(exit::USAGE, "expected a program"));
    };
    let program = program::find(command)?;
    program::check(&program)?;
    let notes = host::check()?;
    let library = program::library(args.library.as_deref())?;
    program::check_loads(&program, &library)?;
    let settings = args.settings(&program, quiet)?;
    if !quiet {
        for note in notes {
            out::stderr(dim(format!("seawall: {note}")));
        }
    }
    if args.check {
        out::stdout(&format!(
            "{} can be wrapped on this host, by {}\n",
            program.display(),
            library.display()
        ))?;
        return Ok(0);
    }
    if args.env {
        out::stdout(&variables(&settings, &library))?;
        return Ok(0);
    }
    let mut vmm = Command::new(&program);
    vmm.arg0(command).args(arguments).env(LD_PRELOAD, program::preload(&library));
    for variable in Settings::VARIABLES {
        vmm.env_remove(variable);
    }
    let error = vmm.envs(settings.variables()).exec();
    Err(Failure::new(exit::FILE, format!("{}: {error}", program.display())))
}

/// A line for each, as systemd's `EnvironmentFile=` and a shell's `env` have them.
fn variables(settings: &Settings, library: &Path) -> String {
    let preload = (LD_PRELOAD, library.as_os_str().to_owned());
    let all = std::iter::once(preload).chain(settings.variables());
    all.fold(String::new(), |lines, (name, value)| lines + name + "=" + &value.to_string_lossy() + "\n")
}
