//! Bits into numbers, and NaNs.

use super::{Env, Format, flag};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    Finite,
    Infinity,
    QuietNan,
    SignalingNan,
}

/// A value taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) class: Class,
    pub(super) negative: bool,
    /// A finite number is `mantissa` times 2^`exponent`.
    pub(super) exponent: i32,
    /// Bit 63 is set if the number is finite.
    pub(super) mantissa: u64,
}

impl Number {
    pub(super) fn is_zero(&self) -> bool {
        self.class == Class::Zero
    }

    pub(super) fn is_infinite(&self) -> bool {
        self.class == Class::Infinity
    }

    pub(super) fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignalingNan)
    }
}

impl Env {
    /// `FPUnpack`: a denormal is a zero if FPCR.FZ says so, and half precision is not concerned.
    pub(super) fn unpack(&mut self, format: Format, value: u64) -> Number {
        let negative = value & format.sign_bit() != 0;
        let fraction = value & format.fraction_mask();
        let exponent = format.exponent(value);
        let special = |class| Number { class, negative, exponent: 0, mantissa: 0 };
        if exponent == format.special_exponent() {
            return special(match fraction {
                0 => Class::Infinity,
                _ if fraction & format.quiet_bit() != 0 => Class::QuietNan,
                _ => Class::SignalingNan,
            });
        }
        if exponent == 0 {
            if fraction != 0 && self.flush && format != Format::Half {
                self.raise(flag::IDC);
                return special(Class::Zero);
            }
            if fraction == 0 {
                return special(Class::Zero);
            }
        }
        finite(format, negative, exponent, fraction)
    }

    /// `FPUnpackCV`: as `unpack`, but half precision may be the alternative one, which has no infinities
    /// and no NaNs.
    pub(super) fn unpack_to_convert(&mut self, format: Format, value: u64) -> Number {
        let exponent = format.exponent(value);
        if format == Format::Half && self.alternative_half && exponent == format.special_exponent() {
            let negative = value & format.sign_bit() != 0;
            return finite(format, negative, exponent, value & format.fraction_mask());
        }
        self.unpack(format, value)
    }

    /// `FPProcessNaN`.
    pub(super) fn nan(&mut self, format: Format, value: u64) -> u64 {
        if value & format.quiet_bit() == 0 {
            self.raise(flag::IOC);
        }
        if self.default_nan { format.default_nan() } else { value | format.quiet_bit() }
    }

    /// `FPProcessNaNs`, `FPProcessNaNs3`: the first signaling NaN, else the first quiet one.
    pub(super) fn nans<const N: usize>(
        &mut self,
        format: Format,
        operands: [(&Number, u64); N],
    ) -> Option<u64> {
        let first = |class| operands.iter().find(|(number, _)| number.class == class);
        let (_, value) = first(Class::SignalingNan).or_else(|| first(Class::QuietNan))?;
        Some(self.nan(format, *value))
    }

    /// An invalid operation: the default NaN.
    pub(super) fn invalid(&mut self, format: Format) -> u64 {
        self.raise(flag::IOC);
        format.default_nan()
    }
}

fn finite(format: Format, negative: bool, exponent: u64, fraction: u64) -> Number {
    let (significand, exponent) =
        if exponent == 0 { (fraction, 1) } else { (fraction | 1 << format.fraction_bits(), exponent as i32) };
    let shift = significand.leading_zeros();
    Number {
        class: Class::Finite,
        negative,
        exponent: exponent - format.bias() - format.fraction_bits() as i32 - shift as i32,
        mantissa: significand << shift,
    }
}
