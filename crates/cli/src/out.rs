//! The command's output, and the handling of failed writes.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Failure, exit};

/// Writes to stdout, in colours if it is a terminal that supports them.
///
/// # Errors
/// [`exit::FILE`], for a full disk or a similar failure. A reader that closed its end is not an error.
pub(crate) fn stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    written(watched(|| stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())))
}

/// Writes raw bytes to stdout, for a guest's console.
///
/// # Errors
/// As [`stdout`].
pub(crate) fn stdout_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    written(watched(|| stdout.write_all(bytes).and_then(|()| stdout.flush())))
}

/// Writes a line to stderr. If that fails too, there is nobody left to tell.
pub(crate) fn stderr(line: impl Display) {
    let _ = watched(|| writeln!(anstream::stderr(), "{line}"));
}

/// The number of writes that began, and of those that ended.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Does a write, which may wait for its reader without limit.
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

/// Returns true if a write that began before this number has not ended yet.
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
