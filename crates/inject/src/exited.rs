//! [`Inject`] over a VMM's own ioctls, so that all of containment works on the VMM's vCPU.

use seawall_arm::Reg;
use seawall_events::wire::one_reg_id;
use seawall_events::{Abi, Layout, VcpuEvents};

use crate::vcpu::{GET_ONE_REG, SET_ONE_REG};
use crate::{Delivery, Errno, Inject, InjectError, Injector, KvmVcpu, Last, VcpuTraits};

/// A vCPU after `KVM_RUN`, with the extended ABI through its VM's [`Injector`]. Make one at each exit; it
/// costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Exited<V> {
    vcpu: V,
    injector: Injector,
    last: Last,
}

/// A failure between an [`Exited`] and its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExitedError {
    /// Events could not be injected.
    #[error(transparent)]
    Events(#[from] InjectError),
    /// An ioctl failed.
    #[error("{call} failed: {errno}")]
    Ioctl {
        /// The ioctl.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// KVM gives no access to this register.
    #[error("KVM/arm64 has no ONE_REG id for {0:?}")]
    NoRegister(Reg),
}

impl ExitedError {
    /// The underlying errno.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Events(error) => error.errno(),
            Self::Ioctl { errno, .. } => *errno,
            Self::NoRegister(_) => Errno::ENOENT,
        }
    }
}

impl<V: KvmVcpu> Exited<V> {
    /// A vCPU after an exit: [`Last::NoWalk`] after `KVM_EXIT_ARM_SEA`, [`Last::Any`] after SIGBUS.
    pub const fn new(vcpu: V, injector: Injector, last: Last) -> Self {
        Self { vcpu, injector, last }
    }

    /// The VM's injector.
    pub const fn injector(&self) -> Injector {
        self.injector
    }
}

impl<V: KvmVcpu> Inject for Exited<V> {
    type Error = ExitedError;

    /// The ABI is the extended one even on a stock kernel: assisted injection supplies the rest.
    fn traits(&self) -> VcpuTraits {
        let Injector { guest, ras, .. } = self.injector;
        VcpuTraits { guest, ras, abi: Abi::Extended(Layout::Posted) }
    }

    fn reg(&self, reg: Reg) -> Result<u64, ExitedError> {
        let id = one_reg_id(reg).ok_or(ExitedError::NoRegister(reg))?;
        self.vcpu.get_one_reg(id).map_err(|errno| ExitedError::Ioctl { call: GET_ONE_REG, errno })
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), ExitedError> {
        let id = one_reg_id(reg).ok_or(ExitedError::NoRegister(reg))?;
        self.vcpu.set_one_reg(id, value).map_err(|errno| ExitedError::Ioctl { call: SET_ONE_REG, errno })
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, ExitedError> {
        Ok(self.injector.inject(&self.vcpu, self.last, events)?)
    }
}
