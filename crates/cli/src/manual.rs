//! `seawall completions` and `seawall man`, generated from the options.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{Cli, Failure, exit, out};

/// Print a script that lets a shell complete commands and options.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seawall completions bash > ~/.local/share/bash-completion/completions/seawall
  seawall completions zsh > ~/.zfunc/_seawall        with ~/.zfunc in fpath
  seawall completions fish > ~/.config/fish/completions/seawall.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell that loads the script.
    shell: Shell,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "seawall", &mut script);
    out::stdout_bytes(&script)?;
    Ok(0)
}

/// Print the manual page of `seawall`, or of one of its commands.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seawall man | man -l -
  seawall man run > seawall-run.1
  seawall man --dir ~/.local/share/man/man1          then: man seawall-run")]
pub(crate) struct ManArgs {
    /// Command of the page, such as `run` or `guest fetch`.
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the pages of `seawall` and of all commands to this folder instead; it is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn man(args: &ManArgs) -> Result<u8, Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    if let Some(dir) = &args.dir {
        let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
        written.map_err(|error| Failure::new(exit::FILE, format!("--dir {}: {error}", dir.display())))?;
        return Ok(0);
    }
    let mut page = &command;
    for name in &args.command {
        page = page.find_subcommand(name).ok_or_else(|| {
            let commands: Vec<&str> = page.get_subcommands().map(clap::Command::get_name).collect();
            let expected = if commands.is_empty() {
                "nothing more".into()
            } else {
                format!("one of {}", commands.join(", "))
            };
            Failure::new(exit::USAGE, format!("no command `{name}`: expected {expected}"))
        })?;
    }
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page.clone()).render(&mut text);
    rendered.map_err(|error| Failure::new(exit::UNEXPECTED, format!("the page cannot be made: {error}")))?;
    out::stdout_bytes(&text)?;
    Ok(0)
}
