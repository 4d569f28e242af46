//! Programs that do part of the work, and reports on them while they run.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files;

/// A receiver of progress messages, called several times a second during slow steps.
pub type Note<'a> = &'a dyn Fn(&str);

/// Runs a program with its output in `log`, whose last line is reported. It succeeds if the program exits
/// with 0.
///
/// # Errors
/// [`Error::Unavailable`] if there is no such program, [`Error::Program`] if it fails, [`Error::File`] for
/// the log.
pub fn run(command: &mut Command, log: &Path, note: Note<'_>) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    if let Some(folder) = log.parent() {
        files::create_folder(folder)?;
    }
    let output = File::create(log).map_err(|error| Error::file(log, error))?;
    let errors = output.try_clone().map_err(|error| Error::file(log, error))?;
    let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
    let mut child = child.map_err(|error| cannot_run(&program, &error))?;
    loop {
        let status = child.try_wait().map_err(|error| cannot_run(&program, &error))?;
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let end = indented(&tail(log, 4096), 15);
                return Err(Error::Program { program, status, log: log.to_owned(), end });
            }
            None => {
                note(tail(log, 512).lines().last().unwrap_or_default());
                sleep(Duration::from_millis(50));
            }
        }
    }
}

pub(crate) fn cannot_run(program: &str, error: &std::io::Error) -> Error {
    Error::unavailable(format!("cannot run {program}: {error}"), format!("install {program}"))
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

/// The last lines of a text, each indented by four spaces; empty ones are left out.
#[must_use]
pub fn indented(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = all.iter().skip(all.len().saturating_sub(lines));
    last.map(|line| format!("    {}", line.trim_end())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::env::temp_dir;
    use std::process::id;

    use super::*;

    #[test]
    fn the_last_lines_that_say_something_are_shown() {
        assert_eq!(indented("one\ntwo\n\nthree\r\n", 2), "    two\n    three");
        assert_eq!(indented("", 3), "");
    }

    #[test]
    fn a_program_that_fails_is_told_with_the_end_of_its_output() {
        let log = temp_dir().join(format!("seawall-process-{}", id())).join("log");
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo first; echo the reason >&2; exit 3"]);
        let error = run(&mut fails, &log, &|_| ()).err().map(|error| error.to_string());
        let wanted = format!(
            "sh: exit status: 3; its output is in {}, and ends:\n    first\n    the reason",
            log.display()
        );
        assert_eq!(error.as_deref(), Some(wanted.as_str()));
        assert!(run(&mut Command::new("true"), &log, &|_| ()).is_ok());
        let missing = run(&mut Command::new("/nonexistent/program"), &log, &|_| ());
        assert!(missing.is_err_and(|error| error.is_unavailable()));
        let _ = std::fs::remove_dir_all(log.parent().unwrap_or(&log));
    }
}
