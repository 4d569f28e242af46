//! The counterpart of the model.

use seawall_arm::Reg;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_inject::{Delivery, Exit};

/// The result of `KVM_SET_VCPU_EVENTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// 0 or the errno.
    pub errno: i32,
    /// The guest's position after it, if the call succeeded and the subject found it.
    pub delivery: Option<Delivery>,
}

/// A vCPU: KVM's, or in tests another model.
///
/// A call that must not fail returns a description if it does.
pub trait Subject {
    /// Brings the vCPU to a state without traces of earlier sequences: powered on, no MMIO access waiting, no
    /// SError pending, and the last abort that of a store to `scratch`; or, with `fresh`, a vCPU that never
    /// ran.
    ///
    /// # Errors
    /// The failure of a call.
    fn begin(&mut self, fresh: bool, scratch: u64) -> Result<(), String>;

    /// `KVM_SET_ONE_REG`.
    ///
    /// # Errors
    /// The failure of the call.
    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), String>;

    /// `KVM_GET_ONE_REG`.
    ///
    /// # Errors
    /// The failure of the call.
    fn reg(&self, reg: Reg) -> Result<u64, String>;

    /// `KVM_SET_VCPU_EVENTS`.
    fn set_events(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set;

    /// `KVM_GET_VCPU_EVENTS`, mainline's layout.
    ///
    /// # Errors
    /// The failure of the call.
    fn events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], String>;

    /// Answers the waiting MMIO load.
    fn answer(&mut self, data: [u8; 8]);

    /// `KVM_RUN`, with or without `immediate_exit`.
    ///
    /// # Errors
    /// The errno, as a description.
    fn run(&mut self, immediate: bool) -> Result<Exit, String>;

    /// `KVM_ARM_VCPU_INIT` again.
    ///
    /// # Errors
    /// The failure of the call.
    fn reset(&mut self) -> Result<(), String>;
}
