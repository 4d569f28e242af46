//! Where the host's floating point gives the same bits, and the flags are known.
//!
//! The host rounds to nearest even, as IEEE 754 says and Rust promises. So where FPCR asks for that rounding
//! and for no flushing, a result that is a normal number above the smallest one has the right bits, whatever the
//! operands (an operand that is a NaN or an infinity never gives one, but for a finite number divided
//! by an infinity, which gives zero). The only flag that such a result can raise is inexact: so it must be set already.
//! The smallest normal number is left out, as underflow is detected before rounding.

use std::cmp::Ordering;

use super::{Env, Format, Rounding, flag};

impl Env {
    fn may_be_fast(&self) -> bool {
        self.rounding == Rounding::TieEven && !self.flush && self.fpsr & flag::IXC != 0
    }

    /// Addition, subtraction, multiplication, division.
    #[inline]
    pub(super) fn fast_binary(
        &self,
        format: Format,
        a: u64,
        b: u64,
        single: impl Fn(f32, f32) -> f32,
        double: impl Fn(f64, f64) -> f64,
    ) -> Option<u64> {
        if !self.may_be_fast() {
            return None;
        }
        match format {
            Format::Single => ordinary_single(single(f32::from_bits(a as u32), f32::from_bits(b as u32))),
            Format::Double => ordinary_double(double(f64::from_bits(a), f64::from_bits(b))),
            Format::Half => None,
        }
    }

    /// The square root.
    pub(super) fn fast_sqrt(&self, format: Format, a: u64) -> Option<u64> {
        if !self.may_be_fast() {
            return None;
        }
        match format {
            Format::Single => ordinary_single(f32::from_bits(a as u32).sqrt()),
            Format::Double => ordinary_double(f64::from_bits(a).sqrt()),
            Format::Half => None,
        }
    }

    /// A comparison of numbers raises no flag unless a denormal is flushed.
    pub(super) fn fast_compare(&self, format: Format, a: u64, b: u64) -> Option<Ordering> {
        if self.flush {
            return None;
        }
        match format {
            Format::Single => f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32)),
            Format::Double => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
            Format::Half => None,
        }
    }
}

fn ordinary_single(value: f32) -> Option<u64> {
    (value.is_normal() && value.abs() > f32::MIN_POSITIVE).then(|| u64::from(value.to_bits()))
}

fn ordinary_double(value: f64) -> Option<u64> {
    (value.is_normal() && value.abs() > f64::MIN_POSITIVE).then(|| value.to_bits())
}
