//! Branches.

use std::mem::offset_of;

use super::asm::{Alu, Cc, Extend, Mem, RAX, RBX, RCX};
use super::{Context, Deferred, LEFT, Reg, SideExit, Translator, at, context, x86_condition};
use crate::decode::{Insn, Op};

/// PSTATE.BTYPE of an indirect branch.
#[derive(Clone, Copy, Debug)]
enum Btype {
    Is(u8),
    /// BR through any register but X16 and X17: 11 from a guarded page, else 01.
    OfJump,
}

/// The link register.
const LR: u8 = 30;

impl Translator<'_> {
    /// An instruction that always ends the block. Whether it is one.
    pub(super) fn branch(&mut self, insn: &Insn, k: usize) -> bool {
        let target = self.target(insn, k);
        match insn.op {
            Op::B => self.always(target, k),
            Op::BCond if x86_condition(insn.x).is_none() => self.always(target, k),
            Op::Bl => {
                self.link(k);
                self.always(target, k);
            }
            Op::Ret => self.indirect(insn, k, None),
            Op::Br => self.indirect(
                insn,
                k,
                Some(if matches!(insn.rn, 16 | 17) { Btype::Is(1) } else { Btype::OfJump }),
            ),
            Op::Blr => self.indirect(insn, k, Some(Btype::Is(2))),
            _ => return false,
        }
        true
    }

    /// The index that a direct branch goes to.
    fn target(&self, insn: &Insn, k: usize) -> i64 {
        ((self.block.start + k) as i64).wrapping_add(insn.imm as i64)
    }

    fn always(&mut self, target: i64, k: usize) {
        if let Some(head) = self.loop_head(target) {
            self.next_iteration(head);
            return;
        }
        self.write_back(self.pool);
        self.give_back(k + 1);
        self.chain(target);
    }

    /// Where to go for another iteration, if this is the branch that makes a loop of the block.
    fn loop_head(&self, target: i64) -> Option<usize> {
        self.head.filter(|_| target == self.block.start as i64)
    }

    /// From the end of the loop to its head. The budget is asked once for each iteration.
    fn next_iteration(&mut self, head: usize) {
        self.asm.alu_imm(Alu::Sub, true, LEFT, self.max());
        let jump = self.asm.jcc(Cc::AT_LEAST);
        self.asm.bind(jump, head);
        let jump = self.asm.jmp();
        self.out_of_budget.push(jump);
    }

    fn link(&mut self, k: usize) {
        let index = self.block.start + k + 1;
        let link = self.destination(LR);
        self.asm.load(Extend::U64, link, context!(page_va));
        self.asm.lea(true, link, Mem::at(link, index as i32 * 4));
        self.written(LR);
    }

    /// To the address in a register; `btype` goes to PSTATE and is done with where the branch lands.
    fn indirect(&mut self, insn: &Insn, k: usize, btype: Option<Btype>) {
        let target = self.source(insn.rn);
        self.asm.mov(true, RAX, target);
        if insn.op == Op::Blr {
            self.link(k);
        }
        self.write_back(self.pool);
        self.give_back(k + 1);
        match btype {
            Some(btype) => {
                let place = Mem::at(RBX, at::BTYPE);
                match btype {
                    Btype::Is(btype) => self.asm.store_imm8(place, btype),
                    Btype::OfJump => {
                        self.asm.load(Extend::U8, RCX, context!(guarded));
                        self.asm.lea(false, RCX, Mem::indexed(RCX, RCX, 0, 1));
                        self.asm.store(1, RCX, place);
                    }
                }
                self.asm.jmp_mem(context!(lookup_typed));
            }
            None => self.asm.jmp_mem(context!(lookup)),
        }
    }

    /// True if it is one.
    pub(super) fn conditional_branch(&mut self, insn: &Insn, k: usize) -> bool {
        let target = self.target(insn, k);
        let cc = match insn.op {
            Op::BCond => {
                if self.deferred.is_some() {
                    self.deferred_branch(insn, target, k);
                    return true;
                }
                self.condition(insn.x)
            }
            Op::Cbz64 | Op::Cbz32 | Op::Cbnz64 | Op::Cbnz32 => {
                let reg = self.source(insn.rn);
                self.asm.test(matches!(insn.op, Op::Cbz64 | Op::Cbnz64), reg, reg);
                if matches!(insn.op, Op::Cbz64 | Op::Cbz32) { Cc::ZERO } else { Cc::NOT_ZERO }
            }
            Op::Tbz | Op::Tbnz => {
                let reg = self.source(insn.rn);
                self.asm.bit_test(reg, (insn.x & 63) as u8);
                if insn.op == Op::Tbz { Cc::AT_LEAST } else { Cc::BELOW }
            }
            _ => return false,
        };
        self.branch_if(cc, target, k);
        true
    }

    fn branch_if(&mut self, cc: Cc, target: i64, k: usize) {
        if let Some(head) = self.loop_head(target) {
            let no = self.asm.jcc(cc.inverted());
            self.next_iteration(head);
            self.asm.bind_here(no);
            return;
        }
        let jump = self.asm.jcc(cc);
        self.exits.push(SideExit { jump, pool: self.pool, done: k + 1, target });
    }

    /// A subtraction whose flags only the loop's branch needs, unless the loop is left.
    pub(super) fn defer(&mut self, wide: bool, reg: Reg, immediate: i32) {
        self.deferred = Some(Deferred { wide, reg, immediate });
    }

    /// The host's flags are those of a subtraction: CF is a borrow.
    fn deferred_branch(&mut self, insn: &Insn, target: i64, k: usize) {
        let (cc, _) = x86_condition(insn.x).unwrap_or((Cc::ZERO, false));
        // CS and CC are told from the others that look at the carry: HI and LS want it inverted, as it is here.
        let cc = if matches!(cc, Cc::BELOW | Cc::AT_LEAST) { cc.inverted() } else { cc };
        self.branch_if(cc, target, k);
        self.save_flags(true);
    }
}
