//! A guest's words on its console, and the memory errors that it met.
//!
//! A service says `NAME: alive N`, N rising, with any text behind it that does not depend on time; `workload: NAME ended:
//! WHY` when it is no more; and `wrong result` when what it computed is not what must be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall::Outcome;
use seawall::telemetry::ErrorReport;
use seawall_vmm::Observer;
use serde::{Deserialize, Serialize};

use crate::page_use::Printed;

const PANIC: &str = "Kernel panic - not syncing";
const WRONG: &str = "wrong result";
/// What Linux says on an oops, and of a bug that it lives with (arch/arm64/kernel/traps.c, lib/bug.c, kernel/panic.c).
const COMPLAINTS: [&str; 4] = ["Internal error: ", "Unable to handle kernel", "kernel BUG at", "BUG: "];
/// Lines kept of a guest that is replayed.
const MOST_LINES: usize = 100_000;

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its last sign of life.
    pub(crate) last: u64,
    /// What it said beside a sign of life, by its number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) said: BTreeMap<u64, String>,
    /// Why it is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<String>,
}

/// The first memory error that the guest met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstError {
    /// The machine's time.
    pub(crate) time: u64,
    pub(crate) pc: u64,
}

/// The observations.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) services: BTreeMap<String, Service>,
    /// The kernel complained, and went on.
    pub(crate) complaint: Option<String>,
    pub(crate) panic: Option<String>,
    pub(crate) wrong: Option<String>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<FirstError>,
    /// A device met bad memory.
    pub(crate) device_errors: u64,
    pub(crate) printed: Printed,
    /// A line with this text is waited for.
    pub(crate) awaited: Option<String>,
    pub(crate) has_come: bool,
    /// The last line that says something.
    pub(crate) last: String,
    /// Keep all that is said.
    pub(crate) keeps: bool,
    pub(crate) lines: Vec<String>,
}

impl Seen {
    fn line(&mut self, line: &str) {
        if self.keeps && self.lines.len() < MOST_LINES {
            self.lines.push(line.to_owned());
        }
        if !line.trim().is_empty() {
            line.clone_into(&mut self.last);
        }
        self.has_come |= self.awaited.as_ref().is_some_and(|text| line.contains(text));
        self.printed.line(line);
        if let Some(rest) = line.strip_prefix("workload: ") {
            if let Some((name, why)) = rest.split_once(" ended: ") {
                self.service(name).ended = Some(why.to_owned());
            }
            self.wrong_in(line);
            return;
        }
        if let Some((name, number, said)) = sign_of_life(line) {
            let service = self.service(name);
            service.last = service.last.max(number);
            if !said.is_empty() {
                service.said.insert(number, said.to_owned());
            }
            return;
        }
        self.wrong_in(line);
        if self.panic.is_none() && line.contains(PANIC) {
            self.panic = line.find(PANIC).and_then(|at| line.get(at..)).map(str::to_owned);
        }
        if self.complaint.is_none() && COMPLAINTS.iter().any(|text| line.contains(text)) {
            self.complaint = Some(line.to_owned());
        }
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.services.entry(name.to_owned()).or_default()
    }

    fn wrong_in(&mut self, line: &str) {
        if self.wrong.is_none() && line.contains(WRONG) {
            self.wrong = Some(line.to_owned());
        }
    }
}

/// Name, number, and what is said beside.
fn sign_of_life(line: &str) -> Option<(&str, u64, &str)> {
    let (name, rest) = line.split_once(": alive ")?;
    let (number, said) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name.then_some((name, number.parse().ok()?, said))
}

/// The observer: clones see the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Seen>>);

impl Watch {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on; `keeps` all that is said.
    pub(crate) fn begin(&self, keeps: bool) {
        *self.seen() = Seen { keeps, ..Seen::default() };
    }
}

impl Observer for Watch {
    fn line(&mut self, line: &str) {
        self.seen().line(line);
    }

    fn memory_error(&mut self, report: &ErrorReport, _outcome: &Outcome) {
        let mut seen = self.seen();
        seen.errors += 1;
        if seen.keeps {
            let text = format!("seawall: {report}");
            seen.lines.push(text);
        }
        let time = report.guest_time_ns.unwrap_or_default();
        seen.first_error.get_or_insert(FirstError { time, pc: report.pc.0 });
    }

    fn device_error(&mut self, address: u64) {
        let mut seen = self.seen();
        seen.device_errors += 1;
        if seen.keeps {
            seen.lines.push(format!("seawall: a device read bad memory at {address:#x}"));
        }
    }

    fn wants_pause(&mut self) -> bool {
        let seen = self.seen();
        seen.has_come || seen.panic.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str]) -> Seen {
        let mut seen = Seen::default();
        for line in lines {
            seen.line(line);
        }
        seen
    }

    #[test]
    fn services_are_known_by_their_signs_of_life_and_by_how_they_ended() {
        let seen = seen(&[
            "web: alive 1",
            "web: alive 2 sum=7",
            "shared-a: alive 10",
            "workload: shared-a ended: SIGBUS",
            "no service: alive 3",
            "web: alive x",
        ]);
        let web = &seen.services["web"];
        assert_eq!((web.last, web.said.get(&2).map(String::as_str), &web.ended), (2, Some("sum=7"), &None));
        assert_eq!(seen.services["shared-a"].ended.as_deref(), Some("SIGBUS"));
        assert_eq!(seen.services.len(), 2);
    }

    #[test]
    fn panics_complaints_and_wrong_results_are_told_apart() {
        let seen = seen(&[
            "[    1.0] Internal error: synchronous external abort: 0000000096000010 [#1]  SMP",
            "[    1.1] Kernel panic - not syncing: Asynchronous SError Interrupt",
            "workload: web ended: wrong result",
        ]);
        assert!(seen.complaint.is_some());
        assert_eq!(seen.panic.as_deref(), Some("Kernel panic - not syncing: Asynchronous SError Interrupt"));
        assert_eq!(seen.wrong.as_deref(), Some("workload: web ended: wrong result"));
    }
}
