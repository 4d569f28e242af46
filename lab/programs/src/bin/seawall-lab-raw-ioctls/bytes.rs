//! `struct kvm_vcpu_events`, by offsets.

use std::fmt;

/// The ABI that the program is told to expect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    /// The kernel's own, without the library.
    Mainline,
    /// The proposal's; the offset of `ext_abt_esr`, and who speaks it.
    Extended { esr: usize, by: By },
}

/// Who has the extended ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// libseawall_preload.so, over a stock kernel.
    Preload,
    /// The kernel itself.
    Kernel,
}

/// Where the two layouts have `ext_abt_esr`.
const POSTED: usize = 16;
const TRAILING: usize = 56;

impl Abi {
    /// By the first argument: `native-posted` or `native-trailing`; without one, by the library that is loaded.
    pub(crate) fn expected(argument: Option<&str>) -> Result<Self, String> {
        match argument {
            None => Self::of_environment(),
            Some("native-posted") => Ok(Self::Extended { esr: POSTED, by: By::Kernel }),
            Some("native-trailing") => Ok(Self::Extended { esr: TRAILING, by: By::Kernel }),
            Some(other) => Err(format!("expected native-posted, native-trailing or cost, got {other:?}")),
        }
    }

    fn of_environment() -> Result<Self, String> {
        let is_loaded =
            std::env::var("LD_PRELOAD").is_ok_and(|value| value.contains("libseawall_preload.so"));
        let layout = std::env::var("SEAWALL_LAYOUT").unwrap_or_else(|_| "posted".into());
        let extended = |esr| Ok(Self::Extended { esr, by: By::Preload });
        match (is_loaded, layout.as_str()) {
            (false, _) => Ok(Self::Mainline),
            (true, "posted") => extended(POSTED),
            (true, "trailing") => extended(TRAILING),
            (true, other) => Err(format!("expected SEAWALL_LAYOUT=posted or =trailing, got {other:?}")),
        }
    }

    /// The offset at which a program with this ABI, or for it, puts `ext_abt_esr`.
    pub(crate) fn esr(self) -> usize {
        match self {
            Self::Mainline => 16,
            Self::Extended { esr, .. } => esr,
        }
    }

    /// The reserved words that follow the fields, as offsets.
    pub(crate) fn reserved(self) -> std::ops::Range<usize> {
        match self {
            Self::Mainline => 16..64,
            Self::Extended { esr: POSTED, .. } => 24..64,
            Self::Extended { .. } => 16..56,
        }
    }

    pub(crate) fn is_extended(self) -> bool {
        self != Self::Mainline
    }

    /// Whether the kernel itself is to speak it.
    pub(crate) fn is_native(self) -> bool {
        matches!(self, Self::Extended { by: By::Kernel, .. })
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Mainline => f.write_str("mainline's results (no library is loaded)"),
            Self::Extended { esr, by: By::Preload } => {
                write!(f, "the proposal's results, ext_abt_esr at {esr}")
            }
            Self::Extended { esr, by: By::Kernel } => {
                write!(f, "the proposal's results from the kernel itself, ext_abt_esr at {esr}")
            }
        }
    }
}

/// The 64 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Events(pub(crate) [u8; 64]);

/// No request.
pub(crate) const NOTHING: Events = Events([0; 64]);
/// `ext_dabt_pending`.
pub(crate) const DABT: Events = NOTHING.byte(2, 1);
/// `ext_iabt_pending`.
pub(crate) const IABT: Events = NOTHING.byte(3, 1);
/// `serror_pending`.
pub(crate) const SERROR: Events = NOTHING.byte(0, 1);
/// All bytes invalid.
pub(crate) const GARBAGE: Events = Events([0xff; 64]);

impl Events {
    pub(crate) const fn byte(mut self, offset: usize, value: u8) -> Self {
        self.0[offset] = value;
        self
    }

    fn word(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// `serror_has_esr`, `serror_esr`.
    pub(crate) fn serror_esr(self, esr: u64) -> Self {
        self.byte(1, 1).word(8, esr)
    }

    /// `ext_abt_has_esr`, `ext_abt_esr`.
    pub(crate) fn abort_esr(self, abi: Abi, esr: u64) -> Self {
        self.byte(4, 1).word(abi.esr(), esr)
    }

    /// `ext_abt_esr` alone.
    pub(crate) fn stray_abort_esr(self, abi: Abi, esr: u64) -> Self {
        self.word(abi.esr(), esr)
    }

    /// `serror_pending`, `serror_has_esr`, `serror_esr`.
    pub(crate) fn serror(&self) -> (u8, u8, u64) {
        let esr = self.0[8..16].iter().rev().fold(0, |esr, byte| esr << 8 | u64::from(*byte));
        (self.0[0], self.0[1], esr)
    }
}
