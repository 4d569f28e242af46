//! A vCPU whose system calls are counted and timed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Delivery, Errno, Inject, Injector, KvmVcpu, Last, VcpuTraits};
use seawall_kvm::{Error, Vcpu};

/// The vCPU, the last exit that it had, and how many system calls were made since, and for how long.
pub(crate) struct Counting<'a> {
    pub(crate) vcpu: &'a mut Vcpu,
    pub(crate) last: Last,
    pub(crate) injector: Injector,
    calls: Cell<u64>,
    spent: Cell<Duration>,
}

impl<'a> Counting<'a> {
    pub(crate) fn new(vcpu: &'a mut Vcpu, last: Last, injector: Injector) -> Self {
        Self { vcpu, last, injector, calls: Cell::new(0), spent: Cell::new(Duration::ZERO) }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// In these calls; of the clock, its own reading too.
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

/// As `Vcpu` does it for a guest of AArch64.
impl Inject for Counting<'_> {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        self.vcpu.traits()
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        let id = one_reg_id(reg).ok_or(Error::NoRegister(reg))?;
        self.get_one_reg(id).map_err(|errno| Error::Ioctl { call: "KVM_GET_ONE_REG", errno })
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        let id = one_reg_id(reg).ok_or(Error::NoRegister(reg))?;
        self.set_one_reg(id, value).map_err(|errno| Error::Ioctl { call: "KVM_SET_ONE_REG", errno })
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        Ok(self.injector.inject(self, self.last, events)?)
    }
}
