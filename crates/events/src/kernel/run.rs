//! Pending SErrors at `KVM_RUN`.

use seawall_arm::{
    Abort32, EntryContext, Esr, Exception, ExceptionClass, Pstate, Reg, Target, Vector, take_abort32,
    take_exception, tcr,
};

use super::inject::{self, SErrorDelivery};
use super::{VcpuState, VirtualSError};

/// The outcome of a pending SError at the start of a run, or after the guest unmasked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PendingSError {
    /// None is pending.
    None,
    /// It is still masked.
    Waits,
    /// The guest is at the first instruction of its handler.
    Taken(Target),
}

/// Takes the pending SError if the guest can take it now.
///
/// In hardware the CPU does this at any point after the guest clears PSTATE.A; a software CPU calls it before
/// the next instruction. For a guest with EL2, KVM injects a [held](VirtualSError::held_for_el2) SError again
/// each time. The CPU takes a [pending](VirtualSError::pending) one at the level that runs, even if the guest
/// hypervisor changed HCR_EL2 meanwhile; KVM checks that in [`finish_run`].
///
/// Source: DDI 0487, `TakePendingInterrupts`, `AArch64.TakeVirtualSErrorException`,
/// `AArch32.TakeVirtualSErrorException`; KVM's handling of a nested vCPU's SError before each entry.
pub fn prepare_run(vcpu: &mut impl VcpuState) -> PendingSError {
    if let taken @ PendingSError::Taken(_) = inject_held(vcpu) {
        return taken;
    }
    let serror = vcpu.serror();
    match (serror.pending, serror.held_for_el2) {
        (false, false) => return PendingSError::None,
        (false, true) => return PendingSError::Waits,
        (true, _) if masked_in_hardware(vcpu) => return PendingSError::Waits,
        (true, _) => {}
    }
    if vcpu.config().el1_aarch32 {
        vcpu.set_serror(VirtualSError { pending: false, ..serror });
        take_asynchronous_abort32(vcpu, serror.vsesr);
        return PendingSError::Taken(Target::El1);
    }
    let hyp = vcpu.config().el2 && inject::is_hyp_context(vcpu);
    let target = if hyp { Target::El2 } else { Target::El1 };
    let of_the_hypervisor = inject::serrors_are_the_hypervisors(vcpu);
    let vsesr = if of_the_hypervisor { vcpu.reg(Reg::VsesrEl2) } else { serror.vsesr };
    // KVM then reads back HCR_EL2.VSE for the guest hypervisor, and keeps its own.
    vcpu.set_serror(VirtualSError { pending: of_the_hypervisor, ..serror });
    let esr = Esr::new(ExceptionClass::SERROR, true, (vsesr & Esr::ISS_MASK) as u32);
    // The CPU's own entry follows the architecture, not KVM. To the CPU, virtual EL2 is EL1.
    let exception = Exception { target, vector: Vector::SError, esr: Some(esr), far: None };
    let context = EntryContext { mte: vcpu.config().mte, span_at_el2: true, ..EntryContext::default() };
    take_exception(vcpu, &exception, context);
    vcpu.drop_mmio();
    PendingSError::Taken(target)
}

/// The part of [`prepare_run`] that KVM does before it enters the guest: for a guest with EL2 it injects the
/// [held](VirtualSError::held_for_el2) SError again.
pub fn inject_held(vcpu: &mut impl VcpuState) -> PendingSError {
    let serror = vcpu.serror();
    if !vcpu.config().el2 || !serror.held_for_el2 {
        return PendingSError::None;
    }
    inject_again(vcpu, VirtualSError { held_for_el2: false, ..serror })
}

/// KVM's step after each exit for the SError of a guest with EL2: it decides again where the SError goes,
/// because HCR_EL2, HCRX_EL2 or the Exception level may have changed while the guest ran. It does nothing for
/// other guests.
///
/// KVM takes this step before it handles the exit. An MMIO access of that exit therefore waits although the
/// guest is already in its handler, and its completion steps the handler's PC.
pub fn finish_run(vcpu: &mut impl VcpuState) -> PendingSError {
    let serror = vcpu.serror();
    if !vcpu.config().el2 || !serror.pending && !serror.held_for_el2 {
        return PendingSError::None;
    }
    inject_again(vcpu, VirtualSError { pending: false, held_for_el2: false, ..serror })
}

/// Acts as if the SError were injected now.
fn inject_again(vcpu: &mut impl VcpuState, serror: VirtualSError) -> PendingSError {
    vcpu.set_serror(serror);
    match inject::serror(vcpu, serror.vsesr) {
        SErrorDelivery::Delivered(target) => PendingSError::Taken(target),
        SErrorDelivery::Pending | SErrorDelivery::HeldForEl2 => PendingSError::Waits,
        SErrorDelivery::Lost => PendingSError::None,
    }
}

/// PSTATE.A decides, less NMEA, which AArch32 does not have.
fn masked_in_hardware(vcpu: &impl VcpuState) -> bool {
    if vcpu.config().el1_aarch32 {
        return inject::pstate(vcpu).has(Pstate::A);
    }
    inject::serror_is_masked(vcpu)
}

/// AET and ExT of `VDFSR`, and the code for an asynchronous SError, which depends on `TTBCR.EAE`.
fn take_asynchronous_abort32(vcpu: &mut impl VcpuState, vdfsr: u64) {
    const AET_EXT: u64 = 0xd000;
    let lpae = vcpu.reg(Reg::TcrEl1) & tcr::EAE != 0;
    // STATUS 0b010001 with bit [9]; FS 0b10110.
    let code = if lpae { 0x211 } else { 0x406 };
    take_abort32(vcpu, Abort32::Data { dfsr: (vdfsr & AET_EXT) as u32 | code, dfar: None });
    vcpu.drop_mmio();
}
