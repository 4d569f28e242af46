//! Unanswered accesses: not a memory error, yet an external abort, as on the bus of a real system.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use seawall_arm::{DataAbort, ExceptionLevel, FaultStatus};
use seawall_events::{MmioExit, NisvExit};

use crate::{Action, ExternalAbort, Injection, StopReason};

/// The reason why an access is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Unanswered {
    /// The address has neither RAM nor a device.
    NoDevice,
    /// A device is there, but the access reaches past its end.
    PastDevice,
    /// A device is there, but the host does not know what the instruction asks of it: `KVM_EXIT_ARM_NISV`.
    NoSyndrome,
}

impl Unanswered {
    /// The name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDevice => "no-device",
            Self::PastDevice => "past-device",
            Self::NoSyndrome => "no-syndrome",
        }
    }
}

/// The words after the address of the access.
impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDevice => "where there is neither RAM nor a device",
            Self::PastDevice => "past the end of the device there",
            Self::NoSyndrome => "a device, by an instruction whose syndrome does not say what it does",
        })
    }
}

/// A guest's access that no memory and no device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnansweredAccess {
    /// Guest physical address.
    pub gpa: u64,
    /// Size in bytes; `None` without a syndrome.
    pub size: Option<u32>,
    /// The reason.
    pub why: Unanswered,
    /// The part of the ISS about the access: WnR, CM and FnV.
    abort: DataAbort,
}

impl UnansweredAccess {
    /// The access of `KVM_EXIT_MMIO`.
    pub const fn mmio(exit: &MmioExit, why: Unanswered) -> Self {
        let abort = DataAbort { wnr: exit.is_write, ..DataAbort::new(FaultStatus::from_bits(0)) };
        Self { gpa: exit.phys_addr, size: Some(exit.len), why, abort }
    }

    /// The access of `KVM_EXIT_ARM_NISV`.
    pub const fn nisv(exit: &NisvExit, why: Unanswered) -> Self {
        let DataAbort { wnr, cm, fnv, .. } = DataAbort::from_iss(exit.esr_iss as u32);
        let abort = DataAbort { wnr, cm, fnv, ..DataAbort::new(FaultStatus::from_bits(0)) };
        Self { gpa: exit.fault_ipa, size: None, why, abort }
    }

    /// Returns true for a write.
    pub const fn is_write(&self) -> bool {
        self.abort.wnr
    }

    /// The abort for the access: the kernel adds class and fault status. It has no ISS if there is nothing to
    /// say in it, so any kernel can inject it.
    pub(crate) fn injection(&self) -> ExternalAbort {
        match self.abort.iss() {
            0 => Injection::data_abort(),
            _ => Injection::data_abort().iss(self.abort),
        }
    }
}

/// `read of 4 bytes at gpa 0x20000000, where there is neither RAM nor a device`.
impl fmt::Display for UnansweredAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_write() { "write to " } else { "read of " })?;
        if let Some(size) = self.size {
            write!(f, "{size} bytes at ")?;
        }
        write!(f, "gpa {:#x}, {}", self.gpa, self.why)
    }
}

/// The outcome of an unanswered access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnansweredOutcome {
    /// The access.
    pub access: UnansweredAccess,
    /// PC of the instruction, which has not retired.
    pub pc: u64,
    /// The Exception level of the access.
    pub level: ExceptionLevel,
    /// [`Action::Injected`] or [`Action::Stop`].
    pub action: Action,
    /// `Some` if the access is to be reported, with the number of unreported ones before it. A guest can make
    /// any number of them, so at most 16 in 10 s are reported.
    pub told: Option<u64>,
    /// The time from the exit to the end of the injection ([`Now::exited`](crate::Now::exited)).
    pub took: Option<Duration>,
}

/// `read of 4 bytes at gpa 0x20000000, where there is neither RAM nor a device, at EL0, PC 0x401000: data abort, …`.
impl fmt::Display for UnansweredOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at EL{}, PC {:#x}: {}", self.access, self.level as u8, self.pc, self.action)?;
        match self.told {
            Some(untold @ 1..) => write!(f, "; {untold} more before it"),
            _ => Ok(()),
        }
    }
}

/// PC and gpa.
type Key = (u64, u64);

/// A detector of a kernel that does nothing but unanswered accesses; it also bounds the reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats {
    /// The kernel's accesses since the guest last did something else: address, first time and count.
    seen: Vec<(Key, Duration, u32)>,
    /// The times of reported accesses, the oldest first.
    told: VecDeque<Duration>,
    untold: u64,
}

/// [`Repeats`], for a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RepeatsState {
    seen: Vec<(Key, Duration, u32)>,
    told: Vec<Duration>,
    untold: u64,
}

impl Repeats {
    /// The number of accesses told apart: enough for 64 vCPUs that each repeat one forever.
    const MEMORY: usize = 64;
    /// The number of times that the kernel may make the same access within [`Self::PERIOD`] without doing
    /// anything else that the host sees. A handler that returns to the access makes it some hundred thousand
    /// times.
    pub(crate) const LIMIT: u32 = 4096;
    /// The number of reports within [`Self::PERIOD`].
    const TOLD: usize = 16;
    const PERIOD: Duration = Duration::from_secs(10);

    /// The guest did something else.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    /// Notes an access.
    ///
    /// # Errors
    /// [`StopReason::Unanswered`] if the kernel made it too often. A process is for its own kernel to stop.
    pub(crate) fn note(
        &mut self,
        access: &UnansweredAccess,
        pc: u64,
        level: ExceptionLevel,
        now: Duration,
    ) -> Result<(), StopReason> {
        if level == ExceptionLevel::El0 {
            self.forget();
            return Ok(());
        }
        let key = (pc, access.gpa);
        let Some((_, since, times)) = self.seen.iter_mut().find(|(seen, ..)| *seen == key) else {
            if self.seen.len() >= Self::MEMORY {
                self.seen.remove(0);
            }
            self.seen.push((key, now, 1));
            return Ok(());
        };
        if now.saturating_sub(*since) > Self::PERIOD {
            (*since, *times) = (now, 0);
        }
        *times = times.saturating_add(1);
        if *times > Self::LIMIT {
            return Err(StopReason::Unanswered { pc, gpa: access.gpa, why: access.why, times: *times });
        }
        Ok(())
    }

    /// `Some` if an access is to be reported, with the number of unreported ones before it.
    pub(crate) fn tell(&mut self, now: Duration, is_end: bool) -> Option<u64> {
        while self.told.front().is_some_and(|then| now.saturating_sub(*then) > Self::PERIOD) {
            self.told.pop_front();
        }
        if self.told.len() >= Self::TOLD && !is_end {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told.push_back(now);
        Some(std::mem::take(&mut self.untold))
    }

    pub(crate) fn state(&self) -> RepeatsState {
        let Self { seen, told, untold } = self;
        RepeatsState { seen: seen.clone(), told: told.iter().copied().collect(), untold: *untold }
    }

    pub(crate) fn set_state(&mut self, state: &RepeatsState) {
        self.seen = state.seen.iter().take(Self::MEMORY).copied().collect();
        self.told = state.told.iter().take(Self::TOLD + 1).copied().collect();
        self.untold = state.untold;
    }
}
