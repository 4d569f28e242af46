//! Three registers of the same shape, and of different ones. Source: C4.1.96, "Advanced SIMD three
//! same", "three different", and their scalar forms.

use super::super::insn::Insn;
use super::super::{bit, bits};
use super::op::{FloatOp, Shape, VectorOp as V};
use super::{float, vector};

/// Which sizes an operation has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sizes {
    All,
    /// 8 to 32 bits.
    NotDouble,
    /// 16 and 32 bits.
    Middle,
    /// 8 bits.
    Byte,
    /// 64 bits.
    Double,
}

impl Sizes {
    fn allow(self, size: u32) -> bool {
        match self {
            Sizes::All => true,
            Sizes::NotDouble => size < 3,
            Sizes::Middle => size == 1 || size == 2,
            Sizes::Byte => size == 0,
            Sizes::Double => size == 3,
        }
    }
}

pub(super) fn same(word: u32, scalar: bool) -> Option<Insn> {
    let opcode = bits(word, 15, 11);
    if opcode >= 0b11000 {
        return same_float(word, scalar);
    }
    let size = bits(word, 23, 22);
    if opcode == 0b00011 {
        return (!scalar).then(|| logical(word, size));
    }
    let (op, vector_sizes, scalar_sizes) = same_integer(opcode, bit(word, 29))?;
    if scalar {
        return scalar_sizes?.allow(size).then(|| vector(word, op, Shape::scalar(size)));
    }
    let quad = bit(word, 30);
    let is_allowed = vector_sizes.allow(size) && (size < 3 || quad);
    is_allowed.then(|| vector(word, op, Shape::vector(size, quad)))
}

fn logical(word: u32, size: u32) -> Insn {
    let op = match (bit(word, 29), size) {
        (false, 0) => V::And,
        (false, 1) => V::Bic,
        (false, 2) => V::Orr,
        (false, _) => V::Orn,
        (true, 0) => V::Eor,
        (true, 1) => V::Bsl,
        (true, 2) => V::Bit,
        (true, _) => V::Bif,
    };
    vector(word, op, Shape::vector(0, bit(word, 30)))
}

/// The operation, its sizes as a vector, and as a scalar if it has that form.
fn same_integer(opcode: u32, unsigned: bool) -> Option<(V, Sizes, Option<Sizes>)> {
    use Sizes::{All, Byte, Double, Middle, NotDouble};
    let both = |signed, other| if unsigned { other } else { signed };
    Some(match opcode {
        0b00000 => (both(V::Shadd, V::Uhadd), NotDouble, None),
        0b00001 => (both(V::Sqadd, V::Uqadd), All, Some(All)),
        0b00010 => (both(V::Srhadd, V::Urhadd), NotDouble, None),
        0b00100 => (both(V::Shsub, V::Uhsub), NotDouble, None),
        0b00101 => (both(V::Sqsub, V::Uqsub), All, Some(All)),
        0b00110 => (both(V::Cmgt, V::Cmhi), All, Some(Double)),
        0b00111 => (both(V::Cmge, V::Cmhs), All, Some(Double)),
        0b01000 => (both(V::Sshl, V::Ushl), All, Some(Double)),
        0b01001 => (both(V::Sqshl, V::Uqshl), All, Some(All)),
        0b01010 => (both(V::Srshl, V::Urshl), All, Some(Double)),
        0b01011 => (both(V::Sqrshl, V::Uqrshl), All, Some(All)),
        0b01100 => (both(V::Smax, V::Umax), NotDouble, None),
        0b01101 => (both(V::Smin, V::Umin), NotDouble, None),
        0b01110 => (both(V::Sabd, V::Uabd), NotDouble, None),
        0b01111 => (both(V::Saba, V::Uaba), NotDouble, None),
        0b10000 => (both(V::Add, V::Sub), All, Some(Double)),
        0b10001 => (both(V::Cmtst, V::Cmeq), All, Some(Double)),
        0b10010 => (both(V::Mla, V::Mls), NotDouble, None),
        0b10011 if unsigned => (V::Pmul, Byte, None),
        0b10011 => (V::Mul, NotDouble, None),
        0b10100 => (both(V::Smaxp, V::Umaxp), NotDouble, None),
        0b10101 => (both(V::Sminp, V::Uminp), NotDouble, None),
        0b10110 => (both(V::Sqdmulh, V::Sqrdmulh), Middle, Some(Middle)),
        0b10111 if !unsigned => (V::Addp, All, None),
        _ => return None,
    })
}

/// FP: `size<1>` is part of the operation, `size<0>` the precision.
fn same_float(word: u32, scalar: bool) -> Option<Insn> {
    use FloatOp as F;
    let (op, has_scalar) = match (bit(word, 29), bit(word, 23), bits(word, 15, 11)) {
        (false, false, 0b11000) => (F::Maxnm, false),
        (false, true, 0b11000) => (F::Minnm, false),
        (true, false, 0b11000) => (F::Maxnmp, false),
        (true, true, 0b11000) => (F::Minnmp, false),
        (false, false, 0b11001) => (F::Mla, false),
        (false, true, 0b11001) => (F::Mls, false),
        (false, false, 0b11010) => (F::Add, false),
        (false, true, 0b11010) => (F::Sub, false),
        (true, false, 0b11010) => (F::Addp, false),
        (true, true, 0b11010) => (F::Abd, true),
        (false, false, 0b11011) => (F::Mulx, true),
        (true, false, 0b11011) => (F::Mul, false),
        (false, false, 0b11100) => (F::Cmeq, true),
        (true, false, 0b11100) => (F::Cmge, true),
        (true, true, 0b11100) => (F::Cmgt, true),
        (true, false, 0b11101) => (F::Acge, true),
        (true, true, 0b11101) => (F::Acgt, true),
        (false, false, 0b11110) => (F::Max, false),
        (false, true, 0b11110) => (F::Min, false),
        (true, false, 0b11110) => (F::Maxp, false),
        (true, true, 0b11110) => (F::Minp, false),
        (false, false, 0b11111) => (F::Recps, true),
        (false, true, 0b11111) => (F::Rsqrts, true),
        (true, false, 0b11111) => (F::Div, false),
        _ => return None,
    };
    let (size, quad) = (2 + bits(word, 22, 22), bit(word, 30));
    match (scalar, has_scalar) {
        (true, true) => Some(float(word, op, Shape::scalar(size))),
        (false, _) if size == 2 || quad => Some(float(word, op, Shape::vector(size, quad))),
        _ => None,
    }
}

pub(super) fn different(word: u32, scalar: bool) -> Option<Insn> {
    let (size, unsigned) = (bits(word, 23, 22), bit(word, 29));
    let both = |signed, other| if unsigned { other } else { signed };
    let op = match bits(word, 15, 12) {
        0b0000 => both(V::Saddl, V::Uaddl),
        0b0001 => both(V::Saddw, V::Uaddw),
        0b0010 => both(V::Ssubl, V::Usubl),
        0b0011 => both(V::Ssubw, V::Usubw),
        0b0100 => both(V::Addhn, V::Raddhn),
        0b0101 => both(V::Sabal, V::Uabal),
        0b0110 => both(V::Subhn, V::Rsubhn),
        0b0111 => both(V::Sabdl, V::Uabdl),
        0b1000 => both(V::Smlal, V::Umlal),
        0b1001 if !unsigned => V::Sqdmlal,
        0b1010 => both(V::Smlsl, V::Umlsl),
        0b1011 if !unsigned => V::Sqdmlsl,
        0b1100 => both(V::Smull, V::Umull),
        0b1101 if !unsigned => V::Sqdmull,
        0b1110 if !unsigned => V::Pmull,
        _ => return None,
    };
    let doubling = matches!(op, V::Sqdmlal | V::Sqdmlsl | V::Sqdmull);
    let is_allowed = match op {
        // 64 bits to 128: FEAT_PMULL.
        V::Pmull => size == 0 || size == 3,
        _ if doubling => size == 1 || size == 2,
        _ => size < 3,
    };
    match (scalar, is_allowed) {
        (_, false) => None,
        (true, _) => doubling.then(|| vector(word, op, Shape::scalar(size))),
        (false, _) => Some(vector(word, op, Shape::half(size, bit(word, 30)))),
    }
}
