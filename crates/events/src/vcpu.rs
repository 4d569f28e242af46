//! A vCPU as its VMM sees it.

use crate::{Abi, Delivery, Exit, Reg, VcpuEvents};

/// A vCPU of some backend: the software machine, or `/dev/kvm`.
pub trait Vcpu {
    /// What can go wrong in the backend.
    type Error: core::error::Error + 'static;

    /// Runs the guest until it needs its VMM. A load that ended the last run with [`Exit::Mmio`] is
    /// completed first, with what [`Vcpu::answer_mmio`] was given.
    ///
    /// # Errors
    /// What the backend's `KVM_RUN` fails with.
    fn run(&mut self) -> Result<Exit, Self::Error>;

    /// What the device answered to the load of the last [`Exit::Mmio`], little-endian, from byte 0. Without
    /// an answer the load reads zero.
    fn answer_mmio(&mut self, data: [u8; 8]);

    /// `KVM_SET_VCPU_EVENTS`, and where the guest is after it: the call succeeds also when the kernel took the
    /// error for transient and delivered nothing.
    ///
    /// # Errors
    /// The ioctl's errnos; see [`set_events`](crate::set_events).
    fn set_events(&mut self, events: &VcpuEvents) -> Result<Delivery, Self::Error>;

    /// `KVM_GET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// The ioctl's errnos.
    fn events(&self) -> Result<VcpuEvents, Self::Error>;

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

    /// Which `struct kvm_vcpu_events` [`Vcpu::set_events`] understands.
    fn abi(&self) -> Abi;
}
