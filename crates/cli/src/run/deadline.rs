//! `--timeout`: a clock of its own, because a guest, a device or a file may never come to an end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::keyboard;
use crate::{exit, out};

/// The extra time for loading, or for a write that nobody reads, after the time is over. It is also the
/// interval of checks.
const WAITING: Duration = Duration::from_millis(40);
/// The number of checks that a run without a pending write may take to return. It does so within a few
/// milliseconds on a host with a free core.
const LOOKS: u32 = 100;
/// The time that the last messages may wait for a reader.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The end of a run's time, counted from the creation of this.
pub(super) struct Deadline {
    started: Instant,
    limit: Option<Duration>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Ends the run. `None` while the guest is being loaded.
    end: Option<Box<dyn Fn() + Send>>,
    /// True once the run returned, or does not need this any more.
    is_seen: bool,
}

impl Deadline {
    /// # Errors
    /// If the host has no thread for it.
    pub(super) fn new(limit: Option<Duration>) -> std::io::Result<Self> {
        let (started, shared) = (Instant::now(), Arc::new(Shared::default()));
        if let Some(limit) = limit {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("timeout".to_owned())
                .spawn(move || shared.watch(started, limit))?;
        }
        Ok(Self { started, limit, shared })
    }

    /// Sets the way to end the run, which makes it check the time.
    pub(super) fn ends_by(&self, end: impl Fn() + Send + 'static) {
        self.shared.lock().end = Some(Box::new(end));
    }

    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| limit <= self.started.elapsed())
    }

    /// Notes that the run is over, for any reason, and only its end is left to report.
    pub(super) fn seen(&self) {
        self.shared.lock().is_seen = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.seen();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run, and the process if the run does not return.
    fn watch(&self, started: Instant, limit: Duration) {
        let Some(until) = started.checked_add(limit) else { return };
        if self.is_seen_by(until) {
            return;
        }
        let is_running = self.lock().end.as_ref().inspect(|end| end()).is_some();
        let Some(what) = self.holds_it_up(is_running) else { return };
        keyboard::restore_terminal();
        let last_words = format!("error: after {} s {what}", limit.as_secs());
        let (said, is_said) = std::sync::mpsc::channel();
        // A thread of its own, because stderr may have no reader.
        let spoken = std::thread::Builder::new().spawn(move || {
            out::stderr(last_words);
            let _ = said.send(());
        });
        if spoken.is_ok() {
            let _ = is_said.recv_timeout(LAST_WORDS);
        }
        std::process::exit(i32::from(exit::HUNG));
    }

    /// Waits until the run is over, or returns the reason not to wait for it.
    fn holds_it_up(&self, is_running: bool) -> Option<&'static str> {
        for _ in 0..LOOKS {
            let writes = out::begun();
            if self.is_seen_by(Instant::now() + WAITING) {
                return None;
            }
            if !is_running {
                return Some(
                    "the guest was not even loaded: raise --timeout, or see what kernel and initramfs are",
                );
            }
            if out::is_waiting_since(writes) {
                return Some(
                    "the guest did not end, and nobody reads its console: read it, or send it to a file",
                );
            }
        }
        Some("the guest did not end, though nothing holds it up but the host")
    }

    /// Waits until the run is over, or until this time.
    fn is_seen_by(&self, until: Instant) -> bool {
        let mut state = self.lock();
        while !state.is_seen {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
