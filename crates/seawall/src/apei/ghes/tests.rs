use std::time::Duration;

use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::*;

const BASE: u64 = 0x4000_0000;
const REGION: GhesRegion = GhesRegion { base: BASE, sea: 16, polled: 2, poll_interval: 500 };

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), 0x1_0000)]).unwrap()
}

fn ready() -> (GuestMemoryMmap, Ghes) {
    let (memory, mut ghes) = (memory(), Ghes::new(REGION));
    ghes.reset(&memory).unwrap();
    (memory, ghes)
}

fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_266_855)
}

fn report(ghes: &mut Ghes, memory: &GuestMemoryMmap, page: u64) -> Report {
    ghes.report(memory, page << 12, page << 12..(page + 1) << 12, Severity::Recoverable, time()).unwrap()
}

/// Reads a source as Linux does: the address, then the block; clears its status; acknowledges by `old &
/// preserve | write`.
fn guest_reads(memory: &GuestMemoryMmap, source: u64) -> Option<MemoryErrorRecord> {
    let start = BASE + source * 512;
    let block: u64 = memory.read_obj(GuestAddress(start)).unwrap();
    let status: u32 = memory.read_obj(GuestAddress(block)).unwrap();
    if status == 0 {
        return None;
    }
    let mut bytes = [0; RECORD_SIZE];
    memory.read_slice(&mut bytes, GuestAddress(block)).unwrap();
    memory.write_obj(0_u32, GuestAddress(block)).unwrap();
    let old: u64 = memory.read_obj(GuestAddress(start + 8)).unwrap();
    memory.write_obj(old & !1 | 1, GuestAddress(start + 8)).unwrap();
    Some(MemoryErrorRecord::from_bytes(&bytes).unwrap())
}

#[test]
fn after_a_reset_each_source_has_its_address_and_is_free() {
    let (memory, ghes) = ready();
    for source in 0..18 {
        let start = BASE + source * 512;
        assert_eq!(memory.read_obj::<u64>(GuestAddress(start)).unwrap(), start + 16);
        assert_eq!(guest_reads(&memory, source), None);
    }
    assert_eq!(ghes.outstanding(&memory).unwrap(), (0, 0));
}

#[test]
fn sixteen_errors_at_once_are_sixteen_records_and_the_next_waits() {
    let (memory, mut ghes) = ready();
    for page in 0..16 {
        assert_eq!(report(&mut ghes, &memory, 0x40100 + page), Report::Written { source: page as u16 });
    }
    assert_eq!(report(&mut ghes, &memory, 0x40200), Report::Busy);
    assert_eq!(ghes.outstanding(&memory).unwrap(), (16, 0));
    for source in 0..16 {
        let record = guest_reads(&memory, source).unwrap();
        assert_eq!(record.range.start, 0x4010_0000 + source * 0x1000);
        assert_eq!(record.serial, source as u32 + 1);
    }
    assert_eq!(report(&mut ghes, &memory, 0x40200), Report::Written { source: 0 });
}

#[test]
fn a_record_that_was_not_acknowledged_is_never_written_over() {
    let (memory, mut ghes) = ready();
    report(&mut ghes, &memory, 0x40100);
    report(&mut ghes, &memory, 0x40101);
    guest_reads(&memory, 1).unwrap();
    assert_eq!(report(&mut ghes, &memory, 0x40102), Report::Written { source: 1 });
    assert_eq!(guest_reads(&memory, 0).unwrap().range, 0x4010_0000..0x4010_1000);
    assert_eq!(guest_reads(&memory, 1).unwrap().range, 0x4010_2000..0x4010_3000);
}

#[test]
fn what_was_found_waits_in_order_while_the_guest_is_slow() {
    let (memory, mut ghes) = ready();
    let mut announce = |page: u64| ghes.announce(&memory, page << 12..(page + 1) << 12, time()).unwrap();
    assert_eq!(announce(1), Announcement::Written { source: 16 });
    assert_eq!(announce(2), Announcement::Written { source: 17 });
    assert_eq!(announce(3), Announcement::Queued { ahead: 0 });
    assert_eq!(announce(4), Announcement::Queued { ahead: 1 });
    let mut told = Vec::new();
    for _ in 0..2 {
        for source in 16..18 {
            told.extend(guest_reads(&memory, source).map(|record| record.range.start >> 12));
        }
        ghes.flush(&memory).unwrap();
    }
    assert_eq!(told, [1, 2, 3, 4]);
    assert_eq!(ghes.flush(&memory).unwrap(), 0);
}

#[test]
fn a_guest_that_never_acknowledges_costs_a_bounded_queue_and_is_told_about() {
    let (memory, mut ghes) = ready();
    for _ in 0..2 + QUEUE {
        let announced = ghes.announce(&memory, 0x1000..0x2000, time()).unwrap();
        assert_ne!(announced, Announcement::Dropped);
    }
    assert_eq!(ghes.announce(&memory, 0x1000..0x2000, time()).unwrap(), Announcement::Dropped);
    assert_eq!(ghes.flush(&memory).unwrap(), 4096);
    ghes.reset(&memory).unwrap();
    assert_eq!(ghes.flush(&memory).unwrap(), 0);
}

#[test]
fn a_region_that_is_not_in_memory_is_an_error_and_nothing_is_lost() {
    let memory = memory();
    let mut ghes = Ghes::new(GhesRegion { base: 0x8000_0000, ..REGION });
    assert!(ghes.reset(&memory).is_err());
    assert!(ghes.announce(&memory, 0..1, time()).is_err());
}

#[test]
fn the_table_points_to_the_registers() {
    let sources = REGION.sources();
    assert_eq!(sources.len(), 18);
    assert_eq!((sources[15].notification, sources[15].id), (Notification::Sea, 15));
    assert_eq!(sources[16].notification, Notification::Polled { interval: 500 });
    assert_eq!(sources[16].status_address_register, 0x4000_2000);
    assert_eq!(sources[16].read_ack_register, 0x4000_2008);
    assert_eq!(sources[16].status_block_length, 496);
    assert_eq!(REGION.size(), 18 * 512);
}

proptest! {
    /// In any order of errors and reads by the guest, each record arrives once, whole.
    #[test]
    fn every_record_arrives_exactly_once(steps in proptest::collection::vec(0_u64..20, 1..200)) {
        let (memory, mut ghes) = ready();
        let (mut sent, mut told) = (Vec::new(), Vec::new());
        for (page, step) in (0x40100_u64..).zip(steps) {
            match step {
                0..16 => told.extend(guest_reads(&memory, step).map(|record| record.range.start >> 12)),
                16..18 => told.extend(guest_reads(&memory, step).map(|record| record.range.start >> 12)),
                18 => {
                    if report(&mut ghes, &memory, page) != Report::Busy {
                        sent.push(page);
                    }
                }
                _ => {
                    ghes.announce(&memory, page << 12..(page + 1) << 12, time()).unwrap();
                    sent.push(page);
                }
            }
        }
        loop {
            let waiting = ghes.flush(&memory).unwrap();
            for source in 0..18 {
                told.extend(guest_reads(&memory, source).map(|record| record.range.start >> 12));
            }
            if waiting == 0 {
                break;
            }
        }
        told.sort_unstable();
        prop_assert_eq!(told, sent);
    }
}
