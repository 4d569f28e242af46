//! What a run does on the model: the completion of MMIO, the SError that waits, a few instructions.

use seawall_arm::{
    EntryContext, Esr, Exception, ExceptionClass, ExceptionLevel, Pstate, Reg, Registers, Target, Vector,
    hcr, hcrx, sctlr, sctlr2, take_exception,
};
use seawall_events::kernel::{
    LastFault, PendingSError, SeaPolicy, VcpuState, finish_run, handle_guest_sea, inject_fetch_from_hole,
    inject_held, prepare_run,
};
use seawall_events::{MmioExit, NisvExit};
use seawall_inject::{Exit, SystemEvent};

use super::code::{Action, Instruction, POISON, is_memory};
use super::cpu::is_of_el1;
use super::model::{Model, Ran, Unpredictable, Waiting};
use super::{Guest, configuration};

/// More instructions than any program needs to its exit.
const ENOUGH: u32 = 64;
/// SCTLR_ELx.EE, data accesses of EL1 or EL2 are big-endian.
const EE: u64 = 1 << 25;
/// SCTLR_EL1.UMA, EL0 may access PSTATE.DAIF.
const UMA: u64 = 1 << 9;
/// SCTLR_EL1.E0E, those of EL0.
const E0E: u64 = 1 << 24;

impl Model {
    /// `KVM_RUN`.
    pub fn go(&mut self, immediate: bool) -> Ran {
        if !self.powered_on && !immediate {
            return Ran::Unpredictable(Unpredictable::PoweredOff);
        }
        self.has_run = true;
        (self.by_either, self.by_cpu) = (false, false);
        self.begin_run(immediate);
        if immediate {
            return Ran::Exit(Exit::Intr);
        }
        if let Some(why) = self.why_not() {
            return Ran::Unpredictable(why);
        }
        let entered = self.pstate().masked(self.cpu.pstate);
        if self.pstate().is_aarch32() && self.pstate().has(Pstate::IL) {
            return Ran::Unpredictable(Unpredictable::Pstate);
        }
        self.set_reg(Reg::Pstate, entered);
        for _ in 0..ENOUGH {
            let spsr_abt = self.reg(Reg::SpsrAbt);
            if matches!(prepare_run(self), PendingSError::Taken(_)) {
                self.enter_as_the_cpu_does();
                self.by_either = self.config().el2;
                self.by_cpu = true;
                if self.cpu.hides_spsr {
                    self.set_reg(Reg::SpsrAbt, spsr_abt);
                }
            }
            if let Some(ran) = self.step() {
                return ran;
            }
        }
        Ran::Unpredictable(Unpredictable::Endless)
    }

    /// What KVM does before it enters the guest.
    fn begin_run(&mut self, immediate: bool) {
        let waiting = self.waiting.take();
        if let Some(waiting) = waiting {
            self.write_loaded(waiting);
        }
        let mut unstepped = self.clone();
        if let Some(waiting) = waiting {
            self.step_over(waiting);
        }
        self.load(immediate);
        if immediate || !self.serror().held_for_el2 {
            return;
        }
        // An SError that was held is taken by KVM's own entry, before the CPU's.
        let changes_context = !self.is_hyp_context();
        unstepped.load(false);
        match inject_held(&mut unstepped) {
            // It forgets to step over the access before, unless it changes from a guest to its hypervisor.
            PendingSError::Taken(target) if target == Target::El1 || !changes_context => *self = unstepped,
            _ => {
                inject_held(self);
            }
        }
    }

    /// What configures exceptions goes through the CPU.
    fn load(&mut self, immediate: bool) {
        // Of a guest with EL2, the registers of one of the two levels do.
        let el1 = !self.is_hyp_context();
        let loaded = |reg: &&Reg| match reg {
            Reg::HcrEl2 | Reg::HcrxEl2 => false,
            reg => is_of_el1(**reg) == el1,
        };
        for reg in configuration(self.cpu.guest).iter().filter(loaded) {
            let value = self.reg(*reg);
            let value = if immediate { self.cpu.touched(*reg, value) } else { self.cpu.loaded(*reg, value) };
            self.set_reg(*reg, value);
        }
    }

    /// The guest hypervisor runs, or its user space.
    pub(super) fn is_hyp_context(&self) -> bool {
        let el2 = self.pstate().exception_level() == ExceptionLevel::El2;
        self.config().el2 && (el2 || self.reg(Reg::HcrEl2) & hcr::TGE != 0)
    }

    /// The one that is in effect.
    fn sctlr(&self) -> Reg {
        if self.is_hyp_context() { Reg::SctlrEl2 } else { Reg::SctlrEl1 }
    }

    /// Why the model cannot run from here.
    fn why_not(&self) -> Option<Unpredictable> {
        let pstate = self.pstate();
        let aarch32_guest = self.cpu.guest == Guest::Aarch32;
        let ours = |reg| {
            let high = aarch32_guest && self.reg(Reg::SctlrEl1) & sctlr::V != 0;
            high || self.code.tables().contains(&self.reg(reg))
        };
        if !ours(Reg::VbarEl1) || self.cpu.guest == Guest::Nested && !ours(Reg::VbarEl2) {
            return Some(Unpredictable::Vectors);
        }
        let at_el1 = pstate.exception_level() == ExceptionLevel::El1;
        if self.is_hyp_context() && at_el1 {
            // With TGE there is no EL1.
            return Some(Unpredictable::Pstate);
        }
        if pstate.is_aarch32() != aarch32_guest || aarch32_guest && pstate.has(Pstate::IT) {
            return Some(Unpredictable::Pstate);
        }
        if self.code.at(self.reg(Reg::Pc)).is_none() {
            return Some(Unpredictable::Pc);
        }
        if self.serror().pending && self.config().el2 { self.why_not_with_an_serror() } else { None }
    }

    /// The same, of a guest with EL2 and an SError that the CPU may take.
    fn why_not_with_an_serror(&self) -> Option<Unpredictable> {
        if !self.is_hyp_context() {
            let set = |reg, bit| self.reg(reg) & bit != 0;
            if set(Reg::Sctlr2El1, sctlr2::NMEA) && !set(Reg::HcrxEl2, hcrx::SCTLR2EN) {
                return Some(Unpredictable::Cpu);
            }
            // The CPU gives it the hypervisor's VSESR.
            if set(Reg::HcrEl2, hcr::AMO) || set(Reg::HcrxEl2, hcrx::TMEA) {
                return Some(Unpredictable::Routing);
            }
        }
        let mut interrupted = self.clone();
        let here = if self.is_hyp_context() { Target::El2 } else { Target::El1 };
        match finish_run(&mut interrupted) {
            PendingSError::Taken(target) if target == here => None,
            PendingSError::Waits if !interrupted.serror().held_for_el2 => None,
            _ => Some(Unpredictable::Routing),
        }
    }

    /// One instruction; `None` if the guest runs on.
    fn step(&mut self) -> Option<Ran> {
        let pc = self.reg(Reg::Pc);
        if is_bad(pc) {
            return self.consume(pc, Esr::from_bits(0x8200_0210));
        }
        let Some(instruction) = self.code.at(pc).copied() else {
            if self.pstate().is_aarch32() {
                return Some(Ran::Unpredictable(Unpredictable::Pc));
            }
            if is_memory(self.cpu.guest, pc) || pc % 4 != 0 || pc >> 40 != 0 {
                return Some(Ran::Unpredictable(Unpredictable::Pc));
            }
            self.last_fault = LastFault { esr: Esr::from_bits(0x8200_0005), far: pc, ipa: Some(pc & !0xfff) };
            inject_fetch_from_hole(self);
            // And the CPU is entered again.
            let entered = self.pstate().masked(self.cpu.pstate);
            self.set_reg(Reg::Pstate, entered);
            return None;
        };
        if instruction.thumb != (self.pstate().is_aarch32() && self.pstate().has(Pstate::T)) {
            return Some(Ran::Unpredictable(Unpredictable::Pstate));
        }
        // Only an instruction that could be fetched. Source: DDI 0487, D1.3.5.5, priorities.
        if self.pstate().has(Pstate::IL) {
            self.take_here(Esr::new(ExceptionClass::ILLEGAL_STATE, true, 0));
            return None;
        }
        self.execute(&instruction)
    }

    fn execute(&mut self, instruction: &Instruction) -> Option<Ran> {
        let at_el0 = self.pstate().exception_level() == ExceptionLevel::El0;
        let aarch32 = self.pstate().is_aarch32();
        match instruction.action {
            // UNDEFINED, and Undefined mode is not modelled.
            Action::Hypercall { .. } if aarch32 && at_el0 => {
                return Some(Ran::Unpredictable(Unpredictable::Pstate));
            }
            // CPS is a NOP in User mode.
            Action::Mask { .. } if aarch32 && at_el0 => {}
            // It traps without UMA, but not with the syndrome of the architecture: QEMU swaps op1 and op2.
            Action::Mask { .. } if at_el0 && self.reg(self.sctlr()) & UMA == 0 => {
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
            // The CPU does not have the bit.
            Action::Field { bit, .. } if bit & self.cpu.pstate == 0 => {
                self.take_here(Esr::new(ExceptionClass::UNKNOWN, true, 0));
                return None;
            }
            Action::Field { bit, set, .. } => self.change_pstate(bit, set),
            Action::Constant { target, value, keep } => {
                let value = self.reg(Reg::X(target)) & keep | value;
                self.set_reg(Reg::X(target), value);
            }
            Action::Undefined => {
                self.take_here(Esr::new(ExceptionClass::UNKNOWN, true, 0));
                return None;
            }
            // Whether these two leave BTYPE in the SPSR is CONSTRAINED UNPREDICTABLE: QEMU's do.
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
                let target = self.reg(Reg::X(reg));
                self.set_reg(Reg::Pc, target);
                // Not from a guarded page: BTYPE is 01 whichever the register.
                let pstate = self.pstate().bits() & !Pstate::BTYPE | 1 << 10 & self.cpu.pstate;
                self.set_reg(Reg::Pstate, pstate);
                return None;
            }
            Action::Branch(offset) => {
                let pc = self.reg(Reg::Pc).wrapping_add_signed(offset);
                self.set_reg(Reg::Pc, pc);
                self.clear_btype();
                return None;
            }
            Action::Nothing => {}
        }
        self.advance(instruction);
        None
    }

    fn change_pstate(&mut self, bits: u64, set: bool) {
        let old = self.pstate().bits();
        let new = if set { old | bits } else { old & !bits };
        self.set_reg(Reg::Pstate, new & self.cpu.pstate);
    }

    fn advance(&mut self, instruction: &Instruction) {
        self.advance_pc(instruction);
        self.clear_btype();
    }

    fn advance_pc(&mut self, instruction: &Instruction) {
        let pc = self.reg(Reg::Pc).wrapping_add(u64::from(instruction.bytes));
        self.set_reg(Reg::Pc, pc);
    }

    fn clear_btype(&mut self) {
        if !self.pstate().is_aarch32() {
            let pstate = self.pstate().bits() & !Pstate::BTYPE;
            self.set_reg(Reg::Pstate, pstate);
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
        let target = if self.is_hyp_context() { Target::El2 } else { Target::El1 };
        let exception = Exception { target, vector: Vector::Synchronous, esr: Some(esr), far: None };
        take_exception(self, &exception, context);
        self.enter_as_the_cpu_does();
    }

    /// What the CPU's own exception entry does beyond KVM's emulation of it.
    fn enter_as_the_cpu_does(&mut self) {
        let kept = self.cpu.pstate & !self.cpu.entry_loses;
        let mut pstate = self.pstate().masked(kept) | self.cpu.entry_sets;
        if self.is_hyp_context() && self.reg(Reg::HcrEl2) & hcr::E2H == 0 {
            // It runs virtual EL2 as EL1, with a SCTLR_EL1 that KVM makes of SCTLR_EL2: SPAN and DSSBS are 0.
            pstate = pstate & !Pstate::SSBS | Pstate::PAN;
        }
        self.set_reg(Reg::Pstate, pstate);
    }

    /// An SEA that the hardware takes to the host.
    fn consume(&mut self, address: u64, esr: Esr) -> Option<Ran> {
        if !self.cpu.poison {
            return Some(Ran::Unpredictable(Unpredictable::Pc));
        }
        self.last_fault = LastFault { esr, far: address, ipa: Some(address & !0xfff) };
        let policy = SeaPolicy { to_user: true, guest_has_ras: self.config().ras };
        match handle_guest_sea(self, policy) {
            Ok(sea) => Some(Ran::Exit(Exit::Sea(sea))),
            Err(_) => None,
        }
    }

    fn access(&mut self, instruction: &Instruction) -> Option<Ran> {
        let (base, offset, write, esr) = match instruction.action {
            Action::Load { base, .. } => (base, 0, false, 0x9300_0005),
            Action::Store { base, .. } => (base, 0, true, 0x9300_0045),
            Action::Unsyndromed { write, base, offset } => (base, offset, write, 0x9200_0005),
            _ => return None,
        };
        let address = self.reg(Reg::X(base)).wrapping_add(offset);
        if is_bad(address) && !write {
            return self.consume(address, Esr::from_bits(0x9200_0210));
        }
        if is_memory(self.cpu.guest, address) || address >> 40 != 0 {
            return Some(Ran::Unpredictable(Unpredictable::Endless));
        }
        self.last_fault = LastFault { esr: Esr::from_bits(esr), far: address, ipa: Some(address & !0xfff) };
        finish_run(self);
        let mut exit = MmioExit { phys_addr: address, data: [0; 8], len: 0, is_write: write };
        let narrow = instruction.bytes == 2;
        match instruction.action {
            Action::Load { target, bytes, signed, wide, .. } => {
                self.waiting = Some(Waiting { target, is_load: true, bytes, signed, wide, narrow });
                // What no one answers reads as zero.
                self.answer = [0; 8];
                exit.len = bytes.into();
            }
            Action::Store { source, bytes, .. } => {
                self.waiting =
                    Some(Waiting { target: None, is_load: false, bytes, signed: false, wide: false, narrow });
                let value = source.map_or(0, |source| self.reg(Reg::X(source)));
                let value = self.swap_if_big_endian(value, bytes);
                exit.data[..usize::from(bytes)].copy_from_slice(&value.to_le_bytes()[..usize::from(bytes)]);
                exit.len = bytes.into();
            }
            _ => {
                let esr_iss = u64::from(write) << 6 | 4;
                return Some(Ran::Exit(Exit::Nisv(NisvExit { esr_iss, fault_ipa: address })));
            }
        }
        Some(Ran::Exit(Exit::Mmio(exit)))
    }

    /// As the guest's endianness is when KVM looks.
    fn swap_if_big_endian(&self, value: u64, bytes: u8) -> u64 {
        let pstate = self.pstate();
        let level = pstate.exception_level();
        let big = if pstate.is_aarch32() {
            pstate.has(Pstate::E)
        } else {
            self.reg(self.sctlr()) & if level == ExceptionLevel::El0 { E0E } else { EE } != 0
        };
        let unused = 64 - 8 * u32::from(bytes);
        if big { value.swap_bytes() >> unused } else { value << unused >> unused }
    }

    /// The load that the last exit asked for, completed by the next run. Source: api.rst, `KVM_RUN`.
    fn write_loaded(&mut self, waiting: Waiting) {
        let (true, Some(target)) = (waiting.is_load, waiting.target) else { return };
        let unused = 64 - 8 * u32::from(waiting.bytes);
        let mut data = self.swap_if_big_endian(u64::from_le_bytes(self.answer), waiting.bytes);
        if waiting.signed {
            data = ((data << unused) as i64 >> unused) as u64;
        }
        if !waiting.wide {
            data &= 0xffff_ffff;
        }
        self.set_reg(Reg::X(target), data);
    }

    /// On to the instruction behind the access.
    fn step_over(&mut self, waiting: Waiting) {
        let pstate = self.pstate();
        let thumb = pstate.is_aarch32() && pstate.has(Pstate::T);
        let pc = self.reg(Reg::Pc).wrapping_add(if thumb && waiting.narrow { 2 } else { 4 });
        let new = match (pstate.is_aarch32(), thumb) {
            (false, _) => pstate.bits() & !Pstate::BTYPE,
            (true, true) => advance_it(pstate.bits()),
            (true, false) => pstate.bits(),
        };
        self.set_reg(Reg::Pc, if pstate.is_aarch32() { pc & 0xffff_ffff } else { pc });
        self.set_reg(Reg::Pstate, new & !Pstate::SS);
    }

    /// SMCCC by HVC, for a guest without EL2. PC is behind the HVC already.
    fn hypercall(&mut self, immediate: u16) -> Option<Ran> {
        const NOT_SUPPORTED: u64 = !0;
        const INTERNAL_FAILURE: u64 = !5;
        let class = if self.cpu.guest == Guest::Aarch32 { 0x12 } else { 0x16 };
        self.last_fault.esr = Esr::from_bits(class << 26 | 1 << 25 | u64::from(immediate));
        let (result, exit) = match self.reg(Reg::X(0)) & 0xffff_ffff {
            0x8400_0008 => (INTERNAL_FAILURE, Some(SystemEvent::Shutdown)),
            0x8000_0000 => (0x1_0001, None),
            // Others of PSCI and SMCCC may sleep, or tell about the host.
            0x8000_0001..=0xffff_ffff => return Some(Ran::Unpredictable(Unpredictable::Hypercall)),
            _ => (NOT_SUPPORTED, None),
        };
        for (n, value) in [result, 0, 0, 0].into_iter().enumerate() {
            // AArch32 state has 32 bits of it, once the guest is entered again.
            let narrow = exit.is_none() && self.pstate().is_aarch32();
            self.set_reg(Reg::X(n as u8), if narrow { value & 0xffff_ffff } else { value });
        }
        let event = exit?;
        self.powered_on = false;
        Some(Ran::Exit(Exit::SystemEvent(event)))
    }

    /// ERET at EL1 to EL0 or EL1.
    fn exception_return(&mut self) -> Option<Ran> {
        let spsr = Pstate::from_bits(self.reg(Reg::SpsrEl1));
        // QEMU's ERET with BTYPE not 0 loses the BTYPE that it restores.
        if !matches!(spsr.masked(0x1f), 0 | 4 | 5) || self.pstate().has(Pstate::BTYPE) {
            return Some(Ran::Unpredictable(Unpredictable::Pstate));
        }
        let elr = self.reg(Reg::ElrEl1);
        self.set_reg(Reg::Pc, elr);
        self.set_reg(Reg::Pstate, spsr.masked(self.cpu.pstate));
        None
    }
}

/// `IT` after one instruction. Source: DDI 0487, `AArch32.ITAdvance`.
fn advance_it(cpsr: u64) -> u64 {
    let it = cpsr >> 8 & 0xfc | cpsr >> 25 & 3;
    let advanced = if it.trailing_zeros() >= 3 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    cpsr & !Pstate::IT | (advanced & 0xfc) << 8 | (advanced & 3) << 25
}

/// The poisoned line.
fn is_bad(address: u64) -> bool {
    (POISON..POISON + 64).contains(&address)
}
