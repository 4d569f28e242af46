//! The memory that will go bad, at an instruction or once the guest has named its page, and its outcome.

use std::ops::Range;

use crate::parse::{Place, Poison};

/// The text by which a guest names a page, anywhere in a line: `seawall: page NAME 0xPA`, guest physical.
const NAMES_A_PAGE: &str = "seawall: page ";

/// The number of page names that are kept for messages.
const MOST_NAMES: usize = 64;

/// A page that the guest named.
pub(super) fn named_page(line: &str) -> Option<(&str, u64)> {
    let (_, rest) = line.split_once(NAMES_A_PAGE)?;
    let mut words = rest.split_ascii_whitespace();
    let (name, address) = (words.next()?, words.next()?);
    Some((name, u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?))
}

/// Size of a line in bytes; a line is bad as a whole.
const LINE: u64 = 64;

/// A range that will go bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The number of instructions.
    pub(super) at: u64,
    /// Physical addresses.
    pub(super) range: Range<u64>,
    /// The page's name, if it has one.
    pub(super) page: Option<String>,
}

/// The ranges that have not gone bad yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// Ranges in the order of their time.
    due: Vec<Due>,
    /// Pages that the guest has not named yet.
    pages: Vec<(String, Poison)>,
    /// The guest's names, each once, in order, up to the limit.
    names: Vec<String>,
    /// The bad ranges, with true for those that the guest consumed.
    bad: Vec<(Due, bool)>,
    /// True if bad memory was consumed at an unknown address, on a table walk.
    consumed_somewhere: bool,
}

impl Schedule {
    pub(super) fn new(poison: &[Poison]) -> Self {
        let mut schedule = Self::default();
        for poison in poison {
            match &poison.place {
                Place::Address(start) => schedule.add(poison.after, *start, poison.len, None),
                Place::Page(name) => schedule.pages.push((name.clone(), poison.clone())),
            }
        }
        schedule
    }

    fn add(&mut self, at: u64, start: u64, len: u64, page: Option<String>) {
        self.due.push(Due { at, range: start..start.saturating_add(len), page });
        // A stable sort: for equal times the first option goes first.
        self.due.sort_by_key(|due| due.at);
    }

    /// Notes that the guest named a page, after this many instructions.
    pub(super) fn named(&mut self, name: &str, address: u64, now: u64) {
        if self.names.len() < MOST_NAMES && self.names.iter().all(|known| known != name) {
            self.names.push(name.to_owned());
        }
        let (named, pages) = std::mem::take(&mut self.pages).into_iter().partition(|(page, _)| page == name);
        self.pages = pages;
        for (page, poison) in Vec::from_iter::<Vec<(String, Poison)>>(named) {
            self.add(now.saturating_add(poison.after), address, poison.len, Some(page));
        }
    }

    /// Takes the next range that is due by now.
    pub(super) fn take(&mut self, now: u64) -> Option<Due> {
        let is_due = self.due.first().is_some_and(|due| due.at <= now);
        is_due.then(|| self.due.remove(0))
    }

    /// Notes that this range is bad now.
    pub(super) fn is_bad(&mut self, due: Due) {
        self.bad.push((due, false));
    }

    /// Notes that bad memory was consumed, at this physical address or at an unknown one.
    pub(super) fn consumed(&mut self, address: Option<u64>) {
        let Some(address) = address else {
            self.consumed_somewhere = true;
            return;
        };
        // Whole lines are bad, and no access is longer than a line.
        let lines = |range: &Range<u64>| range.start & !(LINE - 1)..range.end.next_multiple_of(LINE);
        for (due, is_consumed) in &mut self.bad {
            let lines = lines(&due.range);
            *is_consumed |= address < lines.end && lines.start < address.saturating_add(LINE);
        }
    }

    /// The bad ranges that were certainly never consumed.
    pub(super) fn unconsumed(&self) -> impl Iterator<Item = &Due> {
        let is_known = !self.consumed_somewhere;
        self.bad.iter().filter(move |(_, is_consumed)| is_known && !is_consumed).map(|(due, _)| due)
    }

    /// The guest's names for pages.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Instructions until the next range is due.
    pub(super) fn left(&self, now: u64) -> u64 {
        self.due.first().map_or(u64::MAX, |due| due.at.saturating_sub(now))
    }

    /// The number of ranges whose time has not come yet.
    pub(super) fn to_come(&self) -> usize {
        self.due.len()
    }

    /// The pages that the guest has not named.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = &str> {
        self.pages.iter().map(|(name, _)| name.as_str())
    }

    /// Returns true if nothing more will go bad.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.pages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn a_line_names_a_page_wherever_in_it_the_words_are() {
        assert_eq!(named_page("seawall: page text 0x41234000"), Some(("text", 0x4123_4000)));
        assert_eq!(named_page("[   1.2] seawall: page heap 0x40000040 ok"), Some(("heap", 0x4000_0040)));
        for other in ["", "seawall: page text", "seawall: page text 41234000", "seawall: page text 0xz"] {
            assert_eq!(named_page(other), None, "{other}");
        }
    }

    #[test]
    fn poison_is_consumed_by_an_access_to_one_of_its_lines() {
        let went_bad = |text| {
            let mut schedule = Schedule::new(&[parse::poison(text).unwrap()]);
            let due = schedule.take(0).unwrap();
            schedule.is_bad(due);
            schedule
        };
        let is_consumed = |text, address| {
            let mut schedule = went_bad(text);
            schedule.consumed(address);
            schedule.unconsumed().count() == 0
        };
        assert!(!is_consumed("0x40000000", Some(0x4000_0040)));
        assert!(is_consumed("0x40000000", Some(0x4000_003f)));
        // An access that begins in the line before.
        assert!(is_consumed("0x40000040", Some(0x4000_003c)));
        assert!(!is_consumed("0x40000040", Some(0x4000_0000)));
        // Eight bytes are a whole line.
        assert!(is_consumed("0x40000010+8", Some(0x4000_0000)));
        // It may have been this one.
        assert!(is_consumed("0x40000000", None));
        let mut schedule = went_bad("0xffffffffffffff00+64");
        schedule.consumed(Some(u64::MAX));
        assert_eq!(schedule.unconsumed().count(), 1);
    }

    #[test]
    fn addresses_are_due_by_instructions_and_pages_once_they_are_named() {
        let poison =
            ["0x40000000@10", "page:heap+128@5", "0x40001000"].map(|text| parse::poison(text).unwrap());
        let mut schedule = Schedule::new(&poison);
        let range = |due: Option<Due>| due.map(|due| (due.range, due.page));
        assert_eq!(range(schedule.take(0)), Some((0x4000_1000..0x4000_1040, None)));
        assert_eq!((range(schedule.take(0)), schedule.left(4)), (None, 6));
        schedule.named("text", 0x4100_0000, 4);
        assert_eq!(schedule.unnamed().collect::<Vec<_>>(), ["heap"]);
        schedule.named("text", 0x4100_0000, 4);
        assert_eq!(schedule.names(), ["text"]);
        schedule.named("heap", 0x4200_0000, 4);
        assert_eq!(schedule.left(4), 5);
        assert_eq!(range(schedule.take(9)), Some((0x4200_0000..0x4200_0080, Some("heap".into()))));
        // A page goes bad once, even if it is named several times.
        schedule.named("heap", 0x4200_0000, 9);
        assert_eq!((schedule.to_come(), schedule.is_empty()), (1, false));
        assert_eq!(range(schedule.take(10)), Some((0x4000_0000..0x4000_0040, None)));
        assert!(schedule.is_empty());
    }
}
