//! An access that nobody answers: no memory error, and yet an external abort, as the bus of a real system gives one.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use seawall_arm::{DataAbort, ExceptionLevel, FaultStatus};
use seawall_events::{MmioExit, NisvExit};

use crate::{Action, ExternalAbort, Injection, StopReason};

/// Why nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Unanswered {
    /// There is neither RAM nor a device.
    NoDevice,
    /// There is a device, and the access reaches past its end.
    PastDevice,
    /// There is a device, and the host does not know what the instruction asks of it: `KVM_EXIT_ARM_NISV`.
    NoSyndrome,
}

impl Unanswered {
    /// Its name, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDevice => "no-device",
            Self::PastDevice => "past-device",
            Self::NoSyndrome => "no-syndrome",
        }
    }
}

/// The words that follow the address of the access.
impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDevice => "where there is neither RAM nor a device",
            Self::PastDevice => "past the end of the device there",
            Self::NoSyndrome => "a device, by an instruction whose syndrome does not say what it does",
        })
    }
}

/// An access of a guest that nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnansweredAccess {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes; without a syndrome it is not known.
    pub size: Option<u32>,
    /// Why nobody answers.
    pub why: Unanswered,
    /// What the ISS says of it: WnR, CM and FnV.
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

    /// Whether it is a write.
    pub const fn is_write(&self) -> bool {
        self.abort.wnr
    }

    /// The abort that it gets: the kernel adds class and fault status. Without an ISS, if there is nothing to say in it,
    /// which any kernel can do.
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

/// What was done about an access that nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnansweredOutcome {
    /// The access.
    pub access: UnansweredAccess,
    /// PC of the instruction, which has not retired.
    pub pc: u64,
    /// At which Exception level.
    pub level: ExceptionLevel,
    /// [`Action::Injected`] or [`Action::Stop`].
    pub action: Action,
    /// Whether it is to be told of, and then how many before it were not: a guest can make as many as it likes, so at
    /// most 16 in 10 s are told of.
    pub told: Option<u64>,
    /// From the exit until the injection was done ([`Now::exited`](crate::Now::exited)).
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

/// Notices a kernel that does nothing but make accesses that nobody answers, and bounds what is told of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats {
    /// The accesses of the kernel since the guest last did something else: which, since when, and how often.
    seen: Vec<(Key, Duration, u32)>,
    /// When accesses were told of, the oldest first.
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
    /// As many accesses are told apart at most: one that each of 64 vCPUs makes for ever.
    const MEMORY: usize = 64;
    /// How often the kernel may make the same access within [`Self::PERIOD`] without doing anything else that the host
    /// sees. A handler that returns to the access makes it some hundred thousand times.
    pub(crate) const LIMIT: u32 = 4096;
    /// So many are told of within [`Self::PERIOD`].
    const TOLD: usize = 16;
    const PERIOD: Duration = Duration::from_secs(10);

    /// The guest did something else.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    /// Takes note of an access.
    ///
    /// # Errors
    /// [`StopReason::Unanswered`] if the kernel made it too often. A process is its kernel's to stop.
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

    /// Whether an access is to be told of, and then how many before it were not.
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
