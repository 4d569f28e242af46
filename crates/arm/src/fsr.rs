//! `DFSR` and `IFSR`: the fault status registers of AArch32.

use core::fmt;

use crate::bits::{bit, field};
use crate::{AsynchronousErrorType, FaultStatus};

/// The encoding of the fault in an FSR, selected by `TTBCR.EAE`; bit `[9]` of the FSR repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FsrFormat {
    /// Short descriptors: FS is `{[10], [3:0]}`.
    Short,
    /// Long descriptors (LPAE): STATUS is `[5:0]`, coded as in AArch64.
    Lpae,
}

/// The fault that an FSR reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FsrStatus {
    /// A fault that AArch64 has as well.
    Fault(FaultStatus),
    /// Asynchronous SError: FS 0b10110, STATUS 0b010001 in a `DFSR`.
    AsynchronousSError,
    /// Asynchronous SError from a parity or ECC error: FS 0b11000, STATUS 0b011001.
    AsynchronousEcc,
    /// Debug exception: FS 0b00010, STATUS 0b100010.
    Debug,
    /// Fault on instruction cache maintenance: FS 0b00100.
    CacheMaintenance,
    /// Domain fault of a first or second level descriptor: FS 0b01001, 0b01011.
    Domain {
        /// 1 or 2.
        level: u8,
    },
    /// A code that is not allocated for the format.
    Reserved(u8),
}

impl FsrStatus {
    /// The meaning of the 5-bit FS of the short-descriptor format; bits `[7:5]` are ignored.
    ///
    /// Source: DDI 0487, G8.2 `DFSR` and `IFSR`, field FS.
    pub const fn from_short(fs: u8) -> Self {
        let fault = match fs & 0x1f {
            0x01 => FaultStatus::Alignment,
            0x02 => return Self::Debug,
            0x03 => FaultStatus::AccessFlag { level: 1 },
            0x04 => return Self::CacheMaintenance,
            0x05 => FaultStatus::Translation { level: 1 },
            0x06 => FaultStatus::AccessFlag { level: 2 },
            0x07 => FaultStatus::Translation { level: 2 },
            0x08 => FaultStatus::External,
            0x09 => return Self::Domain { level: 1 },
            0x0b => return Self::Domain { level: 2 },
            0x0c => FaultStatus::ExternalOnWalk { level: 1 },
            0x0d => FaultStatus::Permission { level: 1 },
            0x0e => FaultStatus::ExternalOnWalk { level: 2 },
            0x0f => FaultStatus::Permission { level: 2 },
            0x10 => FaultStatus::TlbConflict,
            0x14 => FaultStatus::Lockdown,
            0x15 => FaultStatus::UnsupportedExclusive,
            0x16 => return Self::AsynchronousSError,
            0x18 => return Self::AsynchronousEcc,
            0x19 => FaultStatus::Ecc,
            0x1c => FaultStatus::EccOnWalk { level: 1 },
            0x1e => FaultStatus::EccOnWalk { level: 2 },
            other => return Self::Reserved(other),
        };
        Self::Fault(fault)
    }

    /// The 5-bit FS of the short-descriptor format; `None` if that format has no code for it.
    pub const fn to_short(self) -> Option<u8> {
        Some(match self {
            Self::Fault(fault) => match fault {
                FaultStatus::Alignment => 0x01,
                FaultStatus::AccessFlag { level: 1 } => 0x03,
                FaultStatus::Translation { level: 1 } => 0x05,
                FaultStatus::AccessFlag { level: 2 } => 0x06,
                FaultStatus::Translation { level: 2 } => 0x07,
                FaultStatus::External => 0x08,
                FaultStatus::ExternalOnWalk { level: 1 } => 0x0c,
                FaultStatus::Permission { level: 1 } => 0x0d,
                FaultStatus::ExternalOnWalk { level: 2 } => 0x0e,
                FaultStatus::Permission { level: 2 } => 0x0f,
                FaultStatus::TlbConflict => 0x10,
                FaultStatus::Lockdown => 0x14,
                FaultStatus::UnsupportedExclusive => 0x15,
                FaultStatus::Ecc => 0x19,
                FaultStatus::EccOnWalk { level: 1 } => 0x1c,
                FaultStatus::EccOnWalk { level: 2 } => 0x1e,
                _ => return None,
            },
            Self::AsynchronousSError => 0x16,
            Self::AsynchronousEcc => 0x18,
            Self::Debug => 0x02,
            Self::CacheMaintenance => 0x04,
            Self::Domain { level: 1 } => 0x09,
            Self::Domain { level: 2 } => 0x0b,
            Self::Domain { .. } => return None,
            Self::Reserved(bits) => bits & 0x1f,
        })
    }

    /// The meaning of the 6-bit STATUS of the long-descriptor format; bits `[7:6]` are ignored.
    pub const fn from_lpae(status: u8) -> Self {
        match status & 0x3f {
            0x11 => Self::AsynchronousSError,
            0x19 => Self::AsynchronousEcc,
            0x22 => Self::Debug,
            // AArch32 has levels 1 to 3 for these faults and no negative levels; the codes stay raw.
            code @ (0x04 | 0x08 | 0x0c | 0x12..=0x14 | 0x1b | 0x1c | 0x23..=0x2c | 0x31) => {
                Self::Reserved(code)
            }
            code => match FaultStatus::from_bits(code) {
                FaultStatus::Reserved(code) => Self::Reserved(code),
                fault => Self::Fault(fault),
            },
        }
    }

    /// The 6-bit STATUS of the long-descriptor format; `None` if that format has no code for it.
    pub const fn to_lpae(self) -> Option<u8> {
        Some(match self {
            // Some codes have another meaning in this format, or none.
            Self::Fault(fault) => match Self::from_lpae(fault.bits()) {
                Self::Fault(_) => fault.bits(),
                _ => return None,
            },
            Self::AsynchronousSError => 0x11,
            Self::AsynchronousEcc => 0x19,
            Self::Debug => 0x22,
            Self::CacheMaintenance | Self::Domain { .. } => return None,
            Self::Reserved(bits) => bits & 0x3f,
        })
    }
}

impl fmt::Display for FsrStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::AsynchronousSError => f.write_str("asynchronous SError"),
            Self::AsynchronousEcc => f.write_str("asynchronous parity or ECC error"),
            Self::Debug => f.write_str("debug exception"),
            Self::CacheMaintenance => f.write_str("fault on instruction cache maintenance"),
            Self::Domain { level } => write!(f, "domain fault, level {level}"),
            Self::Reserved(code) => write!(f, "reserved fault status {code:#04x}"),
        }
    }
}

/// LPAE, bit `[9]`: it selects the encoding of the fault.
const LPAE: u32 = 1 << 9;

const fn format(bits: u32) -> FsrFormat {
    if bits & LPAE != 0 { FsrFormat::Lpae } else { FsrFormat::Short }
}

const fn status(bits: u32) -> FsrStatus {
    let bits = bits as u64;
    match format(bits as u32) {
        FsrFormat::Lpae => FsrStatus::from_lpae(field(bits, 5, 0) as u8),
        FsrFormat::Short => FsrStatus::from_short((field(bits, 10, 10) << 4 | field(bits, 3, 0)) as u8),
    }
}

const fn encode(format: FsrFormat, status: FsrStatus) -> Option<u32> {
    match format {
        FsrFormat::Lpae => match status.to_lpae() {
            Some(code) => Some(LPAE | code as u32),
            None => None,
        },
        FsrFormat::Short => match status.to_short() {
            Some(code) => Some((code as u32 & 0x10) << 6 | code as u32 & 0xf),
            None => None,
        },
    }
}

/// The members of both registers.
macro_rules! common_fields {
    ($register:ident, $far:literal) => {
        impl $register {
            /// The register with these bits.
            pub const fn from_bits(bits: u32) -> Self {
                Self(bits)
            }

            /// The register with this status and all else zero; `None` if the format has no code for it.
            pub const fn new(format: FsrFormat, status: FsrStatus) -> Option<Self> {
                match encode(format, status) {
                    Some(bits) => Some(Self(bits)),
                    None => None,
                }
            }

            /// The bits.
            pub const fn bits(self) -> u32 {
                self.0
            }

            /// LPAE, `[9]`: the format.
            pub const fn format(self) -> FsrFormat {
                format(self.0)
            }

            /// FS or STATUS, by format.
            pub const fn status(self) -> FsrStatus {
                status(self.0)
            }

            #[doc = concat!("FnV, `[16]`: `", $far, "` is not valid.")]
            pub const fn fnv(self) -> bool {
                bit(self.0 as u64, 16)
            }

            /// ExT, `[12]`: IMPLEMENTATION DEFINED classification of an external abort.
            pub const fn ext(self) -> bool {
                bit(self.0 as u64, 12)
            }
        }
    };
}

/// `DFSR`, the data fault status register (architecturally `ESR_EL1[31:0]` seen from AArch32).
///
/// Source: DDI 0487, G8.2 `DFSR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Dfsr(u32);

common_fields!(Dfsr, "DFAR");

impl Dfsr {
    /// AET, `[15:14]`: asynchronous error type (`FEAT_RAS`).
    pub const fn aet(self) -> u8 {
        field(self.0 as u64, 15, 14) as u8
    }

    /// CM, `[13]`: cache maintenance.
    pub const fn cm(self) -> bool {
        bit(self.0 as u64, 13)
    }

    /// WnR, `[11]`: a write, not a read.
    pub const fn wnr(self) -> bool {
        bit(self.0 as u64, 11)
    }

    /// Domain, `[7:4]`: in the short-descriptor format only.
    pub const fn domain(self) -> u8 {
        field(self.0 as u64, 7, 4) as u8
    }
}

impl fmt::Display for Dfsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_fsr(f, "DFSR", self.0)?;
        let flags = [("FnV", self.fnv()), ("CM", self.cm()), ("ExT", self.ext()), ("WnR", self.wnr())];
        for (name, _) in flags.iter().filter(|(_, on)| *on) {
            write!(f, " {name}")?;
        }
        match (self.aet(), self.status()) {
            (0, _) => {}
            (aet, FsrStatus::AsynchronousSError | FsrStatus::AsynchronousEcc) => {
                write!(f, " AET={}", AsynchronousErrorType::from_bits(aet))?;
            }
            (aet, _) => write!(f, " AET={aet:02b}")?,
        }
        if self.format() == FsrFormat::Short && self.domain() != 0 {
            write!(f, " domain={}", self.domain())?;
        }
        write!(f, ", {}", self.status())
    }
}

/// `IFSR`, the instruction fault status register (architecturally `IFSR32_EL2`).
///
/// Source: DDI 0487, G8.2 `IFSR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Ifsr(u32);

common_fields!(Ifsr, "IFAR");

impl fmt::Display for Ifsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_fsr(f, "IFSR", self.0)?;
        for (name, _) in [("FnV", self.fnv()), ("ExT", self.ext())].iter().filter(|(_, on)| *on) {
            write!(f, " {name}")?;
        }
        write!(f, ", {}", self.status())
    }
}

fn write_fsr(f: &mut fmt::Formatter<'_>, name: &str, bits: u32) -> fmt::Result {
    let form = match format(bits) {
        FsrFormat::Short => "short-descriptor",
        FsrFormat::Lpae => "LPAE",
    };
    write!(f, "{name} {bits:#x} {form}")
}

impl fmt::Debug for Dfsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Ifsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
