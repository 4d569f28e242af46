//! The ISS of data and instruction aborts.

use core::fmt;

use crate::FaultStatus;
use crate::bits::{bit, field, set_bit};

/// SET, `ISS[12:11]`: the state in which a synchronous external abort left the PE (`FEAT_RAS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ErrorState {
    /// Recoverable state, UER (0b00).
    #[default]
    Recoverable,
    /// 0b01, not allocated.
    Reserved,
    /// Uncontainable, UC (0b10).
    Uncontainable,
    /// Restartable state, UEO (0b11).
    Restartable,
}

impl ErrorState {
    /// The state for a 2-bit value; bits `[7:2]` are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Recoverable,
            1 => Self::Reserved,
            2 => Self::Uncontainable,
            _ => Self::Restartable,
        }
    }

    /// The 2-bit value.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Recoverable => 0,
            Self::Reserved => 1,
            Self::Uncontainable => 2,
            Self::Restartable => 3,
        }
    }
}

impl fmt::Display for ErrorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recoverable => "UER",
            Self::Reserved => "0b01",
            Self::Uncontainable => "UC",
            Self::Restartable => "UEO",
        })
    }
}

/// SAS, `ISS[23:22]`: the size of the access that aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AccessSize {
    /// 1 byte.
    #[default]
    Byte,
    /// 2 bytes.
    Halfword,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Doubleword,
}

impl AccessSize {
    /// The size for a 2-bit value; bits `[7:2]` are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Byte,
            1 => Self::Halfword,
            2 => Self::Word,
            _ => Self::Doubleword,
        }
    }

    /// The 2-bit value: log2 of the size in bytes.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// The size in bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> usize {
        1 << self as u8
    }
}

/// The ISS of a data abort, `ESR_ELx[24:0]` with EC 0x24 or 0x25.
///
/// Each bit of the ISS belongs to one field, so any value survives decoding. With `isv` false the
/// architecture gives `sas` to `ar` other meanings or none; the fields hold the bits unchanged.
///
/// Source: DDI 0487, `ESR_EL1`, "ISS encoding for an exception from a Data Abort"; `AArch64.AbortSyndrome`,
/// `LSInstructionSyndrome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataAbort {
    /// ISV, `[24]`: the fields `sas` to `ar` describe the access.
    pub isv: bool,
    /// SAS, `[23:22]`: access size.
    pub sas: AccessSize,
    /// SSE, `[21]`: the loaded value is sign-extended.
    pub sse: bool,
    /// SRT, `[20:16]`: the register transferred, 0 to 31.
    pub srt: u8,
    /// SF, `[15]`: the register is 64 bits wide. With `isv` clear: FnP, the FAR is not precise.
    pub sf: bool,
    /// AR, `[14]`: acquire or release semantics. With `isv` clear: PFV, `PFAR_ELx` is valid.
    pub ar: bool,
    /// VNCR, `[13]`: the access came through `VNCR_EL2`.
    pub vncr: bool,
    /// SET, `[12:11]`: error state of an external abort (for other faults: LST, the kind of access).
    pub set: ErrorState,
    /// FnV, `[10]`: the FAR is not valid.
    pub fnv: bool,
    /// EA, `[9]`: IMPLEMENTATION DEFINED classification of an external abort.
    pub ea: bool,
    /// CM, `[8]`: a cache maintenance or address translation instruction.
    pub cm: bool,
    /// S1PTW, `[7]`: a stage 2 fault on the stage 1 table walk.
    pub s1ptw: bool,
    /// WnR, `[6]`: a write, not a read.
    pub wnr: bool,
    /// DFSC, `[5:0]`: fault status.
    pub dfsc: FaultStatus,
}

impl DataAbort {
    /// A data abort with this fault status; all other fields are zero.
    pub const fn new(dfsc: FaultStatus) -> Self {
        Self::from_iss(dfsc.bits() as u32)
    }

    /// Decodes `ISS[24:0]`; bits `[31:25]` are ignored.
    #[inline]
    pub const fn from_iss(iss: u32) -> Self {
        let iss = iss as u64;
        Self {
            isv: bit(iss, 24),
            sas: AccessSize::from_bits(field(iss, 23, 22) as u8),
            sse: bit(iss, 21),
            srt: field(iss, 20, 16) as u8,
            sf: bit(iss, 15),
            ar: bit(iss, 14),
            vncr: bit(iss, 13),
            set: ErrorState::from_bits(field(iss, 12, 11) as u8),
            fnv: bit(iss, 10),
            ea: bit(iss, 9),
            cm: bit(iss, 8),
            s1ptw: bit(iss, 7),
            wnr: bit(iss, 6),
            dfsc: FaultStatus::from_bits(field(iss, 5, 0) as u8),
        }
    }

    /// `ISS[24:0]`.
    #[inline]
    pub const fn iss(&self) -> u32 {
        (set_bit(24, self.isv)
            | (self.sas.bits() as u64) << 22
            | set_bit(21, self.sse)
            | ((self.srt & 0x1f) as u64) << 16
            | set_bit(15, self.sf)
            | set_bit(14, self.ar)
            | set_bit(13, self.vncr)
            | (self.set.bits() as u64) << 11
            | set_bit(10, self.fnv)
            | set_bit(9, self.ea)
            | set_bit(8, self.cm)
            | set_bit(7, self.s1ptw)
            | set_bit(6, self.wnr)
            | self.dfsc.bits() as u64) as u32
    }
}

/// The ISS of an instruction abort, `ESR_ELx[24:0]` with EC 0x20 or 0x21.
///
/// Source: DDI 0487, `ESR_EL1`, "ISS encoding for an exception from an Instruction Abort".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstructionAbort {
    /// PFV, `[14]`: `PFAR_ELx` is valid.
    pub pfv: bool,
    /// SET, `[12:11]`: error state of an external abort.
    pub set: ErrorState,
    /// FnV, `[10]`: the FAR is not valid.
    pub fnv: bool,
    /// EA, `[9]`: IMPLEMENTATION DEFINED classification of an external abort.
    pub ea: bool,
    /// S1PTW, `[7]`: a stage 2 fault on the stage 1 table walk.
    pub s1ptw: bool,
    /// IFSC, `[5:0]`: fault status.
    pub ifsc: FaultStatus,
    /// The bits that DDI 0487 leaves RES0, in place: `[24:15]`, `[13]`, `[8]`, `[6]`.
    pub res0: u32,
}

impl InstructionAbort {
    const RES0: u32 = 0x01ff_a140;

    /// An instruction abort with this fault status; all other fields are zero.
    pub const fn new(ifsc: FaultStatus) -> Self {
        Self::from_iss(ifsc.bits() as u32)
    }

    /// Decodes `ISS[24:0]`; bits `[31:25]` are ignored.
    #[inline]
    pub const fn from_iss(iss: u32) -> Self {
        Self {
            pfv: bit(iss as u64, 14),
            set: ErrorState::from_bits(field(iss as u64, 12, 11) as u8),
            fnv: bit(iss as u64, 10),
            ea: bit(iss as u64, 9),
            s1ptw: bit(iss as u64, 7),
            ifsc: FaultStatus::from_bits(field(iss as u64, 5, 0) as u8),
            res0: iss & Self::RES0,
        }
    }

    /// `ISS[24:0]`.
    #[inline]
    pub const fn iss(&self) -> u32 {
        (set_bit(14, self.pfv)
            | (self.set.bits() as u64) << 11
            | set_bit(10, self.fnv)
            | set_bit(9, self.ea)
            | set_bit(7, self.s1ptw)
            | self.ifsc.bits() as u64) as u32
            | self.res0 & Self::RES0
    }
}

impl fmt::Display for DataAbort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.isv {
            let width = if self.sf { 'x' } else { 'w' };
            write!(f, "ISV {} bytes of {width}{}", self.sas.bytes(), self.srt)?;
            flags(f, &[("signed", self.sse), ("acquire/release", self.ar)])?;
            f.write_str(" ")?;
        } else if self.iss() & 0x00ff_c000 != 0 {
            write!(f, "ISS[23:14]={:#x} ", field(self.iss().into(), 23, 14))?;
        }
        state(f, self.set, self.dfsc)?;
        flags_first(f, &[("VNCR", self.vncr), ("FnV", self.fnv), ("EA", self.ea)])?;
        flags_first(f, &[("CM", self.cm), ("S1PTW", self.s1ptw), ("WnR", self.wnr)])?;
        fault(f, self.dfsc, "DFSC")
    }
}

impl fmt::Display for InstructionAbort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.res0 != 0 {
            write!(f, "RES0={:#x} ", self.res0)?;
        }
        state(f, self.set, self.ifsc)?;
        flags_first(f, &[("PFV", self.pfv), ("FnV", self.fnv), ("EA", self.ea)])?;
        flags_first(f, &[("S1PTW", self.s1ptw)])?;
        fault(f, self.ifsc, "IFSC")
    }
}

/// SET has a meaning only for external aborts that are not on a walk; for other faults it is printed if it is
/// not zero.
fn state(f: &mut fmt::Formatter<'_>, set: ErrorState, status: FaultStatus) -> fmt::Result {
    match status {
        FaultStatus::External => write!(f, "SET={set} "),
        _ if set.bits() != 0 => write!(f, "ISS[12:11]={:02b} ", set.bits()),
        _ => Ok(()),
    }
}

pub(crate) fn fault(f: &mut fmt::Formatter<'_>, status: FaultStatus, name: &str) -> fmt::Result {
    write!(f, "{name} {:#04x} {status}", status.bits())
}

fn flags(f: &mut fmt::Formatter<'_>, names: &[(&str, bool)]) -> fmt::Result {
    for (name, _) in names.iter().filter(|(_, on)| *on) {
        write!(f, " {name}")?;
    }
    Ok(())
}

fn flags_first(f: &mut fmt::Formatter<'_>, names: &[(&str, bool)]) -> fmt::Result {
    for (name, _) in names.iter().filter(|(_, on)| *on) {
        write!(f, "{name} ")?;
    }
    Ok(())
}
