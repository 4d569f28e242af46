//! Sums and extremes of a whole register, and of neighbours.

use super::lanes::{number, with_element, zip, zip_by_size};
use crate::decode::fp_simd::op::{Shape, VectorOp as V};

/// A reduction: its result is a scalar.
pub(super) fn reduce(op: V, shape: Shape, n: u128) -> u128 {
    let unsigned = matches!(op, V::Uaddlv | V::Umaxv | V::Uminv);
    let elements = (0..shape.count()).map(|i| number(n, shape.size, i, unsigned));
    let (value, size) = match op {
        V::Smaxv | V::Umaxv => (elements.max(), shape.size),
        V::Sminv | V::Uminv => (elements.min(), shape.size),
        V::Saddlv | V::Uaddlv => (Some(elements.sum()), shape.size + 1),
        _ => (Some(elements.sum()), shape.size),
    };
    debug_assert!(value.is_some(), "a vector without elements");
    with_element(0, size, 0, value.unwrap_or(0) as u64)
}

/// SADDLP, UADDLP, SADALP, UADALP.
pub(super) fn add_neighbours(op: V, shape: Shape, d: u128, a: u128) -> u128 {
    let unsigned = matches!(op, V::Uaddlp | V::Uadalp);
    let size = shape.size;
    let sums = (0..shape.count() / 2).fold(0, |result, i| {
        let sum = number(a, size, 2 * i, unsigned) + number(a, size, 2 * i + 1, unsigned);
        with_element(result, size + 1, i, sum as u64)
    });
    if matches!(op, V::Sadalp | V::Uadalp) {
        return zip_by_size!(u, size + 1, d, sums, |x, y| x.wrapping_add(y));
    }
    sums
}
