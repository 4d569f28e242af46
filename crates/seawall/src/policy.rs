//! What to do about a memory error.
//!
//! [`Rules`] is a table with an answer for each kind of error; some tables have names. A VMM with a policy of its own implements
//! [`Policy`].

use seawall_arm::{DataAbort, Esr, InstructionAbort, Syndrome};

use crate::{Injection, MemoryError, StopReason};

/// Decides what a guest gets for a memory error that it consumed. [`Rules`] is one.
pub trait Policy: Send {
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

impl Policy for Box<dyn Policy> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn decide(&self, error: &MemoryError) -> Response {
        (**self).decide(error)
    }
}

/// The abort as it happened: data or instruction, with the ISS that the hardware gave. FnV is kept, so
/// that a guest does not trust a FAR that means nothing; so is the level of a walk. After SIGBUS, which says nothing of
/// all this, the FAR tells a fetch from an access to data.
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

mod rules;

pub use rules::{Answer, BadRule, BadRules, ErrorKind, Rule, Rules};
