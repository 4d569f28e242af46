//! Guest registers in host registers.

use super::asm::{Extend, Mem, RBX, RDX, Reg};
use super::{POOL, Translator};
use crate::decode::insn::SINK;
use crate::jit::enter::at;

/// What a host register of the pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The slot of a guest register.
    pub(super) slot: u8,
    /// Its place in the CPU has an older value.
    pub(super) dirty: bool,
    /// When it was last used.
    pub(super) used: u32,
}

pub(super) type Pool = [Option<Held>; POOL.len()];

/// The guest registers of a loop, a bit for each slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub(super) used: u64,
    pub(super) written: u64,
}

impl Translator<'_> {
    pub(super) fn find(&self, slot: u8) -> Option<usize> {
        self.pool.iter().position(|held| held.is_some_and(|held| held.slot == slot))
    }

    /// The place in the pool of a slot that is in it, which is used now.
    pub(super) fn touch(&mut self, slot: u8) -> Option<usize> {
        self.clock += 1;
        let n = self.find(slot)?;
        self.pool[n] = self.pool[n].map(|held| Held { used: self.clock, ..held });
        Some(n)
    }

    /// A place for a slot that is not in the pool.
    pub(super) fn take(&mut self, slot: u8) -> usize {
        self.used |= 1 << slot;
        let free = self.pool.iter().position(Option::is_none);
        let n = free.unwrap_or_else(|| {
            self.evicted = true;
            let oldest = (0..POOL.len()).min_by_key(|n| self.pool[*n].map_or(0, |held| held.used));
            oldest.unwrap_or(0)
        });
        if let Some(Held { slot, dirty: true, .. }) = self.pool[n] {
            self.asm.store(8, POOL[n], slot_at(slot));
        }
        self.pool[n] = Some(Held { slot, dirty: false, used: self.clock });
        n
    }

    /// The host register that holds a guest register.
    pub(super) fn source(&mut self, slot: u8) -> Reg {
        if let Some(n) = self.touch(slot) {
            return POOL[n];
        }
        let n = self.take(slot);
        self.asm.load(Extend::U64, POOL[n], slot_at(slot));
        POOL[n]
    }

    /// The host register for a result, which holds what was there until [`Self::written`].
    pub(super) fn destination(&mut self, slot: u8) -> Reg {
        if slot == SINK {
            return RDX;
        }
        match self.touch(slot) {
            Some(n) => POOL[n],
            None => POOL[self.take(slot)],
        }
    }

    /// The host register of this slot has a new value.
    pub(super) fn written(&mut self, slot: u8) {
        if slot == SINK {
            return;
        }
        self.written |= 1 << slot;
        if let Some(n) = self.find(slot) {
            self.pool[n] = self.pool[n].map(|held| Held { dirty: true, ..held });
        }
    }

    pub(super) fn write_back(&mut self, pool: Pool) {
        for (held, reg) in pool.iter().zip(POOL) {
            if let Some(Held { slot, dirty: true, .. }) = held {
                self.asm.store(8, reg, slot_at(*slot));
            }
        }
    }

    pub(super) fn reload(&mut self, pool: Pool) {
        for (held, reg) in pool.iter().zip(POOL) {
            if let Some(Held { slot, .. }) = held {
                self.asm.load(Extend::U64, reg, slot_at(*slot));
            }
        }
    }
}

/// Where a register slot is.
pub(super) fn slot_at(slot: u8) -> Mem {
    Mem::at(RBX, at::REGS + 8 * i32::from(slot))
}
