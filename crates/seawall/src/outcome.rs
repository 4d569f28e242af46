//! What became of an error.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use seawall_inject::{Delivery, SigbusExit};

#[cfg(doc)]
use crate::{Containment, Verdict};
use crate::{Evacuate, HostKnows, Injection, MemoryError, Recorded, StopReason};

/// What became of what a [`Source`](crate::Source) told of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Contained {
    /// The vCPU met bad memory, and this was done about it.
    Error(Outcome),
    /// The host found this of the guest's memory to be bad before the guest touched it. It is in the ledger, and a guest that
    /// looks for records was told of it.
    Found(Range<u64>),
    /// What is bad is no memory of the guest's, but of the VMM's own.
    NotGuests(SigbusExit),
}

impl Contained {
    /// Why the guest must not be run again, if it must not.
    pub fn stop(&self) -> Option<StopReason> {
        match self {
            Self::Error(outcome) => match outcome.action {
                Action::Stop(reason) => Some(reason),
                _ => None,
            },
            Self::NotGuests(SigbusExit { address, action_required: true, .. }) => {
                Some(StopReason::NotGuests { address: *address })
            }
            Self::NotGuests(_) | Self::Found(_) => None,
        }
    }

    /// What was done about an error that a vCPU met; `None` while that is still open ([`Action::Waiting`]): then there is
    /// nothing to tell people yet.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Error(outcome) if outcome.action != Action::Waiting => Some(outcome),
            _ => None,
        }
    }
}

/// One line for people.
impl fmt::Display for Contained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(outcome) => outcome.fmt(f),
            Self::Found(range) => {
                let (start, size) = (range.start, range.end.saturating_sub(range.start));
                write!(f, "the host found {size:#x} bytes at gpa {start:#x} bad; no vCPU has touched them")
            }
            Self::NotGuests(SigbusExit { address, .. }) => {
                write!(f, "memory of this process that is not the guest's is bad, at {address:#x}")
            }
        }
    }
}

/// What was done about one memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The error.
    pub error: MemoryError,
    /// What was done.
    pub action: Action,
    /// Whether the guest finds a record of it.
    pub recorded: Recorded,
    /// Whether the host's kernel knows of it: `None` if nobody was there to tell ([`Containment::with_host`]), or nothing to
    /// be told of.
    pub host: Option<HostKnows>,
    /// Advice to the operator, beside.
    pub evacuate: Option<Evacuate>,
    /// From the exit until the injection was done ([`Now::exited`](crate::Now::exited)).
    pub took: Option<Duration>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// This was injected, and this is where the guest is now.
    Injected {
        /// What was asked of the kernel.
        injection: Injection,
        /// What became of it.
        guest: Delivery,
    },
    /// Nothing yet: the vCPU is to be run again ([`Verdict::Wait`]).
    Waiting,
    /// The host put the memory back as it was: the vCPU is to be run again, and repeats the access.
    Repaired,
    /// Nothing, as this is a dry run ([`Containment::set_dry_run`]): this would have been injected. What becomes of the
    /// guest is up to the caller; run again, it repeats the access.
    DryRun(Injection),
    /// Nothing was injected; the guest must not be run again.
    Stop(StopReason),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.action)?;
        if self.recorded != Recorded::No {
            write!(f, "; {}", self.recorded)?;
        }
        if let Some(host) = self.host {
            write!(f, "; {host}")?;
        }
        match self.evacuate {
            Some(evacuate) => write!(f, "; {evacuate}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Injected { injection, guest } => write!(f, "{injection}; {guest}"),
            Self::Waiting => f.write_str("waits until the guest has read the records before it"),
            Self::Repaired => f.write_str("the host put back what was there"),
            Self::DryRun(injection) => write!(f, "dry run: {injection} would have been injected"),
            Self::Stop(reason) => write!(f, "stopped: {reason}"),
        }
    }
}
