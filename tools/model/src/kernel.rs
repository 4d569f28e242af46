//! A vCPU's file descriptor.

use std::cell::{Cell, RefCell};

use seawall_arm::Reg;
use seawall_events::kernel::{AbortDelivery, get_events_bytes, set_events_bytes};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, Layout, Refusal, VcpuEvents};
use seawall_inject::{Delivery, Errno, InjectError, Injector, KvmVcpu, Last, Way};

use crate::Vcpu;
use crate::one_reg::register;

/// The ABI of the posted patches.
pub const POSTED: Abi = Abi::Extended(Layout::Posted);

/// Every kind of kernel, by its way to the extended ABI.
pub const WAYS: [Way; 3] = [Way::Assisted, Way::Native(Layout::Posted), Way::Native(Layout::Trailing)];

/// The error of a call that was told to fail: EINTR.
pub const FAILED: Errno = Errno(4);

/// A called ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `KVM_SET_VCPU_EVENTS`.
    SetVcpuEvents,
    /// `KVM_GET_VCPU_EVENTS`.
    GetVcpuEvents,
    /// `KVM_GET_ONE_REG`.
    GetOneReg(Reg),
    /// `KVM_SET_ONE_REG`.
    SetOneReg(Reg),
}

/// A vCPU behind its ioctls.
#[derive(Debug)]
pub struct Kernel {
    /// The vCPU.
    pub vcpu: RefCell<Vcpu>,
    /// The calls so far.
    pub calls: RefCell<Vec<Call>>,
    abi: Abi,
    /// The number of the call that fails, from 0, without an effect.
    fails: Cell<Option<usize>>,
}

impl Kernel {
    /// A stock kernel, which knows only mainline's events.
    pub fn stock(vcpu: &Vcpu) -> Self {
        Self::of(Way::Assisted, vcpu)
    }

    /// A kernel with this way to the extended ABI.
    pub fn of(way: Way, vcpu: &Vcpu) -> Self {
        let abi = match way {
            Way::Native(layout) => Abi::Extended(layout),
            Way::Assisted => Abi::Mainline,
        };
        let vcpu = RefCell::new(vcpu.clone());
        Self { vcpu, abi, calls: RefCell::default(), fails: Cell::new(None) }
    }

    /// The same, and this call fails, from 0, with [`FAILED`].
    #[must_use]
    pub fn and_fails(self, call: usize) -> Self {
        self.fails.set(Some(call));
        self
    }

    /// The expected result of a probe.
    pub fn injector(&self) -> Injector {
        let way = match self.abi {
            Abi::Extended(layout) => Way::Native(layout),
            Abi::Mainline => Way::Assisted,
        };
        let vcpu = self.vcpu.borrow();
        Injector { guest: vcpu.guest(), ras: vcpu.config.ras, way }
    }

    /// Injects, and returns the vCPU after it.
    pub fn inject(&self, last: Last, events: &VcpuEvents) -> (Result<Delivery, InjectError>, Vcpu) {
        let result = self.injector().inject(self, last, events);
        (result, self.vcpu.borrow().clone())
    }

    /// Injects without reading the guest's position.
    pub fn set_events(
        &self,
        last: Last,
        events: &VcpuEvents,
    ) -> (Result<Option<AbortDelivery>, InjectError>, Vcpu) {
        let result = self.injector().set_events(self, last, events);
        (result, self.vcpu.borrow().clone())
    }

    fn call(&self, call: Call) -> Result<(), Errno> {
        let mut calls = self.calls.borrow_mut();
        let fails = self.fails.get() == Some(calls.len());
        calls.push(call);
        if fails { Err(FAILED) } else { Ok(()) }
    }
}

impl KvmVcpu for Kernel {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        self.call(Call::SetVcpuEvents)?;
        let applied = set_events_bytes(&mut *self.vcpu.borrow_mut(), self.abi, || Some(*bytes));
        applied.map(drop).map_err(|refused| refused.refusal.errno().into())
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        self.call(Call::GetVcpuEvents)?;
        Ok(get_events_bytes(&*self.vcpu.borrow(), self.abi).map_err(Refusal::errno)?)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let reg = register(id).ok_or(Errno::ENOENT)?;
        self.call(Call::GetOneReg(reg))?;
        self.vcpu.borrow().one_reg(reg)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        let reg = register(id).ok_or(Errno::ENOENT)?;
        self.call(Call::SetOneReg(reg))?;
        self.vcpu.borrow_mut().set_one_reg(reg, value)
    }
}
