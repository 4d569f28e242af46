//! Streams of a migration: any bytes, and any head and records with valid checksums. Each is refused, or is a
//! guest in the given memory, with bad pages only inside that memory.

use seawall::migration::{Incoming, Limits};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RAM: u64 = 0x4000_0000;
const PAGES: u64 = 8;
const LIMITS: Limits = Limits { state: 4096, ledger: 4096 };

/// See the module.
pub(super) fn body(data: &[u8]) {
    check(data);
    let Some((&[size, state, entries, cut], rest)) = data.split_first_chunk() else { return };
    let (ledger, records) = rest.split_at(rest.len().min(usize::from(entries % 8) * 8));
    let mut stream = stream(size, state, ledger, records);
    stream.truncate(stream.len() - usize::from(cut.saturating_sub(250)));
    check(&stream);
}

fn check(stream: &[u8]) {
    let Ok(incoming) = Incoming::read(stream, &LIMITS) else { return };
    assert!(incoming.state().len() <= 4096 && !incoming.regions().is_empty());
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), (PAGES * 4096) as usize)]).expect("8 pages");
    match incoming.receive(&memory) {
        Ok(received) => {
            let inside = |range: &std::ops::Range<u64>| range.start >= RAM && range.end <= RAM + PAGES * 4096;
            assert!(received.bad.iter().all(inside) && received.pages <= PAGES);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A stream with valid checksums: a VMM's state of this size, a ledger of these entries, and records, each of
/// three bytes: kind, pages and page.
fn stream(size: u8, state: u8, entries: &[u8], records: &[u8]) -> Vec<u8> {
    let ledger = super::ledger::file(entries);
    let pages = if size < 240 { PAGES } else { u64::from(size) - 240 };
    let state = vec![0x5a; usize::from(state)];
    let mut stream = b"SEAMIGR\0\x01\0\0\0\x01\0\0\0".to_vec();
    stream.extend((state.len() as u64).to_le_bytes());
    stream.extend((ledger.len() as u64).to_le_bytes());
    stream.extend(RAM.to_le_bytes());
    stream.extend((pages * 4096).to_le_bytes());
    stream.extend(state);
    stream.extend(ledger);
    stream.extend(blake3::hash(&stream).as_bytes());
    let mut data = 0;
    for record in records.chunks_exact(3) {
        let &[kind, count, page] = record else { continue };
        let (kind, count) = (kind % 5, u32::from(count % 16));
        let address = if kind == 3 { data } else { RAM + 4096 * u64::from(page % 12) };
        stream.extend([kind, 0, 0, 0]);
        stream.extend(if kind == 3 { 0 } else { count }.to_le_bytes());
        stream.extend(address.to_le_bytes());
        match kind {
            1 => {
                stream.extend(vec![page; count as usize * 4096]);
                data += u64::from(count);
            }
            2 => stream.extend(u64::from(page).to_le_bytes()),
            3 => break,
            _ => {}
        }
    }
    stream.extend(blake3::hash(&stream).as_bytes());
    stream
}
