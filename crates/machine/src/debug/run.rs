//! Running while software step or a breakpoint is enabled.

use seawall_arm::{ExceptionClass, Pstate};

use super::matching::DEBUG_EXCEPTION;
use crate::cpu::Cpu;
use crate::decode::Op;
use crate::icache::INSNS_PER_PAGE;
use crate::run::{Runner, Stop};
use crate::vm::Error;

/// ISS of a software step exception: ISV, EX.
mod step {
    pub(super) const ISV: u32 = 1 << 24;
    pub(super) const EX: u32 = 1 << 6;
}

impl Cpu {
    /// The instruction completed, or took the exception that it is for: if it was stepped, the next one is
    /// not executed. Source: `SSAdvance`.
    #[inline]
    pub(crate) fn advance_step(&mut self) {
        if self.debug.advancing {
            self.state.rest &= !Pstate::SS;
            self.debug.stepped = Some(false);
            self.debug.advancing = false;
        }
    }

    /// The same for an access that the host completes.
    pub(crate) fn advance_step_of_mmio(&mut self) {
        self.debug.advancing = self.is_stepping() && self.state.rest & Pstate::SS != 0;
        self.advance_step();
    }
}

impl Runner<'_> {
    /// As `run_once`, with a look at each instruction that software step or a breakpoint may stop at.
    #[cold]
    pub(crate) fn run_debugged(&mut self, left: &mut u64) -> Result<Option<Stop>, Error> {
        let is_stepping = self.cpu.is_stepping();
        if is_stepping && self.cpu.state.rest & Pstate::SS == 0 {
            self.take_step_exception(left);
            return Ok(None);
        }
        let pc = self.cpu.pc;
        let may_break = self.cpu.breakpoints_armed() && self.cpu.debug.may_break_in_page(pc);
        if !is_stepping && !may_break {
            return self.run_once(left);
        }
        if self.fetch().is_none() {
            return self.take_trap(left, None);
        }
        let (el, contextidr) = (self.cpu.exception_level(), self.cpu.sys.contextidr);
        if may_break && self.cpu.debug.breakpoint_matches(pc, el, contextidr) {
            let (lower, same) = (ExceptionClass::BREAKPOINT_LOWER, ExceptionClass::BREAKPOINT_SAME);
            let class = self.cpu.debug_class(lower, same);
            self.enter(class, DEBUG_EXCEPTION, None);
            self.step(left, 1);
            return Ok(None);
        }
        let mut one = (*left).min(1);
        let given = one;
        let result = if is_stepping { self.run_stepped(&mut one) } else { self.run_once(&mut one) };
        *left -= given - one;
        result
    }

    /// Run one instruction with PSTATE.SS set: the next one is not executed.
    pub(crate) fn run_stepped(&mut self, left: &mut u64) -> Result<Option<Stop>, Error> {
        let Some((slot, _)) = self.fetch() else { return self.take_trap(left, None) };
        let pc = self.cpu.pc;
        self.cpu.debug.advancing = true;
        let result = self.run_once(left);
        let is_stepped = !self.cpu.debug.advancing;
        self.cpu.debug.advancing = false;
        if is_stepped {
            let index = (pc >> 2) as usize & (INSNS_PER_PAGE - 1);
            let insn = self.icache.page(slot).and_then(|page| page.get(index));
            let is_exclusive = insn.is_some_and(|insn| matches!(insn.op, Op::Ldxr | Op::Ldxp));
            self.cpu.debug.stepped = Some(is_exclusive);
        }
        result
    }

    /// Source: `AArch64.SoftwareStepException`.
    fn take_step_exception(&mut self, left: &mut u64) {
        let class = self.cpu.debug_class(ExceptionClass::STEP_LOWER, ExceptionClass::STEP_SAME);
        let syndrome = match self.cpu.debug.stepped {
            None => 0,
            Some(false) => step::ISV,
            Some(true) => step::ISV | step::EX,
        };
        self.enter(class, syndrome | DEBUG_EXCEPTION, None);
        self.step(left, 1);
    }
}

impl Cpu {
    /// True if a breakpoint can match now.
    fn breakpoints_armed(&self) -> bool {
        self.debug.mdscr & super::mdscr::MDE != 0 && self.debug_exceptions_enabled()
    }
}
