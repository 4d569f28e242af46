//! A vCPU as its ioctls.

use seawall_arm::Reg;
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};

use crate::{Errno, InjectError};

/// A vCPU outside of `KVM_RUN`: four ioctls on its file descriptor. No other thread may run it or change its
/// registers meanwhile.
pub trait KvmVcpu {
    /// `KVM_SET_VCPU_EVENTS` with these bytes, unchanged.
    ///
    /// # Errors
    /// The ioctl's.
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno>;

    /// `KVM_GET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// The ioctl's.
    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno>;

    /// `KVM_GET_ONE_REG` of a 64-bit register.
    ///
    /// # Errors
    /// The ioctl's.
    fn get_one_reg(&self, id: u64) -> Result<u64, Errno>;

    /// `KVM_SET_ONE_REG` of a 64-bit register.
    ///
    /// # Errors
    /// The ioctl's.
    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno>;
}

impl<V: KvmVcpu + ?Sized> KvmVcpu for &V {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        (**self).set_vcpu_events(bytes)
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        (**self).get_vcpu_events()
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        (**self).get_one_reg(id)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        (**self).set_one_reg(id, value)
    }
}

pub(crate) const GET_ONE_REG: &str = "KVM_GET_ONE_REG";
pub(crate) const SET_ONE_REG: &str = "KVM_SET_ONE_REG";
pub(crate) const GET_EVENTS: &str = "KVM_GET_VCPU_EVENTS";
pub(crate) const SET_EVENTS: &str = "KVM_SET_VCPU_EVENTS";

/// An error before any effect.
pub(crate) fn failed(call: &'static str) -> impl Fn(Errno) -> InjectError {
    move |errno| InjectError::Kernel { call, errno }
}

pub(crate) fn get(vcpu: &impl KvmVcpu, reg: Reg) -> Result<u64, InjectError> {
    let failed = failed(GET_ONE_REG);
    vcpu.get_one_reg(one_reg_id(reg).ok_or_else(|| failed(Errno::ENOENT))?).map_err(failed)
}

pub(crate) fn set(vcpu: &impl KvmVcpu, reg: Reg, value: u64) -> Result<(), InjectError> {
    let failed = failed(SET_ONE_REG);
    vcpu.set_one_reg(one_reg_id(reg).ok_or_else(|| failed(Errno::ENOENT))?, value).map_err(failed)
}

pub(crate) fn set_events(vcpu: &impl KvmVcpu, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), InjectError> {
    vcpu.set_vcpu_events(bytes).map_err(failed(SET_EVENTS))
}
