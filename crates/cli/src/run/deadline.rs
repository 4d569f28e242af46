//! `--timeout`: a clock of its own, as neither a guest nor a device nor a file need ever come to an end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seawall_machine::Kicker;

use super::keyboard;
use crate::{exit, out};

/// How long loading, or a write that nobody reads, may go on after the time is over. It is looked at this often.
const WAITING: Duration = Duration::from_millis(40);
/// How many looks a run may take to come back that waits for no reader. It does so within a few milliseconds on a host that
/// gives it a core.
const LOOKS: u32 = 100;
/// How long the last words may wait for a reader.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// When a run is to be over. Its time counts from when this is made.
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
    /// Ends the run. It is empty while the guest is being loaded.
    end: Option<Box<dyn Fn() + Send>>,
    /// The run came back, or does not need this any more.
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

    /// From now on a run is to be ended by this.
    pub(super) fn ends(&self, kicker: Kicker) {
        self.ends_by(move || kicker.kick());
    }

    /// The same where the run looks at the time itself.
    pub(super) fn ends_by(&self, end: impl Fn() + Send + 'static) {
        self.shared.lock().end = Some(Box::new(end));
    }

    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| limit <= self.started.elapsed())
    }

    /// How much time there still is, if there is a limit: for KVM.
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    pub(super) fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.started.elapsed()))
    }

    /// The run is over, for whatever reason, and only its end is left to report.
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

    /// Ends the run, and the process if the run does not come back.
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
        // A thread of its own: stderr may be what nobody reads.
        let spoken = std::thread::Builder::new().spawn(move || {
            out::stderr(last_words);
            let _ = said.send(());
        });
        if spoken.is_ok() {
            let _ = is_said.recv_timeout(LAST_WORDS);
        }
        std::process::exit(i32::from(exit::HUNG));
    }

    /// Waits until the run is over, or gives the reason why it is not to be waited for.
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

    /// Waits until the run is over, or until then.
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
