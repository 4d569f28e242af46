//! One unanswered access and its outcome, as a record for programs.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::report::{Done, hex, nanoseconds};
use super::wire::{Hex, rfc3339};
use super::{Kind, SCHEMA};
use crate::{Now, UnansweredOutcome};

/// One unanswered access and its outcome: a line of JSON.
///
/// The promises of [`ErrorReport`](super::ErrorReport) apply here too: `docs/telemetry.md` defines each
/// field; a reader ignores unknown fields, and takes missing ones for `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessReport {
    /// The writer's [`SCHEMA`].
    pub schema: u32,
    /// The time of the access, by the clock that the guest is shown; UTC.
    #[serde(default, with = "rfc3339")]
    pub time: Option<SystemTime>,
    /// The guest's running time before it, in nanoseconds.
    #[serde(default)]
    pub guest_time_ns: Option<u64>,
    /// The number of the vCPU that made it.
    pub vcpu: u32,
    /// The reason: `no-device`, `past-device` or `no-syndrome`.
    pub reason: Kind,
    /// `load` or `store`.
    pub access: Kind,
    /// The guest physical address.
    pub gpa: Hex,
    /// Size in bytes, if known.
    #[serde(default)]
    pub size: Option<u32>,
    /// The Exception level of the access, 0 to 3.
    pub exception_level: u8,
    /// PC of the instruction.
    pub pc: Hex,
    /// The action: `data-abort` or `stop`.
    pub decision: Kind,
    /// The action in words.
    pub decision_text: String,
    /// The guest's position after it: `at-vector`, `not-delivered` or `stopped`.
    pub guest: Kind,
    /// `ESR_ELx` as the guest's handler reads it.
    #[serde(default)]
    pub guest_esr: Option<Hex>,
    /// `FAR_ELx` as the guest's handler reads it.
    #[serde(default)]
    pub guest_far: Option<Hex>,
    /// The number of accesses before it that were too many to report.
    #[serde(default)]
    pub untold: u64,
    /// The reason not to run the guest again: `storm`.
    #[serde(default)]
    pub stop_reason: Option<Kind>,
    /// The time from the exit to the end of the injection, in nanoseconds.
    #[serde(default)]
    pub exit_to_injection_ns: Option<u64>,
}

impl AccessReport {
    /// The report of an access's outcome.
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
}

/// `load at EL0, PC 0x401000, gpa 0x20000000, no-device: data abort, no ESR given`.
impl fmt::Display for AccessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access, exception_level, pc, gpa, reason, decision_text, untold, .. } = self;
        write!(f, "{access} at EL{exception_level}, PC {pc}, gpa {gpa}, {reason}: {decision_text}")?;
        if *untold == 0 { Ok(()) } else { write!(f, "; {untold} more before it") }
    }
}
