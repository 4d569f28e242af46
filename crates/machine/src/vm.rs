//! The virtual machine: what it was created with, its memory and its CPUs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use seawall_arm::{ErrorState, Reg};
use seawall_events::{Abi, Layout, Refused};

use crate::broadcast::Broadcasts;
use crate::cpu::{Cpu, Wait};
use crate::gic::{self, Gic};
use crate::icache::ICache;
use crate::jit::Translation;
use crate::memory::{Memory, MemoryError};
use crate::psci::mpidr;
use crate::schedule::Turn;
use crate::vcpu::{Stopped, Vcpu};

/// Physical address at which RAM begins, as on QEMU's `virt`.
pub const RAM_BASE: u64 = 0x4000_0000;

/// Effect of a store to a poisoned line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StorePolicy {
    /// None: as with a deferred error the line stays poisoned, only a load consumes it. DC ZVA overwrites the whole line, and
    /// heals it.
    #[default]
    Defer,
    /// As `Defer`, but the error is in the cells, not in what they hold: DC ZVA does not heal the line.
    Persist,
    /// It aborts, with WnR = 1.
    Abort,
}

/// What becomes of an access where there is no RAM by an instruction that no syndrome describes (ESR_EL2.ISV is 0): a pair,
/// an exclusive or atomic, one with writeback or of a V register, DC ZVA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NoSyndrome {
    /// What it does on hardware: the host sees each of its accesses of the bus as [`seawall_inject::Exit::Mmio`].
    #[default]
    Serve,
    /// As on KVM with `KVM_CAP_ARM_NISV_TO_USER`: [`seawall_inject::Exit::Nisv`].
    Exit,
    /// As on KVM without it: the run fails with [`Error::NoSyndrome`].
    Fail,
}

/// What a [`Vm`] is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// CPUs, at least 1 and at most 123. The first runs; the others are off until PSCI turns them on.
    pub cpus: usize,
    /// RAM, bytes: whole 4 KiB pages, from [`RAM_BASE`] on.
    pub memory_size: u64,
    /// Which `struct kvm_vcpu_events` the VM speaks.
    pub abi: Abi,
    /// Host and guest have FEAT_RAS.
    pub ras: bool,
    /// `KVM_CAP_ARM_SEA_TO_USER` is enabled: an SEA becomes [`seawall_inject::Exit::Sea`]. If not, the
    /// guest gets an SError.
    pub sea_to_user: bool,
    /// What becomes of an access outside RAM that no syndrome describes.
    pub no_syndrome: NoSyndrome,
    /// Effect of a store to a poisoned line.
    pub store_policy: StorePolicy,
    /// ISS.SET of an SEA: in what state the error left the CPU.
    pub error_state: ErrorState,
    /// The CPUs have EL2 with VHE, and come out of reset there. Nothing of a memory error comes out of a run then: the guest
    /// is the host, and EL1 or EL2 takes the abort. `abi`, `sea_to_user` and `no_syndrome` are without effect.
    pub el2: bool,
}

impl Default for Config {
    /// One CPU, 128 MiB, the extended ABI as posted, RAS, SEA exits, every access served, deferred stores, SET = 0, no EL2.
    fn default() -> Self {
        Self {
            cpus: 1,
            memory_size: 128 << 20,
            abi: Abi::Extended(Layout::Posted),
            ras: true,
            sea_to_user: true,
            no_syndrome: NoSyndrome::Serve,
            store_policy: StorePolicy::Defer,
            error_state: ErrorState::Recoverable,
            el2: false,
        }
    }
}

/// What can go wrong on the host's side. Nothing that a guest does is among it but
/// [`Error::NoSyndrome`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// RAM could not be made, or a range is not in it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A VM cannot have so many CPUs.
    #[error("expected 1 to {most} CPUs, got {0}", most = gic::MAX_CPUS)]
    CpuCount(usize),
    /// There is no such interrupt line.
    #[error("expected the INTID of an SPI, 32 to 287, got {0}")]
    NoInterrupt(u32),
    /// There is no such CPU.
    #[error("expected a CPU below {count}, got {index}")]
    NoCpu {
        /// The CPU asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// ENOENT: the CPU does not have this register.
    #[error("this CPU has no register {0:?}")]
    NoRegister(Reg),
    /// EINVAL: a register cannot hold the value.
    #[error(
        "expected a PSTATE with a mode that the CPU has (EL0t, EL1t, EL1h; with EL2 also EL2t, EL2h), got {0:#x}"
    )]
    Mode(u64),
    /// The machine has EL2: there is no kernel half around it that would inject.
    #[error("expected a machine without EL2: one with EL2 takes the aborts of its bad memory itself")]
    HasEl2,
    /// `KVM_SET_VCPU_EVENTS` was refused.
    #[error(transparent)]
    Events(#[from] Refused),
    /// ENOSYS: the guest accessed memory that is not there by an instruction whose syndrome does not
    /// say what it does ([`NoSyndrome::Fail`]).
    #[error("the access to {ipa:#x} by the instruction at {pc:#x} has no syndrome (ENOSYS)")]
    NoSyndrome {
        /// Virtual address of the instruction.
        pc: u64,
        /// Guest physical address accessed.
        ipa: u64,
    },
}

/// The instructions that were UNDEFINED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct UndefinedLog {
    count: u64,
    last: [u32; UndefinedLog::KEPT],
}

impl UndefinedLog {
    /// How many words are kept.
    const KEPT: usize = 8;

    pub(crate) fn record(&mut self, word: u32) {
        let slot = (self.count % Self::KEPT as u64) as usize;
        if let Some(kept) = self.last.get_mut(slot) {
            *kept = word;
        }
        self.count += 1;
    }

    /// How many were executed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last of them, at most 8, oldest first.
    pub fn last(&self) -> impl Iterator<Item = u32> + '_ {
        let kept = self.count.min(Self::KEPT as u64);
        (self.count - kept..self.count)
            .filter_map(|n| self.last.get((n % Self::KEPT as u64) as usize).copied())
    }
}

/// A virtual machine.
pub struct Vm {
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) icache: ICache,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) broadcasts: Broadcasts,
    pub(crate) undefined: UndefinedLog,
    pub(crate) gic: Gic,
    /// The machine's time, in steps.
    pub(crate) now: u64,
    pub(crate) turn: Turn,
    /// Steps that the host still allows in [`Vm::run`].
    pub(crate) budget: Option<u64>,
    /// When [`Vm::run`] is to come back, by the machine's time.
    pub(crate) alarm: Option<u64>,
    pub(crate) kick: Kicker,
}

/// Ends a machine's run, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Kicker(pub(crate) Arc<AtomicBool>);

impl Kicker {
    /// The run that the machine is in ends with [`Exit::Intr`](seawall_inject::Exit::Intr), at the next instruction
    /// that traps or leaves its page, within 10,000 steps in any case; if it is in none, the next run does at once.
    pub fn kick(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True if there was a kick, which counts once.
    pub(crate) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

impl Vm {
    /// A machine with zeroed RAM and its CPUs as they come out of reset, PC = 0.
    ///
    /// # Errors
    /// [`Error::Memory`] if RAM of this size cannot be made, [`Error::CpuCount`].
    pub fn new(config: Config) -> Result<Self, Error> {
        if !(1..=gic::MAX_CPUS).contains(&config.cpus) {
            return Err(Error::CpuCount(config.cpus));
        }
        let memory = Memory::new(RAM_BASE, config.memory_size)?;
        let mut vm = Self::with(config, memory);
        vm.reset();
        Ok(vm)
    }

    /// With this RAM, and all else new.
    pub(crate) fn with(config: Config, memory: Memory) -> Self {
        Self {
            config,
            icache: ICache::new(memory.size()),
            memory,
            cpus: (0..config.cpus).map(|cpu| Cpu::new(mpidr(cpu), &config)).collect(),
            broadcasts: Broadcasts::new(config.cpus),
            undefined: UndefinedLog::default(),
            gic: Gic::new(config.cpus),
            now: 0,
            turn: Turn::FIRST,
            budget: None,
            alarm: None,
            kick: Kicker::default(),
        }
    }

    /// All CPUs and the interrupt controller as they come out of reset, the first CPU on, the others
    /// off. RAM, time, steps and budgets stay.
    pub fn reset(&mut self) {
        self.gic = Gic::new(self.cpus.len());
        self.turn = Turn::FIRST;
        for (index, cpu) in self.cpus.iter_mut().enumerate() {
            cpu.reset(&self.config);
            cpu.wait = if index == 0 { Wait::No } else { Wait::Off };
        }
    }

    /// `KVM_IRQ_LINE`: drives the line of an SPI.
    ///
    /// # Errors
    /// [`Error::NoInterrupt`].
    pub fn set_irq_line(&mut self, intid: u32, high: bool) -> Result<(), Error> {
        if self.gic.set_line(intid, high).ok_or(Error::NoInterrupt(intid))? {
            for (index, cpu) in self.cpus.iter_mut().enumerate() {
                cpu.set_signals(self.gic.signals(index));
            }
        }
        Ok(())
    }

    /// How many steps all CPUs together may do from now on in [`Vm::run`]; when they are used up a
    /// run ends with [`Exit::Intr`](seawall_inject::Exit::Intr). `None`: no limit, as it is at first.
    pub fn set_budget(&mut self, budget: Option<u64>) {
        self.budget = budget;
    }

    /// What ends a run from another thread.
    pub fn kicker(&self) -> Kicker {
        self.kick.clone()
    }

    /// Steps left of the budget.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// When [`Vm::run`] is to come back with [`Exit::Intr`](seawall_inject::Exit::Intr), by [`Vm::time`]: at that very step,
    /// or then if all CPUs wait. It comes back each time that it is called then, until the alarm is another. The host has
    /// it: it is no part of a snapshot.
    pub fn set_alarm(&mut self, time: Option<u64>) {
        self.alarm = time;
    }

    /// Steps that all CPUs did since the machine was made.
    pub fn instructions(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.steps).sum()
    }

    /// The machine's time, in steps: those that its CPUs did, and what was skipped while all of them
    /// waited. Sixteen of them are a tick of the counter (CNTVCT_EL0, 62.5 MHz), a billion a second.
    pub fn time(&self) -> u64 {
        self.now
    }

    /// What the machine was created with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// RAM.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// RAM, for the host to write to. Write with [`Memory::store`], which tells the CPU of code that
    /// it must decode anew.
    pub fn memory_mut(&mut self) -> &mut Memory {
        self.host_touches_memory();
        &mut self.memory
    }

    /// Poisons every line that `range` (physical addresses) touches; gives how many were clean. The
    /// very next access consumes it.
    ///
    /// # Errors
    /// [`Error::Memory`] if the range is empty or not in RAM.
    pub fn poison(&mut self, range: Range<u64>) -> Result<u64, Error> {
        self.host_touches_memory();
        Ok(self.memory.poison(range)?)
    }

    /// Heals every line that `range` (physical addresses) touches; gives how many were poisoned.
    ///
    /// # Errors
    /// [`Error::Memory`] if the range is empty or not in RAM.
    pub fn heal(&mut self, range: Range<u64>) -> Result<u64, Error> {
        self.host_touches_memory();
        Ok(self.memory.heal(range)?)
    }

    /// How guest code is run: [`Translation::Off`] if the host has no translations.
    pub fn translation(&self) -> Translation {
        self.icache.jit.mode()
    }

    /// Choose how guest code is run, at any time. The guest cannot tell.
    pub fn set_translation(&mut self, translation: Translation) {
        if translation != self.translation() {
            self.icache.clear(&mut self.memory);
            self.cpus.iter_mut().for_each(|cpu| cpu.tlb.clear_fetch());
            self.icache.jit.set_mode(translation);
        }
    }

    /// How many CPUs there are.
    pub fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// A CPU, to run it and to get at its registers.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn vcpu(&mut self, index: usize) -> Result<Vcpu<'_>, Error> {
        Vcpu::new(self, index)
    }

    /// A CPU that is not running, and RAM beside it: to inject an abort, and write the record of the error that the guest
    /// looks for.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn split(&mut self, index: usize) -> Result<(Stopped<'_>, &mut Memory), Error> {
        self.host_touches_memory();
        let Self { config, cpus, memory, .. } = self;
        Ok((Stopped::new(config, cpus, index, memory)?, memory))
    }

    /// The UNDEFINED instructions that the guest executed.
    pub fn undefined(&self) -> &UndefinedLog {
        &self.undefined
    }

    /// The host may change bytes or poison: before a CPU runs again it must look.
    fn host_touches_memory(&mut self) {
        self.cpus.iter_mut().for_each(|cpu| cpu.host_touched_memory = true);
        self.note_time();
    }
}

impl fmt::Debug for Vm {
    /// What it was created with, not all of RAM.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("config", &self.config)
            .field("undefined", &self.undefined)
            .finish_non_exhaustive()
    }
}
