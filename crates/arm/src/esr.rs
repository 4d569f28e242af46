//! `ESR_ELx`.

use core::fmt;

use crate::abort::{DataAbort, InstructionAbort};
use crate::bits::{bit, field, set_bit};
use crate::{ExceptionClass, Fields, SError};

/// `ESR_ELx`: the reason for an exception.
///
/// EC `[31:26]`, IL `[25]`, ISS `[24:0]`, ISS2 `[55:32]`. Source: DDI 0487, D24.2 `ESR_EL1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Esr(u64);

/// The ISS of an [`Esr`], decoded for the classes that a memory error can raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Syndrome {
    /// EC 0x24, 0x25.
    DataAbort(DataAbort),
    /// EC 0x20, 0x21.
    InstructionAbort(InstructionAbort),
    /// EC 0x2f.
    SError(SError),
    /// Any other class, with its ISS.
    Other(u32),
}

impl Esr {
    /// The ISS, `[24:0]`.
    pub const ISS_MASK: u64 = 0x01ff_ffff;
    /// ISS2, `[55:32]`.
    pub const ISS2_MASK: u64 = 0x00ff_ffff_0000_0000;
    /// IL, `[25]`: the instruction is 32 bits long.
    pub const IL: u64 = 1 << 25;

    /// The ESR with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// An ESR from its parts; bits `[31:25]` of `iss` are ignored.
    pub const fn new(class: ExceptionClass, il: bool, iss: u32) -> Self {
        Self((class.bits() as u64) << 26 | set_bit(25, il) | iss as u64 & Self::ISS_MASK)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// EC, `[31:26]`.
    pub const fn ec(self) -> ExceptionClass {
        ExceptionClass::from_bits(field(self.0, 31, 26) as u8)
    }

    /// IL, `[25]`.
    pub const fn il(self) -> bool {
        bit(self.0, 25)
    }

    /// ISS, `[24:0]`.
    pub const fn iss(self) -> u32 {
        (self.0 & Self::ISS_MASK) as u32
    }

    /// ISS2, `[55:32]`, right-aligned: 24 bits.
    pub const fn iss2(self) -> u32 {
        field(self.0, 55, 32) as u32
    }

    /// The same ESR with another ISS2, 24 bits; bits `[31:24]` of `iss2` are ignored.
    #[must_use]
    pub const fn with_iss2(self, iss2: u32) -> Self {
        Self(self.0 & !Self::ISS2_MASK | (iss2 as u64) << 32 & Self::ISS2_MASK)
    }

    /// The same abort of an instruction fetch: EC 0x24 and 0x25 become 0x20 and 0x21, which differ by one
    /// bit. `None` if this is not a data abort.
    #[must_use]
    pub const fn as_instruction_abort(self) -> Option<Self> {
        const DATA: u64 = 1 << 28;
        match self.ec() {
            ExceptionClass::DATA_ABORT_LOWER | ExceptionClass::DATA_ABORT_SAME => Some(Self(self.0 & !DATA)),
            _ => None,
        }
    }

    /// The ISS, decoded by class.
    #[inline]
    pub const fn syndrome(self) -> Syndrome {
        match self.ec() {
            ExceptionClass::DATA_ABORT_LOWER | ExceptionClass::DATA_ABORT_SAME => {
                Syndrome::DataAbort(DataAbort::from_iss(self.iss()))
            }
            ExceptionClass::INSTRUCTION_ABORT_LOWER | ExceptionClass::INSTRUCTION_ABORT_SAME => {
                Syndrome::InstructionAbort(InstructionAbort::from_iss(self.iss()))
            }
            ExceptionClass::SERROR => Syndrome::SError(SError::from_iss(self.iss())),
            _ => Syndrome::Other(self.iss()),
        }
    }

    /// The named fields of ISS and ISS2 for this class, from the most significant bit down.
    pub fn fields(self) -> Fields {
        Fields::of(self)
    }
}

impl Syndrome {
    /// `ISS[24:0]`.
    pub const fn iss(&self) -> u32 {
        match self {
            Self::DataAbort(abort) => abort.iss(),
            Self::InstructionAbort(abort) => abort.iss(),
            Self::SError(serror) => serror.iss(),
            Self::Other(iss) => *iss,
        }
    }
}

/// `0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort`.
impl fmt::Display for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x} {}", self.0, self.ec())?;
        f.write_str(if self.il() { ", IL" } else { "" })?;
        match self.syndrome() {
            Syndrome::DataAbort(abort) => write!(f, ", {abort}")?,
            Syndrome::InstructionAbort(abort) => write!(f, ", {abort}")?,
            Syndrome::SError(serror) => write!(f, ", {serror}")?,
            Syndrome::Other(_) => {
                let mut separator = ",";
                for field in self.fields().filter(|field| field.lsb < 32) {
                    write!(f, "{separator} {field}")?;
                    separator = "";
                }
            }
        }
        if self.iss2() != 0 {
            write!(f, ", ISS2 {:#x}", self.iss2())?;
        }
        match field(self.0, 63, 56) {
            0 => Ok(()),
            res0 => write!(f, ", RES0[63:56] {res0:#x}"),
        }
    }
}

impl fmt::Debug for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Esr({self})")
    }
}
