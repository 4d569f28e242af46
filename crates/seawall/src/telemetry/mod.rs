//! What is told of memory errors, and of accesses that nobody answers, to people and to programs.
//!
//! One handled error is one [`ErrorReport`]: a line of JSON with a schema that is kept (`docs/telemetry.md`). Who gets
//! it is a [`Sink`]: [`Facades`] makes a `tracing` event and `metrics` of it, [`JsonLines`] writes it, and a closure is
//! a sink too. Nothing here is global: `tracing`'s subscriber and `metrics`' recorder are the program's, and without
//! them an error costs its report.
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

/// Is told of each memory error that was handled, and of accesses that nobody answers. It is called on the thread of the vCPU, which waits meanwhile.
pub trait Sink {
    /// This happened, and this was done about it.
    fn error(&mut self, report: &ErrorReport);

    /// The guest made an access that nobody answers, and this was done about it: those that are [to be told
    /// of](crate::UnansweredOutcome::told).
    fn access(&mut self, _report: &AccessReport) {}

    /// The same, for each of them: a guest can make as many as it likes, so count it and no more.
    fn count_access(&mut self, _report: &AccessReport) {}
}

impl<F: FnMut(&ErrorReport)> Sink for F {
    fn error(&mut self, report: &ErrorReport) {
        self(report);
    }
}

/// Writes each error as a line of JSON. What cannot be written is lost: a full disk is no reason to stop a guest.
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
