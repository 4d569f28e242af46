//! A random source whose streams never change: the seed in a report finds the same sequences next year.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// ChaCha8 with a few ways to draw from it. Only raw 64-bit draws are used, because their values are promised
/// to be stable.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of `batch` under `seed`. Each batch has its own, so that it can be repeated alone.
    pub(super) fn new(seed: u64, batch: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(batch);
        Self(rng)
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub(super) fn word(&mut self) -> u32 {
        (self.bits() >> 32) as u32
    }

    /// A number in `0..n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.bits() % n as u64) as usize }
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A random element of a list that must not be empty.
    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// A V register: floating-point numbers of one size, or two integers.
    pub(super) fn nasty_vector(&mut self) -> u128 {
        // Bits of fraction and of exponent.
        let (fraction, exponent) = match self.below(8) {
            0 => return u128::from(self.nasty()) << 64 | u128::from(self.nasty()),
            1 => (10, 5),
            2..5 => (23, 8),
            _ => (52, 11),
        };
        let bits = 1 + fraction + exponent;
        (0..128 / bits).fold(0, |all, i| all | u128::from(self.nasty_float(fraction, exponent)) << (i * bits))
    }

    /// A floating-point number: zeros, denormals, borders, infinities, NaNs of both kinds, numbers near one,
    /// near the borders of integers, with few bits set or many.
    fn nasty_float(&mut self, fraction: u32, exponent: u32) -> u64 {
        let (mask, special, bias) = ((1 << fraction) - 1, (1 << exponent) - 1, (1 << (exponent - 1)) - 1);
        let sign = (self.bits() & 1) << (fraction + exponent);
        let noise = self.bits() & mask;
        let few = match self.below(4) {
            0 => 0,
            1 => mask,
            2 => 1 << self.below(fraction as usize),
            _ => noise & (mask << self.below(fraction as usize)) & mask,
        };
        let offset = |random: &mut Self, range: usize| random.below(2 * range + 1) as u64;
        let (field, fraction_bits) = match self.below(16) {
            0 => (0, 0),
            1 => (0, few),
            2 => (0, noise),
            3 => (1, few),
            4 => (special, 0),
            5 => (special, noise | 1 << (fraction - 1)),
            6 => (special, noise >> 1 | 1),
            7 => (special - 1, few),
            8 | 9 => (bias - 3 + offset(self, 3), few),
            10 | 11 => (bias - 3 + offset(self, 3), noise),
            12 => (bias + u64::from(*self.pick(&[6_u8, 7, 14, 15, 30, 31, 32, 52, 53, 62, 63, 64])), few),
            13 => (offset(self, fraction as usize), noise),
            14 => (self.bits(), few),
            _ => (self.bits(), noise),
        };
        sign | (field & special) << fraction | fraction_bits
    }

    /// A register value that finds errors: zero, all ones, sign boundaries of each size, small numbers, runs of ones, noise.
    pub(super) fn nasty(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            u64::MAX,
            0x7f,
            0x80,
            0x7fff,
            0x8000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
            0xffff_ffff_8000_0000,
            0xffff_ffff_7fff_ffff,
            0xaaaa_aaaa_5555_5555,
        ];
        match self.below(8) {
            0..3 => *self.pick(&EDGES),
            3 => self.bits() & 0x7f,
            4 => (self.bits() & 0x7f).wrapping_neg(),
            5 => (u64::MAX >> self.below(64)).rotate_left(self.below(64) as u32),
            _ => self.bits(),
        }
    }
}
