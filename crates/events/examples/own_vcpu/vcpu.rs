//! A hypervisor's own vCPU type, with everything that the kernel half needs.

use seawall_events::kernel::{LastFault, VcpuConfig, VcpuState, VirtualSError};
use seawall_events::{Reg, Registers};

/// Guest state that a hypervisor keeps between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vcpu {
    pub(crate) regs: [u64; 52],
    pub(crate) config: VcpuConfig,
    pub(crate) last_fault: LastFault,
    pub(crate) serror: VirtualSError,
    /// True while an MMIO read waits for its data from user space.
    pub(crate) mmio_waits: bool,
    /// The result of a walk of the guest's tables for the S1PTW rule.
    pub(crate) walk_level: Option<i8>,
}

/// The index of a register; `None` if this hypervisor's guests lack it.
fn index(reg: Reg) -> Option<usize> {
    #[rustfmt::skip]
    const SYSTEM: [Reg; 21] = [
        Reg::Pc, Reg::Pstate, Reg::ElrEl1, Reg::SpsrEl1, Reg::EsrEl1, Reg::FarEl1, Reg::VbarEl1,
        Reg::SctlrEl1, Reg::Sctlr2El1, Reg::TcrEl1, Reg::SpsrAbt, Reg::Ifsr32, Reg::ElrEl2, Reg::SpsrEl2,
        Reg::EsrEl2, Reg::FarEl2, Reg::VbarEl2, Reg::SctlrEl2, Reg::Sctlr2El2, Reg::HcrEl2, Reg::HcrxEl2,
    ];
    match reg {
        Reg::X(n) if n <= 30 => Some(usize::from(n)),
        _ => SYSTEM.iter().position(|system| *system == reg).map(|n| 31 + n),
    }
}

impl Registers for Vcpu {
    fn reg(&self, reg: Reg) -> u64 {
        index(reg).and_then(|n| self.regs.get(n)).copied().unwrap_or(0)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        if let Some(slot) = index(reg).and_then(|n| self.regs.get_mut(n)) {
            *slot = value;
        }
    }
}

impl VcpuState for Vcpu {
    fn config(&self) -> VcpuConfig {
        self.config
    }

    fn last_fault(&self) -> LastFault {
        self.last_fault
    }

    fn walk_level(&self, _va: u64, _descriptor_ipa: u64) -> Option<i8> {
        self.walk_level
    }

    fn drop_mmio(&mut self) {
        self.mmio_waits = false;
    }

    fn serror(&self) -> VirtualSError {
        self.serror
    }

    fn set_serror(&mut self, serror: VirtualSError) {
        self.serror = serror;
    }
}
