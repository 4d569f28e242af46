//! One call from a SEA exit to a guest that goes on.

mod refuse;

use std::fmt;
use std::time::Duration;

use seawall_arm::{ExceptionLevel, Pstate, Target, tcr};
use seawall_events::{Abi, Refusal, Reg, SeaExit};
use seawall_inject::{Delivery, Vcpu};
use thiserror::Error;

use crate::error::PAGE;
use crate::storm::StormState;
use crate::unanswered::{Repeats, RepeatsState};
use crate::{
    Decision, Evacuate, EvacuationThreshold, Injection, MemoryError, Policy, Recorded, Response, Source,
    StopReason, StormGuard, Verdict,
};

#[cfg(feature = "records")]
mod records;

/// Turns memory errors into what a policy decides, and says what became of the guest.
///
/// [`handle`](Containment::handle) is all of it for a SEA exit. It is made of steps that can be taken one by one:
/// [`decide`](Containment::decide) looks and changes nothing of the guest (alone, it is a dry run), `record` (feature
/// `records`) writes the firmware's record for a guest that looks for such, and [`inject`](Containment::inject) does what
/// was decided.
#[derive(Clone, Debug)]
pub struct Containment<P> {
    policy: P,
    storm: StormGuard,
    repeats: Repeats,
    evacuation: EvacuationThreshold,
    #[cfg(feature = "records")]
    records: records::Records,
    guest: GuestTraits,
    host_page: u64,
    is_dry_run: bool,
}

/// What of a guest bears on how it can be told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestTraits {
    /// The host has RAS (`KVM_CAP_ARM_INJECT_SERROR_ESR`): without it no ISS can be given, and none is.
    pub ras: bool,
    /// The vCPUs have a virtual EL2 (`KVM_ARM_VCPU_HAS_EL2`): each error then takes two more registers, to find whose
    /// it is.
    pub el2: bool,
}

impl Default for GuestTraits {
    /// RAS, no virtual EL2.
    fn default() -> Self {
        Self { ras: true, el2: false }
    }
}

/// What a [`Containment`] remembers of the errors that it met; the policy is not among it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContainmentState {
    storm: StormState,
    /// When, and which.
    bad_pages: Vec<(Duration, u64)>,
    repeats: RepeatsState,
    #[cfg(feature = "records")]
    records: records::RecordsState,
}

/// What was done about one memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The error.
    pub error: MemoryError,
    /// What was done.
    pub action: Action,
    /// Whether the guest finds a record of it.
    pub recorded: Recorded,
    /// Advice to the operator, beside.
    pub evacuate: Option<Evacuate>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// This was injected, and this is where the guest is now.
    Injected {
        /// What was asked of the kernel.
        injection: Injection,
        /// What became of it.
        guest: Delivery,
    },
    /// Nothing yet: the vCPU is to be run again ([`Verdict::Wait`]).
    Waiting,
    /// The host put the memory back as it was: the vCPU is to be run again, and repeats the access.
    Repaired,
    /// Nothing, as this is a dry run ([`Containment::set_dry_run`]): this would have been injected. What becomes of the
    /// guest is up to the caller; run again, it repeats the access.
    DryRun(Injection),
    /// Nothing was injected; the guest must not be run again.
    Stop(StopReason),
}

/// What can go wrong between a SEA exit and its injection. The vCPU is as it was, but for
/// [`ContainError::Vcpu`], where the backend failed.
#[derive(Debug, Error)]
pub enum ContainError<E: std::error::Error + 'static> {
    /// The backend failed.
    #[error(transparent)]
    Vcpu(#[from] E),
    /// The decision is about another vCPU, or this one has run since: it is not where the error was met.
    #[error(
        "the decision is about a vCPU at PC {decided:#x}, and this one is at PC {found:#x}: give it the decision about \
         its own error, before it runs again"
    )]
    OtherVcpu {
        /// Where the error was met.
        decided: u64,
        /// Where this vCPU is.
        found: u64,
    },
    /// The VM's ABI cannot express the policy's decision.
    #[error(
        "policy `{policy}` decided on an {injection}, but {refusal}: create the VM with the extended ABI, \
         or choose the policy `mainline`"
    )]
    NotInAbi {
        /// The policy's name.
        policy: &'static str,
        /// Its decision.
        injection: Injection,
        /// Why it cannot be.
        refusal: Refusal,
    },
}

impl<P: Policy> Containment<P> {
    /// A containment by this policy, with the default storm guard and threshold, for a guest without records.
    pub fn new(policy: P) -> Self {
        let (storm, evacuation) = (StormGuard::default(), EvacuationThreshold::default());
        Self {
            policy,
            storm,
            repeats: Repeats::default(),
            evacuation,
            #[cfg(feature = "records")]
            records: records::Records::default(),
            guest: GuestTraits::default(),
            host_page: PAGE,
            is_dry_run: false,
        }
    }

    /// The same with another storm guard.
    #[must_use]
    pub fn with_storm_guard(self, storm: StormGuard) -> Self {
        Self { storm, ..self }
    }

    /// The same with another threshold for the advice to evacuate.
    #[must_use]
    pub fn with_evacuation_threshold(self, evacuation: EvacuationThreshold) -> Self {
        Self { evacuation, ..self }
    }

    /// What the guest is; see [`GuestTraits`] for what it is taken for if nothing is said.
    pub fn set_guest(&mut self, guest: GuestTraits) {
        self.guest = guest;
    }

    /// Bytes of the pages in which the host has the guest's memory, a power of two: 4096 if nothing is said. An error costs
    /// such a page as a whole, or a page of the guest's where those are larger ([`MemoryError::range`]).
    pub fn set_host_page(&mut self, bytes: u64) {
        self.host_page = bytes.checked_next_power_of_two().unwrap_or(PAGE);
    }

    /// From now on everything is decided and reported, and nothing is recorded or injected: to see in production what
    /// would be done, before it is.
    pub fn set_dry_run(&mut self, is_dry_run: bool) {
        self.is_dry_run = is_dry_run;
    }

    /// The guest reboots: the containment forgets what the old guest did and was told, and keeps which pages of the host
    /// went bad. Say again where the new guest looks for records (`set_records`).
    pub fn reset(&mut self) {
        self.storm.forget();
        self.repeats = Repeats::default();
        #[cfg(feature = "records")]
        self.records.reset(None);
    }

    /// What it remembers, for a snapshot.
    pub fn state(&self) -> ContainmentState {
        ContainmentState {
            storm: self.storm.state(),
            bad_pages: self.evacuation.noted().collect(),
            repeats: self.repeats.state(),
            #[cfg(feature = "records")]
            records: self.records.state(),
        }
    }

    /// It remembers this from now on, as far as its guards remember that much.
    pub fn set_state(&mut self, state: &ContainmentState) {
        self.storm.set_state(&state.storm);
        self.evacuation.remember(state.bad_pages.iter().copied());
        self.repeats.set_state(&state.repeats);
        #[cfg(feature = "records")]
        self.records.set_state(&state.records);
    }

    /// Handles one SEA exit: decides, injects, and reads back what the guest will see. No record is written.
    ///
    /// `now` is for the storm guard: how long the guest has been running, by any clock that does not go back.
    ///
    /// # Errors
    /// [`ContainError`]; nothing was injected then, unless the backend failed after it.
    pub fn handle<V: Vcpu>(
        &mut self,
        vcpu: &mut V,
        exit: &SeaExit,
        now: Duration,
    ) -> Result<Outcome, ContainError<V::Error>> {
        let decision = self.decide(vcpu, &Source::Sea(*exit), now)?;
        self.inject(vcpu, decision)
    }

    /// Decides what is to be done about an error that a vCPU met. The guest is as it was.
    ///
    /// `now`: as for [`Containment::handle`].
    ///
    /// # Errors
    /// [`ContainError`].
    pub fn decide<V: Vcpu>(
        &mut self,
        vcpu: &V,
        source: &Source,
        now: Duration,
    ) -> Result<Decision, ContainError<V::Error>> {
        let pc = vcpu.reg(Reg::Pc)?;
        let pstate = Pstate::from_bits(vcpu.reg(Reg::Pstate)?);
        let mut error = MemoryError::new(source, pc, pstate);
        if self.guest.el2 {
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
            Response::Inject(injection) => Verdict::Inject(self.checked(injection, vcpu.abi())?),
            Response::HostFirst(injection) => Verdict::HostFirst(self.checked(injection, vcpu.abi())?),
            Response::Stop(reason) => Verdict::Stop(reason),
        };
        let evacuate = error.gpa.and_then(|gpa| self.evacuation.note(gpa, now));
        Ok(decision(verdict, evacuate))
    }

    /// The injection as this guest can get it.
    fn checked<E: std::error::Error>(
        &self,
        injection: Injection,
        abi: Abi,
    ) -> Result<Injection, ContainError<E>> {
        let injection = if self.guest.ras { injection } else { injection.without_iss() };
        let refused = |refusal| ContainError::NotInAbi { policy: self.policy.name(), injection, refusal };
        injection.check(abi).map_err(refused)?;
        Ok(injection)
    }

    /// What became of a decision for [`Verdict::HostFirst`], if the host could help.
    pub fn repaired(&self, decision: Decision) -> Outcome {
        let Decision { error, recorded, evacuate, .. } = decision;
        Outcome { error, action: Action::Repaired, recorded, evacuate }
    }

    /// Does what was decided, and reads back what the guest will see. A decision for [`Verdict::HostFirst`] that comes
    /// here is one in which the host could not help.
    ///
    /// # Errors
    /// [`ContainError::OtherVcpu`], which sees two vCPUs at one PC as the same, and [`ContainError::Vcpu`]; nothing was
    /// injected then, unless the backend failed after it.
    pub fn inject<V: Vcpu>(
        &mut self,
        vcpu: &mut V,
        decision: Decision,
    ) -> Result<Outcome, ContainError<V::Error>> {
        let Decision { error, verdict, recorded, evacuate, .. } = decision;
        let action = match verdict {
            Verdict::Stop(reason) => Action::Stop(reason),
            Verdict::Wait => Action::Waiting,
            Verdict::Inject(injection) | Verdict::HostFirst(injection) if self.is_dry_run => {
                Action::DryRun(injection)
            }
            Verdict::Inject(injection) | Verdict::HostFirst(injection) => {
                let found = vcpu.reg(Reg::Pc)?;
                if found != error.pc {
                    return Err(ContainError::OtherVcpu { decided: error.pc, found });
                }
                let mut guest = vcpu.set_events(&injection.events())?;
                if injection.is_by_far() {
                    correct_fetch(vcpu, error.pc, &mut guest)?;
                }
                Action::Injected { injection, guest }
            }
        };
        Ok(Outcome { error, action, recorded, evacuate })
    }
}

/// Bytes of the guest's pages where the error is: such a page is what the guest takes offline.
///
/// Without a virtual address PC's half of the address space counts. In AArch32 state the register is another, and at a
/// virtual EL2 it is not this one: 4 KiB then, as on a vCPU that does not give it away.
fn guest_page<V: Vcpu>(vcpu: &V, error: &MemoryError, pstate: Pstate) -> u64 {
    if pstate.is_aarch32() || error.level == ExceptionLevel::El2 {
        return PAGE;
    }
    let va = error.gva.unwrap_or(error.pc);
    vcpu.reg(Reg::TcrEl1).map_or(PAGE, |tcr| tcr::granule(tcr, va))
}

/// A data abort whose FAR lies in the instruction at `pc` was that instruction's fetch: `ESR_ELx` says so then.
/// In AArch32 state the abort stays a data abort.
fn correct_fetch<V: Vcpu>(vcpu: &mut V, pc: u64, guest: &mut Delivery) -> Result<(), V::Error> {
    const INSTRUCTION: u64 = 4;
    let Delivery::AtVector { target, esr, far, .. } = guest else { return Ok(()) };
    let is_fetch = far.wrapping_sub(pc) < INSTRUCTION;
    let Some(corrected) = esr.as_instruction_abort().filter(|_| is_fetch) else { return Ok(()) };
    let register = if *target == Target::El2 { Reg::EsrEl2 } else { Reg::EsrEl1 };
    vcpu.set_reg(register, corrected.bits())?;
    *esr = corrected;
    Ok(())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.action)?;
        if self.recorded != Recorded::No {
            write!(f, "; {}", self.recorded)?;
        }
        match self.evacuate {
            Some(evacuate) => write!(f, "; {evacuate}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Injected { injection, guest } => write!(f, "{injection}; {guest}"),
            Self::Waiting => f.write_str("waits until the guest has read the records before it"),
            Self::Repaired => f.write_str("the host put back what was there"),
            Self::DryRun(injection) => write!(f, "dry run: {injection} would have been injected"),
            Self::Stop(reason) => write!(f, "stopped: {reason}"),
        }
    }
}
