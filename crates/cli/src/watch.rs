//! A record of the guest's actions for the loop of the run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seawall::telemetry::{AccessReport, ErrorReport};
use seawall::{Outcome, UnansweredOutcome};
use seawall_vmm::Observer;

/// An action of the guest.
pub(crate) enum Seen {
    /// It wrote this to its console.
    Console(Vec<u8>),
    /// That completed a line.
    Line(String),
    /// It met bad memory.
    MemoryError { report: Box<ErrorReport>, outcome: Outcome },
    /// It made an unanswered access.
    Unanswered { report: Box<AccessReport>, outcome: UnansweredOutcome },
    /// One of its devices met bad memory.
    DeviceError { address: u64 },
}

/// The largest number of bytes that wait to be seen, for a guest on other threads.
const ROOM: usize = 1 << 20;
/// The cost of an action in addition to its text, in bytes.
const EACH: usize = 512;

/// Records the guest's actions in order. Everything except part of a line makes the software machine pause,
/// so that its time is known and the loop can react at that very instruction.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    /// True if the guest waits while there is no room.
    waits: bool,
}

#[derive(Default)]
struct Shared {
    noted: Mutex<Noted>,
    changed: Condvar,
}

#[derive(Default)]
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "aarch64")),
    allow(dead_code, reason = "only on KVM a guest has other threads")
)]
struct Noted {
    seen: Vec<Seen>,
    /// The cost of `seen` in bytes.
    size: usize,
    is_woken: bool,
    is_closed: bool,
}

impl Watch {
    /// Takes the actions since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        let mut noted = self.noted();
        noted.size = 0;
        self.shared.changed.notify_all();
        std::mem::take(&mut noted.seen)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, size: usize, add: impl FnOnce(&mut Vec<Seen>)) {
        let mut noted = self.noted();
        add(&mut noted.seen);
        noted.size += size;
        self.shared.changed.notify_all();
        while self.waits && noted.size > ROOM && !noted.is_closed {
            noted = self.shared.changed.wait(noted).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// For a guest on threads other than the loop's.
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "aarch64")),
    allow(dead_code, reason = "only on KVM a guest has other threads")
)]
impl Watch {
    /// The same watch for the guest's threads: they wait when more than a MiB is unseen.
    pub(crate) fn for_other_threads(&self) -> Self {
        Self { shared: self.shared.clone(), waits: true }
    }

    /// Waits until there is an action or somebody [wakes](Self::wake) this, but at most for `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let (mut noted, until) = (self.noted(), Instant::now() + limit);
        while noted.seen.is_empty() && !noted.is_woken {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(noted, left);
            noted = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        noted.is_woken = false;
    }

    /// Ends the current [wait](Self::wait), or the next.
    pub(crate) fn wake(&self) {
        self.noted().is_woken = true;
        self.shared.changed.notify_all();
    }

    /// From now on no thread waits for room.
    pub(crate) fn close(&self) {
        self.noted().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.note(bytes.len(), |seen| match seen.last_mut() {
            Some(Seen::Console(before)) => before.extend_from_slice(bytes),
            _ => seen.push(Seen::Console(bytes.to_vec())),
        });
    }

    fn line(&mut self, line: &str) {
        self.note(EACH + line.len(), |seen| seen.push(Seen::Line(line.to_owned())));
    }

    fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
        let report = Box::new(report.clone());
        self.note(EACH, |seen| seen.push(Seen::MemoryError { report, outcome: *outcome }));
    }

    fn unanswered_access(&mut self, report: &AccessReport, outcome: &UnansweredOutcome) {
        let report = Box::new(report.clone());
        self.note(EACH, |seen| seen.push(Seen::Unanswered { report, outcome: *outcome }));
    }

    fn device_error(&mut self, address: u64) {
        self.note(EACH, |seen| seen.push(Seen::DeviceError { address }));
    }

    fn wants_pause(&mut self) -> bool {
        self.noted().seen.iter().any(|seen| !matches!(seen, Seen::Console(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The console's bytes among these actions.
    fn bytes(seen: &[Seen]) -> usize {
        seen.iter().map(|seen| if let Seen::Console(bytes) = seen { bytes.len() } else { 0 }).sum()
    }

    #[test]
    fn a_guest_on_another_thread_writes_no_faster_than_somebody_sees_it() {
        let watch = Watch::default();
        let mut guest = watch.for_other_threads();
        let writes = thread::spawn(move || (0..40).for_each(|_| guest.console(&vec![b'x'; 1 << 18])));
        let mut total = 0;
        while total < 40 << 18 {
            watch.wait(Duration::from_secs(60));
            let seen = bytes(&watch.take());
            assert!((1 << 18..=5 << 18).contains(&seen), "{seen}");
            total += seen;
        }
        writes.join().unwrap();
    }

    #[test]
    fn a_closed_watch_lets_the_guest_go_and_keeps_what_it_wrote() {
        let watch = Watch::default();
        let mut guest = watch.for_other_threads();
        let writes = thread::spawn(move || (0..8).for_each(|_| guest.console(&vec![b'x'; 1 << 20])));
        watch.wait(Duration::from_secs(60));
        watch.close();
        writes.join().unwrap();
        assert_eq!(bytes(&watch.take()), 8 << 20);
    }

    #[test]
    fn a_wake_that_nobody_waited_for_ends_the_next_wait() {
        let watch = Watch::default();
        watch.wake();
        watch.wait(Duration::from_secs(3600));
    }
}
