//! One source register, and reductions. Source: C4.1.96, "Advanced SIMD two-register miscellaneous",
//! "across lanes", "scalar pairwise".

use super::super::insn::Insn;
use super::super::{bit, bits};
use super::op::{FloatOp as F, Shape, VectorOp as V, rounding};
use super::{float, vector};

pub(super) fn miscellaneous(word: u32, scalar: bool) -> Option<Insn> {
    let (opcode, size) = (bits(word, 16, 12), bits(word, 23, 22));
    let is_float = match opcode {
        0b01100..=0b01111 => size >= 2,
        0b10110..=0b11111 => true,
        _ => false,
    };
    if is_float { misc_float(word, scalar, opcode) } else { misc_integer(word, scalar, opcode, size) }
}

fn misc_integer(word: u32, scalar: bool, opcode: u32, size: u32) -> Option<Insn> {
    let (quad, unsigned) = (bit(word, 30), bit(word, 29));
    let both = |signed, other| if unsigned { other } else { signed };
    // The operation, the largest size as a vector, and the smallest and the largest as a scalar.
    let (op, largest, scalars) = match (opcode, unsigned) {
        (0b00000, false) => (V::Rev64, 2, None),
        (0b00000, true) => (V::Rev32, 1, None),
        (0b00001, false) => (V::Rev16, 0, None),
        (0b00010, _) => (both(V::Saddlp, V::Uaddlp), 2, None),
        (0b00011, _) => (both(V::Suqadd, V::Usqadd), 3, Some((0, 3))),
        (0b00100, _) => (both(V::Cls, V::Clz), 2, None),
        (0b00101, false) => (V::Cnt, 0, None),
        (0b00101, true) if size == 1 => (V::Rbit, 1, None),
        (0b00101, true) => (V::Not, 0, None),
        (0b00110, _) => (both(V::Sadalp, V::Uadalp), 2, None),
        (0b00111, _) => (both(V::Sqabs, V::Sqneg), 3, Some((0, 3))),
        (0b01000, _) => (both(V::CmgtZero, V::CmgeZero), 3, Some((3, 3))),
        (0b01001, _) => (both(V::CmeqZero, V::CmleZero), 3, Some((3, 3))),
        (0b01010, false) => (V::CmltZero, 3, Some((3, 3))),
        (0b01011, _) => (both(V::Abs, V::Neg), 3, Some((3, 3))),
        (0b10010, false) => (V::Xtn, 2, None),
        (0b10010, true) => (V::Sqxtun, 2, Some((0, 2))),
        (0b10011, true) => (V::Shll, 2, None),
        (0b10100, _) => (both(V::Sqxtn, V::Uqxtn), 2, Some((0, 2))),
        _ => return None,
    };
    if scalar {
        let (smallest, largest) = scalars?;
        return (smallest..=largest).contains(&size).then(|| vector(word, op, Shape::scalar(size)));
    }
    if size > largest || (size == 3 && !quad) {
        return None;
    }
    let changes_shape = matches!(op, V::Xtn | V::Sqxtun | V::Shll | V::Sqxtn | V::Uqxtn);
    // RBIT is of bytes.
    let size = if op == V::Rbit { 0 } else { size };
    let shape = if changes_shape { Shape::half(size, quad) } else { Shape::vector(size, quad) };
    Some(vector(word, op, shape))
}

/// A rounding to an integer or from one, in the rows of the tables of FRINTx and FCVTxx.
fn direction(o2: bool, o1: bool) -> u8 {
    match (o2, o1) {
        (false, false) => rounding::TIE_EVEN,
        (false, true) => rounding::DOWN,
        (true, false) => rounding::UP,
        (true, true) => rounding::ZERO,
    }
}

fn misc_float(word: u32, scalar: bool, opcode: u32) -> Option<Insn> {
    let (quad, unsigned, o2, sz) = (bit(word, 30), bit(word, 29), bit(word, 23), bits(word, 22, 22));
    let both = |one, other| if unsigned { other } else { one };
    let size = 2 + sz;
    let insn = |op| float(word, op, if scalar { Shape::scalar(size) } else { Shape::vector(size, quad) });
    let integer = |op, ra| Insn { ra, rm: u8::from(unsigned), ..insn(op) };
    let has_double = scalar || sz == 0 || quad;
    // FRINTx, FCVTN, FCVTL, FABS, FNEG, FSQRT, URECPE, URSQRTE have no scalar form here.
    let (insn, has_scalar) = match (opcode, unsigned, o2) {
        (0b01100, _, true) => (insn(both(F::CmgtZero, F::CmgeZero)), true),
        (0b01101, _, true) => (insn(both(F::CmeqZero, F::CmleZero)), true),
        (0b01110, false, true) => (insn(F::CmltZero), true),
        (0b01111, _, true) => (insn(both(F::Abs, F::Neg)), false),
        (0b10110, false, false) => return narrow(word, scalar, F::Cvtn),
        (0b10110, true, false) if sz == 1 => return narrow(word, scalar, F::Cvtxn),
        (0b10111, false, false) => return narrow(word, scalar, F::Cvtl),
        (0b11000, true, false) => (Insn { ra: rounding::TIE_AWAY, ..insn(F::Rint) }, false),
        (0b11000 | 0b11001, false, _) => {
            (Insn { ra: direction(o2, opcode & 1 == 1), ..insn(F::Rint) }, false)
        }
        (0b11001, true, _) => {
            let exact = u64::from(!o2);
            (Insn { ra: rounding::CURRENT, imm: exact, ..insn(F::Rint) }, false)
        }
        (0b11010 | 0b11011, ..) => (integer(F::ToInteger, direction(o2, opcode & 1 == 1)), true),
        (0b11100, _, false) => (integer(F::ToInteger, rounding::TIE_AWAY), true),
        (0b11100, _, true) if sz == 0 && !scalar => {
            let op = if unsigned { V::Ursqrte } else { V::Urecpe };
            return Some(vector(word, op, Shape::vector(2, quad)));
        }
        (0b11101, _, false) => (integer(F::FromInteger, rounding::CURRENT), true),
        (0b11101, _, true) => (insn(both(F::Recpe, F::Rsqrte)), true),
        (0b11111, true, true) => (insn(F::Sqrt), false),
        (0b11111, false, true) if scalar => (insn(F::Recpx), true),
        _ => return None,
    };
    ((has_scalar || !scalar) && has_double).then_some(insn)
}

/// FCVTN, FCVTXN, FCVTL: the size is that of the narrow elements.
fn narrow(word: u32, scalar: bool, op: F) -> Option<Insn> {
    let size = 1 + bits(word, 22, 22);
    match (scalar, op) {
        (true, F::Cvtxn) => Some(float(word, op, Shape::scalar(size))),
        (true, _) => None,
        _ => Some(float(word, op, Shape::half(size, bit(word, 30)))),
    }
}

/// Reductions of a vector; as scalars those of a pair.
pub(super) fn across(word: u32, scalar: bool) -> Option<Insn> {
    let (opcode, unsigned) = (bits(word, 16, 12), bit(word, 29));
    let (size, quad) = (bits(word, 23, 22), bit(word, 30));
    // FP: `size<1>` is part of the operation.
    let float_op = match (unsigned, bit(word, 23), opcode) {
        (true, false, 0b01100) => Some(F::MaxnmAcross),
        (true, true, 0b01100) => Some(F::MinnmAcross),
        (true, false, 0b01101) if scalar => Some(F::AddAcross),
        (true, false, 0b01111) => Some(F::MaxAcross),
        (true, true, 0b01111) => Some(F::MinAcross),
        _ => None,
    };
    if let Some(op) = float_op {
        let element = 2 + (size & 1);
        // A pair as a scalar, four singles as a vector.
        if scalar {
            return Some(float(word, op, Shape { width: element + 1, ..Shape::scalar(element) }));
        }
        return (element == 2 && quad).then(|| float(word, op, Shape::vector(2, true)));
    }
    if scalar {
        let is_addp = opcode == 0b11011 && !unsigned && size == 3;
        return is_addp.then(|| vector(word, V::AddpScalar, Shape::vector(3, true)));
    }
    let both = |signed, other| if unsigned { other } else { signed };
    let op = match opcode {
        0b00011 => both(V::Saddlv, V::Uaddlv),
        0b01010 => both(V::Smaxv, V::Umaxv),
        0b11010 => both(V::Sminv, V::Uminv),
        0b11011 if !unsigned => V::Addv,
        _ => return None,
    };
    let is_reserved = size == 3 || (size == 2 && !quad);
    (!is_reserved).then(|| vector(word, op, Shape::vector(size, quad)))
}
