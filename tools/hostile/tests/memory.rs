//! Small files and streams that announce large contents, within 256 MiB of address space for this whole
//! process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seawall::ledger::{Ledger, PAGE};
use seawall::migration::{Incoming, Limits, ReceiveError};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RAM: u64 = 0x4000_0000;
const LIMIT: u64 = 256 << 20;

/// The file of a ledger of one entry (`ledger::file`): 2^52 bytes.
fn all_addresses() -> Vec<u8> {
    let mut file = b"SEAWALL\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    // From 0, 2^40 pages, at second 9, found.
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0]);
    file.extend(blake3::hash(&file).as_bytes());
    assert_eq!(file.len(), 80);
    file
}

/// The head of a migration's stream with these sizes, and the bytes after it.
fn stream(regions: &[(u64, u64)], state: u64, ledger: u64, rest: &[u8]) -> Vec<u8> {
    let mut stream = b"SEAMIGR\0\x01\0\0\0".to_vec();
    stream.extend((regions.len() as u32).to_le_bytes());
    stream.extend([state, ledger].map(u64::to_le_bytes).concat());
    for (start, size) in regions {
        stream.extend([*start, *size].map(u64::to_le_bytes).concat());
    }
    stream.extend(rest);
    stream
}

fn refusal(stream: &[u8], limits: &Limits) -> String {
    Incoming::read(stream, limits).map(drop).unwrap_err().to_string()
}

/// The limit is for the process: this is the only test in it.
#[test]
fn what_speaks_of_more_than_there_is_costs_what_it_has() {
    setrlimit(Resource::As, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    assert_eq!(getrlimit(Resource::As).current, Some(LIMIT));
    assert!(Vec::<u8>::new().try_reserve_exact(LIMIT as usize).is_err());

    // Found: 2.1 GB from 104 bytes.
    let file = all_addresses();
    let mut ledger = Ledger::from_bytes(&file).unwrap();
    assert_eq!((ledger.pages(), ledger.ranges().count()), (1 << 40, 1));
    assert!(ledger.contains(RAM) && ledger.contains((1 << 52) - 1) && !ledger.contains(1 << 52));
    assert_eq!(ledger.remove(RAM..RAM + PAGE), 1);
    assert_eq!(ledger.ranges().map(|bad| bad.range).collect::<Vec<_>>(), [0..RAM, RAM + PAGE..1 << 52]);

    // Found: the same from a migration's head, with a limit of 100 bytes.
    let limits = Limits { state: 0, ledger: 100 };
    let mut whole = stream(&[(RAM, 8 * PAGE)], 0, 80, &file);
    whole.extend(*blake3::hash(&whole).as_bytes());
    // The end: no pages.
    whole.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    whole.extend(*blake3::hash(&whole).as_bytes());
    let incoming = Incoming::read(&*whole, &limits).unwrap();
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), 8 * PAGE as usize)]).unwrap();
    let received = incoming.receive(&memory).unwrap();
    let [bad] = &*received.bad else { panic!("{:x?}", received.bad) };
    assert_eq!((bad.start, bad.end, received.pages), (RAM, RAM + 8 * PAGE, 0));
    assert_eq!(received.ledger.pages(), 1 << 40);

    // Sizes in the head: within no limit, within smaller limits, and of regions.
    let no_limits = Limits { state: u64::MAX, ledger: u64::MAX };
    let huge = stream(&[(RAM, PAGE)], u64::MAX, u64::MAX, &[0; 100]);
    assert_eq!(
        refusal(&huge, &Limits::default()),
        "expected at most 268435456 bytes of the VMM's state, got 18446744073709551615; raise the limit if the other \
         side is trusted"
    );
    assert_eq!(
        refusal(&huge, &no_limits),
        "the guest did not come whole: the stream was cut off after 148 bytes"
    );
    let no_state = stream(&[(RAM, PAGE)], 0, u64::MAX, &[0; 100]);
    assert_eq!(
        refusal(&no_state, &no_limits),
        "the guest did not come whole: the stream was cut off after 148 bytes"
    );
    let mut everything = stream(&[(0, 1 << 52)], 0, 80, &file);
    everything.extend(*blake3::hash(&everything).as_bytes());
    let incoming = Incoming::read(&*everything, &limits).unwrap();
    assert!(matches!(incoming.receive(&memory), Err(ReceiveError::OtherMemory { .. })));
    let mut many = stream(&[], 0, 0, &[]);
    many[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        refusal(&many, &limits),
        "expected 1 to 256 regions of whole pages of 4 KiB, in rising order and apart: this was not written by Seawall"
    );
}
