//! System registers that a kernel reads all the time, and DC ZVA, by which it clears pages.
//!
//! Each is done here at the Exception level at which nothing traps it, and elsewhere by the interpreter.

use std::mem::offset_of;

use seawall_arm::Pstate;
use seawall_arm::sysreg::{
    CTR_EL0, DAIF, DCZID_EL0, ELR_EL1, ESR_EL1, FAR_EL1, SP_EL0, SPSR_EL1, TCR_EL1, TPIDR_EL0, TPIDR_EL1,
};

use super::asm::{Alu, Cc, Extend, Mem, R15, RAX, RBX, RCX, RDX, Shift};
use super::memory::MOVUPS_STORE;
use super::{Context, Jump, Translator, context};
use crate::cpu::{Cpu, State};
use crate::decode::insn::SINK;
use crate::decode::{Insn, Op};
use crate::exec::system::DC_ZVA;
use crate::idregs;
use crate::memory::{LINE_SIZE, PAGE_SHIFT, page_flags};
use crate::sysreg::SysRegs;

/// Where a register can be accessed without a look at anything else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Always,
    /// At EL1 with SP_EL1: at EL0 it is UNDEFINED, and with SP_EL0 that is in use itself.
    WithSpEl1,
    /// At EL1 of a machine without EL2, which could trap it.
    WithoutEl2,
}

/// What a register holds.
#[derive(Clone, Copy)]
enum Value {
    /// The field of the CPU at this place.
    Field(usize),
    /// These bits of PSTATE.
    Pstate(i32),
    Constant(u64),
}

/// A register that is read here.
fn readable(id: u16) -> Option<(Value, Where)> {
    let sys = |field| Value::Field(offset_of!(Cpu, sys) + field);
    Some(match id {
        TPIDR_EL0 => (sys(offset_of!(SysRegs, tpidr_el0)), Where::Always),
        TPIDR_EL1 => (sys(offset_of!(SysRegs, tpidr_el1)), Where::WithSpEl1),
        SP_EL0 => (Value::Field(offset_of!(Cpu, banked_sp)), Where::WithSpEl1),
        TCR_EL1 => (sys(offset_of!(SysRegs, tcr)), Where::WithoutEl2),
        ESR_EL1 => (sys(offset_of!(SysRegs, esr)), Where::WithoutEl2),
        FAR_EL1 => (sys(offset_of!(SysRegs, far)), Where::WithoutEl2),
        ELR_EL1 => (sys(offset_of!(SysRegs, elr)), Where::WithoutEl2),
        SPSR_EL1 => (sys(offset_of!(SysRegs, spsr)), Where::WithoutEl2),
        DAIF => (Value::Pstate(Pstate::DAIF as i32), Where::WithoutEl2),
        CTR_EL0 => (Value::Constant(idregs::CTR), Where::WithoutEl2),
        DCZID_EL0 => (Value::Constant(idregs::DCZID), Where::WithoutEl2),
        _ => return None,
    })
}

/// A register that is written here: one that holds what was written to it, and that nothing depends on.
fn writable(id: u16) -> Option<(i32, Where)> {
    if !matches!(id, TPIDR_EL0 | TPIDR_EL1 | SP_EL0 | ELR_EL1 | SPSR_EL1) {
        return None;
    }
    match readable(id)? {
        (Value::Field(field), place) => Some((field as i32, place)),
        _ => None,
    }
}

impl Translator<'_> {
    /// True if it is a system instruction that is translated.
    pub(super) fn system(&mut self, insn: &Insn, k: usize) -> bool {
        match insn.op {
            Op::Mrs if insn.rd != SINK => self.read_register(insn, k),
            Op::Msr => self.write_register(insn, k),
            Op::Sys if insn.imm as u16 == DC_ZVA => {
                self.zero_line(insn, k);
                true
            }
            _ => false,
        }
    }

    fn read_register(&mut self, insn: &Insn, k: usize) -> bool {
        let Some((value, place)) = readable(insn.imm as u16) else { return false };
        let to = self.destination(insn.rd);
        // A destination that was not in the pool is not dirty.
        self.unless_at(place, k);
        match value {
            Value::Field(field) => self.asm.load(Extend::U64, to, Mem::at(RBX, field as i32)),
            Value::Pstate(bits) => {
                self.asm.load(Extend::U64, to, state(offset_of!(State, rest)));
                self.asm.alu_imm(Alu::And, true, to, bits);
            }
            Value::Constant(value) => self.asm.mov_imm(to, value),
        }
        self.written(insn.rd);
        true
    }

    fn write_register(&mut self, insn: &Insn, k: usize) -> bool {
        let Some((field, place)) = writable(insn.imm as u16) else { return false };
        let from = self.source(insn.rd);
        self.unless_at(place, k);
        self.asm.store(8, from, Mem::at(RBX, field));
        true
    }

    /// Elsewhere the interpreter does it.
    fn unless_at(&mut self, place: Where, k: usize) {
        match place {
            Where::Always => {}
            Where::WithSpEl1 => {
                let other_el = self.unless_at_el1();
                self.asm.cmp_byte(state(offset_of!(State, sp_el1)), 1);
                let other_sp = self.asm.jcc(Cc::NOT_ZERO);
                self.unless(&[other_el, other_sp], k);
            }
            Where::WithoutEl2 => {
                let reasons = [self.unless_at_el1(), self.if_there_is_el2()];
                self.unless(&reasons, k);
            }
        }
    }

    /// A line of a page that the TLB has for stores, and that has no poison, which this would heal.
    fn zero_line(&mut self, insn: &Insn, k: usize) {
        let address = self.source(insn.rd);
        let (other_el, el2) = (self.unless_at_el1(), self.if_there_is_el2());
        self.asm.mov(true, RAX, address);
        self.asm.alu_imm(Alu::And, true, RAX, -(LINE_SIZE as i32));
        let miss = self.translate_rax(true, LINE_SIZE as i32);
        self.asm.mov(true, RCX, RAX);
        self.asm.shift(Shift::Shr, true, RCX, PAGE_SHIFT as u8);
        self.asm.load(Extend::U64, RDX, context!(page_flags));
        self.asm.test_byte(Mem::indexed(RDX, RCX, 0, 0), page_flags::HAS_POISON);
        let poison = self.asm.jcc(Cc::NOT_ZERO);
        self.unless(&[other_el, el2, miss, poison], k);
        self.asm.zero_xmm(0);
        for offset in (0..LINE_SIZE as i32).step_by(16) {
            self.asm.xmm_mem(&[], MOVUPS_STORE, 0, Mem::indexed(R15, RAX, 0, offset));
        }
    }

    fn unless_at_el1(&mut self) -> Jump {
        self.asm.cmp_byte(state(offset_of!(State, el)), 1);
        self.asm.jcc(Cc::NOT_ZERO)
    }

    fn if_there_is_el2(&mut self) -> Jump {
        // An absent box is a null pointer.
        self.asm.load(Extend::U64, RAX, Mem::at(RBX, offset_of!(Cpu, el2) as i32));
        self.asm.test(true, RAX, RAX);
        self.asm.jcc(Cc::NOT_ZERO)
    }
}

/// A field of PSTATE.
fn state(field: usize) -> Mem {
    Mem::at(RBX, (offset_of!(Cpu, state) + field) as i32)
}
