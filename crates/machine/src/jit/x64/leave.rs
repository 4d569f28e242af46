//! Out of a block: to another, to the interpreter, or back to the dispatcher.

use std::mem::offset_of;

use super::asm::{Alu, Cc, Extend, Jump, Mem, RAX, RBX, RCX, RDI, RDX, RSI};
use super::stubs::leave_with;
use super::{Context, LEFT, POOL, Slow, Translator, context};
use crate::icache::INSNS_PER_PAGE;
use crate::jit::enter::{COUNT_SHIFT, Exit};

impl Translator<'_> {
    /// Of the budget that was taken for the whole block, all but what `done` instructions used.
    pub(super) fn give_back(&mut self, done: usize) {
        let rest = self.max() - done as i32;
        if rest != 0 {
            self.asm.alu_imm(Alu::Add, true, LEFT, rest);
        }
    }

    /// RAX = the address of this index of the page.
    pub(super) fn address_of(&mut self, index: i64) {
        self.asm.load(Extend::U64, RAX, context!(page_va));
        self.asm.lea(true, RAX, Mem::at(RAX, (index * 4) as i32));
    }

    pub(super) fn leave_at(&mut self, index: usize, exit: Exit) {
        self.address_of(index as i64);
        leave_with(&mut self.asm, exit);
    }

    /// Go to an index of this page, or of one beside it. All is written back.
    pub(super) fn chain(&mut self, target: i64) {
        if (0..INSNS_PER_PAGE as i64).contains(&target) {
            self.asm.load(Extend::U64, RCX, context!(entries));
            self.asm.mov_imm(RAX, target as u64);
            self.asm.jmp_mem(Mem::at(RCX, (target * 8) as i32));
        } else {
            self.address_of(target);
            self.asm.jmp_mem(context!(lookup));
        }
    }

    /// The interpreter does the instructions from this place of the block to the last; all is written back before
    /// and nothing in registers after it.
    pub(super) fn interpret(&mut self, k: usize, last: usize) {
        let rest = self.max() - k as i32;
        let count = (last - k + 1) as u64;
        self.asm.mov(true, RDI, RBX);
        self.asm.mov_imm(RSI, count << COUNT_SHIFT | (self.block.start + k) as u64);
        self.asm.lea(true, RDX, Mem::at(LEFT, rest));
        self.asm.call_mem(context!(some));
        self.asm.test(false, RAX, RAX);
        let go_on = self.asm.jcc(Cc::ZERO);
        // It is one more than the instructions that are done: what is left is less by those.
        self.asm.lea(true, LEFT, Mem::at(LEFT, rest + 1));
        self.asm.alu(Alu::Sub, true, LEFT, RAX);
        self.asm.jmp_mem(context!(leave));
        self.asm.bind_here(go_on);
    }

    /// What is in the way goes to the interpreter, from before the instruction.
    pub(super) fn unless(&mut self, reasons: &[Jump], k: usize) {
        if reasons.is_empty() {
            return;
        }
        let mut jumps = [None; 6];
        for (jump, reason) in jumps.iter_mut().zip(reasons) {
            *jump = Some(*reason);
        }
        self.slow.push(Slow { jumps, back: None, before: self.pool, k });
    }

    /// The slow paths that go on behind this place of the block come back here.
    pub(super) fn go_on_behind(&mut self, k: usize) {
        let back = Some((self.asm.here(), self.pool));
        let those = |slow: &&mut Slow| slow.back.is_none() && self.plan.last(slow.k) == k;
        self.slow.iter_mut().rev().take_while(those).for_each(|slow| slow.back = back);
    }

    /// The whole instruction by the interpreter, always.
    pub(super) fn by_interpreter(&mut self, k: usize) {
        let pool = self.pool;
        self.write_back(pool);
        self.interpret(k, k);
        if self.head.is_some() {
            self.reload(pool);
        } else {
            self.pool = [None; POOL.len()];
        }
        self.host_flags = false;
    }
}
