//! Construction of the exceptions: the Exception level, the ESR, and the entry.

use seawall_arm::{
    Abort32, EntryContext, Esr, Exception, ExceptionClass, ExceptionLevel, FaultStatus, Mode, Pstate, Reg,
    Target, Vector, hcr, hcrx, report_abort32, sctlr2, synchronous_abort_vector, take_abort32,
    take_exception, tcr,
};

use super::{VcpuState, VirtualSError};

/// The outcome of an external abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortDelivery {
    /// The guest is at the first instruction of its handler.
    Delivered(Target),
    /// Nothing was delivered, for one of two reasons. The last exit was a stage 2 fault on the guest's own
    /// table walk, and the walk no longer reaches that descriptor: KVM takes the error for transient and
    /// changes nothing. Or EL1 is AArch32 and the vCPU never ran: KVM writes its FSR and FAR, and it takes
    /// nothing.
    NotDelivered,
}

/// The outcome of an SError.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SErrorDelivery {
    /// The guest is at the first instruction of its handler.
    Delivered(Target),
    /// PSTATE.A masks it: the CPU takes it once the guest clears PSTATE.A.
    Pending,
    /// Virtual EL2 cannot take it now: the host tries again at each run.
    HeldForEl2,
    /// An unmasked SError into AArch32 EL1 is lost; `DFSR` holds its ESR.
    Lost,
}

/// An abort, and the ISS to OR into its ESR.
#[derive(Clone, Copy)]
pub(crate) struct Abort {
    pub(crate) is_instruction: bool,
    pub(crate) iss: u64,
}

/// Injects an external abort at the FAR of the last exit and commits it.
pub(crate) fn external_abort(vcpu: &mut impl VcpuState, abort: Abort) -> AbortDelivery {
    let config = vcpu.config();
    let far = vcpu.last_fault().far;
    if config.el2 && !is_hyp_context(vcpu) && abort_goes_to_el2(vcpu) {
        let class = abort_class(abort.is_instruction, true);
        let esr = abort_esr(class, FaultStatus::External, abort.iss);
        // The guest hypervisor's own SCTLR2, whatever its guest's value.
        let sctlr2 = if config.sctlr2 { vcpu.reg(Reg::Sctlr2El2) } else { 0 };
        enter(vcpu, Target::El2, synchronous_abort_vector(sctlr2), esr, Some(far));
        return AbortDelivery::Delivered(Target::El2);
    }
    if config.el1_aarch32 {
        let abort = aarch32_abort(vcpu.reg(Reg::TcrEl1), abort.is_instruction, far);
        vcpu.drop_mmio();
        if !vcpu.has_run() {
            // KVM's entry depends on HCR_EL2.RW, which the first run clears: before it, KVM sees an AArch64
            // IRQ or FIQ, for which it has no entry.
            report_abort32(vcpu, abort);
            return AbortDelivery::NotDelivered;
        }
        take_abort32(vcpu, abort);
        return AbortDelivery::Delivered(Target::El1);
    }
    let Some(status) = abort_status(vcpu) else {
        return AbortDelivery::NotDelivered;
    };
    let target = exception_target(vcpu);
    let pstate = pstate(vcpu);
    let from_lower = pstate.is_aarch32() || pstate.masked(0xf) == Mode::El0t.bits().into();
    let esr = abort_esr(abort_class(abort.is_instruction, from_lower), status, abort.iss);
    let vector = synchronous_abort_vector(effective_sctlr2(vcpu));
    enter(vcpu, target, vector, esr, Some(far));
    AbortDelivery::Delivered(target)
}

/// Injects an SError with this ISS: the guest takes it at once if it is unmasked, otherwise it becomes
/// pending.
pub(crate) fn serror(vcpu: &mut impl VcpuState, iss: u64) -> SErrorDelivery {
    let esr = Esr::new(ExceptionClass::SERROR, true, iss as u32);
    if vcpu.config().el2 {
        if !is_hyp_context(vcpu) && serror_goes_to_el2(vcpu) {
            enter(vcpu, Target::El2, Vector::SError, esr, None);
            return SErrorDelivery::Delivered(Target::El2);
        }
        let hcr = vcpu.reg(Reg::HcrEl2);
        let deliverable = hcr & hcr::TGE != 0 || effective_amo(vcpu);
        if is_el2(vcpu) && !deliverable {
            vcpu.set_serror(VirtualSError { vsesr: iss, held_for_el2: true, ..vcpu.serror() });
            return SErrorDelivery::HeldForEl2;
        }
    }
    if serror_is_masked(vcpu) {
        vcpu.set_serror(VirtualSError { vsesr: iss & Esr::ISS_MASK, pending: true, ..vcpu.serror() });
        return SErrorDelivery::Pending;
    }
    // Before the first run KVM's entry takes EL1 for AArch64, and has an entry for it.
    if vcpu.config().el1_aarch32 && vcpu.has_run() {
        // DFSR is ESR_EL1. KVM writes it, then has no AArch32 entry for an SError.
        vcpu.set_reg(Reg::EsrEl1, esr.bits());
        vcpu.drop_mmio();
        return SErrorDelivery::Lost;
    }
    let target = exception_target(vcpu);
    enter(vcpu, target, Vector::SError, esr, None);
    SErrorDelivery::Delivered(target)
}

/// Exception entry as KVM emulates it, which also drops a pending MMIO access.
fn enter(vcpu: &mut impl VcpuState, target: Target, vector: Vector, esr: Esr, far: Option<u64>) {
    // KVM chooses the vector group by the mode, honours SCTLR_EL2.SPAN whatever E2H and TGE are, does not
    // know ALLINT, and adds the offset to VBAR unchanged, RES0 bits included.
    let context = EntryContext {
        mte: vcpu.config().mte,
        nmi: false,
        span_at_el2: true,
        el1_is_aarch64: false,
        vbar_low_bits: true,
    };
    take_exception(vcpu, &Exception { target, vector, esr: Some(esr), far }, context);
    vcpu.drop_mmio();
}

/// Returns true if PSTATE.A masks SErrors; `SCTLR2_ELx.NMEA` overrides it.
pub(crate) fn serror_is_masked(vcpu: &impl VcpuState) -> bool {
    pstate(vcpu).has(Pstate::A) && effective_sctlr2(vcpu) & sctlr2::NMEA == 0
}

pub(crate) fn pstate(vcpu: &impl VcpuState) -> Pstate {
    Pstate::from_bits(vcpu.reg(Reg::Pstate))
}

/// FSC 0x10. After a stage 2 fault on the stage 1 walk it is 0x14 + the level that a new walk finds, or
/// `None` if that walk does not find the descriptor.
fn abort_status(vcpu: &impl VcpuState) -> Option<FaultStatus> {
    let fault = vcpu.last_fault();
    let s1ptw = fault.esr.bits() >> 7 & 1 != 0;
    if !s1ptw {
        return Some(FaultStatus::External);
    }
    let level = vcpu.walk_level(fault.far, fault.ipa?)?;
    Some(FaultStatus::ExternalOnWalk { level })
}

fn abort_class(is_instruction: bool, from_lower: bool) -> ExceptionClass {
    match (is_instruction, from_lower) {
        (true, true) => ExceptionClass::INSTRUCTION_ABORT_LOWER,
        (true, false) => ExceptionClass::INSTRUCTION_ABORT_SAME,
        (false, true) => ExceptionClass::DATA_ABORT_LOWER,
        (false, false) => ExceptionClass::DATA_ABORT_SAME,
    }
}

fn abort_esr(class: ExceptionClass, status: FaultStatus, iss: u64) -> Esr {
    Esr::new(class, true, u32::from(status.bits()) | (iss & Esr::ISS_MASK) as u32)
}

fn aarch32_abort(ttbcr: u64, is_instruction: bool, far: u64) -> Abort32 {
    // LPAE: STATUS 0x10 with bit [9]. Short descriptors: FS 0x08.
    let fsr = if ttbcr & tcr::EAE != 0 { 0x210 } else { 0x08 };
    if is_instruction {
        Abort32::Prefetch { ifsr: fsr, ifar: far as u32 }
    } else {
        Abort32::Data { dfsr: fsr, dfar: Some(far as u32) }
    }
}

/// Returns true in a mode of EL2.
fn is_el2(vcpu: &impl VcpuState) -> bool {
    let pstate = pstate(vcpu);
    !pstate.is_aarch32() && pstate.exception_level() == ExceptionLevel::El2
}

/// Returns true if the guest hypervisor itself runs, or its user space (TGE).
pub(crate) fn is_hyp_context(vcpu: &impl VcpuState) -> bool {
    is_el2(vcpu) || vcpu.reg(Reg::HcrEl2) & hcr::TGE != 0
}

/// The target of an exception that does not change the context.
fn exception_target(vcpu: &impl VcpuState) -> Target {
    if !vcpu.config().el2 {
        return Target::El1;
    }
    let tge = vcpu.reg(Reg::HcrEl2) & hcr::TGE != 0;
    match pstate(vcpu).exception_level() {
        ExceptionLevel::El2 | ExceptionLevel::El3 => Target::El2,
        ExceptionLevel::El0 if tge => Target::El2,
        _ => Target::El1,
    }
}

/// `SCTLR2_ELx` of the Exception level that takes exceptions; 0 where it has no effect.
fn effective_sctlr2(vcpu: &impl VcpuState) -> u64 {
    let config = vcpu.config();
    if !config.sctlr2 {
        return 0;
    }
    let nested = config.el2 && !is_hyp_context(vcpu);
    if nested && vcpu.reg(Reg::HcrxEl2) & hcrx::SCTLR2EN == 0 {
        return 0;
    }
    match exception_target(vcpu) {
        Target::El1 => vcpu.reg(Reg::Sctlr2El1),
        Target::El2 => vcpu.reg(Reg::Sctlr2El2),
    }
}

/// For a nested guest: true if its hypervisor asked for external aborts, or for those that EL1 masks.
fn abort_goes_to_el2(vcpu: &impl VcpuState) -> bool {
    if vcpu.reg(Reg::HcrEl2) & (hcr::TGE | hcr::TEA) != 0 {
        return true;
    }
    is_privileged(vcpu) && pstate(vcpu).has(Pstate::A) && tmea(vcpu)
}

/// For a nested guest: true if its hypervisor asked for SErrors, or for those that are masked. NMEA does not
/// count as unmasking at EL1; at EL0 it does.
fn serror_goes_to_el2(vcpu: &impl VcpuState) -> bool {
    if effective_amo(vcpu) {
        return true;
    }
    if !tmea(vcpu) {
        return false;
    }
    if is_privileged(vcpu) { pstate(vcpu).has(Pstate::A) } else { serror_is_masked(vcpu) }
}

/// For a nested guest: true if its hypervisor injects its virtual SErrors, by its own HCR_EL2.VSE and
/// VSESR_EL2.
pub(crate) fn serrors_are_the_hypervisors(vcpu: &impl VcpuState) -> bool {
    vcpu.config().el2 && !is_hyp_context(vcpu) && (effective_amo(vcpu) || tmea(vcpu))
}

fn tmea(vcpu: &impl VcpuState) -> bool {
    vcpu.reg(Reg::HcrxEl2) & hcrx::TMEA != 0
}

fn is_privileged(vcpu: &impl VcpuState) -> bool {
    pstate(vcpu).exception_level() != ExceptionLevel::El0
}

/// `HCR_EL2.AMO`, which KVM treats as 1 at EL2 with E2H set and TGE clear.
fn effective_amo(vcpu: &impl VcpuState) -> bool {
    let hcr = vcpu.reg(Reg::HcrEl2);
    let host_kernel = is_el2(vcpu) && hcr & (hcr::E2H | hcr::TGE) == hcr::E2H;
    host_kernel || hcr & hcr::AMO != 0
}
