//! When it is time to leave the host.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Too much memory went bad in too short a time: the guest should be migrated while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evacuate {
    /// So many distinct pages,
    pub pages: usize,
    /// within this time.
    pub within: Duration,
}

/// Advises evacuation when so many distinct pages went bad within a period; then again only after the next so many.
#[derive(Clone, Debug)]
pub struct EvacuationThreshold {
    pages: usize,
    period: Duration,
    recent: VecDeque<(Duration, u64)>,
}

impl EvacuationThreshold {
    /// How many pages may be counted at most.
    pub const MOST: usize = 1024;

    /// Advises when `pages` distinct ones (1 to [`EvacuationThreshold::MOST`]) went bad within `period`.
    pub fn new(pages: usize, period: Duration) -> Self {
        Self { pages: pages.clamp(1, Self::MOST), period, recent: VecDeque::new() }
    }

    /// What it remembers, oldest first: when, and which page.
    pub(crate) fn noted(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.recent.iter().copied()
    }

    /// The same threshold with other memories, as many of them as it counts.
    pub(crate) fn remember(&mut self, noted: impl IntoIterator<Item = (Duration, u64)>) {
        self.recent = noted.into_iter().take(self.pages - 1).collect();
    }

    /// Takes note of a bad page at the time `now`, read from a clock that does not go back.
    pub fn note(&mut self, gpa: u64, now: Duration) -> Option<Evacuate> {
        while self.recent.front().is_some_and(|(then, _)| now.saturating_sub(*then) > self.period) {
            self.recent.pop_front();
        }
        if self.recent.iter().all(|(_, page)| *page != gpa) {
            self.recent.push_back((now, gpa));
        }
        if self.recent.len() < self.pages {
            return None;
        }
        self.recent.clear();
        Some(Evacuate { pages: self.pages, within: self.period })
    }
}

impl Default for EvacuationThreshold {
    /// Eight pages within an hour.
    fn default() -> Self {
        Self::new(8, Duration::from_secs(3600))
    }
}

impl fmt::Display for Evacuate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, within } = self;
        write!(f, "{pages} pages went bad within {} s: migrate the guest", within.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_pages_in_ten_seconds_are_too_many_and_two_or_the_same_again_are_not() {
        let mut threshold = EvacuationThreshold::new(3, seconds(10));
        assert_eq!(threshold.note(0x1000, seconds(0)), None);
        assert_eq!(threshold.note(0x1000, seconds(1)), None);
        assert_eq!(threshold.note(0x2000, seconds(2)), None);
        let advice = threshold.note(0x3000, seconds(10));
        assert_eq!(advice, Some(Evacuate { pages: 3, within: seconds(10) }));
        assert_eq!(advice.unwrap().to_string(), "3 pages went bad within 10 s: migrate the guest");
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut threshold = EvacuationThreshold::new(2, seconds(10));
        assert_eq!(threshold.note(0x1000, seconds(0)), None);
        assert_eq!(threshold.note(0x2000, seconds(11)), None);
        assert!(threshold.note(0x3000, seconds(12)).is_some());
    }

    #[test]
    fn the_advice_is_not_repeated_with_each_page() {
        let mut threshold = EvacuationThreshold::new(2, seconds(10));
        let advised: Vec<_> =
            (0..6).map(|page| threshold.note(page << 12, seconds(page)).is_some()).collect();
        assert_eq!(advised, [false, true, false, true, false, true]);
    }
}
