//! Containment from an exit to a guest that goes on.

use std::ffi::c_char;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use seawall::{Contained, Now, Rules, Source};
use seawall_inject::{Injector, Last};

use crate::incident::{Incident, Step, take_decision};
use crate::memory::Memory;
use crate::pointer::{Out, exclusive, free, lock, shared, string};
use crate::records::{range, time};
use crate::status::{Error, ErrorOut, Failure, Status};
use crate::vcpu::{SeaExit, Vcpu};

/// Handles the memory errors of one guest as a policy decides.
pub struct Containment(pub(crate) Mutex<seawall::Containment>, OnceLock<Injector>);

/// Makes the containment of one guest. `policy` is the name of a policy: `rules` (the default ones),
/// `serror`, `mainline` or `full`; or rules that differ from the default or from one of these, separated by
/// commas, such as `kernel-fetch=stop,user-data=host-first` or `full,nested=stop`. The containment writes no
/// records until `seawall_containment_set_records`.
///
/// # Safety
/// `policy` must be NULL or end with a zero, `containment` NULL or valid for writes of a pointer; the new
/// containment must go to `seawall_containment_free`. `error` must be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_new(
    policy: *const c_char,
    containment: *mut *mut Containment,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or valid for writes of a pointer, by the contract.
    let containment = unsafe { Out::new(containment, "containment") };
    // SAFETY: NULL or a string with a zero at its end, by the contract.
    let policy = unsafe { string(policy, "policy") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let containment = containment?;
        let rules: Rules = policy?.to_string_lossy().parse().map_err(Failure::invalid)?;
        containment.give(Containment(Mutex::new(seawall::Containment::new(rules)), OnceLock::new()));
        Ok(())
    })
}

/// Frees a containment; does nothing for NULL.
///
/// # Safety
/// `containment` must be NULL, or from `seawall_containment_new` and no longer in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_free(containment: *mut Containment) {
    // SAFETY: NULL, or from `seawall_containment_new` and no longer in use, by the contract.
    unsafe { free(containment) }
}

/// Sets or clears the dry run: with `is_dry_run` not 0 everything is decided, and nothing is recorded or
/// injected.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_set_dry_run(
    containment: *const Containment,
    is_dry_run: u32,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        lock(&containment?.0).set_dry_run(is_dry_run != 0);
        Ok(())
    })
}

/// Sets the size in bytes of the host's pages behind the guest's memory: a power of two, 4096 by default. An
/// error costs such a page as a whole, or a page of the guest if those are larger.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_set_host_page(
    containment: *const Containment,
    bytes: u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        lock(&containment?.0).set_host_page(bytes);
        Ok(())
    })
}

/// Handles a restart of the guest: forgets the old guest's errors and injections. Set the place of the new
/// guest's records again (`seawall_containment_set_records`).
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_reset(
    containment: *const Containment,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        lock(&containment?.0).reset();
        Ok(())
    })
}

/// Decides on a `KVM_EXIT_ARM_SEA`. The guest is unchanged: this call alone is a dry run.
///
/// `now_ns`: nanoseconds of any monotonic clock, the same one for all calls with this containment.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `vcpu` and `exit` NULL or valid for reads,
/// and the functions of `vcpu` as `seawall_vcpu` requires; `incident` NULL or from `seawall_incident_new`,
/// and not used by another thread meanwhile; `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_decide_sea(
    containment: *const Containment,
    vcpu: *const Vcpu,
    exit: *const SeaExit,
    now_ns: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions are ioctls of this vCPU, by the contract.
    let vcpu = unsafe { shared(vcpu, "vcpu") };
    // SAFETY: NULL or valid for reads, by the contract.
    let exit = unsafe { shared(exit, "exit") };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (containment, vcpu, exit) = (containment?, vcpu?, exit?);
        decide(containment, vcpu, Source::Sea((*exit).into()), now_ns, incident?)
    })
}

/// Decides on a SIGBUS with `BUS_MCEERR_AR` that a vCPU's thread got in `KVM_RUN`. `gpa` and `size`: the
/// guest memory behind `si_addr` and `si_addr_lsb`, see `seawall_address_map_guest_range`.
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
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions are ioctls of this vCPU, by the contract.
    let vcpu = unsafe { shared(vcpu, "vcpu") };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (containment, vcpu, range) = (containment?, vcpu?, range(gpa, size)?);
        decide(containment, vcpu, Source::SigbusAt(range), now_ns, incident?)
    })
}

/// Writes the record of the error, if the guest looks for records and an abort will be injected that makes it
/// look. While the guest has not acknowledged an earlier record, the incident's action becomes
/// `SEAWALL_ACTION_WAIT`, for a second at most.
///
/// If the call fails the decision stands: `seawall_inject` goes on without a record. After
/// `SEAWALL_ACTION_HOST_FIRST` the call means that the host could not help, and changes the action to
/// `SEAWALL_ACTION_INJECT`.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `memory` NULL or valid for reads, and its
/// functions as `seawall_memory` requires; `incident` NULL or from `seawall_incident_new`, and not used by
/// another thread meanwhile; `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_record(
    containment: *const Containment,
    memory: *const Memory,
    unix_seconds: u64,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions access the guest's memory, by the contract.
    let memory = unsafe { shared(memory, "memory") };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| record(containment?, memory?, unix_seconds, incident?))
}

/// Carries out the decision, and reads back what the guest will see. The vCPU must not have run since the
/// decision. If the call fails the incident is empty: unless the status is `SEAWALL_STATUS_DEGRADED` nothing
/// was injected, and you can decide again.
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
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions are ioctls of this vCPU, by the contract.
    let vcpu = unsafe { shared(vcpu, "vcpu") };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| inject(containment?, vcpu?, incident?))
}

/// Reports, after `SEAWALL_ACTION_HOST_FIRST`, that the host restored the memory with its content. The
/// incident is done; run the vCPU again.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `incident` NULL or from
/// `seawall_incident_new`, and not used by another thread meanwhile; `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_repaired(
    containment: *const Containment,
    incident: *mut Incident,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (containment, incident) = (containment?, incident?);
        let (decision, _) = take_decision(incident)?;
        incident.0 = Step::Done(lock(&containment.0).repaired(decision));
        Ok(())
    })
}

/// Calls `seawall_decide_sea`, `seawall_record` if `memory` is not NULL, and `seawall_inject`; a record that
/// cannot be written is left out (`SEAWALL_RECORDED_UNWRITABLE`). The incident's action says what to do next:
/// run the vCPU again for `SEAWALL_ACTION_INJECTED` and `SEAWALL_ACTION_WAIT`, not for `SEAWALL_ACTION_STOP`.
/// The host is not asked first.
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
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions are ioctls of this vCPU, by the contract.
    let vcpu = unsafe { shared(vcpu, "vcpu") };
    // SAFETY: NULL or valid for reads, and its functions access the guest's memory, by the contract.
    let memory = unsafe { memory.as_ref() };
    // SAFETY: NULL or valid for reads, by the contract.
    let exit = unsafe { shared(exit, "exit") };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (containment, vcpu, exit) = (containment?, vcpu?, exit?);
        handle(containment, vcpu, memory, &Source::Sea((*exit).into()), now_ns, unix_seconds, incident?)
    })
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
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions are ioctls of this vCPU, by the contract.
    let vcpu = unsafe { shared(vcpu, "vcpu") };
    // SAFETY: NULL or valid for reads, and its functions access the guest's memory, by the contract.
    let memory = unsafe { memory.as_ref() };
    // SAFETY: NULL or from `seawall_incident_new`, and not used by another thread meanwhile, by the contract.
    let incident = unsafe { exclusive(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (containment, vcpu, range) = (containment?, vcpu?, range(gpa, size)?);
        handle(containment, vcpu, memory, &Source::SigbusAt(range), now_ns, unix_seconds, incident?)
    })
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
    let mut vcpu = vcpu.exited(last(source), &containment.1)?;
    let memory = memory.map(Memory::calls).transpose()?;
    let memory = memory.as_ref().map(|memory| memory as _);
    let now = Now { vcpu: 0, running: Duration::from_nanos(now_ns), time: time(unix_seconds)?, exited: None };
    incident.0 = Step::Empty;
    if let Contained::Error(outcome) = lock(&containment.0).contain(&mut vcpu, source, memory, &now)? {
        incident.0 = Step::Done(outcome);
    }
    Ok(())
}

/// A stage 2 fault on the guest's own table walk can cause a SIGBUS, but never a SEA exit.
fn last(source: &Source) -> Last {
    if matches!(source, Source::Sea(_)) { Last::NoWalk } else { Last::Any }
}

fn decide(
    containment: &Containment,
    vcpu: &Vcpu,
    source: Source,
    now_ns: u64,
    incident: &mut Incident,
) -> Result<(), Failure> {
    let last = last(&source);
    let vcpu = vcpu.exited(last, &containment.1)?;
    let now = Duration::from_nanos(now_ns);
    incident.0 = Step::Empty;
    let mut containment = lock(&containment.0);
    let decision = match source {
        Source::Sea(exit) => containment.decide_sea(&vcpu, &exit, now)?,
        Source::SigbusAt(range) => containment.decide_sigbus(&vcpu, range, now)?,
        Source::Sigbus(_) => return Err(Failure::invalid("expected the guest's memory behind SIGBUS")),
    };
    incident.0 = Step::Decided { decision, last };
    Ok(())
}

fn record(
    containment: &Containment,
    memory: &Memory,
    unix_seconds: u64,
    incident: &mut Incident,
) -> Result<(), Failure> {
    let (memory, time) = (memory.calls()?, time(unix_seconds)?);
    let (decision, last) = take_decision(incident)?;
    let mut decision = decision.guest_first();
    let recorded = lock(&containment.0).record(&memory, &mut decision, time);
    incident.0 = Step::Decided { decision, last };
    Ok(recorded?)
}

/// The incident is empty after a failure: a second attempt might inject twice.
fn inject(containment: &Containment, vcpu: &Vcpu, incident: &mut Incident) -> Result<(), Failure> {
    let (decision, last) = take_decision(incident)?;
    let mut vcpu = vcpu.exited(last, &containment.1)?;
    incident.0 = Step::Done(lock(&containment.0).inject(&mut vcpu, decision)?);
    Ok(())
}
