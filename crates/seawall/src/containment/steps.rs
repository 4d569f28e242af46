//! The steps of a containment: decide, and inject.

use std::ops::Range;
use std::time::Duration;

use seawall_arm::{ExceptionLevel, Pstate, Target, tcr};
use seawall_events::{Reg, SeaExit};
use seawall_inject::{Delivery, GuestKind, Inject, VcpuTraits};

use super::{ContainError, Containment};
use crate::error::PAGE;
use crate::{Action, Decision, Injection, MemoryError, Outcome, Recorded, Response, Verdict};

impl Containment {
    /// Decides on a SEA exit. The guest is unchanged.
    ///
    /// `now`: the time that the guest has been running, by any monotonic clock.
    ///
    /// # Errors
    /// [`ContainError`].
    pub fn decide_sea<V: Inject>(
        &mut self,
        vcpu: &V,
        exit: &SeaExit,
        now: Duration,
    ) -> Result<Decision, ContainError<V::Error>> {
        self.decide(vcpu, |pc, pstate| MemoryError::from_sea(exit, pc, pstate), now)
    }

    /// Decides on a SIGBUS with `BUS_MCEERR_AR` on the vCPU's thread. `range`: the guest's memory behind
    /// `si_addr`, as [`Containment::guest_ranges`] finds it.
    ///
    /// # Errors
    /// [`ContainError`].
    pub fn decide_sigbus<V: Inject>(
        &mut self,
        vcpu: &V,
        range: Range<u64>,
        now: Duration,
    ) -> Result<Decision, ContainError<V::Error>> {
        self.decide(vcpu, |pc, pstate| MemoryError::from_sigbus(range, pc, pstate), now)
    }

    fn decide<V: Inject>(
        &mut self,
        vcpu: &V,
        error: impl FnOnce(u64, Pstate) -> MemoryError,
        now: Duration,
    ) -> Result<Decision, ContainError<V::Error>> {
        let pc = vcpu.reg(Reg::Pc)?;
        let pstate = Pstate::from_bits(vcpu.reg(Reg::Pstate)?);
        let mut error = error(pc, pstate);
        let traits = vcpu.traits();
        if traits.guest == GuestKind::Nested {
            // A CPU without FEAT_HCX has no HCRX_EL2.
            error = error.with_el2(vcpu.reg(Reg::HcrEl2)?, vcpu.reg(Reg::HcrxEl2).unwrap_or_default());
        }
        self.repeats.forget();
        if error.gpa.is_some() {
            error = error.in_pages_of(self.host_page.max(guest_page(vcpu, &error, pstate)));
        }
        let decision = |verdict, evacuate| Decision { error, verdict, recorded: Recorded::No, evacuate, now };
        if let Err(reason) = self.storm.note(&error, now) {
            return Ok(decision(Verdict::Stop(reason), None));
        }
        let verdict = match self.policy.decide(&error) {
            Response::Inject(injection) => Verdict::Inject(self.checked(injection, traits)?),
            Response::HostFirst(injection) => Verdict::HostFirst(self.checked(injection, traits)?),
            Response::Stop(reason) => Verdict::Stop(reason),
        };
        let evacuate = error.gpa.and_then(|gpa| self.evacuation.note(gpa, now));
        Ok(decision(verdict, evacuate))
    }

    /// The injection in the form that this vCPU accepts.
    fn checked<E: std::error::Error>(
        &self,
        injection: Injection,
        traits: VcpuTraits,
    ) -> Result<Injection, ContainError<E>> {
        let injection = if traits.ras { injection } else { injection.without_iss() };
        let refused = |refusal| ContainError::NotInAbi { policy: self.policy.name(), injection, refusal };
        injection.check(traits.abi).map_err(refused)?;
        Ok(injection)
    }

    /// The outcome of a [`Verdict::HostFirst`] decision after the host helped.
    pub fn repaired(&self, decision: Decision) -> Outcome {
        decision.becomes(Action::Repaired)
    }

    /// Carries out a decision, and reads back what the guest will see. Pass a [`Verdict::HostFirst`] decision
    /// here only if the host could not help.
    ///
    /// # Errors
    /// [`ContainError::OtherVcpu`], which cannot tell two vCPUs at one PC apart, and [`ContainError::Vcpu`];
    /// nothing was injected then, unless the backend failed after it.
    pub fn inject<V: Inject>(
        &mut self,
        vcpu: &mut V,
        decision: Decision,
    ) -> Result<Outcome, ContainError<V::Error>> {
        let (decided, found) = (decision.error.pc, vcpu.reg(Reg::Pc)?);
        if found != decided {
            return Err(ContainError::OtherVcpu { decided, found });
        }
        Ok(self.inject_here(vcpu, decision)?)
    }

    /// Carries out a decision on the vCPU that it is about.
    pub(super) fn inject_here<V: Inject>(
        &self,
        vcpu: &mut V,
        decision: Decision,
    ) -> Result<Outcome, V::Error> {
        let action = match decision.verdict {
            Verdict::Stop(reason) => Action::Stop(reason),
            Verdict::Wait => Action::Waiting,
            Verdict::Inject(injection) | Verdict::HostFirst(injection) if self.is_dry_run => {
                Action::DryRun(injection)
            }
            Verdict::Inject(injection) | Verdict::HostFirst(injection) => {
                let mut guest = vcpu.inject(&injection.events())?;
                if injection.is_by_far() {
                    correct_fetch(vcpu, decision.error.pc, &mut guest);
                }
                Action::Injected { injection, guest }
            }
        };
        Ok(decision.becomes(action))
    }
}

/// The size in bytes of the guest's page at the error, which the guest takes offline.
///
/// Without a virtual address PC's half of the address space counts. The answer is 4 KiB in AArch32 state,
/// where the register differs, at a virtual EL2, which has another register, and on a vCPU that does not give
/// the register away.
fn guest_page<V: Inject>(vcpu: &V, error: &MemoryError, pstate: Pstate) -> u64 {
    if pstate.is_aarch32() || error.level == ExceptionLevel::El2 {
        return PAGE;
    }
    let va = error.gva.unwrap_or(error.pc);
    vcpu.reg(Reg::TcrEl1).map_or(PAGE, |tcr| tcr::granule(tcr, va))
}

/// A data abort whose FAR lies in the instruction at `pc` was the fetch of that instruction: this writes the
/// class to `ESR_ELx`. In AArch32 state, or if the register cannot be written, the abort stays a data abort.
/// That is sound, and an error would say that nothing was injected.
fn correct_fetch<V: Inject>(vcpu: &mut V, pc: u64, guest: &mut Delivery) {
    const INSTRUCTION: u64 = 4;
    let Delivery::AtVector { target, esr, far, .. } = guest else { return };
    let is_fetch = far.wrapping_sub(pc) < INSTRUCTION;
    let Some(corrected) = esr.as_instruction_abort().filter(|_| is_fetch) else { return };
    let register = if *target == Target::El2 { Reg::EsrEl2 } else { Reg::EsrEl1 };
    if vcpu.set_reg(register, corrected.bits()).is_ok() {
        *esr = corrected;
    }
}
