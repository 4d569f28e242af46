//! Atomics of FEAT_LSE whose page is in the TLBs of loads and of stores. One CPU of a machine runs at a time, so the host needs
//! no atomics for them. Signed and unsigned maxima and minima, pairs and exclusives are the interpreter's.

use super::asm::{Alu, Cc, Mem, RAX, RCX, RDX, Reg, Unary};
use super::vector::zero_extend;
use super::{RAM, Translator};
use crate::decode::insn::{SINK, SP, dest};
use crate::decode::{Insn, Op, Rmw};

impl Translator<'_> {
    /// True if it is one that is translated.
    pub(super) fn atomic(&mut self, insn: &Insn, k: usize) -> bool {
        match insn.op {
            Op::Rmw => match Rmw::from_bits(u32::from(insn.ra)) {
                Some(operation @ (Rmw::Add | Rmw::Clear | Rmw::Xor | Rmw::Set | Rmw::Swap)) => {
                    self.read_modify_write(insn, k, operation);
                    true
                }
                _ => false,
            },
            Op::Cas => {
                self.compare_and_swap(insn, k);
                true
            }
            _ => false,
        }
    }

    fn read_modify_write(&mut self, insn: &Insn, k: usize, operation: Rmw) {
        let (base, operand) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        let (size, place) = self.atomic_place(insn, k, base);
        self.asm.load(zero_extend(size), RDX, place);
        self.asm.mov(true, RCX, operand);
        match operation {
            Rmw::Clear => {
                self.asm.unary(Unary::Not, true, RCX);
                self.asm.alu(Alu::And, true, RCX, RDX);
            }
            Rmw::Add => self.asm.alu(Alu::Add, true, RCX, RDX),
            Rmw::Xor => self.asm.alu(Alu::Xor, true, RCX, RDX),
            Rmw::Set => self.asm.alu(Alu::Or, true, RCX, RDX),
            _ => {}
        }
        self.asm.store(1 << size, RCX, place);
        if insn.rd != SINK {
            self.asm.mov(true, to, RDX);
            self.written(insn.rd);
        }
    }

    fn compare_and_swap(&mut self, insn: &Insn, k: usize) {
        let (base, expected, new) = (self.source(insn.rn), self.source(insn.rm), self.source(insn.rd));
        let (size, place) = self.atomic_place(insn, k, base);
        self.asm.load(zero_extend(size), RDX, place);
        self.asm.extend(zero_extend(size), RCX, expected);
        self.asm.alu(Alu::Cmp, true, RCX, RDX);
        let differs = self.asm.jcc(Cc::NOT_ZERO);
        self.asm.store(1 << size, new, place);
        self.asm.bind_here(differs);
        if dest(insn.rm) != SINK {
            self.asm.mov(true, expected, RDX);
            self.written(insn.rm);
        }
    }

    /// Log2 of the bytes, and where they are: one aligned place that both TLBs have. The load is asked for first, as its
    /// faults come first.
    fn atomic_place(&mut self, insn: &Insn, k: usize, base: Reg) -> (u32, Mem) {
        let size = u32::from(insn.x);
        let bytes = 1 << size;
        let mut reasons = Vec::with_capacity(4);
        let alignment = if insn.rn == SP { 15 } else { bytes - 1 };
        if alignment != 0 {
            self.asm.test_imm(false, base, alignment);
            reasons.push(self.asm.jcc(Cc::NOT_ZERO));
        }
        for write in [false, true] {
            self.asm.mov(true, RAX, base);
            reasons.push(self.translate_rax(write, bytes));
        }
        self.unless(&reasons, k);
        (size, Mem::indexed(RAM, RAX, 0, 0))
    }
}
