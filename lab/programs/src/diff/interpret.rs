//! A run on the model: KVM's steps around it, the waiting SError, a few instructions.

use std::sync::Arc;

use seawall_arm::{
    EntryContext, Esr, Exception, ExceptionClass, ExceptionLevel, Pstate, Reg, Registers as _, Target,
    Vector, hcr, hcrx, sctlr, sctlr2, take_exception,
};
use seawall_events::kernel::{PendingSError, finish_run, prepare_run};
use seawall_inject::{Exit, SystemEvent};
use seawall_model::{Access, Transfer, Vcpu};

use super::code::{Action, Instruction, POISON, is_memory};
use super::cpu::is_of_el1;
use super::model::{Model, Ran, Unpredictable};
use super::{Cpu, Guest, configuration};

/// More instructions than any program needs to its exit.
const ENOUGH: u32 = 64;
/// SCTLR_EL1.UMA, EL0 may access PSTATE.DAIF.
const UMA: u64 = 1 << 9;
impl Model {
    /// `KVM_RUN`.
    pub fn go(&mut self, immediate: bool) -> Ran {
        if !self.powered_on && !immediate {
            return Ran::Unpredictable(Unpredictable::PoweredOff);
        }
        (self.by_either, self.by_cpu) = (false, false);
        let cpu = Arc::clone(&self.cpu);
        self.vcpu.begin_run(immediate, |vcpu| load(&cpu, vcpu, immediate));
        if immediate {
            return Ran::Exit(Exit::Intr);
        }
        if let Some(why) = self.why_not() {
            return Ran::Unpredictable(why);
        }
        let entered = self.vcpu.pstate().masked(self.cpu.pstate);
        if self.vcpu.pstate().is_aarch32() && self.vcpu.pstate().has(Pstate::IL) {
            return Ran::Unpredictable(Unpredictable::Pstate);
        }
        self.vcpu.set_reg(Reg::Pstate, entered);
        self.align_pc();
        for _ in 0..ENOUGH {
            let spsr_abt = self.vcpu.reg(Reg::SpsrAbt);
            if matches!(prepare_run(&mut self.vcpu), PendingSError::Taken(_)) {
                self.enter_as_the_cpu_does();
                self.by_either = self.cpu.config.el2;
                self.by_cpu = true;
                if self.cpu.hides_spsr {
                    self.vcpu.set_reg(Reg::SpsrAbt, spsr_abt);
                }
            }
            if let Some(ran) = self.step() {
                return ran;
            }
        }
        Ran::Unpredictable(Unpredictable::Endless)
    }

    /// The entry to AArch32 state drops the low bits of PC: bit 0 in T32 state, bits `[1:0]` in A32 state.
    ///
    /// Source: DDI 0487, `AArch64.ExceptionReturn`.
    fn align_pc(&mut self) {
        let pstate = self.vcpu.pstate();
        if pstate.is_aarch32() {
            let low = if pstate.has(Pstate::T) { 1 } else { 3 };
            let pc = self.vcpu.reg(Reg::Pc) & !low;
            self.vcpu.set_reg(Reg::Pc, pc);
        }
    }

    /// The reason why the model cannot run from here.
    fn why_not(&self) -> Option<Unpredictable> {
        let pstate = self.vcpu.pstate();
        let aarch32_guest = self.cpu.guest == Guest::Aarch32;
        let ours = |reg| {
            let high = aarch32_guest && self.vcpu.reg(Reg::SctlrEl1) & sctlr::V != 0;
            high || self.code.tables().contains(&self.vcpu.reg(reg))
        };
        if !ours(Reg::VbarEl1) || self.cpu.guest == Guest::Nested && !ours(Reg::VbarEl2) {
            return Some(Unpredictable::Vectors);
        }
        let at_el1 = pstate.exception_level() == ExceptionLevel::El1;
        if self.vcpu.is_hyp_context() && at_el1 {
            // With TGE there is no EL1.
            return Some(Unpredictable::Pstate);
        }
        if pstate.is_aarch32() != aarch32_guest || aarch32_guest && pstate.has(Pstate::IT) {
            return Some(Unpredictable::Pstate);
        }
        if self.code.at(self.vcpu.reg(Reg::Pc)).is_none() {
            return Some(Unpredictable::Pc);
        }
        if self.vcpu.serror.pending && self.cpu.config.el2 { self.why_not_with_an_serror() } else { None }
    }

    /// The same for a guest with EL2 and an SError that the CPU may take.
    fn why_not_with_an_serror(&self) -> Option<Unpredictable> {
        if !self.vcpu.is_hyp_context() {
            let set = |reg, bit| self.vcpu.reg(reg) & bit != 0;
            if set(Reg::Sctlr2El1, sctlr2::NMEA) && !set(Reg::HcrxEl2, hcrx::SCTLR2EN) {
                return Some(Unpredictable::Cpu);
            }
            // The CPU gives it the hypervisor's VSESR.
            if set(Reg::HcrEl2, hcr::AMO) || set(Reg::HcrxEl2, hcrx::TMEA) {
                return Some(Unpredictable::Routing);
            }
        }
        let mut interrupted = self.vcpu.clone();
        let here = if self.vcpu.is_hyp_context() { Target::El2 } else { Target::El1 };
        match finish_run(&mut interrupted) {
            PendingSError::Taken(target) if target == here => None,
            PendingSError::Waits if !interrupted.serror.held_for_el2 => None,
            _ => Some(Unpredictable::Routing),
        }
    }

    /// Executes one instruction; `None` if the guest runs on.
    fn step(&mut self) -> Option<Ran> {
        let pc = self.vcpu.reg(Reg::Pc);
        if is_bad(pc) {
            return self.consume(pc, Esr::from_bits(0x8200_0210));
        }
        let Some(instruction) = self.code.at(pc).copied() else {
            if self.vcpu.pstate().is_aarch32() {
                return Some(Ran::Unpredictable(Unpredictable::Pc));
            }
            if is_memory(self.cpu.guest, pc) || pc % 4 != 0 || pc >> 40 != 0 {
                return Some(Ran::Unpredictable(Unpredictable::Pc));
            }
            self.vcpu.fetch_from_hole(Esr::from_bits(0x8200_0005));
            // The CPU is then entered again.
            let entered = self.vcpu.pstate().masked(self.cpu.pstate);
            self.vcpu.set_reg(Reg::Pstate, entered);
            return None;
        };
        if instruction.thumb != (self.vcpu.pstate().is_aarch32() && self.vcpu.pstate().has(Pstate::T)) {
            return Some(Ran::Unpredictable(Unpredictable::Pstate));
        }
        // This applies only to an instruction that could be fetched. Source: DDI 0487, D1.3.5.5, priorities.
        if self.vcpu.pstate().has(Pstate::IL) {
            self.take_here(Esr::new(ExceptionClass::ILLEGAL_STATE, true, 0));
            return None;
        }
        self.execute(&instruction)
    }

    fn execute(&mut self, instruction: &Instruction) -> Option<Ran> {
        let at_el0 = self.vcpu.pstate().exception_level() == ExceptionLevel::El0;
        let aarch32 = self.vcpu.pstate().is_aarch32();
        match instruction.action {
            // UNDEFINED, and Undefined mode is not modelled.
            Action::Hypercall { .. } if aarch32 && at_el0 => {
                return Some(Ran::Unpredictable(Unpredictable::Pstate));
            }
            // CPS is a NOP in User mode.
            Action::Mask { .. } if aarch32 && at_el0 => {}
            // It traps without UMA, but not with the architecture's syndrome: QEMU swaps op1 and op2.
            Action::Mask { .. } if at_el0 && self.vcpu.reg(self.vcpu.sctlr()) & UMA == 0 => {
                return Some(Ran::Unpredictable(Unpredictable::Pstate));
            }
            Action::Load { .. } | Action::Store { .. } | Action::Unsyndromed { .. } => {
                return self.access(instruction);
            }
            Action::Mask { set, bits } => self.change_pstate(bits, set),
            Action::Field { privileged: true, .. } | Action::ExceptionReturn | Action::Hypercall { .. }
                if at_el0 =>
            {
                self.take_here(Esr::new(ExceptionClass::UNKNOWN, true, 0));
                return None;
            }
            // The CPU lacks the bit.
            Action::Field { bit, .. } if bit & self.cpu.pstate == 0 => {
                self.take_here(Esr::new(ExceptionClass::UNKNOWN, true, 0));
                return None;
            }
            Action::Field { bit, set, .. } => self.change_pstate(bit, set),
            Action::Constant { target, value, keep } => {
                let value = self.vcpu.reg(Reg::X(target)) & keep | value;
                self.vcpu.set_reg(Reg::X(target), value);
            }
            Action::Undefined => {
                self.take_here(Esr::new(ExceptionClass::UNKNOWN, true, 0));
                return None;
            }
            // It is CONSTRAINED UNPREDICTABLE if these two leave BTYPE in the SPSR: QEMU's do.
            Action::SupervisorCall { immediate } => {
                self.advance_pc(instruction);
                self.take_here(Esr::new(ExceptionClass::SVC64, true, immediate.into()));
                return None;
            }
            Action::Hypercall { immediate } => {
                self.advance_pc(instruction);
                return self.hypercall(immediate);
            }
            Action::ExceptionReturn => return self.exception_return(),
            Action::BranchTo(reg) => {
                let target = self.vcpu.reg(Reg::X(reg));
                self.vcpu.set_reg(Reg::Pc, target);
                // Not from a guarded page: BTYPE is 01 for any register.
                let pstate = self.vcpu.pstate().bits() & !Pstate::BTYPE | 1 << 10 & self.cpu.pstate;
                self.vcpu.set_reg(Reg::Pstate, pstate);
                return None;
            }
            Action::Branch(offset) => {
                let pc = self.vcpu.reg(Reg::Pc).wrapping_add_signed(offset);
                self.vcpu.set_reg(Reg::Pc, pc);
                self.clear_btype();
                return None;
            }
            Action::Nothing => {}
        }
        self.advance(instruction);
        None
    }

    fn change_pstate(&mut self, bits: u64, set: bool) {
        let old = self.vcpu.pstate().bits();
        let new = if set { old | bits } else { old & !bits };
        self.vcpu.set_reg(Reg::Pstate, new & self.cpu.pstate);
    }

    fn advance(&mut self, instruction: &Instruction) {
        self.advance_pc(instruction);
        self.clear_btype();
    }

    fn advance_pc(&mut self, instruction: &Instruction) {
        let pc = self.vcpu.reg(Reg::Pc).wrapping_add(u64::from(instruction.bytes));
        self.vcpu.set_reg(Reg::Pc, pc);
    }

    fn clear_btype(&mut self) {
        if !self.vcpu.pstate().is_aarch32() {
            let pstate = self.vcpu.pstate().bits() & !Pstate::BTYPE;
            self.vcpu.set_reg(Reg::Pstate, pstate);
        }
    }

    /// The CPU's own entry, by the architecture: to EL1, or to the virtual EL2 that runs in its place.
    fn take_here(&mut self, esr: Esr) {
        let context = EntryContext {
            mte: false,
            nmi: false,
            span_at_el2: true,
            el1_is_aarch64: true,
            vbar_low_bits: false,
        };
        let target = if self.vcpu.is_hyp_context() { Target::El2 } else { Target::El1 };
        let exception = Exception { target, vector: Vector::Synchronous, esr: Some(esr), far: None };
        take_exception(&mut self.vcpu, &exception, context);
        self.enter_as_the_cpu_does();
    }

    /// The effects of the CPU's own exception entry beyond KVM's emulation.
    fn enter_as_the_cpu_does(&mut self) {
        let kept = self.cpu.pstate & !self.cpu.entry_loses;
        let mut sets = self.cpu.entry_sets;
        if !self.vcpu.is_hyp_context() && self.vcpu.reg(Reg::SctlrEl1) & sctlr::SPINTMASK != 0 {
            sets &= !Pstate::ALLINT;
        }
        let mut pstate = self.vcpu.pstate().masked(kept) | sets;
        if self.vcpu.is_hyp_context() && self.vcpu.reg(Reg::HcrEl2) & hcr::E2H == 0 {
            // It runs virtual EL2 as EL1, with a SCTLR_EL1 that KVM derives from SCTLR_EL2: SPAN and DSSBS
            // are 0.
            pstate = pstate & !Pstate::SSBS | Pstate::PAN;
        }
        self.vcpu.set_reg(Reg::Pstate, pstate);
    }

    /// An SEA that the hardware takes to the host.
    fn consume(&mut self, address: u64, esr: Esr) -> Option<Ran> {
        if !self.cpu.poison {
            return Some(Ran::Unpredictable(Unpredictable::Pc));
        }
        self.vcpu.sea_exit(esr, address).map(|sea| Ran::Exit(Exit::Sea(sea)))
    }

    fn access(&mut self, instruction: &Instruction) -> Option<Ran> {
        let (base, offset, bytes, esr, transfer) = match instruction.action {
            Action::Load { target, bytes, signed, wide, base } => {
                (base, 0, bytes, 0x9300_0005, Transfer::Load { target, signed, wide })
            }
            Action::Store { source, bytes, base } => {
                (base, 0, bytes, 0x9300_0045, Transfer::Store { source })
            }
            Action::Unsyndromed { write, base, offset } => {
                let load = Transfer::Load { target: None, signed: false, wide: false };
                let transfer = if write { Transfer::Store { source: None } } else { load };
                (base, offset, 8, 0x9200_0005, transfer)
            }
            _ => return None,
        };
        let address = self.vcpu.reg(Reg::X(base)).wrapping_add(offset);
        let esr = Esr::from_bits(esr);
        if is_bad(address) && !matches!(transfer, Transfer::Store { .. }) {
            return self.consume(address, Esr::from_bits(0x9200_0210));
        }
        if is_memory(self.cpu.guest, address) || address >> 40 != 0 {
            return Some(Ran::Unpredictable(Unpredictable::Endless));
        }
        let access = Access { address, esr, bytes, transfer, narrow: instruction.bytes == 2 };
        Some(Ran::Exit(self.vcpu.mmio_exit(&access)))
    }

    /// SMCCC by HVC, for a guest without EL2. PC is already after the HVC.
    fn hypercall(&mut self, immediate: u16) -> Option<Ran> {
        const NOT_SUPPORTED: u64 = !0;
        const INTERNAL_FAILURE: u64 = !5;
        let class = if self.cpu.guest == Guest::Aarch32 { 0x12 } else { 0x16 };
        self.vcpu.last_fault.esr = Esr::from_bits(class << 26 | 1 << 25 | u64::from(immediate));
        let (result, exit) = match self.vcpu.reg(Reg::X(0)) & 0xffff_ffff {
            0x8400_0008 => (INTERNAL_FAILURE, Some(SystemEvent::Shutdown)),
            0x8000_0000 => (0x1_0001, None),
            // Other functions of PSCI and SMCCC may sleep, or depend on the host.
            0x8000_0001..=0xffff_ffff => return Some(Ran::Unpredictable(Unpredictable::Hypercall)),
            _ => (NOT_SUPPORTED, None),
        };
        for (n, value) in [result, 0, 0, 0].into_iter().enumerate() {
            // AArch32 state has 32 bits of it, once the guest is entered again.
            let narrow = exit.is_none() && self.vcpu.pstate().is_aarch32();
            self.vcpu.set_reg(Reg::X(n as u8), if narrow { value & 0xffff_ffff } else { value });
        }
        let event = exit?;
        self.powered_on = false;
        Some(Ran::Exit(Exit::SystemEvent(event)))
    }

    /// ERET at EL1 to EL0 or EL1.
    fn exception_return(&mut self) -> Option<Ran> {
        let spsr = Pstate::from_bits(self.vcpu.reg(Reg::SpsrEl1));
        // QEMU's ERET with a non-zero BTYPE loses the BTYPE that it restores.
        if !matches!(spsr.masked(0x1f), 0 | 4 | 5) || self.vcpu.pstate().has(Pstate::BTYPE) {
            return Some(Ran::Unpredictable(Unpredictable::Pstate));
        }
        let elr = self.vcpu.reg(Reg::ElrEl1);
        self.vcpu.set_reg(Reg::Pc, elr);
        self.vcpu.set_reg(Reg::Pstate, spsr.masked(self.cpu.pstate));
        None
    }
}

/// Passes registers that configure exceptions through the CPU.
fn load(cpu: &Cpu, vcpu: &mut Vcpu, immediate: bool) {
    // For a guest with EL2, these are the registers of one of the two levels.
    let el1 = !vcpu.is_hyp_context();
    let loaded = |reg: &&Reg| match reg {
        Reg::HcrEl2 | Reg::HcrxEl2 => false,
        reg => is_of_el1(**reg) == el1,
    };
    for reg in configuration(cpu.guest).iter().filter(loaded) {
        let value = vcpu.reg(*reg);
        let value = if immediate { cpu.touched(*reg, value) } else { cpu.loaded(*reg, value) };
        vcpu.set_reg(*reg, value);
    }
}

/// Returns true in the poisoned line.
fn is_bad(address: u64) -> bool {
    (POISON..POISON + 64).contains(&address)
}
