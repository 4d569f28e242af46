//! A running scenario: its checks, and the mismatches.

use std::fmt::Debug;
use std::sync::Arc;

use seawall_events::VcpuEvents;
use seawall_inject::{Delivery, Exit};
use serde::Serialize;

use crate::backend::{Backend, Capability, Error, Interrupt, Setup};
use crate::guest::{Guest, Taken};

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The scenario's case; empty if it has only one.
    pub case: String,
    /// The checked value.
    pub field: String,
    /// The value by the rule, or by the measurement.
    pub expected: String,
    /// The value found.
    pub got: String,
}

/// The reason for a scenario's early end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It cannot go on: a call that had to succeed failed.
    Error(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error.to_string())
    }
}

/// The result of a scenario; its [`Trial`] holds the mismatches.
pub(crate) type Outcome = Result<(), Stop>;

/// A scenario's access to the backend, and its mismatches.
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

    /// A new guest, in a new VM.
    pub(crate) fn guest(&self, setup: Setup) -> Result<Guest, Stop> {
        let vm = self.backend.create(&setup, Arc::clone(&self.interrupt))?;
        Guest::new(vm, setup)
    }

    /// Returns true if the backend has this feature, for rules that differ without it.
    pub(crate) fn offers(&self, capability: Capability) -> bool {
        self.backend.offers(capability).is_ok()
    }

    /// Names the case of the next checks.
    pub(crate) fn case(&mut self, case: impl Into<String>) {
        self.case = case.into();
    }

    fn mismatch(&mut self, field: &str, got: String, expected: String) {
        self.mismatches.push(Mismatch { case: self.case.clone(), field: field.to_owned(), expected, got });
    }

    /// Checks a number of 64 bits, shown in hex.
    pub(crate) fn hex(&mut self, field: &str, got: u64, expected: u64) {
        if got != expected {
            self.mismatch(field, format!("{got:#x}"), format!("{expected:#x}"));
        }
    }

    /// Checks any other value, with its numbers shown in hex.
    pub(crate) fn same<T: Debug + PartialEq>(&mut self, field: &str, got: &T, expected: &T) {
        if got != expected {
            self.mismatch(field, format!("{got:x?}"), format!("{expected:x?}"));
        }
    }

    /// Checks a call's result: 0 for success, or the errno.
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

    /// Checks the next exit of the guest.
    pub(crate) fn exit(&mut self, guest: &mut Guest, expected: &Exit) -> Outcome {
        let got = guest.run()?;
        self.same("exit", &got, expected);
        if got == *expected { Ok(()) } else { Err(Stop::Error("the guest did not get there".into())) }
    }

    /// Injects, and checks the delivery of the abort, if there is one.
    pub(crate) fn inject(&mut self, guest: &mut Guest, events: &VcpuEvents) -> Outcome {
        let delivery = guest.inject(events)?;
        if events.ext_dabt_pending || events.ext_iabt_pending {
            let delivered = matches!(delivery, Delivery::AtVector { .. });
            self.same("the abort was delivered", &delivered, &true);
        }
        Ok(())
    }

    /// Checks that the vCPU is at the first instruction of its handler, by `KVM_GET_ONE_REG`.
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

    /// Runs the guest's own handler, and checks that it reads the same registers as [`Trial::taken`] expects.
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

    /// Checks both: the state at entry, then the handler's own report.
    pub(crate) fn delivered(&mut self, guest: &mut Guest, expected: &Taken) -> Outcome {
        self.taken(guest, expected)?;
        self.handled(guest, expected)
    }
}
