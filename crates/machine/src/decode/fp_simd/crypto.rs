//! FEAT_AES, FEAT_SHA1, FEAT_SHA256. Source: C4.1.96, "Cryptographic …".

use super::super::insn::{Insn, Op};
use super::super::{bit, bits};
use super::op::{CryptoOp, Shape};
use super::three_operands;

fn crypto(word: u32, op: CryptoOp) -> Insn {
    three_operands(word, Op::Crypto(op), Shape::vector(2, true))
}

/// AESE, AESD, AESMC, AESIMC (bit 28 clear), SHA1H, SHA1SU1, SHA256SU0 (set).
pub(super) fn two_registers(word: u32, scalar: bool) -> Option<Insn> {
    // Q is set for AES, and is bit 30 of the scalar class.
    if bits(word, 23, 22) != 0 || bit(word, 29) || !bit(word, 30) {
        return None;
    }
    let op = match (scalar, bits(word, 16, 12)) {
        (false, 0b00100) => CryptoOp::Aese,
        (false, 0b00101) => CryptoOp::Aesd,
        (false, 0b00110) => CryptoOp::Aesmc,
        (false, 0b00111) => CryptoOp::Aesimc,
        (true, 0b00000) => CryptoOp::Sha1h,
        (true, 0b00001) => CryptoOp::Sha1su1,
        (true, 0b00010) => CryptoOp::Sha256su0,
        _ => return None,
    };
    Some(crypto(word, op))
}

pub(super) fn three_registers(word: u32) -> Option<Insn> {
    if bits(word, 23, 22) != 0 || bit(word, 29) || bit(word, 11) {
        return None;
    }
    let op = match bits(word, 14, 12) {
        0b000 => CryptoOp::Sha1c,
        0b001 => CryptoOp::Sha1p,
        0b010 => CryptoOp::Sha1m,
        0b011 => CryptoOp::Sha1su0,
        0b100 => CryptoOp::Sha256h,
        0b101 => CryptoOp::Sha256h2,
        0b110 => CryptoOp::Sha256su1,
        _ => return None,
    };
    Some(crypto(word, op))
}
