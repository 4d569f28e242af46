//! Which 64-byte lines of RAM are poisoned: an uncorrectable error sits there, and whoever consumes
//! the line takes an external abort.
//!
//! The unit is a line because that is what a memory controller marks. A page that holds poison has
//! one 64-bit mask, one bit a line, in an ordered map; a page without poison has nothing. Callers
//! ask here only after the page's flag ([`crate::memory::page_flags::HAS_POISON`]) has said that
//! there is something to ask.

use std::collections::BTreeMap;
use std::ops::Range;

/// Size of a poisonable line, bytes. The cache line and the DC ZVA block have the same size.
pub const LINE_SIZE: u64 = 64;
/// Size of the page that a mask covers, bytes: 64 lines.
pub const PAGE_SIZE: u64 = 4096;

/// The poisoned lines of one RAM, by offset from its base.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "BTreeMap<usize, u64>", into = "BTreeMap<usize, u64>")]
pub(crate) struct Poison {
    /// Page number → bit n set: line n of that page is poisoned. No mask is 0.
    masks: BTreeMap<usize, u64>,
    /// Poisoned lines in all: the sum of the masks' ones.
    lines: u64,
}

impl From<BTreeMap<usize, u64>> for Poison {
    fn from(mut masks: BTreeMap<usize, u64>) -> Self {
        masks.retain(|_, mask| *mask != 0);
        let lines = masks.values().map(|mask| u64::from(mask.count_ones())).sum();
        Self { masks, lines }
    }
}

impl From<Poison> for BTreeMap<usize, u64> {
    fn from(poison: Poison) -> Self {
        poison.masks
    }
}

impl Poison {
    /// The numbers of the pages that have poison, in rising order.
    pub(crate) fn pages(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.masks.keys().copied()
    }

    /// Poisons every line that the byte range `[start, end)` touches; gives how many were clean
    /// before.
    pub(crate) fn add(&mut self, start: u64, end: u64) -> u64 {
        let mut added = 0;
        for (page, wanted) in page_masks(start, end) {
            let mask = self.masks.entry(page).or_default();
            added += u64::from((wanted & !*mask).count_ones());
            *mask |= wanted;
        }
        self.lines += added;
        added
    }

    /// Cleans every line that the byte range `[start, end)` touches; gives how many were poisoned
    /// before.
    pub(crate) fn remove(&mut self, start: u64, end: u64) -> u64 {
        let mut removed = 0;
        let Some(span) = page_span(start, end) else { return 0 };
        let emptied: Vec<usize> = self
            .masks
            .range_mut(span)
            .filter_map(|(&page, mask)| {
                let wanted = mask_in_page(page, start, end);
                removed += u64::from((*mask & wanted).count_ones());
                *mask &= !wanted;
                (*mask == 0).then_some(page)
            })
            .collect();
        for page in emptied {
            self.masks.remove(&page);
        }
        self.lines -= removed;
        removed
    }

    /// Whether a line that the byte range `[start, end)` touches is poisoned.
    pub(crate) fn touches(&self, start: u64, end: u64) -> bool {
        let Some(span) = page_span(start, end) else { return false };
        if span.start() == span.end() {
            let mask = self.masks.get(span.start());
            return mask.is_some_and(|mask| mask & mask_in_page(*span.start(), start, end) != 0);
        }
        self.masks.range(span).any(|(&page, &mask)| mask & mask_in_page(page, start, end) != 0)
    }

    /// Whether page `page` has a poisoned line.
    pub(crate) fn in_page(&self, page: usize) -> bool {
        self.masks.contains_key(&page)
    }

    /// Poisoned lines in all.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// The poisoned byte ranges, by offset, in rising order, neighbours joined.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (&page, &mask) in &self.masks {
            let base = page as u64 * PAGE_SIZE;
            for line in (0..64).filter(|line| mask >> line & 1 == 1) {
                let start = base + line * LINE_SIZE;
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end += LINE_SIZE,
                    _ => ranges.push(start..start + LINE_SIZE),
                }
            }
        }
        ranges
    }
}

/// The pages that `[start, end)` touches, as an inclusive range; `None` if the range is empty.
fn page_span(start: u64, end: u64) -> Option<std::ops::RangeInclusive<usize>> {
    (start < end).then(|| (start / PAGE_SIZE) as usize..=((end - 1) / PAGE_SIZE) as usize)
}

/// Each page that `[start, end)` touches, with the mask of the lines touched in it.
fn page_masks(start: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    page_span(start, end).into_iter().flatten().map(move |page| (page, mask_in_page(page, start, end)))
}

/// The lines of `page` that `[start, end)` touches. The range must touch the page.
fn mask_in_page(page: usize, start: u64, end: u64) -> u64 {
    let base = page as u64 * PAGE_SIZE;
    let first = (start.max(base) - base) / LINE_SIZE;
    let last = (end.min(base + PAGE_SIZE) - 1 - base) / LINE_SIZE;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against the plainest model there is: a set of line numbers.
        #[test]
        fn any_sequence_of_poisoning_and_healing_leaves_the_lines_that_a_set_of_lines_has(
            steps in prop::collection::vec((any::<bool>(), 0..0x4000_u64, 1..0x1800_u64), 1..20),
            (asked, len) in (0..0x5800_u64, 1..300_u64),
        ) {
            let (mut poison, mut model) = (Poison::default(), BTreeSet::new());
            for (add, start, len) in steps {
                let lines = start / 64..=(start + len - 1) / 64;
                if add {
                    let clean = lines.filter(|line| model.insert(*line)).count();
                    prop_assert_eq!(poison.add(start, start + len), clean as u64);
                } else {
                    let poisoned = lines.filter(|line| model.remove(line)).count();
                    prop_assert_eq!(poison.remove(start, start + len), poisoned as u64);
                }
            }
            prop_assert_eq!(poison.lines(), model.len() as u64);
            let touched = (asked / 64..=(asked + len - 1) / 64).any(|line| model.contains(&line));
            prop_assert_eq!(poison.touches(asked, asked + len), touched);
            prop_assert_eq!(poison.in_page((asked / 4096) as usize), model.iter().any(|line| line / 64 == asked / 4096));
            let ranges = poison.ranges();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "joined and in order");
            let lines: Vec<u64> = ranges.iter().flat_map(|range| range.start / 64..range.end / 64).collect();
            prop_assert!(lines.iter().eq(model.iter()));
        }
    }

    #[test]
    fn a_range_rounds_out_to_the_lines_it_touches() {
        assert_eq!(mask_in_page(0, 0, 1), 0b1);
        assert_eq!(mask_in_page(0, 63, 65), 0b11);
        assert_eq!(mask_in_page(0, 64, 128), 0b10);
        assert_eq!(mask_in_page(0, 0, 4096), u64::MAX);
        assert_eq!(mask_in_page(1, 4095, 4097), 0b1);
        assert_eq!(mask_in_page(0, 4095, 4097), 1 << 63);
    }

    #[test]
    fn a_line_is_counted_once_however_often_it_is_poisoned() {
        let mut poison = Poison::default();
        assert_eq!(poison.add(100, 101), 1);
        assert_eq!(poison.add(64, 192), 1);
        assert_eq!(poison.lines(), 2);
        assert_eq!(poison.remove(0, 128), 1);
        assert_eq!(poison.lines(), 1);
        assert_eq!(poison.remove(0, 128), 0);
    }

    #[test]
    fn healing_the_last_line_of_a_page_forgets_the_page() {
        let mut poison = Poison::default();
        poison.add(4096, 4097);
        assert!(poison.in_page(1));
        poison.remove(4096 + 63, 4096 + 64);
        assert_eq!(poison, Poison::default());
    }

    #[test]
    fn only_lines_that_an_access_touches_count() {
        let mut poison = Poison::default();
        poison.add(4096, 4160);
        assert!(!poison.touches(4088, 4096));
        assert!(poison.touches(4089, 4097));
        assert!(poison.touches(4159, 4160));
        assert!(!poison.touches(4160, 4168));
        assert!(!poison.touches(4100, 4100));
    }

    #[test]
    fn neighbouring_lines_join_into_one_range_across_pages() {
        let mut poison = Poison::default();
        poison.add(4032, 4160);
        poison.add(8192, 8193);
        assert_eq!(poison.ranges(), [4032..4160, 8192..8256]);
    }
}
