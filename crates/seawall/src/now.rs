//! Where and when a vCPU met an error.

use std::time::{Duration, Instant, SystemTime};

/// Where and when a vCPU came out of its run with an error.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The number of the vCPU.
    pub vcpu: u32,
    /// How long the guest has been running, by any clock that does not go back: the guards against storms go by it.
    pub running: Duration,
    /// The time that a record of the error has, and the ledger.
    pub time: SystemTime,
    /// When the vCPU came out of its run, if it is to be measured how long the injection takes.
    pub exited: Option<Instant>,
}

impl Now {
    /// The vCPU with this number has just come out of its run. `running`: how long the guest has been running.
    pub fn new(vcpu: u32, running: Duration) -> Self {
        Self { vcpu, running, time: SystemTime::now(), exited: Some(Instant::now()) }
    }
}
