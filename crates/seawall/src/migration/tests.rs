// Regions are ranges, and often there is just one.
#![allow(clippy::single_range_in_vec_init)]

use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::ledger::{Cause, Ledger};

const RAM: u64 = 0x4000_0000;
const PAGES: u64 = 8;
const P: u64 = 4096;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn page(number: u64) -> Range<u64> {
    RAM + number * P..RAM + (number + 1) * P
}

fn all() -> Range<u64> {
    RAM..RAM + PAGES * P
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), (PAGES * P) as usize)]).unwrap()
}

/// Memory in which page N is full of N; page 0 is zero.
fn filled() -> GuestMemoryMmap {
    let memory = memory();
    for number in 0..PAGES {
        memory.write_slice(&[number as u8; P as usize], GuestAddress(page(number).start)).unwrap();
    }
    memory
}

fn bytes(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; (PAGES * P) as usize];
    memory.read_slice(&mut bytes, GuestAddress(RAM)).unwrap();
    bytes
}

/// Pages 3 and 4 are bad, each with its own history.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.insert(page(3), Cause::Consumed, at(1000));
    ledger.insert(page(4), Cause::Experiment, at(2000));
    ledger
}

/// Reads `memory`, and fails the test if it is asked for a page in `ledger`.
fn never<'a>(
    memory: &'a GuestMemoryMmap,
    ledger: &'a Ledger,
) -> impl FnMut(u64, &mut [u8]) -> Result<(), PageError> + 'a {
    let mut read = plainly(memory);
    move |gpa, pages| {
        let bad = ledger.overlapping(gpa..gpa + pages.len() as u64).next();
        assert_eq!(bad, None, "a bad page was read");
        read(gpa, pages)
    }
}

fn sent() -> (Vec<u8>, Sent) {
    let (memory, known) = (filled(), ledger());
    let mut wire = Vec::new();
    let read = never(&memory, &known);
    let sent = send(&mut wire, b"state", &[all()], &mut known.clone(), read, at(3000)).unwrap();
    (wire, sent)
}

fn receive(wire: &[u8], memory: &GuestMemoryMmap) -> Result<Received, ReceiveError> {
    Incoming::read(wire, &Limits::default())?.receive(memory)
}

#[test]
fn what_is_good_arrives_and_what_is_bad_arrives_as_bad_without_having_been_read() {
    let (wire, sent) = sent();
    assert_eq!((sent.pages, sent.zero, sent.bad, &sent.found[..]), (5, 1, 2, &[][..]));
    // Head 32, region 16, state 5, ledger 24 + 2 * 24 + 32, checksum 32; 2 records of 16 with 2 and 3 pages; end 16 + 32.
    assert_eq!(wire.len(), 32 + 16 + 5 + 104 + 32 + 2 * 16 + 5 * 4096 + 48);

    let arrived = memory();
    let received = receive(&wire, &arrived).unwrap();
    assert_eq!(received.state, b"state");
    assert_eq!(received.bad, [page(3).start..page(4).end]);
    assert_eq!((received.pages, received.checksum), (5, sent.checksum));
    let mut expected = bytes(&filled());
    expected[3 * 4096..5 * 4096].fill(0);
    assert_eq!(bytes(&arrived), expected);
}

#[test]
fn the_other_side_knows_when_a_page_went_bad_and_that_it_was_elsewhere() {
    let received = receive(&sent().0, &memory()).unwrap();
    let ranges: Vec<_> = received.ledger.ranges().map(|bad| (bad.range, bad.cause, bad.time)).collect();
    let expected = [(page(3), Cause::Migrated, at(1000)), (page(4), Cause::Migrated, at(2000))];
    assert_eq!(ranges, expected);
}

#[test]
fn a_page_that_is_found_to_be_bad_on_the_way_goes_into_both_ledgers() {
    let memory_there = filled();
    let mut known = ledger();
    let mut read = plainly(&memory_there);
    let reader = |gpa: u64, pages: &mut [u8]| {
        if (gpa..gpa + pages.len() as u64).contains(&page(6).start) {
            return Err(PageError::Bad);
        }
        read(gpa, pages)
    };
    let mut wire = Vec::new();
    let sent = send(&mut wire, b"", &[all()], &mut known, reader, at(3000)).unwrap();
    assert_eq!((sent.found, sent.pages, sent.bad), (vec![page(6)], 4, 3));
    let found = known.get(page(6).start).unwrap();
    assert_eq!((found.range, found.cause, found.time), (page(6), Cause::Found, at(3000)));

    let arrived = memory();
    let received = receive(&wire, &arrived).unwrap();
    assert_eq!(received.bad, [page(3).start..page(4).end, page(6)]);
    let found = received.ledger.get(page(6).start).unwrap();
    assert_eq!((found.cause, found.time), (Cause::Migrated, at(3000)));
    assert_eq!(bytes(&arrived)[5 * 4096..], [[5; 4096], [0; 4096], [7; 4096]].concat());
}

#[test]
fn what_was_found_before_the_connection_broke_is_not_forgotten() {
    /// A writer that breaks after this many bytes.
    struct Breaks(usize);
    impl Write for Breaks {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let memory = filled();
    let mut read = plainly(&memory);
    let reader = |gpa: u64, pages: &mut [u8]| match pages.len() {
        4096 if gpa != page(1).start => read(gpa, pages),
        _ => Err(PageError::Bad),
    };
    let mut ledger = Ledger::default();
    let result = send(Breaks(1000), b"", &[all()], &mut ledger, reader, at(3000));
    assert!(matches!(result, Err(SendError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    assert_eq!(ledger.ranges().map(|bad| bad.range).collect::<Vec<_>>(), [page(1)]);
}

#[test]
fn a_stream_that_is_cut_off_anywhere_is_refused() {
    let (wire, _) = sent();
    for size in 0..wire.len() {
        match receive(&wire[..size], &memory()) {
            Err(ReceiveError::Cut { after }) => assert!(after <= size as u64),
            other => panic!("{size} bytes: {other:?}"),
        }
    }
}

#[test]
fn a_stream_with_any_bit_flipped_is_refused() {
    let (wire, _) = sent();
    for at in 0..wire.len() {
        let mut wire = wire.clone();
        wire[at] ^= 1 << (at % 8);
        assert!(receive(&wire, &memory()).is_err(), "byte {at}");
    }
}

#[test]
fn something_else_and_other_versions_are_told_apart() {
    let (wire, _) = sent();
    let error = receive(b"GET / HTTP/1.1\r\nHost: destination\r\n\r\n", &memory()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a guest on its way, which begins with `SEAMIGR`, got something else"
    );
    let mut later = wire;
    later[8] = 2;
    let error = receive(&later, &memory()).unwrap_err().to_string();
    assert_eq!(error, "expected a stream of version 1, got version 2: the other side is another release");
}

#[test]
fn no_room_is_made_for_what_was_only_announced() {
    /// A reader that records the largest request.
    struct Greed<'a>(&'a [u8], usize);
    impl Read for Greed<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1.max(bytes.len());
            self.0.read(bytes)
        }
    }
    let (mut wire, _) = sent();
    wire[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = receive(&wire, &memory()).unwrap_err().to_string();
    assert_eq!(
        error,
        "expected at most 268435456 bytes of the VMM's state, got 18446744073709551615; raise the limit if the other \
         side is trusted"
    );
    wire[16..24].copy_from_slice(&(256_u64 << 20).to_le_bytes());
    let mut greed = Greed(&wire, 0);
    assert!(matches!(Incoming::read(&mut greed, &Limits::default()), Err(ReceiveError::Cut { .. })));
    assert!(greed.1 < 1 << 20, "{} bytes at once", greed.1);
}

/// A stream with these records and valid checksums.
fn forged(records: &[(u8, u32, u64)]) -> Vec<u8> {
    let (wire, _) = sent();
    let mut wire = wire[..32 + 16 + 5 + 104 + 32].to_vec();
    for (kind, pages, address) in records {
        wire.extend_from_slice(&u32::from(*kind).to_le_bytes());
        wire.extend_from_slice(&pages.to_le_bytes());
        wire.extend_from_slice(&address.to_le_bytes());
        match *kind {
            1 => wire.extend(vec![0xaa; *pages as usize % 1024 * 4096]),
            2 => wire.extend_from_slice(&3000_u64.to_le_bytes()),
            _ => {}
        }
    }
    let hash = blake3::hash(&wire);
    wire.extend_from_slice(hash.as_bytes());
    wire
}

#[test]
fn records_that_cannot_be_are_refused_though_the_checksum_is_right() {
    let end = (3, 0, 1);
    assert_eq!(receive(&forged(&[(1, 1, RAM), end]), &memory()).unwrap().pages, 1);
    for records in [
        &[(1, 1, RAM + 1), end][..],                          // not a page
        &[(1, 0, RAM), (3, 0, 0)],                            // nothing
        &[(1, 1, RAM - P), end],                              // outside of the region
        &[(1, 2, page(7).start), end],                        // beyond the end
        &[(1, 1, u64::MAX - 4095), end],                      // beyond all ends
        &[(1, 1, page(3).start), end],                        // known to be bad
        &[(2, 4, page(2).start), (3, 0, 0)],                  // the same
        &[(1, 1, page(1).start), (1, 1, RAM), (3, 0, 2)],     // falling
        &[(1, 1, page(1).start), (2, 1, page(1).start), end], // twice
        &[(1, 257, RAM), (3, 0, 257)],                        // too many at once
        &[(1, 1, RAM), (3, 0, 2)],                            // not as many as there were
        &[(1, 1, RAM), (3, 1, 1)],                            // an end with pages
        &[(4, 1, RAM)],                                       // no such kind
        &[(0, 0, 0)],
    ] {
        let error = receive(&forged(records), &memory()).unwrap_err();
        assert!(matches!(error, ReceiveError::Record { .. }), "{records:x?}: {error:?}");
    }
}

#[test]
fn a_guest_with_other_memory_is_not_taken() {
    let (wire, _) = sent();
    let small = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), 7 * 4096)]).unwrap();
    assert_eq!(
        receive(&wire, &small).unwrap_err().to_string(),
        "the guest's memory is 0x40000000..0x40008000, which is not there: make the VM as the other side's"
    );
}

#[test]
fn memory_that_cannot_be_is_not_sent() {
    for regions in [
        &[][..],
        &[RAM..RAM],
        &[RAM..RAM + 1],
        &[page(1), page(0)],
        &[page(0), RAM + 0x800..RAM + 0x2800],
        &[0..1 << 53],
    ] {
        let read = |_, _: &mut [u8]| panic!("nothing is to be read");
        let result = send(io::sink(), b"", regions, &mut Ledger::default(), read, at(0));
        assert!(matches!(result, Err(SendError::Regions(_))), "{regions:x?}");
    }
}

#[test]
fn bad_pages_beyond_the_guests_memory_stay_in_the_ledger_and_are_not_made() {
    let memory_there = filled();
    let mut ledger = Ledger::default();
    ledger.insert(page(7).start..page(9).end, Cause::Found, at(1000));
    let mut wire = Vec::new();
    send(&mut wire, b"", &[all()], &mut ledger, plainly(&memory_there), at(3000)).unwrap();
    let received = receive(&wire, &memory()).unwrap();
    assert_eq!(received.bad, [page(7)]);
    assert_eq!(received.ledger.pages(), 3);
}

/// The results of both sides of a handover over a socket. `meddle` gets the destination's end first.
fn handover(
    received: &Received,
    checksum: Checksum,
    destination: impl FnOnce(&Received, UnixStream) -> Result<(), HandoverError> + Send,
) -> (Result<(), HandoverError>, Result<(), HandoverError>) {
    let (here, there) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let source = scope.spawn(move || hand_over(&here, &checksum));
        let destination = destination(received, there);
        (source.join().unwrap(), destination)
    })
}

#[test]
fn a_guest_is_handed_over_once_and_stays_if_the_other_side_goes_away_or_has_another() {
    let (wire, sent) = sent();
    let received = receive(&wire, &memory()).unwrap();

    let both = handover(&received, sent.checksum, |received, link| received.take_over(&link));
    assert!(matches!(both, (Ok(()), Ok(()))), "{both:?}");

    let both = handover(&received, sent.checksum, |_, link| {
        drop(link);
        Ok(())
    });
    assert!(matches!(both, (Err(HandoverError::Stays(_)), _)), "{both:?}");

    let other = Checksum([7; 32]);
    let both = handover(&received, other, |received, link| received.take_over(&link));
    assert!(matches!(both, (Err(HandoverError::Stays(_)), Err(HandoverError::Stays(_)))), "{both:?}");
}

#[test]
fn a_source_that_gave_the_guest_away_and_hears_nothing_does_not_know_where_it_is() {
    let (wire, sent) = sent();
    let received = receive(&wire, &memory()).unwrap();
    let both = handover(&received, sent.checksum, |received, mut link| {
        link.write_all(b"SEAREADY").unwrap();
        link.write_all(&received.checksum.0).unwrap();
        link.read_exact(&mut [0; 40]).unwrap();
        Ok(())
    });
    assert!(matches!(both, (Err(HandoverError::Unknown(_)), _)), "{both:?}");
}

#[derive(Clone, Debug)]
struct Page {
    fill: Option<u8>,
    bad: Option<u32>,
    is_found: bool,
}

fn pages() -> impl Strategy<Value = Vec<Page>> {
    let page = (any::<Option<u8>>(), prop::option::weighted(0.2, any::<u32>()), prop::bool::weighted(0.1))
        .prop_map(|(fill, bad, is_found)| Page { fill, bad, is_found });
    prop::collection::vec(page, 1..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Over several records of the greatest size, with bad pages anywhere.
    #[test]
    fn any_memory_arrives_as_it_was_but_for_what_is_bad(pages in pages(), state in prop::collection::vec(any::<u8>(), 0..100)) {
        let size = pages.len() * 4096;
        let region = RAM..RAM + size as u64;
        let ram = [(GuestAddress(RAM), size)];
        let (there, here): (GuestMemoryMmap, GuestMemoryMmap) =
            (GuestMemoryMmap::from_ranges(&ram).unwrap(), GuestMemoryMmap::from_ranges(&ram).unwrap());
        let mut known = Ledger::default();
        for (number, page_of) in (0..).zip(&pages) {
            there.write_slice(&[page_of.fill.unwrap_or(0); 4096], GuestAddress(page(number).start)).unwrap();
            if let Some(seconds) = page_of.bad {
                known.insert(page(number), Cause::Found, at(seconds.into()));
            }
        }
        let mut read = never(&there, &known);
        let reader = |gpa: u64, bytes: &mut [u8]| {
            let first = ((gpa - RAM) / P) as usize;
            if pages[first..first + bytes.len() / 4096].iter().any(|page| page.is_found) {
                return Err(PageError::Bad);
            }
            read(gpa, bytes)
        };
        let mut wire = Vec::new();
        let mut after = known.clone();
        let sent = send(&mut wire, &state, &[region], &mut after, reader, at(9)).unwrap();
        let received = receive(&wire, &here).unwrap();

        prop_assert_eq!(&received.state, &state);
        prop_assert_eq!(received.checksum, sent.checksum);
        prop_assert_eq!(sent.pages + sent.zero + sent.bad, pages.len() as u64);
        for (number, page_of) in (0..).zip(&pages) {
            let is_bad = page_of.bad.is_some() || page_of.is_found;
            let mut arrived = [0; 4096];
            here.read_slice(&mut arrived, GuestAddress(page(number).start)).unwrap();
            prop_assert_eq!(arrived, [if is_bad { 0 } else { page_of.fill.unwrap_or(0) }; 4096]);
            let time = page_of.bad.map_or(9, u64::from);
            let expected = is_bad.then(|| (Cause::Migrated, at(time)));
            let entry = received.ledger.get(page(number).start).map(|bad| (bad.cause, bad.time));
            prop_assert_eq!(entry, expected);
            prop_assert_eq!(after.contains(page(number).start), is_bad);
            prop_assert_eq!(received.bad.iter().any(|range| range.contains(&page(number).start)), is_bad);
        }
    }

    /// Any bytes are refused unless they are a stream, and nothing panics.
    #[test]
    fn what_anybody_sends_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..200_usize) {
        prop_assert!(receive(&bytes, &memory()).is_err());
        let (mut wire, _) = sent();
        wire[at..][..bytes.len()].copy_from_slice(&bytes);
        prop_assert!(bytes.is_empty() || wire == sent().0 || receive(&wire, &memory()).is_err());
    }
}
