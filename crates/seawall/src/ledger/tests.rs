// The tests need lists of one range.
#![allow(clippy::single_range_in_vec_init)]

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::file::{FileError, FormatError};
use super::*;

const GIB: u64 = 1 << 30;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn ledger(ranges: &[Range<u64>]) -> Ledger {
    let mut ledger = Ledger::default();
    for range in ranges {
        ledger.insert(range.clone(), Cause::Consumed, at(1000));
    }
    ledger
}

fn ranges(ledger: &Ledger) -> Vec<Range<u64>> {
    ledger.ranges().map(|bad| bad.range).collect()
}

#[test]
fn a_line_counts_as_its_page_and_the_second_one_in_it_is_nothing_new() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.insert(0x4000_0040..0x4000_0080, Cause::Consumed, at(1)), 1);
    assert_eq!(ledger.insert(0x4000_0080..0x4000_00c0, Cause::Consumed, at(2)), 0);
    assert_eq!(ledger.insert(0x4000_0fff..0x4000_1001, Cause::Consumed, at(2)), 1);
    assert_eq!(ledger.insert(0x5000..0x5000, Cause::Consumed, at(2)), 0);
    assert_eq!(ledger.pages(), 2);
}

#[test]
fn when_a_page_went_bad_does_not_change() {
    let mut ledger = Ledger::default();
    ledger.insert(0x2000..0x3000, Cause::Found, at(7));
    ledger.insert(0..0x5000, Cause::Consumed, at(9));
    let bad: Vec<_> = ledger.ranges().map(|bad| (bad.range, bad.cause, bad.time)).collect();
    assert_eq!(
        bad,
        [
            (0..0x2000, Cause::Consumed, at(9)),
            (0x2000..0x3000, Cause::Found, at(7)),
            (0x3000..0x5000, Cause::Consumed, at(9)),
        ]
    );
}

#[test]
fn neighbours_with_the_same_history_are_one_range_over_any_distance() {
    let ledger = ledger(&[GIB..2 * GIB, 3 * GIB..4 * GIB, 2 * GIB..3 * GIB]);
    assert_eq!(ranges(&ledger), [GIB..4 * GIB]);
    assert_eq!(ledger.pages(), 3 << 18);
}

#[test]
fn healing_takes_whole_pages_only() {
    let mut ledger = ledger(&[0..0x8000]);
    assert_eq!(ledger.remove(0x1800..0x3800), 1);
    assert_eq!(ranges(&ledger), [0..0x2000, 0x3000..0x8000]);
    assert_eq!(ledger.remove(0..u64::MAX), 7);
    assert!(ledger.is_empty());
    assert_eq!(ledger, Ledger::default());
}

#[test]
fn a_query_sees_the_parts_that_the_range_touches() {
    let ledger = ledger(&[0x1000..0x3000, 0x5000..0x6000, 0x9000..0xa000]);
    let seen: Vec<_> = ledger.overlapping(0x2fff..0x5001).map(|bad| bad.range).collect();
    assert_eq!(seen, [0x2000..0x3000, 0x5000..0x6000]);
    assert_eq!(ledger.overlapping(0x3000..0x5000).count(), 0);
    assert_eq!(ledger.overlapping(0x2000..0x2000).count(), 0);
    assert_eq!(ledger.get(0x2abc).map(|bad| bad.range), Some(0x1000..0x3000));
}

#[test]
fn the_file_is_as_documented() {
    let mut ledger = Ledger::default();
    ledger.insert(0x4021_0000..0x4021_2000, Cause::Found, at(0x0102_0304));
    let bytes = ledger.to_bytes();
    assert_eq!(bytes[..24], *b"SEAWALL\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(bytes[24..40], [0, 0, 0x21, 0x40, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[40..48], [4, 3, 2, 1, 2, 0, 0, 0]);
    assert_eq!(bytes.len(), 80);
}

#[test]
fn a_file_torn_at_any_byte_is_refused() {
    let bytes = ledger(&[0..0x1000, 0x8000..0x9000]).to_bytes();
    for cut in 0..bytes.len() {
        let refused = Ledger::from_bytes(&bytes[..cut]).unwrap_err();
        let expected = match cut {
            0..8 => FormatError::Foreign,
            8..24 => FormatError::Length { expected: 56, got: cut as u64 },
            _ => FormatError::Length { expected: 104, got: cut as u64 },
        };
        assert_eq!(refused, expected, "cut at {cut}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(Ledger::from_bytes(&longer), Err(FormatError::Length { expected: 104, got: 105 }));
}

#[test]
fn a_file_with_any_bit_flipped_is_refused() {
    let bytes = ledger(&[0..0x1000, 0x8000..0x9000]).to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Ledger::from_bytes(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn entries_that_contradict_each_other_are_refused_though_the_checksum_is_right() {
    let sound = ledger(&[0x1000..0x2000, 0x8000..0x9000]).to_bytes();
    // The second entry's address: not a page, the first one's, one beyond 2^52; its pages; its cause.
    for (at, value) in [(48, 1), (49, 0x10), (55, 0xff), (56, 0), (63, 0xff), (68, 5), (69, 1)] {
        let mut bytes = sound.clone();
        bytes[at] = value;
        let end = bytes.len() - 32;
        let hash = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(hash.as_bytes());
        assert_eq!(Ledger::from_bytes(&bytes), Err(FormatError::Entry { index: 1 }), "byte {at}");
    }
}

#[test]
fn what_was_saved_is_loaded_and_no_file_is_no_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    assert_eq!(Ledger::load(&path).unwrap(), None);
    let first = ledger(&[0..0x1000]);
    first.save(&path).unwrap();
    let second = ledger(&[0..0x1000, 0x5000..0x7000]);
    second.save(&path).unwrap();
    assert_eq!(Ledger::load(&path).unwrap(), Some(second));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left lying about");
}

#[test]
fn a_file_that_is_no_ledger_is_named_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    fs::write(&path, "{}").unwrap();
    let error = Ledger::load(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: expected a ledger, which begins with `SEAWALL`, got something else", path.display())
    );
    assert_eq!(fs::read(&path).unwrap(), b"{}");
}

#[test]
fn a_ledger_that_cannot_be_written_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not-there").join("ledger");
    let error = ledger(&[0..0x1000]).save(&path).unwrap_err();
    assert!(matches!(error, FileError::Write { .. }), "{error}");
}

#[test]
fn what_is_beyond_guest_physical_addresses_is_left_out() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.insert(END - 0x1000..u64::MAX, Cause::Found, at(1)), 1);
    assert_eq!(ledger.insert(END..END + 1, Cause::Found, at(1)), 0);
    assert!(!ledger.contains(END) && !ledger.contains(u64::MAX));
    assert_eq!(ledger.remove(u64::MAX - 5..u64::MAX), 0);
}

/// All guest physical addresses are 16,777,216 chunks.
#[test]
fn a_range_takes_the_memory_of_a_page_however_long_it_is() {
    let mut ledger = Ledger::default();
    ledger.insert(5 * GIB..5 * GIB + 0x3000, Cause::Consumed, at(7));
    ledger.insert(0..END, Cause::Found, at(9));
    assert_eq!(ledger.pages(), 1 << 40);
    let bad: Vec<_> = ledger.ranges().map(|bad| (bad.range, bad.cause)).collect();
    let middle = 5 * GIB..5 * GIB + 0x3000;
    assert_eq!(
        bad,
        [(0..middle.start, Cause::Found), (middle.clone(), Cause::Consumed), (middle.end..END, Cause::Found)]
    );
    assert_eq!(ledger.chunks.len(), 1, "what is not one from end to end");
    assert_eq!(ledger.get(GIB + 5).map(|bad| bad.range), Some(GIB..GIB + (256 << 20)));
    let seen: Vec<_> = ledger.overlapping(GIB + 0x5000..4 * GIB + 1).map(|bad| bad.range).collect();
    assert_eq!(seen, [GIB + 0x5000..4 * GIB + 0x1000]);
    assert_eq!(Ledger::from_bytes(&ledger.to_bytes()).as_ref(), Ok(&ledger));

    assert_eq!(ledger.remove(GIB + 0x800..3 * GIB + 0x800), (2 << 18) - 1);
    assert_eq!(ranges(&ledger)[..2], [0..GIB + 0x1000, 3 * GIB..5 * GIB]);
    assert_eq!(ledger.insert(GIB..3 * GIB, Cause::Found, at(9)), (2 << 18) - 1);
    assert_eq!(ranges(&ledger).len(), 3);
    assert_eq!(ledger.remove(0..END), 1 << 40);
    assert_eq!(ledger, Ledger::default());
}

#[test]
fn a_chunk_that_fills_up_page_by_page_is_the_same_as_one_that_was_entered_at_once() {
    let mut pages = Ledger::default();
    for page in (0..1 << 16).rev() {
        pages.insert(page << 12..(page + 1) << 12, Cause::Found, at(1));
    }
    let mut range = Ledger::default();
    range.insert(0..1 << 28, Cause::Found, at(1));
    assert_eq!(pages, range);
    assert_eq!((range.remove(0..1 << 28), pages.remove(0x5000..0x6000)), (1 << 16, 1));
    assert_eq!(ranges(&pages), [0..0x5000, 0x6000..1 << 28]);
}

/// Compares with a map of units, each of this many pages.
fn model(unit: u64, steps: &[(bool, u64, u64, u64)]) -> (Ledger, BTreeMap<u64, u64>) {
    let (mut ledger, mut map) = (Ledger::default(), BTreeMap::new());
    for (insert, start, units, time) in steps {
        let range = start * unit * PAGE..(start + units) * unit * PAGE;
        if *insert {
            let new = (*start..start + units).filter(|unit| !map.contains_key(unit)).count() as u64;
            assert_eq!(ledger.insert(range, Cause::Consumed, at(*time)), new * unit);
            for unit in *start..start + units {
                map.entry(unit).or_insert(*time);
            }
        } else {
            let gone = (*start..start + units).filter(|unit| map.remove(unit).is_some()).count() as u64;
            assert_eq!(ledger.remove(range), gone * unit);
        }
    }
    (ledger, map)
}

/// Checks that the ledger equals this map, in the one canonical form.
fn check(unit: u64, units: Range<u64>, ledger: &Ledger, map: &BTreeMap<u64, u64>) {
    assert_eq!(ledger.pages(), map.len() as u64 * unit);
    let mut anew = Ledger::default();
    for number in units {
        let time = ledger.get(number * unit * PAGE + 5).map(|bad| bad.time);
        assert_eq!(time, map.get(&number).map(|time| at(*time)));
        if let Some(time) = map.get(&number) {
            anew.insert(number * unit * PAGE..(number + 1) * unit * PAGE, Cause::Consumed, at(*time));
        }
    }
    assert_eq!(&anew, ledger);
    let all: Vec<_> = ledger.ranges().collect();
    let joined =
        all.windows(2).any(|two| two[0].range.end == two[1].range.start && two[0].time == two[1].time);
    let rises = all.windows(2).all(|two| two[0].range.end <= two[1].range.start);
    assert!(!joined && rises, "{all:?}");
    assert_eq!(Ledger::from_bytes(&ledger.to_bytes()).as_ref(), Ok(ledger));
}

proptest! {
    /// Around the boundary between two chunks, where pages 65,535 and 65,536 meet.
    #[test]
    fn it_is_a_map_of_pages(
        steps in proptest::collection::vec((any::<bool>(), 65_516_u64..65_556, 0_u64..12, 1_u64..3), 0..40),
    ) {
        let (ledger, map) = model(1, &steps);
        check(1, 65_510..65_570, &ledger, &map);
    }

    /// Quarters of twelve chunks, so that whole chunks are frequent.
    #[test]
    fn it_is_a_map_of_quarters_of_chunks(
        steps in proptest::collection::vec((any::<bool>(), 0_u64..48, 0_u64..30, 1_u64..3), 0..30),
    ) {
        let (ledger, map) = model(1 << 14, &steps);
        check(1 << 14, 0..80, &ledger, &map);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Ledger::from_bytes(&bytes);
        let mut headed = b"SEAWALL\0\x01\0\0\0\0\0\0\0".to_vec();
        headed.extend(bytes);
        let _ = Ledger::from_bytes(&headed);
    }
}
