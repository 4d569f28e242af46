//! Functions for a VMM that has a `VcpuFd` of `kvm-ioctls`, without this crate's types.

use kvm_bindings::kvm_run;
use seawall_events::SeaExit;
use seawall_events::wire::KVM_EXIT_ARM_SEA;
use seawall_inject::Exit;

use super::vcpu::decode;

/// The SEA exit in `kvm_run`, if the last exit was one: for `Ok(VcpuExit::Unsupported(41))`, because
/// `kvm-ioctls` 0.25 has no name for it.
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
