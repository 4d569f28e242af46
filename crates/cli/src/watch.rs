//! What a guest on the software machine does, noted for who runs it.

use std::sync::{Arc, Mutex, PoisonError};

use seawall::telemetry::{AccessReport, ErrorReport};
use seawall::{Outcome, UnansweredOutcome};
use seawall_vmm::Observer;

/// Something that the guest did.
pub(crate) enum Seen {
    /// It wrote this to its console.
    Console(Vec<u8>),
    /// With that a line was complete.
    Line(String),
    /// It met bad memory.
    MemoryError { report: Box<ErrorReport>, outcome: Outcome },
    /// It made an access that nobody answers.
    Unanswered { report: Box<AccessReport>, outcome: UnansweredOutcome },
    /// One of its devices met bad memory.
    DeviceError { address: u64 },
}

/// Notes what the guest does, in its order. All but a part of a line makes the run pause, so that it is known when it
/// was, and something can be done about it at that very instruction.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Vec<Seen>>>);

impl Watch {
    /// What was seen since this was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        self.with(std::mem::take)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Seen>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.with(|seen| match seen.last_mut() {
            Some(Seen::Console(before)) => before.extend_from_slice(bytes),
            _ => seen.push(Seen::Console(bytes.to_vec())),
        });
    }

    fn line(&mut self, line: &str) {
        self.with(|seen| seen.push(Seen::Line(line.to_owned())));
    }

    fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
        let report = Box::new(report.clone());
        self.with(|seen| seen.push(Seen::MemoryError { report, outcome: *outcome }));
    }

    fn unanswered_access(&mut self, report: &AccessReport, outcome: &UnansweredOutcome) {
        let report = Box::new(report.clone());
        self.with(|seen| seen.push(Seen::Unanswered { report, outcome: *outcome }));
    }

    fn device_error(&mut self, address: u64) {
        self.with(|seen| seen.push(Seen::DeviceError { address }));
    }

    fn wants_pause(&mut self) -> bool {
        self.with(|seen| seen.iter().any(|seen| !matches!(seen, Seen::Console(_))))
    }
}
