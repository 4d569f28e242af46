//! SIGINT, SIGTERM and SIGHUP end a run as the keyboard does: the ledger, the `end` event and the JSON are
//! written. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use signal_hook::iterator::{Handle, Signals as Arriving};

const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// The signals that ask a run to end, until this is dropped.
pub(super) struct Signals {
    /// The first signal that came; 0 before that.
    came: Arc<AtomicI32>,
    handle: Handle,
}

impl Signals {
    /// Catches the signals. `wake` makes the run check if one [came](Self::came).
    ///
    /// # Errors
    /// If the kernel refuses the handler, or the host has no thread.
    pub(super) fn new(wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let heeded: Vec<i32> = ENDING.into_iter().filter(|signal| ignored & 1 << (signal - 1) == 0).collect();
        let (came, second_ends) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
        for &signal in &heeded {
            register_conditional_default(signal, second_ends.clone())?;
        }
        let mut arriving = Arriving::new(&heeded)?;
        let (handle, sets_came) = (arriving.handle(), came.clone());
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in arriving.forever() {
                sets_came.store(signal, Ordering::Relaxed);
                second_ends.store(true, Ordering::Relaxed);
                wake();
            }
        })?;
        Ok(Self { came, handle })
    }

    /// The signal that requested the end.
    pub(super) fn came(&self) -> Option<i32> {
        Some(self.came.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// The signals that the run's parent ignores, which stay ignored (nohup; a shell's background jobs): the
/// signal mask, with signal 1 in bit 0. Linux, proc_pid_status(5).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// `SIGTERM`, or the number.
pub(super) fn name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read_from_the_process_status() {
        assert_eq!(ignored("Name:\tseawall\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001006\n"), 0x1006);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(99), "signal 99");
    }
}
