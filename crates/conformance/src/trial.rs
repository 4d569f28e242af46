//! One scenario as it runs: what it looked at, and what was not as expected.

use std::fmt::Debug;
use std::sync::Arc;

use seawall_events::VcpuEvents;
use seawall_inject::{Delivery, Exit};
use serde::Serialize;

use crate::backend::{Backend, Capability, Error, Interrupt, Setup};
use crate::guest::{Guest, Taken};

/// A thing that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Which of the scenario's cases; empty if it has only one.
    pub case: String,
    /// What was looked at.
    pub field: String,
    /// What the rule, or the measurement, says.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// Why a scenario ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It cannot go on: a call failed that had to succeed.
    Error(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error.to_string())
    }
}

/// What a scenario returns; mismatches are in its [`Trial`].
pub(crate) type Outcome = Result<(), Stop>;

/// A scenario's way to the backend, and its notebook.
pub(crate) struct Trial {
    backend: Arc<dyn Backend>,
    interrupt: Arc<Interrupt>,
    case: String,
    mismatches: Vec<Mismatch>,
}

impl Trial {
    pub(crate) fn new(backend: Arc<dyn Backend>, interrupt: Arc<Interrupt>) -> Self {
        Self { backend, interrupt, case: String::new(), mismatches: Vec::new() }
    }

    pub(crate) fn into_mismatches(self) -> Vec<Mismatch> {
        self.mismatches
    }

    /// A guest of its own. Each is a new VM.
    pub(crate) fn guest(&self, setup: Setup) -> Result<Guest, Stop> {
        let vm = self.backend.create(&setup, Arc::clone(&self.interrupt))?;
        Guest::new(vm, setup)
    }

    /// Whether the backend has this: where a rule is another one without it.
    pub(crate) fn offers(&self, capability: Capability) -> bool {
        self.backend.offers(capability).is_ok()
    }

    /// Names the case that the next checks belong to.
    pub(crate) fn case(&mut self, case: impl Into<String>) {
        self.case = case.into();
    }

    fn mismatch(&mut self, field: &str, got: String, expected: String) {
        self.mismatches.push(Mismatch { case: self.case.clone(), field: field.to_owned(), expected, got });
    }

    /// A number of 64 bits, shown in hex.
    pub(crate) fn hex(&mut self, field: &str, got: u64, expected: u64) {
        if got != expected {
            self.mismatch(field, format!("{got:#x}"), format!("{expected:#x}"));
        }
    }

    /// Anything else that can be compared, numbers in it shown in hex.
    pub(crate) fn same<T: Debug + PartialEq>(&mut self, field: &str, got: &T, expected: &T) {
        if got != expected {
            self.mismatch(field, format!("{got:x?}"), format!("{expected:x?}"));
        }
    }

    /// A call's result: 0 for success, or the errno.
    pub(crate) fn errno<T>(&mut self, call: &str, got: Result<T, Error>, expected: i32) -> Outcome {
        let number = match got {
            Ok(_) => 0,
            Err(Error::Errno { number, .. }) => number,
            Err(Error::Other(text)) => return Err(Stop::Error(text)),
        };
        if number != expected {
            let words = |n| if n == 0 { "success".to_owned() } else { format!("errno {n}") };
            self.mismatch(call, words(number), words(expected));
        }
        Ok(())
    }

    /// The next exit of the guest.
    pub(crate) fn exit(&mut self, guest: &mut Guest, expected: &Exit) -> Outcome {
        let got = guest.run()?;
        self.same("exit", &got, expected);
        if got == *expected { Ok(()) } else { Err(Stop::Error("the guest did not get there".into())) }
    }

    /// Injects, and looks at what became of the abort, if there is one.
    pub(crate) fn inject(&mut self, guest: &mut Guest, events: &VcpuEvents) -> Outcome {
        let delivery = guest.inject(events)?;
        if events.ext_dabt_pending || events.ext_iabt_pending {
            let delivered = matches!(delivery, Delivery::AtVector { .. });
            self.same("the abort was delivered", &delivered, &true);
        }
        Ok(())
    }

    /// The vCPU is at the first instruction of its handler, as `KVM_GET_ONE_REG` shows it.
    pub(crate) fn taken(&mut self, guest: &Guest, expected: &Taken) -> Outcome {
        let got = guest.taken(expected.level)?;
        let rows = [
            ("PC", got.pc, expected.pc),
            ("PSTATE", got.pstate, expected.pstate),
            ("ESR", got.esr, expected.esr),
            ("FAR", got.far, expected.far),
            ("ELR", got.elr, expected.elr),
            ("SPSR", got.spsr, expected.spsr),
        ];
        for (field, got, expected) in rows {
            self.hex(field, got, expected);
        }
        Ok(())
    }

    /// The guest's own handler runs, and what it reads of its registers is what was [`Trial::taken`].
    pub(crate) fn handled(&mut self, guest: &mut Guest, expected: &Taken) -> Outcome {
        let got = guest.handler_report()?;
        let rows = [
            ("vector, by the guest's handler", got.vector, expected.pc),
            ("ESR, by the guest's handler", got.esr, expected.esr),
            ("FAR, by the guest's handler", got.far, expected.far),
            ("ELR, by the guest's handler", got.elr, expected.elr),
            ("SPSR, by the guest's handler", got.spsr, expected.spsr),
            ("DAIF, by the guest's handler", got.daif, expected.pstate & 0x3c0),
        ];
        for (field, got, expected) in rows {
            self.hex(field, got, expected);
        }
        Ok(())
    }

    /// Both: the state at entry, then the handler's own report.
    pub(crate) fn delivered(&mut self, guest: &mut Guest, expected: &Taken) -> Outcome {
        self.taken(guest, expected)?;
        self.handled(guest, expected)
    }
}
