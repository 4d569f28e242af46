//! The vCPU that the tests drive, from `examples/own_vcpu`, and the states from which they start.
#![allow(dead_code)]

#[path = "../../examples/own_vcpu/vcpu.rs"]
mod vcpu;

use seawall_arm::Esr;
use seawall_events::kernel::{LastFault, VcpuConfig, VirtualSError};
use seawall_events::{Abi, Layout, Reg, Registers, VcpuEvents};
pub(crate) use vcpu::Vcpu;

pub(crate) const POSTED: Abi = Abi::Extended(Layout::Posted);

pub(crate) const PC: u64 = 0x40_1040;
pub(crate) const FAR: u64 = 0x50_0123;
pub(crate) const VBAR: u64 = 0xffff_8000_1000_0800;
pub(crate) const VBAR_EL2: u64 = 0xffff_0000_2000_0000;

/// SPAN set: exception entry does not change PAN.
pub(crate) const SPAN: u64 = 1 << 23;

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
    vcpu.set_reg(Reg::Pc, PC);
    vcpu.set_reg(Reg::Pstate, pstate);
    vcpu.set_reg(Reg::VbarEl1, VBAR);
    vcpu.set_reg(Reg::VbarEl2, VBAR_EL2);
    vcpu.set_reg(Reg::SctlrEl1, SPAN);
    vcpu.set_reg(Reg::SctlrEl2, SPAN);
    vcpu
}

/// EL1h with DAIF set, as in the golden vectors.
pub(crate) fn el1() -> Vcpu {
    guest(0x3c5)
}

/// EL0t, nothing masked.
pub(crate) fn el0() -> Vcpu {
    guest(0)
}

/// EL1h, nothing masked.
pub(crate) fn el1_unmasked() -> Vcpu {
    guest(5)
}

/// A guest hypervisor's guest: `hcr` is the virtual HCR_EL2.
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

pub(crate) fn dabt() -> VcpuEvents {
    VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }
}

pub(crate) fn iabt() -> VcpuEvents {
    VcpuEvents { ext_iabt_pending: true, ..VcpuEvents::default() }
}

pub(crate) fn serror() -> VcpuEvents {
    VcpuEvents { serror_pending: true, ..VcpuEvents::default() }
}

pub(crate) fn serror_esr(esr: u64) -> VcpuEvents {
    VcpuEvents { serror_has_esr: true, serror_esr: esr, ..serror() }
}

pub(crate) fn with_abort_esr(events: VcpuEvents, esr: u64) -> VcpuEvents {
    VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: esr, ..events }
}

/// Asserts registers by name.
pub(crate) fn check(vcpu: &Vcpu, expected: &[(Reg, u64)]) {
    for (reg, value) in expected {
        let found = vcpu.reg(*reg);
        assert_eq!(found, *value, "{reg:?} is {found:#x}, expected {value:#x}");
    }
}
