//! What is to be done about one memory error, before it is done.

use std::fmt;
use std::time::Duration;

use crate::{Action, Evacuate, Injection, MemoryError, Outcome, StopReason};

/// What is to be done about one memory error, once: it is given away when it is done.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// The error.
    pub error: MemoryError,
    /// What is to be done.
    pub verdict: Verdict,
    /// Whether the guest finds a record of it.
    pub recorded: Recorded,
    /// Advice to the operator, beside.
    pub evacuate: Option<Evacuate>,
    /// When it was taken, by the clock that the containment was asked with.
    pub(crate) now: Duration,
}

impl Decision {
    /// The same where the host cannot help: the guest is told.
    pub fn guest_first(self) -> Self {
        match self.verdict {
            Verdict::HostFirst(injection) => Self { verdict: Verdict::Inject(injection), ..self },
            _ => self,
        }
    }

    /// What became of it.
    pub(crate) fn becomes(self, action: Action) -> Outcome {
        let Self { error, recorded, evacuate, .. } = self;
        Outcome { error, action, recorded, host: None, evacuate, took: None }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Inject this.
    Inject(Injection),
    /// Put memory there with what was in it, if the host can, and tell [`Containment::repaired`]; else go on with
    /// [`Decision::guest_first`].
    ///
    /// [`Containment::repaired`]: crate::Containment::repaired
    HostFirst(Injection),
    /// Nothing yet: run the vCPU again, which repeats the access. The guest has not acknowledged a record that is there,
    /// and with other vCPUs running it may.
    Wait,
    /// Nothing, and the guest must not be run again.
    Stop(StopReason),
}

/// Whether a guest finds a record of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// It has no place for records, the error has no address, nothing is injected, or the guest has read so many records of
    /// this very error that the abort alone is left to try.
    #[default]
    No,
    /// It lies at this source.
    AtSource(u16),
    /// The guest did not acknowledge those before it for too long: it gets the abort alone.
    Unacknowledged,
    /// The guest's memory could not be written where its records lie: it gets the abort alone.
    Unwritable,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no record"),
            Self::AtSource(source) => write!(f, "record at source {source}"),
            Self::Unacknowledged => f.write_str("no record: the guest acknowledges none"),
            Self::Unwritable => f.write_str("no record: the guest's memory cannot be written there"),
        }
    }
}
