//! Which Exception level takes what: exceptions, External aborts, faults of stage 2, interrupts, SMC and HVC.
//!
//! Source: DDI 0487, `AArch64.DataAbort`, `AArch64.InstructionAbort`, `AArch64.TakePhysicalIRQException` and its fellows,
//! `AArch64.TakeVirtualSErrorException`; D1.3.6 for masks.

use seawall_arm::{
    EntryContext, Esr, Exception, ExceptionClass, FaultStatus, Pstate, Target, Vector, sctlr2,
    synchronous_abort_vector, take_exception,
};

use super::{Banked, hcr};
use crate::cpu::Cpu;
use crate::decode::Insn;
use crate::gic::Signals;
use crate::gic::virtual_interface::group_of;
use crate::run::{Runner, Stop, described_iss, iss};
use crate::trap::{HostAbort, Stage2Fault, Trap};
use crate::walk::WalkStage;

/// ISS of a virtual SError: IDS and the rest.
const SERROR_ISS: u32 = 0x1ff_ffff;

/// The Exception level that takes a failed access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExternalAbort {
    /// Memory that went bad: ISS.EA is set.
    Poison,
    /// Nobody: there is no memory and no device.
    Nobody,
}

/// A trap that is as on a CPU without EL2.
pub(crate) struct NotOfEl2;

fn is_debug(class: ExceptionClass) -> bool {
    matches!(
        class,
        ExceptionClass::BREAKPOINT_LOWER
            | ExceptionClass::BREAKPOINT_SAME
            | ExceptionClass::STEP_LOWER
            | ExceptionClass::STEP_SAME
            | ExceptionClass::WATCHPOINT_LOWER
            | ExceptionClass::WATCHPOINT_SAME
            | ExceptionClass::BRK64
    )
}

impl Cpu {
    /// Where an exception of this class goes that is not EL2's alone.
    pub(crate) fn target_of(&self, class: ExceptionClass) -> Target {
        match &self.el2 {
            Some(el2) if el2.host || is_debug(class) && el2.registers.mdcr & hcr::MDCR_TDE != 0 => {
                Target::El2
            }
            _ => Target::El1,
        }
    }

    /// Where debug exceptions go: MDCR_EL2.TDE, HCR_EL2.TGE. Source: `DebugTargetFrom`.
    pub(crate) fn debug_target(&self) -> u8 {
        let to_el2 = self
            .el2
            .as_ref()
            .is_some_and(|el2| el2.registers.mdcr & hcr::MDCR_TDE != 0 || el2.registers.has(hcr::TGE));
        1 + u8::from(to_el2)
    }

    /// The CPU takes an exception at its PC.
    pub(crate) fn take_exception(&mut self, exception: &Exception) {
        let span_at_el2 = self.el2.as_ref().is_some_and(|el2| el2.registers.has(hcr::TGE));
        let leaves_guest = exception.target == Target::El2 && self.hypervisor().is_some();
        take_exception(self, exception, EntryContext { span_at_el2, ..EntryContext::default() });
        if leaves_guest {
            self.note_guest_exit(exception);
        }
    }

    fn take_synchronous(&mut self, target: Target, class: ExceptionClass, iss: u32, far: Option<u64>) {
        let esr = Some(Esr::new(class, true, iss));
        self.take_exception(&Exception { target, vector: Vector::Synchronous, esr, far });
    }

    /// The class of an abort that `target` takes.
    fn abort_class(&self, fetch: bool, target: Target) -> ExceptionClass {
        let is_lower = self.state.el == 0 || target == Target::El2 && !self.is_host();
        match (fetch, is_lower) {
            (true, true) => ExceptionClass::INSTRUCTION_ABORT_LOWER,
            (true, false) => ExceptionClass::INSTRUCTION_ABORT_SAME,
            (false, true) => ExceptionClass::DATA_ABORT_LOWER,
            (false, false) => ExceptionClass::DATA_ABORT_SAME,
        }
    }

    /// The Exception level that takes an External abort: HCR_EL2.TEA, HCRX_EL2.TMEA, and EL2 what a walk of its tables met.
    fn external_abort_target(&self, stage: WalkStage) -> Target {
        let Some(el2) = &self.el2 else { return Target::El1 };
        let is_masked = self.state.rest & Pstate::A != 0;
        let to_el2 = el2.host
            || stage != WalkStage::First
            || el2.registers.has(hcr::TEA)
            || el2.registers.hcrx & hcr::X_TMEA != 0 && is_masked;
        if to_el2 { Target::El2 } else { Target::El1 }
    }

    /// SCTLR2_EL1.NMEA: PSTATE.A does not mask an SError at EL1 and EL0.
    pub(crate) fn serror_is_unmaskable(&self) -> bool {
        self.el2.as_ref().is_some_and(|el2| el2.registers.sctlr2(Banked::El10) & sctlr2::NMEA != 0)
    }

    /// The interrupt that the CPU takes now, and where. Physical ones first, as they can go to EL2.
    /// Source: `AArch64.PhysicalInterruptTarget`... `InterruptMasked`: below EL2 an interrupt of EL2's cannot be masked.
    fn next_interrupt(&self) -> Option<(Target, Vector)> {
        let el2 = self.el2.as_ref()?;
        let (signals, masked, own) = (self.signals, self.state.rest, &el2.registers);
        let in_el2 = el2.host && self.state.el != 0;
        for (signal, mask, route, vector) in [
            (Signals::FIQ, Pstate::F, hcr::FMO, Vector::Fiq),
            (Signals::IRQ, Pstate::I, hcr::IMO, Vector::Irq),
        ] {
            if !signals.has(signal) {
                continue;
            }
            let to_el2 = own.has(route) || own.has(hcr::TGE);
            let can_mask = el2.host || !to_el2;
            // EL1's interrupts wait while EL2 runs.
            if (can_mask && masked & mask != 0) || (in_el2 && !to_el2) {
                continue;
            }
            return Some((if to_el2 { Target::El2 } else { Target::El1 }, vector));
        }
        let is_open = |signal, mask| signals.has(signal) && masked & mask == 0;
        if signals.has(Signals::VIRTUAL_SERROR) && (masked & Pstate::A == 0 || self.serror_is_unmaskable()) {
            return Some((Target::El1, Vector::SError));
        }
        if is_open(Signals::VIRTUAL_FIQ, Pstate::F) {
            return Some((Target::El1, Vector::Fiq));
        }
        is_open(Signals::VIRTUAL_IRQ, Pstate::I).then_some((Target::El1, Vector::Irq))
    }

    /// True if the CPU, which has EL2, would take an interrupt now.
    pub(crate) fn has_unmasked_interrupt(&self) -> bool {
        self.next_interrupt().is_some()
    }
}

impl Runner<'_> {
    /// Take what is pending and not masked, on a CPU with EL2. Whether there was one.
    pub(crate) fn take_interrupt_with_el2(&mut self) -> bool {
        let Some((target, vector)) = self.cpu.next_interrupt() else { return false };
        let esr = (vector == Vector::SError).then(|| {
            let syndrome = self.cpu.consume_virtual_serror();
            Esr::new(ExceptionClass::SERROR, true, syndrome & SERROR_ISS)
        });
        self.cpu.take_exception(&Exception { target, vector, esr, far: None });
        true
    }

    /// An instruction that a branch landed at did not complete: PSTATE.BTYPE is still the branch's. SVC and HVC may leave it so,
    /// too.
    pub(crate) fn keep_btype(&mut self, trap: &Trap) {
        let is_left = matches!(
            trap,
            Trap::Exception { .. }
                | Trap::Undefined(_)
                | Trap::Svc(_)
                | Trap::Hvc(_)
                | Trap::ToEl2 { .. }
                | Trap::Stage2(_)
                | Trap::Poison(_)
                | Trap::Hole(_)
        );
        if is_left && self.cpu.landing.0 == self.cpu.steps {
            self.cpu.state.btype = self.cpu.landing.1;
        }
    }

    /// A trap that EL2 takes, or that a CPU without EL2 does not have: why the CPU stops, if it does.
    ///
    /// # Errors
    /// It is none of these.
    pub(crate) fn take_trap_with_el2(
        &mut self,
        left: &mut u64,
        trap: &Trap,
        insn: Option<Insn>,
    ) -> Result<Option<Stop>, NotOfEl2> {
        match *trap {
            Trap::Hvc(immediate) => self.hypervisor_call_to_el2(immediate),
            Trap::Smc(immediate) => return Ok(self.secure_monitor_call(left, immediate)),
            Trap::ToEl2 { class, iss } => self.cpu.take_synchronous(Target::El2, class, iss, None),
            Trap::Stage2(ref fault) => self.take_stage2_fault(fault, insn),
            Trap::Poison(ref abort) => self.take_external_abort(abort, ExternalAbort::Poison),
            Trap::Hole(ref abort) => self.take_external_abort(abort, ExternalAbort::Nobody),
            _ => return Err(NotOfEl2),
        }
        self.step(left, 1);
        Ok(None)
    }

    /// HVC: EL2 takes it, unless it is disabled (HCR_EL2.HCD). Source: `AArch64.CallHypervisor`.
    fn hypervisor_call_to_el2(&mut self, immediate: u16) {
        let is_disabled = self.cpu.el2.as_ref().is_some_and(|el2| el2.registers.has(hcr::HCD));
        if is_disabled {
            self.undefined.record(0xd400_0002 | u32::from(immediate) << 5);
            self.enter(ExceptionClass::UNKNOWN, 0, None);
            return;
        }
        self.cpu.pc = self.cpu.pc.wrapping_add(4);
        self.cpu.advance_step();
        self.cpu.take_synchronous(Target::El2, ExceptionClass::HVC64, immediate.into(), None);
    }

    /// SMC: EL2 may trap it (HCR_EL2.TSC); else it is the firmware's, which is PSCI's.
    /// Source: `AArch64.CheckForSMCUndefOrTrap`.
    fn secure_monitor_call(&mut self, left: &mut u64, immediate: u16) -> Option<Stop> {
        if self.cpu.hypervisor().is_some_and(|el2| el2.registers.has(hcr::TSC)) {
            self.cpu.take_synchronous(Target::El2, ExceptionClass::SMC64, immediate.into(), None);
            self.step(left, 1);
            return None;
        }
        self.retire(left);
        self.firmware_call()
    }

    /// A fault of stage 2: ESR_EL2, FAR_EL2 and HPFAR_EL2. Source: `AArch64.FaultSyndrome`, `IPAValid`. (HPFAR_EL2 is
    /// UNKNOWN for a Permission fault that is not of a walk; it has the address all the same.)
    fn take_stage2_fault(&mut self, fault: &Stage2Fault, insn: Option<Insn>) {
        let Stage2Fault { intent, va, ipa, status, of_walk } = *fault;
        let mut syndrome = intent.iss() | u32::from(status.bits());
        if of_walk {
            syndrome |= iss::S1PTW;
        } else if !intent.fetch && !intent.maintenance {
            syndrome |= described_iss(insn);
        }
        if let Some(el2) = &mut self.cpu.el2 {
            el2.registers.hpfar = ipa >> 12 << 4;
        }
        let class = self.cpu.abort_class(intent.fetch, Target::El2);
        self.cpu.take_synchronous(Target::El2, class, syndrome, Some(va));
    }

    /// A synchronous External abort, at the vector that SCTLR2_ELx.EASE says.
    fn take_external_abort(&mut self, abort: &HostAbort, why: ExternalAbort) {
        let error = match why {
            ExternalAbort::Poison => iss::EA | u32::from(self.config.error_state.bits()) << iss::SET_SHIFT,
            ExternalAbort::Nobody => 0,
        };
        self.cpu.take_external_abort(abort, error);
    }
}

impl Cpu {
    /// A synchronous External abort with these bits of its ISS.
    pub(crate) fn take_external_abort(&mut self, abort: &HostAbort, error: u32) {
        let status = match abort.walk_level {
            Some(level) => FaultStatus::ExternalOnWalk { level },
            None => FaultStatus::External,
        };
        let of_walk = if abort.stage == WalkStage::SecondOfWalk { iss::S1PTW } else { 0 };
        let syndrome = error | of_walk | abort.intent.iss() | u32::from(status.bits());
        let target = self.external_abort_target(abort.stage);
        let of = if target == Target::El2 { Banked::El20 } else { Banked::El10 };
        let control = self.el2.as_ref().map_or(0, |el2| el2.registers.sctlr2(of));
        let class = self.abort_class(abort.intent.fetch, target);
        let esr = Some(Esr::new(class, true, syndrome));
        let vector = synchronous_abort_vector(control);
        self.take_exception(&Exception { target, vector, esr, far: Some(abort.va) });
    }
}

impl Cpu {
    /// True if ERET may return by this SPSR. Source: `IllegalExceptionReturn`.
    pub(crate) fn is_legal_return(&self, spsr: u64) -> bool {
        let own = self.el2.as_ref().filter(|el2| el2.host).map(|el2| &el2.registers);
        match spsr & 0x1f {
            0b00000 => true,
            // EL1t and EL1h: not while EL2 has EL0 for itself.
            0b00100 | 0b00101 => own.is_none_or(|own| !own.has(hcr::TGE)),
            0b01000 | 0b01001 => own.is_some(),
            _ => false,
        }
    }

    /// True if a register of the GIC's CPU interface is one of the virtual interface here.
    pub(crate) fn has_virtual(&self, register: u16) -> bool {
        let Some(el2) = self.hypervisor() else { return false };
        let (imo, fmo) = (el2.registers.has(hcr::IMO), el2.registers.has(hcr::FMO));
        match group_of(register) {
            Some(0) => fmo,
            Some(_) => imo,
            None => imo || fmo,
        }
    }

    /// True if EL0 is of the regime that is in place: EL2's if HCR_EL2.TGE.
    pub(crate) fn has_el0(&self) -> bool {
        self.el2.as_ref().is_none_or(|el2| !el2.host || el2.registers.has(hcr::TGE))
    }
}
