//! A vCPU that consists of the kernel half alone.
#![allow(dead_code)]

#[path = "../../../events/examples/own_vcpu/vcpu.rs"]
pub(crate) mod vcpu;

use std::ops::Range;
use std::time::{Duration, SystemTime};

use seawall::{ContainError, Contained, Containment, Decision, Now, Outcome, Source};
use seawall_arm::Esr;
use seawall_events::kernel::{LastFault, VcpuConfig, VirtualSError, set_events};
use seawall_events::{Abi, Refused, Reg, Registers, SeaExit, VcpuEvents};
use seawall_inject::{Delivery, GuestKind, Inject, VcpuTraits};

pub(crate) const PC: u64 = 0x40_1040;
pub(crate) const VBAR: u64 = 0xffff_8000_1000_0800;

/// A vCPU that meets the same error in every run.
pub(crate) struct Guest {
    pub(crate) vcpu: vcpu::Vcpu,
    pub(crate) abi: Abi,
    pub(crate) exit: SeaExit,
}

/// A vCPU in `pstate` at PC, whose last stage 2 fault was at `far` with this ESR.
pub(crate) fn vcpu_at(pstate: u64, esr: u64, far: u64) -> vcpu::Vcpu {
    let mut vcpu = vcpu::Vcpu {
        regs: [0; 52],
        config: VcpuConfig { ras: true, ..VcpuConfig::default() },
        last_fault: LastFault { esr: Esr::from_bits(esr), far, ipa: Some(0x4021_0000) },
        serror: VirtualSError::default(),
        mmio_waits: false,
        walk_level: None,
    };
    vcpu.set_reg(Reg::Pc, PC);
    vcpu.set_reg(Reg::Pstate, pstate);
    vcpu.set_reg(Reg::VbarEl1, VBAR);
    vcpu
}

impl Inject for Guest {
    type Error = Refused;

    fn traits(&self) -> VcpuTraits {
        let VcpuConfig { ras, el2, el1_aarch32, .. } = self.vcpu.config;
        let guest = match (el2, el1_aarch32) {
            (true, _) => GuestKind::Nested,
            (false, true) => GuestKind::Aarch32,
            (false, false) => GuestKind::Aarch64,
        };
        VcpuTraits { guest, ras, abi: self.abi }
    }

    fn reg(&self, reg: Reg) -> Result<u64, Refused> {
        Ok(self.vcpu.reg(reg))
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Refused> {
        self.vcpu.set_reg(reg, value);
        Ok(())
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Refused> {
        let applied = set_events(&mut self.vcpu, self.abi, events)?;
        Ok(Delivery::of(&self.vcpu, events, &applied))
    }
}

/// The error that a vCPU met, for [`decide`].
#[derive(Clone, Debug)]
pub(crate) enum Met {
    Sea(SeaExit),
    Sigbus(Range<u64>),
}

/// The first step.
pub(crate) fn decide<V: Inject>(
    containment: &mut Containment,
    vcpu: &V,
    met: &Met,
    running: Duration,
) -> Result<Decision, ContainError<V::Error>> {
    match met {
        Met::Sea(exit) => containment.decide_sea(vcpu, exit, running),
        Met::Sigbus(range) => containment.decide_sigbus(vcpu, range.clone(), running),
    }
}

/// This time of the guest, on vCPU 0, without a clock of the host.
pub(crate) fn at(running: Duration) -> Now {
    Now { vcpu: 0, running, time: SystemTime::UNIX_EPOCH, exited: None }
}

/// Contains a SEA exit of a guest without records.
pub(crate) fn handle<V: Inject>(
    containment: &mut Containment,
    vcpu: &mut V,
    exit: &SeaExit,
    running: Duration,
) -> Result<Outcome, ContainError<V::Error>> {
    match containment.contain(vcpu, &Source::Sea(*exit), None, &at(running))? {
        Contained::Error(outcome) => Ok(outcome),
        other => panic!("{other:?}"),
    }
}
