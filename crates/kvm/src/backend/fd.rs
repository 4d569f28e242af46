//! What a VMM that has a `VcpuFd` of `kvm-ioctls` needs, and nothing of ours around it.

use kvm_bindings::{kvm_run, kvm_vcpu_events};
use kvm_ioctls::VcpuFd;
use seawall_events::wire::{KVM_EXIT_ARM_SEA, VCPU_EVENTS_SIZE};
use seawall_events::{Exit, SeaExit};

use super::vcpu::decode;
use crate::Errno;
use crate::assist::Kernel;
use crate::stock::KernelEvents;

/// The SEA exit in `kvm_run`, if the last exit was one: for
/// `Ok(VcpuExit::Unsupported(41))`, as `kvm-ioctls` 0.25 has no name for it.
pub fn sea_exit(run: &kvm_run) -> Option<SeaExit> {
    if run.exit_reason != KVM_EXIT_ARM_SEA {
        return None;
    }
    // SAFETY: the union is plain data, all of it readable as bytes.
    match decode(run.exit_reason, unsafe { &run.__bindgen_anon_1.padding }) {
        Exit::Sea(sea) => Some(sea),
        _ => None,
    }
}

impl Kernel for VcpuFd {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        // SAFETY: both are 64 bytes, plain integers without padding.
        let events = unsafe { std::mem::transmute::<[u8; VCPU_EVENTS_SIZE], kvm_vcpu_events>(*bytes) };
        VcpuFd::set_vcpu_events(self, &events).map_err(Errno::from)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let mut value = [0; 8];
        VcpuFd::get_one_reg(self, id, &mut value).map_err(Errno::from)?;
        Ok(u64::from_le_bytes(value))
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        VcpuFd::set_one_reg(self, id, &value.to_le_bytes()).map_err(Errno::from)?;
        Ok(())
    }
}

impl KernelEvents for VcpuFd {
    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        let events = VcpuFd::get_vcpu_events(self).map_err(Errno::from)?;
        // SAFETY: both are 64 bytes, plain integers without padding.
        Ok(unsafe { std::mem::transmute::<kvm_vcpu_events, [u8; VCPU_EVENTS_SIZE]>(events) })
    }
}
