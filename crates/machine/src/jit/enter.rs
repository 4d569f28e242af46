//! Into translated code and out of it.
//!
//! One of the two modules of the translator with `unsafe`; see [the safety argument](super#safety).

use std::mem::offset_of;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use super::backend::{self, Stubs};
use super::code::Arena;
use super::entry::Entry;
use crate::cpu::{Cpu, State};
use crate::decode::Op;
use crate::exec::{Code, Leave, is_landing_pad, run_page};
use crate::icache::{ICache, INSNS_PER_PAGE};
use crate::memory::Memory;

/// The entries of a page: for each instruction the address of its translation, or of the stub that says there is none.
pub(super) type Entries = [Entry; INSNS_PER_PAGE];

/// How many places in RAM a block can keep from one access to another.
pub(crate) const KEPT: usize = 8;

/// What translated code needs beside the registers. Addresses are good from [`enter`] to its return.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Context {
    /// The flags as the host has them: see the back end. As wide as translated code stores them: a host's load of more
    /// would wait for the store.
    pub(super) flags: u16,
    /// The entries of the page that runs.
    pub(super) entries: u64,
    /// Its virtual address.
    pub(super) page_va: u64,
    /// Its number.
    pub(super) slot: u64,
    /// 1 if it is guarded (FEAT_BTI), else 0.
    pub(super) guarded: u8,
    /// The fetch TLB, the entries of all pages by number, and how many numbers there are.
    pub(super) fetch: u64,
    pub(super) tables: u64,
    /// The TLBs of loads and stores, and RAM.
    pub(super) read: u64,
    pub(super) write: u64,
    pub(super) ram: u64,
    /// The flags of RAM's pages, a byte each.
    pub(super) page_flags: u64,
    /// The CPU's steps when nothing is left of the budget.
    pub(super) steps_end: u64,
    /// An [`Exit`].
    pub(super) exit: u64,
    pub(super) memory: u64,
    pub(super) icache: u64,
    /// Stubs: see [`Stubs`].
    pub(super) leave: u64,
    pub(super) lookup: u64,
    pub(super) lookup_typed: u64,
    pub(super) unknown: u64,
    /// [`run_some`].
    pub(super) some: u64,
    /// [`lands`].
    pub(super) lands: u64,
}

impl Context {
    /// Where a field is from the start of the CPU.
    pub(super) const fn offset(field: usize) -> i32 {
        (offset_of!(Cpu, jit) + field) as i32
    }
}

/// Where the parts of a CPU are that translated code uses.
pub(super) mod at {
    use super::{Cpu, State, offset_of};
    pub(in crate::jit) const REGS: i32 = offset_of!(Cpu, regs) as i32;
    pub(in crate::jit) const PC: i32 = offset_of!(Cpu, pc) as i32;
    pub(in crate::jit) const BTYPE: i32 = (offset_of!(Cpu, state) + offset_of!(State, btype)) as i32;
    pub(in crate::jit) const LANDING_STEPS: i32 =
        (offset_of!(Cpu, landing) + offset_of!((u64, u8), 0)) as i32;
    pub(in crate::jit) const LANDING_TYPE: i32 = (offset_of!(Cpu, landing) + offset_of!((u64, u8), 1)) as i32;
}

/// Why translated code was left. The PC is that of the instruction to execute next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// There is no translation at the PC.
    Cold,
    /// What is left of the budget is less than the block at the PC may need.
    Budget,
    /// The CPU called for attention, or its context changed.
    Attention,
    /// An instruction did not complete: see the CPU's trap.
    Trap,
    /// The interpreter must look at the instruction at the PC.
    Interpret,
    /// A branch went where the fetch TLB, or the page found there, has nothing: the target is not a PC yet.
    Branch,
}

impl Exit {
    fn from_number(number: u64) -> Exit {
        const ALL: [Exit; 6] =
            [Exit::Cold, Exit::Budget, Exit::Attention, Exit::Trap, Exit::Interpret, Exit::Branch];
        ALL.get(number as usize).copied().unwrap_or(Exit::Attention)
    }
}

/// What there is once in a process: the stubs, and the entries of a page that has no translations.
#[derive(Debug)]
pub(super) struct Host {
    stubs: Stubs,
    /// Where the stubs are.
    _arena: Arena,
    pub(super) nothing: Box<Entries>,
}

impl Host {
    /// `None`: this host cannot execute translations.
    pub(super) fn new() -> Option<Self> {
        if !backend::is_supported() {
            return None;
        }
        let (code, offsets) = backend::stubs();
        let arena = Arena::new(code.len().next_multiple_of(4096)).ok()?;
        let base = arena.place(&code)?;
        let stubs = offsets.at(base);
        let unknown = stubs.unknown;
        Some(Self { stubs, _arena: arena, nothing: no_entries(unknown) })
    }

    /// The address of the stub that stands where there is no translation.
    pub(super) fn unknown(&self) -> u64 {
        self.stubs.unknown
    }
}

/// Entries of a page without translations.
pub(super) fn no_entries(unknown: u64) -> Box<Entries> {
    Box::new(std::array::from_fn(|_| Entry::new(unknown)))
}

/// The address of entries, for translated code to read.
pub(super) fn address(entries: &Entries) -> u64 {
    entries.as_ptr().expose_provenance() as u64
}

/// Run the translation at `entry`, which is that of the CPU's PC in page `slot`, guarded or not, for at most `left` instructions. Gives why
/// it came back and what is left.
#[allow(unsafe_code)]
pub(super) fn enter(
    host: &Host,
    cpu: &mut Cpu,
    memory: &mut Memory,
    icache: &ICache,
    (slot, guarded): (u32, bool),
    entry: u64,
    left: u64,
) -> (Exit, u64) {
    let (fetch, view) = (cpu.state.el as usize & 1, cpu.view as usize & 3);
    let (tables, entries) = icache.jit.addresses(slot);
    let Stubs { enter, leave, lookup, lookup_typed, unknown } = host.stubs;
    cpu.jit = Context {
        flags: backend::flags_of(cpu.state.nzcv),
        entries,
        page_va: cpu.pc & !0xfff,
        slot: slot.into(),
        guarded: guarded.into(),
        fetch: cpu.tlb.fetch[fetch].address(),
        tables,
        read: cpu.tlb.read[view].address(),
        write: cpu.tlb.write[view].address(),
        ram: memory.ram_mut().as_mut_ptr().expose_provenance() as u64,
        page_flags: memory.all_flags().as_ptr().expose_provenance() as u64,
        steps_end: cpu.steps.wrapping_add(left),
        exit: Exit::Attention as u64,
        memory: std::ptr::from_mut(memory).expose_provenance() as u64,
        icache: std::ptr::from_ref(icache).expose_provenance() as u64,
        leave,
        lookup,
        lookup_typed,
        unknown,
        some: run_some as *const () as usize as u64,
        lands: lands as *const () as usize as u64,
    };
    let steps = cpu.steps;
    let enter = std::ptr::with_exposed_provenance::<()>(enter as usize);
    // SAFETY: `enter` is the address of the stub of that name, which `Host` keeps mapped, and which is made for this
    // signature. What it does is what translated code does: see the module's safety argument.
    let rest = unsafe {
        let enter: extern "C" fn(*mut Cpu, u64, u64) -> u64 = std::mem::transmute(enter);
        enter(cpu, entry, left)
    };
    cpu.steps = steps;
    cpu.state.nzcv = backend::nzcv_of(cpu.jit.flags);
    (Exit::from_number(cpu.jit.exit), rest)
}

/// [`run_some`] gets the first instruction's index below this bit, and from it on how many they are.
pub(super) const COUNT_SHIFT: u32 = 16;

/// Instructions of the page that runs, one after the other, by the interpreter; `left` is what of the budget is left before
/// them. 0: go on behind them; else translated code must be left, and it is one more than the instructions that completed.
///
/// Nothing here may panic: there is no way to unwind through translated code, so a panic ends the process.
#[allow(unsafe_code)]
extern "C" fn run_some(cpu: *mut Cpu, which: u64, left: u64) -> u64 {
    // SAFETY: translated code passes on the pointer that `enter` got as a `&mut Cpu`, and which nothing else uses until
    // translated code has returned.
    let cpu = unsafe { &mut *cpu };
    let (memory, icache) = (cpu.jit.memory as usize, cpu.jit.icache as usize);
    // SAFETY: `enter` made these of references that it holds until translated code has returned. No other reference made
    // of them is alive: this function is the only one that makes any, and is not called while it runs.
    let (memory, icache) = unsafe {
        (&mut *with_exposed_provenance_mut::<Memory>(memory), &*with_exposed_provenance_mut::<ICache>(icache))
    };
    cpu.steps = cpu.jit.steps_end.wrapping_sub(left);
    cpu.state.nzcv = backend::nzcv_of(cpu.jit.flags);
    let (index, count) = (which & ((1 << COUNT_SHIFT) - 1), which >> COUNT_SHIFT);
    cpu.pc = cpu.jit.page_va.wrapping_add(index * 4);
    let (el, view) = (cpu.state.el, cpu.view);
    let Some(page) = icache.page(cpu.jit.slot as u32) else {
        cpu.jit.exit = Exit::Interpret as u64;
        return 1;
    };
    let (leave, done) = run_page(cpu, memory, icache, Code { page, guarded: cpu.jit.guarded != 0 }, count);
    cpu.elapsed = 0;
    cpu.jit.flags = backend::flags_of(cpu.state.nzcv);
    cpu.jit.exit = match leave {
        Leave::Trap => Exit::Trap,
        _ if done == 0 => Exit::Interpret,
        _ => Exit::Attention,
    } as u64;
    let goes_on = done == count && !cpu.attention && cpu.view == view && cpu.state.el == el;
    if goes_on { 0 } else { 1 + done }
}

/// 1 if a branch with the CPU's BTYPE may land at its PC, which the fetch TLB has in a guarded page. Nothing is changed.
///
/// Like [`run_some`], it may not panic.
#[allow(unsafe_code)]
extern "C" fn lands(cpu: *const Cpu) -> u64 {
    // SAFETY: as in `run_some`; and nothing is written to while this function runs.
    let cpu = unsafe { &*cpu };
    // SAFETY: as in `run_some`.
    let icache = unsafe { &*with_exposed_provenance::<ICache>(cpu.jit.icache as usize) };
    u64::from(may_land(cpu, icache) == Some(true))
}

fn may_land(cpu: &Cpu, icache: &ICache) -> Option<bool> {
    let entry = cpu.tlb.fetch[cpu.state.el as usize & 1].entry(cpu.pc);
    let insn = icache.page(entry.page())?.get((cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1))?;
    Some(insn.op != Op::Pending && is_landing_pad(cpu, insn, cpu.state.btype))
}
