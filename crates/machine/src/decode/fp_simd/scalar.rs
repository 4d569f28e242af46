//! Scalar floating-point. Source: C4.1.96, the classes with bit 28 set and bit 30 clear.

use super::super::insn::{Insn, Op, condition_mask, dest};
use super::super::{bit, bits, reg};
use super::copy::expand;
use super::op::{FloatOp as F, MoveOp, Shape, rounding};
use super::{float, three_operands};

/// Log2 of the bytes of what `ptype` names; half precision only where FCVT allows it.
fn size(word: u32) -> Option<u32> {
    match bits(word, 23, 22) {
        0 => Some(2),
        1 => Some(3),
        _ => None,
    }
}

pub(super) fn decode(word: u32) -> Option<Insn> {
    if bit(word, 29) {
        return None;
    }
    if bit(word, 24) {
        return three_sources(word);
    }
    if !bit(word, 21) {
        return fixed_point(word);
    }
    let low = bits(word, 15, 10);
    if low == 0 {
        return integer(word);
    }
    // M = 1 is for general registers of 64 bits only.
    if bit(word, 31) {
        return None;
    }
    if low & 0x1f == 0b10000 {
        return one_source(word);
    }
    let size = size(word)?;
    let shape = Shape::scalar(size);
    match low & 0b11 {
        0b01 => {
            let op = if bit(word, 4) { F::Ccmpe } else { F::Ccmp };
            let condition = condition_mask(bits(word, 15, 12));
            Some(Insn { rd: reg(word, 0) & 15, imm: u64::from(condition), ..float(word, op, shape) })
        }
        0b10 => Some(float(word, two_sources(bits(word, 15, 12))?, shape)),
        0b11 => {
            let condition = condition_mask(bits(word, 15, 12));
            Some(Insn { imm: u64::from(condition), ..float(word, F::Csel, shape) })
        }
        _ if low & 0b111 == 0b100 && bits(word, 9, 5) == 0 => {
            let imm = expand(u64::from(bits(word, 20, 13)), size);
            Some(Insn { imm, ..three_operands(word, Op::Move(MoveOp::Movi), shape) })
        }
        _ if low == 0b001000 && bits(word, 2, 0) == 0 => {
            let op = if bit(word, 4) { F::Cmpe } else { F::Cmp };
            Some(Insn { ra: u8::from(bit(word, 3)), ..float(word, op, shape) })
        }
        _ => None,
    }
}

fn two_sources(opcode: u32) -> Option<F> {
    const OPS: [F; 9] = [F::Mul, F::Div, F::Add, F::Sub, F::Max, F::Min, F::Maxnm, F::Minnm, F::Nmul];
    OPS.get(opcode as usize).copied()
}

/// FMADD, FMSUB, FNMADD, FNMSUB.
fn three_sources(word: u32) -> Option<Insn> {
    let op = match (bit(word, 21), bit(word, 15)) {
        (false, false) => F::Madd,
        (false, true) => F::Msub,
        (true, false) => F::Nmadd,
        (true, true) => F::Nmsub,
    };
    Some(Insn { ra: reg(word, 10), ..float(word, op, Shape::scalar(size(word)?)) })
}

fn one_source(word: u32) -> Option<Insn> {
    let opcode = bits(word, 20, 15);
    if matches!(opcode, 4 | 5 | 7) {
        return convert(word, opcode & 3);
    }
    let size = size(word)?;
    let insn = |op| float(word, op, Shape::scalar(size));
    let rint = |ra| Insn { ra, ..insn(F::Rint) };
    Some(match opcode {
        0 => three_operands(word, Op::Move(MoveOp::DupElement), Shape::scalar(size)),
        1 => insn(F::Abs),
        2 => insn(F::Neg),
        3 => insn(F::Sqrt),
        8 => rint(rounding::TIE_EVEN),
        9 => rint(rounding::UP),
        10 => rint(rounding::DOWN),
        11 => rint(rounding::ZERO),
        12 => rint(rounding::TIE_AWAY),
        14 => Insn { imm: 1, ..rint(rounding::CURRENT) },
        15 => rint(rounding::CURRENT),
        _ => return None,
    })
}

/// FCVT; 0, 1, 3 name single, double and half, as `ptype` does.
fn convert(word: u32, to: u32) -> Option<Insn> {
    let size = |precision| match precision {
        0 => Some(2),
        1 => Some(3),
        3 => Some(1),
        _ => None,
    };
    let (from, to) = (size(bits(word, 23, 22))?, size(to)?);
    let insn = Insn { imm: u64::from(to), ..float(word, F::Convert, Shape::scalar(from)) };
    (from != to).then_some(insn)
}

/// Conversions with general registers, and FMOV.
fn integer(word: u32) -> Option<Insn> {
    let (sf, mode, opcode) = (bit(word, 31), bits(word, 20, 19), bits(word, 18, 16));
    if opcode >= 6 {
        return general_move(word, sf, mode, opcode == 6);
    }
    let unsigned = opcode & 1 == 1;
    let direction = match mode {
        0 => rounding::TIE_EVEN,
        1 => rounding::UP,
        2 => rounding::DOWN,
        _ => rounding::ZERO,
    };
    let (op, ra) = match (opcode >> 1, mode) {
        (0, _) => (F::ToGeneral, direction),
        (1, 0) => (F::FromGeneral, rounding::CURRENT),
        (2, 0) => (F::ToGeneral, rounding::TIE_AWAY),
        _ => return None,
    };
    general(word, op, ra, unsigned, 0)
}

/// A conversion with a general register: the shape's width is that register's, 4 or 8 bytes.
fn general(word: u32, op: F, ra: u8, unsigned: bool, fraction: u32) -> Option<Insn> {
    let shape = Shape { width: 2 + bits(word, 31, 31), ..Shape::scalar(size(word)?) };
    let rd = if op == F::ToGeneral { dest(reg(word, 0)) } else { reg(word, 0) };
    Some(Insn { rd, ra, rm: u8::from(unsigned), imm: u64::from(fraction), ..float(word, op, shape) })
}

fn fixed_point(word: u32) -> Option<Insn> {
    let scale = bits(word, 15, 10);
    if !bit(word, 31) && scale < 32 {
        return None;
    }
    let unsigned = bit(word, 16);
    let (op, ra) = match bits(word, 20, 17) {
        0b0001 => (F::FromGeneral, rounding::CURRENT),
        0b1100 => (F::ToGeneral, rounding::ZERO),
        _ => return None,
    };
    general(word, op, ra, unsigned, 64 - scale)
}

/// FMOV between general and FP registers.
fn general_move(word: u32, sf: bool, mode: u32, to_general: bool) -> Option<Insn> {
    let (size, index) = match (sf, bits(word, 23, 22), mode) {
        (false, 0, 0) => (2, 0),
        (true, 1, 0) => (3, 0),
        (true, 2, 1) => (3, 1),
        _ => return None,
    };
    let shape = Shape::scalar(size);
    let insn = |op| Insn { imm: index, ..three_operands(word, Op::Move(op), shape) };
    Some(match (to_general, index) {
        (true, _) => Insn { rd: dest(reg(word, 0)), ..insn(MoveOp::Umov) },
        (false, 0) => insn(MoveOp::DupGeneral),
        (false, _) => insn(MoveOp::InsGeneral),
    })
}
