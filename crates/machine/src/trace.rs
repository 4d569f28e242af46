//! The first consuming access of each line or page of RAM, recorded while a guest runs.
//!
//! While a trace is on, a line that nothing has consumed yet is treated like a poisoned one: its page stays out of the
//! TLB's arrays of loads, its instructions are not decoded. The access that would take an abort leaves the interpreter in
//! front of its instruction; the access is recorded, the line counts as seen, and the instruction is executed again. So a
//! trace meets exactly the accesses that poison meets, with the PC and step at which the host would see them.
//!
//! Without a trace nothing is asked that poison does not ask.

use crate::memory::{LINE_SIZE, Memory, PAGE_SIZE};
use crate::run::Runner;
use crate::trap::HostAbort;
use crate::vm::Vm;

/// Lines of a page.
const LINES: usize = (PAGE_SIZE / LINE_SIZE) as usize;

/// What consumed a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consumer {
    /// A load, or the load of an atomic.
    Load,
    /// A store, where stores consume ([`StorePolicy::Abort`](crate::StorePolicy::Abort)).
    Store,
    /// An instruction fetch.
    Fetch,
    /// A stage 1 walk, which read a descriptor.
    Walk,
    /// A device, which read what the guest handed to it.
    Device,
}

/// The access that consumed a line first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstUse {
    /// The machine's time in front of the instruction ([`Vm::time`]), steps.
    pub time: u64,
    /// Virtual address of the instruction; 0 for a device.
    pub pc: u64,
    /// Exception level, 0 or 1; 1 for a device.
    pub el: u8,
    /// What consumed it.
    pub consumer: Consumer,
}

/// What first happened to a line since the trace began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was consumed.
    Consumed(FirstUse),
    /// DC ZVA overwrote it as a whole, which heals a bad line, before anything consumed it.
    Overwritten {
        /// The machine's time, steps; at most a turn of a CPU early.
        time: u64,
    },
}

/// What a trace tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Lines: a page costs slow accesses until each of its lines was consumed, which most never are.
    Line,
    /// Pages: the first line of a page that is consumed stands for all, and lets the page go. A line that DC ZVA
    /// overwrites before that is recorded as that.
    Page,
}

/// What is known of a page.
#[derive(Debug)]
struct TracedPage {
    fates: [Option<Fate>; LINES],
}

/// The first consuming access of each line, of a machine that runs or ran: [`Vm::begin_trace`].
#[derive(Debug)]
pub struct Trace {
    grain: Grain,
    /// Physical address of RAM.
    base: u64,
    /// By page: the lines that nothing has happened to, a bit each.
    unseen: Vec<u64>,
    pages: Vec<Option<Box<TracedPage>>>,
    /// The machine's time as far as the host's accesses know it.
    now: u64,
}

impl Trace {
    fn new(grain: Grain, base: u64, size: u64) -> Self {
        let pages = (size / PAGE_SIZE) as usize;
        let untouched = std::iter::repeat_with(|| None).take(pages).collect();
        Self { grain, base, unseen: vec![u64::MAX; pages], pages: untouched, now: 0 }
    }

    /// True if a page, by its number in RAM, has a line that nothing has happened to.
    pub(crate) fn watches(&self, page: usize) -> bool {
        self.unseen.get(page).is_some_and(|unseen| *unseen != 0)
    }

    /// True if a line that the `len` bytes at an offset of RAM touch is one that nothing has happened to.
    pub(crate) fn is_unseen(&self, offset: u64, len: u64) -> bool {
        lines(offset, len)
            .any(|line| self.unseen.get(line / LINES).is_some_and(|unseen| unseen >> (line % LINES) & 1 != 0))
    }

    /// Records what happened to the lines that the `len` bytes at an offset touch, if it is the first.
    fn record(&mut self, offset: u64, len: u64, fate: Fate) {
        for line in lines(offset, len) {
            let Some(unseen) = self.unseen.get_mut(line / LINES) else { return };
            let bit = 1 << (line % LINES);
            if *unseen & bit == 0 {
                continue;
            }
            *unseen = match (self.grain, fate) {
                (Grain::Page, Fate::Consumed(_)) => 0,
                _ => *unseen & !bit,
            };
            let Some(page) = self.pages.get_mut(line / LINES) else { return };
            let page = page.get_or_insert_with(|| Box::new(TracedPage { fates: [None; LINES] }));
            if let Some(slot) = page.fates.get_mut(line % LINES) {
                *slot = Some(fate);
            }
        }
    }

    pub(crate) fn overwritten(&mut self, offset: u64, len: u64) {
        let time = self.now;
        self.record(offset, len, Fate::Overwritten { time });
    }

    /// What first happened to each line that something happened to: its physical address, in rising order.
    pub fn fates(&self) -> impl Iterator<Item = (u64, Fate)> + '_ {
        self.pages.iter().enumerate().filter_map(|(number, page)| Some((number, page.as_ref()?))).flat_map(
            |(number, page)| {
                let base = self.base + number as u64 * PAGE_SIZE;
                let fates = page.fates.iter().enumerate();
                fates.filter_map(move |(line, fate)| Some((base + line as u64 * LINE_SIZE, (*fate)?)))
            },
        )
    }
}

/// The numbers of the lines that `len` bytes at an offset touch.
fn lines(offset: u64, len: u64) -> impl Iterator<Item = usize> {
    let last = offset.saturating_add(len.max(1) - 1);
    (offset / LINE_SIZE..=last / LINE_SIZE).map(|line| line as usize)
}

impl Memory {
    /// Reads of a device, physical addresses: they consume.
    pub fn device_read(&mut self, pa: u64, len: u64) {
        let Some(offset) = self.offset_of(pa, len) else { return };
        let Some(trace) = self.trace_mut() else { return };
        let first = FirstUse { time: trace.now, pc: 0, el: 1, consumer: Consumer::Device };
        trace.record(offset as u64, len, Fate::Consumed(first));
        self.refresh_flags(offset as u64, offset as u64 + len.max(1));
    }
}

impl Vm {
    /// Begins to record the first consuming access of each line or page, instead of a trace that is on. What the guest does stays
    /// the same, to the bit. A trace is no part of a snapshot; going back to one leaves it on.
    pub fn begin_trace(&mut self, grain: Grain) {
        let (base, size) = (self.memory.base(), self.memory.size());
        self.memory.set_trace(Some(Box::new(Trace::new(grain, base, size))));
        self.trace_changed();
    }

    /// Ends it, and gives what was recorded; `None` if no trace was on.
    pub fn end_trace(&mut self) -> Option<Trace> {
        let trace = self.memory.set_trace(None)?;
        self.trace_changed();
        Some(*trace)
    }

    /// Nothing that was let through before is let through unasked.
    fn trace_changed(&mut self) {
        for cpu in &mut self.cpus {
            cpu.tlb.clear();
            cpu.drop_code = true;
            cpu.call_attention();
        }
        self.note_time();
    }

    /// Tells a trace the time of what the host does next.
    pub(crate) fn note_time(&mut self) {
        let now = self.now;
        if let Some(trace) = self.memory.trace_mut() {
            trace.now = now;
        }
    }
}

impl Runner<'_> {
    /// Poison was met, or a line that a trace waits for. Whether it was the latter alone: then it is recorded, and the
    /// instruction is to be executed again.
    pub(crate) fn is_traced(&mut self, abort: &HostAbort) -> bool {
        let time = self.cpu.time();
        let Some(offset) = self.memory.offset(abort.pa) else { return false };
        let in_page = PAGE_SIZE - abort.pa % PAGE_SIZE;
        let len = if abort.walk_level.is_some() { 8 } else { abort.size.min(in_page) };
        let consumer = match (abort.walk_level, abort.intent) {
            (Some(_), _) => Consumer::Walk,
            (None, intent) if intent.fetch => Consumer::Fetch,
            (None, intent) if intent.write => Consumer::Store,
            (None, _) => Consumer::Load,
        };
        let first = FirstUse { time, pc: self.cpu.pc, el: self.cpu.state.el, consumer };
        let offset = offset as u64;
        let Some(trace) = self.memory.trace_mut() else { return false };
        trace.now = time;
        if !trace.is_unseen(offset, len) {
            return false;
        }
        trace.record(offset, len, Fate::Consumed(first));
        self.memory.refresh_flags(offset, offset + len);
        !self.memory.poisoned(abort.pa, len)
    }
}

#[cfg(test)]
mod tests;
