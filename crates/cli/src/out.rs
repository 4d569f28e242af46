//! What the command writes, and what becomes of it if it cannot be written.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::{Failure, exit};

/// Writes to stdout, in colours if a terminal wants them.
///
/// # Errors
/// [`exit::FILE`], for a full disk or its like. A reader that went away is its own affair.
pub(crate) fn stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// The same for bytes as they are: a guest's console.
///
/// # Errors
/// As [`stdout`].
pub(crate) fn stdout_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Writes a line to stderr. If that cannot be written either, there is nobody left to tell.
pub(crate) fn stderr(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(exit::FILE, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
