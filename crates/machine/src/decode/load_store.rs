//! Loads and stores. Source: C4.1.94 "Loads and Stores".

use super::insn::{Insn, Kind, Op, Rmw, ZR, dest, or_sp};
use super::{bit, bits, fp_simd, reg, sign_extend};

/// The interpreter's operations for each [`Kind`]: plain, with writeback, with register offset.
const PLAIN: [Op; 13] = [
    Op::StrB,
    Op::StrH,
    Op::StrW,
    Op::StrX,
    Op::LdrB,
    Op::LdrH,
    Op::LdrW,
    Op::LdrX,
    Op::LdrSb64,
    Op::LdrSh64,
    Op::LdrSw64,
    Op::LdrSb32,
    Op::LdrSh32,
];
const WRITEBACK: [Op; 13] = [
    Op::StrBWb,
    Op::StrHWb,
    Op::StrWWb,
    Op::StrXWb,
    Op::LdrBWb,
    Op::LdrHWb,
    Op::LdrWWb,
    Op::LdrXWb,
    Op::LdrSb64Wb,
    Op::LdrSh64Wb,
    Op::LdrSw64Wb,
    Op::LdrSb32Wb,
    Op::LdrSh32Wb,
];
const REGISTER: [Op; 13] = [
    Op::StrBReg,
    Op::StrHReg,
    Op::StrWReg,
    Op::StrXReg,
    Op::LdrBReg,
    Op::LdrHReg,
    Op::LdrWReg,
    Op::LdrXReg,
    Op::LdrSb64Reg,
    Op::LdrSh64Reg,
    Op::LdrSw64Reg,
    Op::LdrSb32Reg,
    Op::LdrSh32Reg,
];

impl Insn {
    /// For a single-register access of the kinds whose syndrome hardware gives (ISS.ISV = 1):
    /// its kind and whether it has acquire or release semantics. Those with writeback are not
    /// among them, nor exclusives, atomics and pairs.
    pub(crate) fn syndrome_kind(&self) -> Option<(Kind, bool)> {
        let position = |ops: &[Op; 13]| ops.iter().position(|op| *op == self.op);
        if let Some(n) = position(&PLAIN).or_else(|| position(&REGISTER)) {
            return Some((Kind::from_number(n as u16), false));
        }
        match self.op {
            Op::LdrWLit => Some((Kind::LdrW, false)),
            Op::LdrXLit => Some((Kind::LdrX, false)),
            Op::LdrSwLit => Some((Kind::LdrSw64, false)),
            Op::Unprivileged => Some((Kind::from_number(self.x), false)),
            Op::Ordered => Some((Kind::from_number(self.x), true)),
            _ => None,
        }
    }
}

pub(super) fn decode(word: u32) -> Option<Insn> {
    // V = 1: the FP and AdvSIMD registers.
    if bit(word, 26) {
        return fp_simd::memory::decode(word);
    }
    match (bits(word, 29, 28), bits(word, 25, 24)) {
        (0b00, 0b00) => exclusive_or_ordered(word),
        (0b01, 0b00) => Some(literal(word)),
        (0b01, 0b01) if !bit(word, 21) && bits(word, 11, 10) == 0 => ordered_unscaled(word),
        (0b10, _) => pair(word),
        (0b11, 0b01 | 0b11) => unsigned_offset(word),
        (0b11, 0b00) => register_or_small_offset(word),
        _ => None,
    }
}

/// The register to load or store: a store reads XZR as 0, a load of XZR goes nowhere.
fn transfer(kind: Kind, r: u8) -> u8 {
    if kind.is_store() { r } else { dest(r) }
}

fn base(word: u32) -> u8 {
    or_sp(reg(word, 5))
}

fn plain(word: u32, kind: Kind, offset: u64) -> Insn {
    debug_assert!((kind as usize) < PLAIN.len(), "{kind:?} has no plain form");
    Insn {
        rd: transfer(kind, reg(word, 0)),
        rn: base(word),
        imm: offset,
        ..Insn::new(*PLAIN.get(kind as usize).unwrap_or(&Op::Nop))
    }
}

fn kind(word: u32) -> Option<Kind> {
    Kind::from_size_opc(bits(word, 31, 30), bits(word, 23, 22))
}

/// PRFM and PRFUM: size 11, opc 10.
fn is_prefetch(word: u32) -> bool {
    bits(word, 31, 30) == 3 && bits(word, 23, 22) == 2
}

fn unsigned_offset(word: u32) -> Option<Insn> {
    if is_prefetch(word) {
        return Some(Insn::new(Op::Nop));
    }
    let offset = u64::from(bits(word, 21, 10)) << bits(word, 31, 30);
    Some(plain(word, kind(word)?, offset))
}

fn register_or_small_offset(word: u32) -> Option<Insn> {
    let offset = sign_extend(bits(word, 20, 12), 9) as u64;
    match (bit(word, 21), bits(word, 11, 10)) {
        (false, 0b00) if is_prefetch(word) => Some(Insn::new(Op::Nop)),
        (false, 0b00) => Some(plain(word, kind(word)?, offset)),
        (false, 0b01) => writeback(word, 0, offset),
        (false, 0b11) => writeback(word, offset, offset),
        (false, _) => {
            let kind = kind(word)?;
            let insn = plain(word, kind, offset);
            Some(Insn { op: Op::Unprivileged, x: kind as u16, ..insn })
        }
        (true, 0b10) => register_offset(word),
        (true, 0b00) => atomic(word),
        (true, _) => None,
    }
}

/// Two 32-bit offsets in one immediate: of the access, and of the base afterwards.
pub(super) fn offsets(access: u64, change: u64) -> u64 {
    access & 0xffff_ffff | change << 32
}

fn writeback(word: u32, access: u64, change: u64) -> Option<Insn> {
    let kind = kind(word)?;
    let op = *WRITEBACK.get(kind as usize)?;
    Some(Insn { op, imm: offsets(access, change), ..plain(word, kind, 0) })
}

fn register_offset(word: u32) -> Option<Insn> {
    let option = bits(word, 15, 13);
    // option<1> = 0: an extension from less than a word.
    if option & 2 == 0 {
        return None;
    }
    if is_prefetch(word) {
        return Some(Insn::new(Op::Nop));
    }
    let kind = kind(word)?;
    let op = *REGISTER.get(kind as usize)?;
    Some(Insn {
        op,
        rm: reg(word, 16),
        // UXTW and SXTW take the low word; SXTW then extends from bit 31.
        imm: if option & 1 == 1 { u64::MAX } else { 0xffff_ffff },
        ra: u8::from(option == 6),
        x: if bit(word, 12) { kind.size() as u16 } else { 0 },
        ..plain(word, kind, 0)
    })
}

fn literal(word: u32) -> Insn {
    let op = match bits(word, 31, 30) {
        0 => Op::LdrWLit,
        1 => Op::LdrXLit,
        2 => Op::LdrSwLit,
        // PRFM (literal).
        _ => return Insn::new(Op::Nop),
    };
    let offset = sign_extend(bits(word, 23, 5), 19) << 2;
    Insn { rd: dest(reg(word, 0)), imm: offset as u64, ..Insn::new(op) }
}

fn pair(word: u32) -> Option<Insn> {
    let (opc, mode, is_load) = (bits(word, 31, 30), bits(word, 25, 23), bit(word, 22));
    let (op, scale) = match (opc, is_load) {
        (0, false) => (Op::StpW, 2),
        (0, true) => (Op::LdpW, 2),
        // LDPSW has no non-temporal form; the store of that code is STGP (FEAT_MTE).
        (1, true) if mode != 0 => (Op::LdpSw, 2),
        (2, false) => (Op::StpX, 3),
        (2, true) => (Op::LdpX, 3),
        _ => return None,
    };
    let offset = (sign_extend(bits(word, 21, 15), 7) << scale) as u64;
    let imm = match mode {
        0 | 2 => offsets(offset, 0),
        1 => offsets(0, offset),
        3 => offsets(offset, offset),
        _ => return None,
    };
    let (rt, rt2) = (reg(word, 0), reg(word, 10));
    let (rd, ra) = if is_load { (dest(rt), dest(rt2)) } else { (rt, rt2) };
    Some(Insn { rd, ra, rn: base(word), imm, ..Insn::new(op) })
}

/// LDAPUR*, STLUR* (FEAT_LRCPC2).
fn ordered_unscaled(word: u32) -> Option<Insn> {
    let kind = kind(word)?;
    let offset = sign_extend(bits(word, 20, 12), 9) as u64;
    Some(Insn { op: Op::Ordered, x: kind as u16, ..plain(word, kind, offset) })
}

fn exclusive_or_ordered(word: u32) -> Option<Insn> {
    let size = bits(word, 31, 30);
    let (ordered, is_load, o1) = (bit(word, 23), bit(word, 22), bit(word, 21));
    let (rs, rt, rt2) = (reg(word, 16), reg(word, 0), reg(word, 10));
    let insn = Insn { rn: base(word), x: size as u16, ..Insn::new(Op::Nop) };
    match (ordered, o1) {
        (false, false) if is_load => Some(Insn { op: Op::Ldxr, rd: dest(rt), ..insn }),
        (false, false) => Some(Insn { op: Op::Stxr, rd: rt, rm: dest(rs), ..insn }),
        (false, true) if size >= 2 && is_load => {
            Some(Insn { op: Op::Ldxp, rd: dest(rt), ra: dest(rt2), ..insn })
        }
        (false, true) if size >= 2 => Some(Insn { op: Op::Stxp, rd: rt, ra: rt2, rm: dest(rs), ..insn }),
        (false, true) if rt2 == 31 && rs & 1 == 0 && rt & 1 == 0 => {
            Some(Insn { op: Op::Casp, rd: rt, rm: rs, x: size as u16 + 2, ..insn })
        }
        (true, true) if rt2 == 31 => Some(Insn { op: Op::Cas, rd: rt, rm: rs, ..insn }),
        // o0 = 0 would be LDLAR and STLLR (FEAT_LOR, not there).
        (true, false) if bit(word, 15) => {
            let kind = Kind::from_size_opc(size, u32::from(is_load))?;
            Some(Insn { op: Op::Ordered, x: kind as u16, ..plain(word, kind, 0) })
        }
        _ => None,
    }
}

/// LSE read-modify-write, and LDAPR, which sits among them.
fn atomic(word: u32) -> Option<Insn> {
    let size = bits(word, 31, 30);
    let operation = bits(word, 15, 12);
    if operation == 0b1100 {
        // LDAPR: A = 1, R = 0, Rs = 31.
        if bits(word, 23, 22) != 0b10 || reg(word, 16) != ZR {
            return None;
        }
        let kind = Kind::from_size_opc(size, 1)?;
        return Some(Insn { op: Op::Ordered, x: kind as u16, ..plain(word, kind, 0) });
    }
    let rmw = Rmw::from_bits(operation)?;
    Some(Insn {
        rd: dest(reg(word, 0)),
        rn: base(word),
        rm: reg(word, 16),
        ra: rmw as u8,
        x: size as u16,
        ..Insn::new(Op::Rmw)
    })
}
