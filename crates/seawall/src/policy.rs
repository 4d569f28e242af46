//! What to do about a memory error.
//!
//! [`Rules`] is for operators: a table with an answer for each kind of error. [`Full`], [`Mainline`] and [`SError`] have
//! one answer for all.

use seawall_arm::{DataAbort, Esr, InstructionAbort, Syndrome};

use crate::{Injection, MemoryError, StopReason};

/// Decides what a guest gets for a memory error that it consumed.
pub trait Policy {
    /// The name by which people choose it.
    fn name(&self) -> &'static str;

    /// What is to be done.
    fn decide(&self, error: &MemoryError) -> Response;
}

/// What a policy wants done about a memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// The guest is told: this is injected.
    Inject(Injection),
    /// The host first: if it can put memory there with what was in it (it has a copy that is known to be current), the
    /// guest goes on and never knows. Else this is injected.
    HostFirst(Injection),
    /// The guest is not run again.
    Stop(StopReason),
}

impl<I: Into<Injection>> From<I> for Response {
    fn from(injection: I) -> Self {
        Self::Inject(injection.into())
    }
}

impl<P: Policy + ?Sized> Policy for &P {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn decide(&self, error: &MemoryError) -> Response {
        (**self).decide(error)
    }
}

/// What KVM does when nobody handles the error: an SError without an ESR. Linux panics on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SError;

impl Policy for SError {
    fn name(&self) -> &'static str {
        "serror"
    }

    fn decide(&self, _: &MemoryError) -> Response {
        Injection::serror().into()
    }
}

/// What user space can ask of a stock kernel: a data abort without an ESR, whatever happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mainline;

impl Policy for Mainline {
    fn name(&self) -> &'static str {
        "mainline"
    }

    fn decide(&self, _: &MemoryError) -> Response {
        Injection::data_abort().into()
    }
}

/// The abort as it happened: data or instruction, with the ISS that the hardware gave. FnV is kept, so
/// that a guest does not trust a FAR that means nothing; so is the level of a walk. After SIGBUS, which says nothing of
/// all this, the FAR tells a fetch from an access to data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Full;

impl Policy for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn decide(&self, error: &MemoryError) -> Response {
        replay(error).into()
    }
}

/// The abort as it happened.
fn replay(error: &MemoryError) -> Injection {
    match error.esr.map(Esr::syndrome) {
        Some(Syndrome::InstructionAbort(abort)) => {
            Injection::instruction_abort().iss(replay_instruction(&abort)).into()
        }
        Some(Syndrome::DataAbort(abort)) => Injection::data_abort().iss(replay_data(&abort)).into(),
        // Not an abort: no SEA exit of KVM's says so. There is nothing to replay.
        Some(_) => Injection::serror().into(),
        None => Injection::abort_by_far().into(),
    }
}

/// FnV, EA, SET, WnR, CM and the fault status: what a SEA exit gives.
fn replay_data(abort: &DataAbort) -> DataAbort {
    DataAbort {
        set: abort.set,
        fnv: abort.fnv,
        ea: abort.ea,
        cm: abort.cm,
        wnr: abort.wnr,
        ..DataAbort::new(abort.dfsc)
    }
}

/// FnV, EA, SET and the fault status.
fn replay_instruction(abort: &InstructionAbort) -> InstructionAbort {
    InstructionAbort { set: abort.set, fnv: abort.fnv, ea: abort.ea, ..InstructionAbort::new(abort.ifsc) }
}

/// The policy with this name: `rules` (the default ones), `serror`, `mainline` or `full`.
pub fn builtin(name: &str) -> Option<&'static dyn Policy> {
    const ALL: [&dyn Policy; 4] = [&Rules::DEFAULT, &SError, &Mainline, &Full];
    ALL.into_iter().find(|policy| policy.name() == name)
}

mod rules;

pub use rules::{Answer, BadRule, ErrorKind, Rule, Rules};
