//! From an exit to a guest that goes on.

use std::ffi::c_char;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use seawall::{GuestTraits, MemoryError, Policy, Response, Rule, Rules, Source, builtin};
use seawall_inject::{Guest, Injector, Last};

use crate::incident::{Incident, Step, decision};
use crate::memory::Memory;
use crate::pointer::{Out, exclusive, free, lock, shared, string};
use crate::records::{range, time};
use crate::status::{Error, Failure, Status, call};
use crate::vcpu::{SeaExit, Vcpu};

/// Turns the memory errors of one guest into what a policy decides.
pub struct Containment(pub(crate) Mutex<seawall::Containment<Chosen>>, OnceLock<Injector>);

/// The policy that the VMM named.
pub(crate) enum Chosen {
    Builtin(&'static dyn Policy),
    Rules(Rules),
}

impl Policy for Chosen {
    fn name(&self) -> &'static str {
        match self {
            Self::Builtin(policy) => policy.name(),
            Self::Rules(rules) => rules.name(),
        }
    }

    fn decide(&self, error: &MemoryError) -> Response {
        match self {
            Self::Builtin(policy) => policy.decide(error),
            Self::Rules(rules) => rules.decide(error),
        }
    }
}

impl Chosen {
    fn by_name(name: &str) -> Result<Self, Failure> {
        if let Some(policy) = builtin(name) {
            return Ok(Self::Builtin(policy));
        }
        if !name.contains('=') {
            let words = "expected a policy (`rules`, `serror`, `mainline`, `full`) or rules such as";
            return Err(Failure::invalid(format_args!("{words} `kernel-fetch=stop`, got `{name}`")));
        }
        let mut rules = Rules::default();
        for rule in name.split(',') {
            let Rule { kind, answer } = rule.parse().map_err(Failure::invalid)?;
            rules = rules.with(kind, answer);
        }
        Ok(Self::Rules(rules))
    }
}

/// Makes the containment of one guest, by the policy of this name: `rules` (the default of them), `serror`, `mainline`
/// or `full`; or by rules that differ from the default, separated by commas, such as
/// `kernel-fetch=stop,user-data=host-first`. It writes no records until `seawall_containment_set_records`.
///
/// # Safety
/// `policy` must be NULL or end with a zero, `containment` NULL or valid for writes of a pointer; what that is given
/// must go to `seawall_containment_free`. `error` must be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_new(
    policy: *const c_char,
    containment: *mut *mut Containment,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let containment = Out::new(containment, "containment")?;
            let name = string(policy, "policy")?.to_string_lossy();
            let policy = Chosen::by_name(&name)?;
            containment.give(Containment(Mutex::new(seawall::Containment::new(policy)), OnceLock::new()));
            Ok(())
        })
    }
}

/// Frees a containment; nothing for NULL.
///
/// # Safety
/// `containment` must be NULL, or from `seawall_containment_new` and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_free(containment: *mut Containment) {
    // SAFETY: by the caller.
    unsafe { free(containment) }
}

/// `is_dry_run` not 0: from now on everything is decided, and nothing is recorded or injected.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_set_dry_run(
    containment: *const Containment,
    is_dry_run: u32,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            lock(&shared(containment, "containment")?.0).set_dry_run(is_dry_run != 0);
            Ok(())
        })
    }
}

/// Says in pages of how many bytes the host has the guest's memory: a power of two, 4096 if nothing is said. An error costs
/// such a page as a whole, or a page of the guest's where those are larger.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_set_host_page(
    containment: *const Containment,
    bytes: u64,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            lock(&shared(containment, "containment")?.0).set_host_page(bytes);
            Ok(())
        })
    }
}

/// The guest starts anew: what the old one did, and was told, is forgotten. Where the new one looks for records is to be
/// set again (`seawall_containment_set_records`).
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_reset(
    containment: *const Containment,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            lock(&shared(containment, "containment")?.0).reset();
            Ok(())
        })
    }
}

/// Decides what is to be done about a `KVM_EXIT_ARM_SEA`. The guest is as it was: alone, this is a dry run.
///
/// `now_ns`: nanoseconds of any clock that does not go back, the same for all calls with this containment.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `vcpu` and `exit` NULL or valid for reads, and the
/// functions of `vcpu` what `seawall_vcpu` says; `incident` NULL or from `seawall_incident_new`, and no other thread's
/// now; `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_decide_sea(
    containment: *const Containment,
    vcpu: *const Vcpu,
    exit: *const SeaExit,
    now_ns: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let (containment, vcpu) = (shared(containment, "containment")?, shared(vcpu, "vcpu")?);
            let source = Source::Sea((*shared(exit, "exit")?).into());
            decide(containment, vcpu, &source, now_ns, exclusive(incident, "incident")?)
        })
    }
}

/// Decides what is to be done about a SIGBUS with `BUS_MCEERR_AR` that a vCPU's thread got in `KVM_RUN`. `gpa` and
/// `size`: the guest memory behind `si_addr` and `si_addr_lsb`, see `seawall_address_map_guest_range`.
///
/// # Safety
/// As `seawall_decide_sea`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_decide_sigbus(
    containment: *const Containment,
    vcpu: *const Vcpu,
    gpa: u64,
    size: u64,
    now_ns: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let (containment, vcpu) = (shared(containment, "containment")?, shared(vcpu, "vcpu")?);
            let source = Source::Sigbus { range: range(gpa, size)? };
            decide(containment, vcpu, &source, now_ns, exclusive(incident, "incident")?)
        })
    }
}

/// Writes the record of the error, if the guest looks for such and an abort is to be injected that makes it look. While
/// there is one that the guest has not acknowledged the incident's action becomes `SEAWALL_ACTION_WAIT`, for a second at
/// most.
///
/// If it fails the decision stands: `seawall_inject` goes on without a record. After `SEAWALL_ACTION_HOST_FIRST` it says
/// that the host could not help, and makes that `SEAWALL_ACTION_INJECT`.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `memory` NULL or valid for reads, and its functions
/// what `seawall_memory` says; `incident` NULL or from `seawall_incident_new`, and no other thread's now; `error` NULL
/// or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_record(
    containment: *const Containment,
    memory: *const Memory,
    unix_seconds: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let (containment, memory) = (shared(containment, "containment")?, shared(memory, "memory")?);
            record(containment, memory, unix_seconds, exclusive(incident, "incident")?)
        })
    }
}

/// Does what was decided, and reads back what the guest will see. The vCPU must not have run since it was decided.
///
/// # Safety
/// As `seawall_decide_sea`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_inject(
    containment: *const Containment,
    vcpu: *const Vcpu,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let (containment, vcpu) = (shared(containment, "containment")?, shared(vcpu, "vcpu")?);
            inject(containment, vcpu, exclusive(incident, "incident")?)
        })
    }
}

/// After `SEAWALL_ACTION_HOST_FIRST`: the host put memory there with what was in it. The incident is done; run the vCPU
/// again.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `incident` NULL or from `seawall_incident_new`, and no
/// other thread's now; `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_repaired(
    containment: *const Containment,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let containment = shared(containment, "containment")?;
            let incident = exclusive(incident, "incident")?;
            let (decision, _) = decision(incident)?;
            let outcome = lock(&containment.0).repaired(*decision);
            incident.0 = Step::Done(outcome);
            Ok(())
        })
    }
}

/// `seawall_decide_sea`, `seawall_record` if `memory` is not NULL, and `seawall_inject`, in one. What to do next is the
/// incident's action: run the vCPU again for `SEAWALL_ACTION_INJECTED` and `SEAWALL_ACTION_WAIT`, not for
/// `SEAWALL_ACTION_STOP`. The host is not asked first.
///
/// # Safety
/// As `seawall_decide_sea` and `seawall_record`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_handle_sea(
    containment: *const Containment,
    vcpu: *const Vcpu,
    memory: *const Memory,
    exit: *const SeaExit,
    now_ns: u64,
    unix_seconds: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let (containment, vcpu) = (shared(containment, "containment")?, shared(vcpu, "vcpu")?);
            let source = Source::Sea((*shared(exit, "exit")?).into());
            let incident = exclusive(incident, "incident")?;
            handle(containment, vcpu, memory.as_ref(), &source, now_ns, unix_seconds, incident)
        })
    }
}

/// The same for a SIGBUS: see `seawall_decide_sigbus`.
///
/// # Safety
/// As `seawall_decide_sea` and `seawall_record`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_handle_sigbus(
    containment: *const Containment,
    vcpu: *const Vcpu,
    memory: *const Memory,
    gpa: u64,
    size: u64,
    now_ns: u64,
    unix_seconds: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let (containment, vcpu) = (shared(containment, "containment")?, shared(vcpu, "vcpu")?);
            let source = Source::Sigbus { range: range(gpa, size)? };
            let incident = exclusive(incident, "incident")?;
            handle(containment, vcpu, memory.as_ref(), &source, now_ns, unix_seconds, incident)
        })
    }
}

fn handle(
    containment: &Containment,
    vcpu: &Vcpu,
    memory: Option<&Memory>,
    source: &Source,
    now_ns: u64,
    unix_seconds: u64,
    incident: &mut Incident,
) -> Result<(), Failure> {
    decide(containment, vcpu, source, now_ns, incident)?;
    if let Some(memory) = memory {
        record(containment, memory, unix_seconds, incident)?;
    }
    inject(containment, vcpu, incident)
}

fn decide(
    containment: &Containment,
    vcpu: &Vcpu,
    source: &Source,
    now_ns: u64,
    incident: &mut Incident,
) -> Result<(), Failure> {
    // A stage 2 fault on the guest's own table walk can be behind a SIGBUS, and never behind a SEA exit.
    let last = if matches!(source, Source::Sea(_)) { Last::NoWalk } else { Last::Any };
    let vcpu = vcpu.exited(last, &containment.1)?;
    incident.0 = Step::Empty;
    let injector = vcpu.injector();
    let mut containment = lock(&containment.0);
    containment.set_guest(GuestTraits { ras: injector.ras, el2: injector.guest == Guest::Nested });
    let decision = containment.decide(&vcpu, source, Duration::from_nanos(now_ns))?;
    incident.0 = Step::Decided { decision, last };
    Ok(())
}

fn record(
    containment: &Containment,
    memory: &Memory,
    unix_seconds: u64,
    incident: &mut Incident,
) -> Result<(), Failure> {
    let (decision, _) = decision(incident)?;
    let (memory, time) = (memory.calls()?, time(unix_seconds)?);
    *decision = decision.guest_first();
    Ok(lock(&containment.0).record(&memory, decision, time)?)
}

fn inject(containment: &Containment, vcpu: &Vcpu, incident: &mut Incident) -> Result<(), Failure> {
    let (decision, last) = decision(incident)?;
    let (decision, mut vcpu) = (*decision, vcpu.exited(last, &containment.1)?);
    match lock(&containment.0).inject(&mut vcpu, decision) {
        Ok(outcome) => {
            incident.0 = Step::Done(outcome);
            Ok(())
        }
        Err(error) => {
            let failure = Failure::from(error);
            // A second time, it would be injected twice.
            if failure.status == Status::Degraded {
                incident.0 = Step::Empty;
            }
            Err(failure)
        }
    }
}
