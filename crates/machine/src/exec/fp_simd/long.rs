//! From elements to those of twice the size. The shape's size is that of the narrow ones.

use super::lanes::{element, number, numbers, with_element, zip, zip_by_size};
use super::saturating::Saturation;
use super::vector::Operands;
use crate::decode::fp_simd::op::{Shape, VectorOp as V};

pub(super) fn long(op: V, operands: &Operands, saturation: &mut Saturation) -> u128 {
    let &Operands { shape, d, n, m, imm } = operands;
    if op == V::Pmull {
        return polynomial(shape, n, m);
    }
    let unsigned = matches!(
        op,
        V::Uaddl
            | V::Uaddw
            | V::Usubl
            | V::Usubw
            | V::Uabal
            | V::Uabdl
            | V::Umlal
            | V::Umlsl
            | V::Umull
            | V::Ushll
    );
    let size = shape.size + 1;
    let x = widen(shape, n, unsigned);
    let y = widen(shape, m, unsigned);
    match op {
        V::Saddl | V::Uaddl => zip_by_size!(u, size, x, y, |x, y| x.wrapping_add(y)),
        V::Saddw | V::Uaddw => zip_by_size!(u, size, n, y, |x, y| x.wrapping_add(y)),
        V::Ssubl | V::Usubl => zip_by_size!(u, size, x, y, |x, y| x.wrapping_sub(y)),
        V::Ssubw | V::Usubw => zip_by_size!(u, size, n, y, |x, y| x.wrapping_sub(y)),
        // Widened, so that signed comparison does for both.
        V::Sabdl | V::Uabdl => zip_by_size!(s, size, x, y, |x, y| x.abs_diff(y) as _),
        V::Sabal | V::Uabal => {
            let difference = zip_by_size!(s, size, x, y, |x, y| x.abs_diff(y) as _);
            zip_by_size!(u, size, d, difference, |x, y| x.wrapping_add(y))
        }
        V::Smull | V::Umull => product(size, x, y),
        V::Smlal | V::Umlal => zip_by_size!(u, size, d, product(size, x, y), |x, y| x.wrapping_add(y)),
        V::Smlsl | V::Umlsl => zip_by_size!(u, size, d, product(size, x, y), |x, y| x.wrapping_sub(y)),
        V::Shll => zip_by_size!(u, size, x, x, |x, _y| x << shape.bits()),
        V::Sshll | V::Ushll => zip_by_size!(u, size, x, x, |x, _y| x << imm),
        _ => doubling(op, shape, [d, x, y], saturation),
    }
}

fn product(size: u32, x: u128, y: u128) -> u128 {
    zip_by_size!(u, size, x, y, |x, y| x.wrapping_mul(y))
}

/// The lower or upper 64 bits, or the scalar, extended. (An element is in every place of its register.)
fn widen(shape: Shape, register: u128, unsigned: bool) -> u128 {
    let source = if shape.upper { register >> 64 } else { register };
    (0..shape.count()).fold(0, |result, i| {
        with_element(result, shape.size + 1, i, number(source, shape.size, i, unsigned) as u64)
    })
}

/// SQDMULL, SQDMLAL, SQDMLSL.
fn doubling(op: V, shape: Shape, [d, x, y]: [u128; 3], saturation: &mut Saturation) -> u128 {
    let bits = 2 * shape.bits();
    let wide = Shape { size: shape.size + 1, width: shape.width + 1, ..shape };
    let products = numbers(wide, false, [x, y], |x, y| saturation.to(2 * x * y, bits, false));
    match op {
        V::Sqdmlal => numbers(wide, false, [d, products], |x, y| saturation.to(x + y, bits, false)),
        V::Sqdmlsl => numbers(wide, false, [d, products], |x, y| saturation.to(x - y, bits, false)),
        other => {
            debug_assert_eq!(other, V::Sqdmull);
            products
        }
    }
}

/// PMULL: of bytes, or of 64 bits (FEAT_PMULL).
fn polynomial(shape: Shape, n: u128, m: u128) -> u128 {
    let upper = if shape.upper { 64 } else { 0 };
    let (n, m) = (n >> upper, m >> upper);
    if shape.size == 3 {
        return carryless(n as u64, m as u64);
    }
    (0..8)
        .fold(0, |result, i| with_element(result, 1, i, carryless(element(n, 0, i), element(m, 0, i)) as u64))
}

/// `PolynomialMult`: a product without carries.
pub(super) fn carryless(a: u64, b: u64) -> u128 {
    let a = u128::from(a);
    (0..64 - b.leading_zeros()).filter(|i| b >> i & 1 == 1).fold(0, |sum, i| sum ^ a << i)
}
