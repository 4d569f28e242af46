//! The bad pages among 65,536: runs in rising order, which do not overlap.

use super::Cause;

/// Neighbouring pages with the same history. 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u16,
    pub(super) last: u16,
    /// When, in seconds since 1970.
    pub(super) seconds: u32,
    pub(super) cause: Cause,
}

const _: () = assert!(size_of::<Run>() == 12);

impl Run {
    fn len(&self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    fn joins(&self, next: &Run) -> bool {
        self.last.checked_add(1) == Some(next.first)
            && (self.seconds, self.cause) == (next.seconds, next.cause)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    runs: Vec<Run>,
}

impl Chunk {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn get(&self, page: u16) -> Option<&Run> {
        let at = self.runs.partition_point(|run| run.last < page);
        self.runs.get(at).filter(|run| run.first <= page)
    }

    /// The runs that touch these pages: their places in the list.
    fn touched(&self, first: u16, last: u16) -> std::ops::Range<usize> {
        let start = self.runs.partition_point(|run| run.last < first);
        let end = self.runs.partition_point(|run| run.first <= last);
        start..end.max(start)
    }

    /// The runs that touch these pages, cut to them.
    pub(super) fn overlapping(&self, first: u16, last: u16) -> impl Iterator<Item = Run> {
        let runs = self.runs.get(self.touched(first, last)).unwrap_or_default();
        runs.iter().map(move |run| Run { first: run.first.max(first), last: run.last.min(last), ..*run })
    }

    /// Fills the gaps that `new` covers with it; gives how many pages that were.
    pub(super) fn insert(&mut self, new: Run) -> u64 {
        let touched = self.touched(new.first, new.last);
        let mut next = u32::from(new.first);
        let mut gaps = Vec::new();
        for run in self.runs.get(touched.clone()).unwrap_or_default() {
            if next < u32::from(run.first) {
                gaps.push(Run { first: next as u16, last: run.first - 1, ..new });
            }
            next = u32::from(run.last) + 1;
        }
        if next <= u32::from(new.last) {
            gaps.push(Run { first: next as u16, ..new });
        }
        let filled = gaps.iter().map(Run::len).sum();
        // With its neighbours, which may be joined to it.
        let around = touched.start.saturating_sub(1)..(touched.end + 1).min(self.runs.len());
        gaps.extend(self.runs.get(around.clone()).unwrap_or_default());
        gaps.sort_unstable_by_key(|run| run.first);
        self.runs.splice(around, joined(gaps));
        filled
    }

    /// Takes these pages out; gives how many there were.
    pub(super) fn remove(&mut self, first: u16, last: u16) -> u64 {
        let touched = self.touched(first, last);
        let gone = self.overlapping(first, last).map(|run| run.len()).sum();
        let mut left = Vec::new();
        for run in self.runs.get(touched.clone()).unwrap_or_default() {
            if run.first < first {
                left.push(Run { last: first - 1, ..*run });
            }
            if run.last > last {
                left.push(Run { first: last + 1, ..*run });
            }
        }
        self.runs.splice(touched, left);
        gone
    }
}

/// Neighbours with the same history as one.
fn joined(runs: Vec<Run>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match all.last_mut() {
            Some(before) if before.joins(&run) => before.last = run.last,
            _ => all.push(run),
        }
    }
    all
}
