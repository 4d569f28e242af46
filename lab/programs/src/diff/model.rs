//! The model: a vCPU with its kernel's state, the lab's CPU and code.

use std::sync::Arc;

use seawall_arm::{Esr, Reg, Registers as _, hcr, hcrx};
use seawall_events::kernel::{get_events_bytes, set_events_bytes};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, VcpuEvents};
use seawall_inject::{Delivery, Errno, Exit};
use seawall_model::Vcpu;

use super::code::Code;
use super::{Cpu, Guest, Set, Subject};

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// An exit.
    Exit(Exit),
    /// The model does not know the CPU's behaviour here: the step is left out.
    Unpredictable(Unpredictable),
}

/// The reason why a run is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpredictable {
    /// The vCPU is off, by its own request through PSCI.
    PoweredOff,
    /// `VBAR` does not point to a table of ours.
    Vectors,
    /// PC does not point to code of ours.
    Pc,
    /// The model cannot run in this PSTATE.
    Pstate,
    /// The lab's CPU lets NMEA unmask SErrors although SCTLR2_EL1 has no effect.
    Cpu,
    /// It calls a host function that the model lacks.
    Hypercall,
    /// The CPU would take an SError that KVM would no longer deliver, because its routing changed since it
    /// became pending. The order depends on the host's next interrupt.
    Routing,
    /// The guest would not exit soon, or at all.
    Endless,
}

/// A vCPU of the model.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) cpu: Arc<Cpu>,
    pub(super) code: Arc<Code>,
    abi: Abi,
    pub(super) vcpu: Vcpu,
    pub(super) powered_on: bool,
    /// True if in the last run the CPU took an SError, or KVM did because an interrupt of the host came
    /// first.
    pub(super) by_either: bool,
    /// True if in the last run the CPU took an SError.
    pub(super) by_cpu: bool,
}

impl Model {
    /// A vCPU in the state of [`Subject::begin`], except for its registers.
    pub fn new(cpu: Arc<Cpu>, code: Arc<Code>, abi: Abi) -> Self {
        let mut vcpu = Vcpu::new(cpu.config);
        // Stage 1 is off in every sequence, and KVM's answer is then 0.
        vcpu.walk_level = Some(0);
        Self { cpu, code, abi, vcpu, powered_on: true, by_either: false, by_cpu: false }
    }

    /// The vCPU.
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    /// `KVM_SET_ONE_REG`.
    pub fn write(&mut self, reg: Reg, value: u64) {
        let written = self.try_write(reg, value);
        debug_assert_eq!(written, Ok(()), "a sequence writes what KVM takes");
    }

    fn try_write(&mut self, reg: Reg, value: u64) -> Result<(), Errno> {
        self.vcpu.set_one_reg(reg, self.cpu.stored(reg, value))
    }

    /// `KVM_SET_VCPU_EVENTS`.
    pub fn set(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set {
        let abi = self.abi;
        let events = VcpuEvents::from_bytes(abi, bytes);
        if abi != Abi::Mainline && events.is_ok() && self.cpu.guest == Guest::Aarch32 && !self.vcpu.has_run {
            // Assisted injection makes the vCPU run first.
            self.go(true);
        }
        match set_events_bytes(&mut self.vcpu, abi, || Some(*bytes)) {
            Ok(applied) => {
                let delivery = events.ok().map(|events| Delivery::of(&self.vcpu, &events, &applied));
                Set { errno: 0, delivery }
            }
            Err(refused) => Set { errno: refused.refusal.errno().number(), delivery: None },
        }
    }

    /// Returns true if a guest hypervisor might take these events from its own guest. Stock kernels cannot do
    /// that outside of `KVM_RUN`: they save the wrong registers, or oops. See `lab/DIFFERENCES.md`.
    pub fn may_change_context(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> bool {
        let Ok(events) = VcpuEvents::from_bytes(self.abi, bytes) else { return false };
        let abort = events.ext_dabt_pending || events.ext_iabt_pending;
        if !self.cpu.config.el2 || self.vcpu.is_hyp_context() || !abort && !events.serror_pending {
            return false;
        }
        let hcr_el2 = self.vcpu.reg(Reg::HcrEl2);
        let tmea = self.vcpu.reg(Reg::HcrxEl2) & hcrx::TMEA != 0;
        tmea || abort && hcr_el2 & hcr::TEA != 0 || events.serror_pending && hcr_el2 & hcr::AMO != 0
    }

    /// Sets the last abort to that of a store to `scratch`.
    pub(super) fn aborted_at(&mut self, far: u64) {
        self.vcpu.has_run = true;
        self.vcpu.aborted(Esr::from_bits(0x9200_0045), far);
    }
}

/// Lets a model take the kernel's place: a test compares a correct one with a broken one.
impl Subject for Model {
    fn begin(&mut self, fresh: bool, scratch: u64) -> Result<(), String> {
        *self = Self::new(Arc::clone(&self.cpu), Arc::clone(&self.code), self.abi);
        if !fresh {
            self.aborted_at(scratch);
        }
        Ok(())
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        self.try_write(reg, value).map_err(|errno| errno.to_string())
    }

    fn reg(&self, reg: Reg) -> Result<u64, String> {
        self.vcpu.one_reg(reg).map_err(|errno| errno.to_string())
    }

    fn set_events(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set {
        self.set(bytes)
    }

    fn events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], String> {
        get_events_bytes(&self.vcpu, Abi::Mainline).map_err(|refusal| refusal.to_string())
    }

    fn answer(&mut self, data: [u8; 8]) {
        self.vcpu.answer_mmio(data);
    }

    fn run(&mut self, immediate: bool) -> Result<Exit, String> {
        match self.go(immediate) {
            Ran::Exit(exit) => Ok(exit),
            Ran::Unpredictable(why) => Err(format!("{why:?}")),
        }
    }

    fn reset(&mut self) -> Result<(), String> {
        self.vcpu.reset();
        self.powered_on = true;
        Ok(())
    }
}
