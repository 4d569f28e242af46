//! The outcome of an error.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use seawall_inject::{Delivery, SigbusExit};

#[cfg(doc)]
use crate::{Containment, Verdict};
use crate::{Evacuate, HostKnows, Injection, MemoryError, Recorded, StopReason};

/// The outcome of a report from a [`Source`](crate::Source).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Contained {
    /// The vCPU met bad memory, and this action followed.
    Error(Outcome),
    /// The host found this range of the guest's memory bad before the guest touched it. It is in the ledger,
    /// and a guest that looks for records was told.
    Found(Range<u64>),
    /// The bad memory is not this guest's: it is the VMM's own, or of another VM of the same process. An early warning
    /// (`BUS_MCEERR_AO`) goes to the process, so any VM's run may take it: a VMM of several VMs gives it to the containment
    /// of each, with one of its vCPUs, until one knows the memory.
    NotGuests(SigbusExit),
}

impl Contained {
    /// The reason not to run the guest again, if there is one.
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

    /// The outcome of an error that a vCPU met; `None` while it is still open ([`Action::Waiting`]) and there
    /// is nothing to report yet.
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

/// The outcome of one memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The error.
    pub error: MemoryError,
    /// The action taken.
    pub action: Action,
    /// The state of the error's record.
    pub recorded: Recorded,
    /// The host kernel's knowledge of it: `None` if there was no host to tell ([`Containment::with_host`]),
    /// or nothing to tell it.
    pub host: Option<HostKnows>,
    /// Advice to the operator, in addition.
    pub evacuate: Option<Evacuate>,
    /// The time from the exit to the end of the injection ([`Now::exited`](crate::Now::exited)).
    pub took: Option<Duration>,
}

/// The action taken for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An injection, with the guest's position after it.
    Injected {
        /// The request to the kernel.
        injection: Injection,
        /// Its result.
        guest: Delivery,
    },
    /// Nothing yet: run the vCPU again ([`Verdict::Wait`]).
    Waiting,
    /// The host restored the memory: run the vCPU again, which repeats the access.
    Repaired,
    /// Nothing, because of the dry run ([`Containment::set_dry_run`]): this injection would have followed.
    /// The caller decides what happens to the guest; if it runs again, it repeats the access.
    DryRun(Injection),
    /// Nothing was injected; do not run the guest again.
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
