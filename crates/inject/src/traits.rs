//! A vCPU as its VMM sees it.

use seawall_arm::Reg;
use seawall_events::{Abi, VcpuEvents};

use crate::{Delivery, Exit, GuestKind};

/// A vCPU that is out of its run, as containment needs it: of the software machine, or of `/dev/kvm`.
pub trait Inject {
    /// What can go wrong in the backend.
    type Error: core::error::Error + 'static;

    /// What the vCPU is, which decides how its guest can be told of an error.
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

    /// `KVM_SET_VCPU_EVENTS`, and where the guest is after it: the call succeeds also when the kernel took the
    /// error for transient and delivered nothing.
    ///
    /// # Errors
    /// The ioctl's errnos; see [`set_events`](seawall_events::kernel::set_events).
    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Self::Error>;
}

/// A vCPU that its VMM runs.
pub trait Vcpu: Inject {
    /// Runs the guest until it needs its VMM. A load that ended the last run with [`Exit::Mmio`] is
    /// completed first, with what [`Vcpu::answer_mmio`] was given.
    ///
    /// # Errors
    /// What the backend's `KVM_RUN` fails with.
    fn run(&mut self) -> Result<Exit, Self::Error>;

    /// What the device answered to the load of the last [`Exit::Mmio`], little-endian, from byte 0. Without
    /// an answer the load reads zero.
    fn answer_mmio(&mut self, data: [u8; 8]);
}

/// What a vCPU is, as far as it bears on how its guest can be told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VcpuTraits {
    /// Where an abort can go.
    pub guest: GuestKind,
    /// The host has RAS (`KVM_CAP_ARM_INJECT_SERROR_ESR`): without it no ESR can be given.
    pub ras: bool,
    /// Which `struct kvm_vcpu_events` [`Inject::inject`] understands.
    pub abi: Abi,
}
