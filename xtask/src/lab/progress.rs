//! What the lab is doing, on stderr: a spinner with the time on a terminal, plain lines otherwise.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use seawall_linux::process;

pub(crate) use process::indented;

use super::error::{Error, Result};

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

    /// Runs a program that writes about so many lines, and says how much of them came, and how long the rest takes: on a
    /// terminal all the time, else at each tenth.
    ///
    /// # Errors
    /// As [`Step::run`].
    pub(crate) fn run_counted(&self, command: &mut Command, log: &Path, lines: usize) -> Result<()> {
        let (told, looked) = (Cell::new(0), Cell::new(Instant::now()));
        let start = Instant::now();
        let note = |text: &str| {
            if looked.get().elapsed() < LOOK_EVERY {
                return;
            }
            looked.set(Instant::now());
            let came = std::fs::read_to_string(log).map_or(0, |log| log.lines().count());
            let percent = (100 * came / lines.max(1)).min(99);
            let left = left(start.elapsed(), percent);
            self.note(&format!("{percent} %{left}: {text}"));
            if self.spinner.is_none() && percent / 10 > told.get() {
                told.set(percent / 10);
                eprintln!("lab: {}: {percent} %{left}", self.name);
            }
        };
        process::run(command, log, &note).map_err(|error| Error::failed(format!("{}: {error}", self.name)))
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
        process::run(command, log, &|text| self.note(text))
            .map_err(|error| Error::failed(format!("{}: {error}", self.name)))
    }
}

/// How often the log of a long program is counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time that is left, if there is anything to tell it by.
fn left(elapsed: Duration, percent: usize) -> String {
    if percent < 3 {
        return String::new();
    }
    let seconds = elapsed.as_secs() * (100 - percent as u64) / percent as u64;
    if seconds < 60 { format!(", {seconds} s left") } else { format!(", {} min left", seconds.div_ceil(60)) }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;

    #[test]
    fn the_time_left_is_told_once_there_is_something_to_tell_it_by() {
        assert_eq!(left(Duration::from_secs(10), 2), "");
        assert_eq!(left(Duration::from_secs(90), 50), ", 2 min left");
        assert_eq!(left(Duration::from_secs(90), 90), ", 10 s left");
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
            "a test: sh: exit status: 3; its output is in {}, and ends:\n    first\n    the reason",
            log.display()
        );
        assert_eq!(error.as_deref(), Some(wanted.as_str()));
        assert_eq!(step.run(&mut Command::new("true"), &log), Ok(()));
        let missing = step.run(&mut Command::new("/nonexistent/program"), &log);
        assert!(
            missing.is_err_and(|error| error
                .to_string()
                .starts_with("a test: cannot run /nonexistent/program: "))
        );
        assert_eq!(files::remove_folder(&folder), Ok(()));
    }
}
