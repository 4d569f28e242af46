//! What a translation is of: a superblock, which has one entry and several exits, in one page.

use crate::decode::{Insn, Op};
use crate::icache::{INSNS_PER_PAGE, Page};

/// Instructions in a block at most.
pub(super) const MAX_INSNS: usize = 64;
/// Conditional branches in a block at most.
const MAX_SIDE_EXITS: usize = 8;

/// Instructions of a page to be translated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Index of the first.
    pub(super) start: usize,
    /// How many.
    pub(super) len: usize,
    /// The last is a branch to the first.
    pub(super) loops: bool,
}

impl Block {
    /// The block that begins at `start`; `None`: the instruction there is not translated.
    ///
    /// It ends behind a branch that always leaves it or one back to its start, before an instruction that is not
    /// translated, where a line is not decoded, and at the end of the page.
    pub(super) fn at(page: &Page, start: usize) -> Option<Block> {
        let insns = page.get(start..)?;
        let (mut len, mut side_exits, mut loops) = (0, 0, false);
        for insn in insns.iter().take(MAX_INSNS) {
            if is_left_to_the_interpreter(insn.op) || side_exits == MAX_SIDE_EXITS {
                break;
            }
            len += 1;
            side_exits += usize::from(is_conditional(insn.op));
            let is_direct = is_conditional(insn.op) || insn.op == Op::B;
            loops = is_direct && insn.imm.wrapping_add(len as u64 - 1) == 0;
            if loops || is_unconditional(insn.op) {
                break;
            }
        }
        (len != 0).then_some(Block { start, len, loops })
    }

    pub(super) fn insns(self, page: &Page) -> &[Insn] {
        page.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// Instructions from `start` to the first branch or other end of a block, at least one.
pub(super) fn straight(page: &Page, start: usize) -> u64 {
    let insns = page.get(start..).unwrap_or_default().iter().take(MAX_INSNS);
    let ends = |insn: &Insn| {
        is_conditional(insn.op) || is_unconditional(insn.op) || is_left_to_the_interpreter(insn.op)
    };
    let before = insns.take_while(|insn| !ends(insn)).count();
    (before + 1).min(INSNS_PER_PAGE - start.min(INSNS_PER_PAGE - 1)) as u64
}

/// Branches that are always taken.
fn is_unconditional(op: Op) -> bool {
    matches!(op, Op::B | Op::Bl | Op::Ret | Op::Br | Op::Blr)
}

pub(super) fn is_conditional(op: Op) -> bool {
    matches!(op, Op::BCond | Op::Cbz64 | Op::Cbz32 | Op::Cbnz64 | Op::Cbnz32 | Op::Tbz | Op::Tbnz)
}

/// What traps, waits or goes to another Exception level is never part of a block.
pub(super) fn is_left_to_the_interpreter(op: Op) -> bool {
    matches!(
        op,
        Op::Pending
            | Op::Undefined
            | Op::Eret
            | Op::Svc
            | Op::Hvc
            | Op::Brk
            | Op::Wfi
            | Op::Wfe
            | Op::Sev
            | Op::Sevl
            | Op::Esb
    )
}

/// Reads and writes general registers and nothing else: no flags, no memory, and it always completes.
pub(super) fn is_pure(op: Op) -> bool {
    if let Some(form) = op.arithmetic() {
        return !form.sets_flags;
    }
    matches!(
        op,
        Op::Nop
            | Op::Bti
            | Op::Adr
            | Op::Adrp
            | Op::MovImm
            | Op::Movk64
            | Op::Movk32
            | Op::Mov64
            | Op::Ubfm64
            | Op::Ubfm32
            | Op::Bfm64
            | Op::Bfm32
            | Op::Sbfm64
            | Op::Sbfm32
            | Op::Sbfiz64
            | Op::Sbfiz32
            | Op::Extr64
            | Op::Extr32
            | Op::Madd64
            | Op::Madd32
            | Op::Msub64
            | Op::Msub32
    )
}

/// Sets all four flags, reads none, and does nothing else but to general registers.
pub(super) fn sets_all_flags(insn: &Insn) -> bool {
    use crate::decode::data_register::{GEN_ADDS, GEN_ANDS, GEN_SUBS};
    if let Some(form) = insn.op.without_branch().arithmetic() {
        return form.sets_flags;
    }
    match insn.op {
        Op::AluGen64 | Op::AluGen32 => matches!(insn.x >> 8, GEN_ADDS | GEN_SUBS | GEN_ANDS),
        _ => false,
    }
}
