//! A CPU as its VMM sees it: KVM's vCPU.

use seawall_arm::{Pstate, Reg, Registers};
use seawall_events::VcpuEvents;
use seawall_events::kernel::{get_events, set_events};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_inject::{Delivery, Exit, GuestKind, Inject, VcpuTraits};

use crate::cpu::{Cpu, PendingMmio, Wait};
use crate::memory::Memory;
use crate::run::{Kernel, Tables, last_walk_level};
use crate::trap::{HostAbort, Intent};
use crate::vm::{Config, Error, Vm};
use crate::walk::WalkStage;

/// The FP and AdvSIMD registers: KVM's `user_fpsimd_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FpSimdState {
    /// V0 to V31.
    pub vregs: [u128; 32],
    /// FPSR: QC and the cumulative flags.
    pub fpsr: u32,
    /// FPCR: AHP, DN, FZ, RMode.
    pub fpcr: u32,
}

/// One CPU of a [`Vm`].
#[derive(Debug)]
pub struct Vcpu<'a> {
    vm: &'a mut Vm,
    index: usize,
}

impl<'a> Vcpu<'a> {
    pub(crate) fn new(vm: &'a mut Vm, index: usize) -> Result<Self, Error> {
        let count = vm.cpus.len();
        if index >= count {
            return Err(Error::NoCpu { index, count });
        }
        Ok(Self { vm, index })
    }

    fn cpu(&self) -> Result<&Cpu, Error> {
        let count = self.vm.cpus.len();
        self.vm.cpus.get(self.index).ok_or(Error::NoCpu { index: self.index, count })
    }

    fn cpu_mut(&mut self) -> Result<&mut Cpu, Error> {
        let count = self.vm.cpus.len();
        self.vm.cpus.get_mut(self.index).ok_or(Error::NoCpu { index: self.index, count })
    }

    fn stopped(&mut self) -> Result<Stopped<'_>, Error> {
        let Vm { config, cpus, memory, .. } = &mut *self.vm;
        Stopped::new(config, cpus, self.index, memory)
    }

    /// The machine that the CPU is in.
    pub fn vm(&self) -> &Vm {
        self.vm
    }

    /// The machine that the CPU is in, for instance to change its memory between runs.
    pub fn vm_mut(&mut self) -> &mut Vm {
        self.vm
    }

    /// The number of the CPU.
    pub fn index(&self) -> usize {
        self.index
    }

    /// True if the CPU is on: the first is at first, PSCI turns others on and off.
    pub fn is_on(&self) -> bool {
        self.cpu().is_ok_and(|cpu| cpu.wait != Wait::Off)
    }

    /// `KVM_SET_MP_STATE`: turns the CPU on where it stands, or off.
    pub fn set_on(&mut self, on: bool) {
        if let Ok(cpu) = self.cpu_mut() {
            cpu.wait = if on { Wait::No } else { Wait::Off };
        }
    }

    /// How many steps the CPU may do from now on, over all runs: when they are used up a run ends with
    /// [`Exit::Intr`]. A step is an instruction that completes, or an exception taken to EL1; a SEA
    /// exit is none. `None`: no limit, as it is at first.
    pub fn set_budget(&mut self, budget: Option<u64>) {
        if let Ok(cpu) = self.cpu_mut() {
            cpu.budget = budget;
        }
    }

    /// Steps left of the budget.
    pub fn budget(&self) -> Option<u64> {
        self.cpu().ok().and_then(|cpu| cpu.budget)
    }

    /// Steps that this CPU did since the machine was made: instructions completed, and exceptions
    /// taken to EL1. The machine's time is [`Vm::time`].
    pub fn instructions(&self) -> u64 {
        self.cpu().map_or(0, |cpu| cpu.steps)
    }

    /// The FP and AdvSIMD registers.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn fp_simd(&self) -> Result<FpSimdState, Error> {
        let cpu = self.cpu()?;
        Ok(FpSimdState { vregs: cpu.v, fpsr: cpu.fp.fpsr() as u32, fpcr: cpu.fp.fpcr() as u32 })
    }

    /// Set the FP and AdvSIMD registers; bits that this CPU does not have are dropped.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn set_fp_simd(&mut self, state: &FpSimdState) -> Result<(), Error> {
        let cpu = self.cpu_mut()?;
        cpu.v = state.vregs;
        cpu.fp.set_fpsr(state.fpsr.into());
        cpu.fp.set_fpcr(state.fpcr.into());
        Ok(())
    }

    /// `KVM_ARM_VCPU_INIT`: the CPU as it comes out of reset (EL1h, DAIF set, MMU off, PC and all general
    /// registers 0), and its GIC interface too. Steps, budget, and whether it is on, stay.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn reset(&mut self) -> Result<(), Error> {
        let config = self.vm.config;
        let cpu = self.cpu_mut()?;
        let is_off = cpu.wait == Wait::Off;
        cpu.reset(&config);
        if is_off {
            cpu.wait = Wait::Off;
        }
        self.vm.gic.reset_interface(self.index);
        Ok(())
    }

    /// Nobody answers the MMIO access that the last run ended with: the CPU takes a synchronous External abort, without
    /// ISS.EA, as from a bus that finds no device. Of a machine with EL2 alone; of any other the host injects what it
    /// thinks right.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn refuse_mmio(&mut self) -> Result<(), Error> {
        let cpu = self.cpu_mut()?;
        if cpu.el2.is_some() && cpu.mmio.take().is_some() {
            let write = cpu.last_fault.esr.iss() & 1 << 6 != 0;
            let intent = if write { Intent::STORE } else { Intent::LOAD };
            let (va, pa) = (cpu.last_fault.far, cpu.last_fault.ipa.unwrap_or(0));
            let abort = HostAbort { intent, va, pa, walk_level: None, stage: WalkStage::First, size: 0 };
            cpu.take_external_abort(&abort, 0);
        }
        Ok(())
    }

    /// `KVM_SET_VCPU_EVENTS` with the bytes of the system call, in the layout of the VM's ABI.
    ///
    /// # Errors
    /// [`Error::Events`] with the kernel's errno.
    pub fn set_events_bytes(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<Delivery, Error> {
        let events = VcpuEvents::from_bytes(self.vm.config.abi, bytes);
        let events = events.map_err(|refusal| Error::Events(refusal.into()))?;
        self.inject(&events)
    }

    /// `KVM_GET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// [`Error::Events`] with the kernel's errno.
    pub fn events(&mut self) -> Result<VcpuEvents, Error> {
        get_events(&self.stopped()?.kernel()).map_err(|refusal| Error::Events(refusal.into()))
    }

    /// `KVM_GET_VCPU_EVENTS` as bytes.
    ///
    /// # Errors
    /// [`Error::Events`] with the kernel's errno.
    pub fn events_bytes(&mut self) -> Result<[u8; VCPU_EVENTS_SIZE], Error> {
        let bytes = self.events()?.to_bytes(self.vm.config.abi);
        bytes.map_err(|refusal| Error::Events(refusal.into()))
    }
}

/// One CPU of a [`Vm`] that is not running, beside the machine's RAM: see [`Vm::split`].
#[derive(Debug)]
pub struct Stopped<'a> {
    config: &'a Config,
    cpu: &'a mut Cpu,
    /// Of the last fault, should it have been on a table walk.
    walk_level: Option<i8>,
}

impl<'a> Stopped<'a> {
    pub(crate) fn new(
        config: &'a Config,
        cpus: &'a mut [Cpu],
        index: usize,
        memory: &Memory,
    ) -> Result<Self, Error> {
        let count = cpus.len();
        let cpu = cpus.get_mut(index).ok_or(Error::NoCpu { index, count })?;
        let walk_level = last_walk_level(cpu, memory);
        Ok(Self { config, cpu, walk_level })
    }

    /// The CPU as the kernel half sees it.
    fn kernel(&mut self) -> Kernel<'_> {
        Kernel { config: self.config, cpu: self.cpu, tables: Tables::Walked(self.walk_level) }
    }
}

impl Inject for Stopped<'_> {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        traits(self.config)
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        read(self.cpu, reg)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        write(self.cpu, reg, value)
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        let abi = self.config.abi;
        if self.config.el2 {
            return Err(Error::HasEl2);
        }
        let mut kernel = self.kernel();
        let applied = set_events(&mut kernel, abi, events)?;
        Ok(Delivery::of(&kernel, events, &applied))
    }
}

fn traits(config: &Config) -> VcpuTraits {
    VcpuTraits { guest: GuestKind::Aarch64, ras: config.ras, abi: config.abi }
}

/// True if a CPU has a register.
fn has(cpu: &Cpu, reg: Reg) -> bool {
    let of_el2 = matches!(
        reg,
        Reg::ElrEl2 | Reg::SpsrEl2 | Reg::EsrEl2 | Reg::FarEl2 | Reg::VbarEl2 | Reg::SctlrEl2 | Reg::HcrEl2
    );
    of_el2 && cpu.el2.is_some()
        || matches!(
            reg,
            Reg::X(0..=30)
                | Reg::Pc
                | Reg::Pstate
                | Reg::SpEl0
                | Reg::SpEl1
                | Reg::ElrEl1
                | Reg::SpsrEl1
                | Reg::EsrEl1
                | Reg::FarEl1
                | Reg::VbarEl1
                | Reg::SctlrEl1
                | Reg::TcrEl1
                | Reg::Ttbr0El1
                | Reg::Ttbr1El1
                | Reg::MairEl1
                | Reg::CpacrEl1
                | Reg::ContextidrEl1
                | Reg::TpidrEl0
                | Reg::TpidrEl1
                | Reg::DisrEl1
        )
}

fn read(cpu: &Cpu, reg: Reg) -> Result<u64, Error> {
    if has(cpu, reg) { Ok(cpu.reg(reg)) } else { Err(Error::NoRegister(reg)) }
}

fn write(cpu: &mut Cpu, reg: Reg, value: u64) -> Result<(), Error> {
    let is_read_only = matches!(reg, Reg::SctlrEl2 | Reg::HcrEl2);
    if is_read_only || !has(cpu, reg) {
        return Err(Error::NoRegister(reg));
    }
    let is_mode = match value & Pstate::M {
        0b00000 | 0b00100 | 0b00101 => true,
        0b01000 | 0b01001 => cpu.el2.is_some(),
        _ => false,
    };
    if reg == Reg::Pstate && !is_mode {
        return Err(Error::Mode(value));
    }
    cpu.set_reg(reg, value);
    Ok(())
}

impl Inject for Vcpu<'_> {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        traits(&self.vm.config)
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        read(self.cpu()?, reg)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        write(self.cpu_mut()?, reg, value)
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        self.stopped()?.inject(events)
    }
}

impl seawall_inject::Vcpu for Vcpu<'_> {
    fn run(&mut self) -> Result<Exit, Error> {
        self.vm.run_one(self.index)
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        if let Ok(cpu) = self.cpu_mut() {
            match &mut cpu.mmio {
                Some(PendingMmio::Register { data: answer, .. }) => *answer = data,
                Some(PendingMmio::Accesses(accesses)) => {
                    if let Some(access) = accesses.last_mut().filter(|access| !access.write) {
                        let unused = 64 - 8 * u32::from(access.len.clamp(1, 8));
                        access.data = u64::from_le_bytes(data) << unused >> unused;
                    }
                }
                None => {}
            }
        }
    }
}
