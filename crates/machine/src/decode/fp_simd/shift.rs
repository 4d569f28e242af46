//! Shifts by an immediate, and conversions with fraction bits. Source: C4.1.96, "Advanced SIMD shift
//! by immediate" and "scalar shift by immediate".

use super::super::insn::Insn;
use super::super::{bit, bits};
use super::op::{FloatOp, Shape, VectorOp as V, rounding};
use super::{float, vector};

/// What a row of the table is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Shapes stay; as a scalar 64 bits.
    Same,
    /// Shapes stay; as a scalar any size.
    SameAnySize,
    /// To elements of half the size, with no scalar form.
    Narrow,
    /// The same, with a scalar form.
    NarrowScalar,
    /// To elements of twice the size.
    Long,
}

pub(super) fn decode(word: u32, scalar: bool) -> Option<Insn> {
    let (quad, unsigned, opcode) = (bit(word, 30), bit(word, 29), bits(word, 15, 11));
    let immh = bits(word, 22, 19);
    let amount = bits(word, 22, 16);
    let size = immh.checked_ilog2()?;
    let bits_of_element = 8 << size;
    if matches!(opcode, 0b11100 | 0b11111) {
        return conversion(word, scalar, size, u64::from(2 * bits_of_element - amount));
    }
    let both = |signed, other| if unsigned { other } else { signed };
    let (op, kind) = match (opcode, unsigned) {
        (0b00000, _) => (both(V::Sshr, V::Ushr), Kind::Same),
        (0b00010, _) => (both(V::Ssra, V::Usra), Kind::Same),
        (0b00100, _) => (both(V::Srshr, V::Urshr), Kind::Same),
        (0b00110, _) => (both(V::Srsra, V::Ursra), Kind::Same),
        (0b01000, true) => (V::Sri, Kind::Same),
        (0b01010, _) => (both(V::Shl, V::Sli), Kind::Same),
        (0b01100, true) => (V::Sqshlu, Kind::SameAnySize),
        (0b01110, _) => (both(V::SqshlImm, V::UqshlImm), Kind::SameAnySize),
        (0b10000, false) => (V::Shrn, Kind::Narrow),
        (0b10000, true) => (V::Sqshrun, Kind::NarrowScalar),
        (0b10001, false) => (V::Rshrn, Kind::Narrow),
        (0b10001, true) => (V::Sqrshrun, Kind::NarrowScalar),
        (0b10010, _) => (both(V::Sqshrn, V::Uqshrn), Kind::NarrowScalar),
        (0b10011, _) => (both(V::Sqrshrn, V::Uqrshrn), Kind::NarrowScalar),
        (0b10100, _) => (both(V::Sshll, V::Ushll), Kind::Long),
        _ => return None,
    };
    let is_left = matches!(op, V::Shl | V::Sli | V::Sqshlu | V::SqshlImm | V::UqshlImm | V::Sshll | V::Ushll);
    let shift = if is_left { amount - bits_of_element } else { 2 * bits_of_element - amount };
    let shape = match (kind, scalar) {
        (Kind::Same, true) if size == 3 => Shape::scalar(3),
        (Kind::SameAnySize, true) => Shape::scalar(size),
        (Kind::NarrowScalar, true) if size < 3 => Shape::scalar(size),
        (_, true) => return None,
        (Kind::Same | Kind::SameAnySize, _) if size < 3 || quad => Shape::vector(size, quad),
        (Kind::Narrow | Kind::NarrowScalar | Kind::Long, _) if size < 3 => Shape::half(size, quad),
        _ => return None,
    };
    Some(Insn { imm: u64::from(shift), ..vector(word, op, shape) })
}

/// SCVTF, UCVTF, FCVTZS, FCVTZU with fraction bits.
fn conversion(word: u32, scalar: bool, size: u32, fraction: u64) -> Option<Insn> {
    let quad = bit(word, 30);
    // Halves are FEAT_FP16.
    if size < 2 || (size == 3 && !quad && !scalar) {
        return None;
    }
    let (op, ra) = if bits(word, 15, 11) == 0b11100 {
        (FloatOp::FromInteger, rounding::CURRENT)
    } else {
        (FloatOp::ToInteger, rounding::ZERO)
    };
    let shape = if scalar { Shape::scalar(size) } else { Shape::vector(size, quad) };
    Some(Insn { ra, rm: u8::from(bit(word, 29)), imm: fraction, ..float(word, op, shape) })
}
