//! The reasons for refused calls: an errno for programs, a message for people. The texts come with the feature `thiserror`.

/// The errnos of the two ioctls, with Linux's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Errno {
    /// `ENOEXEC`.
    Enoexec = 8,
    /// `EFAULT`.
    Efault = 14,
    /// `EINVAL`.
    Einval = 22,
}

impl Errno {
    /// The number, as a positive value.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// The reason why events were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "thiserror", derive(thiserror::Error))]
pub enum Refusal {
    /// ENOEXEC.
    #[cfg_attr(feature = "thiserror", error("the vCPU is not initialised: expected KVM_ARM_VCPU_INIT first"))]
    NotInitialised,
    /// EFAULT.
    #[cfg_attr(feature = "thiserror", error("the 64 bytes of kvm_vcpu_events cannot be read"))]
    Unreadable,
    /// EINVAL.
    #[cfg_attr(feature = "thiserror", error("the reserved word at offset {offset} is not zero"))]
    ReservedNotZero {
        /// Offset in `struct kvm_vcpu_events`, bytes.
        offset: usize,
    },
    /// EINVAL.
    #[cfg_attr(feature = "thiserror", error("the pad byte at offset {offset} is not zero"))]
    PadNotZero {
        /// Offset in `struct kvm_vcpu_events`, bytes.
        offset: usize,
    },
    /// EINVAL.
    #[cfg_attr(feature = "thiserror", error("an ESR was given for an SError, but the host has no RAS"))]
    SErrorEsrWithoutRas,
    /// EINVAL.
    #[cfg_attr(
        feature = "thiserror",
        error("an ESR was given for an external abort, but the host has no RAS")
    )]
    AbortEsrWithoutRas,
    /// EINVAL.
    #[cfg_attr(feature = "thiserror", error("serror_esr is {0:#x}: expected an ISS, bits [24:0] only"))]
    SErrorEsrOutsideIss(u64),
    /// EINVAL.
    #[cfg_attr(feature = "thiserror", error("ext_abt_esr is {0:#x}: expected an ISS, bits [24:0] only"))]
    AbortEsrOutsideIss(u64),
    /// EINVAL.
    #[cfg_attr(
        feature = "thiserror",
        error("a data abort and an instruction abort in one call: expected at most one")
    )]
    BothAborts,
    /// EINVAL.
    #[cfg_attr(
        feature = "thiserror",
        error("mainline's kvm_vcpu_events has no instruction abort and no ESR for an abort")
    )]
    NotInMainline,
}

impl Refusal {
    /// The errno that the ioctl fails with.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotInitialised => Errno::Enoexec,
            Self::Unreadable => Errno::Efault,
            _ => Errno::Einval,
        }
    }
}

/// A refusal by [`set_events`](crate::kernel::set_events), with the effect that it left on the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "thiserror", derive(thiserror::Error))]
#[cfg_attr(
    feature = "thiserror",
    error("{refusal}{}", if *.abort_delivered { " (the external abort of the same call was delivered)" } else { "" })
)]
pub struct Refused {
    /// The reason.
    pub refusal: Refusal,
    /// True if the abort of the same call was delivered: mainline checks the SError's arguments only after
    /// it.
    pub abort_delivered: bool,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, abort_delivered: false }
    }
}
