//! From page to page: where the interpreter begins, why it leaves, and how a branch gets to another page.

use crate::cpu::Cpu;
use crate::decode::branch::LANDING_PACIASP;
use crate::decode::{Insn, Op};
use crate::icache::{ICache, INSNS_PER_PAGE, Page};

/// Why [`run_page`](super::run_page) came back. The CPU's PC is that of the instruction to execute next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The PC is in another page, the budget is used up, or the CPU called for attention.
    Resume,
    /// An exception return: what it unmasked or enabled comes before the next instruction.
    Returned,
    /// The instruction is not decoded yet.
    Pending,
    /// The instruction did not complete: see the CPU's trap.
    Trap,
}

/// A page of instructions as [`run_page`](super::run_page) needs it.
#[derive(Clone, Copy)]
pub(crate) struct Code<'a> {
    pub(crate) page: &'a Page,
    /// The page is guarded (FEAT_BTI).
    pub(crate) guarded: bool,
}

/// The page that the CPU's PC is in, if nothing but the instructions there need be looked at: it is in the TLB, and a
/// branch may land there. `done`: the instructions that completed since the interpreter was entered.
#[inline]
pub(crate) fn next_page<'a>(cpu: &mut Cpu, icache: &'a ICache, done: u64) -> Option<Code<'a>> {
    let pc = cpu.pc;
    let entry = cpu.tlb.fetch[cpu.state.el as usize & 1].entry(pc);
    if !entry.covers(pc, 1) || pc & 3 != 0 || cpu.debug.is_on() || done == 0 {
        return None;
    }
    let code = Code { page: icache.page(entry.page())?, guarded: entry.is_strict() };
    let btype = cpu.state.btype;
    if btype != 0 {
        let insn = code.page.get((pc >> 2) as usize & (INSNS_PER_PAGE - 1))?;
        if insn.op == Op::Pending || code.guarded && !is_landing_pad(cpu, insn, btype) {
            return None;
        }
        cpu.landing = (cpu.steps.wrapping_add(done), btype);
        cpu.state.btype = 0;
    }
    Some(code)
}

/// True if an instruction in a guarded page may be branched to with this BTYPE (0 always may).
/// Source: `BTypeCompatible_BTI`, `BTypeCompatible_PACIXSP`.
pub(crate) fn is_landing_pad(cpu: &Cpu, insn: &Insn, btype: u8) -> bool {
    if btype == 0 || insn.op != Op::Bti {
        return btype == 0 || insn.op == Op::Brk;
    }
    match insn.x {
        0 => false,
        1 => btype != 3,
        2 => btype != 2,
        LANDING_PACIASP if btype == 3 => {
            // SCTLR_EL1.BT0 and BT1.
            let position = if cpu.state.el == 0 { 35 } else { 36 };
            cpu.sys.sctlr >> position & 1 == 0
        }
        _ => true,
    }
}
