//! The run loop: what happens between pages of instructions, and what traps lead to.
//!
//! The host that KVM is on hardware is here: an access that the guest's own tables allow but that
//! meets poison or a hole comes to EL2, which is this module and `seawall_events`.

use std::sync::atomic::{AtomicBool, Ordering};

use seawall_arm::{Esr, Exception, ExceptionClass, Pstate, Reg, Registers, Vector};
use seawall_events::kernel::{
    LastFault, SeaPolicy, VcpuConfig, VcpuState, VirtualSError, handle_guest_sea, inject_fetch_from_hole,
    inject_walk_abort,
};
use seawall_events::{MmioExit, NisvExit};
use seawall_inject::Exit;

use crate::broadcast::Broadcasts;
use crate::bus::BusAccess;
use crate::cpu::{Cpu, Invalidation, Maintenance, PendingMmio, Wait};
use crate::decode::{Insn, Kind, Op};
use crate::el2::Banked;
use crate::exec::{Leave, is_landing_pad};
use crate::gic::Gic;
use crate::icache::{ICache, INSNS_PER_PAGE};
use crate::jit;
use crate::memory::{LINE_SIZE, Memory, PAGE_SIZE};
use crate::schedule::{Others, TURN};
use crate::tlb::{Fill, Tlb};
use crate::trap::{HostAbort, Intent, Trap};
use crate::vm::{Config, Error, NoSyndrome, UndefinedLog};
use crate::walk::{self, Access, WalkStage};

/// One CPU with what it needs to run.
pub(crate) struct Runner<'a> {
    pub(crate) config: &'a Config,
    /// The number of the CPU.
    pub(crate) index: usize,
    pub(crate) cpu: &'a mut Cpu,
    pub(crate) others: Others<'a>,
    pub(crate) broadcasts: &'a mut Broadcasts,
    pub(crate) gic: &'a mut Gic,
    pub(crate) memory: &'a mut Memory,
    pub(crate) icache: &'a mut ICache,
    pub(crate) undefined: &'a mut UndefinedLog,
    /// The host wants the run to end.
    pub(crate) kick: &'a AtomicBool,
}

/// A CPU as the kernel half sees it.
pub(crate) struct Kernel<'a> {
    pub(crate) config: &'a Config,
    pub(crate) cpu: &'a mut Cpu,
    pub(crate) tables: Tables<'a>,
}

/// The guest's page tables, for the kernel half, which asks for the level of one descriptor: that which the last fault was on.
pub(crate) enum Tables<'a> {
    /// They are walked when it asks.
    InMemory(&'a Memory),
    /// They were walked before, to this level.
    Walked(Option<i8>),
}

impl Registers for Kernel<'_> {
    fn reg(&self, reg: Reg) -> u64 {
        self.cpu.reg(reg)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        self.cpu.set_reg(reg, value);
    }
}

impl VcpuState for Kernel<'_> {
    fn config(&self) -> VcpuConfig {
        VcpuConfig { ras: self.config.ras, ..VcpuConfig::default() }
    }

    fn last_fault(&self) -> LastFault {
        self.cpu.last_fault
    }

    fn walk_level(&self, va: u64, descriptor_ipa: u64) -> Option<i8> {
        match self.tables {
            Tables::InMemory(memory) => walk_level(self.cpu, memory, va, descriptor_ipa),
            Tables::Walked(level) => level,
        }
    }

    fn drop_mmio(&mut self) {
        self.cpu.mmio = None;
    }

    fn serror(&self) -> VirtualSError {
        self.cpu.serror
    }

    fn set_serror(&mut self, serror: VirtualSError) {
        self.cpu.serror = serror;
    }
}

/// The level at which a walk for `va` reads the descriptor at `descriptor_ipa`.
fn walk_level(cpu: &Cpu, memory: &Memory, va: u64, descriptor_ipa: u64) -> Option<i8> {
    let regime = cpu.regime();
    if !regime.mmu_on() {
        // KVM does not expect that, and says 0 for any address that is a physical one.
        return (va >> regime.pa_bits == 0).then_some(0);
    }
    walk::descriptor_level(memory, &regime, va, descriptor_ipa)
}

/// The same for the CPU's last fault, if it was a stage 2 fault on a table walk.
pub(crate) fn last_walk_level(cpu: &Cpu, memory: &Memory) -> Option<i8> {
    let LastFault { esr, far, ipa } = cpu.last_fault;
    if esr.iss() & iss::S1PTW == 0 {
        return None;
    }
    walk_level(cpu, memory, far, ipa?)
}

/// ISS bits of the syndromes that the host sees.
pub(crate) mod iss {
    /// S1PTW: a stage 2 fault on a stage 1 walk.
    pub(crate) const S1PTW: u32 = 1 << 7;
    /// EA: the memory system reported an error.
    pub(crate) const EA: u32 = 1 << 9;
    /// Where SET begins.
    pub(crate) const SET_SHIFT: u32 = 11;
    /// ISV: `[23:14]` describe the access.
    pub(super) const ISV: u32 = 1 << 24;
    /// Stage 2 translation fault, level 3: there is no memory.
    pub(super) const STAGE2_TRANSLATION: u32 = 0x07;
}

/// Why a CPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The host is needed.
    Exit(Exit),
    /// It did all the steps that it was given.
    Limit,
    /// The host wants the run to end.
    Kicked,
    /// It waits for something, or is off.
    Wait,
}

impl Runner<'_> {
    pub(crate) fn kernel(&mut self) -> Kernel<'_> {
        Kernel { config: self.config, cpu: self.cpu, tables: Tables::InMemory(self.memory) }
    }

    /// Run until the host is needed, the CPU waits, or no step is left.
    pub(crate) fn run(&mut self, left: &mut u64) -> Result<Stop, Error> {
        self.broadcasts.read(self.index, self.cpu);
        self.complete_mmio(left);
        if self.cpu.host_touched_memory {
            self.host_touched_memory();
        }
        loop {
            if !self.cpu.replay.done.is_empty() {
                if let Some(stop) = self.go_on(left)? {
                    return Ok(stop);
                }
                continue;
            }
            if self.cpu.timers_changed || self.cpu.steps >= self.cpu.deadline {
                self.update_timers();
            }
            if self.cpu.attention {
                self.attend();
            }
            // Before the steps: a CPU whose last one was WFI waits, and gives up its turn.
            if self.cpu.wait != Wait::No && !self.wakes() {
                return Ok(Stop::Wait);
            }
            if *left == 0 {
                return Ok(Stop::Limit);
            }
            if self.kick.load(Ordering::Relaxed) {
                return Ok(Stop::Kicked);
            }
            if self.cpu.wait != Wait::No {
                self.cpu.event &= self.cpu.wait != Wait::Event;
                self.cpu.wait = Wait::No;
            }
            if self.cpu.is_signalled() && self.take_interrupt() {
                self.step(left, 1);
                continue;
            }
            let limit = self.stretch(*left);
            let mut part = limit;
            let result = self.run_stretch(&mut part);
            *left -= limit - part;
            if let Some(stop) = result? {
                return Ok(stop);
            }
        }
    }

    /// Of so many steps those that are done without a look at anything else: not past the next timer interrupt, nor too
    /// far to see a kick.
    #[inline]
    fn stretch(&self, left: u64) -> u64 {
        left.min(self.cpu.deadline.saturating_sub(self.cpu.steps)).min(TURN)
    }

    #[inline]
    fn run_stretch(&mut self, part: &mut u64) -> Result<Option<Stop>, Error> {
        if self.cpu.debug.is_on() { self.run_debugged(part) } else { self.run_once(part) }
    }

    /// Count steps.
    pub(crate) fn step(&mut self, left: &mut u64, done: u64) {
        // An exception is a step too, so that a guest that does nothing else uses up its budget.
        let done = done.max(1).min(*left);
        *left -= done;
        self.cpu.steps += done;
    }

    /// Run in the page that the PC is in, and deal with why it stopped.
    pub(crate) fn run_once(&mut self, left: &mut u64) -> Result<Option<Stop>, Error> {
        let Some((slot, guarded)) = self.fetch() else {
            return self.take_trap(left, None);
        };
        let unusual = self.cpu.state.btype != 0 || self.cpu.state.rest & Pstate::IL != 0;
        if unusual && self.before_first_instruction(slot, guarded).is_none() {
            return self.take_trap(left, None);
        }
        if self.icache.page(slot).is_none() {
            self.cpu.tlb.clear_fetch();
            return Ok(None);
        }
        self.cpu.replay.next = 0;
        let (leave, done) = jit::run(self.cpu, self.memory, self.icache, (slot, guarded), *left);
        self.cpu.elapsed = 0;
        self.cpu.steps += done;
        *left -= done;
        if done != 0 {
            self.cpu.replay.done.clear();
            self.cpu.advance_step();
        }
        match leave {
            Leave::Resume | Leave::Returned => Ok(None),
            Leave::Pending => match self.fetch().and_then(|(slot, _)| self.decode_line(slot)) {
                Some(()) => Ok(None),
                None => self.take_trap(left, None),
            },
            Leave::Trap => {
                let slot = self.fetched();
                let index = (self.cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
                let insn = slot.and_then(|slot| self.icache.page(slot)?.get(index).copied());
                self.take_trap(left, insn)
            }
        }
    }

    /// The decoded page for the PC, and whether it is guarded. `None`: the fetch traps.
    #[inline]
    pub(crate) fn fetch(&mut self) -> Option<(u32, bool)> {
        let pc = self.cpu.pc;
        let entry = self.cpu.tlb.fetch[self.cpu.state.el as usize & 1].entry(pc);
        if entry.covers(pc, 1) && entry.page() != u32::MAX && pc.trailing_zeros() >= 2 {
            return Some((entry.page(), entry.is_strict()));
        }
        self.fetch_slow(pc)
    }

    /// The decoded page that the PC is in, if it is in the TLB.
    fn fetched(&self) -> Option<u32> {
        let pc = self.cpu.pc;
        let entry = self.cpu.tlb.fetch[self.cpu.state.el as usize & 1].entry(pc);
        entry.covers(pc, 1).then_some(entry.page())
    }

    #[cold]
    fn fetch_slow(&mut self, pc: u64) -> Option<(u32, bool)> {
        if pc & 3 != 0 {
            self.cpu.raise(ExceptionClass::PC_ALIGNMENT, 0, Some(pc));
            return None;
        }
        let el = self.cpu.state.el;
        let regime = self.cpu.regime();
        let translation = match walk::translate(self.memory, &regime, pc, Access::fetch(el != 0)) {
            Ok(translation) => translation,
            Err(fault) => {
                self.cpu.raise_fault(&fault, pc, Intent::FETCH, 4);
                return None;
            }
        };
        if self.memory.has_stale_code() {
            self.cpu.call_attention();
        }
        let pa = translation.pa;
        let Some(offset) = self.memory.offset(pa) else {
            let intent = Intent::FETCH;
            self.cpu.trap = Trap::Hole(HostAbort {
                intent,
                va: pc,
                pa,
                walk_level: None,
                stage: WalkStage::First,
                size: 4,
            });
            return None;
        };
        let (slot, others_void) = self.icache.slot(self.memory, offset)?;
        if others_void {
            self.drop_fetches();
        }
        let fill = Fill {
            va: pc,
            page: slot,
            strict: translation.guarded,
            shift: translation.shift,
            global: translation.asid.is_none(),
        };
        self.cpu.tlb.fill_fetch(el, fill);
        Some((slot, translation.guarded))
    }

    /// Decode the line that the PC is in. `None`: it is poisoned.
    fn decode_line(&mut self, slot: u32) -> Option<()> {
        let pc = self.cpu.pc;
        let in_page = (pc & (PAGE_SIZE - 1)) as usize;
        let offset = self.icache.ram_offset(slot)? + in_page;
        if self.memory.page_has_poison(offset) {
            let pa = self.memory.base() + offset as u64;
            if self.memory.stops(pa & !(LINE_SIZE - 1), LINE_SIZE) {
                let intent = Intent::FETCH;
                self.cpu.trap = Trap::Poison(HostAbort {
                    intent,
                    va: pc,
                    pa,
                    walk_level: None,
                    stage: WalkStage::First,
                    size: 4,
                });
                return None;
            }
        }
        if let Some(ram_page) = self.icache.decode_line(self.memory, slot, pc) {
            self.broadcast(Invalidation::WritesTo(ram_page));
        }
        Some(())
    }

    /// The numbers of decoded pages are void, for all CPUs.
    fn drop_fetches(&mut self) {
        self.broadcast(Invalidation::Fetches);
    }

    /// This CPU does it now, the others before they run. It is about RAM's pages, so about the TLBs of all regimes.
    fn broadcast(&mut self, what: Invalidation) {
        let maintenance = Maintenance { of: Banked::El10, what };
        self.cpu.invalidate(maintenance);
        self.tell_others(maintenance);
    }

    fn tell_others(&mut self, maintenance: Maintenance) {
        if self.others.is_empty() {
            return;
        }
        if self.broadcasts.is_full() {
            self.others.iter_mut().for_each(|(index, cpu)| self.broadcasts.read(index, cpu));
            self.broadcasts.clear();
        }
        self.broadcasts.push(self.index, maintenance);
    }

    /// What is checked before an instruction that a branch landed at, or with PSTATE.IL set: the
    /// fetch itself, then the state, then the landing pad (FEAT_BTI). `None`: it traps.
    #[cold]
    fn before_first_instruction(&mut self, slot: u32, guarded: bool) -> Option<()> {
        let index = (self.cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
        let mut insn = *self.icache.page(slot)?.get(index)?;
        if insn.op == Op::Pending {
            self.decode_line(slot)?;
            insn = *self.icache.page(slot)?.get(index)?;
        }
        if self.cpu.state.rest & Pstate::IL != 0 {
            self.cpu.raise(ExceptionClass::ILLEGAL_STATE, 0, None);
            return None;
        }
        let btype = self.cpu.state.btype;
        if guarded && !is_landing_pad(self.cpu, &insn, btype) {
            self.cpu.raise(ExceptionClass::BTI, u32::from(btype), None);
            return None;
        }
        self.cpu.landing = (self.cpu.steps, btype);
        self.cpu.state.btype = 0;
        Some(())
    }

    /// Do what made the interpreter leave after an instruction.
    #[cold]
    pub(crate) fn attend(&mut self) {
        self.cpu.attention = false;
        for (offset, len) in std::mem::take(&mut self.cpu.written_code) {
            if len != 0 {
                self.icache.written(self.memory, offset, len);
            }
        }
        if self.memory.has_stale_code() {
            for page in self.memory.take_stale_code() {
                self.icache.drop_page(page);
            }
        }
        if std::mem::take(&mut self.cpu.drop_code) {
            self.icache.clear(self.memory);
            self.drop_fetches();
        }
        for maintenance in std::mem::take(&mut self.cpu.broadcast) {
            // Its own TLB did it when the instruction was executed.
            self.tell_others(maintenance);
        }
    }

    /// The host may have written to RAM or poisoned it.
    fn host_touched_memory(&mut self) {
        self.cpu.host_touched_memory = false;
        self.cpu.tlbs().for_each(Tlb::clear);
        self.attend();
        if self.memory.poisoned_lines() > 0 {
            self.icache.drop_poisoned(self.memory);
        }
    }

    /// KVM_RUN first completes an MMIO access: the register gets its value, the PC moves on. An instruction of several
    /// accesses [goes on](Self::go_on).
    fn complete_mmio(&mut self, left: &mut u64) {
        match self.cpu.mmio.take() {
            Some(PendingMmio::Register { kind, rd, data }) => {
                if !kind.is_store() {
                    self.cpu.set_slot(rd, kind.extend(u64::from_le_bytes(data)));
                }
                self.cpu.pc = self.cpu.pc.wrapping_add(4);
                self.cpu.advance_step_of_mmio();
                self.cpu.steps += 1;
                *left = left.saturating_sub(1);
            }
            Some(PendingMmio::Accesses(accesses)) => self.cpu.replay.done = accesses,
            None => {}
        }
    }

    /// Execute the instruction at the PC again, with the bus's answers so far. Nothing comes in between, and it is
    /// executed even if no step is left, as an MMIO access is completed.
    #[cold]
    fn go_on(&mut self, left: &mut u64) -> Result<Option<Stop>, Error> {
        if self.cpu.attention {
            self.attend();
        }
        let mut one = 1;
        let result =
            if self.cpu.is_stepping() { self.run_stepped(&mut one) } else { self.run_once(&mut one) };
        *left = left.saturating_sub(1 - one);
        result
    }

    /// Deal with the CPU's trap. `insn` is the instruction at the PC, if it was fetched.
    pub(crate) fn take_trap(&mut self, left: &mut u64, insn: Option<Insn>) -> Result<Option<Stop>, Error> {
        let trap = std::mem::replace(&mut self.cpu.trap, Trap::None);
        if !matches!(trap, Trap::Bus(_)) {
            self.cpu.replay.done.clear();
        }
        if self.cpu.el2.is_some() {
            self.keep_btype(&trap);
            if let Ok(stop) = self.take_trap_with_el2(left, &trap, insn) {
                return Ok(stop);
            }
        }
        match trap {
            // Those of EL2 are dealt with.
            Trap::None | Trap::Smc(_) | Trap::ToEl2 { .. } | Trap::Stage2(_) => {}
            Trap::Exception { class, iss, far } => {
                if class == ExceptionClass::BRK64 && self.cpu.landing.0 == self.cpu.steps {
                    self.cpu.state.btype = self.cpu.landing.1;
                }
                self.enter(class, iss, far);
                self.step(left, 1);
            }
            Trap::Undefined(word) => {
                self.undefined.record(word);
                self.enter(ExceptionClass::UNKNOWN, 0, None);
                self.step(left, 1);
            }
            Trap::Svc(immediate) => {
                self.cpu.pc = self.cpu.pc.wrapping_add(4);
                self.cpu.advance_step();
                self.enter(ExceptionClass::SVC64, u32::from(immediate), None);
                self.step(left, 1);
            }
            Trap::Hvc(immediate) => {
                // KVM keeps the ESR of each exit and the FAR of the last abort, and looks for S1PTW in whatever
                // ESR there is: an immediate with bit 7 reads as that.
                self.cpu.last_fault.esr = Esr::new(ExceptionClass::HVC64, true, immediate.into());
                self.retire(left);
                return Ok(self.firmware_call());
            }
            Trap::Wfi => {
                self.retire(left);
                self.cpu.wait = Wait::Interrupt;
            }
            Trap::Wfe => {
                self.retire(left);
                self.cpu.wait = Wait::Event;
            }
            Trap::Sev => {
                self.retire(left);
                self.cpu.event = true;
                self.others.iter_mut().for_each(|(_, cpu)| cpu.event = true);
            }
            Trap::Gic { register, rt, is_read } => self.gic_register(left, register, rt, is_read),
            Trap::Poison(abort) if self.is_traced(&abort) => {}
            Trap::Poison(abort) => return Ok(self.poison(left, &abort).map(Stop::Exit)),
            Trap::Hole(abort) => return Ok(self.hole(left, &abort, insn)?.map(Stop::Exit)),
            Trap::Bus(access) => return Ok(self.bus(left, &access, insn).map(Stop::Exit)),
        }
        Ok(None)
    }

    /// The instruction is done.
    pub(crate) fn retire(&mut self, left: &mut u64) {
        self.cpu.pc = self.cpu.pc.wrapping_add(4);
        self.cpu.advance_step();
        self.step(left, 1);
    }

    /// An exception at the PC: to EL1, or to EL2 where that is in its place.
    pub(crate) fn enter(&mut self, class: ExceptionClass, iss: u32, far: Option<u64>) {
        let (target, esr) = (self.cpu.target_of(class), Some(Esr::new(class, true, iss)));
        self.cpu.take_exception(&Exception { target, vector: Vector::Synchronous, esr, far });
    }

    /// Poison was consumed: the host sees an SEA.
    fn poison(&mut self, left: &mut u64, abort: &HostAbort) -> Option<Exit> {
        let set = u32::from(self.config.error_state.bits()) << iss::SET_SHIFT;
        let status = match abort.walk_level {
            Some(level) => seawall_arm::FaultStatus::ExternalOnWalk { level },
            None => seawall_arm::FaultStatus::External,
        };
        let iss = set | iss::EA | abort.intent.iss() | u32::from(status.bits());
        let ipa = abort.walk_level.is_none().then_some(abort.pa);
        self.remember(abort, iss, ipa);
        let policy = SeaPolicy { to_user: self.config.sea_to_user, guest_has_ras: self.config.ras };
        if let Ok(exit) = handle_guest_sea(&mut self.kernel(), policy) {
            return Some(Exit::Sea(exit));
        }
        // The host gave the guest an SError instead.
        self.step(left, 1);
        None
    }

    /// There is no RAM: a device, or a mistake of the guest.
    fn hole(&mut self, left: &mut u64, abort: &HostAbort, insn: Option<Insn>) -> Result<Option<Exit>, Error> {
        let iss = abort.intent.iss() | iss::STAGE2_TRANSLATION;
        if abort.walk_level.is_some() {
            self.remember(abort, iss | iss::S1PTW, Some(abort.pa));
            inject_walk_abort(&mut self.kernel());
            self.step(left, 1);
            return Ok(None);
        }
        if abort.intent.fetch {
            self.remember(abort, iss, Some(abort.pa));
            inject_fetch_from_hole(&mut self.kernel());
            self.step(left, 1);
            return Ok(None);
        }
        if let Some((insn, kind, ordered)) = described(insn) {
            self.remember(abort, iss | access_iss(&insn, kind, ordered), Some(abort.pa));
            return Ok(self.single_access(left, &insn, kind, abort.pa));
        }
        self.remember(abort, iss, Some(abort.pa));
        match self.config.no_syndrome {
            NoSyndrome::Fail => Err(Error::NoSyndrome { pc: self.cpu.pc, ipa: abort.pa }),
            _ => Ok(Some(Exit::Nisv(NisvExit { esr_iss: u64::from(iss), fault_ipa: abort.pa }))),
        }
    }

    /// An access of the bus, whose answer the instruction lacks.
    #[cold]
    fn bus(&mut self, left: &mut u64, access: &BusAccess, insn: Option<Insn>) -> Option<Exit> {
        let BusAccess { va, pa, len, write, data } = *access;
        let intent = if write { Intent::STORE } else { Intent::LOAD };
        let abort = HostAbort { intent, va, pa, walk_level: None, stage: WalkStage::First, size: len.into() };
        let iss = intent.iss() | iss::STAGE2_TRANSLATION;
        let whole = described(insn).filter(|(_, kind, _)| 1 << kind.size() == len);
        if let Some((insn, kind, ordered)) = whole {
            self.remember(&abort, iss | access_iss(&insn, kind, ordered), Some(pa));
            return self.single_access(left, &insn, kind, pa);
        }
        self.remember(&abort, iss, Some(pa));
        let done = &mut self.cpu.replay.done;
        done.push(*access);
        if self.gic.has(pa) {
            if write {
                self.gic.store(pa, len.into(), data);
                self.refresh_signals();
            } else if let Some(access) = done.last_mut() {
                access.data = self.gic.load(pa, len.into());
            }
            return None;
        }
        self.cpu.mmio = Some(PendingMmio::Accesses(std::mem::take(done)));
        let data = if write { data.to_le_bytes() } else { [0; 8] };
        Some(Exit::Mmio(MmioExit { phys_addr: pa, data, len: len.into(), is_write: write }))
    }

    /// The access of an instruction that is one access, as its syndrome describes it.
    fn single_access(&mut self, left: &mut u64, insn: &Insn, kind: Kind, pa: u64) -> Option<Exit> {
        if self.gic.has(pa) {
            self.gic_access(left, insn, kind, pa);
            return None;
        }
        Some(Exit::Mmio(self.mmio(insn, kind, pa)))
    }

    /// ESR_EL2, FAR_EL2 and HPFAR_EL2. The guest is always at a lower level than the host.
    fn remember(&mut self, abort: &HostAbort, iss: u32, ipa: Option<u64>) {
        let class = if abort.intent.fetch {
            ExceptionClass::INSTRUCTION_ABORT_LOWER
        } else {
            ExceptionClass::DATA_ABORT_LOWER
        };
        let ipa = ipa.map(|ipa| ipa & !(PAGE_SIZE - 1));
        self.cpu.last_fault = LastFault { esr: Esr::new(class, true, iss), far: abort.va, ipa };
    }

    /// Ask the host for an MMIO access.
    fn mmio(&mut self, insn: &Insn, kind: Kind, phys_addr: u64) -> MmioExit {
        let len = 1 << kind.size();
        let mut data = [0; 8];
        if kind.is_store() {
            let value = self.cpu.slot(insn.rd).to_le_bytes();
            for (to, from) in data.iter_mut().zip(value).take(len as usize) {
                *to = from;
            }
        }
        self.cpu.mmio = Some(PendingMmio::Register { kind, rd: insn.rd, data: [0; 8] });
        MmioExit { phys_addr, data, len, is_write: kind.is_store() }
    }
}

/// What the ISS of a stage 2 fault says of the instruction, if it describes it.
pub(crate) fn described_iss(insn: Option<Insn>) -> u32 {
    described(insn).map_or(0, |(insn, kind, ordered)| access_iss(&insn, kind, ordered))
}

/// The instruction, if a syndrome describes it.
fn described(insn: Option<Insn>) -> Option<(Insn, Kind, bool)> {
    let insn = insn?;
    insn.syndrome_kind().map(|(kind, ordered)| (insn, kind, ordered))
}

/// ISV, SAS, SSE, SRT, SF and AR. Source: DDI 0487, `ESR_EL2`, ISS of a data abort.
fn access_iss(insn: &Insn, kind: Kind, ordered: bool) -> u32 {
    let register = if insn.rd > 31 { 31 } else { u32::from(insn.rd) };
    iss::ISV
        | kind.size() << 22
        | u32::from(kind.is_signed()) << 21
        | register << 16
        | u32::from(kind.is_64()) << 15
        | u32::from(ordered) << 14
}

#[cfg(test)]
mod tests;
