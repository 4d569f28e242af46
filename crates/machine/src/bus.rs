//! Accesses of the bus by instructions that no syndrome describes, or that are more than one access.
//!
//! Such an instruction is executed up to its first access of the bus, which then is the host's to do, or the interrupt
//! controller's. With the answer it is executed again, up to the next one, until none is missing. Registers change only
//! then, so an abort at any of the accesses finds the instruction undone. The answers so far are part of the machine's
//! state.

use crate::cpu::Cpu;
use crate::trap::Trap;

/// The most accesses of one instruction: LD4 of bytes makes 64.
pub(crate) const MOST: usize = 64;

/// One access, at most 8 bytes and aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct BusAccess {
    pub(crate) va: u64,
    pub(crate) pa: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub(crate) len: u8,
    pub(crate) write: bool,
    /// What is written, or what was answered; zero-extended.
    pub(crate) data: u64,
}

impl BusAccess {
    /// Whether this is an access that can be.
    pub(crate) fn is_sound(&self) -> bool {
        matches!(self.len, 1 | 2 | 4 | 8) && self.pa % u64::from(self.len) == 0
    }

    /// True if the two differ in the answer at most.
    fn is(&self, other: &Self) -> bool {
        self.pa == other.pa
            && self.len == other.len
            && self.write == other.write
            && (!self.write || self.data == other.data)
    }
}

/// The accesses that the instruction at the PC has done, and how many of them it has come to in this execution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) done: Vec<BusAccess>,
    pub(crate) next: usize,
}

/// Bytes of the access of the bus that comes first of `len` bytes at `pa`, which are elements of `element` bytes.
pub(crate) fn first_piece(pa: u64, len: u64, element: u64) -> u64 {
    [8, 4, 2].into_iter().find(|size| pa % size == 0 && *size <= len && *size <= element).unwrap_or(1)
}

impl Cpu {
    /// What the bus answers. `None`: it was not asked yet, and the trap says so.
    #[cold]
    pub(crate) fn bus(&mut self, access: BusAccess) -> Option<u64> {
        let Replay { done, next } = &mut self.replay;
        if let Some(done) = done.get(*next).filter(|done| done.is(&access)) {
            *next += 1;
            return Some(done.data);
        }
        // The instruction is another than it was: its page tables changed, or the PC.
        done.truncate(*next);
        self.trap = Trap::Bus(access);
        None
    }
}
