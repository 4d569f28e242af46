//! Sums, products, quotients, roots, and what is made of them.

use super::unpack::{Class, Number};
use super::{Env, Format, Rounding, flag};

/// An exact number: `mantissa` times 2^`exponent`, the mantissa not above 2^126.
#[derive(Clone, Copy)]
struct Exact {
    negative: bool,
    exponent: i32,
    mantissa: u128,
}

impl From<&Number> for Exact {
    fn from(number: &Number) -> Self {
        Self {
            negative: number.negative,
            exponent: number.exponent - 62,
            mantissa: u128::from(number.mantissa) << 62,
        }
    }
}

/// A product; both are finite.
fn product(a: &Number, b: &Number) -> Exact {
    // The significands have 53 bits at most, at the top: the product's low 22 bits are 0.
    let mantissa = (u128::from(a.mantissa) * u128::from(b.mantissa)) >> 1;
    let exact = Exact { negative: a.negative != b.negative, exponent: a.exponent + b.exponent + 1, mantissa };
    if mantissa >> 126 == 0 {
        Exact { mantissa: mantissa << 1, exponent: exact.exponent - 1, ..exact }
    } else {
        exact
    }
}

/// A sum; the bits that are lost are or-ed into the lowest. `None` if it is zero.
///
/// Both mantissas must have bit 126 or 125 as their highest and 20 zeros at their low end: if the exponents are
/// so far apart that bits are lost, no more than a bit is lost at the top.
fn sum(a: Exact, b: Exact) -> Option<Exact> {
    let (large, small) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
    let distance = (large.exponent - small.exponent) as u32;
    let shifted = small.mantissa.checked_shr(distance).unwrap_or(0);
    let is_lossy = distance > 127 || shifted << distance != small.mantissa;
    let aligned = shifted | u128::from(is_lossy);
    if large.negative == small.negative {
        return Some(Exact { mantissa: large.mantissa + aligned, ..large });
    }
    let (negative, mantissa) = if large.mantissa >= aligned {
        (large.negative, large.mantissa - aligned)
    } else {
        (small.negative, aligned - large.mantissa)
    };
    (mantissa != 0).then_some(Exact { negative, mantissa, ..large })
}

impl Env {
    /// The sign of a zero that is the sum of numbers that cancel.
    fn exact_zero(&self, format: Format) -> u64 {
        format.zero(self.rounding == Rounding::Down)
    }

    fn round_sum(&mut self, format: Format, sum: Option<Exact>) -> u64 {
        match sum {
            None => self.exact_zero(format),
            Some(sum) => self.round(format, sum.negative, sum.exponent, sum.mantissa),
        }
    }

    /// `FPAdd`.
    pub(crate) fn add(&mut self, format: Format, a: u64, b: u64) -> u64 {
        if let Some(result) = self.fast_binary(format, a, b, |a, b| a + b, |a, b| a + b) {
            return result;
        }
        self.add_or_sub(format, a, b, false)
    }

    /// `FPSub`.
    pub(crate) fn sub(&mut self, format: Format, a: u64, b: u64) -> u64 {
        if let Some(result) = self.fast_binary(format, a, b, |a, b| a - b, |a, b| a - b) {
            return result;
        }
        self.add_or_sub(format, a, b, true)
    }

    fn add_or_sub(&mut self, format: Format, a: u64, b: u64, subtract: bool) -> u64 {
        let (x, mut y) = (self.unpack(format, a), self.unpack(format, b));
        if let Some(nan) = self.nans(format, [(&x, a), (&y, b)]) {
            return nan;
        }
        y.negative ^= subtract;
        match (x.class, y.class) {
            (Class::Infinity, Class::Infinity) if x.negative != y.negative => self.invalid(format),
            (Class::Infinity, _) => format.infinity(x.negative),
            (_, Class::Infinity) => format.infinity(y.negative),
            (Class::Zero, Class::Zero) if x.negative == y.negative => format.zero(x.negative),
            (Class::Zero, Class::Zero) => self.exact_zero(format),
            (Class::Zero, _) => self.round(format, y.negative, y.exponent, y.mantissa.into()),
            (_, Class::Zero) => self.round(format, x.negative, x.exponent, x.mantissa.into()),
            _ => self.round_sum(format, sum(Exact::from(&x), Exact::from(&y))),
        }
    }

    /// `FPMul`.
    pub(crate) fn mul(&mut self, format: Format, a: u64, b: u64) -> u64 {
        if let Some(result) = self.fast_binary(format, a, b, |a, b| a * b, |a, b| a * b) {
            return result;
        }
        self.multiply(format, a, b, false)
    }

    /// `FPMulX`: 0 times infinity is 2.
    pub(crate) fn mulx(&mut self, format: Format, a: u64, b: u64) -> u64 {
        self.multiply(format, a, b, true)
    }

    fn multiply(&mut self, format: Format, a: u64, b: u64, extended: bool) -> u64 {
        let (x, y) = (self.unpack(format, a), self.unpack(format, b));
        if let Some(nan) = self.nans(format, [(&x, a), (&y, b)]) {
            return nan;
        }
        let negative = x.negative != y.negative;
        match (x.class, y.class) {
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) if extended => {
                format.power_of_two(negative, 1, false)
            }
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => self.invalid(format),
            (Class::Infinity, _) | (_, Class::Infinity) => format.infinity(negative),
            (Class::Zero, _) | (_, Class::Zero) => format.zero(negative),
            _ => {
                let product = product(&x, &y);
                self.round(format, negative, product.exponent, product.mantissa)
            }
        }
    }

    /// `FPMulAdd`: `addend` + `a` × `b`, rounded once.
    pub(crate) fn mul_add(&mut self, format: Format, addend: u64, a: u64, b: u64) -> u64 {
        let (c, x, y) = (self.unpack(format, addend), self.unpack(format, a), self.unpack(format, b));
        let is_undefined = (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite());
        let nan = self.nans(format, [(&c, addend), (&x, a), (&y, b)]);
        if is_undefined && c.class == Class::QuietNan {
            return self.invalid(format);
        }
        if let Some(nan) = nan {
            return nan;
        }
        let negative = x.negative != y.negative;
        let product_is_infinite = x.is_infinite() || y.is_infinite();
        let product_is_zero = x.is_zero() || y.is_zero();
        if is_undefined || (c.is_infinite() && product_is_infinite && c.negative != negative) {
            return self.invalid(format);
        }
        if c.is_infinite() {
            return format.infinity(c.negative);
        }
        if product_is_infinite {
            return format.infinity(negative);
        }
        match (c.is_zero(), product_is_zero) {
            (true, true) if c.negative == negative => format.zero(negative),
            (true, true) => self.exact_zero(format),
            (false, true) => self.round(format, c.negative, c.exponent, c.mantissa.into()),
            (true, false) => {
                let product = product(&x, &y);
                self.round(format, negative, product.exponent, product.mantissa)
            }
            (false, false) => self.round_sum(format, sum(Exact::from(&c), product(&x, &y))),
        }
    }

    /// `FPDiv`.
    pub(crate) fn div(&mut self, format: Format, a: u64, b: u64) -> u64 {
        if let Some(result) = self.fast_binary(format, a, b, |a, b| a / b, |a, b| a / b) {
            return result;
        }
        let (x, y) = (self.unpack(format, a), self.unpack(format, b));
        if let Some(nan) = self.nans(format, [(&x, a), (&y, b)]) {
            return nan;
        }
        let negative = x.negative != y.negative;
        match (x.class, y.class) {
            (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => self.invalid(format),
            (Class::Infinity, _) => format.infinity(negative),
            (_, Class::Zero) => {
                self.raise(flag::DZC);
                format.infinity(negative)
            }
            (Class::Zero, _) | (_, Class::Infinity) => format.zero(negative),
            _ => {
                let (numerator, divisor) = (u128::from(x.mantissa) << 63, u128::from(y.mantissa));
                let rest = u128::from(numerator % divisor != 0);
                let quotient = (numerator / divisor) << 1 | rest;
                self.round(format, negative, x.exponent - y.exponent - 64, quotient)
            }
        }
    }

    /// `FPSqrt`.
    pub(crate) fn sqrt(&mut self, format: Format, a: u64) -> u64 {
        if let Some(result) = self.fast_sqrt(format, a) {
            return result;
        }
        let x = self.unpack(format, a);
        if x.is_nan() {
            return self.nan(format, a);
        }
        if x.is_zero() {
            return format.zero(x.negative);
        }
        if x.negative {
            return self.invalid(format);
        }
        if x.is_infinite() {
            return format.infinity(false);
        }
        // An even exponent, and a root of 64 bits.
        let shift = 64 - (x.exponent & 1);
        let square = u128::from(x.mantissa) << shift;
        let root = square.isqrt();
        let rest = u128::from(root * root != square);
        self.round(format, false, (x.exponent - shift) / 2 - 1, root << 1 | rest)
    }

    /// `FPRecipStepFused`: 2 - `a` × `b`.
    pub(crate) fn recip_step(&mut self, format: Format, a: u64, b: u64) -> u64 {
        self.step(format, a, b, format.power_of_two(false, 1, false), 0)
    }

    /// `FPRSqrtStepFused`: (3 - `a` × `b`) / 2.
    pub(crate) fn rsqrt_step(&mut self, format: Format, a: u64, b: u64) -> u64 {
        self.step(format, a, b, format.power_of_two(false, 1, true), 1)
    }

    /// `from` - `a` × `b`, halved `halvings` times; `from` halved if it is 0 times infinity.
    fn step(&mut self, format: Format, a: u64, b: u64, from: u64, halvings: i32) -> u64 {
        let a = a ^ format.sign_bit();
        let (x, y) = (self.unpack(format, a), self.unpack(format, b));
        if let Some(nan) = self.nans(format, [(&x, a), (&y, b)]) {
            return nan;
        }
        let negative = x.negative != y.negative;
        match (x.class, y.class) {
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => {
                from - ((halvings as u64) << format.fraction_bits())
            }
            (Class::Infinity, _) | (_, Class::Infinity) => format.infinity(negative),
            (Class::Zero, _) | (_, Class::Zero) => from - ((halvings as u64) << format.fraction_bits()),
            _ => {
                let start = self.unpack(format, from);
                let sum = sum(Exact::from(&start), product(&x, &y));
                let half = |sum: Exact| Exact { exponent: sum.exponent - halvings, ..sum };
                self.round_sum(format, sum.map(half))
            }
        }
    }

    /// `FPMax` or, with `least`, `FPMin`.
    pub(crate) fn max_or_min(&mut self, format: Format, a: u64, b: u64, least: bool) -> u64 {
        let (x, y) = (self.unpack(format, a), self.unpack(format, b));
        if let Some(nan) = self.nans(format, [(&x, a), (&y, b)]) {
            return nan;
        }
        let first = (x.compare(&y) == std::cmp::Ordering::Greater) != least;
        let (chosen, value) = if first { (x, a) } else { (y, b) };
        match chosen.class {
            Class::Zero if least => format.zero(x.negative || y.negative),
            Class::Zero => format.zero(x.negative && y.negative),
            _ => value,
        }
    }

    /// `FPMaxNum` or, with `least`, `FPMinNum`: a number wins over a quiet NaN.
    pub(crate) fn max_or_min_number(&mut self, format: Format, a: u64, b: u64, least: bool) -> u64 {
        let (x, y) = (self.unpack(format, a), self.unpack(format, b));
        let last = format.infinity(!least);
        match (x.class == Class::QuietNan, y.class == Class::QuietNan) {
            (true, false) => self.max_or_min(format, last, b, least),
            (false, true) => self.max_or_min(format, a, last, least),
            _ => self.max_or_min(format, a, b, least),
        }
    }
}
