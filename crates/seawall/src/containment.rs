//! One call from a SEA exit to a guest that goes on.

use std::fmt;
use std::time::{Duration, SystemTime};

use seawall_arm::{Pstate, Target};
use seawall_events::{Abi, Delivery, Refusal, Reg, SeaExit, Vcpu};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use crate::apei::cper::Severity;
use crate::apei::ghes::{Ghes, Report};
use crate::storm::Noted;
use crate::{
    Decision, Evacuate, EvacuationThreshold, Injection, MemoryError, Policy, Recorded, Response, Source,
    StopReason, StormGuard, Verdict,
};

/// Turns memory errors into what a policy decides, and says what became of the guest.
///
/// [`handle`](Containment::handle) is all of it for a SEA exit. It is made of steps that can be taken one by one:
/// [`decide`](Containment::decide) looks and changes nothing of the guest (alone, it is a dry run),
/// [`record`](Containment::record) writes the firmware's record for a guest that looks for such, and
/// [`inject`](Containment::inject) does what was decided.
#[derive(Clone, Debug)]
pub struct Containment<P> {
    policy: P,
    storm: StormGuard,
    evacuation: EvacuationThreshold,
    records: Option<Ghes>,
    /// Since when the guest has not acknowledged all records, as far as somebody had to wait for it.
    busy_since: Option<Duration>,
    patience: Duration,
    guest: GuestTraits,
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
    noted: Vec<Noted>,
    /// When, and which.
    bad_pages: Vec<(Duration, u64)>,
    records: Option<Ghes>,
    busy_since: Option<Duration>,
}

impl ContainmentState {
    /// Where the guest looks for records of errors.
    pub fn records(&self) -> Option<&Ghes> {
        self.records.as_ref()
    }
}

/// How long a vCPU waits at most for the guest to acknowledge a record, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(1);

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
            evacuation,
            records: None,
            busy_since: None,
            patience: PATIENCE,
            guest: GuestTraits::default(),
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

    /// How long a vCPU waits at most for the guest to acknowledge a record, by the clock that the containment is asked
    /// with: a second. None at all where no other vCPU can run meanwhile.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// What the guest is; see [`GuestTraits`] for what it is taken for if nothing is said.
    pub fn set_guest(&mut self, guest: GuestTraits) {
        self.guest = guest;
    }

    /// From now on everything is decided and reported, and nothing is recorded or injected: to see in production what
    /// would be done, before it is.
    pub fn set_dry_run(&mut self, is_dry_run: bool) {
        self.is_dry_run = is_dry_run;
    }

    /// Where the guest looks for records of errors, from now on. See [`Ghes::reset`].
    pub fn set_records(&mut self, records: Option<Ghes>) {
        (self.records, self.busy_since) = (records, None);
    }

    /// Where the guest looks for records of errors.
    pub fn records(&mut self) -> Option<&mut Ghes> {
        self.records.as_mut()
    }

    /// The guest starts anew: what the old one did, and was told, is forgotten. Which pages of the host went bad is not.
    /// Where the new guest looks for records is to be [set](Containment::set_records) again.
    pub fn reset(&mut self) {
        self.storm.forget();
        self.set_records(None);
    }

    /// What it remembers, for a snapshot.
    pub fn state(&self) -> ContainmentState {
        ContainmentState {
            noted: self.storm.noted().collect(),
            bad_pages: self.evacuation.noted().collect(),
            records: self.records.clone(),
            busy_since: self.busy_since,
        }
    }

    /// It remembers this from now on, as far as its guards remember that much.
    pub fn set_state(&mut self, state: &ContainmentState) {
        self.storm.remember(state.noted.iter().copied());
        self.evacuation.remember(state.bad_pages.iter().copied());
        self.records.clone_from(&state.records);
        self.busy_since = state.busy_since;
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

    /// Writes the record of the error, if the guest looks for such, an abort will be injected that makes it look, and
    /// the error has an address. `time` is the record's.
    ///
    /// While there is a record that the guest has not acknowledged the decision becomes [`Verdict::Wait`], and that for at
    /// most a second ([`Containment::set_patience`]): then the record goes to another source, or, if all are taken, the guest
    /// gets the abort without one.
    ///
    /// One at a time, because Linux reads all sources at each abort, whichever CPU took it (`ghes_notify_sea`): a CPU that is
    /// about to read its own record would take that of another, whose abort is still to come. That other would find
    /// nothing, and its process would be killed as by an error that nobody knows of.
    ///
    /// # Errors
    /// The memory's: the decision is as it was.
    pub fn record<M: Bytes<GuestAddress>>(
        &mut self,
        memory: &M,
        decision: &mut Decision,
        time: SystemTime,
    ) -> Result<(), M::E> {
        let Verdict::Inject(injection) = decision.verdict else { return Ok(()) };
        let (Some(ghes), Some(range)) = (&mut self.records, decision.error.range()) else { return Ok(()) };
        if !injection.has_abort() || self.is_dry_run {
            return Ok(());
        }
        if ghes.outstanding(memory)?.0 == 0 {
            self.busy_since = None;
        } else {
            // A guest that did not acknowledge in time is not waited for again until it has: a storm would never end.
            let since = *self.busy_since.get_or_insert(decision.now);
            if decision.now.saturating_sub(since) < self.patience {
                // The access is repeated: that is no storm.
                self.storm.take_back(&decision.error);
                decision.verdict = Verdict::Wait;
                return Ok(());
            }
        }
        decision.recorded = match ghes.report(memory, range, Severity::Recoverable, time)? {
            Report::Written { source } => Recorded::AtSource(source),
            Report::Busy => Recorded::Unacknowledged,
        };
        Ok(())
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
    /// [`ContainError::Vcpu`]; nothing was injected then, unless the backend failed after it.
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
        write!(f, "{}: ", self.error)?;
        match &self.action {
            Action::Injected { injection, guest } => write!(f, "{injection}; {guest}")?,
            Action::Waiting => f.write_str("waits until the guest has read the records before it")?,
            Action::Repaired => f.write_str("the host put back what was there")?,
            Action::DryRun(injection) => write!(f, "dry run: {injection} would have been injected")?,
            Action::Stop(reason) => write!(f, "stopped: {reason}")?,
        }
        if self.recorded != Recorded::No {
            write!(f, "; {}", self.recorded)?;
        }
        match self.evacuate {
            Some(evacuate) => write!(f, "; {evacuate}"),
            None => Ok(()),
        }
    }
}
