//! Bit fields, shifts, counts, products and quotients.

use super::Translator;
use super::asm::{Alu, Cc, Extend, RAX, RCX, RDX, Shift, Unary};
use crate::decode::insn::ZR;
use crate::decode::{Insn, Op};

impl Translator<'_> {
    /// True if it is one that is translated.
    pub(super) fn bits(&mut self, insn: &Insn) -> bool {
        match insn.op {
            Op::Ubfm64 => self.field64(insn),
            Op::Ubfm32 => self.field32(insn),
            Op::Bfm64 => self.insert(true, insn),
            Op::Bfm32 => self.insert(false, insn),
            Op::Sbfm64 | Op::Sbfiz64 => self.signed_field(true, insn),
            Op::Sbfm32 | Op::Sbfiz32 => self.signed_field(false, insn),
            Op::Extr64 => self.extract(true, insn),
            Op::Extr32 => self.extract(false, insn),
            Op::Rev64 => self.reverse_bytes(true, insn),
            Op::Rev32 => self.reverse_bytes(false, insn),
            Op::Clz64 => self.leading_zeros(true, insn),
            Op::Clz32 => self.leading_zeros(false, insn),
            Op::Lslv64 => self.shift_by(Shift::Shl, true, insn),
            Op::Lslv32 => self.shift_by(Shift::Shl, false, insn),
            Op::Lsrv64 => self.shift_by(Shift::Shr, true, insn),
            Op::Lsrv32 => self.shift_by(Shift::Shr, false, insn),
            Op::Asrv64 => self.shift_by(Shift::Sar, true, insn),
            Op::Asrv32 => self.shift_by(Shift::Sar, false, insn),
            Op::Rorv64 => self.shift_by(Shift::Ror, true, insn),
            Op::Rorv32 => self.shift_by(Shift::Ror, false, insn),
            _ => return false,
        }
        true
    }

    /// UBFM: rotate right by `rm`, and mask.
    fn field64(&mut self, insn: &Insn) {
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        let (rotation, mask) = (insn.rm & 63, insn.imm);
        self.asm.mov(true, to, from);
        if rotation != 0 && mask == u64::MAX << (64 - rotation) {
            self.asm.shift(Shift::Shl, true, to, 64 - rotation);
        } else if mask != u64::MAX && mask & (mask.wrapping_add(1)) == 0 {
            // Nothing that the rotation brings to the top is kept.
            self.asm.shift(Shift::Shr, true, to, rotation);
            if mask != u64::MAX >> rotation {
                self.mask(to, mask);
            }
        } else {
            self.asm.shift(Shift::Ror, true, to, rotation);
            if mask != u64::MAX {
                self.mask(to, mask);
            }
        }
        self.written(insn.rd);
    }

    fn mask(&mut self, reg: u8, mask: u64) {
        if mask == u64::from(u32::MAX) {
            self.asm.mov(false, reg, reg);
        } else {
            self.with_immediate(Alu::And, mask > u64::from(u32::MAX), reg, mask);
        }
    }

    fn field32(&mut self, insn: &Insn) {
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        let (rotation, mask) = (insn.rm & 31, insn.imm as u32);
        self.asm.mov(false, to, from);
        if rotation != 0 && mask == u32::MAX << (32 - rotation) {
            self.asm.shift(Shift::Shl, false, to, 32 - rotation);
        } else if rotation != 0 && mask == u32::MAX >> rotation {
            self.asm.shift(Shift::Shr, false, to, rotation);
        } else {
            self.asm.shift(Shift::Ror, false, to, rotation);
            if mask != u32::MAX {
                self.asm.alu_imm(Alu::And, false, to, mask as i32);
            }
        }
        self.written(insn.rd);
    }

    /// BFM.
    fn insert(&mut self, wide: bool, insn: &Insn) {
        let (from, old) = (self.source(insn.rn), self.source(insn.ra));
        let to = self.destination(insn.rd);
        self.asm.mov(wide, RCX, from);
        self.asm.shift(Shift::Ror, wide, RCX, insn.rm);
        self.asm.mov_imm(RAX, insn.imm);
        self.asm.alu(Alu::And, true, RCX, RAX);
        self.asm.unary(Unary::Not, true, RAX);
        self.asm.alu(Alu::And, true, RAX, old);
        self.asm.alu(Alu::Or, true, RAX, RCX);
        self.asm.mov(wide, to, RAX);
        self.written(insn.rd);
    }

    /// SBFM: left by `rm`, arithmetically right by `ra`, and for SBFIZ left again by `x`.
    fn signed_field(&mut self, wide: bool, insn: &Insn) {
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        if insn.op == Op::Sbfm64 && insn.rm == 32 && insn.ra == 32 {
            self.asm.extend(Extend::S32, to, from);
        } else {
            self.asm.mov(wide, to, from);
            self.asm.shift(Shift::Shl, wide, to, insn.rm);
            self.asm.shift(Shift::Sar, wide, to, insn.ra);
            if matches!(insn.op, Op::Sbfiz64 | Op::Sbfiz32) {
                self.asm.shift(Shift::Shl, wide, to, insn.x as u8);
            }
        }
        self.written(insn.rd);
    }

    fn extract(&mut self, wide: bool, insn: &Insn) {
        let (high, low) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        if insn.rn == insn.rm {
            self.asm.mov(wide, to, low);
            self.asm.shift(Shift::Ror, wide, to, insn.x as u8);
        } else {
            self.asm.mov(wide, RAX, low);
            if insn.x != 0 {
                self.asm.shift_double(wide, RAX, high, insn.x as u8);
            }
            self.asm.mov(wide, to, RAX);
        }
        self.written(insn.rd);
    }

    fn reverse_bytes(&mut self, wide: bool, insn: &Insn) {
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        self.asm.mov(wide, to, from);
        self.asm.swap_bytes(wide, to);
        self.written(insn.rd);
    }

    fn leading_zeros(&mut self, wide: bool, insn: &Insn) {
        let from = self.source(insn.rn);
        let to = self.destination(insn.rd);
        self.asm.leading_zeros(wide, to, from);
        self.written(insn.rd);
    }

    /// The host takes the count modulo the width, too.
    fn shift_by(&mut self, shift: Shift, wide: bool, insn: &Insn) {
        let (value, count) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        self.asm.mov(false, RCX, count);
        self.asm.mov(wide, RAX, value);
        self.asm.shift_cl(shift, wide, RAX);
        self.asm.mov(wide, to, RAX);
        self.written(insn.rd);
    }

    /// True if it is one that is translated.
    pub(super) fn multiply_divide(&mut self, insn: &Insn) -> bool {
        match insn.op {
            Op::Madd64 => self.multiply(true, false, insn),
            Op::Madd32 => self.multiply(false, false, insn),
            Op::Msub64 => self.multiply(true, true, insn),
            Op::Msub32 => self.multiply(false, true, insn),
            Op::Umaddl => self.multiply_long(Extend::U32, false, insn),
            Op::Smaddl => self.multiply_long(Extend::S32, false, insn),
            Op::Umsubl => self.multiply_long(Extend::U32, true, insn),
            Op::Smsubl => self.multiply_long(Extend::S32, true, insn),
            Op::Umulh => self.multiply_high(Unary::Mul, insn),
            Op::Smulh => self.multiply_high(Unary::Imul, insn),
            Op::Udiv64 => self.divide(true, insn),
            Op::Udiv32 => self.divide(false, insn),
            Op::Sdiv64 => self.divide_signed(true, insn),
            Op::Sdiv32 => self.divide_signed(false, insn),
            _ => return false,
        }
        true
    }

    fn multiply(&mut self, wide: bool, subtracts: bool, insn: &Insn) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let addend = (insn.ra != ZR).then(|| self.source(insn.ra));
        let to = self.destination(insn.rd);
        self.asm.mov(wide, RAX, a);
        self.asm.multiply(wide, RAX, b);
        self.add_to_product(wide, subtracts, addend);
        self.asm.mov(wide, to, RAX);
        self.written(insn.rd);
    }

    fn add_to_product(&mut self, wide: bool, subtracts: bool, addend: Option<u8>) {
        if subtracts {
            self.asm.unary(Unary::Neg, wide, RAX);
        }
        if let Some(addend) = addend {
            self.asm.alu(Alu::Add, wide, RAX, addend);
        }
    }

    fn multiply_long(&mut self, extend: Extend, subtracts: bool, insn: &Insn) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let addend = (insn.ra != ZR).then(|| self.source(insn.ra));
        let to = self.destination(insn.rd);
        self.asm.extend(extend, RAX, a);
        self.asm.extend(extend, RCX, b);
        self.asm.multiply(true, RAX, RCX);
        self.add_to_product(true, subtracts, addend);
        self.asm.mov(true, to, RAX);
        self.written(insn.rd);
    }

    fn multiply_high(&mut self, op: Unary, insn: &Insn) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        self.asm.mov(true, RAX, a);
        self.asm.unary(op, true, b);
        self.asm.mov(true, to, RDX);
        self.written(insn.rd);
    }

    /// By zero it is zero.
    fn divide(&mut self, wide: bool, insn: &Insn) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        self.asm.alu(Alu::Xor, false, RAX, RAX);
        self.asm.test(wide, b, b);
        let by_zero = self.asm.jcc(Cc::ZERO);
        self.asm.mov(wide, RAX, a);
        self.asm.alu(Alu::Xor, false, RDX, RDX);
        self.asm.unary(Unary::Div, wide, b);
        self.asm.bind_here(by_zero);
        self.asm.mov(wide, to, RAX);
        self.written(insn.rd);
    }

    /// By zero it is zero; by -1 it is the negation, which does not trap as the host's division does.
    fn divide_signed(&mut self, wide: bool, insn: &Insn) {
        let (a, b) = (self.source(insn.rn), self.source(insn.rm));
        let to = self.destination(insn.rd);
        self.asm.alu(Alu::Xor, false, RAX, RAX);
        self.asm.test(wide, b, b);
        let by_zero = self.asm.jcc(Cc::ZERO);
        self.asm.mov(wide, RAX, a);
        self.asm.alu_imm(Alu::Cmp, wide, b, -1);
        let by_minus_one = self.asm.jcc(Cc::ZERO);
        self.asm.sign_to_rdx(wide);
        self.asm.unary(Unary::Idiv, wide, b);
        let divided = self.asm.jmp();
        self.asm.bind_here(by_minus_one);
        self.asm.unary(Unary::Neg, wide, RAX);
        self.asm.bind_here(divided);
        self.asm.bind_here(by_zero);
        self.asm.mov(wide, to, RAX);
        self.written(insn.rd);
    }
}
