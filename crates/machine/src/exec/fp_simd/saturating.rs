//! Saturation, and FPSR.QC.

use super::lanes::number;
use crate::cpu::Cpu;
use crate::decode::fp_simd::op::Shape;
use crate::float::flag;

/// Whether something saturated.
#[derive(Default)]
pub(super) struct Saturation(pub(super) bool);

impl Saturation {
    /// `SatQ`: the nearest number of `bits` bits.
    pub(super) fn to(&mut self, value: i128, bits: u32, unsigned: bool) -> i128 {
        let (lowest, highest) = if unsigned {
            (0, (1_i128 << bits) - 1)
        } else {
            (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
        };
        let clamped = value.clamp(lowest, highest);
        self.0 |= clamped != value;
        clamped
    }

    /// Set FPSR.QC if it did.
    pub(super) fn note(&self, cpu: &mut Cpu) {
        if self.0 {
            cpu.fp.raise(flag::QC);
        }
    }
}

/// Elements of `a` as numbers, signed or not, plus those of `b`, which are the other way, saturated as `a`
/// is: SUQADD, USQADD.
pub(super) fn accumulate(
    shape: Shape,
    a: u128,
    b: u128,
    unsigned: bool,
    saturation: &mut Saturation,
) -> u128 {
    (0..shape.count()).fold(0, |result, i| {
        let sum = number(a, shape.size, i, unsigned) + number(b, shape.size, i, !unsigned);
        let sum = saturation.to(sum, shape.bits(), unsigned);
        super::lanes::with_element(result, shape.size, i, sum as u64)
    })
}
