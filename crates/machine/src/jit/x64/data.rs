//! Arithmetic and logic in registers.

use super::asm::{Alu, Extend, Mem, RAX, RBX, RCX, RDX, Shift, Unary};
use super::{Context, Reg, Translator, context, flags_of, x86_condition};
use crate::decode::data_register::{EXTEND, GEN_ADD, GEN_ADDS, GEN_AND, GEN_ANDS, GEN_EOR, GEN_ORR, GEN_SUB};
use crate::decode::insn::{SINK, ZR};
use crate::decode::meaning::{Arithmetic, Operand, Operation, Width};
use crate::decode::{Insn, Op};
use std::mem::offset_of;

/// What an operation does with the flags.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sets {
    Nothing,
    /// As after an addition or logical operation; as after a subtraction.
    Flags,
    FlagsOfSub,
}

impl Translator<'_> {
    /// True if it is one that is translated.
    pub(super) fn data_processing(&mut self, insn: &Insn, k: usize) -> bool {
        if let Some(form) = insn.op.without_branch().arithmetic() {
            self.arithmetic(insn, k, form);
            return true;
        }
        match insn.op {
            Op::Nop | Op::Bti => {}
            Op::Adr | Op::Adrp => self.address(insn, k),
            Op::MovImm => {
                let to = self.destination(insn.rd);
                self.asm.mov_imm(to, insn.imm);
                self.written(insn.rd);
            }
            Op::Movk64 | Op::Movk32 => self.move_keep(insn),
            Op::Mov64 => {
                let from = self.source(insn.rm);
                let to = self.destination(insn.rd);
                self.asm.mov(true, to, from);
                self.written(insn.rd);
            }
            Op::AluGen64 => self.general(true, insn, k),
            Op::AluGen32 => self.general(false, insn, k),
            Op::Adc64 => self.carry(true, insn, k),
            Op::Adc32 => self.carry(false, insn, k),
            Op::Csel64 | Op::Csel32 if x86_condition(insn.x).is_some() => self.select(insn),
            Op::Ccmp64 | Op::Ccmp32 | Op::Ccmn64 | Op::Ccmn32 if x86_condition(insn.x).is_some() => {
                self.compare_if(insn);
            }
            _ => return self.bits(insn) || self.multiply_divide(insn),
        }
        true
    }

    /// What is in the table.
    fn arithmetic(&mut self, insn: &Insn, k: usize, form: Arithmetic) {
        let Arithmetic { operation, width, operand, sets_flags } = form;
        // An AND whose immediate is zero-extended needs no 64 bits.
        let is_narrow = insn.op == Op::AndImm && u32::try_from(insn.imm).is_ok();
        let wide = width == Width::W64 && !is_narrow;
        let (alu, flags) = match operation {
            Operation::Add => (Alu::Add, Sets::Flags),
            Operation::Sub => (Alu::Sub, Sets::FlagsOfSub),
            Operation::And => (Alu::And, Sets::Flags),
            Operation::Orr => (Alu::Or, Sets::Flags),
            Operation::Eor => (Alu::Xor, Sets::Flags),
        };
        let sets = if sets_flags { flags } else { Sets::Nothing };
        match operand {
            Operand::Immediate if operation == Operation::Add && !sets_flags => self.add_immediate(insn),
            Operand::Immediate => self.immediate(alu, wide, insn, k, sets),
            Operand::Shifted if insn.op == Op::Add64 && insn.x <= 3 && insn.rd != SINK => {
                self.add_scaled(insn);
            }
            Operand::Shifted => self.shifted(alu, wide, insn, k, sets),
        }
    }

    fn address(&mut self, insn: &Insn, k: usize) {
        let to = self.destination(insn.rd);
        let from_page = if insn.op == Op::Adr { (self.block.start + k) as i64 * 4 } else { 0 };
        let distance = from_page.wrapping_add(insn.imm as i64);
        self.asm.load(Extend::U64, to, context!(page_va));
        if let Ok(near) = i32::try_from(distance) {
            self.asm.lea(true, to, Mem::at(to, near));
        } else {
            self.asm.mov_imm(RAX, distance as u64);
            self.asm.alu(Alu::Add, true, to, RAX);
        }
        self.written(insn.rd);
    }

    fn move_keep(&mut self, insn: &Insn) {
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        let width = if insn.op == Op::Movk32 { u64::from(u32::MAX) } else { u64::MAX };
        let kept = !(0xffff << (insn.x & 63)) & width;
        self.asm.mov_imm(RAX, kept);
        self.asm.alu(Alu::And, true, RAX, from);
        self.asm.mov_imm(RCX, insn.imm);
        self.asm.alu(Alu::Or, true, RAX, RCX);
        self.asm.mov(true, to, RAX);
        self.written(insn.rd);
    }

    fn add_immediate(&mut self, insn: &Insn) {
        let wide = insn.op == Op::AddImm64;
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        if wide && to == from {
            self.asm.alu_imm(Alu::Add, true, to, insn.imm as i32);
        } else {
            self.asm.lea(wide, to, Mem::at(from, insn.imm as i32));
        }
        self.written(insn.rd);
    }

    fn add_scaled(&mut self, insn: &Insn) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        if to == a && insn.x == 0 {
            self.asm.alu(Alu::Add, true, to, b);
        } else {
            self.asm.lea(true, to, Mem::indexed(a, b, insn.x as u8, 0));
        }
        self.written(insn.rd);
    }

    /// `reg` op= immediate, by RCX if it is too wide.
    pub(super) fn with_immediate(&mut self, op: Alu, wide: bool, reg: Reg, value: u64) {
        let fits = if wide { i32::try_from(value as i64).ok() } else { Some(value as i32) };
        if let Some(value) = fits {
            self.asm.alu_imm(op, wide, reg, value);
        } else {
            self.asm.mov_imm(RCX, value);
            self.asm.alu(op, wide, reg, RCX);
        }
    }

    fn immediate(&mut self, op: Alu, wide: bool, insn: &Insn, k: usize, sets: Sets) {
        let from = self.source(insn.rn);
        if insn.rd == SINK && op == Alu::Sub {
            self.with_immediate(Alu::Cmp, wide, from, insn.imm);
        } else {
            let to = self.destination(insn.rd);
            // For 32 bits a move to itself clears what is above.
            if to != from {
                self.asm.mov(wide, to, from);
            }
            self.with_immediate(op, wide, to, insn.imm);
            self.written(insn.rd);
            if self.defer_at == Some(k) {
                self.defer(wide, to, insn.imm as i32);
                return;
            }
        }
        self.set_flags(k, sets);
    }

    fn set_flags(&mut self, k: usize, sets: Sets) {
        if sets != Sets::Nothing {
            self.flags(k, sets == Sets::FlagsOfSub);
        }
    }

    /// With the second operand shifted left by `x`, and inverted if `imm` says so.
    fn shifted(&mut self, op: Alu, wide: bool, insn: &Insn, k: usize, sets: Sets) {
        let mut operand = self.source(insn.rm);
        let inverts = insn.imm != 0 && matches!(op, Alu::And | Alu::Or | Alu::Xor);
        if insn.x != 0 || inverts {
            self.asm.mov(wide, RCX, operand);
            self.asm.shift(Shift::Shl, wide, RCX, insn.x as u8);
            if inverts {
                self.asm.unary(Unary::Not, wide, RCX);
            }
            operand = RCX;
        }
        self.binary(op, wide, insn, operand, k, sets);
    }

    /// With any shift or extension of the second operand.
    fn general(&mut self, wide: bool, insn: &Insn, k: usize) {
        let operand = self.source(insn.rm);
        let amount = (insn.x & 0xff) as u8;
        if insn.ra < EXTEND {
            self.asm.mov(wide, RCX, operand);
            let shift = [Shift::Shl, Shift::Shr, Shift::Sar, Shift::Ror][insn.ra as usize & 3];
            self.asm.shift(shift, wide, RCX, amount);
        } else {
            let extend = match (insn.ra - EXTEND) & 7 {
                0 => Extend::U8,
                1 => Extend::U16,
                2 => Extend::U32,
                4 => Extend::S8,
                5 => Extend::S16,
                6 => Extend::S32,
                _ => Extend::U64,
            };
            self.asm.extend(extend, RCX, operand);
            self.asm.shift(Shift::Shl, wide, RCX, amount);
        }
        if insn.imm != 0 {
            self.asm.unary(Unary::Not, wide, RCX);
        }
        let (op, sets) = match insn.x >> 8 {
            GEN_ADD => (Alu::Add, Sets::Nothing),
            GEN_ADDS => (Alu::Add, Sets::Flags),
            GEN_SUB => (Alu::Sub, Sets::Nothing),
            GEN_AND => (Alu::And, Sets::Nothing),
            GEN_ORR => (Alu::Or, Sets::Nothing),
            GEN_EOR => (Alu::Xor, Sets::Nothing),
            GEN_ANDS => (Alu::And, Sets::Flags),
            _ => (Alu::Sub, Sets::FlagsOfSub),
        };
        self.binary(op, wide, insn, RCX, k, sets);
    }

    /// Rd = Rn op `b`, which is not RAX.
    fn binary(&mut self, op: Alu, wide: bool, insn: &Insn, b: Reg, k: usize, sets: Sets) {
        let a = self.source(insn.rn);
        if insn.rd == SINK && sets != Sets::Nothing && op == Alu::Sub {
            self.asm.alu(Alu::Cmp, wide, a, b);
        } else if insn.rd == SINK && sets != Sets::Nothing && op == Alu::And {
            self.asm.test(wide, a, b);
        } else {
            let to = self.destination(insn.rd);
            if to == a {
                self.asm.alu(op, wide, to, b);
            } else if to != b {
                self.asm.mov(wide, to, a);
                self.asm.alu(op, wide, to, b);
            } else if op.commutes() {
                self.asm.alu(op, wide, to, a);
            } else {
                self.asm.mov(wide, RAX, a);
                self.asm.alu(op, wide, RAX, b);
                self.asm.mov(wide, to, RAX);
            }
            self.written(insn.rd);
        }
        self.set_flags(k, sets);
    }

    /// ADC, ADCS, SBC, SBCS.
    fn carry(&mut self, wide: bool, insn: &Insn, k: usize) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        self.need_flags();
        self.asm.mov(true, RCX, b);
        if insn.x & 1 != 0 {
            self.asm.unary(Unary::Not, true, RCX);
        }
        self.asm.mov(true, RDX, a);
        self.asm.alu(Alu::Adc, wide, RDX, RCX);
        self.asm.mov(true, to, RDX);
        self.written(insn.rd);
        self.host_flags = false;
        if insn.x & 2 != 0 {
            self.flags(k, false);
        }
    }

    /// CSEL, CSINC, CSINV, CSNEG.
    fn select(&mut self, insn: &Insn) {
        let wide = insn.op == Op::Csel64;
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        self.need_flags();
        // Neither of the two changes flags.
        self.asm.mov(true, RCX, b);
        if insn.imm != 0 {
            self.asm.unary(Unary::Not, true, RCX);
        }
        if insn.ra != 0 {
            self.asm.lea(true, RCX, Mem::at(RCX, 1));
        }
        let cc = self.condition(insn.x);
        self.asm.cmov(cc, true, RCX, a);
        self.asm.mov(wide, to, RCX);
        self.written(insn.rd);
    }

    /// CCMP, CCMN.
    fn compare_if(&mut self, insn: &Insn) {
        let wide = matches!(insn.op, Op::Ccmp64 | Op::Ccmn64);
        let subtracts = matches!(insn.op, Op::Ccmp64 | Op::Ccmp32);
        let a = self.source(insn.rn);
        let b = (insn.rm != ZR).then(|| self.source(insn.rm));
        let cc = self.condition(insn.x);
        let fails = self.asm.jcc(cc.inverted());
        let op = if subtracts { Alu::Cmp } else { Alu::Add };
        let a = if subtracts {
            a
        } else {
            self.asm.mov(wide, RDX, a);
            RDX
        };
        match b {
            Some(b) => self.asm.alu(op, wide, a, b),
            None => self.asm.alu_imm(op, wide, a, insn.imm as i32),
        }
        self.save_flags(subtracts);
        let end = self.asm.jmp();
        self.asm.bind_here(fails);
        self.asm.store_imm16(context!(flags), flags_of(insn.ra));
        self.asm.bind_here(end);
        self.host_flags = false;
    }
}
