//! What the model is compared with.

use seawall_arm::Reg;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_inject::{Delivery, Exit};

/// What `KVM_SET_VCPU_EVENTS` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// 0 or the errno.
    pub errno: i32,
    /// Where the guest is then, if the call succeeded.
    pub delivery: Option<Delivery>,
}

/// A vCPU: KVM's, or in tests another model.
///
/// A call that fails where none may fail gives a description.
pub trait Subject {
    /// Brings the vCPU to where no sequence before can be seen any more: powered on, no MMIO access waiting,
    /// no SError pending, and the last abort that of a store to `scratch`; or, `fresh`, a vCPU that never ran.
    ///
    /// # Errors
    /// What failed.
    fn begin(&mut self, fresh: bool, scratch: u64) -> Result<(), String>;

    /// `KVM_SET_ONE_REG`.
    ///
    /// # Errors
    /// What failed.
    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), String>;

    /// `KVM_GET_ONE_REG`.
    ///
    /// # Errors
    /// What failed.
    fn reg(&self, reg: Reg) -> Result<u64, String>;

    /// `KVM_SET_VCPU_EVENTS`.
    fn set_events(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set;

    /// `KVM_GET_VCPU_EVENTS`, mainline's layout.
    ///
    /// # Errors
    /// What failed.
    fn events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], String>;

    /// The answer to the MMIO load that waits.
    fn answer(&mut self, data: [u8; 8]);

    /// `KVM_RUN`, with `immediate_exit` or without.
    ///
    /// # Errors
    /// The errno, as a description.
    fn run(&mut self, immediate: bool) -> Result<Exit, String>;

    /// `KVM_ARM_VCPU_INIT` again.
    ///
    /// # Errors
    /// What failed.
    fn reset(&mut self) -> Result<(), String>;
}
