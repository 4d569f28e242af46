//! A64 words into [`Insn`]s. Tables of DDI 0487 chapter C4 ("A64 Instruction Set Encoding").
//!
//! What the CPU does not have decodes to UNDEFINED; there is no word that does not decode.

pub(crate) mod branch;
mod data_immediate;
pub(crate) mod data_register;
pub(crate) mod fp_simd;
pub(crate) mod insn;
mod load_store;
pub(crate) mod meaning;

pub(crate) use insn::{Insn, Kind, Op, Rmw};

/// Bits `hi` down to `lo` of `word`.
const fn bits(word: u32, hi: u32, lo: u32) -> u32 {
    (word >> lo) & (u32::MAX >> (31 - (hi - lo)))
}

/// One bit of `word`.
const fn bit(word: u32, n: u32) -> bool {
    (word >> n) & 1 == 1
}

/// A 5-bit register field.
const fn reg(word: u32, lo: u32) -> u8 {
    ((word >> lo) & 31) as u8
}

/// Sign-extend the low `width` bits.
const fn sign_extend(value: u32, width: u32) -> i64 {
    ((value as u64) << (64 - width)) as i64 >> (64 - width)
}

/// Decode one word. Source: C4.1 "A64 instruction set encoding", table on op0/op1.
pub(crate) fn decode(word: u32) -> Insn {
    let decoded = match bits(word, 28, 25) {
        0b1000 | 0b1001 => data_immediate::decode(word),
        0b1010 | 0b1011 => branch::decode(word),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => load_store::decode(word),
        0b0101 | 0b1101 => data_register::decode(word),
        0b0111 | 0b1111 => fp_simd::decode(word),
        _ => None,
    };
    decoded.unwrap_or(Insn::undefined(word))
}

/// Whether this CPU has the instruction `word` encodes. UNDEFINED words take the guest to its
/// exception vector with EC 0.
#[must_use]
pub fn is_allocated(word: u32) -> bool {
    decode(word).op != Op::Undefined
}
