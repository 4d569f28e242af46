//! A vCPU that its VMM runs: [`seawall_events::Vcpu`] over the VMM's own ioctls, so that all of containment works on it.

use seawall_events::wire::one_reg_id;
use seawall_events::{Abi, Delivery, Exit, Layout, Reg, Vcpu, VcpuEvents};

use crate::vcpu::{GET_EVENTS, GET_ONE_REG, SET_ONE_REG};
use crate::{Errno, InjectError, Injector, KvmVcpu, Last};

/// A vCPU that came out of `KVM_RUN`, with the extended ABI by its VM's [`Injector`]. It is made at each exit, and costs
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Exited<V> {
    vcpu: V,
    injector: Injector,
    last: Last,
}

/// What can go wrong between an [`Exited`] and its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExitedError {
    /// Events could not be injected.
    #[error(transparent)]
    Events(#[from] InjectError),
    /// An ioctl failed.
    #[error("{call} failed: {errno}")]
    Ioctl {
        /// Which.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// KVM gives no access to this register.
    #[error("KVM/arm64 has no ONE_REG id for {0:?}")]
    NoRegister(Reg),
    /// [`Vcpu::run`] was called.
    #[error("expected the VMM to run this vCPU: an Exited only handles what KVM_RUN came back with")]
    Run,
}

impl ExitedError {
    /// The errno behind it, if there is one.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Events(error) => Some(error.errno()),
            Self::Ioctl { errno, .. } => Some(*errno),
            Self::NoRegister(_) => Some(Errno::ENOENT),
            Self::Run => None,
        }
    }
}

impl<V: KvmVcpu> Exited<V> {
    /// A vCPU after such an exit: [`Last::NoWalk`] after `KVM_EXIT_ARM_SEA`, [`Last::Any`] after SIGBUS.
    pub const fn new(vcpu: V, injector: Injector, last: Last) -> Self {
        Self { vcpu, injector, last }
    }

    /// Its VM's.
    pub const fn injector(&self) -> Injector {
        self.injector
    }
}

impl<V: KvmVcpu> Vcpu for Exited<V> {
    type Error = ExitedError;

    /// # Errors
    /// [`ExitedError::Run`], always.
    fn run(&mut self) -> Result<Exit, ExitedError> {
        Err(ExitedError::Run)
    }

    /// Does nothing: the VMM answers to what its own run came back with.
    fn answer_mmio(&mut self, _: [u8; 8]) {}

    fn set_events(&mut self, events: &VcpuEvents) -> Result<Delivery, ExitedError> {
        Ok(self.injector.inject(&self.vcpu, self.last, events)?)
    }

    fn events(&self) -> Result<VcpuEvents, ExitedError> {
        let bytes = self.vcpu.get_vcpu_events();
        let bytes = bytes.map_err(|errno| ExitedError::Ioctl { call: GET_EVENTS, errno })?;
        Ok(VcpuEvents::from_bytes(Abi::Mainline, &bytes).map_err(InjectError::from)?)
    }

    fn reg(&self, reg: Reg) -> Result<u64, ExitedError> {
        let id = one_reg_id(reg).ok_or(ExitedError::NoRegister(reg))?;
        self.vcpu.get_one_reg(id).map_err(|errno| ExitedError::Ioctl { call: GET_ONE_REG, errno })
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), ExitedError> {
        let id = one_reg_id(reg).ok_or(ExitedError::NoRegister(reg))?;
        self.vcpu.set_one_reg(id, value).map_err(|errno| ExitedError::Ioctl { call: SET_ONE_REG, errno })
    }

    /// Extended, also on a stock kernel: assisted injection supplies the rest.
    fn abi(&self) -> Abi {
        Abi::Extended(Layout::Posted)
    }
}
