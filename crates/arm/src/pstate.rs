//! PSTATE, in the format in which `SPSR_ELx` and KVM hold it.

use core::fmt;

use crate::bits::{bit, field};

/// PSTATE as `SPSR_ELx` holds it, for either execution state.
///
/// Source: DDI 0487, C5.2 `SPSR_EL1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Pstate(u64);

/// An Exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExceptionLevel {
    /// Applications.
    El0,
    /// Operating systems.
    El1,
    /// Hypervisors.
    El2,
    /// Firmware.
    El3,
}

/// `PSTATE.M[4:0]`: execution state, Exception level and stack pointer or AArch32 mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// AArch64 at EL0.
    El0t,
    /// AArch64 at EL1 with `SP_EL0`.
    El1t,
    /// AArch64 at EL1 with `SP_EL1`.
    El1h,
    /// AArch64 at EL2 with `SP_EL0`.
    El2t,
    /// AArch64 at EL2 with `SP_EL2`.
    El2h,
    /// AArch64 at EL3 with `SP_EL0`.
    El3t,
    /// AArch64 at EL3 with `SP_EL3`.
    El3h,
    /// AArch32 User mode.
    User,
    /// AArch32 FIQ mode.
    Fiq,
    /// AArch32 IRQ mode.
    Irq,
    /// AArch32 Supervisor mode.
    Supervisor,
    /// AArch32 Monitor mode.
    Monitor,
    /// AArch32 Abort mode.
    Abort,
    /// AArch32 Hyp mode.
    Hyp,
    /// AArch32 Undefined mode.
    Undefined,
    /// AArch32 System mode.
    System,
    /// A value that no mode has.
    Reserved(u8),
}

impl Mode {
    /// The mode that `M[4:0]` names.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0x1f {
            0x00 => Self::El0t,
            0x04 => Self::El1t,
            0x05 => Self::El1h,
            0x08 => Self::El2t,
            0x09 => Self::El2h,
            0x0c => Self::El3t,
            0x0d => Self::El3h,
            0x10 => Self::User,
            0x11 => Self::Fiq,
            0x12 => Self::Irq,
            0x13 => Self::Supervisor,
            0x16 => Self::Monitor,
            0x17 => Self::Abort,
            0x1a => Self::Hyp,
            0x1b => Self::Undefined,
            0x1f => Self::System,
            other => Self::Reserved(other),
        }
    }

    /// `M[4:0]`.
    pub const fn bits(self) -> u8 {
        match self {
            Self::El0t => 0x00,
            Self::El1t => 0x04,
            Self::El1h => 0x05,
            Self::El2t => 0x08,
            Self::El2h => 0x09,
            Self::El3t => 0x0c,
            Self::El3h => 0x0d,
            Self::User => 0x10,
            Self::Fiq => 0x11,
            Self::Irq => 0x12,
            Self::Supervisor => 0x13,
            Self::Monitor => 0x16,
            Self::Abort => 0x17,
            Self::Hyp => 0x1a,
            Self::Undefined => 0x1b,
            Self::System => 0x1f,
            Self::Reserved(bits) => bits & 0x1f,
        }
    }

    /// The mode's Exception level (EL3 taken as AArch64); `None` for a reserved value.
    pub const fn exception_level(self) -> Option<ExceptionLevel> {
        match self {
            Self::El0t | Self::User => Some(ExceptionLevel::El0),
            Self::El2t | Self::El2h | Self::Hyp => Some(ExceptionLevel::El2),
            Self::El3t | Self::El3h | Self::Monitor => Some(ExceptionLevel::El3),
            Self::Reserved(_) => None,
            _ => Some(ExceptionLevel::El1),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::El0t => "EL0t",
            Self::El1t => "EL1t",
            Self::El1h => "EL1h",
            Self::El2t => "EL2t",
            Self::El2h => "EL2h",
            Self::El3t => "EL3t",
            Self::El3h => "EL3h",
            Self::User => "User",
            Self::Fiq => "FIQ",
            Self::Irq => "IRQ",
            Self::Supervisor => "Supervisor",
            Self::Monitor => "Monitor",
            Self::Abort => "Abort",
            Self::Hyp => "Hyp",
            Self::Undefined => "Undefined",
            Self::System => "System",
            Self::Reserved(bits) => return write!(f, "reserved mode {bits:#04x}"),
        })
    }
}

impl Pstate {
    /// Injected undefined instruction, `[36]` in AArch64 state (`FEAT_UINJ`).
    pub const UINJ: u64 = 1 << 36;
    /// The PC is mixed into pointer authentication, `[35]` in AArch64 state (`FEAT_PAuth_LR`).
    pub const PACM: u64 = 1 << 35;
    /// Exception return state lock, `[34]` in AArch64 state (`FEAT_GCS`).
    pub const EXLOCK: u64 = 1 << 34;
    /// Profiling exception pending, `[33]` in AArch64 state (`FEAT_SEBEP`).
    pub const PPEND: u64 = 1 << 33;
    /// Profiling exception mask, `[32]` in AArch64 state (`FEAT_EBEP`).
    pub const PM: u64 = 1 << 32;
    /// N, Z, C and V, `[31:28]`.
    pub const NZCV: u64 = 0xf << 28;
    /// AArch32 Q, `[27]`.
    pub const Q: u64 = 1 << 27;
    /// AArch32 `IT[1:0]` at `[26:25]` and `IT[7:2]` at `[15:10]`.
    pub const IT: u64 = 0x0600_fc00;
    /// AArch32 GE, `[19:16]`.
    pub const GE: u64 = 0xf << 16;
    /// AArch32 SSBS, `[23]`.
    pub const SSBS32: u64 = 1 << 23;
    /// AArch32 E (big-endian data), `[9]`.
    pub const E: u64 = 1 << 9;
    /// AArch32 T (T32), `[5]`.
    pub const T: u64 = 1 << 5;
    /// Tag check override, `[25]` in AArch64 state.
    pub const TCO: u64 = 1 << 25;
    /// Data independent timing, `[24]`.
    pub const DIT: u64 = 1 << 24;
    /// User access override, `[23]` in AArch64 state.
    pub const UAO: u64 = 1 << 23;
    /// Privileged access never, `[22]`.
    pub const PAN: u64 = 1 << 22;
    /// Software step, `[21]`.
    pub const SS: u64 = 1 << 21;
    /// Illegal Execution state, `[20]`.
    pub const IL: u64 = 1 << 20;
    /// All interrupt mask, `[13]` in AArch64 state (`FEAT_NMI`).
    pub const ALLINT: u64 = 1 << 13;
    /// Speculative store bypass safe, `[12]` in AArch64 state.
    pub const SSBS: u64 = 1 << 12;
    /// Branch type, `[11:10]` in AArch64 state.
    pub const BTYPE: u64 = 3 << 10;
    /// Debug mask, `[9]` in AArch64 state.
    pub const D: u64 = 1 << 9;
    /// SError mask, `[8]`.
    pub const A: u64 = 1 << 8;
    /// IRQ mask, `[7]`.
    pub const I: u64 = 1 << 7;
    /// FIQ mask, `[6]`.
    pub const F: u64 = 1 << 6;
    /// All of D, A, I and F.
    pub const DAIF: u64 = 0xf << 6;
    /// nRW, `[4]`: AArch32 state.
    pub const NRW: u64 = 1 << 4;
    /// `M[4:0]`, nRW included.
    pub const M: u64 = 0x1f;

    /// The PSTATE with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The bits that are also in `mask`.
    pub const fn masked(self, mask: u64) -> u64 {
        self.0 & mask
    }

    /// Returns true if any bit of `mask` is set.
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask != 0
    }

    /// `M[4:0]`.
    pub const fn mode(self) -> Mode {
        Mode::from_bits((self.0 & Self::M) as u8)
    }

    /// Returns true for AArch32 state.
    pub const fn is_aarch32(self) -> bool {
        self.has(Self::NRW)
    }

    /// The Exception level. In AArch64 state `M[3:2]` gives it, so reserved modes have one too. In AArch32
    /// state it is EL0 for User, EL2 for Hyp, EL3 for Monitor and EL1 for all other modes.
    pub const fn exception_level(self) -> ExceptionLevel {
        if self.is_aarch32() {
            return match self.mode().exception_level() {
                Some(level) => level,
                None => ExceptionLevel::El1,
            };
        }
        match field(self.0, 3, 2) {
            0 => ExceptionLevel::El0,
            1 => ExceptionLevel::El1,
            2 => ExceptionLevel::El2,
            _ => ExceptionLevel::El3,
        }
    }

    /// The same PSTATE in the format of an AArch32 `SPSR_abt`: DIT is at `[21]`, and `[24]` is J and zero.
    ///
    /// Source: DDI 0487, G8.2 `SPSR_abt`.
    pub const fn to_aarch32_spsr(self) -> u64 {
        let rest = self.0 & !(Self::DIT | Self::SS);
        rest | (self.has(Self::DIT) as u64) << 21
    }
}

/// The format of kernel logs, `nzCv DAIF PAN EL1h`: a condition or mask flag is in upper case if set; the
/// other flags appear only if set.
impl fmt::Display for Pstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |n: u32, set: char| if bit(self.0, n) { set } else { set.to_ascii_lowercase() };
        write!(f, "{}{}{}{}", flag(31, 'N'), flag(30, 'Z'), flag(29, 'C'), flag(28, 'V'))?;
        if self.is_aarch32() {
            write!(f, "{} {}{}{}", flag(27, 'Q'), flag(8, 'A'), flag(7, 'I'), flag(6, 'F'))?;
            let it = field(self.0, 15, 10) << 2 | field(self.0, 26, 25);
            write!(f, " {}", if self.has(Self::T) { "T32" } else { "A32" })?;
            write!(f, " {}", if self.has(Self::E) { "BE" } else { "LE" })?;
            write!(f, " IT={it:#04x} GE={:#x}", field(self.0, 19, 16))?;
            self.write_set(f, &[("SSBS", Self::SSBS32), ("DIT", Self::DIT), ("PAN", Self::PAN)])?;
            self.write_set(f, &[("SS", Self::SS), ("IL", Self::IL)])?;
        } else {
            write!(f, " {}{}{}{}", flag(9, 'D'), flag(8, 'A'), flag(7, 'I'), flag(6, 'F'))?;
            self.write_set(f, &[("UINJ", Self::UINJ), ("PACM", Self::PACM), ("EXLOCK", Self::EXLOCK)])?;
            self.write_set(f, &[("PPEND", Self::PPEND), ("PM", Self::PM)])?;
            self.write_set(f, &[("TCO", Self::TCO), ("DIT", Self::DIT), ("UAO", Self::UAO)])?;
            self.write_set(f, &[("PAN", Self::PAN), ("SS", Self::SS), ("IL", Self::IL)])?;
            self.write_set(f, &[("ALLINT", Self::ALLINT), ("SSBS", Self::SSBS)])?;
            if self.has(Self::BTYPE) {
                write!(f, " BTYPE={:02b}", field(self.0, 11, 10))?;
            }
        }
        write!(f, " {}", self.mode())
    }
}

impl Pstate {
    fn write_set(self, f: &mut fmt::Formatter<'_>, names: &[(&str, u64)]) -> fmt::Result {
        for (name, mask) in names {
            if self.has(*mask) {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Pstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({self})", self.0)
    }
}
