//! One memory error on its way: what it is, what was decided, and what became of it.

use std::ffi::c_char;
use std::fmt;

use seawall::{
    Access as ErrorAccess, Action as Taken, Decision, Injection, MemoryError, StopReason as Reason, Verdict,
};
use seawall_arm::{ExceptionLevel, Target};
use seawall_inject::Last;

use crate::pointer::{Out, exclusive, free, shared, write_text};
use crate::status::{Error, Failure, Status, call};

/// What is to be done about an error, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Action {
    /// Nothing was decided yet.
    None = 0,
    /// Decided, to be injected: `seawall_inject` does it.
    Inject = 1,
    /// Injected: `guest_state` says where the guest is now. Run it again.
    Injected = 2,
    /// The guest has not acknowledged a record that is there. Run the vCPU again, which repeats the access, and let the
    /// others run.
    Wait = 3,
    /// The guest must not be run again; the text says why.
    Stop = 4,
    /// Put memory there with what was in it, if the host can, and call `seawall_repaired`; else go on with
    /// `seawall_record` and `seawall_inject`.
    HostFirst = 5,
    /// The host put the memory back as it was. Run the guest again.
    Repaired = 6,
    /// Nothing was injected, as this is a dry run; `injection` says what would have been.
    DryRun = 7,
}

/// Why a guest is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StopReason {
    /// It is not.
    None = 0,
    /// The same access aborts for ever: `storm_times`.
    Storm = 1,
    /// The policy has it so for errors of this kind.
    Policy = 2,
    /// The guest hypervisor takes the abort from its own guest, and stock kernels cannot be asked for that soundly.
    Nested = 3,
    /// What this version of the interface has no name for; the text says it.
    Other = 4,
}

/// What the guest was doing when it met the bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Access {
    /// SIGBUS does not say.
    Unknown = 0,
    /// Fetching an instruction.
    Fetch = 1,
    /// Reading data.
    Load = 2,
    /// Writing data.
    Store = 3,
    /// Cache maintenance or address translation by instruction.
    Maintenance = 4,
}

/// Whether the guest finds a record of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Recorded {
    /// It has no place for records, the error has no address, nothing is injected, or the guest has read so many records of
    /// this very error that the abort alone is left to try.
    No = 0,
    /// It lies at the source `record_source`.
    AtSource = 1,
    /// The guest did not acknowledge those before it for too long: it gets the abort alone.
    Unacknowledged = 2,
    /// The guest's memory could not be written where its records lie: it gets the abort alone.
    Unwritable = 3,
}

/// Where an injection left the guest.
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

/// An incident in numbers. What is not known is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    /// Where the bad range begins, guest physical.
    pub gpa: u64,
    /// Bytes that may be bad from there on.
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
    /// Not 0: so many distinct pages went bad in so short a time that the guest should be migrated while it lives.
    pub evacuate_pages: u64,
    /// Which of the above are known: SEAWALL_VALID_*.
    pub valid: u32,
    /// One of `seawall_action`.
    pub action: u32,
    /// One of `seawall_access`.
    pub access: u32,
    /// Exception level of the access: 0, 1 or 2.
    pub exception_level: u32,
    /// Lookup level of the table walk, -1 to 3.
    pub walk_level: i32,
    /// What is or was injected: SEAWALL_INJECT_*.
    pub injection: u32,
    /// The ISS that is or was given for the abort.
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
    /// After a storm: how often the same abort came.
    pub storm_times: u32,
    /// 0.
    pub reserved: u32,
}

/// One memory error on its way through `seawall_decide_*`, `seawall_record` and `seawall_inject`. One for each thread
/// that runs a vCPU is enough: deciding on the next error replaces the last.
#[derive(Debug, Default)]
pub struct Incident(pub(crate) Step);

/// How far it is.
#[derive(Debug, Default)]
pub(crate) enum Step {
    #[default]
    Empty,
    Decided {
        decision: Decision,
        /// What of the exit counts for the injection.
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

/// What is known of the error, and of its record.
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
        Reason::Policy(_) => StopReason::Policy,
        Reason::Nested => StopReason::Nested,
        _ => StopReason::Other,
    };
    outcome.stop_reason = stop_reason as u32;
}

/// Makes an incident with nothing in it.
///
/// # Safety
/// `incident` must be valid for writes of a pointer; what it is given must go to `seawall_incident_free`. `error` must
/// be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_new(incident: *mut *mut Incident, error: *mut Error) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            Out::new(incident, "incident")?.give(Incident::default());
            Ok(())
        })
    }
}

/// Frees an incident; nothing for NULL.
///
/// # Safety
/// `incident` must be NULL, or from `seawall_incident_new` and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_free(incident: *mut Incident) {
    // SAFETY: by the caller.
    unsafe { free(incident) }
}

/// Gives an incident in numbers.
///
/// # Safety
/// `incident` must be NULL or from `seawall_incident_new`, `outcome` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_outcome(
    incident: *const Incident,
    outcome: *mut Outcome,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            Out::new(outcome, "outcome")?.set(shared(incident, "incident")?.outcome());
            Ok(())
        })
    }
}

/// Gives an incident in words, one line for the log: as much of it as fits into `size` bytes with a zero at the end.
///
/// # Safety
/// `incident` must be NULL or from `seawall_incident_new`, `text` NULL or valid for writes of `size` bytes, `error`
/// NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_incident_text(
    incident: *const Incident,
    text: *mut c_char,
    size: usize,
    error: *mut Error,
) -> Status {
    // SAFETY: by the caller.
    unsafe {
        call(error, || {
            let incident = shared(incident, "incident")?;
            let text: *mut c_char = exclusive(text, "text")?;
            write_text(text, size, &incident.to_string());
            Ok(())
        })
    }
}

/// Takes the decision of an incident, to go on with; the incident is empty then.
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
