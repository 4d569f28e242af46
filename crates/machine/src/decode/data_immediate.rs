//! Data processing with an immediate. Source: C4.1.86 "Data Processing -- Immediate".

use super::insn::{Insn, Op, dest, or_sp};
use super::{bit, bits, reg, sign_extend};

pub(super) fn decode(word: u32) -> Option<Insn> {
    match bits(word, 25, 23) {
        0b000 | 0b001 => Some(pc_relative(word)),
        0b010 => Some(add_sub(word)),
        0b100 => logical(word),
        0b101 => move_wide(word),
        0b110 => bitfield(word),
        0b111 => extract(word),
        _ => None,
    }
}

fn pc_relative(word: u32) -> Insn {
    let offset = sign_extend(bits(word, 23, 5) << 2 | bits(word, 30, 29), 21);
    let (op, imm) = if bit(word, 31) { (Op::Adrp, offset << 12) } else { (Op::Adr, offset) };
    Insn { rd: dest(reg(word, 0)), imm: imm as u64, ..Insn::new(op) }
}

fn add_sub(word: u32) -> Insn {
    let sf = bit(word, 31);
    let value = u64::from(bits(word, 21, 10)) << if bit(word, 22) { 12 } else { 0 };
    let rd = reg(word, 0);
    let (op, rd, imm) = match (bits(word, 30, 29), sf) {
        (0b00, true) => (Op::AddImm64, or_sp(rd), value),
        (0b00, false) => (Op::AddImm32, or_sp(rd), value),
        (0b10, true) => (Op::AddImm64, or_sp(rd), value.wrapping_neg()),
        (0b10, false) => (Op::AddImm32, or_sp(rd), value.wrapping_neg()),
        (0b01, true) => (Op::AddsImm64, dest(rd), value),
        (0b01, false) => (Op::AddsImm32, dest(rd), value),
        (_, true) => (Op::SubsImm64, dest(rd), value),
        (_, false) => (Op::SubsImm32, dest(rd), value),
    };
    Insn { rd, rn: or_sp(reg(word, 5)), imm, ..Insn::new(op) }
}

/// The mask of a logical immediate, `None` if reserved. Source: DecodeBitMasks.
fn bit_mask(n: u32, imms: u32, immr: u32) -> Option<u64> {
    let length = (n << 6 | (!imms & 0x3f)).checked_ilog2()?;
    if length < 1 {
        return None;
    }
    let levels = (1u32 << length) - 1;
    if imms & levels == levels {
        return None;
    }
    let (ones, rotation, size) = ((imms & levels) + 1, immr & levels, 1u32 << length);
    let element = u64::MAX >> (64 - ones);
    let rotated = if rotation == 0 {
        element
    } else {
        (element >> rotation | element << (size - rotation)) & (u64::MAX >> (64 - size))
    };
    // Repeat the element over 64 bits.
    Some((0..64).step_by(size as usize).fold(0, |mask, at| mask | rotated << at))
}

fn logical(word: u32) -> Option<Insn> {
    let sf = bit(word, 31);
    if !sf && bit(word, 22) {
        return None;
    }
    let mask = bit_mask(bits(word, 22, 22), bits(word, 15, 10), bits(word, 21, 16))?;
    let rd = reg(word, 0);
    let (op, rd) = match (bits(word, 30, 29), sf) {
        (0b00, _) => (Op::AndImm, or_sp(rd)),
        (0b01, true) => (Op::OrrImm64, or_sp(rd)),
        (0b01, false) => (Op::OrrImm32, or_sp(rd)),
        (0b10, true) => (Op::EorImm64, or_sp(rd)),
        (0b10, false) => (Op::EorImm32, or_sp(rd)),
        (_, true) => (Op::AndsImm64, dest(rd)),
        (_, false) => (Op::AndsImm32, dest(rd)),
    };
    let imm = if sf { mask } else { mask & 0xffff_ffff };
    // MOV (bitmask immediate).
    if reg(word, 5) == 31 && matches!(op, Op::OrrImm64 | Op::OrrImm32) {
        return Some(Insn { rd, imm, ..Insn::new(Op::MovImm) });
    }
    Some(Insn { rd, rn: reg(word, 5), imm, ..Insn::new(op) })
}

fn move_wide(word: u32) -> Option<Insn> {
    let sf = bit(word, 31);
    let shift = bits(word, 22, 21) * 16;
    if !sf && shift >= 32 {
        return None;
    }
    let value = u64::from(bits(word, 20, 5)) << shift;
    let width_mask = if sf { u64::MAX } else { 0xffff_ffff };
    let (op, imm) = match bits(word, 30, 29) {
        0b00 => (Op::MovImm, !value & width_mask),
        0b10 => (Op::MovImm, value),
        0b11 if sf => (Op::Movk64, value),
        0b11 => (Op::Movk32, value),
        _ => return None,
    };
    // MOVK reads its destination: `rn` is the same register as a source.
    Some(Insn { rd: dest(reg(word, 0)), rn: reg(word, 0), x: shift as u16, imm, ..Insn::new(op) })
}

fn bitfield(word: u32) -> Option<Insn> {
    let sf = bit(word, 31);
    let (r, s) = (bits(word, 21, 16), bits(word, 15, 10));
    if bit(word, 22) != sf || (!sf && (r >= 32 || s >= 32)) {
        return None;
    }
    let width = if sf { 64 } else { 32 };
    let opc = bits(word, 30, 29);
    let base = Insn { rd: dest(reg(word, 0)), rn: reg(word, 5), ..Insn::new(Op::Nop) };
    if opc == 0 {
        return Some(signed_bitfield(base, sf, width, r, s));
    }
    // wmask AND tmask of DecodeBitMasks, where they land after the rotation.
    let low = u64::MAX >> (63 - s);
    let mask = if s >= r { low >> r } else { low << (width - r) };
    let op = match (opc, sf) {
        (0b10, true) => Op::Ubfm64,
        (0b10, false) => Op::Ubfm32,
        (0b01, true) => Op::Bfm64,
        (0b01, false) => Op::Bfm32,
        _ => return None,
    };
    // BFM keeps the rest of its destination, read through `ra`.
    Some(Insn { op, rm: r as u8, ra: reg(word, 0), imm: mask, ..base })
}

fn signed_bitfield(base: Insn, sf: bool, width: u32, r: u32, s: u32) -> Insn {
    let left = width - 1 - s;
    let (op, right, left_again) = match (s >= r, sf) {
        (true, true) => (Op::Sbfm64, left + r, 0),
        (true, false) => (Op::Sbfm32, left + r, 0),
        (false, true) => (Op::Sbfiz64, left, width - r),
        (false, false) => (Op::Sbfiz32, left, width - r),
    };
    Insn { op, rm: left as u8, ra: right as u8, x: left_again as u16, ..base }
}

fn extract(word: u32) -> Option<Insn> {
    let sf = bit(word, 31);
    let lsb = bits(word, 15, 10);
    if bits(word, 30, 29) != 0 || bit(word, 21) || bit(word, 22) != sf || (!sf && lsb >= 32) {
        return None;
    }
    let op = if sf { Op::Extr64 } else { Op::Extr32 };
    Some(Insn { rd: dest(reg(word, 0)), rn: reg(word, 5), rm: reg(word, 16), x: lsb as u16, ..Insn::new(op) })
}
