//! Data processing on registers. Source: C4.1.95 "Data Processing -- Register".

use super::insn::{Insn, Op, ZR, condition_mask, dest, or_sp};
use super::{bit, bits, reg};

/// What `AluGen` does to Rm: shift types 0..3 as encoded, extensions as 8 + option.
pub(crate) const EXTEND: u8 = 8;

/// The operation of `AluGen`, kept in the high byte of `x`.
pub(crate) const GEN_ADD: u16 = 0;
pub(crate) const GEN_ADDS: u16 = 1;
pub(crate) const GEN_SUB: u16 = 2;
pub(crate) const GEN_SUBS: u16 = 3;
pub(crate) const GEN_AND: u16 = 4;
pub(crate) const GEN_ORR: u16 = 5;
pub(crate) const GEN_EOR: u16 = 6;
pub(crate) const GEN_ANDS: u16 = 7;

pub(super) fn decode(word: u32) -> Option<Insn> {
    let op2 = bits(word, 24, 21);
    if !bit(word, 28) {
        return match (op2 >> 3, op2 & 1) {
            (0, _) => logical(word),
            (_, 0) => add_sub_shifted(word),
            _ => add_sub_extended(word),
        };
    }
    match op2 {
        0b0000 => carry_and_flags(word),
        0b0010 => conditional_compare(word),
        0b0100 => conditional_select(word),
        0b0110 if bit(word, 30) => one_source(word),
        0b0110 => two_sources(word),
        _ if op2 >> 3 == 1 => three_sources(word),
        _ => None,
    }
}

fn three_registers(word: u32, op: Op) -> Insn {
    Insn { rd: dest(reg(word, 0)), rn: reg(word, 5), rm: reg(word, 16), ..Insn::new(op) }
}

/// Pick the 64-bit or the 32-bit operation by the sf bit.
fn by_width(word: u32, op64: Op, op32: Op) -> Op {
    if bit(word, 31) { op64 } else { op32 }
}

fn general(word: u32, operation: u16, treatment: u8, amount: u32, imm: u64) -> Insn {
    Insn {
        ra: treatment,
        x: operation << 8 | amount as u16,
        imm,
        ..three_registers(word, by_width(word, Op::AluGen64, Op::AluGen32))
    }
}

fn logical(word: u32) -> Option<Insn> {
    let amount = bits(word, 15, 10);
    if !bit(word, 31) && amount >= 32 {
        return None;
    }
    let invert = if bit(word, 21) { u64::MAX } else { 0 };
    let (operation, op64, op32) = match bits(word, 30, 29) {
        0b00 => (GEN_AND, Op::And64, Op::And32),
        0b01 => (GEN_ORR, Op::Orr64, Op::Orr32),
        0b10 => (GEN_EOR, Op::Eor64, Op::Eor32),
        _ => (GEN_ANDS, Op::Ands64, Op::Ands32),
    };
    let shift = bits(word, 23, 22);
    if shift != 0 {
        return Some(general(word, operation, shift as u8, amount, invert));
    }
    let insn = Insn { x: amount as u16, imm: invert, ..three_registers(word, by_width(word, op64, op32)) };
    let is_move = insn.op == Op::Orr64 && insn.rn == ZR && amount == 0 && invert == 0;
    Some(if is_move { Insn { op: Op::Mov64, ..insn } } else { insn })
}

fn add_sub_shifted(word: u32) -> Option<Insn> {
    let (amount, shift) = (bits(word, 15, 10), bits(word, 23, 22));
    if shift == 3 || (!bit(word, 31) && amount >= 32) {
        return None;
    }
    let (operation, op64, op32) = match bits(word, 30, 29) {
        0b00 => (GEN_ADD, Op::Add64, Op::Add32),
        0b01 => (GEN_ADDS, Op::Adds64, Op::Adds32),
        0b10 => (GEN_SUB, Op::Sub64, Op::Sub32),
        _ => (GEN_SUBS, Op::Subs64, Op::Subs32),
    };
    if shift != 0 {
        return Some(general(word, operation, shift as u8, amount, 0));
    }
    Some(Insn { x: amount as u16, ..three_registers(word, by_width(word, op64, op32)) })
}

fn add_sub_extended(word: u32) -> Option<Insn> {
    let (amount, option) = (bits(word, 12, 10), bits(word, 15, 13));
    if bits(word, 23, 22) != 0 || amount > 4 {
        return None;
    }
    let sets_flags = bit(word, 29);
    let operation = match (bit(word, 30), sets_flags) {
        (false, false) => GEN_ADD,
        (false, true) => GEN_ADDS,
        (true, false) => GEN_SUB,
        (true, true) => GEN_SUBS,
    };
    let insn = general(word, operation, EXTEND + option as u8, amount, 0);
    let rd = if sets_flags { insn.rd } else { or_sp(reg(word, 0)) };
    Some(Insn { rd, rn: or_sp(reg(word, 5)), ..insn })
}

fn carry_and_flags(word: u32) -> Option<Insn> {
    if bits(word, 15, 10) == 0 {
        let flags = (bits(word, 30, 30) | bits(word, 29, 29) << 1) as u16;
        let insn = three_registers(word, by_width(word, Op::Adc64, Op::Adc32));
        return Some(Insn { x: flags, ..insn });
    }
    // RMIF: sf=1 op=0 S=1, bits [14:10] = 00001, bit 4 = 0.
    if bits(word, 31, 29) == 0b101 && bits(word, 14, 10) == 1 && !bit(word, 4) {
        return Some(Insn {
            rn: reg(word, 5),
            x: bits(word, 20, 15) as u16,
            imm: u64::from(bits(word, 3, 0)),
            ..Insn::new(Op::Rmif)
        });
    }
    // SETF8, SETF16: sf=0 op=0 S=1, opcode2 = 0, sz, 0010, o3=0, mask=1101.
    if bits(word, 31, 29) == 0b001
        && bits(word, 20, 15) == 0
        && bits(word, 13, 10) == 0b0010
        && bits(word, 4, 0) == 0b01101
    {
        let width = if bit(word, 14) { 16 } else { 8 };
        return Some(Insn { rn: reg(word, 5), x: width, ..Insn::new(Op::Setf) });
    }
    None
}

fn conditional_compare(word: u32) -> Option<Insn> {
    if !bit(word, 29) || bit(word, 10) || bit(word, 4) {
        return None;
    }
    let op = if bit(word, 30) {
        by_width(word, Op::Ccmp64, Op::Ccmp32)
    } else {
        by_width(word, Op::Ccmn64, Op::Ccmn32)
    };
    // The second operand is regs[rm] | imm: one of them is zero.
    let is_immediate = bit(word, 11);
    Some(Insn {
        rn: reg(word, 5),
        rm: if is_immediate { ZR } else { reg(word, 16) },
        imm: if is_immediate { u64::from(bits(word, 20, 16)) } else { 0 },
        ra: bits(word, 3, 0) as u8,
        x: condition_mask(bits(word, 15, 12)),
        ..Insn::new(op)
    })
}

fn conditional_select(word: u32) -> Option<Insn> {
    if bit(word, 29) || bit(word, 11) {
        return None;
    }
    // The other value is (regs[rm] ^ imm) + ra: CSINC adds, CSINV inverts, CSNEG does both.
    Some(Insn {
        imm: if bit(word, 30) { u64::MAX } else { 0 },
        ra: bits(word, 10, 10) as u8,
        x: condition_mask(bits(word, 15, 12)),
        ..three_registers(word, by_width(word, Op::Csel64, Op::Csel32))
    })
}

fn one_source(word: u32) -> Option<Insn> {
    if bit(word, 29) || bits(word, 20, 16) != 0 {
        return None;
    }
    let sf = bit(word, 31);
    let op = match (bits(word, 15, 10), sf) {
        (0, true) => Op::Rbit64,
        (0, false) => Op::Rbit32,
        (1, true) => Op::Rev16x64,
        (1, false) => Op::Rev16x32,
        (2, true) => Op::Rev32x64,
        (2, false) => Op::Rev32,
        (3, true) => Op::Rev64,
        (4, true) => Op::Clz64,
        (4, false) => Op::Clz32,
        (5, true) => Op::Cls64,
        (5, false) => Op::Cls32,
        _ => return None,
    };
    Some(Insn { rd: dest(reg(word, 0)), rn: reg(word, 5), ..Insn::new(op) })
}

/// The polynomials of CRC32 and CRC32C with their bits reversed.
const CRC32: u64 = 0xedb8_8320;
const CRC32C: u64 = 0x82f6_3b78;

fn two_sources(word: u32) -> Option<Insn> {
    if bit(word, 29) {
        return None;
    }
    let opcode = bits(word, 15, 10);
    let op = match opcode {
        2 => by_width(word, Op::Udiv64, Op::Udiv32),
        3 => by_width(word, Op::Sdiv64, Op::Sdiv32),
        8 => by_width(word, Op::Lslv64, Op::Lslv32),
        9 => by_width(word, Op::Lsrv64, Op::Lsrv32),
        10 => by_width(word, Op::Asrv64, Op::Asrv32),
        11 => by_width(word, Op::Rorv64, Op::Rorv32),
        16..=23 => {
            // The 64-bit operand goes with sf = 1, the others with sf = 0.
            let size = opcode & 3;
            if (size == 3) != bit(word, 31) {
                return None;
            }
            let polynomial = if opcode & 4 != 0 { CRC32C } else { CRC32 };
            let insn = three_registers(word, Op::Crc32);
            return Some(Insn { x: 1 << size, imm: polynomial, ..insn });
        }
        _ => return None,
    };
    Some(three_registers(word, op))
}

fn three_sources(word: u32) -> Option<Insn> {
    if bits(word, 30, 29) != 0 {
        return None;
    }
    let sf = bit(word, 31);
    let op = match (bits(word, 23, 21), bit(word, 15), sf) {
        (0, false, true) => Op::Madd64,
        (0, false, false) => Op::Madd32,
        (0, true, true) => Op::Msub64,
        (0, true, false) => Op::Msub32,
        (1, false, true) => Op::Smaddl,
        (1, true, true) => Op::Smsubl,
        (2, false, true) => Op::Smulh,
        (5, false, true) => Op::Umaddl,
        (5, true, true) => Op::Umsubl,
        (6, false, true) => Op::Umulh,
        _ => return None,
    };
    Some(Insn { ra: reg(word, 10), ..three_registers(word, op) })
}
