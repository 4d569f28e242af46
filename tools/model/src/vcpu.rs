//! The kernel's state of a vCPU.

use seawall_arm::{Pstate, Reg, Registers};
use seawall_events::kernel::{LastFault, VcpuConfig, VcpuState, VirtualSError};
use seawall_inject::GuestKind;

use crate::Waiting;

#[rustfmt::skip]
pub(crate) const SYSTEM: [Reg; 32] = [
    Reg::Pc, Reg::Pstate, Reg::SpEl0, Reg::SpEl1, Reg::ElrEl1, Reg::SpsrEl1, Reg::SpsrAbt, Reg::EsrEl1, Reg::FarEl1,
    Reg::Ifsr32, Reg::VbarEl1, Reg::SctlrEl1, Reg::Sctlr2El1, Reg::TcrEl1, Reg::Ttbr0El1, Reg::Ttbr1El1, Reg::MairEl1,
    Reg::CpacrEl1, Reg::ContextidrEl1, Reg::TpidrEl0, Reg::TpidrEl1, Reg::DisrEl1, Reg::ElrEl2, Reg::SpsrEl2,
    Reg::EsrEl2, Reg::FarEl2, Reg::VbarEl2, Reg::SctlrEl2, Reg::Sctlr2El2, Reg::HcrEl2, Reg::HcrxEl2, Reg::VsesrEl2,
];

/// The number of registers.
pub const REGISTERS: usize = 31 + SYSTEM.len();

/// A vCPU between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vcpu {
    /// By [`Registers`]; X0 is the first.
    pub regs: [u64; REGISTERS],
    /// The VM's configuration at its creation.
    pub config: VcpuConfig,
    /// The last abort.
    pub last_fault: LastFault,
    /// The virtual SError.
    pub serror: VirtualSError,
    /// The MMIO access that user space has to complete.
    pub waiting: Option<Waiting>,
    /// The result of a walk of the guest's tables for the S1PTW rule.
    pub walk_level: Option<i8>,
    /// True after `KVM_ARM_VCPU_INIT`.
    pub is_initialised: bool,
    /// True once `KVM_RUN` was called. An AArch32 vCPU that never ran loses the abort that is delivered to
    /// it.
    pub has_run: bool,
}

fn index(reg: Reg) -> Option<usize> {
    match reg {
        Reg::X(n) if n <= 30 => Some(usize::from(n)),
        _ => SYSTEM.iter().position(|system| *system == reg).map(|n| 31 + n),
    }
}

impl Vcpu {
    /// A vCPU after `KVM_ARM_VCPU_INIT`.
    pub fn new(config: VcpuConfig) -> Self {
        let mut vcpu = Self {
            regs: [0; REGISTERS],
            config,
            last_fault: LastFault::default(),
            serror: VirtualSError::default(),
            waiting: None,
            walk_level: None,
            is_initialised: true,
            has_run: false,
        };
        vcpu.reset();
        vcpu
    }

    /// `KVM_ARM_VCPU_INIT` again: registers get their reset values. The last abort stays, and so does an SError that is held
    /// for virtual EL2; a pending one if the vCPU has ever run.
    pub fn reset(&mut self) {
        self.regs = [0; REGISTERS];
        self.waiting = None;
        if !self.has_run {
            self.serror.pending = false;
        }
        let pstate = match self.guest() {
            GuestKind::Aarch64 => 0x3c5,
            GuestKind::Nested => 0x3c9,
            GuestKind::Aarch32 => 0x1d3,
        };
        self.set_reg(Reg::Pstate, pstate);
    }

    /// The kind of vCPU as a VMM knows it.
    pub fn guest(&self) -> GuestKind {
        match (self.config.el1_aarch32, self.config.el2) {
            (true, _) => GuestKind::Aarch32,
            (false, true) => GuestKind::Nested,
            (false, false) => GuestKind::Aarch64,
        }
    }

    /// PSTATE.
    pub fn pstate(&self) -> Pstate {
        Pstate::from_bits(self.reg(Reg::Pstate))
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
        self.waiting = None;
    }

    fn serror(&self) -> VirtualSError {
        self.serror
    }

    fn set_serror(&mut self, serror: VirtualSError) {
        self.serror = serror;
    }

    fn is_initialised(&self) -> bool {
        self.is_initialised
    }

    fn has_run(&self) -> bool {
        self.has_run
    }
}
