//! An observer of a guest: it collects its output and its errors, and turns memory bad on request.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use seawall::Outcome;
use seawall::telemetry::ErrorReport;
use seawall_kvm::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use seawall_lab_machine::{PoisonRegister, physical_address};
use seawall_vmm::Observer;

use crate::report;

/// The way in which requested memory goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Road {
    /// By the poison register, once this many requests have come: all at once.
    Register(usize),
    /// The same after a delay, so that the processes do nothing but their loads by then.
    Later(usize, Duration),
    /// By `MADV_HWPOISON`: the host knows the page to be bad, and gives SIGBUS.
    Host,
}

/// The findings of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) lines: Vec<String>,
    /// The vCPU and the outcome of each error.
    pub(crate) outcomes: Vec<(u32, Outcome)>,
    /// The requested guest physical ranges: address and bytes.
    pub(crate) bad: Vec<(u64, u64)>,
    /// The time at which the last of them went bad.
    pub(crate) since: Option<Instant>,
    /// The reason why the run is not valid.
    pub(crate) failure: Option<String>,
}

/// The observer; clones share their state.
#[derive(Clone)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    /// The memory, set once the machine is made.
    memory: Arc<OnceLock<GuestMemoryMmap>>,
    road: Road,
    /// The time for which the vCPU with the first error is held, so that others meet the same page meanwhile.
    hold: Duration,
}

impl Watch {
    pub(crate) fn new(road: Road, hold: Duration) -> Self {
        Self { seen: Arc::default(), memory: Arc::default(), road, hold }
    }

    pub(crate) fn set_memory(&self, memory: &GuestMemoryMmap) {
        let _ = self.memory.set(memory.clone());
    }

    /// Takes the findings.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn_bad(&self, gpa: u64, size: u64) -> Result<(), String> {
        let memory = self.memory.get().ok_or("there is no memory yet")?;
        match self.road {
            Road::Host => {
                let host =
                    memory.get_host_address(GuestAddress(gpa)).map_err(|error| error.to_string())? as u64;
                seawall_host::hwpoison(host..host + 1).map_err(|error| error.to_string())
            }
            Road::Register(_) | Road::Later(..) => {
                let mut register = PoisonRegister::open().map_err(|error| error.to_string())?;
                poison(&mut register, memory, gpa, size)
            }
        }
    }

    /// Turns requested memory bad, if it is time.
    fn serve(&self) {
        let asked = self.seen().bad.clone();
        let due: BTreeSet<(u64, u64)> = match self.road {
            Road::Host | Road::Register(0 | 1) => asked.last().copied().into_iter().collect(),
            Road::Register(count) | Road::Later(count, _) if asked.len() == count => {
                asked.into_iter().collect()
            }
            Road::Register(_) | Road::Later(..) => BTreeSet::new(),
        };
        match self.road {
            Road::Later(_, delay) => {
                let watch = self.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    watch.turn_all_bad(due);
                });
            }
            _ => self.turn_all_bad(due),
        }
    }

    fn turn_all_bad(&self, due: BTreeSet<(u64, u64)>) {
        for (gpa, size) in due {
            let done = self.turn_bad(gpa, size);
            let mut seen = self.seen();
            seen.since = Some(Instant::now());
            if let Err(error) = done {
                seen.failure = Some(format!("{gpa:#x} could not be made bad: {error}"));
            }
        }
    }
}

/// The time limit for a page to return to this process's tables. The host removes it to split a huge page
/// that contains another bad one.
const ABSENCE: Duration = Duration::from_secs(1);

/// Turns guest memory bad by the poison register. It must go back to the host good, which the register's
/// healing ensures.
pub(crate) fn poison(
    register: &mut PoisonRegister,
    memory: &GuestMemoryMmap,
    gpa: u64,
    size: u64,
) -> Result<(), String> {
    let host = memory.get_host_address(GuestAddress(gpa)).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let physical = loop {
        match physical_address(host as u64) {
            Err(_) if start.elapsed() < ABSENCE => std::thread::sleep(Duration::from_millis(1)),
            found => break found,
        }
    };
    physical.and_then(|physical| register.poison(physical, size)).map_err(|error| error.to_string())
}

impl Observer for Watch {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let request = report::request(line);
        let mut seen = self.seen();
        seen.lines.push(line.to_owned());
        seen.bad.extend(request);
        drop(seen);
        if request.is_some() {
            self.serve();
        }
    }

    fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
        let is_first = {
            let mut seen = self.seen();
            seen.outcomes.push((report.vcpu, *outcome));
            seen.outcomes.len() == 1
        };
        if is_first {
            std::thread::sleep(self.hold);
        }
    }
}
