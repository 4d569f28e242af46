//! One memory error and its outcome, as a record for programs.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use seawall_arm::{Esr, ExceptionClass};
use serde::{Deserialize, Serialize};

use super::wire::{Hex, rfc3339};
use crate::{Access, Action, Delivery, Injection, MemoryError, Now, Outcome, Recorded};

/// The number of the schema. It changes only if a field disappears or changes its meaning.
pub const SCHEMA: u32 = 1;

/// One of a few words. Later versions may have more.
pub type Kind = Cow<'static, str>;

/// One memory error and its outcome: a line of JSON.
///
/// `docs/telemetry.md` defines each field. The schema's number is [`SCHEMA`]. Fields may be added under the
/// same number; they never disappear or change their name. A reader therefore ignores unknown fields, as this
/// type does, and takes missing ones for `null`.
///
/// ```
/// use seawall::telemetry::{ErrorReport, Hex};
///
/// let line = r#"{"schema":1,"vcpu":3,"source":"sea","access":"load","exit_esr":"0x92000210","size":4096,
///     "exception_level":0,"pc":"0x401040","decision":"data-abort","decision_text":"data abort, ISS 0x210",
///     "guest":"at-vector","record":"none","from_a_later_version":true}"#;
/// let report = ErrorReport::from_json(line)?;
/// assert_eq!((report.vcpu, report.exit_esr, report.gpa), (3, Some(Hex(0x9200_0210)), None));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorReport {
    /// The writer's [`SCHEMA`].
    pub schema: u32,
    /// The time of the error, by the clock that the guest is shown; UTC.
    #[serde(default, with = "rfc3339")]
    pub time: Option<SystemTime>,
    /// The guest's running time before it, in nanoseconds.
    #[serde(default)]
    pub guest_time_ns: Option<u64>,
    /// The number of the vCPU that met it.
    pub vcpu: u32,
    /// The source of the report: `sea` or `sigbus`.
    pub source: Kind,
    /// The kind of access: `fetch`, `load`, `store`, `maintenance` or `unknown`.
    pub access: Kind,
    /// The ESR of the exit; SIGBUS has none.
    #[serde(default)]
    pub exit_esr: Option<Hex>,
    /// The guest virtual address, if known.
    #[serde(default)]
    pub gva: Option<Hex>,
    /// The start of the bad memory: a guest physical address, if known.
    #[serde(default)]
    pub gpa: Option<Hex>,
    /// The size in bytes of the range that may be bad.
    pub size: u64,
    /// The level of the lookup, if a table walk met the error.
    #[serde(default)]
    pub walk_level: Option<i8>,
    /// The Exception level of the access, 0 to 3.
    pub exception_level: u8,
    /// PC of the instruction.
    pub pc: Hex,
    /// The decision: `data-abort`, `instruction-abort`, `abort-by-far`, `serror`, these with `-and-serror`,
    /// `host-first` or `stop`.
    pub decision: Kind,
    /// The decision in words.
    pub decision_text: String,
    /// The guest's position after it: `at-vector`, `serror-pending`, `not-delivered`, `repaired`, `dry-run` (it
    /// got nothing) or `stopped`.
    pub guest: Kind,
    /// `ESR_ELx` as the guest's handler reads it, if the guest is there.
    #[serde(default)]
    pub guest_esr: Option<Hex>,
    /// `FAR_ELx` as the guest's handler reads it, if the guest is there and the exception set it.
    #[serde(default)]
    pub guest_far: Option<Hex>,
    /// The state of the error's record: `none`, `written`, `unacknowledged` or `unwritable`.
    pub record: Kind,
    /// The id of the record's source.
    #[serde(default)]
    pub record_source: Option<u16>,
    /// The host kernel's knowledge of the bad page: `told`, `kept` or `unknown`; `null` without a host to
    /// tell.
    #[serde(default)]
    pub host: Option<Kind>,
    /// Advice to evacuate the guest, if any.
    #[serde(default)]
    pub evacuate: Option<String>,
    /// The reason not to run the guest again: `storm`, `flood`, `policy`, `not-guests` or `nested`.
    #[serde(default)]
    pub stop_reason: Option<Kind>,
    /// The time from the exit to the end of the injection, in nanoseconds.
    #[serde(default)]
    pub exit_to_injection_ns: Option<u64>,
}

impl ErrorReport {
    /// The report of an error's outcome; `None` while it is open ([`Action::Waiting`]): the vCPU will meet
    /// the error again.
    pub fn new(outcome: &Outcome, now: &Now) -> Option<Self> {
        let Outcome { error, action, recorded, host, evacuate, took } = outcome;
        if matches!(action, Action::Waiting) {
            return None;
        }
        let done = Done::of(action);
        let (record, record_source) = match recorded {
            Recorded::No => ("none", None),
            Recorded::AtSource(source) => ("written", Some(*source)),
            Recorded::Unacknowledged => ("unacknowledged", None),
            Recorded::Unwritable => ("unwritable", None),
        };
        Some(Self {
            schema: SCHEMA,
            time: Some(now.time),
            guest_time_ns: Some(nanoseconds(now.running)),
            vcpu: now.vcpu,
            source: source(error).into(),
            access: access(error.access).into(),
            exit_esr: error.esr.map(hex),
            gva: error.gva.map(Hex),
            gpa: error.gpa.map(Hex),
            size: error.size,
            walk_level: error.walk_level,
            exception_level: error.level as u8,
            pc: Hex(error.pc),
            decision: done.decision.into(),
            decision_text: done.text,
            guest: done.guest.into(),
            guest_esr: done.esr.map(hex),
            guest_far: done.far.map(Hex),
            record: record.into(),
            record_source,
            host: host.map(|knows| knows.name().into()),
            evacuate: evacuate.map(|advice| advice.to_string()),
            stop_reason: done.stop.map(Kind::from),
            exit_to_injection_ns: took.map(nanoseconds),
        })
    }

    /// One line of JSON, without a line end.
    pub fn to_json(&self) -> String {
        // Only strings, numbers and null: serialisation cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// If it is not JSON, or lacks a required field of the schema.
    pub fn from_json(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }

    /// Returns true if the guest got the decided response, or needs none, and can go on.
    pub fn is_contained(&self) -> bool {
        matches!(&*self.guest, "at-vector" | "serror-pending" | "repaired")
    }
}

/// `fetch at EL0, PC 0x401000, gpa 0x40210000: instruction abort, ISS 0x210`.
impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at EL{}, PC {}", self.access, self.exception_level, self.pc)?;
        match (self.walk_level, self.gpa) {
            (Some(level), _) => write!(f, ", on the table walk at level {level}")?,
            (None, Some(gpa)) => write!(f, ", gpa {gpa}")?,
            (None, None) => f.write_str(", gpa unknown")?,
        }
        write!(f, ": {}", self.decision_text)?;
        match &self.evacuate {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// The action, in the report's words.
pub(super) struct Done {
    pub(super) decision: &'static str,
    pub(super) text: String,
    pub(super) guest: &'static str,
    pub(super) esr: Option<Esr>,
    pub(super) far: Option<u64>,
    pub(super) stop: Option<&'static str>,
}

impl Done {
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Injected { injection, guest } => Self::injected(injection, guest),
            Action::Waiting => Self::untouched("wait", action.to_string(), "waiting"),
            Action::Repaired => {
                Self::untouched("host-first", "the host put back what was there".into(), "repaired")
            }
            Action::DryRun(injection) => Self::untouched(kind(injection), injection.to_string(), "dry-run"),
            Action::Stop(reason) => {
                let stopped = Self::untouched("stop", reason.to_string(), "stopped");
                Self { stop: Some(reason.name()), ..stopped }
            }
        }
    }

    /// The guest got nothing.
    fn untouched(decision: &'static str, text: String, guest: &'static str) -> Self {
        Self { decision, text, guest, esr: None, far: None, stop: None }
    }

    fn injected(injection: &Injection, guest: &Delivery) -> Self {
        let (guest, esr, far) = match guest {
            // An SError does not set FAR, which still holds the address of an earlier abort.
            Delivery::AtVector { esr, far, .. } => {
                ("at-vector", Some(*esr), (esr.ec() != ExceptionClass::SERROR).then_some(*far))
            }
            Delivery::SErrorPending => ("serror-pending", None, None),
            Delivery::NotDelivered => ("not-delivered", None, None),
        };
        Self { decision: kind(injection), text: injection.to_string(), guest, esr, far, stop: None }
    }
}

fn kind(injection: &Injection) -> &'static str {
    let events = injection.events();
    match (events.ext_dabt_pending, events.ext_iabt_pending, events.serror_pending) {
        (true, _, false) if injection.is_by_far() => "abort-by-far",
        (true, _, true) if injection.is_by_far() => "abort-by-far-and-serror",
        (true, _, false) => "data-abort",
        (true, _, true) => "data-abort-and-serror",
        (false, true, false) => "instruction-abort",
        (false, true, true) => "instruction-abort-and-serror",
        (false, false, _) => "serror",
    }
}

fn source(error: &MemoryError) -> &'static str {
    // Each exit has an ESR; SIGBUS has none.
    if error.esr.is_some() { "sea" } else { "sigbus" }
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Fetch => "fetch",
        Access::Load => "load",
        Access::Store => "store",
        Access::Maintenance => "maintenance",
        Access::Unknown => "unknown",
    }
}

pub(super) fn hex(esr: Esr) -> Hex {
    Hex(esr.bits())
}

/// Nanoseconds, up to 584 years.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
