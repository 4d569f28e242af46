//! The output of a scenario's guests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The lines of all consoles of a scenario, for finding out why it failed. Clones share the lines.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Vec<String>>>);

impl Transcript {
    /// Adds a line.
    pub fn add(&self, line: impl Into<String>) {
        self.lines().push(line.into());
    }

    /// Takes the lines out.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines())
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
