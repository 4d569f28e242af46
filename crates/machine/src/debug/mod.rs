//! Self-hosted debug: breakpoints, watchpoints and software step, with the registers that set them up.
//!
//! Two breakpoints, both of which can compare a context, and two watchpoints. There is no halting debug, no
//! external debugger, and so nobody at the other end of the debug communications channel.
//!
//! While MDSCR_EL1 enables none of it, none of it costs anything: the interpreter asks once between
//! stretches of instructions.
//!
//! Source: DDI 0487, D2 "AArch64 Self-hosted Debug", and the registers by name in D24.3.

mod matching;
mod run;

use std::cmp::Ordering;

use seawall_arm::sysreg::{
    DBGAUTHSTATUS_EL1, DBGCLAIMCLR_EL1, DBGCLAIMSET_EL1, DBGDTR_EL0, DBGDTRRX_EL0, DBGPRCR_EL1, MDCCINT_EL1,
    MDCCSR_EL0, MDRAR_EL1, MDSCR_EL1, OSDLR_EL1, OSDTRRX_EL1, OSDTRTX_EL1, OSECCR_EL1, OSLAR_EL1, OSLSR_EL1,
};
use seawall_arm::{ExceptionClass, Pstate};

use crate::cpu::Cpu;
use crate::sysreg::id;
use crate::tlb::Tlb;

/// Breakpoints, and watchpoints: ID_AA64DFR0_EL1.BRPs and WRPs plus one.
const COUNT: usize = 2;

/// MDSCR_EL1.
mod mdscr {
    /// Software step.
    pub(super) const SS: u64 = 1 << 0;
    /// EL0 is trapped from the debug communications channel.
    pub(super) const TDCC: u64 = 1 << 12;
    /// Debug exceptions from EL1 to itself.
    pub(super) const KDE: u64 = 1 << 13;
    /// Breakpoints and watchpoints.
    pub(super) const MDE: u64 = 1 << 15;
    /// What can be written while the OS lock is open.
    pub(super) const OPEN: u64 = SS | TDCC | KDE | MDE;
    /// What else can be while it is locked, to save and restore: ERR, HDE, SC2, TDA, INTdis, TXU, RXO, TXfull,
    /// RXfull.
    pub(super) const LOCKED: u64 =
        1 << 6 | 1 << 14 | 1 << 19 | 1 << 21 | 3 << 22 | 1 << 26 | 1 << 27 | 1 << 29 | 1 << 30;
}

/// MDCCINT_EL1.RX and TX.
const MDCCINT: u64 = 3 << 29;
/// DBGBCRn_EL1: E, PMC, HMC, SSC, LBN, BT; BAS is RES1 without AArch32.
const BREAKPOINT_CONTROL: u64 = 1 | 3 << 1 | 1 << 13 | 3 << 14 | 0xf << 16 | 0xf << 20;
const BREAKPOINT_CONTROL_RES1: u64 = 0xf << 5;
/// DBGWCRn_EL1: E, PAC, LSC, BAS, HMC, SSC, LBN, WT, MASK.
const WATCHPOINT_CONTROL: u64 = 0x1fff | 1 << 13 | 3 << 14 | 0xf << 16 | 1 << 20 | 0x1f << 24;
/// The claim tags that there are.
const CLAIM: u64 = 0xff;

/// A breakpoint or watchpoint: DBGxCRn_EL1 and DBGxVRn_EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
struct Point {
    control: u64,
    value: u64,
}

impl Point {
    fn is_enabled(self) -> bool {
        self.control & 1 != 0
    }
}

/// What debug is set up to do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Debug {
    mdscr: u64,
    mdccint: u64,
    os_lock: bool,
    os_double_lock: bool,
    claim: u64,
    breakpoints: [Point; COUNT],
    watchpoints: [Point; COUNT],
    /// The instruction that runs is being stepped.
    advancing: bool,
    /// The last instruction was stepped, and whether it was a load-exclusive.
    stepped: Option<bool>,
    /// Software step or a breakpoint is enabled, at some Exception level.
    on: bool,
    /// A watchpoint is.
    watching: bool,
}

/// What a number names in the space of these registers.
enum Name {
    BreakpointValue(usize),
    BreakpointControl(usize),
    WatchpointValue(usize),
    WatchpointControl(usize),
    Other,
}

impl Name {
    fn new(register: u16) -> Self {
        let n = usize::from(register >> 3 & 15);
        match register {
            _ if register & !0x7f != id(2, 0, 0, 0, 0) || n >= COUNT => Self::Other,
            _ => match register & 7 {
                4 => Self::BreakpointValue(n),
                5 => Self::BreakpointControl(n),
                6 => Self::WatchpointValue(n),
                7 => Self::WatchpointControl(n),
                _ => Self::Other,
            },
        }
    }
}

/// True if a system register is one of debug's, or is in its space and there is none: op0 = 2.
pub(crate) fn is_register(register: u16) -> bool {
    register >> 14 == 2
}

impl Debug {
    /// As it comes out of reset: the OS lock is locked. What is UNKNOWN then is 0.
    pub(crate) fn new() -> Self {
        Self {
            mdscr: 0,
            mdccint: 0,
            os_lock: true,
            os_double_lock: false,
            claim: 0,
            breakpoints: [Point::default(); COUNT],
            watchpoints: [Point::default(); COUNT],
            advancing: false,
            stepped: None,
            on: false,
            watching: false,
        }
    }

    /// True if instructions must be looked at one by one, at some Exception level.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// True if EL0 may access a register: MDSCR_EL1.TDCC. `None`: it never may.
    pub(crate) fn el0_right(&self, register: u16, is_read: bool) -> Option<bool> {
        match register {
            MDCCSR_EL0 if !is_read => None,
            MDCCSR_EL0 | DBGDTR_EL0 | DBGDTRRX_EL0 => Some(self.mdscr & mdscr::TDCC == 0),
            _ => None,
        }
    }

    /// MRS. `None`: UNDEFINED.
    pub(crate) fn read(&self, register: u16) -> Option<u64> {
        let control = |points: &[Point; COUNT], n: usize| points.get(n).map(|point| point.control);
        let value = |points: &[Point; COUNT], n: usize| points.get(n).map(|point| point.value);
        Some(match Name::new(register) {
            Name::BreakpointValue(n) => value(&self.breakpoints, n)?,
            Name::BreakpointControl(n) => control(&self.breakpoints, n)? | BREAKPOINT_CONTROL_RES1,
            Name::WatchpointValue(n) => value(&self.watchpoints, n)?,
            Name::WatchpointControl(n) => control(&self.watchpoints, n)?,
            Name::Other => match register {
                MDSCR_EL1 => self.mdscr,
                MDCCINT_EL1 => self.mdccint,
                // OSLM = 0b10: the OS lock is there.
                OSLSR_EL1 => 1 << 3 | u64::from(self.os_lock) << 1,
                OSDLR_EL1 => self.os_double_lock.into(),
                DBGCLAIMSET_EL1 => CLAIM,
                DBGCLAIMCLR_EL1 => self.claim,
                // No debug ROM, no external debugger, nobody who sends.
                MDRAR_EL1 | DBGAUTHSTATUS_EL1 | DBGPRCR_EL1 | OSDTRRX_EL1 | OSDTRTX_EL1 | OSECCR_EL1
                | MDCCSR_EL0 | DBGDTR_EL0 | DBGDTRRX_EL0 => 0,
                _ => return None,
            },
        })
    }

    /// MSR. `None`: UNDEFINED.
    fn write(&mut self, register: u16, value: u64) -> Option<()> {
        match Name::new(register) {
            Name::BreakpointValue(n) => self.breakpoints.get_mut(n)?.value = value,
            Name::BreakpointControl(n) => {
                self.breakpoints.get_mut(n)?.control = value & BREAKPOINT_CONTROL;
            }
            Name::WatchpointValue(n) => self.watchpoints.get_mut(n)?.value = value & !3,
            Name::WatchpointControl(n) => {
                self.watchpoints.get_mut(n)?.control = value & WATCHPOINT_CONTROL;
            }
            Name::Other => match register {
                MDSCR_EL1 => {
                    let mask = mdscr::OPEN | if self.os_lock { mdscr::LOCKED } else { 0 };
                    self.mdscr = self.mdscr & !mask | value & mask;
                }
                MDCCINT_EL1 => self.mdccint = value & MDCCINT,
                OSLAR_EL1 => self.os_lock = value & 1 != 0,
                OSDLR_EL1 => self.os_double_lock = value & 1 != 0,
                DBGCLAIMSET_EL1 => self.claim |= value & CLAIM,
                DBGCLAIMCLR_EL1 => self.claim &= !value,
                DBGPRCR_EL1 | OSDTRRX_EL1 | OSDTRTX_EL1 | OSECCR_EL1 | DBGDTR_EL0 | DBGDTRRX_EL0 => {}
                _ => return None,
            },
        }
        (self.on, self.watching) = self.armed();
        Some(())
    }

    /// What `on` and `watching` are to be.
    fn armed(&self) -> (bool, bool) {
        let is_armed =
            |points: &[Point]| self.mdscr & mdscr::MDE != 0 && points.iter().any(|point| point.is_enabled());
        (self.mdscr & mdscr::SS != 0 || is_armed(&self.breakpoints), is_armed(&self.watchpoints))
    }

    /// True if this is a state that it can come to.
    pub(crate) fn is_sound(&self) -> bool {
        self.mdscr & !(mdscr::OPEN | mdscr::LOCKED) == 0
            && self.mdccint & !MDCCINT == 0
            && self.claim & !CLAIM == 0
            && self.breakpoints.iter().all(|point| point.control & !BREAKPOINT_CONTROL == 0)
            && self
                .watchpoints
                .iter()
                .all(|point| point.control & !WATCHPOINT_CONTROL == 0 && point.value.trailing_zeros() >= 2)
            && (self.on, self.watching) == self.armed()
    }

    /// True if debug exceptions are enabled from an Exception level, with PSTATE.D as in `pstate`, if they go to
    /// `target`. Source: `AArch64.GenerateDebugExceptionsFrom`.
    fn enabled_from(&self, el: u8, target: u8, pstate: u64) -> bool {
        let enabled = match el.cmp(&target) {
            Ordering::Less => true,
            Ordering::Equal => self.mdscr & mdscr::KDE != 0 && pstate & Pstate::D == 0,
            Ordering::Greater => false,
        };
        !self.os_lock && !self.os_double_lock && enabled
    }
}

impl Cpu {
    /// Of two classes of a debug exception, that of one from a lower Exception level or that of one from the same.
    fn debug_class(&self, lower: ExceptionClass, same: ExceptionClass) -> ExceptionClass {
        if self.exception_level() < self.debug_target() { lower } else { same }
    }

    /// MSR of a debug register. `None`: UNDEFINED.
    pub(crate) fn write_debug_register(&mut self, register: u16, value: u64) -> Option<()> {
        let watched = self.debug.watching;
        self.debug.write(register, value)?;
        if watched || self.debug.watching {
            // No page that is watched may be in the TLB.
            self.tlbs().for_each(Tlb::clear);
        }
        self.call_attention();
        Some(())
    }

    /// True if debug exceptions are enabled now.
    fn debug_exceptions_enabled(&self) -> bool {
        self.debug.enabled_from(self.exception_level(), self.debug_target(), self.state.rest)
    }

    /// True if software step is active. Source: DDI 0487, D2.12.
    pub(crate) fn is_stepping(&self) -> bool {
        self.debug.mdscr & mdscr::SS != 0 && self.debug_exceptions_enabled()
    }

    /// PSTATE.SS after an exception return from here to `el` with this SPSR.
    /// Source: `DebugExceptionReturnSS`.
    pub(crate) fn step_after_return(&mut self, el: u8, spsr: u64) -> u64 {
        self.debug.stepped = None;
        let begins = self.debug.mdscr & mdscr::SS != 0
            && !self.debug_exceptions_enabled()
            && self.debug.enabled_from(el, self.debug_target(), spsr);
        if begins { spsr & Pstate::SS } else { 0 }
    }
}
