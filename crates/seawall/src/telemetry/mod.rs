//! Reports of memory errors and of unanswered accesses, for people and for programs.
//!
//! One handled error is one [`ErrorReport`]: a line of JSON with a stable schema (`docs/telemetry.md`). A
//! [`Sink`] receives it: [`Facades`] makes a `tracing` event and `metrics` of it, [`JsonLines`] writes it,
//! and a closure is a sink too. Nothing here is global: `tracing`'s subscriber and `metrics`' recorder belong
//! to the program, and without them an error costs only its report.
//!
//! ```
//! use seawall::telemetry::{ErrorReport, Facades};
//! use seawall::{Containment, Rules};
//!
//! let containment = Containment::new(Rules::default()).with_telemetry(Facades);
//! // Or the VMM's own hook.
//! let alert = |report: &ErrorReport| if report.evacuate.is_some() { /* ask to be migrated */ };
//! let containment = Containment::new(Rules::default()).with_telemetry(alert);
//! ```

mod access;
mod facades;
#[cfg(any(feature = "records", feature = "ledger"))]
mod gauges;
mod report;
mod wire;

use std::io::Write;

pub use access::AccessReport;
pub use facades::{BUCKETS, EXIT_TO_INJECTION, Facades, describe};
#[cfg(feature = "ledger")]
pub use gauges::ledger;
#[cfg(feature = "records")]
pub use gauges::records;
pub use report::{ErrorReport, Kind, SCHEMA};
pub use wire::Hex;

/// Receives each handled memory error and unanswered accesses. The call runs on the thread of the vCPU, which
/// waits meanwhile.
pub trait Sink {
    /// Receives an error with its outcome.
    fn error(&mut self, report: &ErrorReport);

    /// Receives an unanswered access with its outcome, if it is [to be
    /// reported](crate::UnansweredOutcome::told).
    fn access(&mut self, _report: &AccessReport) {}

    /// Receives every unanswered access: a guest can make any number of them, so only count them here.
    fn count_access(&mut self, _report: &AccessReport) {}
}

impl<F: FnMut(&ErrorReport)> Sink for F {
    fn error(&mut self, report: &ErrorReport) {
        self(report);
    }
}

/// Writes each error as a line of JSON. A line that cannot be written is lost: a full disk must not stop a
/// guest.
#[derive(Debug)]
pub struct JsonLines<W>(pub W);

impl<W: Write> Sink for JsonLines<W> {
    fn error(&mut self, report: &ErrorReport) {
        // One write for a line, so that the lines of several writers to a pipe stay whole.
        let _ = self.0.write_all(format!("{}\n", report.to_json()).as_bytes());
    }

    fn access(&mut self, report: &AccessReport) {
        let _ = self.0.write_all(format!("{}\n", report.to_json()).as_bytes());
    }
}
