//! The backend, over `kvm-ioctls`.

mod fd;
mod gic;
mod host;
mod kick;
mod state;
mod vcpu;
mod vm;

pub use fd::sea_exit;
pub use gic::{Gic, SpiLine};
pub use host::Kvm;
pub use kick::Kicker;
pub use seawall_inject::Way;
pub use vcpu::Vcpu;
pub use vm::{El1, Vm, VmConfig};
pub use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::Errno;
use seawall_inject::InjectError;

/// A failure between this crate and the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/kvm` cannot be opened.
    #[error(
        "cannot open /dev/kvm: {0}; expected an arm64 Linux host that boots at EL2, and read and write permission"
    )]
    Open(Errno),
    /// A system call failed.
    #[error("{call} failed: {errno}")]
    Ioctl {
        /// The call, and its object.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The kernel lacks a feature of the VM's configuration.
    #[error("this kernel has no {capability} (number {number}): {advice}")]
    Missing {
        /// The capability's name.
        capability: &'static str,
        /// Its number.
        number: u32,
        /// Advice to the user.
        advice: &'static str,
    },
    /// Events could not be injected.
    #[error(transparent)]
    Events(#[from] InjectError),
    /// KVM gives no access to this register.
    #[error("KVM/arm64 has no ONE_REG id for {0:?}")]
    NoRegister(seawall_arm::Reg),
    /// A guest physical range is not in the VM's memory.
    #[error("expected {size:#x} bytes of guest memory at {gpa:#x}: they are not there")]
    NotInMemory {
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// This process has no memory for the kernel's answer.
    #[error("there is no memory for the list of a vCPU's registers")]
    Memory,
    /// A register of a vCPU's state cannot be read or written.
    #[error(
        "register {id:#x} of the vCPU's state: {errno}; expected a host with the same CPU and a kernel as new as that which \
         the state is from"
    )]
    Register {
        /// Its ONE_REG id.
        id: u64,
        /// The errno.
        errno: Errno,
    },
    /// A state belongs to a VM with another configuration.
    #[error("the state is of another VM: {what} differ")]
    OtherState {
        /// The difference.
        what: &'static str,
    },
    /// An operation on the host's memory failed.
    #[error(transparent)]
    Host(#[from] seawall_host::Error),
    /// Part of the memory to read is bad.
    #[error(transparent)]
    BadMemory(#[from] seawall_host::BadMemory),
}

impl Error {
    /// The underlying errno, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(errno) | Self::Ioctl { errno, .. } | Self::Register { errno, .. } => Some(*errno),
            Self::Events(error) => Some(error.errno()),
            Self::Host(error) => error.errno().map(Errno),
            Self::NoRegister(_) => Some(Errno::ENOENT),
            Self::Missing { .. }
            | Self::NotInMemory { .. }
            | Self::Memory
            | Self::BadMemory(_)
            | Self::OtherState { .. } => None,
        }
    }
}

/// Names the call that failed.
fn failed(call: &'static str) -> impl Fn(vmm_sys_util::errno::Error) -> Error {
    move |error| Error::Ioctl { call, errno: error.into() }
}
