//! The runner of scenarios: each has its own thread and a time limit, and every outcome becomes a line in the
//! report.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::backend::{Backend, Capability, Interrupt};
use crate::trial::{Mismatch, Outcome, Stop, Trial};

/// The time limit of a scenario. Under an emulated host most take a hundredth of it.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The interval between kicks of a run that is to end.
const TICK: Duration = Duration::from_millis(5);

/// A guest program, an action on it, and the expected result.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Capability],
    pub(crate) body: fn(&mut Trial) -> Outcome,
}

impl Scenario {
    /// The scenario's group.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The rule that it shows, a sentence with underscores, unique within its group.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The features that it needs.
    pub fn needs(&self) -> &'static [Capability] {
        self.needs
    }

    /// Returns true if `GROUP::NAME` contains one of the filters, or if there are none.
    pub fn matches(&self, filters: &[String]) -> bool {
        let id = self.to_string();
        filters.is_empty() || filters.iter().any(|filter| id.contains(filter))
    }
}

impl fmt::Display for Scenario {
    /// `GROUP::NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scenario({self})")
    }
}

/// The outcome of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "result")]
pub enum Verdict {
    /// Everything was as expected.
    #[serde(rename = "pass")]
    Passed,
    /// Something was not as expected.
    #[serde(rename = "fail")]
    Failed {
        /// Each mismatch.
        mismatches: Vec<Mismatch>,
        /// The reason for an early end, if there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        stopped: Option<String>,
    },
    /// The backend lacks a feature.
    #[serde(rename = "skip")]
    Skipped {
        /// The reason.
        reason: String,
    },
}

/// A scenario and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The scenario's group.
    pub group: &'static str,
    /// The scenario's name.
    pub name: &'static str,
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The number of scenarios by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Everything was as expected.
    pub passed: usize,
    /// Something was not as expected.
    pub failed: usize,
    /// Not run.
    pub skipped: usize,
}

impl Totals {
    /// Counts one more outcome.
    pub fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed { .. } => self.failed += 1,
            Verdict::Skipped { .. } => self.skipped += 1,
        }
    }
}

/// Runs one scenario. After `limit` its runs are ended; if it has not returned in twice that time it is
/// abandoned, with everything that it hangs in. A panic in it is a failure.
pub fn run(backend: &Arc<dyn Backend>, scenario: &Scenario, limit: Duration) -> Entry {
    let missing = scenario.needs.iter().find_map(|need| backend.offers(*need).err());
    let verdict = match missing {
        Some(reason) => Verdict::Skipped { reason },
        None => attempt(backend, scenario.body, limit),
    };
    Entry { group: scenario.group, name: scenario.name, verdict }
}

/// A scenario's mismatches and outcome, or its panic message.
type Attempt = Result<(Vec<Mismatch>, Outcome), String>;

fn attempt(backend: &Arc<dyn Backend>, body: fn(&mut Trial) -> Outcome, limit: Duration) -> Verdict {
    let interrupt = Arc::new(Interrupt::default());
    let mut trial = Trial::new(Arc::clone(backend), Arc::clone(&interrupt));
    let (tell, told) = channel();
    let spawned = thread::Builder::new().name("scenario".into()).spawn(move || {
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let outcome = body(&mut trial);
            (trial.into_mismatches(), outcome)
        }));
        // If the time was over, nobody receives this.
        let _ = tell.send(attempt.map_err(|panic| panic_text(&*panic)));
    });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => return stopped(format!("no thread for it: {error}")),
    };
    let started = Instant::now();
    loop {
        match told.recv_timeout(TICK) {
            Ok(attempt) => {
                // The scenario's VM is gone before the next begins: bad memory is healed by then.
                let _ = thread.join();
                return verdict(attempt, interrupt.is_expired().then_some(limit));
            }
            Err(RecvTimeoutError::Disconnected) => return stopped("its thread vanished".into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if started.elapsed() > limit {
            interrupt.expire();
        }
        if started.elapsed() > limit * 2 {
            return stopped(format!("it does not come back, {:?}", limit * 2));
        }
        if interrupt.is_wanted() {
            backend.kick(&thread);
        }
    }
}

fn verdict(attempt: Attempt, expired: Option<Duration>) -> Verdict {
    match attempt {
        Ok((mismatches, Ok(()))) if mismatches.is_empty() => Verdict::Passed,
        Ok((mismatches, Ok(()))) => Verdict::Failed { mismatches, stopped: None },
        Ok((mismatches, Err(Stop::Error(text)))) => {
            let late = expired.map_or(String::new(), |limit| format!(" (after {limit:?})"));
            Verdict::Failed { mismatches, stopped: Some(text + &late) }
        }
        Err(panic) => stopped(format!("panicked: {panic}")),
    }
}

fn stopped(text: String) -> Verdict {
    Verdict::Failed { mismatches: Vec::new(), stopped: Some(text) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
