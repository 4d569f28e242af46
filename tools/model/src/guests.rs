//! Guests that have met bad memory, and events for them.

use seawall_arm::{Esr, Reg, Registers as _};
use seawall_events::VcpuEvents;
use seawall_events::kernel::{LastFault, VcpuConfig};

use crate::{Transfer, Vcpu, Waiting};

/// The address of the instruction that met it.
pub const PC: u64 = 0x40_1040;
/// The address of its access.
pub const FAR: u64 = 0x50_0123;
/// VBAR_EL1.
pub const VBAR: u64 = 0xffff_8000_1000_0800;
/// VBAR_EL2.
pub const VBAR_EL2: u64 = 0xffff_0000_2000_0000;

/// A guest on a host with RAS, stopped in `pstate` by a load from bad memory.
pub fn guest(pstate: u64) -> Vcpu {
    let mut vcpu = Vcpu::new(VcpuConfig { ras: true, ..VcpuConfig::default() });
    vcpu.has_run = true;
    vcpu.last_fault = LastFault { esr: Esr::from_bits(0x9200_0210), far: FAR, ipa: Some(0x8020_0000) };
    let transfer = Transfer::Load { target: Some(0), signed: false, wide: true };
    vcpu.waiting = Some(Waiting { bytes: 8, transfer, narrow: false, answer: [0; 8] });
    for (reg, value) in [
        (Reg::Pc, PC),
        (Reg::Pstate, pstate),
        (Reg::VbarEl1, VBAR),
        (Reg::VbarEl2, VBAR_EL2),
        (Reg::SctlrEl1, 1 << 23), // SPAN: PAN does not change
        (Reg::SctlrEl2, 1 << 23),
    ] {
        vcpu.set_reg(reg, value);
    }
    vcpu
}

/// The same below a virtual EL2 with this HCR_EL2.
pub fn nested(pstate: u64, hcr: u64) -> Vcpu {
    let mut vcpu = guest(pstate);
    vcpu.config.el2 = true;
    vcpu.set_reg(Reg::HcrEl2, hcr);
    vcpu
}

/// A guest whose EL1 is AArch32, in `cpsr`.
pub fn aarch32(cpsr: u64) -> Vcpu {
    let mut vcpu = guest(cpsr);
    vcpu.config.el1_aarch32 = true;
    vcpu.set_reg(Reg::VbarEl1, 0x8000_1000);
    vcpu
}

/// The last fault was a stage 2 fault on a table walk; a new walk finds the descriptor at `level`.
pub fn after_s1ptw(mut vcpu: Vcpu, level: Option<i8>) -> Vcpu {
    vcpu.last_fault.esr = Esr::from_bits(0x9200_0087);
    vcpu.walk_level = level;
    vcpu
}

/// The same guest with these registers.
pub fn with(mut vcpu: Vcpu, registers: &[(Reg, u64)]) -> Vcpu {
    for (reg, value) in registers {
        vcpu.set_reg(*reg, *value);
    }
    vcpu
}

/// A data abort.
pub fn dabt() -> VcpuEvents {
    VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }
}

/// An instruction abort.
pub fn iabt() -> VcpuEvents {
    VcpuEvents { ext_iabt_pending: true, ..VcpuEvents::default() }
}

/// The same with an ESR.
pub fn with_esr(events: VcpuEvents, esr: u64) -> VcpuEvents {
    VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: esr, ..events }
}

/// The same with an SError.
pub fn with_serror(events: VcpuEvents) -> VcpuEvents {
    VcpuEvents { serror_pending: true, ..events }
}

/// Asserts registers by name.
///
/// # Panics
/// If one differs.
#[track_caller]
pub fn check(vcpu: &Vcpu, expected: &[(Reg, u64)]) {
    for (reg, value) in expected {
        let found = vcpu.reg(*reg);
        assert_eq!(found, *value, "{reg:?} is {found:#x}, expected {value:#x}");
    }
}
