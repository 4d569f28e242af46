//! Arithmetic of the data-processing instructions: pure functions on values and flags.
//!
//! Flags are a 4-bit number, N Z C V from bit 3 down.

use crate::decode::Insn;
use crate::decode::data_register::{
    EXTEND, GEN_ADD, GEN_ADDS, GEN_AND, GEN_ANDS, GEN_EOR, GEN_ORR, GEN_SUB, GEN_SUBS,
};

/// N and Z of a result.
#[inline(always)]
pub(super) fn nz64(result: u64) -> u8 {
    ((result >> 63) as u8) << 3 | u8::from(result == 0) << 2
}

/// N and Z of a 32-bit result.
#[inline(always)]
pub(super) fn nz32(result: u32) -> u8 {
    ((result >> 31) as u8) << 3 | u8::from(result == 0) << 2
}

/// Sum and flags.
#[inline(always)]
pub(super) fn adds64(a: u64, b: u64) -> (u64, u8) {
    let (sum, carry) = a.overflowing_add(b);
    let overflow = (!(a ^ b) & (a ^ sum)) >> 63;
    (sum, nz64(sum) | u8::from(carry) << 1 | overflow as u8)
}

/// Difference and flags; C is "no borrow".
#[inline(always)]
pub(super) fn subs64(a: u64, b: u64) -> (u64, u8) {
    let difference = a.wrapping_sub(b);
    let overflow = ((a ^ b) & (a ^ difference)) >> 63;
    (difference, nz64(difference) | u8::from(a >= b) << 1 | overflow as u8)
}

/// 32-bit sum and flags.
#[inline(always)]
pub(super) fn adds32(a: u32, b: u32) -> (u64, u8) {
    let (sum, carry) = a.overflowing_add(b);
    let overflow = (!(a ^ b) & (a ^ sum)) >> 31;
    (u64::from(sum), nz32(sum) | u8::from(carry) << 1 | overflow as u8)
}

/// 32-bit difference and flags.
#[inline(always)]
pub(super) fn subs32(a: u32, b: u32) -> (u64, u8) {
    let difference = a.wrapping_sub(b);
    let overflow = ((a ^ b) & (a ^ difference)) >> 31;
    (u64::from(difference), nz32(difference) | u8::from(a >= b) << 1 | overflow as u8)
}

/// `AddWithCarry`, 64 bits.
pub(super) fn add_with_carry64(a: u64, b: u64, carry: bool) -> (u64, u8) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let sum = wide as u64;
    let overflow = (!(a ^ b) & (a ^ sum)) >> 63;
    (sum, nz64(sum) | ((wide >> 64) as u8) << 1 | overflow as u8)
}

/// `AddWithCarry`, 32 bits.
pub(super) fn add_with_carry32(a: u32, b: u32, carry: bool) -> (u64, u8) {
    let wide = u64::from(a) + u64::from(b) + u64::from(carry);
    let sum = wide as u32;
    let overflow = (!(a ^ b) & (a ^ sum)) >> 31;
    (u64::from(sum), nz32(sum) | ((wide >> 32) as u8) << 1 | overflow as u8)
}

/// `ShiftReg` and `ExtendReg` for the second operand, 64 bits.
fn operand64(treatment: u8, amount: u32, value: u64) -> u64 {
    match treatment {
        0 => value << (amount & 63),
        1 => value >> (amount & 63),
        2 => ((value as i64) >> (amount & 63)) as u64,
        3 => value.rotate_right(amount),
        _ => extend(treatment - EXTEND, value) << (amount & 63),
    }
}

/// The same, 32 bits.
fn operand32(treatment: u8, amount: u32, value: u32) -> u32 {
    match treatment {
        0 => value << (amount & 31),
        1 => value >> (amount & 31),
        2 => ((value as i32) >> (amount & 31)) as u32,
        3 => value.rotate_right(amount),
        _ => (extend(treatment - EXTEND, u64::from(value)) as u32) << (amount & 31),
    }
}

/// UXTB, UXTH, UXTW, UXTX, SXTB, SXTH, SXTW, SXTX.
fn extend(option: u8, value: u64) -> u64 {
    match option & 7 {
        0 => u64::from(value as u8),
        1 => u64::from(value as u16),
        2 => u64::from(value as u32),
        4 => value as i8 as i64 as u64,
        5 => value as i16 as i64 as u64,
        6 => value as i32 as i64 as u64,
        _ => value,
    }
}

/// The operation of an `AluGen64` instruction; flags if it sets them.
pub(super) fn general64(insn: &Insn, rn: u64, rm: u64) -> (u64, Option<u8>) {
    let b = operand64(insn.ra, u32::from(insn.x & 0xff), rm) ^ insn.imm;
    let with_flags = |(result, flags): (u64, u8)| (result, Some(flags));
    match insn.x >> 8 {
        GEN_ADD => (rn.wrapping_add(b), None),
        GEN_ADDS => with_flags(adds64(rn, b)),
        GEN_SUB => (rn.wrapping_sub(b), None),
        GEN_AND => (rn & b, None),
        GEN_ORR => (rn | b, None),
        GEN_EOR => (rn ^ b, None),
        GEN_ANDS => (rn & b, Some(nz64(rn & b))),
        other => {
            debug_assert_eq!(other, GEN_SUBS);
            with_flags(subs64(rn, b))
        }
    }
}

/// The operation of an `AluGen32` instruction.
pub(super) fn general32(insn: &Insn, rn: u64, rm: u64) -> (u64, Option<u8>) {
    let a = rn as u32;
    let b = operand32(insn.ra, u32::from(insn.x & 0xff), rm as u32) ^ insn.imm as u32;
    let with_flags = |(result, flags): (u64, u8)| (result, Some(flags));
    match insn.x >> 8 {
        GEN_ADD => (u64::from(a.wrapping_add(b)), None),
        GEN_ADDS => with_flags(adds32(a, b)),
        GEN_SUB => (u64::from(a.wrapping_sub(b)), None),
        GEN_AND => (u64::from(a & b), None),
        GEN_ORR => (u64::from(a | b), None),
        GEN_EOR => (u64::from(a ^ b), None),
        GEN_ANDS => (u64::from(a & b), Some(nz32(a & b))),
        other => {
            debug_assert_eq!(other, GEN_SUBS);
            with_flags(subs32(a, b))
        }
    }
}

/// ADC, ADCS, SBC, SBCS.
pub(super) fn carry64(insn: &Insn, rn: u64, rm: u64, nzcv: u8) -> (u64, Option<u8>) {
    let b = if insn.x & 1 != 0 { !rm } else { rm };
    let (sum, flags) = add_with_carry64(rn, b, nzcv & 2 != 0);
    (sum, (insn.x & 2 != 0).then_some(flags))
}

/// The same, 32 bits.
pub(super) fn carry32(insn: &Insn, rn: u64, rm: u64, nzcv: u8) -> (u64, Option<u8>) {
    let b = if insn.x & 1 != 0 { !rm } else { rm } as u32;
    let (sum, flags) = add_with_carry32(rn as u32, b, nzcv & 2 != 0);
    (sum, (insn.x & 2 != 0).then_some(flags))
}

/// Swap the bytes in each 16-bit half-word.
pub(super) fn rev16(value: u64) -> u64 {
    (value & 0x00ff_00ff_00ff_00ff) << 8 | (value >> 8) & 0x00ff_00ff_00ff_00ff
}

/// CLS: how many bits below the sign bit equal it.
pub(super) fn cls64(value: u64) -> u64 {
    u64::from(((value as i64 >> 63) as u64 ^ value).leading_zeros() - 1)
}

/// CLS, 32 bits.
pub(super) fn cls32(value: u32) -> u64 {
    u64::from(((value as i32 >> 31) as u32 ^ value).leading_zeros() - 1)
}

/// SDIV: by zero is 0, the most negative by -1 is itself.
pub(super) fn sdiv64(a: u64, b: u64) -> u64 {
    if b == 0 { 0 } else { (a as i64).wrapping_div(b as i64) as u64 }
}

/// SDIV, 32 bits.
pub(super) fn sdiv32(a: u32, b: u32) -> u64 {
    if b == 0 { 0 } else { u64::from((a as i32).wrapping_div(b as i32) as u32) }
}

/// Product of the low halves, signed.
#[inline(always)]
pub(super) fn smull(a: u64, b: u64) -> u64 {
    (i64::from(a as i32) * i64::from(b as i32)) as u64
}

/// Product of the low halves.
#[inline(always)]
pub(super) fn umull(a: u64, b: u64) -> u64 {
    u64::from(a as u32) * u64::from(b as u32)
}

/// CRC32 of the low `bytes` bytes of `value` on top of `crc`, with a reflected polynomial.
/// Arm's instruction inverts neither before nor after.
pub(super) fn crc32(crc: u32, value: u64, bytes: u16, polynomial: u32) -> u64 {
    let mut crc = crc;
    for byte in value.to_le_bytes().into_iter().take(bytes as usize) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (crc & 1).wrapping_neg() & polynomial;
        }
    }
    u64::from(crc)
}

/// RMIF: rotate right by `x`, put the low four bits into the flags that the mask names.
pub(super) fn rmif(insn: &Insn, value: u64, nzcv: u8) -> u8 {
    let flags = value.rotate_right(u32::from(insn.x)) as u8 & 15;
    let mask = insn.imm as u8;
    nzcv & !mask | flags & mask
}

/// SETF8 and SETF16: N, Z and V from an 8- or 16-bit value; C is kept.
pub(super) fn setf(insn: &Insn, value: u64, nzcv: u8) -> u8 {
    let width = u32::from(insn.x);
    let sign = value >> (width - 1) & 1;
    let above = value >> width & 1;
    let zero = value & ((1 << width) - 1) == 0;
    (sign as u8) << 3 | u8::from(zero) << 2 | nzcv & 2 | (sign ^ above) as u8
}

/// EXTR, 64 bits: the 64 bits at `lsb` of high:low.
pub(super) fn extr64(high: u64, low: u64, lsb: u32) -> u64 {
    if lsb == 0 { low } else { low >> lsb | high << (64 - lsb) }
}

/// EXTR, 32 bits.
pub(super) fn extr32(high: u32, low: u32, lsb: u32) -> u64 {
    u64::from(if lsb == 0 { low } else { low >> lsb | high << (32 - lsb) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_of_123456789_is_the_check_value_of_the_catalogue() {
        let run = |polynomial| {
            b"123456789".iter().fold(u32::MAX, |crc, byte| crc32(crc, u64::from(*byte), 1, polynomial) as u32)
        };
        assert_eq!(!run(0xedb8_8320), 0xcbf4_3926);
        assert_eq!(!run(0x82f6_3b78), 0xe306_9283);
    }

    #[test]
    fn subtraction_sets_carry_when_nothing_is_borrowed() {
        assert_eq!(subs64(5, 5), (0, 0b0110));
        assert_eq!(subs64(4, 5), (u64::MAX, 0b1000));
        assert_eq!(subs32(0x8000_0000, 1), (0x7fff_ffff, 0b0011));
        assert_eq!(adds64(u64::MAX, 1), (0, 0b0110));
        assert_eq!(adds32(0x7fff_ffff, 1), (0x8000_0000, 0b1001));
    }

    #[test]
    fn division_by_zero_is_zero_and_the_most_negative_by_minus_one_is_itself() {
        assert_eq!(sdiv64(7, 0), 0);
        assert_eq!(sdiv64(1 << 63, u64::MAX), 1 << 63);
        assert_eq!(sdiv32(1 << 31, u32::MAX), 1 << 31);
    }
}
