//! A vCPU as its VMM sees it.

use seawall_arm::Reg;
use seawall_events::{Abi, VcpuEvents};

use crate::{Delivery, Exit, GuestKind};

/// A vCPU outside of its run, as containment needs it: of the software machine, or of `/dev/kvm`.
pub trait Inject {
    /// The backend's error.
    type Error: core::error::Error + 'static;

    /// The vCPU's traits, which decide how its guest can be told of an error.
    fn traits(&self) -> VcpuTraits;

    /// `KVM_GET_ONE_REG`.
    ///
    /// # Errors
    /// ENOENT for a register that the vCPU does not have.
    fn reg(&self, reg: Reg) -> Result<u64, Self::Error>;

    /// `KVM_SET_ONE_REG`.
    ///
    /// # Errors
    /// ENOENT for a register that the vCPU does not have, EINVAL for a value that it cannot hold.
    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Self::Error>;

    /// `KVM_SET_VCPU_EVENTS`, and the guest's position after it: the call also succeeds if the kernel took the
    /// error for transient and delivered nothing.
    ///
    /// # Errors
    /// The ioctl's errnos; see [`set_events`](seawall_events::kernel::set_events).
    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Self::Error>;
}

/// A vCPU that its VMM runs.
pub trait Vcpu: Inject {
    /// Runs the guest until it needs its VMM. A load that ended the last run with [`Exit::Mmio`] is first
    /// completed with the data of [`Vcpu::answer_mmio`].
    ///
    /// # Errors
    /// Those of the backend's `KVM_RUN`.
    fn run(&mut self) -> Result<Exit, Self::Error>;

    /// Sets the device's answer to the load of the last [`Exit::Mmio`], little-endian, from byte 0. Without
    /// an answer the load reads zero.
    fn answer_mmio(&mut self, data: [u8; 8]);
}

/// The properties of a vCPU that decide how its guest can be told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VcpuTraits {
    /// The kind of vCPU, which decides where an abort can go.
    pub guest: GuestKind,
    /// True if the host has RAS (`KVM_CAP_ARM_INJECT_SERROR_ESR`): without it no ESR can be given.
    pub ras: bool,
    /// The `struct kvm_vcpu_events` that [`Inject::inject`] understands.
    pub abi: Abi,
}
