//! System registers: MRS, MSR and the rights of EL0.
//!
//! Source: DDI 0487, D24.2, the accessor pseudocode of each register. Registers go by
//! their numbers in `seawall_arm::sysreg`.

use seawall_arm::sysreg::{
    ACTLR_EL1, AFSR0_EL1, AFSR1_EL1, AIDR_EL1, AMAIR_EL1, CCSIDR_EL1, CLIDR_EL1, CNTFRQ_EL0, CNTKCTL_EL1,
    CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTV_TVAL_EL0,
    CNTVCT_EL0, CONTEXTIDR_EL1, CPACR_EL1, CSSELR_EL1, CTR_EL0, CURRENT_EL, DAIF, DCZID_EL0, DISR_EL1, DIT,
    ELR_EL1, ERRIDR_EL1, ERRSELR_EL1, ESR_EL1, FAR_EL1, FPCR, FPSR, ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1,
    ID_AA64ISAR1_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64MMFR3_EL1,
    ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, ISR_EL1, MAIR_EL1, MIDR_EL1, MPIDR_EL1, NZCV, PAN, PAR_EL1, REVIDR_EL1,
    SCTLR_EL1, SCTLR2_EL1, SP_EL0, SPSEL, SPSR_EL1, SSBS, TCR_EL1, TPIDR_EL0, TPIDR_EL1, TPIDRRO_EL0,
    TTBR0_EL1, TTBR1_EL1, UAO, VBAR_EL1,
};
use seawall_arm::{ExceptionClass, Pstate};

use crate::cpu::Cpu;
use crate::debug;
use crate::decode::insn::SINK;
use crate::el2::{hcr, is_el2_register};
use crate::gic::{self, Signals};
use crate::idregs;
use crate::pmu;
use crate::timer::{COUNTER_HZ, STEPS_PER_TICK, Timer};
use crate::trap::Trap;

pub(crate) use seawall_arm::sysreg::encoding as id;

/// The space of the identification registers.
const ID_FIRST: u16 = id(3, 0, 0, 1, 0);
const ID_LAST: u16 = id(3, 0, 0, 7, 7);
const ID_AA64MMFR4_EL1: u16 = id(3, 0, 0, 7, 4);

/// Bits of SCTLR_EL1 that this CPU looks at outside translation.
pub(crate) mod sctlr {
    /// EL0 may read and write DAIF.
    pub(crate) const UMA: u64 = 1 << 9;
    /// EL0 may use DC ZVA.
    pub(crate) const DZE: u64 = 1 << 14;
    /// EL0 may read CTR_EL0.
    pub(crate) const UCT: u64 = 1 << 15;
    /// EL0's WFI is not trapped.
    pub(crate) const NTWI: u64 = 1 << 16;
    /// EL0's WFE is not trapped.
    pub(crate) const NTWE: u64 = 1 << 18;
    /// EL0 may do cache maintenance by address.
    pub(crate) const UCI: u64 = 1 << 26;
    /// Big-endian data at EL0 and EL1: not there, RES0.
    pub(crate) const ENDIAN: u64 = 1 << 24 | 1 << 25;
    /// What is set after reset: the RES1 bits, SPAN, nTWE, nTWI, SA0, SA.
    pub(crate) const RESET: u64 = 0x30d5_0998;
}

/// CPACR_EL1.FPEN: all that this CPU has of it (no SVE, no trace).
pub(crate) const CPACR_FPEN: u64 = 3 << 20;

/// The registers that hold state.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SysRegs {
    pub(crate) sctlr: u64,
    pub(crate) cpacr: u64,
    pub(crate) tcr: u64,
    pub(crate) ttbr0: u64,
    pub(crate) ttbr1: u64,
    pub(crate) mair: u64,
    pub(crate) vbar: u64,
    pub(crate) esr: u64,
    pub(crate) far: u64,
    pub(crate) elr: u64,
    pub(crate) spsr: u64,
    pub(crate) par: u64,
    pub(crate) disr: u64,
    pub(crate) contextidr: u64,
    pub(crate) tpidr_el0: u64,
    pub(crate) tpidrro_el0: u64,
    pub(crate) tpidr_el1: u64,
    afsr: [u64; 2],
    amair: u64,
    pub(crate) cntkctl: u64,
    csselr: u64,
    pub(crate) mpidr: u64,
    pub(crate) physical_timer: Timer,
    pub(crate) virtual_timer: Timer,
}

impl SysRegs {
    /// True if this is a state that they can come to, as far as it matters.
    pub(crate) fn is_sound(&self) -> bool {
        self.cpacr & !(CPACR_FPEN | hcr::CPTR_TCPAC) == 0
            && self.physical_timer.is_sound()
            && self.virtual_timer.is_sound()
    }

    /// Swaps those that EL1 and EL2 each have for themselves.
    pub(crate) fn swap_banked(&mut self, other: &mut Self) {
        use std::mem::swap;
        // All fields by name: whoever adds one must decide here whose it is.
        let Self {
            sctlr,
            cpacr,
            tcr,
            ttbr0,
            ttbr1,
            mair,
            vbar,
            esr,
            far,
            elr,
            spsr,
            contextidr,
            afsr,
            amair,
            cntkctl,
            physical_timer,
            virtual_timer,
            // One for all.
            par: _,
            disr: _,
            tpidr_el0: _,
            tpidrro_el0: _,
            tpidr_el1: _,
            csselr: _,
            mpidr: _,
        } = self;
        swap(sctlr, &mut other.sctlr);
        swap(cpacr, &mut other.cpacr);
        swap(tcr, &mut other.tcr);
        swap(ttbr0, &mut other.ttbr0);
        swap(ttbr1, &mut other.ttbr1);
        swap(mair, &mut other.mair);
        swap(vbar, &mut other.vbar);
        swap(esr, &mut other.esr);
        swap(far, &mut other.far);
        swap(elr, &mut other.elr);
        swap(spsr, &mut other.spsr);
        swap(contextidr, &mut other.contextidr);
        swap(afsr, &mut other.afsr);
        swap(amair, &mut other.amair);
        swap(cntkctl, &mut other.cntkctl);
        swap(physical_timer, &mut other.physical_timer);
        swap(virtual_timer, &mut other.virtual_timer);
    }

    /// A parked set, in which those that are there once are 0.
    pub(crate) fn without_shared(&self) -> Self {
        let (par, disr, tpidr_el0, tpidrro_el0, tpidr_el1, csselr) = (0, 0, 0, 0, 0, 0);
        Self { par, disr, tpidr_el0, tpidrro_el0, tpidr_el1, csselr, ..self.clone() }
    }

    /// As they are after reset.
    pub(crate) fn new(mpidr: u64) -> Self {
        Self {
            sctlr: sctlr::RESET,
            cpacr: 0,
            tcr: 0,
            ttbr0: 0,
            ttbr1: 0,
            mair: 0,
            vbar: 0,
            esr: 0,
            far: 0,
            elr: 0,
            spsr: 0,
            par: 0,
            disr: 0,
            contextidr: 0,
            tpidr_el0: 0,
            tpidrro_el0: 0,
            tpidr_el1: 0,
            afsr: [0; 2],
            amair: 0,
            cntkctl: 0,
            csselr: 0,
            mpidr,
            physical_timer: Timer::default(),
            virtual_timer: Timer::default(),
        }
    }
}

/// The ISS of a trapped MRS, MSR or SYS. Source: `AArch64.SystemAccessTrapSyndrome`.
pub(crate) fn access_iss(id: u16, rt: u8, is_read: bool) -> u32 {
    let id = u32::from(id);
    let rt = if rt == SINK { 31 } else { u32::from(rt) };
    let (op0, op1, crn) = (id >> 14, id >> 11 & 7, id >> 7 & 15);
    let (crm, op2) = (id >> 3 & 15, id & 7);
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | u32::from(is_read)
}

/// What EL0 may do with a register that it has.
enum Right {
    Yes,
    /// Trapped to EL1 with EC 0x18 unless this holds.
    If(bool),
    /// UNDEFINED.
    No,
}

impl Cpu {
    /// The machine's time, in steps.
    pub(crate) fn time(&self) -> u64 {
        self.clock.wrapping_add(self.steps).wrapping_add(self.elapsed)
    }

    /// The physical counter, in ticks.
    pub(crate) fn counter(&self) -> u64 {
        self.time() / STEPS_PER_TICK
    }

    /// The virtual counter, in ticks.
    fn virtual_counter(&self) -> u64 {
        self.counter().wrapping_sub(self.virtual_offset())
    }

    /// Cycles of this CPU: its steps.
    fn cycles(&self) -> u64 {
        self.steps.wrapping_add(self.elapsed)
    }

    /// True if FP and AdvSIMD are enabled; if not, the trap is recorded. Source:
    /// `CheckFPAdvSIMDEnabled64`.
    #[inline]
    pub(crate) fn check_fp(&mut self) -> Option<()> {
        if !self.fp_enabled {
            self.raise_fp_trap();
            return None;
        }
        Some(())
    }

    /// EC 0x07. ISS: CV = 1, COND = 0b1110.
    #[cold]
    fn raise_fp_trap(&mut self) {
        if self.el2.is_some() && self.raise_fp_trap_of_el2() {
            return;
        }
        self.raise(ExceptionClass::FP_ASIMD, 0x1e0_0000, None);
    }

    /// Record that a system register access or system instruction is UNDEFINED.
    #[cold]
    pub(crate) fn raise_system_undefined(&mut self, id: u16, rt: u8, is_read: bool) {
        let rt = if rt == SINK { 31 } else { u32::from(rt) };
        let word = 0xd500_0000 | u32::from(is_read) << 21 | u32::from(id) << 5 | rt;
        self.trap = Trap::Undefined(word);
    }

    /// Record that it is trapped to EL1 (EC 0x18).
    #[cold]
    pub(crate) fn raise_system_trap(&mut self, id: u16, rt: u8, is_read: bool) {
        self.raise(ExceptionClass::SYSREG, access_iss(id, rt, is_read), None);
    }

    /// At EL0: whether the access goes on; if not, the trap is recorded.
    fn el0_may(&mut self, id: u16, rt: u8, is_read: bool) -> Option<()> {
        if self.state.el != 0 {
            return Some(());
        }
        let (sctlr, kctl) = (self.sys.sctlr, self.sys.cntkctl);
        let right = match id {
            NZCV | DIT | SSBS | TPIDR_EL0 | FPCR | FPSR => Right::Yes,
            DCZID_EL0 | TPIDRRO_EL0 if is_read => Right::Yes,
            CTR_EL0 if is_read => Right::If(sctlr & sctlr::UCT != 0),
            DAIF => Right::If(sctlr & sctlr::UMA != 0),
            CNTFRQ_EL0 if is_read => Right::If(kctl & 0b11 != 0),
            CNTPCT_EL0 if is_read => Right::If(kctl & 1 != 0),
            CNTVCT_EL0 if is_read => Right::If(kctl & 2 != 0),
            CNTP_TVAL_EL0 | CNTP_CTL_EL0 | CNTP_CVAL_EL0 => Right::If(kctl >> 9 & 1 != 0),
            CNTV_TVAL_EL0 | CNTV_CTL_EL0 | CNTV_CVAL_EL0 => Right::If(kctl >> 8 & 1 != 0),
            _ if debug::is_register(id) => self.debug.el0_right(id, is_read).map_or(Right::No, Right::If),
            _ if pmu::is_register(id) => self.pmu.el0_right(id, is_read).map_or(Right::No, Right::If),
            _ => Right::No,
        };
        match right {
            Right::Yes | Right::If(true) => Some(()),
            Right::If(false) => {
                self.raise_system_trap(id, rt, is_read);
                None
            }
            Right::No => {
                self.raise_system_undefined(id, rt, is_read);
                None
            }
        }
    }

    /// MRS. `None`: it traps.
    #[inline(never)]
    pub(crate) fn read_system_register(&mut self, id: u16, rt: u8) -> Option<u64> {
        self.el0_may(id, rt, true)?;
        if matches!(id, FPCR | FPSR) {
            self.check_fp()?;
        }
        self.el2_lets(id, rt, true)?;
        if gic::is_register(id) {
            self.trap = Trap::Gic { register: id, rt, is_read: true };
            return None;
        }
        let value = if is_el2_register(id) && self.exception_level() == 2 {
            self.read_el2_register(id)
        } else {
            self.identification(id).or_else(|| self.value(id))
        };
        if value.is_none() {
            self.raise_system_undefined(id, rt, true);
        }
        value
    }

    /// The registers that say what the CPU is.
    fn identification(&self, id: u16) -> Option<u64> {
        Some(match id {
            MIDR_EL1 => self.virtual_ids().map_or(idregs::MIDR, |(midr, _)| midr),
            MPIDR_EL1 => self.virtual_ids().map_or(self.sys.mpidr, |(_, mpidr)| mpidr),
            ID_AA64PFR0_EL1 => idregs::aa64pfr0(self.ras, self.el2.is_some()),
            ID_AA64PFR1_EL1 => idregs::aa64pfr1(self.ras && self.el2.is_some()),
            ID_AA64DFR0_EL1 => idregs::AA64DFR0,
            ID_AA64ISAR0_EL1 => idregs::AA64ISAR0,
            ID_AA64ISAR1_EL1 => idregs::AA64ISAR1,
            ID_AA64MMFR0_EL1 => idregs::AA64MMFR0,
            ID_AA64MMFR1_EL1 => idregs::aa64mmfr1(self.el2.is_some()),
            ID_AA64MMFR2_EL1 => idregs::AA64MMFR2,
            ID_AA64MMFR3_EL1 => idregs::aa64mmfr3(self.ras && self.el2.is_some()),
            ID_AA64MMFR4_EL1 => idregs::aa64mmfr4(self.el2.is_some()),
            // The rest of the space, AArch32's included (MVFRn_EL1 too), reads as zero: nothing is there.
            REVIDR_EL1 | AIDR_EL1 | ID_FIRST..=ID_LAST => 0,
            CTR_EL0 => idregs::CTR,
            CLIDR_EL1 => idregs::CLIDR,
            // Level 1 data (0) and instruction (1) caches.
            CCSIDR_EL1 => {
                if self.sys.csselr <= 1 {
                    idregs::CCSIDR
                } else {
                    0
                }
            }
            DCZID_EL0 => {
                let by_el1 = self.state.el == 0 && self.sys.sctlr & sctlr::DZE == 0;
                let prohibited = by_el1 || !self.el2_lets_zva();
                idregs::DCZID | u64::from(prohibited) << 4
            }
            _ => return None,
        })
    }

    /// The registers that hold state.
    pub(crate) fn value(&self, id: u16) -> Option<u64> {
        let sys = &self.sys;
        let now = self.counter();
        let virtual_now = self.virtual_counter();
        Some(match id {
            SCTLR_EL1 => sys.sctlr,
            TTBR0_EL1 => sys.ttbr0,
            TTBR1_EL1 => sys.ttbr1,
            TCR_EL1 => sys.tcr,
            SPSR_EL1 => sys.spsr,
            ELR_EL1 => sys.elr,
            SP_EL0 if self.state.sp_el1 => self.sp(false),
            SPSEL => u64::from(self.state.sp_el1),
            CURRENT_EL => u64::from(self.exception_level()) << 2,
            PAN => self.state.rest & Pstate::PAN,
            UAO => self.state.rest & Pstate::UAO,
            DIT => self.state.rest & Pstate::DIT,
            SSBS => self.state.rest & Pstate::SSBS,
            DAIF => self.state.rest & Pstate::DAIF,
            NZCV => u64::from(self.state.nzcv) << 28,
            AFSR0_EL1 => sys.afsr[0],
            AFSR1_EL1 => sys.afsr[1],
            ESR_EL1 => sys.esr,
            FAR_EL1 => sys.far,
            PAR_EL1 => sys.par,
            MAIR_EL1 => sys.mair,
            AMAIR_EL1 => sys.amair,
            VBAR_EL1 => sys.vbar,
            // A, I and F: what is pending.
            ISR_EL1 => self.pending_interrupts(),
            // No error records.
            ERRIDR_EL1 | ERRSELR_EL1 if self.ras => 0,
            DISR_EL1 if self.ras => self.virtual_disr().unwrap_or(sys.disr),
            SCTLR2_EL1 => return self.named_sctlr2(),
            CONTEXTIDR_EL1 => sys.contextidr,
            TPIDR_EL0 => sys.tpidr_el0,
            TPIDRRO_EL0 => sys.tpidrro_el0,
            TPIDR_EL1 => sys.tpidr_el1,
            CNTKCTL_EL1 => sys.cntkctl,
            CSSELR_EL1 => sys.csselr,
            CNTFRQ_EL0 => COUNTER_HZ,
            CNTPCT_EL0 => now,
            CNTVCT_EL0 => virtual_now,
            CNTP_TVAL_EL0 => sys.physical_timer.value(now),
            CNTP_CTL_EL0 => sys.physical_timer.control(now),
            CNTP_CVAL_EL0 => sys.physical_timer.compare,
            CNTV_TVAL_EL0 => sys.virtual_timer.value(virtual_now),
            CNTV_CTL_EL0 => sys.virtual_timer.control(virtual_now),
            CNTV_CVAL_EL0 => sys.virtual_timer.compare,
            CPACR_EL1 => sys.cpacr,
            FPCR => self.fp.fpcr(),
            FPSR => self.fp.fpsr(),
            ACTLR_EL1 => 0,
            _ if debug::is_register(id) => return self.debug.read(id),
            _ if pmu::is_register(id) => return self.pmu.read(id, self.cycles()),
            _ => return None,
        })
    }

    /// ISR_EL1: A, I and F. Below an EL2 that takes them, the virtual ones.
    fn pending_interrupts(&self) -> u64 {
        let signals = self.signals;
        let own = self.hypervisor().map(|el2| &el2.registers);
        let is = |bit, physical, of_el2| {
            let is_virtual = own.is_some_and(|own| own.has(bit));
            u64::from(signals.has(if is_virtual { of_el2 } else { physical }))
        };
        let serror = self.serror.pending || signals.has(Signals::VIRTUAL_SERROR);
        u64::from(serror) << 8
            | is(hcr::IMO, Signals::IRQ, Signals::VIRTUAL_IRQ) << 7
            | is(hcr::FMO, Signals::FIQ, Signals::VIRTUAL_FIQ) << 6
    }

    /// MSR (register). `None`: it traps.
    #[inline(never)]
    pub(crate) fn write_system_register(&mut self, id: u16, rt: u8) -> Option<()> {
        self.el0_may(id, rt, false)?;
        if matches!(id, FPCR | FPSR) {
            self.check_fp()?;
        }
        self.el2_lets(id, rt, false)?;
        if gic::is_register(id) {
            self.trap = Trap::Gic { register: id, rt, is_read: false };
            return None;
        }
        let value = self.slot(rt);
        if is_el2_register(id) && self.exception_level() == 2 {
            let done = self.write_el2_register(id, value);
            if done.is_none() {
                self.raise_system_undefined(id, rt, false);
            }
            return done;
        }
        if debug::is_register(id) {
            if self.write_debug_register(id, value).is_none() {
                self.raise_system_undefined(id, rt, false);
                return None;
            }
            return Some(());
        }
        if pmu::is_register(id) {
            let (cycles, el) = (self.cycles(), self.exception_level());
            if self.pmu.write(id, value, cycles, el, self.el2.is_some()).is_none() {
                self.raise_system_undefined(id, rt, false);
                return None;
            }
            self.deadline_changed();
            return Some(());
        }
        let done = self.set_value(id, value);
        if done.is_none() {
            self.raise_system_undefined(id, rt, false);
        }
        done
    }

    /// The registers that hold state, but for those of debug and of the performance monitor. `None`: UNDEFINED.
    pub(crate) fn set_value(&mut self, id: u16, value: u64) -> Option<()> {
        if self.set_timer(id, value) {
            self.deadline_changed();
            return Some(());
        }
        if id == SCTLR2_EL1 {
            let own = self.banked();
            return self.set_sctlr2(own, value);
        }
        (self.set_translation(id, value) || self.set_state(id, value) || self.set_plain(id, value))
            .then_some(())
    }

    /// The registers that translation depends on. Whether `id` is one.
    fn set_translation(&mut self, id: u16, value: u64) -> bool {
        const ASID: u64 = 0xffff << 48;
        let sys = &mut self.sys;
        match id {
            SCTLR_EL1 => {
                let value = value & !sctlr::ENDIAN;
                if sys.sctlr != value {
                    sys.sctlr = value;
                    self.tlb.clear();
                    self.context_changed();
                }
            }
            TCR_EL1 => {
                if sys.tcr != value {
                    sys.tcr = value;
                    self.tlb.clear();
                }
            }
            MAIR_EL1 => {
                if sys.mair != value {
                    sys.mair = value;
                    self.tlb.clear();
                }
            }
            TTBR0_EL1 => {
                if sys.ttbr0 != value {
                    sys.ttbr0 = value;
                    self.tlb.drop_address_space();
                }
            }
            TTBR1_EL1 => {
                let change = sys.ttbr1 ^ value;
                sys.ttbr1 = value;
                if change & !ASID != 0 {
                    self.tlb.clear();
                } else if change != 0 {
                    self.tlb.drop_address_space();
                }
            }
            _ => return false,
        }
        true
    }

    /// The registers that are views of PSTATE, and the stack pointer of EL0.
    fn set_state(&mut self, id: u16, value: u64) -> bool {
        match id {
            NZCV => self.state.nzcv = (value >> 28 & 15) as u8,
            DAIF => self.set_rest(Pstate::DAIF, value),
            DIT => self.set_rest(Pstate::DIT, value),
            SSBS => self.set_rest(Pstate::SSBS, value),
            PAN => self.set_rest(Pstate::PAN, value),
            UAO => self.set_rest(Pstate::UAO, value),
            SPSEL => self.select_sp(value & 1 != 0),
            SP_EL0 if self.state.sp_el1 => self.set_sp(false, value),
            _ => return false,
        }
        true
    }

    /// Set the PSTATE bits in `mask` from `value`, and look at what may be unmasked by it: interrupts, debug
    /// exceptions.
    pub(crate) fn set_rest(&mut self, mask: u64, value: u64) {
        self.state.rest = self.state.rest & !mask | value & mask;
        self.context_changed();
        if self.is_signalled() || self.debug.is_on() {
            self.call_attention();
        }
    }

    /// The registers of the timers. Whether `id` is one.
    fn set_timer(&mut self, id: u16, value: u64) -> bool {
        let (now, virtual_now) = (self.counter(), self.virtual_counter());
        let sys = &mut self.sys;
        match id {
            CNTP_TVAL_EL0 => sys.physical_timer.set_value(now, value),
            CNTP_CTL_EL0 => sys.physical_timer.set_control(value),
            CNTP_CVAL_EL0 => sys.physical_timer.compare = value,
            CNTV_TVAL_EL0 => sys.virtual_timer.set_value(virtual_now, value),
            CNTV_CTL_EL0 => sys.virtual_timer.set_control(value),
            CNTV_CVAL_EL0 => sys.virtual_timer.compare = value,
            _ => return false,
        }
        true
    }

    /// The registers that just hold a value.
    fn set_plain(&mut self, id: u16, value: u64) -> bool {
        let (counter_control, fp_control) = (self.counter_control_mask(), self.fp_control_mask());
        let sys = &mut self.sys;
        match id {
            SPSR_EL1 => sys.spsr = value,
            ELR_EL1 => sys.elr = value,
            AFSR0_EL1 => sys.afsr[0] = value,
            AFSR1_EL1 => sys.afsr[1] = value,
            ESR_EL1 => sys.esr = value,
            FAR_EL1 => sys.far = value,
            PAR_EL1 => sys.par = value,
            AMAIR_EL1 => sys.amair = value,
            VBAR_EL1 => sys.vbar = value & !0x7ff,
            DISR_EL1 if self.ras => {
                if !self.set_virtual_disr(value) {
                    self.sys.disr = value & (1 << 31 | 0x1ff_ffff);
                }
            }
            ERRSELR_EL1 if self.ras => {}
            CONTEXTIDR_EL1 => sys.contextidr = value & 0xffff_ffff,
            TPIDR_EL0 => sys.tpidr_el0 = value,
            TPIDRRO_EL0 => sys.tpidrro_el0 = value,
            TPIDR_EL1 => sys.tpidr_el1 = value,
            CNTKCTL_EL1 => sys.cntkctl = value & counter_control,
            CSSELR_EL1 => sys.csselr = value & 0xf,
            FPCR => self.fp.set_fpcr(value),
            FPSR => self.fp.set_fpsr(value),
            CPACR_EL1 => {
                sys.cpacr = value & fp_control;
                self.context_changed();
            }
            ACTLR_EL1 => {}
            _ => return false,
        }
        true
    }
}
