//! The state of one CPU: registers, PSTATE, translation context, and why it last stopped.

// On the path of every load and store.
#![allow(clippy::inline_always)]

use seawall_arm::{Pstate, Reg, Registers};
use seawall_events::kernel::{LastFault, VirtualSError};

use crate::bus::{BusAccess, Replay};
use crate::debug::Debug;
use crate::decode::{Kind, insn};
use crate::el2::{Banked, El2};
use crate::float::Env;
use crate::gic::Signals;
use crate::jit;
use crate::pmu::Pmu;
use crate::sysreg::{CPACR_FPEN, SysRegs};
use crate::tlb::{Tlb, View};
use crate::trap::Trap;
use crate::vm::{Config, NoSyndrome, StorePolicy};
use crate::walk::Regime;

/// Bits of physical address that the CPU has (ID_AA64MMFR0_EL1.PARange = 5).
pub(crate) const PA_BITS: u32 = 48;

/// PSTATE, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// N Z C V, bits 3 to 0.
    pub(crate) nzcv: u8,
    /// 0: EL0. 1: EL1, or EL2 while the registers in place are EL2's ([`El2`]).
    pub(crate) el: u8,
    /// SPSel: EL1 uses SP_EL1, EL2 SP_EL2.
    pub(crate) sp_el1: bool,
    /// BTYPE, bits 1 and 0.
    pub(crate) btype: u8,
    /// All other bits, in the format of SPSR_ELx: DIT, UAO, PAN, SS, IL, SSBS, DAIF.
    pub(crate) rest: u64,
}

/// The PSTATE bits that are kept in [`State::rest`].
const REST: u64 =
    Pstate::DIT | Pstate::UAO | Pstate::PAN | Pstate::SS | Pstate::IL | Pstate::SSBS | Pstate::DAIF;

/// The exclusive monitor: what the last load-exclusive marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Monitor {
    /// Where the first byte is.
    pub(crate) pa: u64,
    /// Bytes marked.
    pub(crate) size: u64,
    /// The value that was loaded. A store-exclusive to RAM fails if memory holds another one.
    pub(crate) value: u128,
}

/// An MMIO access that the host was asked to do: the instruction completes, or goes on, at the next run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PendingMmio {
    /// It is the whole instruction.
    Register {
        /// The register and what it gets; a store has nothing to get.
        kind: Kind,
        rd: u8,
        /// What the device answered, little-endian.
        data: [u8; 8],
    },
    /// It is one of the instruction's accesses: the last of these, whose answer may still come.
    Accesses(Vec<BusAccess>),
}

/// What a CPU waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Wait {
    /// It runs.
    No,
    /// WFE: an event, or another CPU's having run, which may have stored to what this one marked.
    Event,
    /// WFI: an interrupt, masked or not.
    Interrupt,
    /// To be turned on (PSCI).
    Off,
}

/// What is dropped of TLBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalidation {
    /// Everything.
    All,
    /// The parts that depend on the address space.
    AddressSpace,
    /// The page or block that this virtual address is in.
    Address(u64),
    /// Stores to this page of RAM: it has got decoded instructions.
    WritesTo(u32),
    /// Fetches: decoded pages have other numbers.
    Fetches,
}

/// TLB maintenance of a translation regime. What is about RAM's pages alone goes to the TLBs of all regimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Maintenance {
    pub(crate) of: Banked,
    pub(crate) what: Invalidation,
}

/// One CPU.
#[derive(Debug)]
// Registers begin on a cache line: where they do not, the ALU loop takes a third longer.
#[repr(align(64))]
pub(crate) struct Cpu {
    /// Register slots: X0 to X30, zero, the current SP, the sink; the rest make the index a mask.
    pub(crate) regs: [u64; 64],
    /// The state of translated code while it runs.
    pub(crate) jit: jit::Context,
    /// Offsets in RAM that translated code keeps from one access to another.
    #[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
    pub(crate) kept: [u64; jit::KEPT],
    /// Address of the instruction to execute next.
    pub(crate) pc: u64,
    pub(crate) state: State,
    /// The stack pointers of EL0 and EL1, or EL2; that of the current one is stale, it is in `regs`.
    pub(crate) banked_sp: [u64; 2],
    /// V0 to V31.
    pub(crate) v: [u128; 32],
    /// FPCR and FPSR.
    pub(crate) fp: Env,
    /// CPACR_EL1.FPEN lets the current EL use FP and AdvSIMD.
    pub(crate) fp_enabled: bool,
    /// Those of the translation regime that the CPU is in.
    pub(crate) sys: SysRegs,
    /// EL2, if the CPU has it.
    pub(crate) el2: Option<Box<El2>>,
    pub(crate) pmu: Pmu,
    pub(crate) debug: Debug,
    pub(crate) tlb: Tlb,
    /// With whose rights loads and stores go: an index into the TLB's arrays.
    pub(crate) view: View,
    /// SCTLR_EL1.SA for the current EL: SP must be aligned when it is a base.
    pub(crate) sp_must_align: bool,
    pub(crate) monitor: Option<Monitor>,
    /// Steps done before the interpreter was entered; see [`crate::Vcpu::instructions`].
    pub(crate) steps: u64,
    /// Steps done since then, where an instruction reads a counter.
    pub(crate) elapsed: u64,
    /// The interpreter is to leave after the current instruction.
    pub(crate) attention: bool,
    /// Why the current instruction did not complete.
    pub(crate) trap: Trap,
    /// The machine's time less this CPU's steps.
    pub(crate) clock: u64,
    /// After how many steps of this CPU a timer or the cycle counter asserts its interrupt.
    pub(crate) deadline: u64,
    /// A timer was set, or time has passed while another CPU ran.
    pub(crate) timers_changed: bool,
    /// What the GIC signals.
    pub(crate) signals: Signals,
    /// The event register.
    pub(crate) event: bool,
    pub(crate) wait: Wait,
    /// TLB maintenance that the other CPUs have not been told of yet.
    pub(crate) broadcast: Vec<Maintenance>,
    /// Bytes written in pages with decoded instructions: offset in RAM and length, 0 if none.
    pub(crate) written_code: [(usize, usize); 2],
    /// All decoded instructions are to be dropped (IC IALLU).
    pub(crate) drop_code: bool,
    /// After how many steps the last indirect branch landed, and its BTYPE: BRK's SPSR keeps it.
    pub(crate) landing: (u64, u8),
    /// HCR_EL2.VSE and VSESR_EL2: the virtual SError that waits.
    pub(crate) serror: VirtualSError,
    /// ESR_EL2, FAR_EL2 and HPFAR_EL2 of the last abort that the host saw.
    pub(crate) last_fault: LastFault,
    /// An MMIO access that waits for the host's answer.
    pub(crate) mmio: Option<PendingMmio>,
    /// Accesses of the bus that the instruction at the PC has done; empty outside a run.
    pub(crate) replay: Replay,
    /// Accesses without a syndrome are served ([`NoSyndrome::Serve`]).
    pub(crate) serves_all: bool,
    /// Stores to poisoned lines abort.
    pub(crate) store_policy: StorePolicy,
    /// The CPU has FEAT_RAS.
    pub(crate) ras: bool,
    /// Steps that the host still allows.
    pub(crate) budget: Option<u64>,
    /// The host may have changed bytes or poison since the last run.
    pub(crate) host_touched_memory: bool,
}

impl Cpu {
    /// A CPU as it comes out of reset: EL1h, DAIF set, MMU off, all else 0.
    pub(crate) fn new(mpidr: u64, config: &Config) -> Self {
        let mut cpu = Self {
            regs: [0; 64],
            jit: jit::Context::default(),
            kept: [0; jit::KEPT],
            pc: 0,
            state: State { nzcv: 0, el: 1, sp_el1: true, btype: 0, rest: Pstate::DAIF },
            banked_sp: [0; 2],
            v: [0; 32],
            fp: Env::new(),
            fp_enabled: false,
            sys: SysRegs::new(mpidr),
            el2: config.el2.then(|| Box::new(El2::new(mpidr))),
            pmu: Pmu::new(),
            debug: Debug::new(),
            tlb: Tlb::new(),
            view: View::El1,
            sp_must_align: false,
            monitor: None,
            steps: 0,
            elapsed: 0,
            attention: false,
            trap: Trap::None,
            clock: 0,
            deadline: u64::MAX,
            timers_changed: true,
            signals: Signals::default(),
            event: false,
            wait: Wait::No,
            broadcast: Vec::new(),
            written_code: [(0, 0); 2],
            drop_code: false,
            landing: (0, 0),
            serror: VirtualSError::default(),
            last_fault: LastFault::default(),
            mmio: None,
            replay: Replay::default(),
            serves_all: config.el2 || config.no_syndrome == NoSyndrome::Serve,
            store_policy: config.store_policy,
            ras: config.ras,
            budget: None,
            host_touched_memory: true,
        };
        cpu.context_changed();
        cpu
    }

    /// The CPU as it comes out of reset; steps, budget and time stay.
    pub(crate) fn reset(&mut self, config: &Config) {
        let (steps, budget, clock) = (self.steps, self.budget, self.clock);
        *self = Self { steps, clock, budget, ..Self::new(self.mpidr(), config) };
    }

    /// A register slot.
    #[inline(always)]
    pub(crate) fn slot(&self, n: u8) -> u64 {
        self.regs[n as usize & 63]
    }

    /// Set a register slot.
    #[inline(always)]
    pub(crate) fn set_slot(&mut self, n: u8, value: u64) {
        self.regs[n as usize & 63] = value;
    }

    /// Leave the interpreter after the current instruction.
    pub(crate) fn call_attention(&mut self) {
        self.attention = true;
    }

    /// The time of the next interrupt of a timer or the cycle counter may be another now.
    pub(crate) fn deadline_changed(&mut self) {
        self.timers_changed = true;
        self.call_attention();
    }

    /// True if an interrupt or SError is pending, masked or not.
    #[inline(always)]
    pub(crate) fn is_signalled(&self) -> bool {
        self.serror.pending | self.signals.any()
    }

    /// The controller's signals.
    pub(crate) fn set_signals(&mut self, physical: Signals) {
        self.signals = self.signals.with_physical(physical);
    }

    /// Do TLB maintenance.
    pub(crate) fn invalidate(&mut self, maintenance: Maintenance) {
        match maintenance.what {
            Invalidation::All => self.tlb_of(maintenance.of).clear(),
            Invalidation::AddressSpace => self.tlb_of(maintenance.of).drop_address_space(),
            Invalidation::Address(va) => self.tlb_of(maintenance.of).drop_address(va),
            Invalidation::WritesTo(page) => self.tlbs().for_each(|tlb| tlb.drop_writes_to(&[page])),
            Invalidation::Fetches => self.tlbs().for_each(Tlb::clear_fetch),
        }
    }

    /// The Exception level: 0 to 2.
    pub(crate) fn exception_level(&self) -> u8 {
        if self.state.el != 0 && self.is_host() { 2 } else { self.state.el }
    }

    /// PSTATE in the format of SPSR_ELx.
    pub(crate) fn pstate(&self) -> u64 {
        let state = &self.state;
        let mode = u64::from(self.exception_level()) << 2 | u64::from(state.sp_el1);
        u64::from(state.nzcv) << 28 | state.rest | u64::from(state.btype) << 10 | mode
    }

    /// Set all of PSTATE; bits that this CPU does not have are dropped. The mode must be EL0t,
    /// EL1t, EL1h, or where there is EL2 EL2t or EL2h.
    pub(crate) fn set_pstate(&mut self, value: u64) {
        self.save_sp();
        if self.el2.is_some() {
            self.enter_mode(value);
        }
        let el = u8::from(value >> 2 & 3 != 0);
        self.state = State {
            nzcv: (value >> 28 & 15) as u8,
            el,
            sp_el1: el == 1 && value & 1 == 1,
            btype: (value >> 10 & 3) as u8,
            rest: value & REST,
        };
        self.load_sp();
        self.context_changed();
    }

    /// Switch between SP_EL0 and SP_EL1 at EL1 (PSTATE.SP).
    pub(crate) fn select_sp(&mut self, el1: bool) {
        self.save_sp();
        self.state.sp_el1 = el1;
        self.load_sp();
    }

    pub(crate) fn save_sp(&mut self) {
        self.banked_sp[usize::from(self.state.sp_el1)] = self.slot(insn::SP);
    }

    pub(crate) fn load_sp(&mut self) {
        self.set_slot(insn::SP, self.banked_sp[usize::from(self.state.sp_el1)]);
    }

    /// SP_EL0 or SP_EL1.
    pub(crate) fn sp(&self, el1: bool) -> u64 {
        if self.state.sp_el1 == el1 { self.slot(insn::SP) } else { self.banked_sp[usize::from(el1)] }
    }

    /// Set SP_EL0 or SP_EL1.
    pub(crate) fn set_sp(&mut self, el1: bool, value: u64) {
        if self.state.sp_el1 == el1 {
            self.set_slot(insn::SP, value);
        } else {
            self.banked_sp[usize::from(el1)] = value;
        }
    }

    /// A V register.
    pub(crate) fn vector(&self, n: u8) -> u128 {
        self.v[n as usize & 31]
    }

    /// Set all 128 bits of a V register.
    pub(crate) fn set_vector(&mut self, n: u8, value: u128) {
        self.v[n as usize & 31] = value;
    }

    /// Bring up to date what is derived from PSTATE, SCTLR_EL1 and CPACR_EL1.
    pub(crate) fn context_changed(&mut self) {
        let is_el0 = self.state.el == 0;
        self.view = match (is_el0, self.state.rest & Pstate::PAN != 0) {
            (true, _) => View::El0,
            (false, false) => View::El1,
            (false, true) => View::El1Pan,
        };
        // FPEN 01 traps EL0, x0 both.
        self.fp_enabled = match self.sys.cpacr >> 20 & 3 {
            1 => !is_el0,
            fpen => fpen == 3,
        };
        if self.el2.is_some() {
            self.fp_enabled &= !self.traps_fp();
        }
        self.sp_must_align = self.sys.sctlr >> if is_el0 { 4 } else { 3 } & 1 != 0;
        if self.pmu.enter_el(self.exception_level(), self.steps.wrapping_add(self.elapsed)) {
            self.deadline_changed();
        }
    }

    /// MPIDR_EL1.
    pub(crate) fn mpidr(&self) -> u64 {
        self.sys.mpidr
    }

    /// The registers of translation.
    pub(crate) fn regime(&self) -> Regime {
        let SysRegs { sctlr, tcr, ttbr0, ttbr1, mair, .. } = self.sys;
        let stage2 = if self.el2.is_some() { self.stage2() } else { None };
        Regime { sctlr, tcr, ttbr0, ttbr1, mair, pa_bits: PA_BITS, stage2 }
    }
}

impl Registers for Cpu {
    #[inline(always)]
    fn reg(&self, reg: Reg) -> u64 {
        let sys = self.registers_of(Banked::El10);
        match reg {
            Reg::X(n @ 0..=30) => self.slot(n),
            Reg::Pc => self.pc,
            Reg::Pstate => self.pstate(),
            Reg::SpEl0 => self.sp(false),
            Reg::SpEl1 => self.sp_el1(),
            Reg::ElrEl1 => sys.elr,
            Reg::SpsrEl1 => sys.spsr,
            Reg::EsrEl1 => sys.esr,
            Reg::FarEl1 => sys.far,
            Reg::VbarEl1 => sys.vbar,
            Reg::SctlrEl1 => sys.sctlr,
            Reg::TcrEl1 => sys.tcr,
            Reg::Ttbr0El1 => sys.ttbr0,
            Reg::Ttbr1El1 => sys.ttbr1,
            Reg::MairEl1 => sys.mair,
            Reg::CpacrEl1 => sys.cpacr,
            Reg::ContextidrEl1 => sys.contextidr,
            // One register for all Exception levels.
            Reg::TpidrEl0 => self.sys.tpidr_el0,
            Reg::TpidrEl1 => self.sys.tpidr_el1,
            Reg::DisrEl1 => self.sys.disr,
            _ => self.el2_reg(reg),
        }
    }

    #[inline(always)]
    fn set_reg(&mut self, reg: Reg, value: u64) {
        match reg {
            Reg::X(n @ 0..=30) => self.set_slot(n, value),
            Reg::Pc => self.pc = value,
            Reg::Pstate => self.set_pstate(value),
            Reg::SpEl0 => self.set_sp(false, value),
            Reg::SpEl1 => self.set_sp_el1(value),
            Reg::TpidrEl0 => self.sys.tpidr_el0 = value,
            Reg::TpidrEl1 => self.sys.tpidr_el1 = value,
            Reg::DisrEl1 => self.sys.disr = value,
            _ => self.set_banked_reg(reg, value),
        }
    }
}

impl Cpu {
    /// The registers of which EL1 and EL2 each have their own.
    #[inline]
    fn set_banked_reg(&mut self, reg: Reg, value: u64) {
        let sys = self.registers_of_mut(Banked::El10);
        match reg {
            Reg::ElrEl1 => sys.elr = value,
            Reg::SpsrEl1 => sys.spsr = value,
            Reg::EsrEl1 => sys.esr = value,
            Reg::FarEl1 => sys.far = value,
            Reg::VbarEl1 => sys.vbar = value,
            Reg::ContextidrEl1 => sys.contextidr = value,
            Reg::CpacrEl1 => {
                sys.cpacr = value & CPACR_FPEN;
                self.context_changed();
            }
            Reg::SctlrEl1 => {
                sys.sctlr = value;
                self.tlb_of(Banked::El10).clear();
                self.context_changed();
            }
            Reg::TcrEl1 | Reg::Ttbr0El1 | Reg::Ttbr1El1 | Reg::MairEl1 => {
                let register = match reg {
                    Reg::TcrEl1 => &mut sys.tcr,
                    Reg::Ttbr0El1 => &mut sys.ttbr0,
                    Reg::Ttbr1El1 => &mut sys.ttbr1,
                    _ => &mut sys.mair,
                };
                *register = value;
                self.tlb_of(Banked::El10).clear();
            }
            _ => self.set_el2_reg(reg, value),
        }
    }
}
