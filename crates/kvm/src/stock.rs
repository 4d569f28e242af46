//! A vCPU of a stock kernel that its VMM runs by itself: [`seawall_events::Vcpu`] over the VMM's own ioctls, so that
//! all of containment works on it.
//!
//! On aarch64 Linux `kvm_ioctls::VcpuFd` is a [`Kernel`] and [`KernelEvents`] already. Anything else, such as a vCPU
//! behind another version of `kvm-ioctls` or behind a C interface, takes four functions:
//!
//! ```
//! use seawall_events::{Abi, Layout, Vcpu as _};
//! use seawall_kvm::Errno;
//! use seawall_kvm::assist::{Guest, Kernel, Last};
//! use seawall_kvm::stock::{KernelEvents, StockVcpu};
//!
//! /// Yours: it has the file descriptor.
//! struct MyVcpu;
//!
//! impl Kernel for MyVcpu {
//!     fn set_vcpu_events(&self, bytes: &[u8; 64]) -> Result<(), Errno> {
//!         Ok(()) // ioctl(fd, KVM_SET_VCPU_EVENTS, bytes)
//!     }
//!     fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
//!         Ok(0) // ioctl(fd, KVM_GET_ONE_REG, ...)
//!     }
//!     fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
//!         Ok(()) // ioctl(fd, KVM_SET_ONE_REG, ...)
//!     }
//! }
//!
//! impl KernelEvents for MyVcpu {
//!     fn get_vcpu_events(&self) -> Result<[u8; 64], Errno> {
//!         Ok([0; 64]) // ioctl(fd, KVM_GET_VCPU_EVENTS, ...)
//!     }
//! }
//!
//! let vcpu = StockVcpu::new(&MyVcpu, Guest::Aarch64, true).after(Last::NoWalk);
//! assert_eq!(vcpu.abi(), Abi::Extended(Layout::Posted));
//! ```

use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Abi, AbortDelivery, Exit, Layout, Reg, Vcpu, VcpuEvents, check_extended};

use crate::Errno;
use crate::assist::{self, AssistError, Guest, Kernel, Last};

/// The fourth ioctl, by which one sees whether an SError waits.
pub trait KernelEvents: Kernel {
    /// `KVM_GET_VCPU_EVENTS`, mainline's layout.
    ///
    /// # Errors
    /// The ioctl's.
    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno>;
}

impl<K: Kernel + ?Sized> Kernel for &K {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        (**self).set_vcpu_events(bytes)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        (**self).get_one_reg(id)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        (**self).set_one_reg(id, value)
    }
}

impl<K: KernelEvents + ?Sized> KernelEvents for &K {
    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        (**self).get_vcpu_events()
    }
}

/// A vCPU that is out of `KVM_RUN`, with the extended ABI by [`assist`]. It is made anew after each exit, and costs
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct StockVcpu<K> {
    kernel: K,
    guest: Guest,
    last: Last,
    ras: bool,
}

/// What can go wrong between a [`StockVcpu`] and its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StockError {
    /// Events could not be injected.
    #[error(transparent)]
    Events(#[from] AssistError),
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
    #[error("expected the VMM to run this vCPU: a StockVcpu only handles what KVM_RUN came back with")]
    Run,
}

impl StockError {
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

impl<K: KernelEvents> StockVcpu<K> {
    /// A vCPU of which nothing is known of its last exit. `ras`: the host has RAS
    /// (`KVM_CAP_ARM_INJECT_SERROR_ESR`).
    ///
    /// One whose EL1 is AArch32 must have run before it is injected into; after an exit it has.
    pub const fn new(kernel: K, guest: Guest, ras: bool) -> Self {
        Self { kernel, guest, last: Last::Any, ras }
    }

    /// The same after such an exit: [`Last::NoWalk`] after `KVM_EXIT_ARM_SEA` saves an ioctl.
    #[must_use]
    pub fn after(self, last: Last) -> Self {
        Self { last, ..self }
    }
}

impl<K: KernelEvents> Vcpu for StockVcpu<K> {
    type Error = StockError;

    /// # Errors
    /// [`StockError::Run`], always.
    fn run(&mut self) -> Result<Exit, StockError> {
        Err(StockError::Run)
    }

    /// Does nothing: the VMM answers to what its own run came back with.
    fn answer_mmio(&mut self, _: [u8; 8]) {}

    fn set_events(&mut self, events: &VcpuEvents) -> Result<Option<AbortDelivery>, StockError> {
        check_extended(self.ras, events).map_err(AssistError::from)?;
        if self.guest == Guest::Nested {
            assist::check_nested(&self.kernel, events)?;
        }
        Ok(assist::set_events(&self.kernel, self.guest, self.last, self.ras, events)?)
    }

    fn events(&self) -> Result<VcpuEvents, StockError> {
        let bytes = self.kernel.get_vcpu_events();
        let bytes = bytes.map_err(|errno| StockError::Ioctl { call: "KVM_GET_VCPU_EVENTS", errno })?;
        Ok(VcpuEvents::from_bytes(Abi::Mainline, &bytes).map_err(AssistError::from)?)
    }

    fn reg(&self, reg: Reg) -> Result<u64, StockError> {
        let id = one_reg_id(reg).ok_or(StockError::NoRegister(reg))?;
        self.kernel.get_one_reg(id).map_err(|errno| StockError::Ioctl { call: "KVM_GET_ONE_REG", errno })
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), StockError> {
        let id = one_reg_id(reg).ok_or(StockError::NoRegister(reg))?;
        self.kernel
            .set_one_reg(id, value)
            .map_err(|errno| StockError::Ioctl { call: "KVM_SET_ONE_REG", errno })
    }

    /// Extended: what a stock kernel lacks of it is made up for.
    fn abi(&self) -> Abi {
        Abi::Extended(Layout::Posted)
    }
}
