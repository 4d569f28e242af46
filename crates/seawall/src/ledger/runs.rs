//! Runs of neighbours with the same history, in rising order and without overlap: the bad pages of a chunk,
//! or chunks that are bad as a whole.

use std::ops::Range;

use super::Cause;

/// The number of a page in its chunk, or of a chunk.
pub(super) trait Number: Copy + Ord + Into<u32> {
    /// The lower bits.
    fn of(number: u32) -> Self;
}

impl Number for u16 {
    fn of(number: u32) -> Self {
        number as Self
    }
}

impl Number for u32 {
    fn of(number: u32) -> Self {
        number
    }
}

/// Neighbours with the same history. 12 bytes if they are pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run<N> {
    pub(super) first: N,
    pub(super) last: N,
    /// The time, in seconds since 1970.
    pub(super) seconds: u32,
    pub(super) cause: Cause,
}

const _: () = assert!(size_of::<Run<u16>>() == 12);

impl<N: Number> Run<N> {
    fn len(&self) -> u64 {
        u64::from(self.last.into() - self.first.into()) + 1
    }

    fn joins(&self, next: &Self) -> bool {
        self.last.into().checked_add(1) == Some(next.first.into())
            && (self.seconds, self.cause) == (next.seconds, next.cause)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs<N>(Vec<Run<N>>);

impl<N> Default for Runs<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<N: Number> Runs<N> {
    pub(super) fn of(run: Run<N>) -> Self {
        Self(vec![run])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The run, if there is exactly one.
    pub(super) fn only(&self) -> Option<&Run<N>> {
        match self.0.as_slice() {
            [run] => Some(run),
            _ => None,
        }
    }

    pub(super) fn get(&self, number: N) -> Option<&Run<N>> {
        let at = self.0.partition_point(|run| run.last < number);
        self.0.get(at).filter(|run| run.first <= number)
    }

    /// The indices of the runs that touch these numbers.
    fn touched(&self, first: N, last: N) -> Range<usize> {
        let start = self.0.partition_point(|run| run.last < first);
        let end = self.0.partition_point(|run| run.first <= last);
        start..end.max(start)
    }

    /// The runs that touch these numbers, cut to them.
    pub(super) fn overlapping(&self, first: N, last: N) -> impl Iterator<Item = Run<N>> {
        let runs = self.0.get(self.touched(first, last)).unwrap_or_default();
        runs.iter().map(move |run| Run { first: run.first.max(first), last: run.last.min(last), ..*run })
    }

    /// Fills the gaps in the range of `new` with it; returns how many numbers are new.
    pub(super) fn insert(&mut self, new: Run<N>) -> u64 {
        let touched = self.touched(new.first, new.last);
        let mut next: u32 = new.first.into();
        let mut gaps = Vec::new();
        for run in self.0.get(touched.clone()).unwrap_or_default() {
            if next < run.first.into() {
                gaps.push(Run { first: N::of(next), last: N::of(run.first.into() - 1), ..new });
            }
            next = run.last.into() + 1;
        }
        if next <= new.last.into() {
            gaps.push(Run { first: N::of(next), ..new });
        }
        let filled = gaps.iter().map(Run::len).sum();
        // The neighbours are included, as they may join the new run.
        let around = touched.start.saturating_sub(1)..(touched.end + 1).min(self.0.len());
        gaps.extend(self.0.get(around.clone()).unwrap_or_default());
        gaps.sort_unstable_by_key(|run| run.first);
        self.0.splice(around, joined(gaps));
        filled
    }

    /// Removes these numbers; returns how many there were.
    pub(super) fn remove(&mut self, first: N, last: N) -> u64 {
        let touched = self.touched(first, last);
        let gone = self.overlapping(first, last).map(|run| run.len()).sum();
        let mut left = Vec::new();
        for run in self.0.get(touched.clone()).unwrap_or_default() {
            if run.first < first {
                left.push(Run { last: N::of(first.into() - 1), ..*run });
            }
            if run.last > last {
                left.push(Run { first: N::of(last.into() + 1), ..*run });
            }
        }
        self.0.splice(touched, left);
        gone
    }
}

/// Joins neighbours with the same history.
fn joined<N: Number>(runs: Vec<Run<N>>) -> Vec<Run<N>> {
    let mut all: Vec<Run<N>> = Vec::with_capacity(runs.len());
    for run in runs {
        match all.last_mut() {
            Some(before) if before.joins(&run) => before.last = run.last,
            _ => all.push(run),
        }
    }
    all
}
