//! PSTATE, exception return, and the system instructions: cache maintenance, address translation,
//! TLB maintenance.

use seawall_arm::{ExceptionClass, FaultStatus, Pstate};

use super::access::{fill, zero_on_bus};
use crate::cpu::{Cpu, Invalidation, Maintenance};
use crate::el2;
use crate::memory::{LINE_SIZE, Memory};
use crate::sysreg::{id, sctlr};
use crate::tlb::View;
use crate::trap::{HostAbort, Intent, Trap};
use crate::vm::StorePolicy;
use crate::walk::{self, Access, AccessKind, WalkStage};

const IC_IALLUIS: u16 = id(1, 0, 7, 1, 0);
const IC_IALLU: u16 = id(1, 0, 7, 5, 0);
const IC_IVAU: u16 = id(1, 3, 7, 5, 1);
const DC_IVAC: u16 = id(1, 0, 7, 6, 1);
const DC_ISW: u16 = id(1, 0, 7, 6, 2);
const DC_CSW: u16 = id(1, 0, 7, 10, 2);
const DC_CISW: u16 = id(1, 0, 7, 14, 2);
pub(crate) const DC_ZVA: u16 = id(1, 3, 7, 4, 1);
const DC_CVAC: u16 = id(1, 3, 7, 10, 1);
const DC_CVAU: u16 = id(1, 3, 7, 11, 1);
const DC_CVAP: u16 = id(1, 3, 7, 12, 1);
const DC_CIVAC: u16 = id(1, 3, 7, 14, 1);

/// SYS. `None`: it traps.
#[inline(never)]
pub(super) fn system_instruction(cpu: &mut Cpu, memory: &mut Memory, id: u16, rt: u8) -> Option<()> {
    el0_may(cpu, id, rt)?;
    cpu.el2_lets_instruction(id, rt)?;
    let value = cpu.slot(rt);
    match id {
        DC_ZVA => return zero_line(cpu, memory, value),
        DC_CVAC | DC_CVAU | DC_CVAP | DC_CIVAC | IC_IVAU => {
            return maintain(cpu, memory, value, AccessKind::CacheClean);
        }
        DC_IVAC => return maintain(cpu, memory, value, AccessKind::CacheInvalidate),
        DC_ISW | DC_CSW | DC_CISW => {}
        IC_IALLU | IC_IALLUIS => {
            cpu.drop_code = true;
            cpu.call_attention();
        }
        _ => {
            let is_done = el2::translate_address(cpu, memory, id, value)?
                || invalidate_tlb(cpu, id, value)
                || cpu.invalidate_tlb_of_el2(id, value);
            if !is_done {
                cpu.raise_system_undefined(id, rt, false);
                return None;
            }
        }
    }
    Some(())
}

/// The rights of EL0: SCTLR_EL1.DZE and UCI.
fn el0_may(cpu: &mut Cpu, id: u16, rt: u8) -> Option<()> {
    if cpu.state.el != 0 {
        return Some(());
    }
    let enable = match id {
        DC_ZVA => sctlr::DZE,
        DC_CVAC | DC_CVAU | DC_CVAP | DC_CIVAC | IC_IVAU => sctlr::UCI,
        _ => {
            cpu.raise_system_undefined(id, rt, false);
            return None;
        }
    };
    if cpu.sys.sctlr & enable == 0 {
        cpu.raise_system_trap(id, rt, false);
        return None;
    }
    Some(())
}

/// TLBI VMALLE1, VAE1, ASIDE1, VAAE1, VALE1, VAALE1 and their IS forms. Whether `id` is one.
fn invalidate_tlb(cpu: &mut Cpu, instruction: u16, value: u64) -> bool {
    const LOCAL: u16 = id(1, 0, 8, 7, 0);
    const INNER_SHAREABLE: u16 = id(1, 0, 8, 3, 0);
    if !matches!(instruction & !7, LOCAL | INNER_SHAREABLE) {
        return false;
    }
    let invalidation = match instruction & 7 {
        0 => Invalidation::All,
        // Only the current ASID has entries.
        2 => Invalidation::AddressSpace,
        // VA[55:12] is in the register's low bits; entries of other ASIDs are not there.
        1 | 3 | 5 | 7 => Invalidation::Address(value << 12),
        _ => return false,
    };
    let maintenance = Maintenance { of: cpu.maintained(), what: invalidation };
    cpu.invalidate(maintenance);
    if instruction & !7 == INNER_SHAREABLE || cpu.broadcasts_all() {
        cpu.broadcast.push(maintenance);
    }
    cpu.call_attention();
    true
}

/// Cache maintenance by address: there is no cache, but the address must translate.
fn maintain(cpu: &mut Cpu, memory: &mut Memory, va: u64, kind: AccessKind) -> Option<()> {
    let access = Access { kind, privileged: cpu.view != View::El0, pan: false };
    match walk::translate(memory, &cpu.regime(), va, access) {
        Ok(_) => Some(()),
        Err(fault) => {
            cpu.raise_fault(&fault, va, Intent::MAINTENANCE, 0);
            None
        }
    }
}

/// DC ZVA: the whole line is overwritten, which cleans it of poison unless the error persists.
fn zero_line(cpu: &mut Cpu, memory: &mut Memory, va: u64) -> Option<()> {
    let line = va & !(LINE_SIZE - 1);
    let entry = cpu.tlb.write[cpu.view as usize & 3].entry(line);
    if entry.covers(line, LINE_SIZE) && !entry.is_strict() {
        let offset = entry.offset(line);
        if !memory.page_has_poison(offset) {
            return memory.write(offset, [0; LINE_SIZE as usize]);
        }
    }
    let access = Access::data(true, cpu.view != View::El0, cpu.view == View::El1Pan);
    let translation = match walk::translate(memory, &cpu.regime(), va, access) {
        Ok(translation) => translation,
        Err(fault) => {
            cpu.raise_fault(&fault, va, Intent::STORE, 64);
            return None;
        }
    };
    if translation.attributes.is_device() {
        cpu.raise_abort(FaultStatus::Alignment, va, Intent::STORE);
        return None;
    }
    cpu.check_watchpoints(line, LINE_SIZE, Intent::STORE, access.privileged)?;
    let pa = translation.pa;
    if cpu.store_policy == StorePolicy::Persist && memory.poisoned(pa & !(LINE_SIZE - 1), LINE_SIZE) {
        return Some(());
    }
    if memory.clean_line(pa).is_none() {
        if cpu.serves_all {
            return zero_on_bus(cpu, pa & !(LINE_SIZE - 1), line);
        }
        let intent = Intent::STORE;
        cpu.trap =
            Trap::Hole(HostAbort { intent, va, pa, walk_level: None, stage: WalkStage::First, size: 64 });
        return None;
    }
    if memory.has_stale_code() {
        cpu.call_attention();
    }
    if let Some(offset) = memory.offset(pa) {
        fill(cpu, memory, &translation, va, offset, cpu.view, true);
    }
    Some(())
}

impl Cpu {
    /// MSR (immediate). `field` is op1:op2, `value` CRm.
    #[inline(never)]
    pub(super) fn write_pstate_field(&mut self, field: u16, value: u8) -> Option<()> {
        let low = value & 1 != 0;
        let all = |set: bool| if set { u64::MAX } else { 0 };
        let daif = u64::from(value) << 6;
        let is_daif = matches!(field, 0o36 | 0o37);
        let unprivileged = matches!(field, 0o31 | 0o32);
        if self.state.el == 0 && !unprivileged {
            let system = crate::sysreg::id(0, field >> 3, 4, u16::from(value), field & 7);
            if is_daif && self.sys.sctlr & sctlr::UMA == 0 {
                self.raise_system_trap(system, 31, false);
                return None;
            }
            if !is_daif {
                self.raise_system_undefined(system, 31, false);
                return None;
            }
        }
        match field {
            0o03 => self.set_rest(Pstate::UAO, all(low)),
            0o04 => self.set_rest(Pstate::PAN, all(low)),
            0o05 => self.select_sp(low),
            0o31 => self.set_rest(Pstate::SSBS, all(low)),
            0o32 => self.set_rest(Pstate::DIT, all(low)),
            0o36 => self.set_rest(daif, u64::MAX),
            _ => self.set_rest(daif, 0),
        }
        Some(())
    }

    /// Where a branch goes: with TBI the tag is replaced by the sign. Source: `AArch64.BranchAddr`.
    pub(crate) fn branch_address(&self, target: u64) -> u64 {
        if !matches!(target >> 55, 0 | 0x1ff) && self.regime().top_byte_ignored(target) {
            return ((target << 8) as i64 >> 8) as u64;
        }
        target
    }

    /// ERET. `None` at EL0, where it is UNDEFINED.
    /// Source: `AArch64.ExceptionReturn`, `SetPSTATEFromPSR`, `IllegalExceptionReturn`.
    #[inline(never)]
    pub(super) fn exception_return(&mut self) -> Option<()> {
        if self.state.el == 0 {
            self.trap = Trap::Undefined(0xd69f_03e0);
            return None;
        }
        let (spsr, target) = (self.sys.spsr, self.sys.elr);
        self.monitor = None;
        self.event = true;
        if self.is_legal_return(spsr) {
            let step = self.step_after_return((spsr >> 2 & 3) as u8, spsr);
            self.set_pstate(spsr & !Pstate::SS | step);
        } else {
            // Only the flags, PAN and DAIF are taken over, and IL is set.
            let kept = !(Pstate::NZCV | Pstate::PAN | Pstate::DAIF | Pstate::SS);
            let step = self.step_after_return(self.exception_level(), spsr);
            self.set_pstate(self.pstate() & kept | spsr & !kept & !Pstate::SS | step | Pstate::IL);
        }
        self.pc = self.branch_address(target);
        Some(())
    }

    /// WFI at EL0 may be trapped (SCTLR_EL1.nTWI).
    pub(super) fn check_wfi(&mut self) -> Option<()> {
        if self.state.el == 0 && self.sys.sctlr & sctlr::NTWI == 0 {
            self.raise(ExceptionClass::WFX, 0x1e0_0000, None);
            return None;
        }
        Some(())
    }

    /// WFE: goes on if the event register was set, which it clears; else it waits, or at EL0 may be
    /// trapped (SCTLR_EL1.nTWE). Source: `AArch64.CheckForWFxTrap`, ISS.TI.
    pub(super) fn wait_for_event(&mut self) -> Option<()> {
        if std::mem::take(&mut self.event) {
            return Some(());
        }
        if self.state.el == 0 && self.sys.sctlr & sctlr::NTWE == 0 {
            self.raise(ExceptionClass::WFX, 0x1e0_0001, None);
        } else {
            self.el2_lets_wait(true)?;
            self.trap = Trap::Wfe;
        }
        None
    }

    /// ESB: a pending virtual SError that is masked is put off into DISR_EL1. Without FEAT_RAS a NOP.
    /// Source: `AArch64.vESBOperation`.
    pub(super) fn error_synchronization_barrier(&mut self) {
        if self.el2.is_some() && self.defer_virtual_serror() {
            return;
        }
        if !self.ras || !self.serror.pending || self.state.rest & Pstate::A == 0 {
            return;
        }
        self.sys.disr = 1 << 31 | self.serror.vsesr & 0x1ff_ffff;
        self.serror.pending = false;
    }
}
