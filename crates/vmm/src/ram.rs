//! RAM as a guest is to see it.

use std::ops::Range;

/// Bytes of a page of the memory map.
const PAGE: u64 = 4096;

/// A guest's RAM without the pages that are bad and could not be healed: it is not told of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram {
    /// From the first byte to behind the last.
    range: Range<u64>,
    /// In rising order, whole pages, none of them empty or beside another.
    bad: Vec<Range<u64>>,
}

impl Ram {
    /// All of this range.
    pub fn new(range: Range<u64>) -> Self {
        Self { range, bad: Vec::new() }
    }

    /// This range without the pages that `bad` touches, which may be in any order.
    pub fn without(range: Range<u64>, bad: impl IntoIterator<Item = Range<u64>>) -> Self {
        let whole = |bad: Range<u64>| {
            let start = (bad.start & !(PAGE - 1)).max(range.start);
            start..bad.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX).min(range.end)
        };
        let mut pages: Vec<Range<u64>> = bad.into_iter().map(whole).filter(|bad| !bad.is_empty()).collect();
        pages.sort_unstable_by_key(|bad| bad.start);
        let mut bad: Vec<Range<u64>> = Vec::new();
        for next in pages {
            match bad.last_mut() {
                Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
                _ => bad.push(next),
            }
        }
        Self { range, bad }
    }

    /// From its first byte to behind its last, with what is bad.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The same RAM, ending here.
    #[must_use]
    pub fn up_to(&self, end: u64) -> Self {
        Self::without(self.range.start..end.min(self.range.end), self.bad.iter().cloned())
    }

    /// What the guest may use, in rising order.
    pub fn usable(&self) -> Vec<Range<u64>> {
        let starts = std::iter::once(self.range.start).chain(self.bad.iter().map(|bad| bad.end));
        let ends = self.bad.iter().map(|bad| bad.start).chain([self.range.end]);
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
    }

    /// What it may not.
    pub fn bad(&self) -> &[Range<u64>] {
        &self.bad
    }

    /// Whether all of `range` is RAM that the guest may use.
    pub fn has(&self, range: &Range<u64>) -> bool {
        self.range.start <= range.start && range.end <= self.range.end && self.bad_in(range).is_none()
    }

    /// The first bad range that touches `range`.
    pub fn bad_in(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let first = self.bad.partition_point(|bad| bad.end <= range.start);
        self.bad.get(first).filter(|bad| bad.start < range.end).cloned()
    }

    /// The lowest place from `from` on for `size` bytes at a multiple of `align`, a power of two, plus `offset`.
    pub fn lowest(&self, from: u64, size: u64, align: u64, offset: u64) -> Option<Range<u64>> {
        let align_up = |address: u64| {
            let aligned = address.saturating_sub(offset).checked_next_multiple_of(align)?;
            aligned.checked_add(offset)
        };
        let mut start = align_up(from.max(self.range.start))?;
        loop {
            let place = start..start.checked_add(size).filter(|end| *end <= self.range.end)?;
            match self.bad_in(&place) {
                Some(bad) => start = align_up(bad.end)?,
                None => return Some(place),
            }
        }
    }

    /// The highest place for `size` bytes at a multiple of `align`, a power of two.
    pub fn highest(&self, size: u64, align: u64) -> Option<Range<u64>> {
        let mut end = self.range.end;
        loop {
            let start = end.checked_sub(size)? & !(align - 1);
            let place = start..start + size;
            if place.start < self.range.start {
                return None;
            }
            match self.bad_in(&place) {
                Some(bad) => end = bad.start,
                None => return Some(place),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one bad range is a list of one")]
mod tests {
    use super::*;

    const RAM: Range<u64> = 0x4000_0000..0x4100_0000;

    fn without(bad: &[Range<u64>]) -> Ram {
        Ram::without(RAM, bad.iter().cloned())
    }

    #[test]
    fn whole_pages_are_left_out_and_neighbours_are_one() {
        let ram = without(&[0x4000_5040..0x4000_5080, 0x4000_4000..0x4000_5000, 0x40ff_f000..0x5000_0000]);
        assert_eq!(ram.bad(), [0x4000_4000..0x4000_6000, 0x40ff_f000..0x4100_0000]);
        assert_eq!(ram.usable(), [0x4000_0000..0x4000_4000, 0x4000_6000..0x40ff_f000]);
        assert_eq!(without(&[0..0x1000, 0x4200_0000..u64::MAX]).usable(), [RAM]);
        assert_eq!(without(&[0..u64::MAX]).usable(), []);
    }

    #[test]
    fn a_place_is_free_of_what_is_bad() {
        let ram = without(&[0x4020_0000..0x4020_1000]);
        assert!(ram.has(&(0x4000_0000..0x4020_0000)) && ram.has(&(0x4020_1000..0x4100_0000)));
        assert!(!ram.has(&(0x401f_f000..0x4020_0001)) && !ram.has(&(0x4020_0fff..0x4020_2000)));
        assert!(!ram.has(&(0x3fff_f000..0x4000_1000)));
        assert_eq!(ram.lowest(0x4000_0000, 0x1000, 0x20_0000, 0), Some(0x4000_0000..0x4000_1000));
        assert_eq!(ram.lowest(0x4000_0001, 0x1000, 0x20_0000, 0), Some(0x4040_0000..0x4040_1000));
        assert_eq!(ram.lowest(0x4010_0000, 0x8_0000, 0x20_0000, 0x8_0000), Some(0x4028_0000..0x4030_0000));
        assert_eq!(ram.lowest(0x4000_0000, 0x200_0000, 0x1000, 0), None);
    }

    #[test]
    fn the_highest_place_is_below_what_is_bad() {
        assert_eq!(without(&[]).highest(0x2_0000, 0x1000), Some(0x40fe_0000..0x4100_0000));
        assert_eq!(
            without(&[0x40ff_0000..0x40ff_1000]).highest(0x2_0000, 0x1000),
            Some(0x40fd_0000..0x40ff_0000)
        );
        assert_eq!(without(&[RAM]).highest(0x1000, 0x1000), None);
    }
}
