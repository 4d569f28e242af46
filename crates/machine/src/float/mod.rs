//! Floating point to the bit as the Arm architecture defines it: all rounding modes, flushing to zero,
//! default NaNs, the order in which NaNs go through, and the cumulative flags.
//!
//! Source: DDI 0487, J1.3 "shared/functions/float": `FPUnpack`, `FPRound`, `FPProcessNaNs` and the functions of
//! the operations, by name. Values are the bits of their [`Format`]. Numbers are exact integers until they are
//! rounded once. The host's floating point is used only in `fast`, where the answer must be the same.

// a, b: bits; x, y: the numbers that they are.
#![allow(clippy::many_single_char_names)]

mod arithmetic;
mod compare;
mod convert;
mod estimate;
mod fast;
mod round;
mod unpack;

pub(crate) use convert::Integer;
pub(crate) use estimate::{unsigned_recip, unsigned_recip_sqrt};
pub(crate) use round::Rounding;

/// A precision. Numbers are in units of their formats' bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Half,
    Single,
    Double,
}

impl Format {
    /// By the log2 of its bytes.
    pub(crate) const fn of_size(size: u32) -> Format {
        match size {
            1 => Format::Half,
            2 => Format::Single,
            _ => Format::Double,
        }
    }

    /// Bits of the fraction.
    pub(crate) const fn fraction_bits(self) -> u32 {
        match self {
            Format::Half => 10,
            Format::Single => 23,
            Format::Double => 52,
        }
    }

    /// Bits of the exponent.
    const fn exponent_bits(self) -> u32 {
        match self {
            Format::Half => 5,
            Format::Single => 8,
            Format::Double => 11,
        }
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent_bits() - 1)) - 1
    }

    pub(crate) const fn sign_bit(self) -> u64 {
        1 << (self.exponent_bits() + self.fraction_bits())
    }

    const fn fraction_mask(self) -> u64 {
        (1 << self.fraction_bits()) - 1
    }

    /// The exponent of infinities and NaNs.
    const fn special_exponent(self) -> u64 {
        (1 << self.exponent_bits()) - 1
    }

    const fn exponent(self, value: u64) -> u64 {
        value >> self.fraction_bits() & self.special_exponent()
    }

    const fn quiet_bit(self) -> u64 {
        1 << (self.fraction_bits() - 1)
    }

    const fn zero(self, negative: bool) -> u64 {
        if negative { self.sign_bit() } else { 0 }
    }

    const fn infinity(self, negative: bool) -> u64 {
        self.zero(negative) | self.special_exponent() << self.fraction_bits()
    }

    /// The largest finite number.
    const fn largest(self, negative: bool) -> u64 {
        self.infinity(negative) - 1
    }

    /// 2^`power` times 1 or, with `half` set, 1.5.
    const fn power_of_two(self, negative: bool, power: i32, half: bool) -> u64 {
        let fraction = if half { self.quiet_bit() } else { 0 };
        self.zero(negative) | ((self.bias() + power) as u64) << self.fraction_bits() | fraction
    }

    const fn default_nan(self) -> u64 {
        self.infinity(false) | self.quiet_bit()
    }
}

/// Flags in FPSR.
pub(crate) mod flag {
    /// Invalid operation.
    pub(crate) const IOC: u64 = 1 << 0;
    /// Division by zero.
    pub(crate) const DZC: u64 = 1 << 1;
    /// Overflow.
    pub(crate) const OFC: u64 = 1 << 2;
    /// Underflow.
    pub(crate) const UFC: u64 = 1 << 3;
    /// Inexact.
    pub(crate) const IXC: u64 = 1 << 4;
    /// A denormal operand was flushed.
    pub(crate) const IDC: u64 = 1 << 7;
    /// An integer operation saturated.
    pub(crate) const QC: u64 = 1 << 27;
    /// All that FPSR holds on a CPU without AArch32.
    pub(super) const ALL: u64 = IOC | DZC | OFC | UFC | IXC | IDC | QC;
}

/// Bits of FPCR.
mod control {
    /// AHP, DN, FZ and RMode. Trapping is not supported: its enables are RAZ/WI.
    pub(super) const ALL: u64 = AHP | DN | FZ | 3 << RMODE;
    pub(super) const AHP: u64 = 1 << 26;
    pub(super) const DN: u64 = 1 << 25;
    pub(super) const FZ: u64 = 1 << 24;
    pub(super) const RMODE: u32 = 22;
}

/// FPCR and FPSR: what an operation depends on, and what it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Env {
    fpcr: u64,
    pub(crate) fpsr: u64,
    /// FPCR.RMode.
    pub(crate) rounding: Rounding,
    /// FPCR.FZ.
    pub(crate) flush: bool,
    /// FPCR.DN.
    default_nan: bool,
    /// FPCR.AHP.
    alternative_half: bool,
}

impl Env {
    /// All zero: to nearest, nothing flushed, NaNs go through, no flag.
    pub(crate) const fn new() -> Self {
        let rounding = Rounding::TieEven;
        Self { fpcr: 0, fpsr: 0, rounding, flush: false, default_nan: false, alternative_half: false }
    }

    pub(crate) const fn fpcr(&self) -> u64 {
        self.fpcr
    }

    pub(crate) const fn fpsr(&self) -> u64 {
        self.fpsr
    }

    pub(crate) fn set_fpcr(&mut self, value: u64) {
        let value = value & control::ALL;
        self.fpcr = value;
        self.rounding = match value >> control::RMODE & 3 {
            0 => Rounding::TieEven,
            1 => Rounding::Up,
            2 => Rounding::Down,
            _ => Rounding::Zero,
        };
        self.flush = value & control::FZ != 0;
        self.default_nan = value & control::DN != 0;
        self.alternative_half = value & control::AHP != 0;
    }

    pub(crate) fn set_fpsr(&mut self, value: u64) {
        self.fpsr = value & flag::ALL;
    }

    /// What FPCR.RMode says.
    pub(crate) const fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// Set cumulative flags. Source: `FPProcessException`, without trapping.
    pub(crate) fn raise(&mut self, flags: u64) {
        self.fpsr |= flags;
    }
}
