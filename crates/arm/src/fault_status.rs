//! DFSC and IFSC: the fault status codes of AArch64 aborts.

use core::fmt;

/// The cause of an abort: `ISS[5:0]` of a data or instruction abort.
///
/// `level` is the lookup level of the table walk, -1 to 3 (-2 where `FEAT_D128` defines it). Codes that DDI
/// 0487 does not allocate are [`FaultStatus::Reserved`].
///
/// Source: DDI 0487, `ESR_EL1`, ISS of a data abort, field DFSC; `AArch64.FaultSyndrome`, `EncodeLDFSC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultStatus {
    /// Address size fault at a lookup level.
    AddressSize {
        /// Lookup level.
        level: i8,
    },
    /// Translation fault at a lookup level.
    Translation {
        /// Lookup level.
        level: i8,
    },
    /// Access flag fault at a lookup level.
    AccessFlag {
        /// Lookup level.
        level: i8,
    },
    /// Permission fault at a lookup level.
    Permission {
        /// Lookup level.
        level: i8,
    },
    /// Synchronous external abort, not on a table walk.
    External,
    /// Synchronous external abort on the table walk.
    ExternalOnWalk {
        /// The lookup level of the unreadable descriptor.
        level: i8,
    },
    /// Synchronous parity or ECC error on memory access, not on a table walk (without `FEAT_RAS`).
    Ecc,
    /// Synchronous parity or ECC error on the table walk (without `FEAT_RAS`).
    EccOnWalk {
        /// The lookup level of the unreadable descriptor.
        level: i8,
    },
    /// Synchronous tag check fault (`FEAT_MTE2`); as the DFSC of an SError, an asynchronous SError.
    TagCheck,
    /// Alignment fault.
    Alignment,
    /// Granule protection fault, not on a table walk.
    GranuleProtection,
    /// Granule protection fault on the table walk.
    GranuleProtectionOnWalk {
        /// Lookup level.
        level: i8,
    },
    /// TLB conflict abort.
    TlbConflict,
    /// Unsupported atomic hardware update fault.
    UnsupportedAtomicUpdate,
    /// IMPLEMENTATION DEFINED: lockdown.
    Lockdown,
    /// IMPLEMENTATION DEFINED: unsupported exclusive or atomic access.
    UnsupportedExclusive,
    /// A code that is not allocated, 0 to 0x3f.
    Reserved(u8),
}

/// The meanings of all codes.
const ALL: [FaultStatus; 64] = {
    let mut all = [FaultStatus::External; 64];
    let mut bits = 0;
    while bits < all.len() {
        all[bits] = FaultStatus::decoded(bits as u8);
        bits += 1;
    }
    all
};

impl FaultStatus {
    /// The meaning of a 6-bit code; bits `[7:6]` are ignored.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        ALL[bits as usize & 0x3f]
    }

    const fn decoded(bits: u8) -> Self {
        let low = (bits & 3) as i8;
        match bits {
            0x00..=0x03 => Self::AddressSize { level: low },
            0x04..=0x07 => Self::Translation { level: low },
            0x08..=0x0b => Self::AccessFlag { level: low },
            0x0c..=0x0f => Self::Permission { level: low },
            0x10 => Self::External,
            0x11 => Self::TagCheck,
            0x12 => Self::ExternalOnWalk { level: -2 },
            0x13 => Self::ExternalOnWalk { level: -1 },
            0x14..=0x17 => Self::ExternalOnWalk { level: low },
            0x18 => Self::Ecc,
            0x1b => Self::EccOnWalk { level: -1 },
            0x1c..=0x1f => Self::EccOnWalk { level: low },
            0x21 => Self::Alignment,
            0x22 => Self::GranuleProtectionOnWalk { level: -2 },
            0x23 => Self::GranuleProtectionOnWalk { level: -1 },
            0x24..=0x27 => Self::GranuleProtectionOnWalk { level: low },
            0x28 => Self::GranuleProtection,
            0x29 => Self::AddressSize { level: -1 },
            0x2a => Self::Translation { level: -2 },
            0x2b => Self::Translation { level: -1 },
            0x2c => Self::AddressSize { level: -2 },
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedAtomicUpdate,
            0x34 => Self::Lockdown,
            0x35 => Self::UnsupportedExclusive,
            _ => Self::Reserved(bits),
        }
    }

    /// The 6-bit code.
    ///
    /// A level that the architecture does not encode for the fault becomes the nearest one that it does
    /// encode. A program can write such a level; no hardware reports it.
    pub const fn bits(self) -> u8 {
        match self {
            Self::AddressSize { level: ..=-2 } => 0x2c,
            Self::AddressSize { level: -1 } => 0x29,
            Self::AddressSize { level } => level_0_to_3(level),
            Self::Translation { level: ..=-2 } => 0x2a,
            Self::Translation { level: -1 } => 0x2b,
            Self::Translation { level } => 0x04 | level_0_to_3(level),
            Self::AccessFlag { level } => 0x08 | level_0_to_3(level),
            Self::Permission { level } => 0x0c | level_0_to_3(level),
            Self::External => 0x10,
            Self::TagCheck => 0x11,
            Self::ExternalOnWalk { level: ..=-2 } => 0x12,
            Self::ExternalOnWalk { level: -1 } => 0x13,
            Self::ExternalOnWalk { level } => 0x14 | level_0_to_3(level),
            Self::Ecc => 0x18,
            Self::EccOnWalk { level: ..=-1 } => 0x1b,
            Self::EccOnWalk { level } => 0x1c | level_0_to_3(level),
            Self::Alignment => 0x21,
            Self::GranuleProtectionOnWalk { level: ..=-2 } => 0x22,
            Self::GranuleProtectionOnWalk { level: -1 } => 0x23,
            Self::GranuleProtectionOnWalk { level } => 0x24 | level_0_to_3(level),
            Self::GranuleProtection => 0x28,
            Self::TlbConflict => 0x30,
            Self::UnsupportedAtomicUpdate => 0x31,
            Self::Lockdown => 0x34,
            Self::UnsupportedExclusive => 0x35,
            Self::Reserved(bits) => bits & 0x3f,
        }
    }

    /// The lookup level, if the fault has one.
    pub const fn level(self) -> Option<i8> {
        match self {
            Self::AddressSize { level }
            | Self::Translation { level }
            | Self::AccessFlag { level }
            | Self::Permission { level }
            | Self::ExternalOnWalk { level }
            | Self::EccOnWalk { level }
            | Self::GranuleProtectionOnWalk { level } => Some(level),
            _ => None,
        }
    }

    /// Returns true for an external abort or an ECC error: the hardware could not deliver the data.
    pub const fn is_external(self) -> bool {
        matches!(self, Self::External | Self::ExternalOnWalk { .. } | Self::Ecc | Self::EccOnWalk { .. })
    }

    /// Returns true for an external abort or ECC error of the table walk.
    pub const fn is_external_on_walk(self) -> bool {
        matches!(self, Self::ExternalOnWalk { .. } | Self::EccOnWalk { .. })
    }
}

/// Bits `[1:0]` of a code that holds a level.
const fn level_0_to_3(level: i8) -> u8 {
    match level {
        ..=0 => 0,
        1 => 1,
        2 => 2,
        _ => 3,
    }
}

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AddressSize { .. } => "address size fault",
            Self::Translation { .. } => "translation fault",
            Self::AccessFlag { .. } => "access flag fault",
            Self::Permission { .. } => "permission fault",
            Self::External => "synchronous external abort",
            Self::ExternalOnWalk { .. } => "synchronous external abort on table walk",
            Self::Ecc => "synchronous parity or ECC error",
            Self::EccOnWalk { .. } => "synchronous parity or ECC error on table walk",
            Self::TagCheck => "synchronous tag check fault",
            Self::Alignment => "alignment fault",
            Self::GranuleProtection => "granule protection fault",
            Self::GranuleProtectionOnWalk { .. } => "granule protection fault on table walk",
            Self::TlbConflict => "TLB conflict abort",
            Self::UnsupportedAtomicUpdate => "unsupported atomic hardware update fault",
            Self::Lockdown => "implementation defined fault (lockdown)",
            Self::UnsupportedExclusive => {
                "implementation defined fault (unsupported exclusive or atomic access)"
            }
            Self::Reserved(_) => "reserved fault status code",
        };
        f.write_str(text)?;
        match self.level() {
            Some(level) => write!(f, ", level {level}"),
            None => Ok(()),
        }
    }
}
