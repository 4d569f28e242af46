//! The end of a guest: its name, its exit code, and advice.

use seawall_arm::Esr;
use seawall_vmm::End;

use super::signals;
use crate::{Failure, exit};

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The guest ended it.
    Guest(End),
    /// The limit of instructions is reached.
    InstructionLimit,
    /// The limit of time is reached, seconds.
    TimeLimit(u64),
    /// The guest takes an exception at the first instruction of its own vector, forever.
    BadVector {
        /// PC, `ELR_EL1` and the vector, which are all the same address.
        pc: u64,
        /// `ESR_EL1`.
        esr: Esr,
    },
    /// The user ended it from the keyboard.
    Keyboard,
    /// This signal ended it.
    Signal(i32),
    /// The command failed, not the guest.
    Failed(Failure),
}

/// The position of a guest that does not go on, as far as the backend knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Where {
    pub(super) pc: Option<u64>,
    pub(super) instructions: Option<u64>,
}

impl Where {
    /// ` (PC 0x40080000)`.
    fn pc(self) -> String {
        self.pc.map(|pc| format!(" (PC {pc:#x})")).unwrap_or_default()
    }

    /// ` after 1000 instructions`.
    fn after(self) -> String {
        self.instructions.map(|count| format!(" after {count} instructions")).unwrap_or_default()
    }
}

impl Ending {
    /// The name for programs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Guest(End::PowerOff) => "power-off",
            Self::Guest(End::Reset) => "reset",
            Self::Guest(End::Panic { .. }) => "panic",
            Self::Guest(End::Stopped(reason)) => reason.name(),
            Self::Guest(End::DryRun) => "dry-run",
            Self::Guest(End::HostMemory(_)) => "host-memory",
            Self::Guest(End::Event(_)) => "system-event",
            Self::Guest(End::Idle) => "idle",
            Self::Guest(_) => "unknown-exit",
            Self::InstructionLimit => "instruction-limit",
            Self::TimeLimit(_) => "time-limit",
            Self::BadVector { .. } => "bad-vector",
            Self::Keyboard => "keyboard",
            Self::Signal(_) => "signal",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns true if a machine that reboots does so now: a panicking kernel asks for it, or would have.
    pub(super) fn wants_reboot(&self) -> bool {
        matches!(self, Self::Guest(End::Reset | End::Panic { .. }))
    }

    /// Returns true if the guest itself came to its end, without a failure.
    pub(super) fn is_as_the_guest_wanted(&self) -> bool {
        matches!(self, Self::Guest(End::PowerOff | End::Reset))
    }

    /// The exit code for the shell.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Guest(End::PowerOff) | Self::Keyboard => 0,
            Self::Guest(End::Reset) => exit::RESET,
            Self::Guest(End::Panic { .. }) => exit::PANIC,
            Self::Guest(End::Stopped(_)) => exit::STORM,
            Self::Guest(End::DryRun) => exit::DRY_RUN,
            Self::Guest(End::Idle) | Self::InstructionLimit | Self::TimeLimit(_) | Self::BadVector { .. } => {
                exit::HUNG
            }
            Self::Guest(_) => exit::UNSUPPORTED,
            // As a shell reports a process that a signal ended.
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::Failed(failure) => failure.code,
        }
    }

    /// The reason for the end, and advice.
    pub(super) fn explain(&self, at: Where) -> String {
        let (pc, after) = (at.pc(), at.after());
        match self {
            Self::Guest(End::PowerOff) => format!("the guest powered off{after}"),
            Self::Guest(End::Reset) => format!("the guest asked for a reset{after}"),
            Self::Guest(End::Panic { message }) => format!("the guest's kernel panicked{after}: {message}"),
            Self::Guest(End::Stopped(reason)) => format!("the guest was stopped{after}: {reason}"),
            Self::Guest(End::DryRun) => format!("the guest met bad memory{after}: a dry run ends here"),
            Self::Guest(End::Idle) => format!(
                "the guest waits for an interrupt{pc}, and nothing will raise one: end it with PSCI SYSTEM_OFF"
            ),
            Self::Guest(End::Event(event)) => {
                format!("the guest asked for {event:?} by PSCI, which this machine does not do")
            }
            Self::Guest(other) => format!("the guest {other}"),
            Self::InstructionLimit => format!(
                "the guest did not end in {} instructions{pc}: raise --max-insns, or see why it hangs",
                at.instructions.unwrap_or_default()
            ),
            Self::TimeLimit(seconds) => {
                format!("the guest did not end in {seconds} s{pc}: raise --timeout, or see why it hangs")
            }
            Self::BadVector { pc, esr } => format!(
                "the guest took an exception at its own vector {pc:#x}, and does so for ever: ESR_EL1 {esr}. Set \
                 VBAR_EL1 to vectors that it can execute"
            ),
            Self::Keyboard => format!("ended from the keyboard{after}"),
            Self::Signal(signal) => format!("ended by {}{after}", signals::name(*signal)),
            Self::Failed(failure) => failure.message.clone(),
        }
    }
}
