//! A vCPU that is nothing but the kernel half.

#[path = "../../../events/examples/own_vcpu/vcpu.rs"]
pub(crate) mod vcpu;

use seawall_arm::Esr;
use seawall_events::kernel::{LastFault, VcpuConfig, VirtualSError, get_events, set_events};
use seawall_events::{Abi, Refused, Reg, Registers, SeaExit, VcpuEvents};
use seawall_inject::{Delivery, Exit};

pub(crate) const PC: u64 = 0x40_1040;
pub(crate) const VBAR: u64 = 0xffff_8000_1000_0800;

/// A vCPU whose every run meets the same error.
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

impl seawall_inject::Vcpu for Guest {
    type Error = Refused;

    fn run(&mut self) -> Result<Exit, Refused> {
        Ok(Exit::Sea(self.exit))
    }
    fn answer_mmio(&mut self, _: [u8; 8]) {}
    fn set_events(&mut self, events: &VcpuEvents) -> Result<Delivery, Refused> {
        let applied = set_events(&mut self.vcpu, self.abi, events)?;
        Ok(Delivery::of(&self.vcpu, events, &applied))
    }
    fn events(&self) -> Result<VcpuEvents, Refused> {
        get_events(&self.vcpu).map_err(Refused::from)
    }
    fn reg(&self, reg: Reg) -> Result<u64, Refused> {
        Ok(self.vcpu.reg(reg))
    }
    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Refused> {
        self.vcpu.set_reg(reg, value);
        Ok(())
    }
    fn abi(&self) -> Abi {
        self.abi
    }
}
