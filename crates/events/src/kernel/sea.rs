//! The host's side of a guest's external abort: exit to user space, or fall back to an SError.

use seawall_arm::{Esr, FaultStatus};

use super::inject::{self, Abort};
use super::{AbortDelivery, SErrorDelivery, VcpuState};
use crate::SeaExit;

/// The inputs, beyond the vCPU itself, that decide between exit and fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeaPolicy {
    /// User space enabled `KVM_CAP_ARM_SEA_TO_USER` for the VM.
    pub to_user: bool,
    /// The guest has RAS: the exit gives SET.
    pub guest_has_ras: bool,
}

/// The fallback without an exit: the host gave the guest an SError with ISS bit 24, which makes Linux panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostFallback {
    /// The outcome of the SError.
    pub serror: SErrorDelivery,
}

/// Returns true if an ESR taken to EL2 is a synchronous external abort: FSC 0x10, 0x13..=0x18, 0x1b..=0x1f.
pub const fn is_sea(esr: Esr) -> bool {
    let is_abort = esr.ec().is_data_abort() || esr.ec().is_instruction_abort();
    is_abort && matches!(esr.bits() & 0x3f, 0x10 | 0x13..=0x18 | 0x1b..=0x1f)
}

/// KVM's handling of the external abort in [`VcpuState::last_fault`], if firmware (APEI) did not claim it
/// before: the exit, or the fallback if the abort is the host's own or user space did not opt in.
///
/// Source: api.rst, `KVM_EXIT_ARM_SEA`.
///
/// # Errors
/// [`HostFallback`]: the guest was given an SError instead.
pub fn handle_guest_sea(vcpu: &mut impl VcpuState, policy: SeaPolicy) -> Result<SeaExit, HostFallback> {
    let fault = vcpu.last_fault();
    if host_owns(vcpu, fault.esr) || !policy.to_user {
        return Err(HostFallback { serror: inject::serror(vcpu, 1 << 24) });
    }
    Ok(SeaExit::from_hardware(fault.esr, fault.far, fault.ipa, policy.guest_has_ras))
}

/// A fetch from an address without memory: KVM injects an external instruction abort without user space.
pub fn inject_fetch_from_hole(vcpu: &mut impl VcpuState) -> AbortDelivery {
    inject::external_abort(vcpu, Abort { is_instruction: true, iss: 0 })
}

/// A table walk that reached an address without memory (a stage 2 fault with S1PTW): KVM injects the abort
/// without user space, as a data or instruction abort by the access that caused the walk.
pub fn inject_walk_abort(vcpu: &mut impl VcpuState) -> AbortDelivery {
    let is_instruction = vcpu.last_fault().esr.ec().is_instruction_abort();
    inject::external_abort(vcpu, Abort { is_instruction, iss: 0 })
}

/// Returns true for the host's own memory. Without RAS nothing else aborts to EL2. With RAS it is a stage 2
/// table, or the `VNCR_EL2` page while the guest hypervisor itself runs (a data abort: bit `[13]` of a
/// fetch's ISS is RES0).
fn host_owns(vcpu: &impl VcpuState, esr: Esr) -> bool {
    const VNCR: u64 = 1 << 13;
    const S1PTW: u64 = 1 << 7;
    if !vcpu.config().ras {
        return true;
    }
    let hyp_context = vcpu.config().el2 && inject::is_hyp_context(vcpu);
    if hyp_context && esr.ec().is_data_abort() && esr.bits() & VNCR != 0 {
        return true;
    }
    let status = FaultStatus::from_bits(esr.bits() as u8 & 0x3f);
    matches!(status, FaultStatus::ExternalOnWalk { .. }) && esr.bits() & S1PTW != 0
}
