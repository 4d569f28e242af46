//! EL2 with the Virtualization Host Extensions, for CPUs that have it ([`Config::el2`](crate::Config)).
//!
//! EL2 always hosts (ID_AA64MMFR4_EL1.E2H0 says that HCR_EL2.E2H is RES1), so it has the registers of EL1 again, in the same
//! formats, and what names a register of EL1 means EL2's there. So the CPU has one set *in place*, which everything that
//! executes works on, and a *parked* one: [`Banked::El20`] while it is at EL2, or at EL0 below it (HCR_EL2.TGE), else
//! [`Banked::El10`]. The change between them swaps registers, SP and TLB. Nothing that executes has to ask which it is.
//!
//! - this file: the state, and which set is in place
//! - [`hcr`](mod@hcr): the bits of HCR_EL2 and its fellows
//! - [`registers`]: MRS and MSR of the registers that end in EL2, EL12 and EL02
//! - [`traps`]: the accesses of EL1 and EL0 that EL2 sees first
//! - [`routing`]: which Exception level takes an exception
//! - [`maintenance`]: TLBI and AT
//! - [`exits`]: a record of what leaves a guest for EL2
//!
//! Stage 2 is in [`walk`](crate::walk), the list registers are in [`gic`](crate::gic).
//!
//! Source: DDI 0487, D8 (regimes), D24.2 (registers, by name).

pub(crate) mod exits;
pub(crate) mod hcr;
mod maintenance;
mod registers;
mod routing;
#[cfg(test)]
mod tests;
mod traps;

use std::mem::swap;

use seawall_arm::Reg;

use crate::cpu::Cpu;
use crate::gic::Signals;
use crate::gic::virtual_interface::VirtualInterface;
use crate::sysreg::SysRegs;
use crate::tlb::Tlb;
use crate::walk::{Regime, Stage2};

use exits::ExitLog;
pub(crate) use maintenance::translate_address;
pub(crate) use registers::is_el2_register;

/// The translation regimes that have registers and TLBs of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Banked {
    /// EL1&0.
    El10,
    /// EL2&0.
    El20,
}

/// The additional state of a CPU with EL2.
#[derive(Debug)]
pub(crate) struct El2 {
    /// The registers in place are EL2's.
    host: bool,
    /// The other regime's registers. Of those that are there once, the values are stale.
    parked: SysRegs,
    /// SP_EL1 or SP_EL2, whichever is not in place.
    parked_sp: u64,
    parked_tlb: Tlb,
    /// The registers by which the EL1&0 regime's TLB was filled.
    filled_by: Option<Stage2>,
    pub(crate) registers: Registers,
    pub(crate) interface: VirtualInterface,
    /// A record of exits, while somebody wants one.
    exits: Option<Box<ExitLog>>,
}

/// The registers that EL2 alone has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Registers {
    pub(crate) hcr: u64,
    pub(crate) hcrx: u64,
    pub(crate) mdcr: u64,
    vpidr: u64,
    vmpidr: u64,
    vttbr: u64,
    vtcr: u64,
    pub(crate) hpfar: u64,
    vsesr: u64,
    vdisr: u64,
    tpidr: u64,
    cntvoff: u64,
    /// SCTLR2_EL1 and SCTLR2_EL2.
    sctlr2: [u64; 2],
}

impl Registers {
    fn new(mpidr: u64) -> Self {
        Self {
            hcr: hcr::RES1,
            hcrx: 0,
            mdcr: 0,
            vpidr: crate::idregs::MIDR,
            vmpidr: mpidr,
            vttbr: 0,
            vtcr: 0,
            hpfar: 0,
            vsesr: 0,
            vdisr: 0,
            tpidr: 0,
            cntvoff: 0,
            sctlr2: [0; 2],
        }
    }

    /// True if these are values that they can have.
    fn is_sound(&self) -> bool {
        self.hcr & !hcr::ALL == 0
            && self.hcr & hcr::RES1 == hcr::RES1
            && self.hcrx & !hcr::X_ALL == 0
            && self.mdcr & !hcr::MDCR_ALL == 0
            && self.sctlr2.iter().all(|value| value & !hcr::SCTLR2_ALL == 0)
    }

    /// HCR_EL2 has this bit.
    pub(crate) fn has(&self, bit: u64) -> bool {
        self.hcr & bit != 0
    }

    /// The effective SCTLR2_EL1 or SCTLR2_EL2: EL1's counts if HCRX_EL2.SCTLR2En.
    pub(crate) fn sctlr2(&self, of: Banked) -> u64 {
        match of {
            Banked::El10 if self.hcrx & hcr::X_SCTLR2EN == 0 => 0,
            Banked::El10 => self.sctlr2[0],
            Banked::El20 => self.sctlr2[1],
        }
    }

    /// CNTVOFF_EL2, which EL1's virtual timer has whoever runs.
    pub(crate) fn virtual_offset(&self) -> u64 {
        self.cntvoff
    }

    fn stage2(&self) -> Option<Stage2> {
        let default_cacheable = self.has(hcr::DC);
        (self.has(hcr::VM) || default_cacheable).then_some(Stage2 {
            vttbr: self.vttbr,
            vtcr: self.vtcr,
            default_cacheable,
            protected_walks: self.has(hcr::PTW),
            frozen: false,
        })
    }
}

/// [`El2`] as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Saved {
    host: bool,
    parked: SysRegs,
    parked_sp: u64,
    registers: Registers,
    interface: VirtualInterface,
}

impl Saved {
    /// True if a CPU with this PSTATE can have it.
    pub(crate) fn is_sound(&self, pstate: u64) -> bool {
        let in_place = match pstate >> 2 & 3 {
            0 => self.host == self.registers.has(hcr::TGE),
            level => self.host == (level == 2),
        };
        in_place && self.parked.is_sound() && self.registers.is_sound() && self.interface.is_sound()
    }
}

impl El2 {
    /// As it comes out of reset: the CPU is at EL2.
    pub(crate) fn new(mpidr: u64) -> Self {
        Self {
            host: true,
            parked: SysRegs::new(mpidr),
            parked_sp: 0,
            parked_tlb: Tlb::new(),
            filled_by: None,
            registers: Registers::new(mpidr),
            interface: VirtualInterface::new(),
            exits: None,
        }
    }

    pub(crate) fn save(&self) -> Saved {
        // All fields by name: whoever adds one must decide here what becomes of it.
        let Self { host, parked, parked_sp, parked_tlb: _, filled_by: _, registers, interface, exits: _ } =
            self;
        // What is there once is that of the registers in place.
        let parked = parked.without_shared();
        let (registers, interface) = (registers.clone(), interface.clone());
        Saved { host: *host, parked, parked_sp: *parked_sp, registers, interface }
    }

    pub(crate) fn restore(&mut self, saved: &Saved) {
        let Saved { host, parked, parked_sp, registers, interface } = saved;
        self.host = *host;
        self.parked = parked.clone();
        self.parked_sp = *parked_sp;
        self.parked_tlb.clear();
        self.filled_by = registers.stage2().filter(|_| !host);
        self.registers = registers.clone();
        self.interface = interface.clone();
    }

    /// The virtual interrupts that are signalled at EL1 and EL0.
    fn virtual_signals(&self) -> Signals {
        if self.host {
            return Signals::NONE;
        }
        let registers = &self.registers;
        let group = self.interface.signalled_group();
        let serror = registers.has(hcr::VSE) && registers.has(hcr::AMO);
        let irq = registers.has(hcr::IMO) && (group == Some(1) || registers.has(hcr::VI));
        let fiq = registers.has(hcr::FMO) && (group == Some(0) || registers.has(hcr::VF));
        let serror = Signals::VIRTUAL_SERROR.when(serror);
        serror.and(Signals::VIRTUAL_IRQ.when(irq)).and(Signals::VIRTUAL_FIQ.when(fiq))
    }
}

impl Cpu {
    /// True if the registers in place are EL2's: it is at EL2, or at EL0 below it.
    #[inline]
    pub(crate) fn is_host(&self) -> bool {
        self.el2.as_ref().is_some_and(|el2| el2.host)
    }

    /// EL2's registers while EL1 or EL0 below it runs.
    #[inline]
    pub(crate) fn hypervisor(&self) -> Option<&El2> {
        self.el2.as_deref().filter(|el2| !el2.host)
    }

    /// The regime whose registers are in place.
    pub(crate) fn banked(&self) -> Banked {
        if self.is_host() { Banked::El20 } else { Banked::El10 }
    }

    /// Has the registers in place that this PSTATE's mode uses. SP is saved.
    pub(crate) fn enter_mode(&mut self, pstate: u64) {
        let (steps, time) = (self.steps.wrapping_add(self.elapsed), self.time());
        let Some(el2) = &mut self.el2 else { return };
        let level = pstate >> 2 & 3;
        let host = match level {
            0 => el2.host && el2.registers.has(hcr::TGE),
            level => level == 2,
        };
        if let Some(log) = &mut el2.exits {
            match (el2.host, host) {
                (true, false) => log.enters(steps, time),
                (true, true) if level == 0 => log.user_space(),
                _ => {}
            }
        }
        self.set_host(host);
    }

    fn set_host(&mut self, host: bool) {
        let Some(el2) = &mut self.el2 else { return };
        if el2.host == host {
            return;
        }
        el2.host = host;
        self.sys.swap_banked(&mut el2.parked);
        swap(&mut self.tlb, &mut el2.parked_tlb);
        swap(&mut self.banked_sp[1], &mut el2.parked_sp);
        if !host {
            let stage2 = el2.registers.stage2();
            if el2.filled_by != stage2 {
                // Entries have no VMID: those of another stage 2 go.
                self.tlb.clear();
                el2.filled_by = stage2;
            }
        }
        self.refresh_virtual_signals();
    }

    /// Brings up to date what EL2 signals to the CPU itself.
    pub(crate) fn refresh_virtual_signals(&mut self) {
        if let Some(el2) = &self.el2 {
            self.signals = self.signals.with_virtual(el2.virtual_signals());
            self.call_attention();
        }
    }

    /// Does something with the registers of EL1 in place, while EL2's are.
    fn as_el1<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.save_sp();
        self.set_host(false);
        let value = work(self);
        self.set_host(true);
        self.load_sp();
        self.context_changed();
        value
    }

    /// A regime's registers, wherever they are. Of those that are there once, only the ones in place count.
    pub(crate) fn registers_of(&self, banked: Banked) -> &SysRegs {
        match &self.el2 {
            Some(el2) if self.banked() != banked => &el2.parked,
            _ => &self.sys,
        }
    }

    /// The same, to change them.
    pub(crate) fn registers_of_mut(&mut self, banked: Banked) -> &mut SysRegs {
        let is_parked = self.banked() != banked;
        match &mut self.el2 {
            Some(el2) if is_parked => &mut el2.parked,
            _ => &mut self.sys,
        }
    }

    /// A regime's TLB, wherever it is.
    pub(crate) fn tlb_of(&mut self, banked: Banked) -> &mut Tlb {
        let is_parked = self.banked() != banked;
        match &mut self.el2 {
            Some(el2) if is_parked => &mut el2.parked_tlb,
            _ => &mut self.tlb,
        }
    }

    /// The TLBs of all regimes.
    pub(crate) fn tlbs(&mut self) -> impl Iterator<Item = &mut Tlb> {
        std::iter::once(&mut self.tlb).chain(self.el2.as_mut().map(|el2| &mut el2.parked_tlb))
    }

    /// Stage 2 of the regime that the CPU is in.
    pub(crate) fn stage2(&self) -> Option<Stage2> {
        self.hypervisor().and_then(|el2| el2.registers.stage2())
    }

    /// The EL1&0 regime, wherever the CPU is.
    pub(crate) fn guest_regime(&self) -> Regime {
        let SysRegs { sctlr, tcr, ttbr0, ttbr1, mair, .. } = *self.registers_of(Banked::El10);
        let stage2 = self.el2.as_ref().and_then(|el2| el2.registers.stage2());
        Regime { sctlr, tcr, ttbr0, ttbr1, mair, pa_bits: crate::cpu::PA_BITS, stage2 }
    }

    /// SP_EL1.
    pub(crate) fn sp_el1(&self) -> u64 {
        match &self.el2 {
            Some(el2) if el2.host => el2.parked_sp,
            _ => self.sp(true),
        }
    }

    /// Set SP_EL1.
    pub(crate) fn set_sp_el1(&mut self, value: u64) {
        match &mut self.el2 {
            Some(el2) if el2.host => el2.parked_sp = value,
            _ => self.set_sp(true, value),
        }
    }

    /// CNTVOFF_EL2 as far as it counts here: at EL2, and below it at EL0, the virtual counter is the physical one.
    pub(crate) fn virtual_offset(&self) -> u64 {
        self.hypervisor().map_or(0, |el2| el2.registers.cntvoff)
    }

    /// The registers of EL2 that exception entry uses.
    pub(crate) fn el2_reg(&self, reg: Reg) -> u64 {
        let Some(el2) = &self.el2 else { return 0 };
        let sys = self.registers_of(Banked::El20);
        match reg {
            Reg::ElrEl2 => sys.elr,
            Reg::SpsrEl2 => sys.spsr,
            Reg::EsrEl2 => sys.esr,
            Reg::FarEl2 => sys.far,
            Reg::VbarEl2 => sys.vbar,
            Reg::SctlrEl2 => sys.sctlr,
            Reg::Sctlr2El1 => el2.registers.sctlr2[0],
            Reg::Sctlr2El2 => el2.registers.sctlr2[1],
            Reg::HcrEl2 => el2.registers.hcr,
            Reg::HcrxEl2 => el2.registers.hcrx,
            Reg::VsesrEl2 => el2.registers.vsesr,
            _ => 0,
        }
    }

    /// Sets the registers that exception entry to EL2 sets.
    pub(crate) fn set_el2_reg(&mut self, reg: Reg, value: u64) {
        if self.el2.is_none() {
            return;
        }
        let sys = self.registers_of_mut(Banked::El20);
        match reg {
            Reg::ElrEl2 => sys.elr = value,
            Reg::SpsrEl2 => sys.spsr = value,
            Reg::EsrEl2 => sys.esr = value,
            Reg::FarEl2 => sys.far = value,
            Reg::VbarEl2 => sys.vbar = value,
            _ => {}
        }
    }
}
