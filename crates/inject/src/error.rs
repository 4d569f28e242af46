//! Why an injection failed, and what it left.

use seawall_arm::Reg;
use seawall_events::Refusal;

use crate::Errno;

/// Why an injection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// EINVAL, before anything was done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An ioctl failed, before anything was done to the guest.
    #[error("{call} failed: {errno}; nothing was injected")]
    Kernel {
        /// Which.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The vCPU's guest hypervisor takes such an exception from its own guest: see
    /// [`Injector::check_nested`](crate::Injector::check_nested).
    #[error(
        "nothing was injected: the guest hypervisor takes this from its own guest (HCR_EL2 {hcr_el2:#x}), and stock \
         kernels cannot be asked for that safely; run the vCPU until it is at EL2"
    )]
    TakenByHypervisor {
        /// `HCR_EL2` of the guest hypervisor.
        hcr_el2: u64,
    },
    /// The guest takes the kernel's own data abort (if the kernel delivered it: see [`Last::Any`](crate::Last::Any)),
    /// which is sound, but it could not be turned into what was asked. An SError of the same call was not injected.
    #[error("degraded: the guest takes a plain data abort, as {call} failed: {errno}")]
    Degraded {
        /// Which ioctl failed.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The guest takes the abort that was asked for, but not the SError of the same call.
    #[error("degraded: the guest takes the abort without the SError, as {call} failed: {errno}")]
    NoSError {
        /// Which ioctl failed.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// All was done that was asked for, but where the guest is could not be read.
    #[error("the events were injected, but {call} failed, by which to see where the guest is: {errno}")]
    Unseen {
        /// Which ioctl failed.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The kernel delivered, but no abort that we know is in the guest's ESR. It was left as it is, and an
    /// SError of the same call was not injected.
    #[error("degraded: expected the kernel's own external data abort in {register:?}, found {found:#x}")]
    Unexpected {
        /// The register.
        register: Reg,
        /// What it holds.
        found: u64,
    },
}

impl InjectError {
    /// The errno for a program that asked by ioctl. If the guest was changed it is `EIO`;
    /// [`InjectError::TakenByHypervisor`] is `EOPNOTSUPP`.
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

    /// Whether the guest was changed: what was asked for must not be injected again.
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

    /// The same failure, after everything was done.
    pub(crate) fn unseen(self) -> Self {
        match self {
            Self::Kernel { call, errno } => Self::Unseen { call, errno },
            other => other,
        }
    }
}
