//! The bad pages of a guest, with the time and the cause of each.
//!
//! A page stays in the [`Ledger`] until it is healed: over resets of the guest, restarts of its VMM
//! ([`mod@file`]) and migrations. [`Keeper`] is for a VMM: many threads enter pages, and one writes the file.
//! The ledger works on ranges; a block of 1 GiB costs as much as a page.
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

pub mod file;
mod keeper;
mod runs;

pub use keeper::{Keeper, NotWritten, Writer};

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use runs::{Run, Runs};

/// The size in bytes of an accounted page. A smaller range counts as its page.
pub const PAGE: u64 = 4096;
const PAGE_SHIFT: u32 = 12;
/// The end of guest physical addresses: 52 bits (DDI 0487, FEAT_LPA2). Addresses beyond it are ignored.
pub const END: u64 = 1 << 52;

/// The way in which a page was found to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// A vCPU consumed it: a SEA exit, or SIGBUS with `BUS_MCEERR_AR`.
    Consumed = 1,
    /// The host found it before any access: SIGBUS with `BUS_MCEERR_AO`, or a scrubber's report.
    Found = 2,
    /// It was bad at the source of a migration.
    Migrated = 3,
    /// An experiment made it bad.
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
    /// The cause.
    pub cause: Cause,
    /// The time, to the second.
    pub time: SystemTime,
}

/// The bad pages of one guest. The default has none.
///
/// A query takes time in the logarithm of the ledger's size. Ten million scattered pages, each with a time of
/// its own, take less than 200 MB; a range takes the memory of a page, however long it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Chunks of 65,536 pages that are bad from end to end, with one history each. They are stored only here.
    whole: Runs<u32>,
    /// The bad pages of all other chunks, by the chunk's number: the page number without its 16 lower bits.
    chunks: BTreeMap<u32, Runs<u16>>,
    pages: u64,
}

/// Pages in a chunk.
const CHUNK: u64 = 1 << 16;

/// The pages that a range touches: first and last, if there are any.
fn pages(range: &Range<u64>) -> Option<(u64, u64)> {
    let end = range.end.min(END);
    (range.start < end).then(|| (range.start >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT))
}

/// The first and the last chunk of these pages.
fn chunks((first, last): (u64, u64)) -> (u32, u32) {
    ((first >> 16) as u32, (last >> 16) as u32)
}

/// The first and the last of these pages in one of their chunks.
fn within((first, last): (u64, u64), chunk: u32) -> (u16, u16) {
    let (first_chunk, last_chunk) = chunks((first, last));
    let start = if chunk == first_chunk { first as u16 } else { 0 };
    let end = if chunk == last_chunk { last as u16 } else { u16::MAX };
    (start, end)
}

/// Seconds since 1970 in 32 bits, saturating: to 2106.
pub(crate) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn bad_range(chunk: u32, run: &Run<u16>) -> BadRange {
    let first = u64::from(chunk) * CHUNK;
    history(first + u64::from(run.first), first + u64::from(run.last), run.cause, run.seconds)
}

/// Pages with their history.
fn history(first: u64, last: u64, cause: Cause, seconds: u32) -> BadRange {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
    BadRange { range: first << PAGE_SHIFT..(last + 1) << PAGE_SHIFT, cause, time }
}

impl Ledger {
    /// Enters the pages that `range` touches; returns how many are new. The others keep their entry: the time
    /// at which a page went bad does not change.
    pub fn insert(&mut self, range: Range<u64>, cause: Cause, time: SystemTime) -> u64 {
        let Some(pages) = pages(&range) else { return 0 };
        let seconds = seconds(time);
        let (first, last) = chunks(pages);
        // Of the chunks in between, only those with entries are checked one by one.
        let mut some: Vec<u32> = self.chunks.range(first..=last).map(|(number, _)| *number).collect();
        some.extend([first, last]);
        some.sort_unstable();
        some.dedup();
        let mut new = 0;
        for number in &some {
            let (first, last) = within(pages, *number);
            new += self.insert_in(*number, Run { first, last, seconds, cause });
        }
        for pair in some.windows(2) {
            let [before, next] = *pair else { continue };
            if next - before > 1 {
                new += CHUNK * self.whole.insert(Run { first: before + 1, last: next - 1, seconds, cause });
            }
        }
        self.pages += new;
        new
    }

    /// Enters pages of one chunk; returns how many are new.
    fn insert_in(&mut self, number: u32, new: Run<u16>) -> u64 {
        if self.whole.get(number).is_some() {
            return 0;
        }
        let chunk = self.chunks.entry(number).or_default();
        let filled = chunk.insert(new);
        if let Some(&Run { first: 0, last: u16::MAX, seconds, cause }) = chunk.only() {
            self.chunks.remove(&number);
            self.whole.insert(Run { first: number, last: number, seconds, cause });
        }
        filled
    }

    /// Removes the pages that lie wholly in `range`, because they were healed. Returns their number.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let whole = range.start.checked_next_multiple_of(PAGE).unwrap_or(END)..range.end / PAGE * PAGE;
        let Some(pages) = pages(&whole) else { return 0 };
        let (first, last) = chunks(pages);
        // The chunks at the ends may lose only a part.
        for number in [first, last] {
            let is_part = within(pages, number) != (0, u16::MAX);
            if let Some(&Run { seconds, cause, .. }) = self.whole.get(number).filter(|_| is_part) {
                self.whole.remove(number, number);
                let all = Run { first: 0, last: u16::MAX, seconds, cause };
                self.chunks.insert(number, Runs::of(all));
            }
        }
        let mut gone = CHUNK * self.whole.remove(first, last);
        let mut emptied = Vec::new();
        for (number, chunk) in self.chunks.range_mut(first..=last) {
            let (start, end) = within(pages, *number);
            gone += chunk.remove(start, end);
            if chunk.is_empty() {
                emptied.push(*number);
            }
        }
        for number in emptied {
            self.chunks.remove(&number);
        }
        self.pages -= gone;
        gone
    }

    /// Returns true if the page of this address is bad.
    pub fn contains(&self, gpa: u64) -> bool {
        self.get(gpa).is_some()
    }

    /// The bad range around this address, at most 256 MiB of it.
    pub fn get(&self, gpa: u64) -> Option<BadRange> {
        let page = gpa >> PAGE_SHIFT;
        let number = u32::try_from(page >> 16).ok()?;
        if let Some(&Run { seconds, cause, .. }) = self.whole.get(number) {
            return Some(bad_range(number, &Run { first: 0, last: u16::MAX, seconds, cause }));
        }
        self.chunks.get(&number)?.get(page as u16).map(|run| bad_range(number, run))
    }

    /// The bad part of `range`: the pages that it touches, in rising order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = BadRange> {
        let pages = pages(&range);
        let whole = pages.into_iter().flat_map(move |pages| {
            let (first, last) = chunks(pages);
            self.whole.overlapping(first, last).map(move |run| {
                let first = (u64::from(run.first) * CHUNK).max(pages.0);
                let last = (u64::from(run.last) * CHUNK + CHUNK - 1).min(pages.1);
                history(first, last, run.cause, run.seconds)
            })
        });
        let parts = pages.into_iter().flat_map(move |pages| {
            let (first, last) = chunks(pages);
            self.chunks.range(first..=last).flat_map(move |(number, chunk)| {
                let (first, last) = within(pages, *number);
                chunk.overlapping(first, last).map(|run| bad_range(*number, &run))
            })
        });
        joined(rising(whole, parts))
    }

    /// All bad ranges, in rising order.
    pub fn ranges(&self) -> impl Iterator<Item = BadRange> {
        self.overlapping(0..END)
    }

    /// The number of bad pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Returns true if no page is bad.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }
}

/// Merges two rising lists.
fn rising(
    one: impl Iterator<Item = BadRange>,
    other: impl Iterator<Item = BadRange>,
) -> impl Iterator<Item = BadRange> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if first.range.start < second.range.start => one.next(),
        (_, Some(_)) => other.next(),
        _ => one.next(),
    })
}

/// Joins neighbours with the same history.
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
