//! The reason why an injection failed, and the state after it.

use seawall_arm::Reg;
use seawall_events::Refusal;

use crate::Errno;

/// The reason why an injection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// EINVAL, before any effect.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An ioctl failed, before any effect on the guest.
    #[error("{call} failed: {errno}; nothing was injected")]
    Kernel {
        /// The ioctl.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The vCPU's guest hypervisor takes this kind of exception from its own guest: see
    /// [`Injector::check_nested`](crate::Injector::check_nested).
    #[error(
        "nothing was injected: the guest hypervisor takes this from its own guest (HCR_EL2 {hcr_el2:#x}), and stock \
         kernels cannot be asked for that safely; run the vCPU until it is at EL2"
    )]
    TakenByHypervisor {
        /// `HCR_EL2` of the guest hypervisor.
        hcr_el2: u64,
    },
    /// The guest takes the kernel's own data abort (if the kernel delivered it: see
    /// [`Last::Any`](crate::Last::Any)). That is sound, but the abort could not be turned into the requested
    /// one. An SError of the same call was not injected.
    #[error("degraded: the guest takes a plain data abort, as {call} failed: {errno}")]
    Degraded {
        /// The failed ioctl.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The guest takes the requested abort, but not the SError of the same call.
    #[error("degraded: the guest takes the abort without the SError, as {call} failed: {errno}")]
    NoSError {
        /// The failed ioctl.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The whole request was carried out, but the guest's position could not be read.
    #[error("the events were injected, but {call} failed, by which to see where the guest is: {errno}")]
    Unseen {
        /// The failed ioctl.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The kernel delivered, but the guest's ESR holds no abort that this crate knows. It was left unchanged,
    /// and an SError of the same call was not injected.
    #[error("degraded: expected the kernel's own external data abort in {register:?}, found {found:#x}")]
    Unexpected {
        /// The register.
        register: Reg,
        /// Its value.
        found: u64,
    },
}

impl InjectError {
    /// The errno for a program that called the ioctl. It is `EIO` if the guest was changed; for
    /// [`InjectError::TakenByHypervisor`] it is `EOPNOTSUPP`.
    pub const fn errno(&self) -> Errno {
        const EIO: Errno = Errno(5);
        const EOPNOTSUPP: Errno = Errno(95);
        match self {
            Self::Refused(refusal) => Errno(refusal.errno().number()),
            Self::Kernel { errno, .. } => *errno,
            Self::TakenByHypervisor { .. } => EOPNOTSUPP,
            Self::Degraded { .. } | Self::NoSError { .. } | Self::Unseen { .. } | Self::Unexpected { .. } => {
                EIO
            }
        }
    }

    /// Returns true if the guest was changed: do not inject the same events again.
    pub const fn has_injected(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Kernel { .. } | Self::TakenByHypervisor { .. } => false,
            Self::Degraded { .. } | Self::NoSError { .. } | Self::Unseen { .. } | Self::Unexpected { .. } => {
                true
            }
        }
    }

    /// The same failure, after the kernel delivered.
    pub(crate) fn degraded(self) -> Self {
        match self {
            Self::Kernel { call, errno } => Self::Degraded { call, errno },
            other => other,
        }
    }

    /// The same failure, after the whole request was carried out.
    pub(crate) fn unseen(self) -> Self {
        match self {
            Self::Kernel { call, errno } => Self::Unseen { call, errno },
            other => other,
        }
    }
}
