//! FP and AdvSIMD that the host does to the bit: bitwise and integer operations, moves, and scalar arithmetic by
//! the interpreter's own rule ([`crate::float`], `fast`).
//!
//! V registers stay in the CPU; XMM0 and XMM1 hold what an instruction needs.

use std::mem::offset_of;

use super::asm::{Alu, Cc, Extend, Mem, RAX, RBX, RCX, RDX};
use super::memory::{MOVUPS_LOAD, MOVUPS_STORE, vector_at};
use super::{Context, Jump, Translator, context, flags_of};
use crate::cpu::Cpu;
use crate::decode::fp_simd::op::{FloatOp, MoveOp, Shape, VectorOp};
use crate::decode::{Insn, Op};
use crate::float::{Env, Rounding, flag};

/// The mandatory prefix of integer operations.
const INTEGER: &[u8] = &[0x66];

/// The opcode of what the host does with two vectors, behind `INTEGER`.
fn integer_opcode(op: VectorOp, size: u32) -> Option<u8> {
    let by_size = |opcodes: [u8; 4]| opcodes.get(size as usize).copied().filter(|opcode| *opcode != 0);
    match op {
        VectorOp::And => Some(0xdb),
        // The operands are the other way around.
        VectorOp::Bic => Some(0xdf),
        VectorOp::Orr => Some(0xeb),
        VectorOp::Eor => Some(0xef),
        VectorOp::Add => by_size([0xfc, 0xfd, 0xfe, 0xd4]),
        VectorOp::Sub => by_size([0xf8, 0xf9, 0xfa, 0xfb]),
        VectorOp::Cmeq => by_size([0x74, 0x75, 0x76, 0]),
        VectorOp::Umax => by_size([0xde, 0, 0, 0]),
        VectorOp::Umin => by_size([0xda, 0, 0, 0]),
        _ => None,
    }
}

/// The opcode of scalar arithmetic, behind a prefix that says of which precision.
fn float_opcode(op: FloatOp) -> Option<u8> {
    Some(match op {
        FloatOp::Add => 0x58,
        FloatOp::Mul => 0x59,
        FloatOp::Sub => 0x5c,
        FloatOp::Div => 0x5e,
        FloatOp::Sqrt => 0x51,
        _ => return None,
    })
}

fn is_scalar_number(shape: Shape) -> bool {
    shape.width == shape.size && matches!(shape.size, 2 | 3) && !shape.by_element
}

/// An element of a V register.
fn element_at(v: u8, size: u32, index: u32) -> Mem {
    vector_at(v).plus(((index << size) & 15) as i32)
}

pub(super) fn zero_extend(size: u32) -> Extend {
    [Extend::U8, Extend::U16, Extend::U32, Extend::U64][size as usize & 3]
}

impl Translator<'_> {
    /// True if it is one that is translated.
    pub(super) fn vector(&mut self, insn: &Insn, k: usize) -> bool {
        match insn.op {
            Op::Vector(op) => self.integers(insn, op, k),
            Op::Move(op) => self.move_elements(insn, op, k),
            Op::Float(op) => self.float(insn, op, k),
            _ => false,
        }
    }

    pub(super) fn if_fp_traps(&mut self) -> Jump {
        self.asm.cmp_byte(Mem::at(RBX, offset_of!(Cpu, fp_enabled) as i32), 0);
        self.asm.jcc(Cc::ZERO)
    }

    fn integers(&mut self, insn: &Insn, op: VectorOp, k: usize) -> bool {
        let shape = insn.shape();
        let Some(opcode) = integer_opcode(op, shape.size) else { return false };
        if shape.by_element || shape.upper || !matches!(shape.width, 3 | 4) {
            return false;
        }
        let traps = self.if_fp_traps();
        self.unless(&[traps], k);
        let (first, second) = if op == VectorOp::Bic { (insn.rm, insn.rn) } else { (insn.rn, insn.rm) };
        self.asm.xmm_mem(&[], MOVUPS_LOAD, 0, vector_at(first));
        self.asm.xmm_mem(&[], MOVUPS_LOAD, 1, vector_at(second));
        self.asm.xmm(INTEGER, false, &[0x0f, opcode], 0, 1);
        if shape.width == 3 {
            // MOVQ clears the upper half.
            self.asm.xmm(&[0xf3], false, &[0x0f, 0x7e], 0, 0);
        }
        self.asm.xmm_mem(&[], MOVUPS_STORE, 0, vector_at(insn.rd));
        true
    }

    fn move_elements(&mut self, insn: &Insn, op: MoveOp, k: usize) -> bool {
        let (shape, index) = (insn.shape(), insn.imm as u32);
        let is_one = shape.count() == 1;
        let is_translated = match op {
            MoveOp::Movi | MoveOp::DupGeneral | MoveOp::InsGeneral | MoveOp::InsElement | MoveOp::Umov => {
                true
            }
            MoveOp::DupElement => is_one,
            _ => false,
        };
        if !is_translated {
            return false;
        }
        // Registers first, so that the slow path and the fast one agree on where they are.
        let from = matches!(op, MoveOp::DupGeneral | MoveOp::InsGeneral).then(|| self.source(insn.rn));
        let to = (op == MoveOp::Umov).then(|| self.destination(insn.rd));
        let traps = self.if_fp_traps();
        self.unless(&[traps], k);
        let extend = zero_extend(shape.size);
        match (op, from, to) {
            (MoveOp::Umov, _, Some(to)) => {
                self.asm.load(extend, to, element_at(insn.rn, shape.size, index));
                self.written(insn.rd);
            }
            (MoveOp::InsGeneral, Some(from), _) => {
                self.asm.store(1 << shape.size, from, element_at(insn.rd, shape.size, index));
            }
            (MoveOp::DupGeneral, Some(from), _) => {
                self.asm.extend(extend, RAX, from);
                if !is_one && shape.size < 3 {
                    let ones = u64::MAX / (u64::MAX >> (64 - shape.bits()));
                    self.asm.mov_imm(RCX, ones);
                    self.asm.multiply(true, RAX, RCX);
                }
                self.set_vector(insn.rd, shape.width == 4);
            }
            (MoveOp::InsElement, ..) => {
                self.asm.load(extend, RAX, element_at(insn.rn, shape.size, insn.ra.into()));
                self.asm.store(1 << shape.size, RAX, element_at(insn.rd, shape.size, index));
            }
            (MoveOp::Movi, ..) => {
                self.asm.mov_imm(RAX, insn.imm & shape.mask() as u64);
                self.set_vector(insn.rd, shape.width == 4);
            }
            _ => {
                self.asm.load(extend, RAX, element_at(insn.rn, shape.size, index));
                self.set_vector(insn.rd, false);
            }
        }
        true
    }

    /// The lower half of a V register is RAX; the upper is the same, or zero.
    fn set_vector(&mut self, v: u8, twice: bool) {
        let to = vector_at(v);
        self.asm.store(8, RAX, to);
        if !twice {
            self.asm.alu(Alu::Xor, false, RAX, RAX);
        }
        self.asm.store(8, RAX, to.plus(8));
    }

    fn float(&mut self, insn: &Insn, op: FloatOp, k: usize) -> bool {
        let shape = insn.shape();
        if !is_scalar_number(shape) {
            return false;
        }
        match op {
            FloatOp::Abs | FloatOp::Neg => self.sign(insn, op, k),
            FloatOp::Cmp | FloatOp::Cmpe => self.compare(insn, k),
            _ => match float_opcode(op) {
                Some(opcode) => self.arithmetic_of_numbers(insn, op, opcode, k),
                None => return false,
            },
        }
        true
    }

    fn sign(&mut self, insn: &Insn, op: FloatOp, k: usize) {
        let shape = insn.shape();
        let traps = self.if_fp_traps();
        self.unless(&[traps], k);
        let sign = 1 << (shape.bits() - 1);
        self.asm.load(zero_extend(shape.size), RAX, vector_at(insn.rn));
        if op == FloatOp::Neg {
            self.asm.mov_imm(RCX, sign);
            self.asm.alu(Alu::Xor, true, RAX, RCX);
        } else {
            self.asm.mov_imm(RCX, sign - 1);
            self.asm.alu(Alu::And, true, RAX, RCX);
        }
        self.set_vector(insn.rd, false);
    }

    /// FCMP, FCMPE. Whatever is not ordered may raise a flag.
    fn compare(&mut self, insn: &Insn, k: usize) {
        const LESS: u8 = 0b1000;
        const EQUAL: u8 = 0b0110;
        const GREATER: u8 = 0b0010;
        let (_, prefix, load) = precision(insn.shape());
        let traps = self.if_fp_traps();
        let flushes = self.if_flushing();
        self.asm.xmm_mem(load, MOVUPS_LOAD, 0, vector_at(insn.rn));
        if insn.ra == 1 {
            self.asm.zero_xmm(1);
        } else {
            self.asm.xmm_mem(load, MOVUPS_LOAD, 1, vector_at(insn.rm));
        }
        // UCOMISS, UCOMISD: PF is "unordered".
        self.asm.xmm(prefix, false, &[0x0f, 0x2e], 0, 1);
        let unordered = self.asm.jcc(Cc::PARITY);
        self.unless(&[traps, flushes, unordered], k);
        self.asm.mov_imm(RAX, flags_of(GREATER).into());
        self.asm.mov_imm(RCX, flags_of(EQUAL).into());
        self.asm.cmov(Cc::ZERO, false, RAX, RCX);
        self.asm.mov_imm(RCX, flags_of(LESS).into());
        self.asm.cmov(Cc::BELOW, false, RAX, RCX);
        self.asm.store(2, RAX, context!(flags));
    }

    /// Where FPCR asks for rounding to nearest and no flushing, and inexact is set, a result that is normal and not the
    /// smallest is the same on the host.
    fn arithmetic_of_numbers(&mut self, insn: &Insn, op: FloatOp, opcode: u8, k: usize) {
        let (is_double, _, scalar) = precision(insn.shape());
        let traps = self.if_fp_traps();
        let flushes = self.if_flushing();
        self.asm.cmp_byte(environment(offset_of!(Env, rounding)), Rounding::TieEven as u8);
        let rounds_otherwise = self.asm.jcc(Cc::NOT_ZERO);
        self.asm.test_byte(environment(offset_of!(Env, fpsr)), flag::IXC as u8);
        let is_exact_so_far = self.asm.jcc(Cc::ZERO);
        if op != FloatOp::Sqrt {
            self.asm.xmm_mem(scalar, MOVUPS_LOAD, 0, vector_at(insn.rn));
        }
        let operand = if op == FloatOp::Sqrt { insn.rn } else { insn.rm };
        self.asm.xmm_mem(scalar, &[0x0f, opcode], 0, vector_at(operand));
        // MOVD, MOVQ.
        self.asm.xmm(INTEGER, is_double, &[0x0f, 0x7e], 0, RAX);
        let (least, infinity) = if is_double {
            (f64::MIN_POSITIVE.to_bits(), f64::INFINITY.to_bits())
        } else {
            (f32::MIN_POSITIVE.to_bits().into(), f32::INFINITY.to_bits().into())
        };
        // Without the sign, twice the bits.
        self.asm.lea(is_double, RCX, Mem::indexed(RAX, RAX, 0, 0));
        self.asm.mov_imm(RDX, 2 * least + 1);
        self.asm.alu(Alu::Sub, is_double, RCX, RDX);
        self.asm.mov_imm(RDX, 2 * (infinity - least) - 1);
        self.asm.alu(Alu::Cmp, is_double, RCX, RDX);
        let is_special = self.asm.jcc(Cc::AT_LEAST);
        self.unless(&[traps, flushes, rounds_otherwise, is_exact_so_far, is_special], k);
        self.set_vector(insn.rd, false);
    }

    fn if_flushing(&mut self) -> Jump {
        self.asm.cmp_byte(environment(offset_of!(Env, flush)), 0);
        self.asm.jcc(Cc::NOT_ZERO)
    }
}

/// True if numbers are doubles; the prefix of operations on them that are packed, and of those on one.
fn precision(shape: Shape) -> (bool, &'static [u8], &'static [u8]) {
    if shape.size == 3 { (true, &[0x66], &[0xf2]) } else { (false, &[], &[0xf3]) }
}

/// A field of FPCR and FPSR.
fn environment(field: usize) -> Mem {
    Mem::at(RBX, (offset_of!(Cpu, fp) + field) as i32)
}
