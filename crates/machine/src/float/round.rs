//! Exact numbers into bits.

use std::cmp::Ordering;

use super::{Env, Format, flag};

/// How a number that does not fit is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rounding {
    TieEven,
    Up,
    Down,
    Zero,
    TieAway,
    /// To the one with an odd last bit: for FCVTXN.
    Odd,
}

impl Rounding {
    /// Whether a magnitude `kept` with a remainder goes to the next one. `remainder` is how it compares
    /// with half a unit; it must not be zero.
    pub(super) fn increments(self, negative: bool, kept: u64, remainder: Ordering) -> bool {
        match self {
            Rounding::TieEven => {
                remainder == Ordering::Greater || (remainder == Ordering::Equal && kept & 1 == 1)
            }
            Rounding::TieAway => remainder != Ordering::Less,
            Rounding::Up => !negative,
            Rounding::Down => negative,
            Rounding::Zero | Rounding::Odd => false,
        }
    }

    /// Whether what is too large becomes an infinity, rather than the largest number.
    pub(super) fn overflows_to_infinity(self, negative: bool) -> bool {
        match self {
            Rounding::TieEven | Rounding::TieAway => true,
            Rounding::Up => !negative,
            Rounding::Down => negative,
            Rounding::Zero | Rounding::Odd => false,
        }
    }
}

/// `mantissa` without its low `drop` bits, and how these compare with half a unit; `None` if they are 0.
pub(super) fn split(mantissa: u128, drop: u32) -> (u128, Option<Ordering>) {
    let kept = mantissa.checked_shr(drop).unwrap_or(0);
    let rest = match drop {
        0 => 0,
        1..=127 => mantissa << (128 - drop),
        128 => mantissa,
        // Less than half, whatever it is.
        _ => u128::from(mantissa != 0),
    };
    (kept, (rest != 0).then(|| rest.cmp(&(1 << 127))))
}

impl Env {
    /// `FPRound` of `mantissa` times 2^`exponent`, which must not be zero. A low bit may stand for any
    /// number of bits below it if there are two or more bits to spare.
    pub(super) fn round(&mut self, format: Format, negative: bool, exponent: i32, mantissa: u128) -> u64 {
        self.round_by(format, self.rounding, negative, exponent, mantissa)
    }

    /// The same with a rounding that is not FPCR's. Underflow is detected before rounding.
    pub(super) fn round_by(
        &mut self,
        format: Format,
        rounding: Rounding,
        negative: bool,
        exponent: i32,
        mantissa: u128,
    ) -> u64 {
        let shift = mantissa.leading_zeros();
        let mantissa = mantissa << shift;
        // The number is 1.… times 2^top.
        let top = exponent + 127 - shift as i32;
        let smallest = 1 - format.bias();
        if self.flush && format != Format::Half && top < smallest {
            self.raise(flag::UFC);
            return format.zero(negative);
        }
        let denormal_by = (smallest - top).max(0) as u32;
        let (kept, remainder) = split(mantissa, 127 - format.fraction_bits() + denormal_by);
        let mut kept = kept as u64;
        if let Some(remainder) = remainder {
            if denormal_by > 0 {
                self.raise(flag::UFC);
            }
            if rounding.increments(negative, kept, remainder) {
                kept += 1;
            } else if rounding == Rounding::Odd {
                kept |= 1;
            }
        }
        // The leading one adds 1 to the exponent field, as does a carry out of the fraction.
        let field = if denormal_by > 0 { 0 } else { (top - smallest) as u64 };
        let magnitude = (field << format.fraction_bits()) + kept;
        let limit = format.infinity(false);
        if format == Format::Half && self.alternative_half {
            // All exponents are of numbers; too large a number is an invalid operation.
            if magnitude >= format.sign_bit() {
                self.raise(flag::IOC);
                return format.zero(negative) | (format.sign_bit() - 1);
            }
        } else if magnitude >= limit {
            self.raise(flag::OFC | flag::IXC);
            return if rounding.overflows_to_infinity(negative) {
                format.infinity(negative)
            } else {
                format.largest(negative)
            };
        }
        if remainder.is_some() {
            self.raise(flag::IXC);
        }
        format.zero(negative) | magnitude
    }
}
