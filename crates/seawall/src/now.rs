//! The place and time of an error.

use std::time::{Duration, Instant, SystemTime};

/// The vCPU and the time at which a run ended with an error.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The number of the vCPU.
    pub vcpu: u32,
    /// The time that the guest has been running, by any monotonic clock. The storm guards use it.
    pub running: Duration,
    /// The time for the error's record and the ledger.
    pub time: SystemTime,
    /// The time at which the vCPU left its run, to measure the duration of the injection.
    pub exited: Option<Instant>,
}

impl Now {
    /// The vCPU with this number has just left its run. `running`: the time that the guest has been running.
    pub fn new(vcpu: u32, running: Duration) -> Self {
        Self { vcpu, running, time: SystemTime::now(), exited: Some(Instant::now()) }
    }
}
