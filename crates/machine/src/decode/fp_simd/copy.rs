//! Moves of elements, modified immediates, tables and permutations. Source: C4.1.96, "Advanced SIMD
//! copy", "modified immediate", "table lookup", "permute", "extract".

use super::super::insn::{Insn, Op, dest};
use super::super::{bit, bits, reg};
use super::op::{MoveOp, Shape};
use super::three_operands;

fn moves(word: u32, op: MoveOp, shape: Shape) -> Insn {
    three_operands(word, Op::Move(op), shape)
}

/// DUP, INS, SMOV, UMOV.
pub(super) fn decode(word: u32, scalar: bool) -> Option<Insn> {
    let (quad, imm5, imm4) = (bit(word, 30), bits(word, 20, 16), bits(word, 14, 11));
    let size = imm5.trailing_zeros();
    if size > 3 {
        return None;
    }
    let index = imm5 >> (size + 1);
    let vector = Shape::vector(size, quad);
    let insn = |op, shape| Insn { imm: u64::from(index), ..moves(word, op, shape) };
    let general = |op, shape| Insn { rd: dest(reg(word, 0)), ..insn(op, shape) };
    match (scalar, bit(word, 29), imm4) {
        (true, false, 0b0000) => Some(insn(MoveOp::DupElement, Shape::scalar(size))),
        (true, ..) => None,
        (_, false, 0b0000) if size < 3 || quad => Some(insn(MoveOp::DupElement, vector)),
        (_, false, 0b0001) if size < 3 || quad => Some(insn(MoveOp::DupGeneral, vector)),
        (_, false, 0b0011) if quad => Some(insn(MoveOp::InsGeneral, vector)),
        (_, false, 0b0101) if size < 2 || (size == 2 && quad) => {
            // The width is that of the general register.
            Some(general(MoveOp::Smov, Shape { width: 2 + u32::from(quad), ..vector }))
        }
        (_, false, 0b0111) if (size == 3) == quad => Some(general(MoveOp::Umov, vector)),
        (_, true, _) if quad => Some(Insn { ra: (imm4 >> size) as u8, ..insn(MoveOp::InsElement, vector) }),
        _ => None,
    }
}

/// TBL, TBX, EXT, ZIP, UZP, TRN.
pub(super) fn permute(word: u32) -> Option<Insn> {
    let quad = bit(word, 30);
    let bytes = Shape::vector(0, quad);
    if bit(word, 29) {
        let position = bits(word, 14, 11);
        if bits(word, 23, 22) != 0 || (!quad && position >= 8) {
            return None;
        }
        return Some(Insn { imm: u64::from(position), ..moves(word, MoveOp::Ext, bytes) });
    }
    if !bit(word, 11) {
        let op = if bit(word, 12) { MoveOp::Tbx } else { MoveOp::Tbl };
        let insn = Insn { ra: bits(word, 14, 13) as u8 + 1, ..moves(word, op, bytes) };
        return (bits(word, 23, 22) == 0).then_some(insn);
    }
    let op = match bits(word, 14, 12) {
        0b001 => MoveOp::Uzp1,
        0b010 => MoveOp::Trn1,
        0b011 => MoveOp::Zip1,
        0b101 => MoveOp::Uzp2,
        0b110 => MoveOp::Trn2,
        0b111 => MoveOp::Zip2,
        _ => return None,
    };
    let size = bits(word, 23, 22);
    (size < 3 || quad).then(|| moves(word, op, Shape::vector(size, quad)))
}

/// MOVI, MVNI, ORR, BIC, FMOV (vector, immediate). Source: `AdvSIMDExpandImm`.
pub(super) fn immediate(word: u32) -> Option<Insn> {
    let (quad, inverted, cmode) = (bit(word, 30), bit(word, 29), bits(word, 15, 12));
    // o2 = 1: FMOV of half-precision (FEAT_FP16).
    if bit(word, 11) {
        return None;
    }
    let imm8 = u64::from(bits(word, 18, 16) << 5 | bits(word, 9, 5));
    let words = |imm: u64| imm | imm << 32;
    let halves = |imm: u64| words(imm | imm << 16);
    let imm = match cmode >> 1 {
        shift @ 0..=3 => words(imm8 << (8 * shift)),
        shift @ 4..=5 => halves(imm8 << (8 * (shift - 4))),
        6 if cmode & 1 == 0 => words(imm8 << 8 | 0xff),
        6 => words(imm8 << 16 | 0xffff),
        _ => match (cmode & 1, inverted) {
            (0, false) => halves(imm8 | imm8 << 8),
            (0, true) => (0..8).filter(|i| imm8 >> i & 1 == 1).fold(0, |imm, i| imm | 0xff << (8 * i)),
            (_, false) => words(expand(imm8, 2)),
            (_, true) if quad => expand(imm8, 3),
            _ => return None,
        },
    };
    let has_operation = cmode & 1 == 1 && cmode < 12;
    let op = match (has_operation, inverted) {
        (true, false) => MoveOp::OrrImmediate,
        (true, true) => MoveOp::BicImmediate,
        _ => MoveOp::Movi,
    };
    let imm = if op == MoveOp::Movi && inverted && cmode < 14 { !imm } else { imm };
    Some(Insn { imm, ..moves(word, op, Shape::vector(3, quad)) })
}

/// An 8-bit floating-point immediate in single (`size` 2) or double precision. Source: `VFPExpandImm`.
pub(super) fn expand(imm8: u64, size: u32) -> u64 {
    let (sign, high, low) = (imm8 >> 7, imm8 >> 6 & 1, imm8 & 0x3f);
    if size == 2 {
        sign << 31 | (high ^ 1) << 30 | (high * 0x1f) << 25 | low << 19
    } else {
        sign << 63 | (high ^ 1) << 62 | (high * 0xff) << 54 | low << 48
    }
}
