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
mod atomic;
mod bits;
mod branch;
mod data;
mod flags;
mod leave;
mod memory;
mod near;
mod registers;
mod stubs;
mod system;
mod vector;

use self::asm::{Alu, Asm, Cc, Extend, Jump, Mem, R13, R14, R15, RAX, RBP, RDI, RSI, Reg};
pub(super) use self::flags::{flags_of, nzcv_of};
use self::flags::{reads_flags, x86_condition};
use self::near::Plan;
use self::registers::{Held, Pool, Registers, slot_at};
use self::stubs::tlb_index;
pub(super) use self::stubs::{Stubs, stubs};
use super::block::{Block, is_left_to_the_interpreter, is_pure};
use super::enter::{Context, Exit, at};
use crate::decode::insn::SINK;
use crate::decode::{Insn, Op};
use crate::icache::Page;

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
    std::arch::is_x86_feature_detected!("lzcnt") && std::arch::is_x86_feature_detected!("bmi2")
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

/// A way out of the block: what the registers held, instructions done, and where to.
#[derive(Debug)]
struct SideExit {
    jump: Jump,
    pool: Pool,
    done: usize,
    target: i64,
}

/// An instruction that the interpreter does if it must, with those behind it that depend on its not having done so.
#[derive(Debug)]
struct Slow {
    jumps: [Option<Jump>; 6],
    /// Where to go on, and what the registers hold there.
    back: Option<(usize, Pool)>,
    before: Pool,
    k: usize,
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
    plan: Plan,
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
            plan: Plan::of(insns),
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
            self.go_on_behind(k);
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
            self.interpret(slow.k, self.plan.last(slow.k));
            let Some((back, after)) = slow.back else { continue };
            self.reload(after);
            let jump = self.asm.jmp();
            self.asm.bind(jump, back);
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
            || self.atomic(insn, k)
            || self.vector(insn, k)
            || self.system(insn, k);
        if !is_done {
            self.by_interpreter(k);
        }
        false
    }
}
