//! The back end for x86-64: one block to machine code.
//!
//! | Host register | Holds |
//! |---|---|
//! | RBX | the [`Cpu`](crate::cpu::Cpu) |
//! | R13 | what is left of the budget, less all that the block may do |
//! | R14 | the TLB of loads |
//! | R15 | RAM |
//! | RSI, RDI, RBP, R8 to R12 | guest registers, as the block needs them |
//! | RAX, RCX, RDX | what an instruction needs |
//!
//! NZCV is in the context as LAHF and SETO give it, with Arm's carry: SF, ZF and CF in the second byte, OF in the first.
//! Between two instructions the host's flags may have the same.

mod asm;
mod bits;
mod branch;
mod data;
mod memory;
mod system;
mod vector;

use std::mem::offset_of;

use self::asm::{
    Alu, Asm, Cc, Extend, Jump, Mem, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg,
};
use super::block::{Block, is_left_to_the_interpreter, is_pure, sets_all_flags};
use super::enter::{Context, Exit, at};
use crate::decode::insn::SINK;
use crate::decode::{Insn, Op};
use crate::icache::{INSNS_PER_PAGE, Page};
use crate::tlb::layout;

/// Host registers that hold guest registers.
const POOL: [Reg; 8] = [RSI, RDI, RBP, 8, 9, 10, 11, 12];
const LEFT: Reg = R13;
const READ: Reg = R14;
const RAM: Reg = R15;

macro_rules! context {
    ($field:ident) => {
        Mem::at(RBX, Context::offset(offset_of!(Context, $field)))
    };
}
use context;

/// The host has all that translations use.
pub(super) fn is_supported() -> bool {
    std::arch::is_x86_feature_detected!("lzcnt")
}

/// NZCV as the context has it.
pub(super) fn flags_of(nzcv: u8) -> u64 {
    let bit = |n: u8| u64::from(nzcv >> n & 1);
    bit(3) << 15 | bit(2) << 14 | bit(1) << 8 | bit(0)
}

/// The inverse; other bits are whatever LAHF gave.
pub(super) fn nzcv_of(flags: u64) -> u8 {
    let bit = |n: u8| (flags >> n & 1) as u8;
    bit(15) << 3 | bit(14) << 2 | bit(8) << 1 | bit(0)
}

/// Code that all translations share: addresses, or offsets from where it will be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stubs {
    /// `extern "C" fn(cpu, entry, left) -> left`.
    pub(super) enter: u64,
    /// Back to who entered.
    pub(super) leave: u64,
    /// Go to the virtual address in RAX.
    pub(super) lookup: u64,
    /// The same after BR and BLR, whose BTYPE is in PSTATE already.
    pub(super) lookup_typed: u64,
    /// Leave: there is no translation at the index in EAX.
    pub(super) unknown: u64,
}

impl Stubs {
    pub(super) fn at(self, base: u64) -> Self {
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
pub(super) fn stubs() -> (Vec<u8>, Stubs) {
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
fn leave_with(a: &mut Asm, exit: Exit) {
    a.store(8, RAX, Mem::at(RBX, at::PC));
    a.store_imm32(context!(exit), exit as u32);
    a.jmp_mem(context!(leave));
}

/// To the virtual address in RAX, if the fetch TLB has its page, and the page is not guarded.
fn lookup_stub(a: &mut Asm, is_typed: bool) -> u64 {
    let start = a.here() as u64;
    tlb_index(a);
    a.alu_mem(Alu::Add, true, RCX, context!(fetch));
    a.mov(true, RDX, RAX);
    // One bit of the tag says "guarded"; two of the address must be clear.
    a.alu_mem(Alu::Xor, true, RDX, Mem::at(RCX, layout::TAG));
    a.test_imm(true, RDX, !0xffc);
    let missed = a.jcc(Cc::NOT_ZERO);
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
    a.bind_here(missed);
    if let Some(unknown) = unknown {
        a.bind_here(unknown);
    }
    leave_with(a, Exit::Branch);
    start
}

/// RCX = where in a TLB the entry for the address in RAX is.
fn tlb_index(a: &mut Asm) {
    a.mov(false, RCX, RAX);
    a.shift(asm::Shift::Shr, false, RCX, layout::INDEX_SHIFT);
    a.alu_imm(Alu::And, false, RCX, layout::INDEX_MASK);
}

/// The machine code of a block. It can be put anywhere.
pub(super) fn translate(page: &Page, block: Block) -> Vec<u8> {
    let first = Translator::new(page, block, None).run();
    let fits = !first.evicted && first.used.count_ones() as usize <= POOL.len();
    if block.loops && fits {
        // Once more, with all registers of the loop in host registers from before it to its end.
        let registers = Registers { used: first.used, written: first.written };
        return Translator::new(page, block, Some(registers)).run().asm.into_bytes();
    }
    first.asm.into_bytes()
}

/// What a host register of the pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// The slot of a guest register.
    slot: u8,
    /// Its place in the CPU has an older value.
    dirty: bool,
    /// When it was last used.
    used: u32,
}

type Pool = [Option<Held>; POOL.len()];

/// The guest registers of a loop, a bit for each slot.
#[derive(Clone, Copy, Debug)]
struct Registers {
    used: u64,
    written: u64,
}

/// A way out of the block: what the registers held, instructions done, and where to.
#[derive(Debug)]
struct SideExit {
    jump: Jump,
    pool: Pool,
    done: usize,
    target: i64,
}

/// An instruction that the interpreter does if it must.
#[derive(Debug)]
struct Slow {
    jumps: [Option<Jump>; 6],
    /// Where to go on.
    back: usize,
    before: Pool,
    after: Pool,
    index: usize,
    done: usize,
}

/// A comparison whose flags are saved where somebody may look.
#[derive(Clone, Copy, Debug)]
struct Deferred {
    wide: bool,
    /// What the register holds, plus this, was compared with this.
    reg: Reg,
    immediate: i32,
}

struct Translator<'a> {
    asm: Asm,
    insns: &'a [Insn],
    page: &'a Page,
    block: Block,
    pool: Pool,
    clock: u32,
    used: u64,
    written: u64,
    evicted: bool,
    /// The host's flags are the guest's, CF being Arm's carry.
    host_flags: bool,
    /// The registers are fixed, and the loop begins here.
    head: Option<usize>,
    /// Where the comparison is whose flags are not saved, if there is one.
    defer_at: Option<usize>,
    deferred: Option<Deferred>,
    exits: Vec<SideExit>,
    slow: Vec<Slow>,
    out_of_budget: Vec<Jump>,
}

impl<'a> Translator<'a> {
    fn new(page: &'a Page, block: Block, fixed: Option<Registers>) -> Self {
        let insns = block.insns(page);
        let mut translator = Self {
            asm: Asm::with_capacity(1024),
            insns,
            page,
            block,
            pool: [None; POOL.len()],
            clock: 0,
            used: 0,
            written: 0,
            evicted: false,
            host_flags: false,
            head: None,
            defer_at: None,
            deferred: None,
            exits: Vec::new(),
            slow: Vec::new(),
            out_of_budget: Vec::new(),
        };
        let len = translator.max();
        translator.asm.alu_imm(Alu::Sub, true, LEFT, len);
        let jump = translator.asm.jcc(Cc::BELOW);
        // The first of them is at the block's start; see `finish`.
        translator.out_of_budget.push(jump);
        if let Some(registers) = fixed {
            translator.fix(registers);
        }
        translator
    }

    /// Instructions of the block.
    fn max(&self) -> i32 {
        self.block.len as i32
    }

    /// Put the registers of a loop where they stay.
    fn fix(&mut self, registers: Registers) {
        let slots = (0..64).filter(|slot| registers.used >> slot & 1 == 1);
        for (n, slot) in slots.enumerate().take(POOL.len()) {
            let dirty = registers.written >> slot & 1 == 1;
            self.pool[n] = Some(Held { slot, dirty, used: 0 });
            self.asm.load(Extend::U64, POOL[n], slot_at(slot));
        }
        self.head = Some(self.asm.here());
        self.defer_at = self.deferrable();
    }

    /// The subtraction before the loop's branch, if in all of the loop nobody else looks at the flags.
    fn deferrable(&self) -> Option<usize> {
        let [body @ .., compare, branch] = self.insns else { return None };
        let is_compare =
            matches!(compare.op, Op::SubsImm64 | Op::SubsImm32 | Op::SubsImm64B | Op::SubsImm32B)
                && compare.rd != SINK;
        let is_branch = branch.op == Op::BCond && x86_condition(branch.x).is_some();
        (is_compare && is_branch && body.iter().all(|insn| is_pure(insn.op))).then_some(body.len())
    }

    fn run(mut self) -> Self {
        let mut ended = false;
        for (k, insn) in self.insns.iter().enumerate() {
            if !reads_flags(insn.op) {
                self.host_flags = false;
            }
            ended = self.instruction(insn, k);
        }
        if !ended {
            self.write_back(self.pool);
            let next = self.block.start + self.block.len;
            let refused = |insn: &Insn| is_left_to_the_interpreter(insn.op) && insn.op != Op::Pending;
            if self.page.get(next).is_some_and(refused) {
                self.leave_at(next, Exit::Interpret);
            } else {
                self.chain(next as i64);
            }
        }
        self.finish();
        self
    }

    /// The cold parts.
    fn finish(&mut self) {
        let at_head: Pool = match self.head {
            Some(_) => self
                .pool
                .map(|held| held.map(|held| Held { dirty: self.written >> held.slot & 1 == 1, ..held })),
            None => [None; POOL.len()],
        };
        for SideExit { jump, pool, done, target } in std::mem::take(&mut self.exits) {
            self.asm.bind_here(jump);
            self.write_back(pool);
            self.give_back(done);
            self.chain(target);
        }
        for slow in std::mem::take(&mut self.slow) {
            slow.jumps.into_iter().flatten().for_each(|jump| self.asm.bind_here(jump));
            self.write_back(slow.before);
            self.interpret(slow.index, slow.done);
            self.reload(slow.after);
            let jump = self.asm.jmp();
            self.asm.bind(jump, slow.back);
        }
        let mut out_of_budget = std::mem::take(&mut self.out_of_budget).into_iter();
        let at_start = out_of_budget.next();
        if out_of_budget.len() != 0 {
            out_of_budget.for_each(|jump| self.asm.bind_here(jump));
            self.write_back(at_head);
            if let Some(Deferred { wide, reg, immediate }) = self.deferred {
                self.asm.lea(wide, RAX, Mem::at(reg, immediate));
                self.asm.alu_imm(Alu::Cmp, wide, RAX, immediate);
                self.save_flags(true);
            }
        }
        if let Some(jump) = at_start {
            self.asm.bind_here(jump);
        }
        self.give_back(0);
        self.leave_at(self.block.start, Exit::Budget);
    }

    /// The instruction is at this place of the block. Whether the block ends with it.
    fn instruction(&mut self, insn: &Insn, k: usize) -> bool {
        if self.branch(insn, k) {
            return true;
        }
        let is_done = self.conditional_branch(insn, k)
            || self.data_processing(insn, k)
            || self.load_store(insn, k)
            || self.vector(insn, k)
            || self.system(insn, k);
        if !is_done {
            self.by_interpreter(k);
        }
        false
    }

    // Registers.

    fn find(&self, slot: u8) -> Option<usize> {
        self.pool.iter().position(|held| held.is_some_and(|held| held.slot == slot))
    }

    /// The place in the pool of a slot that is in it, which is used now.
    fn touch(&mut self, slot: u8) -> Option<usize> {
        self.clock += 1;
        let n = self.find(slot)?;
        self.pool[n] = self.pool[n].map(|held| Held { used: self.clock, ..held });
        Some(n)
    }

    /// A place for a slot that is not in the pool.
    fn take(&mut self, slot: u8) -> usize {
        self.used |= 1 << slot;
        let free = self.pool.iter().position(Option::is_none);
        let n = free.unwrap_or_else(|| {
            self.evicted = true;
            let oldest = (0..POOL.len()).min_by_key(|n| self.pool[*n].map_or(0, |held| held.used));
            oldest.unwrap_or(0)
        });
        if let Some(Held { slot, dirty: true, .. }) = self.pool[n] {
            self.asm.store(8, POOL[n], slot_at(slot));
        }
        self.pool[n] = Some(Held { slot, dirty: false, used: self.clock });
        n
    }

    /// The host register that holds a guest register.
    fn source(&mut self, slot: u8) -> Reg {
        if let Some(n) = self.touch(slot) {
            return POOL[n];
        }
        let n = self.take(slot);
        self.asm.load(Extend::U64, POOL[n], slot_at(slot));
        POOL[n]
    }

    /// The host register for a result, which holds what was there until [`Self::written`].
    fn destination(&mut self, slot: u8) -> Reg {
        if slot == SINK {
            return RDX;
        }
        match self.touch(slot) {
            Some(n) => POOL[n],
            None => POOL[self.take(slot)],
        }
    }

    /// The host register of this slot has a new value.
    fn written(&mut self, slot: u8) {
        if slot == SINK {
            return;
        }
        self.written |= 1 << slot;
        if let Some(n) = self.find(slot) {
            self.pool[n] = self.pool[n].map(|held| Held { dirty: true, ..held });
        }
    }

    fn write_back(&mut self, pool: Pool) {
        for (held, reg) in pool.iter().zip(POOL) {
            if let Some(Held { slot, dirty: true, .. }) = held {
                self.asm.store(8, reg, slot_at(*slot));
            }
        }
    }

    fn reload(&mut self, pool: Pool) {
        for (held, reg) in pool.iter().zip(POOL) {
            if let Some(Held { slot, .. }) = held {
                self.asm.load(Extend::U64, reg, slot_at(*slot));
            }
        }
    }

    // Leaving.

    /// Of the budget that was taken for the whole block, all but what `done` instructions used.
    fn give_back(&mut self, done: usize) {
        let rest = self.max() - done as i32;
        if rest != 0 {
            self.asm.alu_imm(Alu::Add, true, LEFT, rest);
        }
    }

    /// RAX = the address of this index of the page.
    fn address_of(&mut self, index: i64) {
        self.asm.load(Extend::U64, RAX, context!(page_va));
        self.asm.lea(true, RAX, Mem::at(RAX, (index * 4) as i32));
    }

    fn leave_at(&mut self, index: usize, exit: Exit) {
        self.address_of(index as i64);
        leave_with(&mut self.asm, exit);
    }

    /// Go to an index of this page, or of one beside it. All is written back.
    fn chain(&mut self, target: i64) {
        if (0..INSNS_PER_PAGE as i64).contains(&target) {
            self.asm.load(Extend::U64, RCX, context!(entries));
            self.asm.mov_imm(RAX, target as u64);
            self.asm.jmp_mem(Mem::at(RCX, (target * 8) as i32));
        } else {
            self.address_of(target);
            self.asm.jmp_mem(context!(lookup));
        }
    }

    /// The interpreter does the instruction; all is written back before and nothing in registers after it.
    fn interpret(&mut self, index: usize, done: usize) {
        let rest = self.max() - done as i32;
        self.asm.mov(true, RDI, RBX);
        self.asm.mov_imm(RSI, index as u64);
        self.asm.lea(true, RDX, Mem::at(LEFT, rest));
        self.asm.call_mem(context!(one));
        self.asm.test(false, RAX, RAX);
        let go_on = self.asm.jcc(Cc::ZERO);
        // It is 1 if the instruction is not done, else 2: what is left is less by one then.
        self.asm.lea(true, LEFT, Mem::at(LEFT, rest + 1));
        self.asm.alu(Alu::Sub, true, LEFT, RAX);
        self.asm.jmp_mem(context!(leave));
        self.asm.bind_here(go_on);
    }

    /// What is in the way goes to the interpreter, from before the instruction.
    pub(super) fn unless(&mut self, reasons: &[Jump], k: usize) {
        let mut jumps = [None; 6];
        for (jump, reason) in jumps.iter_mut().zip(reasons) {
            *jump = Some(*reason);
        }
        let (before, index) = (self.pool, self.block.start + k);
        self.slow.push(Slow { jumps, back: 0, before, after: before, index, done: k });
    }

    /// The last slow path comes back here.
    pub(super) fn go_on_here(&mut self) {
        let (back, after) = (self.asm.here(), self.pool);
        if let Some(slow) = self.slow.last_mut() {
            (slow.back, slow.after) = (back, after);
        }
    }

    /// The whole instruction by the interpreter, always.
    fn by_interpreter(&mut self, k: usize) {
        let pool = self.pool;
        self.write_back(pool);
        self.interpret(self.block.start + k, k);
        if self.head.is_some() {
            self.reload(pool);
        } else {
            self.pool = [None; POOL.len()];
        }
        self.host_flags = false;
    }

    // Flags.

    /// Nobody looks at the flags of this instruction: others come before.
    fn flags_are_dead_after(&self, k: usize) -> bool {
        let next = self.insns.get(k + 1..).unwrap_or_default().iter().find(|insn| !is_pure(insn.op));
        next.is_some_and(sets_all_flags)
    }

    /// The host's flags become the guest's; of a subtraction the carry is inverted.
    fn flags(&mut self, k: usize, is_subtraction: bool) {
        if !self.flags_are_dead_after(k) {
            self.save_flags(is_subtraction);
        }
    }

    fn save_flags(&mut self, is_subtraction: bool) {
        if is_subtraction {
            self.asm.complement_carry();
        }
        self.asm.flags_to_ax();
        self.asm.store(2, RAX, context!(flags));
        self.host_flags = true;
    }

    fn need_flags(&mut self) {
        if !self.host_flags {
            self.asm.load(Extend::U16, RAX, context!(flags));
            self.asm.flags_from_ax();
            self.host_flags = true;
        }
    }

    /// The host's condition for a mask of NZCV values; the flags are needed, and may be spoilt by this.
    fn condition(&mut self, mask: u16) -> Cc {
        self.need_flags();
        let (cc, inverts_carry) = x86_condition(mask).unwrap_or((Cc::ZERO, false));
        if inverts_carry {
            self.asm.complement_carry();
            self.host_flags = false;
        }
        cc
    }
}

/// Where a register slot is.
fn slot_at(slot: u8) -> Mem {
    Mem::at(RBX, at::REGS + 8 * i32::from(slot))
}

/// The condition with this mask of NZCV values, and whether it wants the carry inverted. `None`: it always holds.
fn x86_condition(mask: u16) -> Option<(Cc, bool)> {
    use crate::decode::insn::condition_mask;
    const CONDITIONS: [(u8, bool); 14] = [
        (4, false),
        (5, false),
        (2, false),
        (3, false),
        (8, false),
        (9, false),
        (0, false),
        (1, false),
        (7, true),
        (6, true),
        (13, false),
        (12, false),
        (15, false),
        (14, false),
    ];
    let n = (0..14).find(|n| condition_mask(*n) == mask)?;
    CONDITIONS.get(n as usize).map(|(cc, inverts)| (Cc(*cc), *inverts))
}

/// Uses the host's flags if they are the guest's.
fn reads_flags(op: Op) -> bool {
    matches!(
        op,
        Op::BCond
            | Op::Csel64
            | Op::Csel32
            | Op::Ccmp64
            | Op::Ccmp32
            | Op::Ccmn64
            | Op::Ccmn32
            | Op::Adc64
            | Op::Adc32
    )
}
