//! What the lab is doing, on stderr: a spinner with the time on a terminal, plain lines otherwise.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::error::{Error, Result};
use super::files;

/// A step that takes some seconds or minutes.
pub(crate) struct Step {
    name: String,
    start: Instant,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Says that it began.
    pub(crate) fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} lab: {prefix} {elapsed} {wide_msg:.dim}");
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.set_prefix(name.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        if spinner.is_none() {
            eprintln!("lab: {name} ...");
        }
        Self { name, start: Instant::now(), spinner }
    }

    /// What it is at; seen on a terminal only.
    pub(crate) fn note(&self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text.to_owned());
        }
    }

    /// Says that it is done.
    pub(crate) fn done(self, note: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let note = if note.is_empty() { String::new() } else { format!(": {note}") };
        eprintln!("lab: {} done in {:.0} s{note}", self.name, self.start.elapsed().as_secs_f64());
    }

    /// Runs a program with its output in `log`, whose last line is the note. It succeeds if it exits with 0.
    ///
    /// # Errors
    /// It cannot be started, or fails: with the end of its output.
    pub(crate) fn run(&self, command: &mut Command, log: &Path) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        if let Some(folder) = log.parent() {
            files::create_folder(folder)?;
        }
        let output = File::create(log).map_err(|error| Error::file(log, &error))?;
        let errors = output.try_clone().map_err(|error| Error::file(log, &error))?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let mut child = child.map_err(|error| Error::failed(format!("cannot run {program}: {error}")))?;
        loop {
            let status = child.try_wait().map_err(|error| Error::failed(format!("{program}: {error}")))?;
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let end = indented(&tail(log, 4096), 15);
                    return Err(Error::failed(format!("{}: {program}: {status}\n{end}", self.name))
                        .advise(format!("all of its output is in {}", log.display())));
                }
                None => {
                    self.note(tail(log, 512).lines().last().unwrap_or_default());
                    sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// The last bytes of a file as text, empty if it cannot be read.
fn tail(path: &Path, bytes: u64) -> String {
    let mut content = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if file.seek(SeekFrom::Start(length.saturating_sub(bytes))).is_ok() {
            let _ = file.read_to_end(&mut content);
        }
    }
    String::from_utf8_lossy(&content).into_owned()
}

/// The last lines of a text, each behind four spaces.
pub(crate) fn indented(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last: Vec<String> = all
        .iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| format!("    {}", line.trim_end()))
        .collect();
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_that_say_something_are_shown() {
        assert_eq!(indented("one\ntwo\n\nthree\r\n", 2), "    two\n    three");
        assert_eq!(indented("", 3), "");
    }

    #[test]
    fn a_program_that_fails_is_told_with_the_end_of_its_output() {
        let folder = std::env::temp_dir().join(format!("seawall-progress-{}", std::process::id()));
        let log = folder.join("log");
        let step = Step::begin("a test");
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo first; echo the reason >&2; exit 3"]);
        let error = step.run(&mut fails, &log).err().map(|error| error.to_string());
        let wanted = format!(
            "a test: sh: exit status: 3\n    first\n    the reason\n  what to do: all of its output is in {}",
            log.display()
        );
        assert_eq!(error.as_deref(), Some(wanted.as_str()));
        assert_eq!(step.run(&mut Command::new("true"), &log), Ok(()));
        let missing = step.run(&mut Command::new("/nonexistent/program"), &log);
        assert!(
            missing.is_err_and(|error| error.to_string().starts_with("cannot run /nonexistent/program: "))
        );
        assert_eq!(files::remove_folder(&folder), Ok(()));
    }
}
