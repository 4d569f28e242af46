//! What a snapshot keeps of a machine beside RAM.

use serde::{Deserialize, Serialize};

use seawall_arm::{Esr, Pstate};
use seawall_events::kernel::{LastFault, VirtualSError};

use crate::bus::{self, BusAccess, Replay};
use crate::cpu::{Cpu, Monitor, PendingMmio, Wait};
use crate::debug::Debug;
use crate::decode::{Kind, insn};
use crate::el2;
use crate::gic::Gic;
use crate::pmu::Pmu;
use crate::poison::Poison;
use crate::psci::mpidr;
use crate::schedule::Turn;
use crate::sysreg::SysRegs;
use crate::trap::Trap;
use crate::vm::{Config, UndefinedLog, Vm};

/// Steps and times in a snapshot are below this, so that what comes on top of them fits in 64 bits.
const MOST_STEPS: u64 = 1 << 62;

/// What the guest can see of its machine, but for RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Visible {
    cpus: Vec<CpuState>,
    gic: Gic,
    turn: Turn,
    pub(super) now: u64,
    poison: Poison,
}

/// A machine, but for RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) visible: Visible,
    /// Of each CPU what EL2 has, if they have it: visible as well.
    pub(super) el2: Vec<el2::Saved>,
    undefined: UndefinedLog,
    budget: Option<u64>,
    cpu_budgets: Vec<Option<u64>>,
}

/// One CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CpuState {
    /// X0 to X30.
    x: [u64; 31],
    pc: u64,
    pstate: u64,
    /// SP_EL0 and SP_EL1.
    sp: [u64; 2],
    v: [u128; 32],
    fpcr: u64,
    fpsr: u64,
    sys: SysRegs,
    pmu: Pmu,
    debug: Debug,
    monitor: Option<Monitor>,
    steps: u64,
    event: bool,
    wait: Wait,
    landing: (u64, u8),
    /// [`VirtualSError`]: pending, vsesr, held_for_el2.
    serror: (bool, u64, bool),
    /// [`LastFault`]: esr, far, ipa.
    last_fault: (u64, u64, Option<u64>),
    mmio: Option<SavedMmio>,
}

/// [`PendingMmio`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedMmio {
    /// The number of its kind, rd, data.
    Register(u8, u8, [u8; 8]),
    Accesses(Vec<BusAccess>),
}

impl SavedMmio {
    fn of(mmio: &PendingMmio) -> Self {
        match mmio {
            PendingMmio::Register { kind, rd, data } => {
                let number = Kind::ALL.iter().position(|k| k == kind);
                debug_assert!(number.is_some(), "{kind:?} is not among all kinds");
                Self::Register(number.unwrap_or(0) as u8, *rd, *data)
            }
            PendingMmio::Accesses(accesses) => Self::Accesses(accesses.clone()),
        }
    }

    fn pending(&self) -> Option<PendingMmio> {
        match self {
            Self::Register(kind, rd, data) => {
                let kind = Kind::ALL.get(usize::from(*kind)).copied()?;
                Some(PendingMmio::Register { kind, rd: *rd, data: *data })
            }
            Self::Accesses(accesses) => Some(PendingMmio::Accesses(accesses.clone())),
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            Self::Register(kind, rd, _) => usize::from(*kind) < Kind::ALL.len() && *rd <= insn::SINK,
            Self::Accesses(accesses) => {
                (1..=bus::MOST).contains(&accesses.len()) && accesses.iter().all(BusAccess::is_sound)
            }
        }
    }
}

impl CpuState {
    fn of(cpu: &Cpu) -> Self {
        // All fields by name: whoever adds one must decide here what becomes of it.
        let Cpu {
            regs: _,
            pc,
            state: _,
            banked_sp: _,
            v,
            fp,
            sys,
            // See State.
            el2: _,
            pmu,
            debug,
            monitor,
            steps,
            event,
            wait,
            landing,
            serror: VirtualSError { pending, vsesr, held_for_el2 },
            last_fault: LastFault { esr, far, ipa },
            mmio,
            // Follow from the rest.
            fp_enabled: _,
            view: _,
            sp_must_align: _,
            clock: _,
            deadline: _,
            timers_changed: _,
            signals: _,
            serves_all: _,
            store_policy: _,
            ras: _,
            // Dropped, or done.
            replay: _,
            jit: _,
            kept: _,
            tlb: _,
            elapsed: _,
            attention: _,
            trap: _,
            broadcast: _,
            written_code: _,
            drop_code: _,
            host_touched_memory: _,
            // The host's: see State.
            budget: _,
        } = cpu;
        // At any step there is one way to write the counter down.
        let mut pmu = pmu.clone();
        pmu.advance(*steps);
        Self {
            x: std::array::from_fn(|n| cpu.slot(n as u8)),
            pc: *pc,
            pstate: cpu.pstate(),
            sp: [cpu.sp(false), cpu.sp(true)],
            v: *v,
            fpcr: fp.fpcr(),
            fpsr: fp.fpsr(),
            sys: sys.clone(),
            pmu,
            debug: debug.clone(),
            monitor: *monitor,
            steps: *steps,
            event: *event,
            wait: *wait,
            landing: *landing,
            serror: (*pending, *vsesr, *held_for_el2),
            last_fault: (esr.bits(), *far, *ipa),
            mmio: mmio.as_ref().map(SavedMmio::of),
        }
    }

    /// The CPU becomes this, but for its budget and what the GIC signals.
    fn apply(&self, cpu: &mut Cpu, now: u64) {
        for (n, value) in (0..).zip(self.x) {
            cpu.set_slot(n, value);
        }
        cpu.pc = self.pc;
        cpu.sys = self.sys.clone();
        cpu.set_pstate(self.pstate);
        cpu.set_sp(false, self.sp[0]);
        cpu.set_sp(true, self.sp[1]);
        cpu.v = self.v;
        cpu.fp.set_fpcr(self.fpcr);
        cpu.fp.set_fpsr(self.fpsr);
        cpu.monitor = self.monitor;
        cpu.steps = self.steps;
        cpu.pmu = self.pmu.clone();
        cpu.debug = self.debug.clone();
        cpu.event = self.event;
        cpu.wait = self.wait;
        cpu.landing = self.landing;
        let (pending, vsesr, held_for_el2) = self.serror;
        cpu.serror = VirtualSError { pending, vsesr, held_for_el2 };
        let (esr, far, ipa) = self.last_fault;
        cpu.last_fault = LastFault { esr: Esr::from_bits(esr), far, ipa };
        cpu.mmio = self.mmio.as_ref().and_then(SavedMmio::pending);

        cpu.clock = now.wrapping_sub(self.steps);
        cpu.timers_changed = true;
        cpu.elapsed = 0;
        cpu.attention = false;
        cpu.trap = Trap::None;
        cpu.replay = Replay::default();
        cpu.broadcast.clear();
        cpu.written_code = Default::default();
        cpu.drop_code = false;
        // Not again: the TLB is empty, and decoded instructions are those of RAM.
        cpu.host_touched_memory = false;
    }

    fn check(&self, index: usize, el2: Option<&el2::Saved>) -> Result<(), &'static str> {
        let mode = match self.pstate & Pstate::M {
            0b00000 | 0b00100 | 0b00101 => true,
            0b01000 | 0b01001 => el2.is_some(),
            _ => false,
        };
        for (is_sound, what) in [
            (mode, "a CPU's PSTATE has a mode that this CPU does not have"),
            (self.sys.is_sound() && self.sys.mpidr == mpidr(index), "a CPU's system registers"),
            (el2.is_none_or(|el2| el2.is_sound(self.pstate)), "a CPU's EL2"),
            (self.pmu.is_sound((self.pstate >> 2 & 3) as u8), "a CPU's performance monitor"),
            (self.debug.is_sound(), "a CPU's debug registers"),
            (self.steps < MOST_STEPS, "a CPU's steps"),
            (self.landing.1 < 4, "a CPU's BTYPE"),
            (
                self.monitor.is_none_or(|monitor| matches!(monitor.size, 1 | 2 | 4 | 8 | 16)),
                "a CPU's exclusive monitor",
            ),
            (self.mmio.as_ref().is_none_or(SavedMmio::is_sound), "a CPU's MMIO access that waits"),
        ] {
            if !is_sound {
                return Err(what);
            }
        }
        Ok(())
    }
}

impl Visible {
    pub(super) fn of(vm: &Vm) -> Self {
        Self {
            cpus: vm.cpus.iter().map(CpuState::of).collect(),
            gic: vm.gic.clone(),
            turn: vm.turn,
            now: vm.now,
            poison: vm.memory.all_poison().clone(),
        }
    }
}

impl State {
    pub(super) fn of(vm: &Vm) -> Self {
        // All fields by name: whoever adds one must decide here what becomes of it.
        let Vm {
            config: _,
            memory: _,
            icache: _,
            cpus,
            // TLBs are dropped.
            broadcasts: _,
            undefined,
            gic: _,
            now: _,
            turn: _,
            budget,
            // The host's of the moment.
            alarm: _,
            kick: _,
        } = vm;
        Self {
            visible: Visible::of(vm),
            el2: Self::el2_of(vm),
            undefined: *undefined,
            budget: *budget,
            cpu_budgets: cpus.iter().map(|cpu| cpu.budget).collect(),
        }
    }

    /// What EL2 has, of each CPU that has it.
    pub(super) fn el2_of(vm: &Vm) -> Vec<el2::Saved> {
        vm.cpus.iter().filter_map(|cpu| cpu.el2.as_ref()).map(|el2| el2.save()).collect()
    }

    /// The machine becomes this, but for RAM. It must have been created with the same [`Config`].
    pub(super) fn apply(&self, vm: &mut Vm) {
        let Visible { cpus, gic, turn, now, poison } = &self.visible;
        vm.gic.clone_from(gic);
        vm.turn = *turn;
        vm.now = *now;
        vm.undefined = self.undefined;
        vm.budget = self.budget;
        if vm.memory.all_poison() != poison {
            vm.memory.set_all_poison(poison);
            vm.icache.drop_poisoned(&vm.memory);
        }
        let saved = cpus.iter().zip(&self.cpu_budgets);
        let mut of_el2 = self.el2.iter();
        for (index, (cpu, (saved, budget))) in vm.cpus.iter_mut().zip(saved).enumerate() {
            // First: it says whose the registers in place are.
            if let (Some(el2), Some(saved)) = (&mut cpu.el2, of_el2.next()) {
                el2.restore(saved);
            }
            saved.apply(cpu, *now);
            cpu.set_signals(vm.gic.signals(index));
            cpu.refresh_virtual_signals();
            cpu.attention = false;
            cpu.budget = *budget;
        }
        vm.restart_exit_trace();
    }

    /// True if a machine created with `config` can be in this state.
    ///
    /// # Errors
    /// What of it cannot be.
    pub(super) fn check(&self, config: &Config) -> Result<(), &'static str> {
        let Visible { cpus, gic, turn, now, poison } = &self.visible;
        let pages = config.memory_size / crate::memory::PAGE_SIZE;
        for (is_sound, what) in [
            (cpus.len() == config.cpus, "the number of CPUs"),
            (self.el2.len() == if config.el2 { config.cpus } else { 0 }, "the number of CPUs with EL2"),
            (self.cpu_budgets.len() == config.cpus, "the number of CPUs' budgets"),
            (gic.is_sound(config.cpus), "the interrupt controller"),
            (turn.is_sound(config.cpus), "whose turn it is"),
            (*now < MOST_STEPS, "the time"),
            (self.undefined.count() < MOST_STEPS, "the number of UNDEFINED instructions"),
            (poison.pages().next_back().is_none_or(|page| (page as u64) < pages), "poison outside RAM"),
        ] {
            if !is_sound {
                return Err(what);
            }
        }
        let total = cpus.iter().try_fold(0_u64, |sum, cpu| sum.checked_add(cpu.steps));
        if total.is_none_or(|total| total >= MOST_STEPS) {
            return Err("the CPUs' steps");
        }
        cpus.iter().enumerate().try_for_each(|(index, cpu)| cpu.check(index, self.el2.get(index)))
    }
}
