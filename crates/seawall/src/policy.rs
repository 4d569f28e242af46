//! Policies for memory errors.
//!
//! [`Rules`] is a table with an answer for each kind of error; some tables have names. A VMM with its own
//! policy implements [`Policy`].

use seawall_arm::{DataAbort, Esr, InstructionAbort, Syndrome};

use crate::{Injection, MemoryError, StopReason};

/// Decides how a guest is told of a memory error that it consumed. [`Rules`] implements it.
pub trait Policy: Send {
    /// The name by which people select it.
    fn name(&self) -> &'static str;

    /// The response to an error.
    fn decide(&self, error: &MemoryError) -> Response;
}

/// A policy's response to a memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// Tell the guest by this injection.
    Inject(Injection),
    /// Try the host first: if it can restore the memory with its content (from a copy that is known to be
    /// current), the guest goes on and never notices. Otherwise inject this.
    HostFirst(Injection),
    /// Do not run the guest again.
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

/// The abort as it happened: data or instruction, with the ISS of the hardware. FnV stays, so that the guest
/// does not trust a meaningless FAR; so does the level of a walk. SIGBUS carries none of this; then the FAR
/// tells a fetch from a data access.
fn replay(error: &MemoryError) -> Injection {
    match error.esr.map(Esr::syndrome) {
        Some(Syndrome::InstructionAbort(abort)) => {
            Injection::instruction_abort().iss(replay_instruction(&abort)).into()
        }
        Some(Syndrome::DataAbort(abort)) => Injection::data_abort().iss(replay_data(&abort)).into(),
        // Not an abort: KVM's SEA exits never report this class. There is nothing to replay.
        Some(_) => Injection::serror().into(),
        None => Injection::abort_by_far().into(),
    }
}

/// FnV, EA, SET, WnR, CM and the fault status: the fields of a SEA exit.
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
