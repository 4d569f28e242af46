//! Decoded instructions, cached per physical page and decoded line by line.
//!
//! A line is 64 bytes, as poison is: reading a line that is poisoned is an abort, so no other line
//! may be read along with it. Writes to a decoded line, and IC instructions, drop it.
//!
//! A page that is as in the machine's snapshot, and has no poison, is decoded once for all machines of the snapshot, and
//! whole: no guest can tell, as none of its lines can abort and a store to any of them is noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::decode::{Insn, Op, decode};
use crate::jit::{self, Jit};
use crate::memory::{LINE_SIZE, Memory, PAGE_SHIFT, PAGE_SIZE};

/// Instructions in a page.
pub(crate) const INSNS_PER_PAGE: usize = 1024;
/// Instructions in a line.
const INSNS_PER_LINE: usize = 16;
/// Decoded pages kept, 16 KiB each, 48 MiB: when there are more all are dropped. A boot of Debian's kernel with its
/// first processes takes 1850. As many are shared by the machines of a snapshot.
pub(crate) const MAX_PAGES: usize = 3072;
/// A page of RAM that has no decoded page.
const ABSENT: u32 = u32::MAX;

/// The decoded instructions of one page; `Op::Pending` where a line is not decoded.
pub(crate) type Page = [Insn; INSNS_PER_PAGE];

/// All decoded pages.
#[derive(Debug)]
pub(crate) struct ICache {
    /// One that is not the machine's own is copied before it changes.
    pages: Vec<Arc<Page>>,
    /// A page without a decoded line.
    pending: Arc<Page>,
    /// Which lines of each decoded page are decoded, one bit each.
    lines: Vec<u64>,
    /// The page of RAM that each decoded page is of.
    owner: Vec<u32>,
    /// The decoded page of each page of RAM, or `ABSENT`.
    by_ram_page: Vec<u32>,
    /// Translations of decoded pages.
    pub(crate) jit: Jit,
}

impl ICache {
    /// A cache for this much RAM, in bytes.
    pub(crate) fn new(ram_size: u64) -> Self {
        Self {
            pages: Vec::new(),
            pending: Arc::new([Insn::PENDING; INSNS_PER_PAGE]),
            lines: Vec::new(),
            owner: Vec::new(),
            by_ram_page: vec![ABSENT; (ram_size / PAGE_SIZE) as usize],
            jit: Jit::new(),
        }
    }

    /// The decoded page with this number.
    #[inline]
    pub(crate) fn page(&self, slot: u32) -> Option<&Page> {
        self.pages.get(slot as usize).map(AsRef::as_ref)
    }

    /// The number of the decoded page for the page of RAM at `offset`, and whether numbers that
    /// were given out before are void now.
    pub(crate) fn slot(&mut self, memory: &mut Memory, offset: usize) -> Option<(u32, bool)> {
        let ram_page = offset >> PAGE_SHIFT;
        let found = *self.by_ram_page.get(ram_page)?;
        if found != ABSENT {
            return Some((found, false));
        }
        let is_full = self.pages.len() >= MAX_PAGES;
        if is_full {
            self.clear(memory);
        }
        let slot = self.pages.len() as u32;
        self.pages.push(self.pending.clone());
        self.lines.push(0);
        self.owner.push(ram_page as u32);
        self.jit.add_page(slot as usize);
        if let Some(entry) = self.by_ram_page.get_mut(ram_page) {
            *entry = slot;
        }
        Some((slot, is_full))
    }

    /// Decode the line of page `slot` that holds `va`. Gives the page of RAM if it had no decoded
    /// line before: stores to it must be noticed from now on.
    pub(crate) fn decode_line(&mut self, memory: &mut Memory, slot: u32, va: u64) -> Option<u32> {
        let slot = slot as usize;
        let line = (va & (PAGE_SIZE - 1)) / LINE_SIZE;
        let ram_page = *self.owner.get(slot)?;
        let (page, lines) = (self.pages.get_mut(slot)?, self.lines.get_mut(slot)?);
        let was_empty = *lines == 0;
        let shared = memory.shared_code(ram_page).filter(|_| was_empty);
        if let Some(shared) = shared.and_then(|code| code.page(memory, ram_page)) {
            (*page, *lines) = (shared, u64::MAX);
        } else {
            decode_into(Arc::make_mut(page), memory, ram_page, line as usize)?;
            *lines |= 1 << line;
        }
        if !was_empty {
            return None;
        }
        memory.set_has_code((ram_page as usize) << PAGE_SHIFT);
        self.jit.attach(memory, slot, ram_page);
        Some(ram_page)
    }

    /// Bytes of RAM were written: drop the lines they are in.
    pub(crate) fn written(&mut self, memory: &mut Memory, offset: usize, len: usize) {
        let line_size = LINE_SIZE as usize;
        for line in offset / line_size..=(offset + len.max(1) - 1) / line_size {
            self.drop_line(memory, line);
        }
    }

    /// Drop one line, by its number in RAM.
    fn drop_line(&mut self, memory: &mut Memory, ram_line: usize) {
        let lines_per_page = (PAGE_SIZE / LINE_SIZE) as usize;
        let (ram_page, line) = (ram_line / lines_per_page, ram_line % lines_per_page);
        let Some(&slot) = self.by_ram_page.get(ram_page) else { return };
        let slot = slot as usize;
        let (Some(lines), Some(page)) = (self.lines.get_mut(slot), self.pages.get_mut(slot)) else {
            return;
        };
        // A snapshot's translations are of lines, too, that are not decoded here.
        self.jit.drop_range(slot, line * INSNS_PER_LINE, INSNS_PER_LINE);
        if *lines >> line & 1 == 0 {
            return;
        }
        *lines &= !(1 << line);
        let insns = line * INSNS_PER_LINE..(line + 1) * INSNS_PER_LINE;
        if let Some(insns) = Arc::make_mut(page).get_mut(insns) {
            insns.fill(Insn::PENDING);
        }
        if *lines == 0 {
            memory.clear_has_code(ram_page << PAGE_SHIFT);
        }
    }

    /// Drop all lines of a page of RAM.
    pub(crate) fn drop_page(&mut self, ram_page: usize) {
        let Some(&slot) = self.by_ram_page.get(ram_page) else { return };
        let slot = slot as usize;
        if let (Some(lines), Some(page)) = (self.lines.get_mut(slot), self.pages.get_mut(slot)) {
            *lines = 0;
            *page = self.pending.clone();
        }
        self.jit.drop_page(slot);
    }

    /// Translate what begins at an instruction of page `slot`.
    pub(crate) fn translate(&mut self, slot: u32, index: usize) {
        if let Some(page) = self.pages.get(slot as usize) {
            self.jit.translate(page, slot, index);
        }
    }

    /// Offset in RAM of the page that a decoded page is of.
    pub(crate) fn ram_offset(&self, slot: u32) -> Option<usize> {
        self.owner.get(slot as usize).map(|ram_page| (*ram_page as usize) << PAGE_SHIFT)
    }

    /// Drop the decoded pages that have poison: it may have come after they were decoded.
    pub(crate) fn drop_poisoned(&mut self, memory: &Memory) {
        for slot in 0..self.owner.len() {
            let Some(ram_page) = self.owner.get(slot).map(|page| *page as usize) else { continue };
            if memory.page_has_poison(ram_page << PAGE_SHIFT) {
                self.drop_page(ram_page);
            }
        }
    }

    /// Drop everything; page numbers become void.
    pub(crate) fn clear(&mut self, memory: &mut Memory) {
        for ram_page in &self.owner {
            memory.clear_has_code((*ram_page as usize) << PAGE_SHIFT);
            if let Some(entry) = self.by_ram_page.get_mut(*ram_page as usize) {
                *entry = ABSENT;
            }
        }
        self.jit.clear(self.owner.len());
        self.pages.clear();
        self.lines.clear();
        self.owner.clear();
    }
}

/// Decode a line of a page, by its number there. `None`: RAM has no such page.
fn decode_into(page: &mut Page, memory: &Memory, ram_page: u32, line: usize) -> Option<()> {
    let start = ((ram_page as usize) << PAGE_SHIFT) + line * LINE_SIZE as usize;
    let bytes: [u8; LINE_SIZE as usize] = memory.read(start)?;
    let first = line * INSNS_PER_LINE;
    let target = page.get_mut(first..first + INSNS_PER_LINE)?;
    for (insn, word) in target.iter_mut().zip(bytes.chunks_exact(4)) {
        *insn = word.first_chunk().map_or(Insn::PENDING, |word| decode(u32::from_le_bytes(*word)));
    }
    for n in 1..target.len() {
        if let [.., first, second] = target.get_mut(..=n)? {
            if second.op == Op::BCond {
                first.op = first.op.with_branch();
            }
        }
    }
    Some(())
}

/// What all machines of a snapshot have in common of its pages' code.
#[derive(Debug, Default)]
pub(crate) struct SharedCode {
    decoded: Mutex<HashMap<u32, Arc<Page>>>,
    pub(crate) translations: jit::Shared,
}

impl SharedCode {
    /// A page of RAM, all of it decoded; `memory` has it as the snapshot has. `None`: there are as many as are kept.
    fn page(&self, memory: &Memory, ram_page: u32) -> Option<Arc<Page>> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = decoded.get(&ram_page) {
            return Some(page.clone());
        }
        if decoded.len() >= MAX_PAGES {
            return None;
        }
        let mut page = Arc::new([Insn::PENDING; INSNS_PER_PAGE]);
        let insns = Arc::make_mut(&mut page);
        (0..INSNS_PER_PAGE / INSNS_PER_LINE)
            .try_for_each(|line| decode_into(insns, memory, ram_page, line))?;
        decoded.insert(ram_page, page.clone());
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use seawall_arm::Reg;
    use seawall_inject::{Exit, Inject as _};

    use crate::vm::{Config, RAM_BASE, Vm};

    /// Where the page of code is that the CPU runs.
    fn decoded(vm: &mut Vm) -> *const super::Page {
        vm.set_budget(Some(4));
        assert_eq!(vm.run().expect("a run that ends").1, Exit::Intr);
        std::ptr::from_ref(vm.icache.page(0).expect("a page that was decoded"))
    }

    #[test]
    fn machines_of_a_snapshot_share_decoded_pages_until_one_writes_to_them() {
        let mut origin = Vm::new(Config { memory_size: 0x1_0000, ..Config::default() }).expect("64 KiB");
        // b .
        origin.memory_mut().store(RAM_BASE, &0x1400_0000_u32.to_le_bytes()).expect("in RAM");
        origin.vcpu(0).expect("CPU 0").set_reg(Reg::Pc, RAM_BASE).expect("PC");
        let snapshot = origin.snapshot().expect("room for it");
        let [mut one, mut other] = [(); 2].map(|()| snapshot.machine().expect("room for it"));
        let shared = decoded(&mut one);
        assert_eq!(decoded(&mut other), shared);
        other.memory_mut().store(RAM_BASE + 0x800, &[0]).expect("in RAM");
        assert_ne!(decoded(&mut other), shared);
        assert_eq!(decoded(&mut one), shared);
        other.restore(&snapshot).expect("room for it");
        assert_eq!(decoded(&mut other), shared);
    }

    #[test]
    fn a_page_with_poison_is_a_machines_own() {
        let mut origin = Vm::new(Config { memory_size: 0x1_0000, ..Config::default() }).expect("64 KiB");
        origin.memory_mut().store(RAM_BASE, &0x1400_0000_u32.to_le_bytes()).expect("in RAM");
        origin.vcpu(0).expect("CPU 0").set_reg(Reg::Pc, RAM_BASE).expect("PC");
        let snapshot = origin.snapshot().expect("room for it");
        let [mut clean, mut bad] = [(); 2].map(|()| snapshot.machine().expect("room for it"));
        bad.poison(RAM_BASE + 0x800..RAM_BASE + 0x801).expect("in RAM");
        assert_ne!(decoded(&mut bad), decoded(&mut clean));
    }
}
