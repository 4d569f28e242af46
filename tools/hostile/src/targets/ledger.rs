//! Ledgers' files: any bytes, and any entries behind a valid header and before a valid checksum. Each is
//! refused, or is a ledger that writes the same bytes and answers like any other.

use std::time::SystemTime;

use seawall::ledger::{Cause, END, Ledger, PAGE};

/// See the module.
pub(super) fn body(data: &[u8]) {
    let _ = Ledger::from_bytes(data);
    let Ok(mut ledger) = Ledger::from_bytes(&file(data)) else { return };
    let again = Ledger::from_bytes(&ledger.to_bytes()).expect("what a ledger writes");
    assert_eq!(again, ledger);
    let sum: u64 = ledger.ranges().map(|bad| (bad.range.end - bad.range.start) / PAGE).sum();
    assert_eq!(sum, ledger.pages());
    let starts: Vec<u64> = ledger.ranges().map(|bad| bad.range.start).collect();
    for start in starts {
        let bad = ledger.get(start).expect("it begins here");
        assert!(bad.range.contains(&start) && ledger.contains(bad.range.end - 1));
        // A range taken out of the middle and put in again is there again, as a new one.
        let middle = start..start + PAGE;
        assert_eq!(ledger.remove(middle.clone()), 1);
        assert_eq!(ledger.insert(middle, Cause::Found, SystemTime::UNIX_EPOCH), 1);
    }
    assert_eq!(ledger.pages(), sum);
    assert_eq!(ledger.insert(0..END, Cause::Found, SystemTime::UNIX_EPOCH) + sum, END / PAGE);
    assert_eq!(ledger.remove(0..END), END / PAGE);
    assert_eq!(ledger, Ledger::default());
}

/// A file of entries that are often valid: a distance after the one before, pages, seconds, cause; 8 bytes
/// each.
pub(super) fn file(data: &[u8]) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut next: u64 = 0;
    for bytes in data.chunks_exact(8) {
        let &[gap, scale, pages, times, seconds, cause, high, odd] = bytes else { continue };
        let start = next.wrapping_add(u64::from(gap) << (12 + scale % 36));
        let pages = u64::from(pages) << (times % 40);
        next = start.wrapping_add(pages.wrapping_mul(PAGE));
        let odd = if odd == 0 { [1, 0, 0] } else { [0; 3] };
        entries.extend(start.to_le_bytes());
        entries.extend(pages.to_le_bytes());
        entries.extend((u32::from(seconds) | u32::from(high & 1) << 31).to_le_bytes());
        entries.push(if cause < 8 { cause } else { 1 + cause % 4 });
        entries.extend(odd);
    }
    let mut file = b"SEAWALL\0\x01\0\0\0\0\0\0\0".to_vec();
    file.extend((entries.len() as u64 / 24).to_le_bytes());
    file.extend(entries);
    let hash = blake3::hash(&file);
    file.extend(hash.as_bytes());
    file
}
