//! A guest that takes the same abort again and again.

use std::collections::VecDeque;

use thiserror::Error;

use crate::MemoryError;

/// Why a guest must not be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum StopReason {
    /// The same access aborts for ever: the guest does not, or cannot, handle it.
    #[error(
        "the guest took the same abort {times} times at PC {pc:#x}{}: it does not handle it (are its \
         vectors or page tables bad?)", match .gva { Some(gva) => format!(", address {gva:#x}"), None => String::new() }
    )]
    Storm {
        /// PC of the access.
        pc: u64,
        /// The address, if known.
        gva: Option<u64>,
        /// How often, among the errors remembered.
        times: usize,
    },
}

/// Notices storms: the same PC, address and page, so many times among the last errors.
///
/// A handler that is itself bad aborts at one PC for ever; two tasks that retry in turn, at two. So the
/// guard looks at the last [`StormGuard::WINDOW`] errors, not only at the last one. A guest that moves on, be
/// it to another page under the same address, is not in a storm.
#[derive(Clone, Debug)]
pub struct StormGuard {
    limit: usize,
    /// PC, gva and gpa of each.
    recent: VecDeque<(u64, Option<u64>, Option<u64>)>,
}

impl StormGuard {
    /// How many errors are remembered.
    pub const WINDOW: usize = 64;
    /// How often the same abort may come among them, if nothing else is said.
    pub const LIMIT: usize = 16;

    /// A guard that allows the same abort `limit` times (at least once) in the window.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.clamp(1, Self::WINDOW), recent: VecDeque::with_capacity(Self::WINDOW) }
    }

    /// Takes note of an error.
    ///
    /// # Errors
    /// [`StopReason::Storm`] if the same came more often than the limit.
    pub fn note(&mut self, error: &MemoryError) -> Result<(), StopReason> {
        let key = (error.pc, error.gva, error.gpa);
        if self.recent.len() == Self::WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(key);
        let times = self.recent.iter().filter(|seen| **seen == key).count();
        if times > self.limit {
            return Err(StopReason::Storm { pc: error.pc, gva: error.gva, times });
        }
        Ok(())
    }
}

impl Default for StormGuard {
    fn default() -> Self {
        Self::new(Self::LIMIT)
    }
}
