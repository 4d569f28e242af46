//! To elements of half the size. The shape's size is that of the result.

use super::lanes::{LOW, element, number, with_element, zip, zip_by_size};
use super::saturating::Saturation;
use super::shift::right;
use super::vector::Operands;
use crate::decode::fp_simd::op::VectorOp as V;

pub(super) fn narrow(op: V, operands: &Operands, saturation: &mut Saturation) -> u128 {
    let &Operands { shape, d, n, m, imm } = operands;
    let (wide, bits) = (shape.size + 1, shape.bits());
    let source = match op {
        V::Addhn | V::Raddhn => zip_by_size!(u, wide, n, m, |x, y| x.wrapping_add(y)),
        V::Subhn | V::Rsubhn => zip_by_size!(u, wide, n, m, |x, y| x.wrapping_sub(y)),
        _ => n,
    };
    let each = |i| match op {
        V::Xtn => element(source, wide, i),
        V::Shrn => element(source, wide, i) >> imm,
        V::Addhn | V::Subhn => element(source, wide, i) >> bits,
        V::Raddhn | V::Rsubhn => right(number(source, wide, i, true), bits, true) as u64,
        V::Rshrn => right(number(source, wide, i, true), imm, true) as u64,
        _ => {
            let from_unsigned = matches!(op, V::Uqxtn | V::Uqshrn | V::Uqrshrn);
            let to_unsigned = from_unsigned || matches!(op, V::Sqxtun | V::Sqshrun | V::Sqrshrun);
            let rounds = matches!(op, V::Sqrshrn | V::Uqrshrn | V::Sqrshrun);
            let amount = if matches!(op, V::Sqxtn | V::Uqxtn | V::Sqxtun) { 0 } else { imm };
            let shifted = right(number(source, wide, i, from_unsigned), amount, rounds);
            saturation.to(shifted, bits, to_unsigned) as u64
        }
    };
    let result = (0..shape.count())
        .map(each)
        .enumerate()
        .fold(0, |result, (i, value)| with_element(result, shape.size, i as u32, value));
    if shape.upper { d & LOW | result << 64 } else { result }
}
