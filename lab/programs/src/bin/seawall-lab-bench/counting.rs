//! A vCPU whose system calls are counted and timed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_inject::{Errno, KvmVcpu};
use seawall_kvm::Vcpu;

/// The vCPU, the number of system calls on it, and their total time.
pub(crate) struct Counting<'a> {
    vcpu: &'a Vcpu,
    calls: Cell<u64>,
    spent: Cell<Duration>,
}

impl<'a> Counting<'a> {
    pub(crate) fn new(vcpu: &'a Vcpu) -> Self {
        Self { vcpu, calls: Cell::new(0), spent: Cell::new(Duration::ZERO) }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// The time of these calls, which includes one reading of the clock each.
    pub(crate) fn spent(&self) -> Duration {
        self.spent.get()
    }

    fn count<T>(&self, call: impl FnOnce(&Vcpu) -> T) -> T {
        let start = Instant::now();
        let answer = call(self.vcpu);
        self.spent.set(self.spent.get() + start.elapsed());
        self.calls.set(self.calls.get() + 1);
        answer
    }
}

impl KvmVcpu for Counting<'_> {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        self.count(|vcpu| vcpu.set_vcpu_events(bytes))
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        self.count(KvmVcpu::get_vcpu_events)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        self.count(|vcpu| vcpu.get_one_reg(id))
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        self.count(|vcpu| vcpu.set_one_reg(id, value))
    }
}
