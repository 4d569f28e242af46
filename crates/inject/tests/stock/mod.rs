//! A kernel: `KVM_SET_VCPU_EVENTS` and ONE_REG over the vCPU of `seawall-events`' example, mainline's or the proposal's,
//! counting its calls, and failing one of them if it is told to.
#![allow(dead_code)]

#[path = "../../../events/examples/own_vcpu/vcpu.rs"]
mod vcpu;

use std::cell::{Cell, RefCell};

use seawall_arm::{Esr, Pstate};
use seawall_events::kernel::{
    AbortDelivery, LastFault, VcpuConfig, VirtualSError, get_events_bytes, set_events_bytes,
};
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Abi, Layout, Refusal, Reg, Registers, VcpuEvents};
use seawall_inject::{Delivery, Errno, GuestKind, InjectError, Injector, KvmVcpu, Last, Way};
pub(crate) use vcpu::Vcpu;

pub(crate) const POSTED: Abi = Abi::Extended(Layout::Posted);
pub(crate) const WAYS: [Way; 3] = [Way::Assisted, Way::Native(Layout::Posted), Way::Native(Layout::Trailing)];

pub(crate) const PC: u64 = 0x40_1040;
pub(crate) const FAR: u64 = 0x50_0123;
pub(crate) const VBAR: u64 = 0xffff_8000_1000_0800;
pub(crate) const VBAR_EL2: u64 = 0xffff_0000_2000_0000;

/// What a call that was told to fail fails with: EINTR.
pub(crate) const FAILED: Errno = Errno(4);

const SYSTEM: [Reg; 21] = [
    Reg::Pc,
    Reg::Pstate,
    Reg::ElrEl1,
    Reg::SpsrEl1,
    Reg::EsrEl1,
    Reg::FarEl1,
    Reg::VbarEl1,
    Reg::SctlrEl1,
    Reg::Sctlr2El1,
    Reg::TcrEl1,
    Reg::SpsrAbt,
    Reg::Ifsr32,
    Reg::ElrEl2,
    Reg::SpsrEl2,
    Reg::EsrEl2,
    Reg::FarEl2,
    Reg::VbarEl2,
    Reg::SctlrEl2,
    Reg::Sctlr2El2,
    Reg::HcrEl2,
    Reg::HcrxEl2,
];

const EL2_ONLY: [Reg; 9] = [
    Reg::ElrEl2,
    Reg::SpsrEl2,
    Reg::EsrEl2,
    Reg::FarEl2,
    Reg::VbarEl2,
    Reg::SctlrEl2,
    Reg::Sctlr2El2,
    Reg::HcrEl2,
    Reg::HcrxEl2,
];

/// The ioctl that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    SetVcpuEvents,
    GetVcpuEvents,
    GetOneReg(Reg),
    SetOneReg(Reg),
}

/// A vCPU of a kernel, which knows mainline's events alone if nothing else is said.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) vcpu: RefCell<Vcpu>,
    abi: Abi,
    pub(crate) calls: RefCell<Vec<Call>>,
    /// Which call fails, from 0, without an effect.
    fails: Cell<Option<usize>>,
    /// An AArch32 vCPU that never ran loses what is delivered to it.
    never_ran: bool,
}

impl Stock {
    pub(crate) fn new(vcpu: &Vcpu) -> Self {
        Self {
            vcpu: RefCell::new(vcpu.clone()),
            abi: Abi::Mainline,
            calls: RefCell::default(),
            fails: Cell::new(None),
            never_ran: false,
        }
    }

    /// A kernel to which this is the way.
    pub(crate) fn of(way: Way, vcpu: &Vcpu) -> Self {
        let abi = match way {
            Way::Native(layout) => Abi::Extended(layout),
            Way::Assisted => Abi::Mainline,
        };
        Self { abi, ..Self::new(vcpu) }
    }

    pub(crate) fn never_ran(vcpu: &Vcpu) -> Self {
        Self { never_ran: true, ..Self::new(vcpu) }
    }

    pub(crate) fn failing(vcpu: &Vcpu, call: usize) -> Self {
        Self { fails: Cell::new(Some(call)), ..Self::new(vcpu) }
    }

    /// The same, and this call fails.
    pub(crate) fn and_fails(self, call: usize) -> Self {
        self.fails.set(Some(call));
        self
    }

    /// What a probe must find.
    pub(crate) fn injector(&self) -> Injector {
        let way = match self.abi {
            Abi::Extended(layout) => Way::Native(layout),
            Abi::Mainline => Way::Assisted,
        };
        Injector { guest: kind(&self.vcpu.borrow()), ras: self.vcpu.borrow().config.ras, way }
    }

    /// Injects, and gives the vCPU after it.
    pub(crate) fn inject(&self, last: Last, events: &VcpuEvents) -> (Result<Delivery, InjectError>, Vcpu) {
        let result = self.injector().inject(self, last, events);
        (result, self.vcpu.borrow().clone())
    }

    /// The same without a look at where the guest is.
    pub(crate) fn set_events(
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

    /// The register of an id, for a call; ENOENT if there is none, or not without EL2.
    fn register(&self, id: u64, call: impl FnOnce(Reg) -> Call) -> Result<Reg, Errno> {
        let all = (0..=30).map(Reg::X).chain(SYSTEM);
        let reg = all.into_iter().find(|reg| one_reg_id(*reg) == Some(id)).ok_or(Errno::ENOENT)?;
        self.call(call(reg))?;
        let hidden = EL2_ONLY.contains(&reg) && !self.vcpu.borrow().config.el2;
        if hidden { Err(Errno::ENOENT) } else { Ok(reg) }
    }
}

impl KvmVcpu for Stock {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        self.call(Call::SetVcpuEvents)?;
        let mut vcpu = self.vcpu.borrow_mut();
        let before = vcpu.clone();
        let applied = set_events_bytes(&mut *vcpu, self.abi, || Some(*bytes));
        applied.map_err(|refused| refused.refusal.errno())?;
        if self.never_ran && vcpu.config.el1_aarch32 {
            for reg in [Reg::Pc, Reg::Pstate, Reg::X(20), Reg::SpsrAbt] {
                vcpu.set_reg(reg, before.reg(reg));
            }
        }
        Ok(())
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        self.call(Call::GetVcpuEvents)?;
        Ok(get_events_bytes(&*self.vcpu.borrow(), self.abi).map_err(Refusal::errno)?)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let reg = self.register(id, Call::GetOneReg)?;
        Ok(self.vcpu.borrow().reg(reg))
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        let reg = self.register(id, Call::SetOneReg)?;
        let mut vcpu = self.vcpu.borrow_mut();
        // Linux arch/arm64/kvm/guest.c, set_core_reg: modes that an AArch64 EL1 does not have.
        if reg == Reg::Pstate && matches!(value & 0x1f, 0x11..=0x1f) && !vcpu.config.el1_aarch32 {
            return Err(Errno::EINVAL);
        }
        vcpu.set_reg(reg, value);
        if matches!(reg, Reg::X(_) | Reg::Pc | Reg::Pstate) {
            narrow(&mut vcpu);
        }
        Ok(())
    }
}

/// What KVM does after it set a core register of a vCPU in AArch32 state: registers have 32 bits.
fn narrow(vcpu: &mut Vcpu) {
    let pstate = Pstate::from_bits(vcpu.reg(Reg::Pstate));
    if !pstate.is_aarch32() {
        return;
    }
    let (user, system) = (0x10, 0x1f);
    let banked = [user, system].contains(&pstate.masked(Pstate::M));
    for reg in (0..if banked { 15 } else { 31 }).map(Reg::X).chain([Reg::Pc]) {
        vcpu.set_reg(reg, vcpu.reg(reg) & 0xffff_ffff);
    }
}

/// What a VMM knows of such a vCPU.
pub(crate) fn kind(vcpu: &Vcpu) -> GuestKind {
    match (vcpu.config.el1_aarch32, vcpu.config.el2) {
        (true, _) => GuestKind::Aarch32,
        (false, true) => GuestKind::Nested,
        (false, false) => GuestKind::Aarch64,
    }
}

/// A guest on a host with RAS, stopped in `pstate` by a load from bad memory.
pub(crate) fn guest(pstate: u64) -> Vcpu {
    let mut vcpu = Vcpu {
        regs: [0; 52],
        config: VcpuConfig { ras: true, ..VcpuConfig::default() },
        last_fault: LastFault { esr: Esr::from_bits(0x9200_0210), far: FAR, ipa: Some(0x8020_0000) },
        serror: VirtualSError::default(),
        mmio_waits: true,
        walk_level: None,
    };
    for (reg, value) in [
        (Reg::Pc, PC),
        (Reg::Pstate, pstate),
        (Reg::VbarEl1, VBAR),
        (Reg::VbarEl2, VBAR_EL2),
        (Reg::SctlrEl1, 1 << 23), // SPAN: PAN is left alone
        (Reg::SctlrEl2, 1 << 23),
    ] {
        vcpu.set_reg(reg, value);
    }
    vcpu
}

/// The same below a virtual EL2 with this HCR_EL2.
pub(crate) fn nested(pstate: u64, hcr: u64) -> Vcpu {
    let mut vcpu = guest(pstate);
    vcpu.config.el2 = true;
    vcpu.set_reg(Reg::HcrEl2, hcr);
    vcpu
}

/// A guest whose EL1 is AArch32, in `cpsr`.
pub(crate) fn aarch32(cpsr: u64) -> Vcpu {
    let mut vcpu = guest(cpsr);
    vcpu.config.el1_aarch32 = true;
    vcpu.set_reg(Reg::VbarEl1, 0x8000_1000);
    vcpu
}

/// The last fault was a stage 2 fault on a table walk; a new walk finds the descriptor at `level`.
pub(crate) fn after_s1ptw(mut vcpu: Vcpu, level: Option<i8>) -> Vcpu {
    vcpu.last_fault.esr = Esr::from_bits(0x9200_0087);
    vcpu.walk_level = level;
    vcpu
}

pub(crate) fn with(mut vcpu: Vcpu, registers: &[(Reg, u64)]) -> Vcpu {
    for (reg, value) in registers {
        vcpu.set_reg(*reg, *value);
    }
    vcpu
}

pub(crate) fn dabt() -> VcpuEvents {
    VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }
}

pub(crate) fn iabt() -> VcpuEvents {
    VcpuEvents { ext_iabt_pending: true, ..VcpuEvents::default() }
}

pub(crate) fn with_esr(events: VcpuEvents, esr: u64) -> VcpuEvents {
    VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: esr, ..events }
}

pub(crate) fn with_serror(events: VcpuEvents) -> VcpuEvents {
    VcpuEvents { serror_pending: true, ..events }
}

/// Asserts registers by name.
pub(crate) fn check(vcpu: &Vcpu, expected: &[(Reg, u64)]) {
    for (reg, value) in expected {
        let found = vcpu.reg(*reg);
        assert_eq!(found, *value, "{reg:?} is {found:#x}, expected {value:#x}");
    }
}
