//! Translated guest code: what runs often runs as machine code of the host.
//!
//! The interpreter stays the oracle and does all that is rare. No guest can tell which of the two ran an instruction:
//! registers, memory, steps and the order of everything are the same to the bit.
//!
//! - [`block`]: what is translated together: a superblock of at most 64 instructions in a page
//! - the back end ([`x64`]): a block to machine code, and a few stubs; everything about the host's instruction set
//! - [`code`], [`enter`]: memory that is executed; into it and out again
//! - [`entry`], [`shared`]: where the translations are; those that machines of one snapshot have in common
//!
//! # Invariants
//!
//! - A translation depends on the bytes of its instructions alone: not on the address, the page's other mappings, the
//!   Exception level or any system register. The page's address and the TLBs come from the [context](enter::Context).
//! - It belongs to decoded lines, or to a page that holds what its snapshot holds, and in either case stores to the page
//!   are noticed. What drops a decoded line drops the translations that reach into it.
//! - It is never entered with less budget than it may use, and never goes on after an instruction that called for
//!   attention or changed the Exception level or the [`View`](crate::tlb::View).
//! - An access goes by a TLB entry or by the interpreter. So poison, watchpoints, alignment faults, decoded code and
//!   devices, whose pages are in no TLB or in one with a tag that no address equals, cost clean memory nothing.
//! - A branch lands in a guarded page (FEAT_BTI) where the interpreter lets it. Software step and breakpoints are the
//!   interpreter's.
//!
//! # Safety
//!
//! A guest chooses all instructions and all data. Translated code still does no more than this to the host:
//!
//! - It is made of a fixed set of templates, whose only variable parts are register numbers that are masked or chosen by
//!   the translator, and constants that are operands, never addresses: no byte of guest memory is ever executed.
//! - It writes to the registers and the few other fields of the [`Cpu`] that [`enter::at`] and the back end name, by
//!   constant offsets; to the context; and to RAM at the offset that a TLB entry gives. An entry is only made for a whole
//!   page inside RAM: `exec::access::fill`, which alone makes them, compares the page with RAM's size, and the test
//!   `no_map_puts_a_page_that_is_not_a_whole_page_of_ram_into_a_tlb` looks at all entries after accesses under random
//!   tables, in both worlds of a machine with EL2. An access is compared with an entry by its first and last byte, or by
//!   those of all accesses near to it, which then use the offset too; it is kept in the CPU, and never over an exit from
//!   the block or a call. Whatever replaces RAM clears the TLBs of all CPUs before any of them runs.
//! - It reads, beside these, system registers of the CPU by constant offsets, and the flags of the page of RAM that a TLB
//!   entry gave: there are as many as pages.
//! - It jumps to its own labels, to stubs, and to what the entries of pages hold: addresses that the arena gave. Indices
//!   into the entries are below 1024 by a mask; page numbers come from the fetch TLB, whose numbers are below the length
//!   of the tables, which never get shorter.
//! - Code outlives its use: a machine holds the arenas of all entries that its tables have, and entries are dropped only
//!   when no translated code runs, which is inside [`enter::enter`] alone.
//! - Nothing is shared between threads but arenas, which are appended to under a lock, entries, which are atomic, and
//!   decoded pages, which never change.

mod block;
mod code;
mod enter;
mod entry;
mod shared;
#[cfg(test)]
mod under_loom;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x64;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use x64 as backend;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod none;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
use none as backend;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use block::{Block, straight};
use code::Arena;
pub(crate) use enter::{Context, KEPT};
use enter::{Entries, Exit, Host, address, no_entries};
pub(crate) use shared::Shared;
use shared::SharedPage;

use crate::cpu::Cpu;
use crate::exec::{Code, Leave, next_page, run_page};
use crate::icache::{ICache, INSNS_PER_PAGE, Page};
use crate::memory::Memory;

/// Bytes of code of a machine's own, and of a snapshot's, at most: address space, which costs memory as it is used.
const ARENA_BYTES: usize = 64 << 20;
/// So often an instruction is come to before a block is made of what begins there.
const HOT: u8 = 12;
/// Heat of an instruction that no block can begin at.
const NEVER: u8 = u8::MAX;

/// True if guest code is translated to the host's. No guest can tell, nor can a state hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Translation {
    /// Never: the interpreter runs all.
    Off,
    /// What runs often, if the host can: an x86-64 one with Linux that lets programs make code.
    #[default]
    Hot,
    /// All that can be, the first time that it is come to. For tests.
    AtFirstUse,
}

impl Translation {
    /// This host has a translator, and lets the program execute what it makes.
    pub fn is_available() -> bool {
        host().is_some()
    }

    /// What new machines have: `Hot`, unless the environment's SEAWALL_TRANSLATION is `off` or `first-use`, so that all
    /// tests can be run in each way.
    fn of_process() -> Self {
        static MODE: OnceLock<Translation> = OnceLock::new();
        *MODE.get_or_init(|| match std::env::var("SEAWALL_TRANSLATION").as_deref() {
            Ok("off") => Translation::Off,
            Ok("first-use") => Translation::AtFirstUse,
            _ => Translation::Hot,
        })
    }
}

/// What there is once in a process; `None`: this host has no translations.
fn host() -> Option<&'static Host> {
    static HOST: OnceLock<Option<Host>> = OnceLock::new();
    HOST.get_or_init(Host::new).as_ref()
}

/// The translations of a decoded page.
#[derive(Debug, Default)]
enum Translations {
    #[default]
    None,
    Own(Box<Entries>),
    /// The page is as in the snapshot.
    Shared(Arc<SharedPage>),
}

/// A decoded page, as the translator sees it.
#[derive(Debug, Default)]
struct TranslatedPage {
    translations: Translations,
    /// How often each instruction was come to without there being a translation; none if that was never.
    heat: Option<Box<[u8; INSNS_PER_PAGE]>>,
}

/// All translations of a machine.
#[derive(Debug)]
pub(crate) struct Jit {
    mode: Translation,
    host: Option<&'static Host>,
    /// By the number of the decoded page. Numbers that are void keep a page without translations.
    pages: Vec<TranslatedPage>,
    /// The address of the entries of each.
    tables: Vec<u64>,
    /// Code of the machine's own, when there is some.
    arena: Option<Arena>,
}

impl Jit {
    pub(crate) fn new() -> Self {
        let mut jit =
            Self { mode: Translation::Off, host: None, pages: Vec::new(), tables: Vec::new(), arena: None };
        jit.set_mode(Translation::of_process());
        jit
    }

    /// There must be no decoded page.
    pub(crate) fn set_mode(&mut self, mode: Translation) {
        self.host = if mode == Translation::Off { None } else { host() };
        self.mode = if self.host.is_none() { Translation::Off } else { mode };
    }

    /// `Off` if the host has none.
    pub(crate) fn mode(&self) -> Translation {
        self.mode
    }

    /// There is a new decoded page, with the lowest number that is void or has never been.
    pub(crate) fn add_page(&mut self, slot: usize) {
        let Some(host) = self.host else { return };
        if slot >= self.pages.len() {
            self.pages.resize_with(slot + 1, TranslatedPage::default);
            self.tables.resize(slot + 1, address(&host.nothing));
        }
    }

    /// The first line of page `slot` was decoded, so stores to it are noticed from now on. If it is as in the machine's
    /// snapshot, the snapshot's translations are its.
    pub(crate) fn attach(&mut self, memory: &Memory, slot: usize, ram_page: u32) {
        let Some(host) = self.host else { return };
        let Some(shared) = memory.shared_code(ram_page) else { return };
        let found = shared.translations.page(ram_page, host.unknown(), || Arena::new(ARENA_BYTES));
        if let Some(found) = found {
            self.set(slot, Translations::Shared(found));
        }
    }

    fn set(&mut self, slot: usize, translations: Translations) {
        let Some(host) = self.host else { return };
        if let (Some(page), Some(table)) = (self.pages.get_mut(slot), self.tables.get_mut(slot)) {
            *table = match &translations {
                Translations::None => address(&host.nothing),
                Translations::Own(entries) => address(entries),
                Translations::Shared(page) => address(&page.entries),
            };
            page.translations = translations;
        }
    }

    /// These instructions of page `slot` are not what they were.
    pub(crate) fn drop_range(&mut self, slot: usize, first: usize, count: usize) {
        let (Some(host), Some(page)) = (self.host, self.pages.get_mut(slot)) else { return };
        // The blocks that reach into them.
        let from = first.saturating_sub(block::MAX_INSNS - 1);
        let end = first + count;
        if let Some(heat) = page.heat.as_mut().and_then(|heat| heat.get_mut(from..end)) {
            heat.fill(0);
        }
        match &page.translations {
            Translations::None => {}
            Translations::Own(entries) => {
                for entry in entries.get(from..end).unwrap_or_default() {
                    entry.publish(host.unknown());
                }
            }
            Translations::Shared(_) => self.set(slot, Translations::None),
        }
    }

    /// The whole page is not what it was.
    pub(crate) fn drop_page(&mut self, slot: usize) {
        if let Some(page) = self.pages.get_mut(slot) {
            page.heat = None;
            if !matches!(page.translations, Translations::None) {
                self.set(slot, Translations::None);
            }
        }
    }

    /// The page numbers below this, which are all that are in use, are void. The arena stays: what is in it is forgotten, and
    /// goes when it is full, so a guest that drops all its code all the time costs no more than what it translates.
    pub(crate) fn clear(&mut self, in_use: usize) {
        (0..in_use).for_each(|slot| self.drop_page(slot));
    }

    /// Of the tables, and of the entries of page `slot`.
    fn addresses(&self, slot: u32) -> (u64, u64) {
        let entries = self.tables.get(slot as usize).copied();
        let nothing = self.host.map_or(0, |host| address(&host.nothing));
        (self.tables.as_ptr().expose_provenance() as u64, entries.unwrap_or(nothing))
    }

    /// The translation of what begins at this instruction.
    fn entry(&self, host: &Host, slot: u32, index: usize) -> Option<u64> {
        let entries = match &self.pages.get(slot as usize)?.translations {
            Translations::None => return None,
            Translations::Own(entries) => entries,
            Translations::Shared(page) => &page.entries,
        };
        let entry = entries.get(index)?.address();
        (entry != host.unknown()).then_some(entry)
    }

    /// An instruction was come to that has no translation. Whether it is to get one.
    fn warm(&mut self, slot: u32, index: usize) -> bool {
        let threshold = if self.mode == Translation::AtFirstUse { 0 } else { HOT };
        let Some(page) = self.pages.get_mut(slot as usize) else { return false };
        let heat = page.heat.get_or_insert_with(|| Box::new([0; INSNS_PER_PAGE]));
        match heat.get_mut(index) {
            None | Some(&mut NEVER) => false,
            Some(heat) if *heat >= threshold => true,
            Some(heat) => {
                *heat += 1;
                false
            }
        }
    }

    fn never(&mut self, slot: u32, index: usize) {
        let heat = self.pages.get_mut(slot as usize).and_then(|page| page.heat.as_mut());
        if let Some(heat) = heat.and_then(|heat| heat.get_mut(index)) {
            *heat = NEVER;
        }
    }

    /// Translate what begins at an instruction.
    pub(crate) fn translate(&mut self, page: &Page, slot: u32, index: usize) {
        let Some(host) = self.host else { return };
        let Some(block) = Block::at(page, index) else {
            // A line that is not decoded yet may hold anything.
            if page.get(index).is_some_and(|insn| insn.op != crate::decode::Op::Pending) {
                self.never(slot, index);
            }
            return;
        };
        let code = backend::translate(page, block);
        let slot_index = slot as usize;
        if let Some(Translations::Shared(page)) = self.pages.get(slot_index).map(|page| &page.translations) {
            match page.arena.place(&code) {
                Some(address) => page.publish(index, address),
                None => self.never(slot, index),
            }
            return;
        }
        let Some(address) = self.place(&code) else {
            self.never(slot, index);
            return;
        };
        if matches!(self.pages.get(slot_index).map(|page| &page.translations), Some(Translations::None)) {
            self.set(slot_index, Translations::Own(no_entries(host.unknown())));
        }
        if let Some(Translations::Own(entries)) = self.pages.get(slot_index).map(|page| &page.translations) {
            if let Some(entry) = entries.get(index) {
                entry.publish(address);
            }
        }
    }

    /// Put code into the machine's own arena. When that is full all that is in it goes.
    fn place(&mut self, code: &[u8]) -> Option<u64> {
        if let Some(address) = self.arena.as_ref().and_then(|arena| arena.place(code)) {
            return Some(address);
        }
        for slot in 0..self.pages.len() {
            if matches!(self.pages.get(slot).map(|page| &page.translations), Some(Translations::Own(_))) {
                self.drop_page(slot);
            }
        }
        self.arena = Some(Arena::new(ARENA_BYTES).ok()?);
        self.arena.as_ref()?.place(code)
    }
}

/// The page that the CPU's PC is in and whether it is guarded, if nothing stands between the CPU and the instruction there.
fn here(cpu: &Cpu) -> Option<(u32, bool)> {
    let pc = cpu.pc;
    let entry = cpu.tlb.fetch[cpu.state.el as usize & 1].entry(pc);
    let is_plain = entry.covers(pc, 1) && pc.trailing_zeros() >= 2 && cpu.state.btype == 0;
    (is_plain && entry.page() != u32::MAX).then(|| (entry.page(), entry.is_strict()))
}

/// Run from the CPU's PC, as [`run_page`] does: translations where there are some, the interpreter where not.
pub(crate) fn run(
    cpu: &mut Cpu,
    memory: &mut Memory,
    icache: &mut ICache,
    code: (u32, bool),
    budget: u64,
) -> (Leave, u64) {
    let (slot, guarded) = code;
    let Some(host) = icache.jit.host.filter(|_| !cpu.debug.is_on()) else {
        let Some(page) = icache.page(slot) else { return (Leave::Resume, 0) };
        return run_page(cpu, memory, icache, Code { page, guarded }, budget);
    };
    let steps = cpu.steps;
    let mut left = budget;
    let leave = loop {
        if left == 0 || cpu.attention {
            break Leave::Resume;
        }
        cpu.steps = steps.wrapping_add(budget - left);
        let Some((slot, guarded)) = here(cpu) else { break Leave::Resume };
        match translated(host, cpu, memory, icache, (slot, guarded), &mut left) {
            // There may be one where the PC is now.
            Some(Exit::Cold) => continue,
            Some(Exit::Trap) => break Leave::Trap,
            Some(Exit::Attention) => break Leave::Resume,
            Some(Exit::Branch) => {
                // It lands as the interpreter's branches do, even if no step is left.
                cpu.pc = cpu.branch_address(cpu.pc);
                cpu.steps = steps;
                if next_page(cpu, icache, budget - left).is_none() {
                    break Leave::Resume;
                }
                continue;
            }
            Some(Exit::Budget | Exit::Interpret) | None => {}
        }
        cpu.steps = steps.wrapping_add(budget - left);
        let Some((slot, guarded)) = here(cpu).filter(|_| left != 0) else { break Leave::Resume };
        let (leave, done) = interpreted(cpu, memory, icache, (slot, guarded), left);
        left -= done;
        if leave != Leave::Resume {
            break leave;
        }
    };
    cpu.steps = steps;
    (leave, budget - left)
}

/// Run translations from the PC on, if there is one or is to be one. `None`: there is none.
fn translated(
    host: &Host,
    cpu: &mut Cpu,
    memory: &mut Memory,
    icache: &mut ICache,
    (slot, guarded): (u32, bool),
    left: &mut u64,
) -> Option<Exit> {
    let index = (cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
    let entry = match icache.jit.entry(host, slot, index) {
        Some(entry) => entry,
        None if icache.jit.warm(slot, index) => {
            icache.translate(slot, index);
            icache.jit.entry(host, slot, index)?
        }
        None => return None,
    };
    let (exit, rest) = enter::enter(host, cpu, memory, icache, (slot, guarded), entry, *left);
    *left = rest;
    Some(exit)
}

/// Let the interpreter go on to the next place where there may be a translation.
fn interpreted(
    cpu: &mut Cpu,
    memory: &mut Memory,
    icache: &ICache,
    (slot, guarded): (u32, bool),
    left: u64,
) -> (Leave, u64) {
    let Some(page) = icache.page(slot) else { return (Leave::Resume, 0) };
    let index = (cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
    let result = run_page(cpu, memory, icache, Code { page, guarded }, left.min(straight(page, index)));
    cpu.elapsed = 0;
    result
}
