//! What the command writes, and what becomes of it if it cannot be written.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Failure, exit};

/// Writes to stdout, in colours if a terminal wants them.
///
/// # Errors
/// [`exit::FILE`], for a full disk or its like. A reader that went away is its own affair.
pub(crate) fn stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    written(watched(|| stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())))
}

/// The same for bytes as they are: a guest's console.
///
/// # Errors
/// As [`stdout`].
pub(crate) fn stdout_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    written(watched(|| stdout.write_all(bytes).and_then(|()| stdout.flush())))
}

/// Writes a line to stderr. If that cannot be written either, there is nobody left to tell.
pub(crate) fn stderr(line: impl Display) {
    let _ = watched(|| writeln!(anstream::stderr(), "{line}"));
}

/// Writes that began, and that came to an end.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Does a write, which waits for as long as its reader likes.
pub(crate) fn watched<T>(write: impl FnOnce() -> T) -> T {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    let result = write();
    ENDED.fetch_add(1, Ordering::Relaxed);
    result
}

/// The number of writes that have begun, for [`is_waiting_since`].
pub(crate) fn begun() -> u64 {
    BEGUN.load(Ordering::Relaxed)
}

/// Whether a write that had begun when there were so many has not ended yet.
pub(crate) fn is_waiting_since(begun: u64) -> bool {
    ENDED.load(Ordering::Relaxed) < begun
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(exit::FILE, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
