//! What somebody says, line by line, for whoever waits for one.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a line is waited for. A host with other work takes minutes for what takes three seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The lines so far; clones see the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    has_ended: bool,
}

impl Lines {
    /// Reads them as they come, to the end.
    pub(crate) fn follow(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.seen().lines.push(text);
                lines.0.1.notify_all();
                line.clear();
            }
            lines.seen().has_ended = true;
            lines.0.1.notify_all();
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.seen().lines.clone()
    }

    /// Those that have this in them.
    pub(crate) fn with(&self, part: &str) -> Vec<String> {
        self.all().into_iter().filter(|line| line.contains(part)).collect()
    }

    /// The first line with this in it, when it comes.
    pub(crate) fn wait(&self, part: &str) -> Result<String, String> {
        self.wait_from(0, part).map(|(_, line)| line)
    }

    /// The same, of the lines from this number on, with its number.
    pub(crate) fn wait_from(&self, first: usize, part: &str) -> Result<(usize, String), String> {
        let start = Instant::now();
        let mut seen = self.seen();
        loop {
            let rest = seen.lines.iter().enumerate().skip(first);
            if let Some((number, line)) = rest.into_iter().find(|(_, line)| line.contains(part)) {
                return Ok((number, line.clone()));
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            if seen.has_ended || left.is_zero() {
                let why = if seen.has_ended { "it ended before" } else { "it did not come" };
                return Err(format!("expected a line with {part:?}: {why}"));
            }
            seen = self.0.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
