//! Between precisions, to and from integers.

use super::round::split;
use super::unpack::Class;
use super::{Env, Format, Rounding, flag};

/// An integer format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Integer {
    /// 32 or 64.
    pub(crate) bits: u32,
    pub(crate) unsigned: bool,
    /// Bits of fraction, for fixed point.
    pub(crate) fraction: u32,
}

impl Integer {
    /// The magnitudes of the lowest and the highest.
    const fn limits(self) -> (u128, u128) {
        let half = 1 << (self.bits - 1);
        if self.unsigned { (0, 2 * half - 1) } else { (half, half - 1) }
    }

    /// The low bits of a number.
    const fn wrap(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.bits))
    }
}

impl Env {
    /// `FPConvert` with FPCR's rounding.
    pub(crate) fn convert(&mut self, from: Format, to: Format, value: u64) -> u64 {
        self.convert_by(from, to, value, self.rounding)
    }

    /// `FPConvert`.
    pub(crate) fn convert_by(&mut self, from: Format, to: Format, value: u64, rounding: Rounding) -> u64 {
        let number = self.unpack_to_convert(from, value);
        let negative = number.negative;
        // The alternative half precision has no NaNs and no infinities.
        let to_alternative = to == Format::Half && self.alternative_half;
        match number.class {
            Class::QuietNan | Class::SignalingNan if to_alternative => {
                self.raise(flag::IOC);
                to.zero(negative)
            }
            Class::QuietNan | Class::SignalingNan => {
                if number.class == Class::SignalingNan {
                    self.raise(flag::IOC);
                }
                if self.default_nan { to.default_nan() } else { convert_nan(from, to, value) }
            }
            Class::Infinity if to_alternative => {
                self.raise(flag::IOC);
                to.zero(negative) | (to.sign_bit() - 1)
            }
            Class::Infinity => to.infinity(negative),
            Class::Zero => to.zero(negative),
            Class::Finite => self.round_by(to, rounding, negative, number.exponent, number.mantissa.into()),
        }
    }

    /// `FPToFixed`.
    pub(crate) fn fp_to_fixed(&mut self, format: Format, value: u64, to: Integer, rounding: Rounding) -> u64 {
        let number = self.unpack(format, value);
        if number.is_zero() {
            return 0;
        }
        if number.is_nan() {
            self.raise(flag::IOC);
            return 0;
        }
        let negative = number.negative;
        let (lowest, highest) = to.limits();
        let limit = if negative { lowest } else { highest };
        let exponent = number.exponent + to.fraction as i32;
        let mantissa = u128::from(number.mantissa);
        let (magnitude, remainder) = match exponent {
            _ if number.is_infinite() => (u128::MAX, None),
            0..=63 => (mantissa << exponent, None),
            64.. => (u128::MAX, None),
            _ => split(mantissa, exponent.unsigned_abs()),
        };
        let goes_up =
            remainder.is_some_and(|remainder| rounding.increments(negative, magnitude as u64, remainder));
        let magnitude = magnitude.saturating_add(u128::from(goes_up));
        if magnitude > limit {
            self.raise(flag::IOC);
        } else if remainder.is_some() {
            self.raise(flag::IXC);
        }
        let magnitude = magnitude.min(limit) as u64;
        to.wrap(if negative { magnitude.wrapping_neg() } else { magnitude })
    }

    /// `FixedToFP`.
    pub(crate) fn fixed_to_fp(&mut self, format: Format, value: u64, from: Integer) -> u64 {
        let sign_extended = (value << (64 - from.bits)) as i64 >> (64 - from.bits);
        let negative = !from.unsigned && sign_extended < 0;
        let magnitude = if negative { sign_extended.unsigned_abs() } else { from.wrap(value) };
        if magnitude == 0 {
            return format.zero(false);
        }
        self.round(format, negative, -(from.fraction as i32), magnitude.into())
    }

    /// `FPRoundInt`: to an integer in the same format. With `exact`, what is lost is inexact.
    pub(crate) fn round_to_integer(
        &mut self,
        format: Format,
        value: u64,
        rounding: Rounding,
        exact: bool,
    ) -> u64 {
        let number = self.unpack(format, value);
        let negative = number.negative;
        match number.class {
            Class::QuietNan | Class::SignalingNan => return self.nan(format, value),
            Class::Infinity => return format.infinity(negative),
            Class::Zero => return format.zero(negative),
            Class::Finite if number.exponent >= 0 => return value,
            Class::Finite => {}
        }
        let (kept, remainder) = split(number.mantissa.into(), number.exponent.unsigned_abs());
        let Some(remainder) = remainder else { return value };
        if exact {
            self.raise(flag::IXC);
        }
        let integer = kept + u128::from(rounding.increments(negative, kept as u64, remainder));
        if integer == 0 {
            return format.zero(negative);
        }
        // An integer that the format holds: nothing is rounded.
        self.round_by(format, Rounding::Zero, negative, 0, integer)
    }
}

/// `FPConvertNaN`: the upper bits of the fraction stay, and it is quiet.
fn convert_nan(from: Format, to: Format, value: u64) -> u64 {
    let negative = value & from.sign_bit() != 0;
    let fraction = (value & from.fraction_mask()) << (52 - from.fraction_bits());
    to.infinity(negative) | to.quiet_bit() | fraction >> (52 - to.fraction_bits())
}
