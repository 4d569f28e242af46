//! The way into translated code, out of it, and from page to page.

use std::mem::offset_of;

use super::asm::{
    self, Alu, Asm, Cc, Extend, Mem, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg,
};
use super::{Context, LEFT, RAM, READ, context};
use crate::icache::INSNS_PER_PAGE;
use crate::jit::enter::{Exit, at};
use crate::tlb::layout;

/// Code that all translations share: addresses, or offsets from where it will be.
#[derive(Clone, Copy, Debug)]
pub(in crate::jit) struct Stubs {
    /// `extern "C" fn(cpu, entry, left) -> left`.
    pub(in crate::jit) enter: u64,
    /// Back to who entered.
    pub(in crate::jit) leave: u64,
    /// Go to the virtual address in RAX.
    pub(in crate::jit) lookup: u64,
    /// The same after BR and BLR, whose BTYPE is in PSTATE already.
    pub(in crate::jit) lookup_typed: u64,
    /// Leave: there is no translation at the index in EAX.
    pub(in crate::jit) unknown: u64,
}

impl Stubs {
    pub(in crate::jit) fn at(self, base: u64) -> Self {
        Self {
            enter: base + self.enter,
            leave: base + self.leave,
            lookup: base + self.lookup,
            lookup_typed: base + self.lookup_typed,
            unknown: base + self.unknown,
        }
    }
}

/// The stubs' code, and where they are in it.
pub(in crate::jit) fn stubs() -> (Vec<u8>, Stubs) {
    const SAVED: [Reg; 6] = [RBX, RBP, 12, R13, R14, R15];
    let mut a = Asm::with_capacity(512);
    let enter = a.here() as u64;
    for reg in SAVED {
        a.push(reg);
    }
    // Calls are made with RSP aligned to 16 bytes: the return address, six registers, and this.
    a.alu_imm(Alu::Sub, true, RSP, 8);
    a.mov(true, RBX, RDI);
    a.mov(true, LEFT, RDX);
    a.load(Extend::U64, READ, context!(read));
    a.load(Extend::U64, RAM, context!(ram));
    a.jmp_reg(RSI);
    let leave = a.here() as u64;
    a.mov(true, RAX, LEFT);
    a.alu_imm(Alu::Add, true, RSP, 8);
    for reg in SAVED.into_iter().rev() {
        a.pop(reg);
    }
    a.ret();
    let unknown = a.here() as u64;
    a.load(Extend::U64, RCX, context!(page_va));
    a.lea(true, RAX, Mem::indexed(RCX, RAX, 2, 0));
    leave_with(&mut a, Exit::Cold);
    let lookup = lookup_stub(&mut a, false);
    let lookup_typed = lookup_stub(&mut a, true);
    (a.into_bytes(), Stubs { enter, leave, lookup, lookup_typed, unknown })
}

/// The PC is RAX.
pub(super) fn leave_with(a: &mut Asm, exit: Exit) {
    a.store(8, RAX, Mem::at(RBX, at::PC));
    a.store_imm32(context!(exit), exit as u32);
    a.jmp_mem(context!(leave));
}

/// To the virtual address in RAX, if the fetch TLB has its page, and the branch may land there.
fn lookup_stub(a: &mut Asm, is_typed: bool) -> u64 {
    let start = a.here() as u64;
    tlb_index(a);
    a.alu_mem(Alu::Add, true, RCX, context!(fetch));
    a.mov(true, RDX, RAX);
    // One bit of the tag says "guarded"; two of the address must be clear.
    a.alu_mem(Alu::Xor, true, RDX, Mem::at(RCX, layout::TAG));
    a.test_imm(true, RDX, !0xffc);
    let differs = a.jcc(Cc::NOT_ZERO);
    a.mov_imm(RDX, 0);
    let hit = a.here();
    a.store(1, RDX, context!(guarded));
    a.load(Extend::U32, RDI, Mem::at(RCX, layout::WORD));
    a.load(Extend::U64, RCX, context!(tables));
    a.load(Extend::U64, RCX, Mem::indexed(RCX, RDI, 3, 0));
    a.mov(false, RSI, RAX);
    a.shift(asm::Shift::Shr, false, RSI, 2);
    a.alu_imm(Alu::And, false, RSI, INSNS_PER_PAGE as i32 - 1);
    a.load(Extend::U64, RDX, Mem::indexed(RCX, RSI, 3, 0));
    // A landing pad is looked at before the branch is done with: the line may not be decoded.
    let unknown = is_typed.then(|| {
        a.alu_mem(Alu::Cmp, true, RDX, context!(unknown));
        a.jcc(Cc::ZERO)
    });
    a.store(8, RDI, context!(slot));
    a.store(8, RCX, context!(entries));
    if is_typed {
        a.load(Extend::U64, RCX, context!(steps_end));
        a.alu(Alu::Sub, true, RCX, LEFT);
        a.store(8, RCX, Mem::at(RBX, at::LANDING_STEPS));
        a.load(Extend::U8, RCX, Mem::at(RBX, at::BTYPE));
        a.store(1, RCX, Mem::at(RBX, at::LANDING_TYPE));
        a.store_imm8(Mem::at(RBX, at::BTYPE), 0);
    }
    a.alu_imm(Alu::And, true, RAX, -4096);
    a.store(8, RAX, context!(page_va));
    a.mov(false, RAX, RSI);
    a.jmp_reg(RDX);
    a.bind_here(differs);
    a.test_imm(true, RDX, !0xffd);
    let missed = a.jcc(Cc::NOT_ZERO);
    a.test_imm(true, RAX, 1);
    let misaligned = a.jcc(Cc::NOT_ZERO);
    // A guarded page.
    let mut refused = None;
    if is_typed {
        a.store(8, RAX, Mem::at(RBX, at::PC));
        a.mov(true, RDI, RBX);
        a.call_mem(context!(lands));
        a.test(false, RAX, RAX);
        a.load(Extend::U64, RAX, Mem::at(RBX, at::PC));
        refused = Some(a.jcc(Cc::ZERO));
        tlb_index(a);
        a.alu_mem(Alu::Add, true, RCX, context!(fetch));
    }
    a.mov_imm(RDX, 1);
    let jump = a.jmp();
    a.bind(jump, hit);
    for jump in [Some(missed), Some(misaligned), refused, unknown].into_iter().flatten() {
        a.bind_here(jump);
    }
    leave_with(a, Exit::Branch);
    start
}

/// RCX = where among the tags of a TLB that for the address in RAX is.
pub(super) fn tlb_index(a: &mut Asm) {
    a.rotate_right(RCX, RAX, layout::INDEX_SHIFT);
    a.alu_imm(Alu::And, false, RCX, layout::INDEX_MASK);
}
