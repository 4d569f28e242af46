//! Which pages of a guest are bad, since when, and how that was found.
//!
//! A page stays in the [`Ledger`] until it is healed: over resets of the guest, restarts of its VMM ([`mod@file`]) and
//! migrations. [`Keeper`] is for a VMM: many threads enter what they find, one keeps the file. Everything is in ranges; a block of 1 GiB costs what a page costs.
//!
//! ```
//! use std::time::SystemTime;
//! use seawall::ledger::{Cause, Ledger};
//!
//! let mut ledger = Ledger::default();
//! ledger.insert(0x4021_0040..0x4021_0080, Cause::Consumed, SystemTime::now());
//! assert!(ledger.contains(0x4021_0fff));
//! assert_eq!(ledger.ranges().map(|bad| bad.range).collect::<Vec<_>>(), [0x4021_0000..0x4021_1000]);
//! ```

mod chunk;
pub mod file;
mod keeper;

pub use keeper::{Keeper, NotWritten};

use std::collections::BTreeMap;
use std::iter;
use std::ops::{Range, RangeInclusive};
use std::time::{Duration, SystemTime};

use chunk::{Chunk, Run};

/// Bytes of the pages that are accounted for. A smaller range counts as its page.
pub const PAGE: u64 = 4096;
const PAGE_SHIFT: u32 = 12;
/// Where guest physical addresses end: 52 bits (DDI 0487, FEAT_LPA2). What lies beyond is left out.
pub const END: u64 = 1 << 52;

/// How it was found that a page is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// A vCPU consumed it: a SEA exit, or SIGBUS with `BUS_MCEERR_AR`.
    Consumed = 1,
    /// The host found it before anybody did: SIGBUS with `BUS_MCEERR_AO`, or a scrubber's report.
    Found = 2,
    /// It was bad where the guest came from.
    Migrated = 3,
    /// Somebody wanted it so: an experiment.
    Experiment = 4,
}

impl Cause {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Consumed),
            2 => Some(Self::Found),
            3 => Some(Self::Migrated),
            4 => Some(Self::Experiment),
            _ => None,
        }
    }
}

/// Neighbouring bad pages with the same history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// Guest physical addresses, whole pages.
    pub range: Range<u64>,
    /// How it was found.
    pub cause: Cause,
    /// When, to the second.
    pub time: SystemTime,
}

/// The bad pages of one guest. The default has none.
///
/// A query takes time in the logarithm of what is in it. Ten million scattered pages, each with a time of its own, take
/// less than 200 MB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By page number above the 16 bits that a chunk covers.
    chunks: BTreeMap<u64, Chunk>,
    pages: u64,
}

/// The pages that a range touches: first and last, if there are any.
fn pages(range: &Range<u64>) -> Option<(u64, u64)> {
    let end = range.end.min(END);
    (range.start < end).then(|| (range.start >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT))
}

/// The chunks of these pages.
fn chunks((first, last): (u64, u64)) -> RangeInclusive<u64> {
    first >> 16..=last >> 16
}

/// The first and the last of these pages in a chunk of theirs.
fn within((first, last): (u64, u64), chunk: u64) -> (u16, u16) {
    let start = if chunk == first >> 16 { first as u16 } else { 0 };
    let end = if chunk == last >> 16 { last as u16 } else { u16::MAX };
    (start, end)
}

/// Seconds since 1970, as far as they go into 32 bits: to 2106.
pub(crate) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn bad_range(chunk: u64, run: &Run) -> BadRange {
    let page = |page: u16| (chunk << 16 | u64::from(page)) << PAGE_SHIFT;
    BadRange {
        range: page(run.first)..page(run.last) + PAGE,
        cause: run.cause,
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(run.seconds.into()),
    }
}

impl Ledger {
    /// Enters the pages that `range` touches; gives how many were not in it before. What was known of the others
    /// stays: when a page went bad does not change.
    pub fn insert(&mut self, range: Range<u64>, cause: Cause, time: SystemTime) -> u64 {
        let seconds = seconds(time);
        let mut new = 0;
        if let Some(pages) = pages(&range) {
            for number in chunks(pages) {
                let (first, last) = within(pages, number);
                new += self.chunks.entry(number).or_default().insert(Run { first, last, seconds, cause });
            }
        }
        self.pages += new;
        new
    }

    /// Strikes out the pages that lie wholly in `range`: they have been healed. Gives how many there were.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let whole = range.start.checked_next_multiple_of(PAGE).unwrap_or(END)..range.end / PAGE * PAGE;
        let mut gone = 0;
        if let Some(pages) = pages(&whole) {
            for (number, chunk) in self.chunks.range_mut(chunks(pages)) {
                let (first, last) = within(pages, *number);
                gone += chunk.remove(first, last);
            }
            self.chunks.retain(|_, chunk| !chunk.is_empty());
        }
        self.pages -= gone;
        gone
    }

    /// Whether the page of this address is bad.
    pub fn contains(&self, gpa: u64) -> bool {
        self.get(gpa).is_some()
    }

    /// The bad range around this address, at most 256 MiB of it.
    pub fn get(&self, gpa: u64) -> Option<BadRange> {
        let page = gpa >> PAGE_SHIFT;
        let number = page >> 16;
        self.chunks.get(&number)?.get(page as u16).map(|run| bad_range(number, run))
    }

    /// What is bad of `range`: the pages that it touches, in rising order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = BadRange> {
        let runs = pages(&range).into_iter().flat_map(move |pages| {
            self.chunks.range(chunks(pages)).flat_map(move |(number, chunk)| {
                let (first, last) = within(pages, *number);
                chunk.overlapping(first, last).map(|run| bad_range(*number, &run))
            })
        });
        joined(runs)
    }

    /// All bad ranges, in rising order.
    pub fn ranges(&self) -> impl Iterator<Item = BadRange> {
        self.overlapping(0..END)
    }

    /// How many pages are bad.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }
}

/// Neighbours with the same history as one.
fn joined(runs: impl Iterator<Item = BadRange>) -> impl Iterator<Item = BadRange> {
    let mut runs = runs.peekable();
    iter::from_fn(move || {
        let mut bad = runs.next()?;
        while let Some(next) = runs.next_if(|next| {
            next.range.start == bad.range.end && (next.cause, next.time) == (bad.cause, bad.time)
        }) {
            bad.range.end = next.range.end;
        }
        Some(bad)
    })
}

#[cfg(test)]
mod tests;
