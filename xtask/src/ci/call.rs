//! Programs that a step runs, and where their words go.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::process::{Command, Stdio};

use super::tools;
use crate::OWN;

/// A program to run from the workspace's folder. It succeeds if it exits with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    program: String,
    /// What a person would type for the program.
    typed: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Its stdout is shown only if it fails.
    quiet: bool,
    /// Exit code 77 says that what it takes cannot be had here.
    may_be_unavailable: bool,
}

/// How a call ended that did not fail.
pub(super) enum Ended {
    Well,
    Unavailable,
}

/// Exit code of a program that could not do its work here for want of something. As of automake's tests.
const UNAVAILABLE: i32 = 77;

impl Call {
    pub(super) fn new(program: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self {
            program: program.into(),
            typed: program.into(),
            arguments,
            environment: Vec::new(),
            quiet: false,
            may_be_unavailable: false,
        }
    }

    pub(super) fn cargo(arguments: &[&str]) -> Self {
        Self::new("cargo", arguments)
    }

    /// Another task of this program: by itself, as cargo's lock may be held by a build in the other lane.
    pub(super) fn xtask(arguments: &[&str]) -> Self {
        if std::path::Path::new(OWN).exists() {
            Self { typed: "cargo xtask".into(), ..Self::new(OWN, arguments) }
        } else {
            Self::cargo(&[&["xtask"], arguments].concat())
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(super) fn quietly(self) -> Self {
        Self { quiet: true, ..self }
    }

    pub(super) fn if_available(self) -> Self {
        Self { may_be_unavailable: true, ..self }
    }

    /// As a person would type it.
    pub(super) fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.environment {
            let _ = write!(line, "{name}='{value}' ");
        }
        line.push_str(&self.typed);
        for argument in &self.arguments {
            let _ = write!(line, " {argument}");
        }
        line
    }

    pub(super) fn run(&self, output: &Output) -> Result<Ended, String> {
        output.say(&format!("$ {}", self.line()));
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(tools::root());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.stdio()).stderr(output.stdio());
        if self.quiet {
            command.stdout(Stdio::piped());
        }
        let ended = command.spawn().and_then(std::process::Child::wait_with_output);
        let ended = ended.map_err(|error| format!("{}: {error}", self.program))?;
        if ended.status.success() {
            return Ok(Ended::Well);
        }
        if self.may_be_unavailable && ended.status.code() == Some(UNAVAILABLE) {
            return Ok(Ended::Unavailable);
        }
        if self.quiet {
            output.say(&String::from_utf8_lossy(&ended.stdout));
        }
        Err(format!("`{}`: {}", self.line(), ended.status))
    }
}

/// Where the words of a step go.
pub(super) enum Output {
    /// To our own output, as they come.
    Shown,
    /// Into this file, to be shown when the step has ended.
    Kept(File),
}

impl Output {
    /// To be shown at the end; or at once, where there is no room for a file.
    pub(super) fn kept() -> Self {
        tempfile::tempfile().map_or(Self::Shown, Self::Kept)
    }

    pub(super) fn say(&self, text: &str) {
        // Nobody may read it any more.
        let _ = match self {
            Self::Shown => writeln!(std::io::stdout(), "{text}"),
            Self::Kept(file) => writeln!(&mut &*file, "{text}"),
        };
    }

    /// Shows what was kept, and gives it.
    pub(super) fn show(self) -> String {
        let mut bytes = Vec::new();
        if let Self::Kept(mut file) = self {
            let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
            let _ = std::io::stdout().lock().write_all(&bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn stdio(&self) -> Stdio {
        match self {
            Self::Shown => Stdio::inherit(),
            Self::Kept(file) => file.try_clone().map_or(Stdio::null(), Stdio::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_a_programs_output_and_errors_in_their_order() {
        let output = Output::kept();
        let ended = Call::new("sh", &["-c", "echo one; echo two >&2; echo three"]).run(&output);
        assert!(matches!(ended, Ok(Ended::Well)));
        let Output::Kept(mut file) = output else { panic!("expected a file") };
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).expect("a file");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "$ sh -c echo one; echo two >&2; echo three\none\ntwo\nthree\n");
    }

    #[test]
    fn a_task_of_our_own_is_shown_as_it_is_typed() {
        assert_eq!(Call::xtask(&["lab", "check"]).line(), "cargo xtask lab check");
        assert_eq!(
            Call::cargo(&["doc"]).with("RUSTDOCFLAGS", "-D warnings").line(),
            "RUSTDOCFLAGS='-D warnings' cargo doc"
        );
    }
}
