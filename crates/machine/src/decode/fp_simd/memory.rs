//! Loads and stores of the FP and AdvSIMD registers. Source: C4.1.94 "Loads and Stores".

use super::super::insn::{Insn, Op, ZR, or_sp};
use super::super::load_store::offsets;
use super::super::{bit, bits, reg, sign_extend};
use super::op::{Structures, VectorAccess};

/// How `ra` of structures tells what becomes of the base.
pub(crate) mod writeback {
    /// Nothing.
    pub(crate) const NONE: u8 = 0;
    /// The low half of `imm` is added.
    pub(crate) const IMMEDIATE: u8 = 1;
    /// Rm is added.
    pub(crate) const REGISTER: u8 = 2;
}

/// A word with V = 1 of the loads and stores.
pub(in super::super) fn decode(word: u32) -> Option<Insn> {
    match (bits(word, 29, 28), bits(word, 25, 24)) {
        (0b00, _) if !bit(word, 31) => structures(word),
        (0b01, 0b00) => literal(word),
        (0b10, _) => pair(word),
        (0b11, 0b01 | 0b11) => {
            let size = size(word)?;
            let offset = u64::from(bits(word, 21, 10)) << size;
            Some(single(word, size, offsets(offset, 0)))
        }
        (0b11, 0b00) => small_offset(word),
        _ => None,
    }
}

fn access(word: u32, op: VectorAccess) -> Insn {
    Insn { rd: reg(word, 0), rn: or_sp(reg(word, 5)), ..Insn::new(Op::VectorMemory(op)) }
}

/// Log2 of the bytes, from size and `opc<1>`.
fn size(word: u32) -> Option<u32> {
    match (bits(word, 31, 30), bit(word, 23)) {
        (size, false) => Some(size),
        (0, true) => Some(4),
        _ => None,
    }
}

fn single(word: u32, size: u32, imm: u64) -> Insn {
    let op = if bit(word, 22) { VectorAccess::Load } else { VectorAccess::Store };
    Insn { x: size as u16, imm, ..access(word, op) }
}

fn small_offset(word: u32) -> Option<Insn> {
    let size = size(word)?;
    let offset = sign_extend(bits(word, 20, 12), 9) as u64;
    let imm = match (bit(word, 21), bits(word, 11, 10)) {
        (false, 0b00) => offsets(offset, 0),
        (false, 0b01) => offsets(0, offset),
        (false, 0b11) => offsets(offset, offset),
        (true, 0b10) => return register_offset(word, size),
        _ => return None,
    };
    Some(single(word, size, imm))
}

fn register_offset(word: u32, size: u32) -> Option<Insn> {
    let option = bits(word, 15, 13);
    // option<1> = 0: an extension from less than a word.
    if option & 2 == 0 {
        return None;
    }
    let op = if bit(word, 22) { VectorAccess::LoadIndexed } else { VectorAccess::StoreIndexed };
    let shift = if bit(word, 12) { size } else { 0 };
    Some(Insn {
        rm: reg(word, 16),
        imm: if option & 1 == 1 { u64::MAX } else { 0xffff_ffff },
        ra: u8::from(option == 6),
        x: (size | shift << 8) as u16,
        ..access(word, op)
    })
}

fn literal(word: u32) -> Option<Insn> {
    let opc = bits(word, 31, 30);
    let offset = sign_extend(bits(word, 23, 5), 19) << 2;
    let insn = Insn { x: opc as u16 + 2, imm: offset as u64, ..access(word, VectorAccess::LoadLiteral) };
    (opc != 3).then_some(insn)
}

fn pair(word: u32) -> Option<Insn> {
    let opc = bits(word, 31, 30);
    if opc == 3 {
        return None;
    }
    let size = opc + 2;
    let offset = (sign_extend(bits(word, 21, 15), 7) << size) as u64;
    let imm = match bits(word, 25, 23) {
        0 | 2 => offsets(offset, 0),
        1 => offsets(0, offset),
        3 => offsets(offset, offset),
        _ => return None,
    };
    let op = if bit(word, 22) { VectorAccess::LoadPair } else { VectorAccess::StorePair };
    Some(Insn { ra: reg(word, 10), x: size as u16, imm, ..access(word, op) })
}

/// LD1 to LD4 and ST1 to ST4.
fn structures(word: u32) -> Option<Insn> {
    let is_post_indexed = bit(word, 23);
    let rm = reg(word, 16);
    if !is_post_indexed && rm != 0 {
        return None;
    }
    let (insn, bytes) = if bit(word, 24) { one_element(word)? } else { multiple(word)? };
    let mode = match (is_post_indexed, rm) {
        (false, _) => writeback::NONE,
        (true, 31) => writeback::IMMEDIATE,
        (true, _) => writeback::REGISTER,
    };
    let rm = if mode == writeback::REGISTER { rm } else { ZR };
    Some(Insn { rm, ra: mode, imm: insn.imm | u64::from(bytes), ..insn })
}

/// Whole registers. Gives also how many bytes.
fn multiple(word: u32) -> Option<(Insn, u32)> {
    let (repeat, elements) = match bits(word, 15, 12) {
        0b0000 => (1, 4),
        0b0010 => (4, 1),
        0b0100 => (1, 3),
        0b0110 => (3, 1),
        0b0111 => (1, 1),
        0b1000 => (1, 2),
        0b1010 => (2, 1),
        _ => return None,
    };
    let (size, quad) = (bits(word, 11, 10), bit(word, 30));
    let is_reserved = size == 3 && !quad && elements != 1;
    if bit(word, 21) || is_reserved {
        return None;
    }
    let op = if bit(word, 22) { VectorAccess::LoadMultiple } else { VectorAccess::StoreMultiple };
    let x = Structures { size, quad, repeat, elements }.pack();
    Some((Insn { x, ..access(word, op) }, (8 << u32::from(quad)) * repeat * elements))
}

/// One element of each register, or one for all elements. Gives also how many bytes.
fn one_element(word: u32) -> Option<(Insn, u32)> {
    let (quad, s, low) = (bits(word, 30, 30), bits(word, 12, 12), bits(word, 11, 10));
    let is_load = bit(word, 22);
    let elements = (bits(word, 13, 13) << 1 | bits(word, 21, 21)) + 1;
    let index = quad << 3 | s << 2 | low;
    let (op, size, index) = match (bits(word, 15, 14), low) {
        (3, _) if is_load && s == 0 => (VectorAccess::LoadReplicate, low, 0),
        (0, _) => (VectorAccess::LoadElement, 0, index),
        (1, 0b00 | 0b10) => (VectorAccess::LoadElement, 1, index >> 1),
        (2, 0b00) => (VectorAccess::LoadElement, 2, index >> 2),
        (2, 0b01) if s == 0 => (VectorAccess::LoadElement, 3, index >> 3),
        _ => return None,
    };
    let op = if is_load { op } else { VectorAccess::StoreElement };
    let x = Structures { size, quad: quad == 1, repeat: 1, elements }.pack();
    Some((Insn { x, imm: u64::from(index) << 32, ..access(word, op) }, elements << size))
}
