//! Advice to leave the host.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Advice to migrate the guest while it lives, because too much memory went bad in too short a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evacuate {
    /// The number of distinct bad pages.
    pub pages: usize,
    /// The period in which they went bad.
    pub within: Duration,
}

/// A threshold for the advice to evacuate: a number of distinct pages that go bad within a period. The next
/// advice needs as many pages again.
#[derive(Clone, Debug)]
pub struct EvacuationThreshold {
    pages: usize,
    period: Duration,
    recent: VecDeque<(Duration, u64)>,
}

impl EvacuationThreshold {
    /// The largest number of pages that a threshold can count.
    pub const MOST: usize = 1024;

    /// A threshold of `pages` distinct pages (1 to [`EvacuationThreshold::MOST`]) within `period`.
    pub fn new(pages: usize, period: Duration) -> Self {
        Self { pages: pages.clamp(1, Self::MOST), period, recent: VecDeque::new() }
    }

    /// The remembered pages with their times, oldest first.
    pub(crate) fn noted(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.recent.iter().copied()
    }

    /// Replaces the remembered pages, up to as many as the threshold counts.
    pub(crate) fn remember(&mut self, noted: impl IntoIterator<Item = (Duration, u64)>) {
        self.recent = noted.into_iter().take(self.pages - 1).collect();
    }

    /// Notes a bad page at the time `now`, read from a monotonic clock.
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
