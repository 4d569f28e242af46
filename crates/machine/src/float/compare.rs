//! Comparisons.

use std::cmp::Ordering;

use super::unpack::{Class, Number};
use super::{Env, Format, flag};

impl Number {
    /// Which is the larger; neither may be a NaN.
    pub(super) fn compare(&self, other: &Number) -> Ordering {
        if self.is_zero() && other.is_zero() {
            return Ordering::Equal;
        }
        self.key().cmp(&other.key())
    }

    /// Sign, class, exponent and mantissa as numbers in the order of values.
    fn key(&self) -> (i8, i64, i128) {
        let sign: i8 = if self.negative { -1 } else { 1 };
        let (sign, exponent) = match self.class {
            Class::Zero => (0, 0),
            Class::Finite => (sign, i64::from(self.exponent)),
            _ => (sign, i64::MAX),
        };
        (sign, i64::from(sign) * exponent, i128::from(sign) * i128::from(self.mantissa))
    }
}

impl Env {
    /// `FPCompare`, without its flags: `None` if a NaN takes part, which is invalid if it is signaling,
    /// or if any NaN `signals`.
    pub(crate) fn compare(&mut self, format: Format, a: u64, b: u64, signals: bool) -> Option<Ordering> {
        if let Some(ordering) = self.fast_compare(format, a, b) {
            return Some(ordering);
        }
        let (x, y) = (self.unpack(format, a), self.unpack(format, b));
        if x.is_nan() || y.is_nan() {
            if signals || x.class == Class::SignalingNan || y.class == Class::SignalingNan {
                self.raise(flag::IOC);
            }
            return None;
        }
        Some(x.compare(&y))
    }
}
