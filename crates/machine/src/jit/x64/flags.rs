//! NZCV: in the context, or in the host's flags between two instructions.

use std::mem::offset_of;

use super::asm::{Cc, Extend, Mem, RAX, RBX};
use super::{Context, Translator, context};
use crate::decode::Op;
use crate::jit::block::{is_pure, sets_all_flags};

/// NZCV as the context has it.
pub(in crate::jit) fn flags_of(nzcv: u8) -> u16 {
    let bit = |n: u8| u16::from(nzcv >> n & 1);
    bit(3) << 15 | bit(2) << 14 | bit(1) << 8 | bit(0)
}

/// The inverse; other bits are whatever LAHF gave.
pub(in crate::jit) fn nzcv_of(flags: u16) -> u8 {
    let bit = |n: u8| (flags >> n & 1) as u8;
    bit(15) << 3 | bit(14) << 2 | bit(8) << 1 | bit(0)
}

impl Translator<'_> {
    /// Nobody looks at the flags of this instruction: others come before.
    pub(super) fn flags_are_dead_after(&self, k: usize) -> bool {
        let next = self.insns.get(k + 1..).unwrap_or_default().iter().find(|insn| !is_pure(insn.op));
        next.is_some_and(sets_all_flags)
    }

    /// The host's flags become the guest's; of a subtraction the carry is inverted.
    pub(super) fn flags(&mut self, k: usize, is_subtraction: bool) {
        if !self.flags_are_dead_after(k) {
            self.save_flags(is_subtraction);
        }
    }

    pub(super) fn save_flags(&mut self, is_subtraction: bool) {
        if is_subtraction {
            self.asm.complement_carry();
        }
        self.asm.flags_to_ax();
        self.asm.store(2, RAX, context!(flags));
        self.host_flags = true;
    }

    pub(super) fn need_flags(&mut self) {
        if !self.host_flags {
            self.asm.load(Extend::U16, RAX, context!(flags));
            self.asm.flags_from_ax();
            self.host_flags = true;
        }
    }

    /// The host's condition for a mask of NZCV values; the flags are needed, and may be spoilt by this.
    pub(super) fn condition(&mut self, mask: u16) -> Cc {
        self.need_flags();
        let (cc, inverts_carry) = x86_condition(mask).unwrap_or((Cc::ZERO, false));
        if inverts_carry {
            self.asm.complement_carry();
            self.host_flags = false;
        }
        cc
    }
}

/// The condition with this mask of NZCV values, and whether it wants the carry inverted. `None`: it always holds.
pub(super) fn x86_condition(mask: u16) -> Option<(Cc, bool)> {
    use crate::decode::insn::condition_mask;
    const CONDITIONS: [(u8, bool); 14] = [
        (4, false),
        (5, false),
        (2, false),
        (3, false),
        (8, false),
        (9, false),
        (0, false),
        (1, false),
        (7, true),
        (6, true),
        (13, false),
        (12, false),
        (15, false),
        (14, false),
    ];
    let n = (0..14).find(|n| condition_mask(*n) == mask)?;
    CONDITIONS.get(n as usize).map(|(cc, inverts)| (Cc(*cc), *inverts))
}

/// Uses the host's flags if they are the guest's.
pub(super) fn reads_flags(op: Op) -> bool {
    matches!(
        op,
        Op::BCond
            | Op::Csel64
            | Op::Csel32
            | Op::Ccmp64
            | Op::Ccmp32
            | Op::Ccmn64
            | Op::Ccmn32
            | Op::Adc64
            | Op::Adc32
    )
}
