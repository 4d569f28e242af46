//! One memory error in progress: the error, the decision and the outcome.

use std::ffi::c_char;
use std::fmt;

use seawall::{
    Access as ErrorAccess, Action as Taken, Decision, Injection, MemoryError, StopReason as Reason, Verdict,
};
use seawall_arm::{ExceptionLevel, Target};
use seawall_inject::Last;

use crate::pointer::{Buffer, Out, free, shared};
use crate::status::{Error, ErrorOut, Failure, Status};

/// The action for an error, to take or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Action {
    /// No decision yet.
    None = 0,
    /// An injection was decided: `seawall_inject` does it.
    Inject = 1,
    /// Injected: `guest_state` says where the guest is now. Run it again.
    Injected = 2,
    /// The guest has not acknowledged an earlier record. Run the vCPU again, which repeats the access, and
    /// let the others run.
    Wait = 3,
    /// Do not run the guest again; the text gives the reason.
    Stop = 4,
    /// Let the host restore the memory with its content, if it can, and call `seawall_repaired`; otherwise go
    /// on with `seawall_record` and `seawall_inject`.
    HostFirst = 5,
    /// The host restored the memory. Run the guest again.
    Repaired = 6,
    /// Nothing was injected, because of the dry run; `injection` says what would have been.
    DryRun = 7,
}

/// The reason why a guest is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StopReason {
    /// It is not stopped.
    None = 0,
    /// The same access aborts forever: `storm_times`.
    Storm = 1,
    /// The policy stops the guest for errors of this kind.
    Policy = 2,
    /// The guest hypervisor takes the abort from its own guest, and stock kernels cannot deliver that
    /// soundly.
    Nested = 3,
    /// A reason without a name in this version of the interface; the text gives it.
    Other = 4,
    /// A vCPU touched bad memory of the VMM itself.
    NotGuests = 5,
    /// Errors come faster than memory can fail: the guest causes them itself, or reads an entire bad range
    /// over and over.
    Flood = 6,
}

/// The kind of access that met the bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Access {
    /// Unknown, after SIGBUS.
    Unknown = 0,
    /// An instruction fetch.
    Fetch = 1,
    /// A read of data.
    Load = 2,
    /// A write of data.
    Store = 3,
    /// A cache maintenance or address translation instruction.
    Maintenance = 4,
}

/// The state of the error's record in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Recorded {
    /// There is none: the guest has no place for records, the error has no address, nothing is injected, or
    /// the guest has read so many records of this error that only the abort alone is left to try.
    No = 0,
    /// It is at the source `record_source`.
    AtSource = 1,
    /// The guest did not acknowledge earlier records for too long: it gets the abort alone.
    Unacknowledged = 2,
    /// The guest's memory could not be written at its records: it gets the abort alone.
    Unwritable = 3,
}

/// The guest's position after an injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum GuestState {
    /// Nothing was injected.
    None = 0,
    /// At the first instruction of its handler: `guest_pc`, `guest_esr`, `guest_far`.
    AtVector = 1,
    /// The SError waits for the guest to unmask it.
    SerrorPending = 2,
    /// The kernel took the error for transient and did nothing: the guest repeats the access.
    NotDelivered = 3,
}

/// In `valid` of `seawall_outcome`: `gpa` and `size` are known.
pub const SEAWALL_VALID_GPA: u32 = 1;
/// In `valid` of `seawall_outcome`: `gva` is known.
pub const SEAWALL_VALID_GVA: u32 = 2;
/// In `valid` of `seawall_outcome`: `esr` is known; SIGBUS has none.
pub const SEAWALL_VALID_ESR: u32 = 4;
/// In `valid` of `seawall_outcome`: the table walk met the error, at `walk_level`.
pub const SEAWALL_VALID_WALK_LEVEL: u32 = 8;

/// In `injection` of `seawall_outcome`: an external data abort.
pub const SEAWALL_INJECT_DATA_ABORT: u32 = 1;
/// In `injection` of `seawall_outcome`: an external instruction abort.
pub const SEAWALL_INJECT_INSTRUCTION_ABORT: u32 = 2;
/// In `injection` of `seawall_outcome`: an SError.
pub const SEAWALL_INJECT_SERROR: u32 = 4;

/// An incident in numbers. Unknown values are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    /// Start of the bad range, guest physical.
    pub gpa: u64,
    /// Size in bytes of the range that may be bad.
    pub size: u64,
    /// Guest virtual address of the access.
    pub gva: u64,
    /// PC of the instruction, which has not retired.
    pub pc: u64,
    /// The ESR of the exit.
    pub esr: u64,
    /// After an injection: PC, the vector.
    pub guest_pc: u64,
    /// After an injection: the ESR that the handler will read.
    pub guest_esr: u64,
    /// After an injection: the FAR that the handler will read.
    pub guest_far: u64,
    /// If not 0, the number of distinct pages that went bad in so short a time that the guest should be
    /// migrated while it lives.
    pub evacuate_pages: u64,
    /// Which of the above fields are known: SEAWALL_VALID_*.
    pub valid: u32,
    /// One of `seawall_action`.
    pub action: u32,
    /// One of `seawall_access`.
    pub access: u32,
    /// Exception level of the access: 0, 1 or 2.
    pub exception_level: u32,
    /// Lookup level of the table walk, -1 to 3.
    pub walk_level: i32,
    /// The injection, to come or done: SEAWALL_INJECT_*.
    pub injection: u32,
    /// The ISS for the abort, to come or given.
    pub iss: u32,
    /// One of `seawall_guest_state`.
    pub guest_state: u32,
    /// After an injection: the Exception level of the handler, 1 or 2.
    pub guest_level: u32,
    /// One of `seawall_recorded`.
    pub recorded: u32,
    /// The id of the record's source.
    pub record_source: u32,
    /// One of `seawall_stop_reason`.
    pub stop_reason: u32,
    /// After a storm: the number of times that the same abort came.
    pub storm_times: u32,
    /// 0.
    pub reserved: u32,
}

/// One memory error in progress through `seawall_decide_*`, `seawall_record` and `seawall_inject`. Each
/// thread that runs a vCPU needs only one: the decision on the next error replaces the last.
#[derive(Debug, Default)]
pub struct Incident(pub(crate) Step);

/// The progress of an incident.
#[derive(Debug, Default)]
pub(crate) enum Step {
    #[default]
    Empty,
    Decided {
        decision: Decision,
        /// The facts of the exit that the injection needs.
        last: Last,
    },
    Done(seawall::Outcome),
}

impl Incident {
    fn outcome(&self) -> Outcome {
        match &self.0 {
            Step::Empty => Outcome::default(),
            Step::Decided { decision, .. } => decided(decision),
            Step::Done(outcome) => done(outcome),
        }
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = match &self.0 {
            Step::Empty => return f.write_str("nothing was decided"),
            Step::Decided { decision, .. } => decision,
            Step::Done(outcome) => return outcome.fmt(f),
        };
        write!(f, "{}: ", decision.error)?;
        match &decision.verdict {
            Verdict::Inject(injection) => write!(f, "to inject: {injection}"),
            Verdict::HostFirst(injection) => write!(f, "the host first, else to inject: {injection}"),
            Verdict::Wait => f.write_str("to wait until the guest has read the records before it"),
            Verdict::Stop(reason) => write!(f, "to stop: {reason}"),
        }
    }
}

fn decided(decision: &Decision) -> Outcome {
    let mut outcome = about(&decision.error, decision.recorded);
    outcome.evacuate_pages = decision.evacuate.map_or(0, |evacuate| evacuate.pages as u64);
    let action = match &decision.verdict {
        Verdict::Inject(injection) => {
            set_injection(&mut outcome, injection);
            Action::Inject
        }
        Verdict::HostFirst(injection) => {
            set_injection(&mut outcome, injection);
            Action::HostFirst
        }
        Verdict::Wait => Action::Wait,
        Verdict::Stop(reason) => {
            set_reason(&mut outcome, reason);
            Action::Stop
        }
    };
    Outcome { action: action as u32, ..outcome }
}

fn done(taken: &seawall::Outcome) -> Outcome {
    let mut outcome = about(&taken.error, taken.recorded);
    outcome.evacuate_pages = taken.evacuate.map_or(0, |evacuate| evacuate.pages as u64);
    let action = match &taken.action {
        Taken::Injected { injection, guest } => {
            set_injection(&mut outcome, injection);
            set_guest(&mut outcome, guest);
            Action::Injected
        }
        Taken::Waiting => Action::Wait,
        Taken::Repaired => Action::Repaired,
        Taken::DryRun(injection) => {
            set_injection(&mut outcome, injection);
            Action::DryRun
        }
        Taken::Stop(reason) => {
            set_reason(&mut outcome, reason);
            Action::Stop
        }
    };
    Outcome { action: action as u32, ..outcome }
}

/// The known facts about the error and its record.
fn about(error: &MemoryError, recorded: seawall::Recorded) -> Outcome {
    let mut valid = 0;
    let mut known = |is_known: bool, bit| valid |= if is_known { bit } else { 0 };
    known(error.gpa.is_some(), SEAWALL_VALID_GPA);
    known(error.gva.is_some(), SEAWALL_VALID_GVA);
    known(error.esr.is_some(), SEAWALL_VALID_ESR);
    known(error.walk_level.is_some(), SEAWALL_VALID_WALK_LEVEL);
    let access = match error.access {
        ErrorAccess::Fetch => Access::Fetch,
        ErrorAccess::Load => Access::Load,
        ErrorAccess::Store => Access::Store,
        ErrorAccess::Maintenance => Access::Maintenance,
        ErrorAccess::Unknown => Access::Unknown,
    };
    let (recorded, record_source) = match recorded {
        seawall::Recorded::No => (Recorded::No, 0),
        seawall::Recorded::AtSource(source) => (Recorded::AtSource, source.into()),
        seawall::Recorded::Unacknowledged => (Recorded::Unacknowledged, 0),
        seawall::Recorded::Unwritable => (Recorded::Unwritable, 0),
    };
    Outcome {
        gpa: error.gpa.unwrap_or(0),
        size: if error.gpa.is_some() { error.size } else { 0 },
        gva: error.gva.unwrap_or(0),
        pc: error.pc,
        esr: error.esr.map_or(0, seawall_arm::Esr::bits),
        valid,
        access: access as u32,
        exception_level: match error.level {
            ExceptionLevel::El0 => 0,
            ExceptionLevel::El1 => 1,
            ExceptionLevel::El2 => 2,
            ExceptionLevel::El3 => 3,
        },
        walk_level: error.walk_level.unwrap_or(0).into(),
        recorded: recorded as u32,
        record_source,
        ..Outcome::default()
    }
}

fn set_injection(outcome: &mut Outcome, injection: &Injection) {
    let events = injection.events();
    for (is_part, bit) in [
        (events.ext_dabt_pending, SEAWALL_INJECT_DATA_ABORT),
        (events.ext_iabt_pending, SEAWALL_INJECT_INSTRUCTION_ABORT),
        (events.serror_pending, SEAWALL_INJECT_SERROR),
    ] {
        outcome.injection |= if is_part { bit } else { 0 };
    }
    outcome.iss = events.ext_abt_esr as u32;
}

fn set_guest(outcome: &mut Outcome, guest: &seawall::Delivery) {
    let state = match guest {
        seawall::Delivery::AtVector { target, pc, esr, far } => {
            outcome.guest_level = if *target == Target::El2 { 2 } else { 1 };
            (outcome.guest_pc, outcome.guest_esr, outcome.guest_far) = (*pc, esr.bits(), *far);
            GuestState::AtVector
        }
        seawall::Delivery::SErrorPending => GuestState::SerrorPending,
        seawall::Delivery::NotDelivered => GuestState::NotDelivered,
    };
    outcome.guest_state = state as u32;
}

fn set_reason(outcome: &mut Outcome, reason: &Reason) {
    let stop_reason = match reason {
        Reason::Storm { times, .. } => {
            outcome.storm_times = u32::try_from(*times).unwrap_or(u32::MAX);
            StopReason::Storm
        }
        Reason::Flood { .. } => StopReason::Flood,
        Reason::NotGuests { .. } => StopReason::NotGuests,
        Reason::Policy(_) => StopReason::Policy,
        Reason::Nested => StopReason::Nested,
        _ => StopReason::Other,
    };
    outcome.stop_reason = stop_reason as u32;
}

/// Makes an empty incident.
///
/// # Safety
/// `incident` must be valid for writes of a pointer; the new incident must go to `seawall_incident_free`.
/// `error` must be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_new(incident: *mut *mut Incident, error: *mut Error) -> Status {
    // SAFETY: NULL or valid for writes of a pointer, by the contract.
    let incident = unsafe { Out::new(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        incident?.give(Incident::default());
        Ok(())
    })
}

/// Frees an incident; does nothing for NULL.
///
/// # Safety
/// `incident` must be NULL, or from `seawall_incident_new` and no longer in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_free(incident: *mut Incident) {
    // SAFETY: NULL, or from `seawall_incident_new` and no longer in use, by the contract.
    unsafe { free(incident) }
}

/// Writes an incident in numbers to `outcome`.
///
/// # Safety
/// `incident` must be NULL or from `seawall_incident_new`, `outcome` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_outcome(
    incident: *const Incident,
    outcome: *mut Outcome,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_incident_new`, by the contract.
    let incident = unsafe { shared(incident, "incident") };
    // SAFETY: NULL or valid for writes, by the contract.
    let outcome = unsafe { Out::new(outcome, "outcome") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        outcome?.set(incident?.outcome());
        Ok(())
    })
}

/// Writes an incident in words, one line for the log: as much as fits into `size` bytes with a zero at the
/// end.
///
/// # Safety
/// `incident` must be NULL or from `seawall_incident_new`, `text` NULL or valid for writes of `size` bytes,
/// `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_text(
    incident: *const Incident,
    text: *mut c_char,
    size: usize,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_incident_new`, by the contract.
    let incident = unsafe { shared(incident, "incident") };
    // SAFETY: NULL or valid for writes of `size` bytes, by the contract.
    let text = unsafe { Buffer::new(text.cast(), size, "text") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| text.set_text(&incident?.to_string()))
}

/// Takes the decision out of an incident, which is empty then.
pub(crate) fn take_decision(incident: &mut Incident) -> Result<(Decision, Last), Failure> {
    match std::mem::take(&mut incident.0) {
        Step::Decided { decision, last } => Ok((decision, last)),
        other => {
            incident.0 = other;
            let expected = "expected an incident that was decided on, and is not done: decide first";
            Err(Failure::invalid(expected))
        }
    }
}
