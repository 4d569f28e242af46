//! The model: registers, and beside them what a kernel keeps of a vCPU.

use std::sync::Arc;

use seawall_arm::{Esr, Pstate, Reg, Registers, hcr, hcrx};
use seawall_events::kernel::{
    LastFault, VcpuConfig, VcpuState, VirtualSError, get_events_bytes, set_events_bytes,
};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, VcpuEvents};
use seawall_inject::{Delivery, Exit};

use super::code::Code;
use super::{Cpu, Guest, Set, Subject};

/// The registers that a model has.
#[rustfmt::skip]
const SYSTEM: [Reg; 23] = [
    Reg::Pc, Reg::Pstate, Reg::ElrEl1, Reg::SpsrEl1, Reg::EsrEl1, Reg::FarEl1, Reg::VbarEl1,
    Reg::SctlrEl1, Reg::Sctlr2El1, Reg::TcrEl1, Reg::SpsrAbt, Reg::Ifsr32, Reg::ElrEl2, Reg::SpsrEl2,
    Reg::EsrEl2, Reg::FarEl2, Reg::VbarEl2, Reg::SctlrEl2, Reg::Sctlr2El2, Reg::HcrEl2, Reg::HcrxEl2,
    Reg::DisrEl1, Reg::VsesrEl2,
];

/// An MMIO access that user space has to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The register to load, if there is one.
    pub(super) target: Option<u8>,
    pub(super) is_load: bool,
    pub(super) bytes: u8,
    pub(super) signed: bool,
    pub(super) wide: bool,
    /// The instruction is a halfword.
    pub(super) narrow: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// An exit.
    Exit(Exit),
    /// The model does not know what the CPU would do here: the step is left out.
    Unpredictable(Unpredictable),
}

/// Why a run is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpredictable {
    /// The vCPU is off since it asked for it by PSCI.
    PoweredOff,
    /// `VBAR` does not point to a table of ours.
    Vectors,
    /// PC does not point to code of ours.
    Pc,
    /// PSTATE is nothing that the model runs.
    Pstate,
    /// The lab's CPU lets NMEA unmask SErrors where SCTLR2_EL1 has no effect.
    Cpu,
    /// It calls a function of the host's that the model does not have.
    Hypercall,
    /// The CPU would take an SError where KVM would not have it taken any more, as its routing changed since it
    /// was pended. Who is first depends on when the host has an interrupt.
    Routing,
    /// The guest would not exit, or not soon.
    Endless,
}

/// A vCPU of the model.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) cpu: Arc<Cpu>,
    pub(super) code: Arc<Code>,
    abi: Abi,
    regs: [u64; 31 + SYSTEM.len()],
    pub(super) last_fault: LastFault,
    serror: VirtualSError,
    pub(super) waiting: Option<Waiting>,
    pub(super) answer: [u8; 8],
    pub(super) powered_on: bool,
    pub(super) has_run: bool,
    /// In the last run the CPU took an SError, or KVM did because an interrupt of the host's came first.
    pub(super) by_either: bool,
    /// In the last run the CPU took an SError.
    pub(super) by_cpu: bool,
}

/// Where a register is kept.
fn index(reg: Reg) -> Option<usize> {
    match reg {
        Reg::X(n) if n <= 30 => Some(usize::from(n)),
        _ => SYSTEM.iter().position(|system| *system == reg).map(|n| 31 + n),
    }
}

/// PSTATE as `KVM_ARM_VCPU_INIT` leaves it.
const fn out_of_reset(guest: Guest) -> u64 {
    match guest {
        Guest::Aarch64 => 0x3c5,
        Guest::Nested => 0x3c9,
        Guest::Aarch32 => 0x1d3,
    }
}

impl Model {
    /// A vCPU as [`Subject::begin`] leaves it, but for its registers.
    pub fn new(cpu: Arc<Cpu>, code: Arc<Code>, abi: Abi) -> Self {
        let pstate = out_of_reset(cpu.guest);
        let mut model = Self {
            cpu,
            code,
            abi,
            regs: [0; 31 + SYSTEM.len()],
            last_fault: LastFault::default(),
            serror: VirtualSError::default(),
            waiting: None,
            answer: [0; 8],
            powered_on: true,
            has_run: false,
            by_either: false,
            by_cpu: false,
        };
        Registers::set_reg(&mut model, Reg::Pstate, pstate);
        model
    }

    pub(super) fn pstate(&self) -> Pstate {
        Pstate::from_bits(Registers::reg(self, Reg::Pstate))
    }

    /// `KVM_SET_ONE_REG`.
    pub fn write(&mut self, reg: Reg, value: u64) {
        Registers::set_reg(self, reg, self.cpu.stored(reg, value));
        let is_core = matches!(
            reg,
            Reg::X(_) | Reg::Pc | Reg::Pstate | Reg::SpEl1 | Reg::ElrEl1 | Reg::SpsrEl1 | Reg::SpsrAbt
        );
        if is_core && self.pstate().is_aarch32() {
            self.narrow();
        }
    }

    /// KVM narrows registers to 32 bits whenever a core register is written in AArch32 state.
    fn narrow(&mut self) {
        let user_or_system = matches!(self.pstate().bits() & 0x1f, 0x10 | 0x1f);
        let regs = if user_or_system { 15 } else { 31 };
        for reg in (0..regs).map(Reg::X).chain([Reg::Pc]) {
            Registers::set_reg(self, reg, Registers::reg(self, reg) & 0xffff_ffff);
        }
    }

    /// `KVM_SET_VCPU_EVENTS`.
    pub fn set(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set {
        let abi = self.abi;
        let events = VcpuEvents::from_bytes(abi, bytes);
        if abi != Abi::Mainline && events.is_ok() && self.cpu.guest == Guest::Aarch32 && !self.has_run {
            // Assisted injection sees to it that the vCPU ran.
            self.go(true);
        }
        match set_events_bytes(self, abi, || Some(*bytes)) {
            Ok(applied) => {
                let delivery = events.ok().map(|events| Delivery::of(self, &events, &applied));
                Set { errno: 0, delivery }
            }
            Err(refused) => Set { errno: refused.refusal.errno().number(), delivery: None },
        }
    }

    /// Whether these events could be taken by a guest hypervisor from its own guest. Stock kernels cannot do that
    /// outside of `KVM_RUN`: they save the wrong registers, or oops. See `lab/DIFFERENCES.md`.
    pub fn may_change_context(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> bool {
        let Ok(events) = VcpuEvents::from_bytes(self.abi, bytes) else { return false };
        let abort = events.ext_dabt_pending || events.ext_iabt_pending;
        if !self.cpu.config.el2 || self.is_hyp_context() || !abort && !events.serror_pending {
            return false;
        }
        let hcr_el2 = Registers::reg(self, Reg::HcrEl2);
        let tmea = Registers::reg(self, Reg::HcrxEl2) & hcrx::TMEA != 0;
        tmea || abort && hcr_el2 & hcr::TEA != 0 || events.serror_pending && hcr_el2 & hcr::AMO != 0
    }

    /// The last abort was that of a store to `scratch`.
    pub(super) fn aborted_at(&mut self, far: u64) {
        self.has_run = true;
        self.last_fault = LastFault { esr: Esr::from_bits(0x9200_0045), far, ipa: Some(far & !0xfff) };
    }
}

impl Registers for Model {
    fn reg(&self, reg: Reg) -> u64 {
        index(reg).and_then(|n| self.regs.get(n)).copied().unwrap_or(0)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        if let Some(slot) = index(reg).and_then(|n| self.regs.get_mut(n)) {
            *slot = value;
        }
    }
}

impl VcpuState for Model {
    fn config(&self) -> VcpuConfig {
        self.cpu.config
    }

    fn last_fault(&self) -> LastFault {
        self.last_fault
    }

    /// Stage 1 is off in all that a sequence does, and then KVM says 0.
    fn walk_level(&self, _va: u64, _descriptor_ipa: u64) -> Option<i8> {
        Some(0)
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

    fn has_run(&self) -> bool {
        self.has_run
    }
}

/// A model can stand for the kernel: a test compares a sound one with a broken one.
impl Subject for Model {
    fn begin(&mut self, fresh: bool, scratch: u64) -> Result<(), String> {
        *self = Self::new(Arc::clone(&self.cpu), Arc::clone(&self.code), self.abi);
        if !fresh {
            self.aborted_at(scratch);
        }
        Ok(())
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        self.write(reg, value);
        Ok(())
    }

    fn reg(&self, reg: Reg) -> Result<u64, String> {
        Ok(Registers::reg(self, reg))
    }

    fn set_events(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set {
        self.set(bytes)
    }

    fn events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], String> {
        get_events_bytes(self, Abi::Mainline).map_err(|refusal| refusal.to_string())
    }

    fn answer(&mut self, data: [u8; 8]) {
        if self.waiting.is_some_and(|waiting| waiting.is_load) {
            self.answer = data;
        }
    }

    fn run(&mut self, immediate: bool) -> Result<Exit, String> {
        match self.go(immediate) {
            Ran::Exit(exit) => Ok(exit),
            Ran::Unpredictable(why) => Err(format!("{why:?}")),
        }
    }

    /// Registers come out of reset. The last abort stays; and a pending SError, if the vCPU has ever run.
    fn reset(&mut self) -> Result<(), String> {
        self.regs = [0; 31 + SYSTEM.len()];
        self.waiting = None;
        self.powered_on = true;
        if !self.has_run {
            self.serror = VirtualSError::default();
        }
        Registers::set_reg(self, Reg::Pstate, out_of_reset(self.cpu.guest));
        Ok(())
    }
}
