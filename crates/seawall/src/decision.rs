//! The decision on one memory error, before it is carried out.

use std::fmt;
use std::time::Duration;

use crate::{Action, Evacuate, Injection, MemoryError, Outcome, StopReason};

/// The decision on one memory error. Carrying it out consumes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// The error.
    pub error: MemoryError,
    /// The action to take.
    pub verdict: Verdict,
    /// The state of the error's record.
    pub recorded: Recorded,
    /// Advice to the operator, in addition.
    pub evacuate: Option<Evacuate>,
    /// The time of the decision, by the clock passed to the containment.
    pub(crate) now: Duration,
}

impl Decision {
    /// The same decision for a host that cannot help: the guest is told.
    pub fn guest_first(self) -> Self {
        match self.verdict {
            Verdict::HostFirst(injection) => Self { verdict: Verdict::Inject(injection), ..self },
            _ => self,
        }
    }

    /// The outcome with this action.
    pub(crate) fn becomes(self, action: Action) -> Outcome {
        let Self { error, recorded, evacuate, .. } = self;
        Outcome { error, action, recorded, host: None, evacuate, took: None }
    }
}

/// The action for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Inject this.
    Inject(Injection),
    /// Let the host restore the memory with its content, if it can, and call [`Containment::repaired`];
    /// otherwise go on with [`Decision::guest_first`].
    ///
    /// [`Containment::repaired`]: crate::Containment::repaired
    HostFirst(Injection),
    /// Do nothing yet: run the vCPU again, which repeats the access. The guest has not acknowledged an
    /// earlier record; it may do so while other vCPUs run.
    Wait,
    /// Inject nothing, and do not run the guest again.
    Stop(StopReason),
}

/// The state of an error's record in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// There is none: the guest has no place for records, the error has no address, nothing is injected, or
    /// the guest has read so many records of this error that only the abort alone is left to try.
    #[default]
    No,
    /// It is at this source.
    AtSource(u16),
    /// The guest did not acknowledge earlier records for too long: it gets the abort alone.
    Unacknowledged,
    /// The guest's memory could not be written at its records: it gets the abort alone.
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
