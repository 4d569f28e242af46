//! The state hash: one number for all that a guest can ever see.

use std::fmt;

use crate::pages::{hash_page, page_of};
use crate::snapshot::state::{State, Visible};
use crate::vm::Vm;

/// What is hashed, and how: part of each hash, so that hashes of different definitions never are equal.
const DOMAIN: &str = "seawall-machine state 1";

/// The state of a machine in 32 bytes: BLAKE3. Equal if, and but for a collision only if, the guests can see no
/// difference, then and whatever happens later.
///
/// In it, in this order: the version of this definition; of each CPU all registers, PSTATE, system registers,
/// timers, pending SError, exclusive monitor, event register, what it waits for, an MMIO access that waits, and its
/// steps; the GIC; whose turn it is and for how long; time; poison; and of each page of RAM that is not all zero its
/// number and the BLAKE3 of its bytes. A machine with EL2 has what EL2 has of each CPU behind time and poison. Not in it are TLBs and decoded instructions, which no guest sees, and what is
/// the host's: budgets, the log of UNDEFINED instructions. `Config` is in it only so far as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash([u8; 32]);

impl StateHash {
    /// The hash of this state and more, for instance what devices around the machine hold.
    #[must_use]
    pub fn with(&self, more: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(more);
        Self(*hasher.finalize().as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for StateHash {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Vm {
    /// The hash of the machine's state as it is now. It costs the pages that were written to since the last
    /// snapshot or restore, or all that were ever touched where there was none, or for the first time after it.
    pub fn state_hash(&self) -> StateHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN.as_bytes());
        // Into memory it cannot fail.
        let state = postcard::to_stdvec(&Visible::of(self));
        debug_assert!(state.is_ok(), "{state:?}");
        let state = state.unwrap_or_default();
        hasher.update(&(state.len() as u64).to_le_bytes());
        hasher.update(&state);
        if self.config.el2 {
            hasher.update(&postcard::to_stdvec(&State::el2_of(self)).unwrap_or_default());
        }
        hasher.update(&[u8::from(self.config.ras)]);
        hasher.update(&self.memory.size().to_le_bytes());

        let mut dirty = self.memory.dirty_pages().to_vec();
        dirty.sort_unstable();
        let clean = self.memory.clean_contents().hashes();
        let mut clean = clean.iter().filter(|(page, _)| dirty.binary_search(page).is_err()).peekable();
        let mut put = |page: u32, hash: &[u8; 32]| {
            hasher.update(&page.to_le_bytes());
            hasher.update(hash);
        };
        for &page in &dirty {
            while let Some((page, hash)) = clean.next_if(|(clean, _)| *clean < page) {
                put(*page, hash);
            }
            if let Some(hash) = page_of(self.memory.ram(), page).and_then(hash_page) {
                put(page, &hash);
            }
        }
        clean.for_each(|(page, hash)| put(*page, hash));
        StateHash(*hasher.finalize().as_bytes())
    }
}
