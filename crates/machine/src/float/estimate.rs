//! Estimates of reciprocals and of reciprocal square roots: 8 bits, as the architecture defines them.

use super::unpack::Class;
use super::{Env, Format, flag};

/// `RecipEstimate`: of a number in 256 to 511, to a number in the same range.
fn recip(a: u64) -> u64 {
    let a = a * 2 + 1;
    ((1 << 19) / a).div_ceil(2)
}

/// `RecipSqrtEstimate`: of a number in 128 to 511, to a number in 256 to 511.
fn recip_sqrt(a: u64) -> u64 {
    let a = if a < 256 { a * 2 + 1 } else { ((a >> 1 << 1) + 1) * 2 };
    let mut b = 512;
    while a * (b + 1) * (b + 1) < 1 << 28 {
        b += 1;
    }
    b.div_ceil(2)
}

/// `UnsignedRecipEstimate`, of 32 bits.
pub(crate) fn unsigned_recip(value: u32) -> u32 {
    if value >> 31 == 0 { u32::MAX } else { (recip(u64::from(value >> 23)) as u32) << 23 }
}

/// `UnsignedRSqrtEstimate`, of 32 bits.
pub(crate) fn unsigned_recip_sqrt(value: u32) -> u32 {
    if value >> 30 == 0 { u32::MAX } else { (recip_sqrt(u64::from(value >> 23)) as u32) << 23 }
}

impl Env {
    /// `FPRecipEstimate`.
    pub(crate) fn recip_estimate(&mut self, format: Format, value: u64) -> u64 {
        let number = self.unpack(format, value);
        let negative = number.negative;
        match number.class {
            Class::QuietNan | Class::SignalingNan => return self.nan(format, value),
            Class::Infinity => return format.zero(negative),
            Class::Zero => {
                self.raise(flag::DZC);
                return format.infinity(negative);
            }
            Class::Finite => {}
        }
        // The number is 1.… times 2^top.
        let top = number.exponent + 63;
        let bias = format.bias();
        if top < -bias - 1 {
            self.raise(flag::OFC | flag::IXC);
            return if self.rounding.overflows_to_infinity(negative) {
                format.infinity(negative)
            } else {
                format.largest(negative)
            };
        }
        if self.flush && format != Format::Half && top >= bias - 1 {
            self.raise(flag::UFC);
            return format.zero(negative);
        }
        let estimate = recip(number.mantissa >> 55);
        // The biased exponent of the result: 2 × bias - 1 - (top + bias).
        let exponent = bias - 1 - top;
        let fraction_bits = format.fraction_bits();
        let fraction = (estimate & 0xff) << (fraction_bits - 8);
        let magnitude = match exponent {
            0 => fraction >> 1 | 1 << (fraction_bits - 1),
            -1 => fraction >> 2 | 1 << (fraction_bits - 2),
            _ => (exponent as u64) << fraction_bits | fraction,
        };
        format.zero(negative) | magnitude
    }

    /// `FPRSqrtEstimate`.
    pub(crate) fn rsqrt_estimate(&mut self, format: Format, value: u64) -> u64 {
        let number = self.unpack(format, value);
        match number.class {
            Class::QuietNan | Class::SignalingNan => return self.nan(format, value),
            Class::Zero => {
                self.raise(flag::DZC);
                return format.infinity(number.negative);
            }
            _ if number.negative => return self.invalid(format),
            Class::Infinity => return format.zero(false),
            Class::Finite => {}
        }
        let top = number.exponent + 63;
        let bias = format.bias();
        // An even biased exponent is an odd power of two.
        let is_even = (top + bias) & 1 == 0;
        let scaled = if is_even { number.mantissa >> 55 } else { number.mantissa >> 56 };
        let exponent = (3 * bias - 1 - (top + bias)) >> 1;
        let fraction = (recip_sqrt(scaled) & 0xff) << (format.fraction_bits() - 8);
        (exponent as u64) << format.fraction_bits() | fraction
    }

    /// `FPRecpX`: the exponent inverted, the fraction 0.
    pub(crate) fn recip_exponent(&mut self, format: Format, value: u64) -> u64 {
        let number = self.unpack(format, value);
        if number.is_nan() {
            return self.nan(format, value);
        }
        let special = format.special_exponent();
        let exponent = match format.exponent(value) {
            0 => special - 1,
            exponent => !exponent & special,
        };
        format.zero(number.negative) | exponent << format.fraction_bits()
    }
}
