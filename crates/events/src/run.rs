//! What `KVM_RUN` does about a pending SError.

use seawall_arm::{
    Abort32, EntryContext, Esr, Exception, ExceptionClass, Pstate, Reg, Target, Vector, take_abort32,
    take_exception, tcr,
};

use crate::inject::{self, SErrorDelivery};
use crate::{VcpuState, VirtualSError};

/// What became of a pending SError at the start of a run, or after the guest unmasked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PendingSError {
    /// None is pending.
    None,
    /// It is masked still.
    Waits,
    /// The guest is at the first instruction of its handler.
    Taken(Target),
}

/// Takes the pending SError if the guest can take it now.
///
/// In hardware the CPU does this at any point after the guest clears PSTATE.A; a software CPU calls it
/// before the next instruction. With a guest hypervisor the host decides anew each time where the
/// SError goes, as HCR_EL2, HCRX_EL2 or the Exception level may have changed since it was made pending.
///
/// Source: DDI 0487, `TakePendingInterrupts`, `AArch64.TakeVirtualSErrorException`,
/// `AArch32.TakeVirtualSErrorException`; what KVM does about a nested vCPU's SError around each run.
pub fn prepare_run(vcpu: &mut impl VcpuState) -> PendingSError {
    let serror = vcpu.serror();
    if !serror.pending && !serror.held_for_el2 {
        return PendingSError::None;
    }
    if vcpu.config().el2 {
        return inject_again(vcpu, serror);
    }
    if !serror.pending || masked_in_hardware(vcpu) {
        return PendingSError::Waits;
    }
    vcpu.set_serror(VirtualSError { pending: false, ..serror });
    if vcpu.config().el1_aarch32 {
        take_asynchronous_abort32(vcpu, serror.vsesr);
    } else {
        let esr = Esr::new(ExceptionClass::SERROR, true, serror.vsesr as u32);
        // The CPU's own entry: the architecture's, not KVM's.
        let exception = Exception { target: Target::El1, vector: Vector::SError, esr: Some(esr), far: None };
        let context = EntryContext { mte: vcpu.config().mte, ..EntryContext::default() };
        take_exception(vcpu, &exception, context);
        vcpu.drop_mmio();
    }
    PendingSError::Taken(Target::El1)
}

/// Of a guest with EL2: as if the SError were injected now.
fn inject_again(vcpu: &mut impl VcpuState, serror: VirtualSError) -> PendingSError {
    vcpu.set_serror(VirtualSError { pending: false, held_for_el2: false, ..serror });
    match inject::serror(vcpu, serror.vsesr) {
        SErrorDelivery::Delivered(target) => PendingSError::Taken(target),
        SErrorDelivery::Pending | SErrorDelivery::HeldForEl2 => PendingSError::Waits,
        SErrorDelivery::Lost => PendingSError::None,
    }
}

/// PSTATE.A (less NMEA, which AArch32 does not have) decides.
fn masked_in_hardware(vcpu: &impl VcpuState) -> bool {
    if vcpu.config().el1_aarch32 {
        return inject::pstate(vcpu).has(Pstate::A);
    }
    inject::serror_is_masked(vcpu)
}

/// AET and ExT of `VDFSR` and the code for an asynchronous SError, by `TTBCR.EAE`.
fn take_asynchronous_abort32(vcpu: &mut impl VcpuState, vdfsr: u64) {
    const AET_EXT: u64 = 0xd000;
    let lpae = vcpu.reg(Reg::TcrEl1) & tcr::EAE != 0;
    // STATUS 0b010001 with bit [9]; FS 0b10110.
    let code = if lpae { 0x211 } else { 0x406 };
    take_abort32(vcpu, Abort32::Data { dfsr: (vdfsr & AET_EXT) as u32 | code, dfar: None });
    vcpu.drop_mmio();
}
