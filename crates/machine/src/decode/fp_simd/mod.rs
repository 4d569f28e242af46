//! FP and AdvSIMD: which class a word is of. Source: C4.1.96 "Data Processing -- Scalar
//! Floating-Point and Advanced SIMD".

mod copy;
mod crypto;
mod element;
pub(crate) mod memory;
pub(crate) mod op;
mod scalar;
mod shift;
mod three;
mod two;

use super::insn::{Insn, Op};
use super::{bit, bits, reg};
use op::{FloatOp, Shape, VectorOp};

pub(super) fn decode(word: u32) -> Option<Insn> {
    // Bits 28 and 30 tell vector (0, -), scalar AdvSIMD (1, 1) and scalar FP (1, 0) apart.
    match (bit(word, 28), bit(word, 30)) {
        (true, false) if !bit(word, 31) || !bit(word, 24) => scalar::decode(word),
        (true, true) if !bit(word, 31) => simd(word, true),
        (false, _) if !bit(word, 31) => simd(word, false),
        _ => None,
    }
}

/// An AdvSIMD word; `scalar` is bit 28.
fn simd(word: u32, scalar: bool) -> Option<Insn> {
    if bit(word, 24) {
        return match (bit(word, 10), bit(word, 23)) {
            (false, _) => element::decode(word, scalar),
            (true, false) if bits(word, 22, 19) == 0 && !scalar => copy::immediate(word),
            (true, false) if bits(word, 22, 19) != 0 => shift::decode(word, scalar),
            (true, _) => None,
        };
    }
    if bit(word, 21) {
        return match (bits(word, 11, 10), bits(word, 20, 17)) {
            (0b10, 0b0000) => two::miscellaneous(word, scalar),
            (0b10, 0b1000) => two::across(word, scalar),
            (0b10, 0b0100) => crypto::two_registers(word, scalar),
            (0b10, _) => None,
            (0b00, _) => three::different(word, scalar),
            _ => three::same(word, scalar),
        };
    }
    // Bit 21 clear.
    match (bit(word, 10), bit(word, 15)) {
        (true, false) if bits(word, 23, 22) == 0 => copy::decode(word, scalar),
        (false, false) if scalar => crypto::three_registers(word),
        (false, false) => copy::permute(word),
        // Bit 15 set: FEAT_RDM, FEAT_DotProd, FEAT_FCMA. With bit 22 and bits [15:14] = 0: FEAT_FP16.
        _ => None,
    }
}

/// Rd, Rn and Rm where they always are.
fn three_operands(word: u32, op: Op, shape: Shape) -> Insn {
    Insn { rd: reg(word, 0), rn: reg(word, 5), rm: reg(word, 16), x: shape.pack(), ..Insn::new(op) }
}

fn vector(word: u32, op: VectorOp, shape: Shape) -> Insn {
    three_operands(word, Op::Vector(op), shape)
}

fn float(word: u32, op: FloatOp, shape: Shape) -> Insn {
    three_operands(word, Op::Float(op), shape)
}
