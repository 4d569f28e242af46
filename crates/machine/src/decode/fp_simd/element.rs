//! Operations with one element of Rm. Source: C4.1.96, "Advanced SIMD vector x indexed element" and
//! "scalar x indexed element".

use super::super::insn::Insn;
use super::super::{bit, bits};
use super::op::{FloatOp as F, Shape, VectorOp as V};
use super::{float, vector};

pub(super) fn decode(word: u32, scalar: bool) -> Option<Insn> {
    let (size, quad, unsigned) = (bits(word, 23, 22), bit(word, 30), bit(word, 29));
    let (h, l, m) = (bits(word, 11, 11), bits(word, 21, 21), bits(word, 20, 20));
    let low_register = bits(word, 19, 16) as u8;
    let register = low_register | (m as u8) << 4;

    let float_op = match (unsigned, bits(word, 15, 12)) {
        (false, 0b0001) => Some(F::Mla),
        (false, 0b0101) => Some(F::Mls),
        (false, 0b1001) => Some(F::Mul),
        (true, 0b1001) => Some(F::Mulx),
        _ => None,
    };
    if let Some(op) = float_op {
        // Size 00 is FEAT_FP16; a double has no L.
        let index = match (size, l) {
            (2, _) => h << 1 | l,
            (3, 0) if scalar || quad => h,
            _ => return None,
        };
        let shape = if scalar { Shape::scalar(size) } else { Shape::vector(size, quad) };
        let shape = Shape { by_element: true, ..shape };
        return Some(Insn { rm: register, imm: u64::from(index), ..float(word, op, shape) });
    }

    let (op, has_scalar) = match (unsigned, bits(word, 15, 12)) {
        (true, 0b0000) => (V::Mla, false),
        (true, 0b0100) => (V::Mls, false),
        (false, 0b1000) => (V::Mul, false),
        (false, 0b0010) => (V::Smlal, false),
        (true, 0b0010) => (V::Umlal, false),
        (false, 0b0110) => (V::Smlsl, false),
        (true, 0b0110) => (V::Umlsl, false),
        (false, 0b1010) => (V::Smull, false),
        (true, 0b1010) => (V::Umull, false),
        (false, 0b0011) => (V::Sqdmlal, true),
        (false, 0b0111) => (V::Sqdmlsl, true),
        (false, 0b1011) => (V::Sqdmull, true),
        (false, 0b1100) => (V::Sqdmulh, true),
        (false, 0b1101) => (V::Sqrdmulh, true),
        _ => return None,
    };
    let (index, register) = match size {
        1 => (h << 2 | l << 1 | m, low_register),
        2 => (h << 1 | l, register),
        _ => return None,
    };
    let is_same_shape = matches!(op, V::Mla | V::Mls | V::Mul | V::Sqdmulh | V::Sqrdmulh);
    let shape = match (scalar, is_same_shape) {
        (true, _) if !has_scalar => return None,
        (true, _) => Shape::scalar(size),
        (false, true) => Shape::vector(size, quad),
        (false, false) => Shape::half(size, quad),
    };
    let shape = Shape { by_element: true, ..shape };
    Some(Insn { rm: register, imm: u64::from(index), ..vector(word, op, shape) })
}
