//! How a guest ended.

use std::fmt;

use seawall::StopReason;
use seawall_inject::{SigbusExit, SystemEvent};

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// Its kernel panicked: said so on the console, and then asked for a reset or stood still.
    Panic {
        /// The kernel's line.
        message: String,
    },
    /// It was stopped: it took the same abort for ever, or the policy has it so for a memory error.
    Stopped(StopReason),
    /// It met bad memory, and this is a dry run.
    DryRun,
    /// It touched a page that the host knows to be bad and did not give back by an SEA.
    HostMemory(SigbusExit),
    /// It asked by PSCI for something else.
    Event(SystemEvent),
    /// It waits for an interrupt that cannot come.
    Idle,
    /// An exit that is not known here: `kvm_run.exit_reason`.
    Unknown(u32),
    /// The host's limit of time is over.
    TimeLimit,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("powered off"),
            Self::Reset => f.write_str("asked for a reset"),
            Self::Panic { message } => f.write_str(message),
            Self::Stopped(reason) => write!(f, "stopped: {reason}"),
            Self::DryRun => f.write_str("met bad memory, about which a dry run does nothing"),
            Self::HostMemory(sigbus) => {
                write!(
                    f,
                    "touched memory that the host knows to be bad, at host address {:#x}",
                    sigbus.address
                )
            }
            Self::Event(event) => write!(f, "asked for {event:?}"),
            Self::Idle => f.write_str("waits for an interrupt that cannot come"),
            Self::Unknown(reason) => write!(f, "exit {reason}, which is not known here"),
            Self::TimeLimit => f.write_str("the time limit is over"),
        }
    }
}
