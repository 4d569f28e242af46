//! Entries that several threads publish at once, in all orders that memory allows.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

// Once more, with loom's atomics.
#[allow(clippy::duplicate_mod)]
#[path = "entry.rs"]
mod entry;

#[test]
fn who_finds_a_translation_in_an_entry_sees_its_code_whoever_made_it() {
    const NONE: u64 = 0;
    loom::model(|| {
        // An arena of two places, and the entry that two threads make at once.
        let shared = Arc::new(([AtomicU64::new(0), AtomicU64::new(0)], entry::Entry::new(NONE)));
        let makers: Vec<_> = [1_u64, 2]
            .map(|address| {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    shared.0[address as usize - 1].store(0xc3, Ordering::Relaxed);
                    shared.1.publish(address);
                })
            })
            .into();
        let address = shared.1.address();
        if address != NONE {
            assert_eq!(shared.0[address as usize - 1].load(Ordering::Relaxed), 0xc3);
        }
        for maker in makers {
            maker.join().expect("no panic");
        }
    });
}
