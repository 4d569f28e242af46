//! `--timeout`: a clock of its own, as neither a guest nor a device nor a file need ever come to an end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seawall_machine::Kicker;

use super::keyboard;
use crate::{exit, out};

/// How long loading may go on after the time is over.
const LOADING: Duration = Duration::from_millis(50);
/// How long a run may take to come back. It does so within a few milliseconds, unless nobody reads its console.
const RUNNING: Duration = Duration::from_secs(1);

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
        let patience = if is_running { RUNNING } else { LOADING };
        if self.is_seen_by(Instant::now() + patience) {
            return;
        }
        let what = if is_running {
            "the guest did not end, and nobody reads its console: read it, or send it to a file"
        } else {
            "the guest was not even loaded: raise --timeout, or see what kernel and initramfs are"
        };
        keyboard::restore_terminal();
        out::stderr(format_args!("error: after {} s {what}", limit.as_secs()));
        std::process::exit(i32::from(exit::HUNG));
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
