//! Storms: a guest takes the same abort again and again, or more aborts than memory can have errors.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{MemoryError, StopReason};

/// A detector of storms: the same PC, address and page too often within a period, or errors at a rate that no
/// failing memory has. That rate is [`StormGuard::FLOOD`] within the period, and as many at once.
///
/// A handler that is itself bad aborts at one PC forever; two tasks that retry in turn abort at two. The
/// guard therefore looks at all errors of the period, not only at the last one. A guest that moves on is not
/// in a storm, even if it moves to another page under the same address. Neither is a service that restarts
/// now and then and meets the same bad page each time.
#[derive(Clone, Debug)]
pub struct StormGuard {
    limit: usize,
    period: Duration,
    /// The part of the period that one error takes.
    part: Duration,
    recent: VecDeque<(Duration, Key)>,
    /// The time at which errors at the greatest rate would be as many as came.
    flood_until: Duration,
}

/// The state of a [`StormGuard`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct StormState {
    noted: Vec<Noted>,
    flood_until: Duration,
}

/// Time, PC, gva and gpa.
pub(crate) type Noted = (Duration, u64, Option<u64>, Option<u64>);

/// PC, gva and gpa.
type Key = (u64, Option<u64>, Option<u64>);

impl StormGuard {
    /// The largest number of errors that the guard remembers, and so the largest limit.
    pub const MEMORY: usize = 64;
    /// The largest number of allowed errors, and the one that is too many.
    const HELD: usize = Self::MEMORY + 1;
    /// The number of errors of any kind that may come within the period. Ten thousand pages, each met once,
    /// are not a storm.
    pub const FLOOD: u32 = 16_384;
    /// The default number of times that the same abort may come within the period.
    pub const LIMIT: usize = 16;
    /// The default period.
    pub const PERIOD: Duration = Duration::from_secs(10);

    /// A guard that allows the same abort `limit` times (1 to [`StormGuard::MEMORY`]) within `period`.
    pub fn new(limit: usize, period: Duration) -> Self {
        let limit = limit.clamp(1, Self::MEMORY);
        let recent = VecDeque::with_capacity(Self::HELD);
        Self { limit, period, part: period / Self::FLOOD, recent, flood_until: Duration::ZERO }
    }

    /// The guard's state.
    pub(crate) fn state(&self) -> StormState {
        let noted = self.recent.iter().map(|(then, (pc, gva, gpa))| (*then, *pc, *gva, *gpa));
        StormState { noted: noted.collect(), flood_until: self.flood_until }
    }

    /// Forgets all errors.
    pub(crate) fn forget(&mut self) {
        self.set_state(&StormState::default());
    }

    /// Replaces the guard's state.
    pub(crate) fn set_state(&mut self, state: &StormState) {
        let StormState { noted, flood_until } = state;
        let last = noted.iter().skip(noted.len().saturating_sub(Self::HELD));
        self.recent = last.map(|(then, pc, gva, gpa)| (*then, (*pc, *gva, *gpa))).collect();
        self.flood_until = *flood_until;
    }

    /// Removes the last noted error like this one from the count.
    #[cfg(feature = "records")]
    pub(crate) fn take_back(&mut self, error: &MemoryError) {
        let key = (error.pc, error.gva, error.gpa);
        if let Some(last) = self.recent.iter().rposition(|(_, seen)| *seen == key) {
            self.recent.remove(last);
            self.flood_until = self.flood_until.saturating_sub(self.part);
        }
    }

    /// Returns true if a noted error came more often than half the limit allows.
    #[cfg(feature = "records")]
    pub(crate) fn is_half_way(&self, error: &MemoryError) -> bool {
        self.times(error) > (self.limit / 2).max(1)
    }

    fn times(&self, error: &MemoryError) -> usize {
        let key = (error.pc, error.gva, error.gpa);
        self.recent.iter().filter(|(_, seen)| *seen == key).count()
    }

    /// Notes an error at the time `now`, read from a monotonic clock.
    ///
    /// # Errors
    /// [`StopReason::Storm`] if the same error came more often than the limit, [`StopReason::Flood`] if too
    /// many came.
    pub fn note(&mut self, error: &MemoryError, now: Duration) -> Result<(), StopReason> {
        let key = (error.pc, error.gva, error.gpa);
        // Each error takes a part of the period; unused time is lost.
        self.flood_until = self.flood_until.max(now).saturating_add(self.part);
        while let Some((then, _)) = self.recent.front() {
            let is_old = now.saturating_sub(*then) > self.period;
            if !is_old && self.recent.len() < Self::HELD {
                break;
            }
            self.recent.pop_front();
        }
        self.recent.push_back((now, key));
        let times = self.times(error);
        if times > self.limit {
            return Err(StopReason::Storm { pc: error.pc, gva: error.gva, times });
        }
        if self.flood_until.saturating_sub(now) > self.period {
            return Err(StopReason::Flood { errors: Self::FLOOD, within: self.period });
        }
        Ok(())
    }
}

impl Default for StormGuard {
    fn default() -> Self {
        Self::new(Self::LIMIT, Self::PERIOD)
    }
}
