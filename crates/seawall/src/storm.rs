//! A guest that takes the same abort again and again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{MemoryError, StopReason};

/// Notices storms: the same PC, address and page, too often within a period.
///
/// A handler that is itself bad aborts at one PC for ever; two tasks that retry in turn, at two. So the guard
/// looks at all errors of the period, not only at the last one. Neither a guest that moves on, be it to another
/// page under the same address, nor a service that is restarted now and then and meets the same bad page each
/// time, is in a storm.
#[derive(Clone, Debug)]
pub struct StormGuard {
    limit: usize,
    period: Duration,
    recent: VecDeque<(Duration, Key)>,
}

/// When, PC, gva and gpa.
pub(crate) type Noted = (Duration, u64, Option<u64>, Option<u64>);

/// PC, gva and gpa.
type Key = (u64, Option<u64>, Option<u64>);

impl StormGuard {
    /// How many errors are remembered at most, and so how many may be allowed.
    pub const MEMORY: usize = 64;
    /// How often the same abort may come within the period, if nothing else is said.
    pub const LIMIT: usize = 16;
    /// The period, if nothing else is said.
    pub const PERIOD: Duration = Duration::from_secs(10);

    /// A guard that allows the same abort `limit` times (1 to [`StormGuard::MEMORY`]) within `period`.
    pub fn new(limit: usize, period: Duration) -> Self {
        let limit = limit.clamp(1, Self::MEMORY);
        Self { limit, period, recent: VecDeque::with_capacity(Self::MEMORY + 1) }
    }

    /// The errors that it remembers, oldest first.
    pub(crate) fn noted(&self) -> impl Iterator<Item = Noted> {
        self.recent.iter().map(|(then, (pc, gva, gpa))| (*then, *pc, *gva, *gpa))
    }

    /// Forgets all errors.
    pub(crate) fn forget(&mut self) {
        self.recent.clear();
    }

    /// The same guard with other memories: what a guard [`noted`](Self::noted), the last of it.
    pub(crate) fn remember(&mut self, noted: impl IntoIterator<Item = Noted>) {
        self.recent.clear();
        for (then, pc, gva, gpa) in noted {
            self.recent.push_back((then, (pc, gva, gpa)));
            if self.recent.len() > Self::MEMORY {
                self.recent.pop_front();
            }
        }
    }

    /// The last error that was noted and is like this one did not count.
    #[cfg(feature = "records")]
    pub(crate) fn take_back(&mut self, error: &MemoryError) {
        let key = (error.pc, error.gva, error.gpa);
        if let Some(last) = self.recent.iter().rposition(|(_, seen)| *seen == key) {
            self.recent.remove(last);
        }
    }

    /// Takes note of an error at the time `now`, read from a clock that does not go back.
    ///
    /// # Errors
    /// [`StopReason::Storm`] if the same came more often than the limit.
    pub fn note(&mut self, error: &MemoryError, now: Duration) -> Result<(), StopReason> {
        let key = (error.pc, error.gva, error.gpa);
        while let Some((then, _)) = self.recent.front() {
            let is_old = now.saturating_sub(*then) > self.period;
            if !is_old && self.recent.len() <= Self::MEMORY {
                break;
            }
            self.recent.pop_front();
        }
        self.recent.push_back((now, key));
        let times = self.recent.iter().filter(|(_, seen)| *seen == key).count();
        if times > self.limit {
            return Err(StopReason::Storm { pc: error.pc, gva: error.gva, times });
        }
        Ok(())
    }
}

impl Default for StormGuard {
    fn default() -> Self {
        Self::new(Self::LIMIT, Self::PERIOD)
    }
}
