//! The ISS of SError exceptions.

use core::fmt;

use crate::FaultStatus;
use crate::bits::{bit, field, set_bit};

/// AET, `ISS[12:10]` of an SError: the state in which the error left the PE (`FEAT_RAS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AsynchronousErrorType {
    /// Uncontainable, UC (0b000).
    #[default]
    Uncontainable,
    /// Unrecoverable state, UEU (0b001).
    Unrecoverable,
    /// Restartable state, UEO (0b010).
    Restartable,
    /// Recoverable state, UER (0b011).
    Recoverable,
    /// Corrected, CE (0b110).
    Corrected,
    /// Not allocated: 0b100, 0b101 or 0b111.
    Reserved(u8),
}

impl AsynchronousErrorType {
    /// The type for a 3-bit value; bits `[7:3]` are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Uncontainable,
            1 => Self::Unrecoverable,
            2 => Self::Restartable,
            3 => Self::Recoverable,
            6 => Self::Corrected,
            other => Self::Reserved(other),
        }
    }

    /// The 3-bit value.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Uncontainable => 0,
            Self::Unrecoverable => 1,
            Self::Restartable => 2,
            Self::Recoverable => 3,
            Self::Corrected => 6,
            Self::Reserved(bits) => bits & 7,
        }
    }
}

impl fmt::Display for AsynchronousErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncontainable => f.write_str("UC"),
            Self::Unrecoverable => f.write_str("UEU"),
            Self::Restartable => f.write_str("UEO"),
            Self::Recoverable => f.write_str("UER"),
            Self::Corrected => f.write_str("CE"),
            Self::Reserved(bits) => write!(f, "{bits:#05b}"),
        }
    }
}

/// The ISS of an SError, `ESR_ELx[24:0]` with EC 0x2f. `VSESR_EL2` and `DISR_EL1` have the same format.
///
/// Source: DDI 0487, `ESR_EL1`, "ISS encoding for an SError exception".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SError {
    /// IDS, `[24]`: the rest is IMPLEMENTATION DEFINED. KVM sets it alone for an SError without an ESR.
    pub ids: bool,
    /// IESB, `[13]`: synchronised by an implicit error synchronisation event.
    pub iesb: bool,
    /// AET, `[12:10]`: asynchronous error type.
    pub aet: AsynchronousErrorType,
    /// EA, `[9]`: IMPLEMENTATION DEFINED classification of an external abort.
    pub ea: bool,
    /// DFSC, `[5:0]`: 0x11 for an asynchronous SError, 0 for an uncategorised one.
    pub dfsc: u8,
    /// The bits that `FEAT_RAS` leaves RES0 (later extensions use some), in place: `[23:14]`, `[8:6]`.
    pub rest: u32,
}

impl SError {
    const REST: u32 = 0x00ff_c1c0;

    /// Decodes `ISS[24:0]`; bits `[31:25]` are ignored.
    pub const fn from_iss(iss: u32) -> Self {
        Self {
            ids: bit(iss as u64, 24),
            iesb: bit(iss as u64, 13),
            aet: AsynchronousErrorType::from_bits(field(iss as u64, 12, 10) as u8),
            ea: bit(iss as u64, 9),
            dfsc: field(iss as u64, 5, 0) as u8,
            rest: iss & Self::REST,
        }
    }

    /// `ISS[24:0]`.
    pub const fn iss(&self) -> u32 {
        (set_bit(24, self.ids)
            | set_bit(13, self.iesb)
            | (self.aet.bits() as u64) << 10
            | set_bit(9, self.ea)
            | (self.dfsc & 0x3f) as u64) as u32
            | self.rest & Self::REST
    }
}

impl fmt::Display for SError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ids {
            return write!(f, "IDS implementation defined syndrome {:#x}", self.iss() & 0x00ff_ffff);
        }
        if self.rest != 0 {
            write!(f, "rest={:#x} ", self.rest)?;
        }
        if self.iesb {
            f.write_str("IESB ")?;
        }
        write!(f, "AET={} ", self.aet)?;
        if self.ea {
            f.write_str("EA ")?;
        }
        let text = match FaultStatus::from_bits(self.dfsc) {
            FaultStatus::AddressSize { level: 0 } => "uncategorised error",
            FaultStatus::TagCheck => "asynchronous SError",
            _ => "reserved",
        };
        write!(f, "DFSC {:#04x} {text}", self.dfsc)
    }
}
