//! Shifts by a register and by an immediate that keep the shape.

use super::lanes::{numbers, zip, zip_by_size};
use super::saturating::Saturation;
use crate::decode::fp_simd::op::{Shape, VectorOp as V};

/// SSHL and its relatives: each element by the signed low byte of the other, to the right if it is negative.
pub(super) fn by_register(op: V, shape: Shape, a: u128, b: u128, saturation: &mut Saturation) -> u128 {
    let unsigned = matches!(op, V::Ushl | V::Uqshl | V::Urshl | V::Uqrshl);
    let rounds = matches!(op, V::Srshl | V::Urshl | V::Sqrshl | V::Uqrshl);
    let saturates = matches!(op, V::Sqshl | V::Uqshl | V::Sqrshl | V::Uqrshl);
    let bits = shape.bits();
    numbers(shape, unsigned, [a, b], |x, amount| {
        let amount = i32::from(amount as u8 as i8);
        if amount < 0 {
            return right(x, amount.unsigned_abs(), rounds);
        }
        let amount = amount.unsigned_abs();
        match (saturates, amount >= bits) {
            (false, true) => 0,
            (false, false) => x << amount,
            // Anything but zero saturates, by its sign.
            (true, true) => saturation.to(x.signum() << bits, bits, unsigned),
            (true, false) => saturation.to(x << amount, bits, unsigned),
        }
    })
}

/// A shift to the right, by up to 128.
pub(super) fn right(x: i128, amount: u32, rounds: bool) -> i128 {
    match (rounds, amount) {
        (_, 0) => x,
        // Less than half of the last place.
        (true, 67..) => 0,
        (true, _) => (x + (1 << (amount - 1))) >> amount,
        (false, _) => x >> amount.min(127),
    }
}

/// The shifts by an immediate that are not plain.
pub(super) fn by_immediate(
    op: V,
    shape: Shape,
    [d, a]: [u128; 2],
    imm: u32,
    saturation: &mut Saturation,
) -> u128 {
    let bits = shape.bits();
    let unsigned = matches!(op, V::Usra | V::Urshr | V::Ursra | V::UqshlImm);
    let rounds = matches!(op, V::Srshr | V::Urshr | V::Srsra | V::Ursra);
    match op {
        V::Sri | V::Sli => {
            let all = u128::from(u64::MAX >> (64 - bits)) as i128;
            let left = op == V::Sli;
            let kept = if left { !(all << imm) } else { !(all >> imm) };
            numbers(shape, true, [d, a], |old, x| old & kept | if left { x << imm } else { x >> imm })
        }
        V::SqshlImm | V::UqshlImm => {
            numbers(shape, unsigned, [a, a], |x, _| saturation.to(x << imm, bits, unsigned))
        }
        V::Sqshlu => numbers(shape, false, [a, a], |x, _| saturation.to(x << imm, bits, true)),
        _ => {
            let shifted = numbers(shape, unsigned, [a, a], |x, _| right(x, imm, rounds));
            if matches!(op, V::Srshr | V::Urshr) {
                return shifted;
            }
            zip_by_size!(u, shape.size, d, shifted, |x, y| x.wrapping_add(y))
        }
    }
}
