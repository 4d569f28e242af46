//! One access that nobody answered and what was done about it, as a record for programs.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::report::{Done, hex, nanoseconds};
use super::wire::{Hex, rfc3339};
use super::{Kind, SCHEMA};
use crate::{Now, UnansweredOutcome};

/// One access that nobody answered and what was done about it: a line of JSON.
///
/// What holds for [`ErrorReport`](super::ErrorReport) holds here: `docs/telemetry.md` has the meaning of each field as it is
/// promised; a reader ignores what it does not know, and takes what is not there for `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessReport {
    /// [`SCHEMA`] of whoever wrote it.
    pub schema: u32,
    /// When it was, by the clock that the guest is shown; UTC.
    #[serde(default, with = "rfc3339")]
    pub time: Option<SystemTime>,
    /// How long the guest had been running, nanoseconds.
    #[serde(default)]
    pub guest_time_ns: Option<u64>,
    /// The number of the vCPU that made it.
    pub vcpu: u32,
    /// Why nobody answered: `no-device`, `past-device` or `no-syndrome`.
    pub reason: Kind,
    /// `load` or `store`.
    pub access: Kind,
    /// The guest physical address.
    pub gpa: Hex,
    /// Bytes, if they are known.
    #[serde(default)]
    pub size: Option<u32>,
    /// The Exception level that the guest was at, 0 to 3.
    pub exception_level: u8,
    /// PC of the instruction.
    pub pc: Hex,
    /// What was done: `data-abort` or `stop`.
    pub decision: Kind,
    /// The same in words.
    pub decision_text: String,
    /// Where the guest is now: `at-vector`, `not-delivered` or `stopped`.
    pub guest: Kind,
    /// `ESR_ELx` as the guest's handler reads it.
    #[serde(default)]
    pub guest_esr: Option<Hex>,
    /// `FAR_ELx` as the guest's handler reads it.
    #[serde(default)]
    pub guest_far: Option<Hex>,
    /// How many before it were not told of, as there were too many.
    #[serde(default)]
    pub untold: u64,
    /// Why the guest must not be run again: `storm`.
    #[serde(default)]
    pub stop_reason: Option<Kind>,
    /// From the exit until the injection was done, nanoseconds.
    #[serde(default)]
    pub exit_to_injection_ns: Option<u64>,
}

impl AccessReport {
    /// The report of what became of an access.
    pub fn new(outcome: &UnansweredOutcome, now: &Now) -> Self {
        let UnansweredOutcome { access, pc, level, action, told, took } = outcome;
        let done = Done::of(action);
        Self {
            schema: SCHEMA,
            time: Some(now.time),
            guest_time_ns: Some(nanoseconds(now.running)),
            vcpu: now.vcpu,
            reason: access.why.name().into(),
            access: if access.is_write() { "store" } else { "load" }.into(),
            gpa: Hex(access.gpa),
            size: access.size,
            exception_level: *level as u8,
            pc: Hex(*pc),
            decision: done.decision.into(),
            decision_text: done.text,
            guest: done.guest.into(),
            guest_esr: done.esr.map(hex),
            guest_far: done.far.map(Hex),
            untold: told.unwrap_or_default(),
            stop_reason: done.stop.map(Kind::from),
            exit_to_injection_ns: took.map(nanoseconds),
        }
    }

    /// One line of JSON, without its end.
    pub fn to_json(&self) -> String {
        // Strings, numbers and null alone: nothing of it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// If it is no JSON, or a field of the schema is missing that is always there.
    pub fn from_json(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

/// `load at EL0, PC 0x401000, gpa 0x20000000, no-device: data abort, no ESR given`.
impl fmt::Display for AccessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access, exception_level, pc, gpa, reason, decision_text, untold, .. } = self;
        write!(f, "{access} at EL{exception_level}, PC {pc}, gpa {gpa}, {reason}: {decision_text}")?;
        if *untold == 0 { Ok(()) } else { write!(f, "; {untold} more before it") }
    }
}
