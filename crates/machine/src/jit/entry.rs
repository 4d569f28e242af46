//! The entry of an instruction: the address of its translation, or of the stub that stands for none.

use std::sync::atomic::Ordering;

// The standard library's, or loom's.
use super::AtomicU64;

/// Translated code reads it as a word, and jumps there. On x86-64 a plain load is an acquire.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Entry(AtomicU64);

impl Entry {
    pub(super) fn new(address: u64) -> Self {
        Self(AtomicU64::new(address))
    }

    /// Whoever reads an address that [`Entry::publish`] wrote sees what was written before it.
    pub(super) fn address(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The translation is at this address from now on. Its code was placed before.
    pub(super) fn publish(&self, address: u64) {
        self.0.store(address, Ordering::Release);
    }
}
