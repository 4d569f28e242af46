//! Guest RAM: one run of little-endian bytes at a physical address, with poison at 64-byte lines.
//!
//! Two kinds of access. The CPU works with **offsets** from the base of RAM and the fixed-size
//! `read` and `write`, which look at nothing but bounds; it keeps pages with
//! [`page_flags`] set out of its fast path, and asks [`Memory::poisoned`] in the slow one. The host
//! uses **physical addresses** and [`Memory::load`]/[`Memory::store`], which ignore poison: a
//! debugger must be able to look at a bad line.
//!
//! Untouched RAM costs no host memory, and clean RAM pays nothing for poison.
//!
//! Which pages were written to since the last snapshot is known ([`page_flags::DIRTY`]) without a
//! cost for those who write: a page gets the flag when the CPU may first store to it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::icache::SharedCode;
use crate::pages::{self, Contents};
use crate::poison::Poison;
pub use crate::poison::{LINE_SIZE, PAGE_SIZE};
use crate::ram::Ram;
use crate::trace::Trace;

/// Physical addresses have at most this many bits: ID_AA64MMFR0_EL1.PARange says 48.
pub const PA_BITS: u32 = 48;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// What is special about a 4 KiB page of RAM: a bit set in a byte. 0 means that the CPU's fast path
/// may have it.
pub mod page_flags {
    /// At least one line of the page is poisoned, or waited for by a [trace](crate::Trace). Kept by [`super::Memory`].
    pub const HAS_POISON: u8 = 1 << 0;
    /// The CPU holds decoded instructions of this page: writes must drop them. Set and cleared by
    /// the CPU.
    pub const HAS_CODE: u8 = 1 << 1;
    /// The page may have been written to since the last snapshot or restore. Kept by
    /// [`super::Memory`].
    pub const DIRTY: u8 = 1 << 2;
}

/// Why RAM cannot do what the host asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// RAM must be whole 4 KiB pages below 2^48.
    #[error(
        "RAM must be whole 4 KiB pages within 48 bits of physical address, got {size:#x} bytes at {base:#x}"
    )]
    Shape {
        /// Physical address asked for.
        base: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// The host has no memory left for so much RAM.
    #[error("the host cannot give {size:#x} bytes for RAM")]
    HostMemory {
        /// Bytes asked for.
        size: u64,
    },
    /// The host cannot keep RAM for a snapshot.
    #[error("the host cannot keep the {size:#x} bytes of RAM for a snapshot: {kind}")]
    Snapshot {
        /// Bytes of RAM.
        size: u64,
        /// What the host says.
        kind: io::ErrorKind,
    },
    /// A host-side access, or a poison range, is not wholly in RAM.
    #[error("expected a range inside RAM {ram_start:#x}..{ram_end:#x}, got {start:#x}..{end:#x}")]
    OutsideRam {
        /// First address asked for.
        start: u64,
        /// Address after the last one asked for.
        end: u64,
        /// Base of RAM.
        ram_start: u64,
        /// Address after the last byte of RAM.
        ram_end: u64,
    },
    /// A poison range holds no byte.
    #[error("expected a range of at least one byte, got {start:#x}..{end:#x}")]
    EmptyRange {
        /// First address asked for.
        start: u64,
        /// Address after the last one asked for.
        end: u64,
    },
}

/// Guest RAM with its page flags and its poison.
#[derive(Debug)]
pub struct Memory {
    base: u64,
    ram: Ram,
    flags: Vec<u8>,
    poison: Poison,
    stale_code: Vec<usize>,
    /// What RAM held at the last snapshot or restore, or at first.
    clean: Arc<Contents>,
    /// The pages whose flag says that they may be different now, each once.
    dirty: Vec<u32>,
    /// What waits for lines that nothing has consumed: they count as poisoned.
    trace: Option<Box<Trace>>,
}

/// Which lines of a [`Memory`] are poisoned, to be asked while its bytes are borrowed.
#[derive(Clone, Copy, Debug)]
pub struct PoisonedLines<'a> {
    base: u64,
    size: u64,
    poison: &'a Poison,
}

impl PoisonedLines<'_> {
    /// True if one of the `len` bytes at `pa` lies in a poisoned line. Bytes outside RAM are not poisoned.
    #[inline]
    pub fn touch(&self, pa: u64, len: u64) -> bool {
        if self.poison.lines() == 0 {
            return false;
        }
        let start = pa.max(self.base);
        let end = pa.saturating_add(len).min(self.base + self.size);
        start < end && self.poison.touches(start - self.base, end - self.base)
    }
}

impl Memory {
    /// RAM of `size` zero bytes at physical address `base`.
    ///
    /// # Errors
    /// [`MemoryError::Shape`] unless base and size are whole pages, at least one, below 2^48;
    /// [`MemoryError::HostMemory`] if the host refuses.
    pub fn new(base: u64, size: u64) -> Result<Self, MemoryError> {
        let fits = base.checked_add(size).is_some_and(|end| end <= 1 << PA_BITS);
        if size == 0 || base % PAGE_SIZE != 0 || size % PAGE_SIZE != 0 || !fits {
            return Err(MemoryError::Shape { base, size });
        }
        let refused = MemoryError::HostMemory { size };
        let bytes = usize::try_from(size).map_err(|_| refused.clone())?;
        // Pages are numbered in 32 bits.
        u32::try_from(size >> PAGE_SHIFT).map_err(|_| refused.clone())?;
        Self::holding(base, Arc::new(Contents::zeroed(bytes))).map_err(|_| refused)
    }

    /// RAM at physical address `base` that holds `contents`, all clean, without poison.
    pub(crate) fn holding(base: u64, contents: Arc<Contents>) -> io::Result<Self> {
        let ram = contents.ram()?;
        let flags = vec![0; ram.len() >> PAGE_SHIFT];
        let (poison, stale_code, dirty) = (Poison::default(), Vec::new(), Vec::new());
        Ok(Self { base, ram, flags, poison, stale_code, clean: contents, dirty, trace: None })
    }

    /// What RAM holds. From now on all pages are clean: nobody may write to one without
    /// [`Memory::mark_dirty`].
    pub(crate) fn capture(&mut self) -> Result<Arc<Contents>, MemoryError> {
        if self.dirty.is_empty() {
            return Ok(self.clean.clone());
        }
        let size = self.size();
        let error = |error: io::Error| MemoryError::Snapshot { size, kind: error.kind() };
        let contents = self.clean.after(&self.ram, &self.dirty).map_err(error)?;
        if !contents.shares_image_with(&self.clean) {
            // The machine itself shares the image from now on.
            self.ram = contents.ram().map_err(error)?;
        }
        self.clean = Arc::new(contents);
        self.all_clean();
        Ok(self.clean.clone())
    }

    /// RAM holds `contents` again, all clean; decoded instructions of pages that changed become stale code.
    /// Costs what differs if RAM held something of the same image before. Whether all decoded
    /// instructions are void.
    pub(crate) fn revert(&mut self, contents: &Arc<Contents>) -> Result<bool, MemoryError> {
        if !self.clean.shares_image_with(contents) {
            let size = self.size();
            let error = |error: io::Error| MemoryError::Snapshot { size, kind: error.kind() };
            self.ram = contents.ram().map_err(error)?;
            self.clean = contents.clone();
            self.all_clean();
            return Ok(true);
        }
        if !Arc::ptr_eq(&self.clean, contents) {
            let clean = std::mem::replace(&mut self.clean, contents.clone());
            for page in clean.differing(contents) {
                self.mark_page_dirty(page);
            }
        }
        for i in 0..self.dirty.len() {
            let Some(&page) = self.dirty.get(i) else { break };
            pages::put(&mut self.ram, page, self.clean.page(page));
            self.make_code_stale(page as usize);
        }
        self.all_clean();
        Ok(false)
    }

    fn all_clean(&mut self) {
        for page in self.dirty.drain(..) {
            if let Some(flags) = self.flags.get_mut(page as usize) {
                *flags &= !page_flags::DIRTY;
            }
        }
    }

    /// Bytes of the pages that were ever written to, at most: what RAM takes of the host's memory, if no other machine
    /// shares it.
    pub fn touched(&self) -> u64 {
        let clean = self.clean.touched();
        let new = self.dirty.iter().filter(|page| clean.binary_search(page).is_err()).count();
        (clean.len() + new) as u64 * PAGE_SIZE
    }

    /// The poison.
    pub(crate) fn all_poison(&self) -> &Poison {
        &self.poison
    }

    /// Replaces all poison. The pages must be in RAM.
    pub(crate) fn set_all_poison(&mut self, poison: &Poison) {
        if self.poison == *poison {
            return;
        }
        let before = std::mem::replace(&mut self.poison, poison.clone());
        let changed: Vec<usize> = before.pages().chain(self.poison.pages()).collect();
        for page in changed {
            self.refresh_flag(page);
        }
    }

    /// What RAM held when its pages were last clean.
    pub(crate) fn clean_contents(&self) -> &Contents {
        &self.clean
    }

    /// The code of the page as its snapshot knows it, if the page is as it was then and has no poison.
    pub(crate) fn shared_code(&self, page: u32) -> Option<&SharedCode> {
        let flags = self.flags.get(page as usize)?;
        let is_clean = flags & (page_flags::DIRTY | page_flags::HAS_POISON) == 0;
        is_clean.then(|| self.clean.code())
    }

    /// The pages that may have been written to since they were last clean.
    pub(crate) fn dirty_pages(&self) -> &[u32] {
        &self.dirty
    }

    /// The page at `offset` is going to be written to.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, offset: usize) {
        self.mark_page_dirty((offset >> PAGE_SHIFT) as u32);
    }

    #[inline]
    fn mark_page_dirty(&mut self, page: u32) {
        if let Some(flags) = self.flags.get_mut(page as usize) {
            if *flags & page_flags::DIRTY == 0 {
                *flags |= page_flags::DIRTY;
                self.dirty.push(page);
            }
        }
    }

    /// Physical address of the first byte.
    #[inline]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of RAM.
    #[inline]
    pub fn size(&self) -> u64 {
        self.ram.len() as u64
    }

    /// The physical addresses that are RAM.
    pub fn range(&self) -> Range<u64> {
        self.base..self.base + self.size()
    }

    /// Offset of physical address `pa` in RAM, or `None` if there is no RAM.
    #[inline]
    pub fn offset(&self, pa: u64) -> Option<usize> {
        let offset = pa.wrapping_sub(self.base);
        (offset < self.ram.len() as u64).then_some(offset as usize)
    }

    /// Offset of the `len` bytes at `pa`, or `None` if not all of them are RAM.
    #[inline]
    pub fn offset_of(&self, pa: u64, len: u64) -> Option<usize> {
        let offset = pa.wrapping_sub(self.base);
        let size = self.ram.len() as u64;
        (offset <= size && len <= size - offset).then_some(offset as usize)
    }

    /// The `N` bytes at `offset`, poisoned or not; `None` past the end.
    #[inline]
    pub fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.ram.get(offset..)?.first_chunk().copied()
    }

    /// Puts `bytes` at `offset`; `None` past the end. Looks at no flag: a page with
    /// [`page_flags::HAS_CODE`], or without [`page_flags::DIRTY`], is the caller's to handle.
    #[inline]
    pub(crate) fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        *self.ram.get_mut(offset..)?.first_chunk_mut()? = bytes;
        Some(())
    }

    /// The flags of all pages, by their number.
    pub(crate) fn all_flags(&self) -> &[u8] {
        &self.flags
    }

    /// All of RAM, for the CPU's own fast paths.
    #[inline]
    pub fn ram(&self) -> &[u8] {
        &self.ram
    }

    /// All of RAM, writable: who writes says so by [`Memory::host_wrote`].
    #[inline]
    pub fn ram_mut(&mut self) -> &mut [u8] {
        &mut self.ram
    }

    /// The [`page_flags`] of the page at `offset`; 0 outside RAM.
    #[inline]
    pub fn flags(&self, offset: usize) -> u8 {
        self.flags.get(offset >> PAGE_SHIFT).copied().unwrap_or(0)
    }

    /// Sets [`page_flags::HAS_CODE`] on the page at `offset`: the CPU now holds decoded
    /// instructions of it.
    #[inline]
    pub fn set_has_code(&mut self, offset: usize) {
        if let Some(flags) = self.flags.get_mut(offset >> PAGE_SHIFT) {
            *flags |= page_flags::HAS_CODE;
        }
    }

    /// Clears [`page_flags::HAS_CODE`] on the page at `offset`: the CPU dropped what it held.
    #[inline]
    pub fn clear_has_code(&mut self, offset: usize) {
        if let Some(flags) = self.flags.get_mut(offset >> PAGE_SHIFT) {
            *flags &= !page_flags::HAS_CODE;
        }
    }

    /// Copies the bytes at `pa` into `into`, whatever their poison.
    ///
    /// # Errors
    /// [`MemoryError::OutsideRam`]; nothing is copied then.
    pub fn load(&self, pa: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let offset = self.checked(pa, into.len())?;
        if let Some(bytes) = self.ram.get(offset..offset + into.len()) {
            into.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Puts `bytes` at `pa`, whatever the poison, which stays. Pages with decoded instructions
    /// become stale code.
    ///
    /// # Errors
    /// [`MemoryError::OutsideRam`]; nothing is written then.
    pub fn store(&mut self, pa: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let offset = self.checked(pa, bytes.len())?;
        if let Some(ram) = self.ram.get_mut(offset..offset + bytes.len()) {
            ram.copy_from_slice(bytes);
        }
        self.note_written(offset, offset + bytes.len());
        Ok(())
    }

    /// RAM as a device reaches it: the bytes, and which of them are poisoned. Who writes through it tells so
    /// afterwards, by [`Memory::host_wrote`].
    pub fn dma(&mut self) -> (&mut [u8], PoisonedLines<'_>) {
        let lines = PoisonedLines { base: self.base, size: self.ram.len() as u64, poison: &self.poison };
        (&mut self.ram, lines)
    }

    /// The host wrote the bytes at `range` (physical addresses), by another way than [`Memory::store`]: what holds
    /// for bytes that were stored holds for them. What is outside RAM is left out.
    pub fn host_wrote(&mut self, range: Range<u64>) {
        let start = range.start.max(self.base);
        let end = range.end.min(self.base + self.size());
        if start < end {
            self.note_written((start - self.base) as usize, (end - self.base) as usize);
        }
    }

    /// Checks that the `len` bytes at `pa` are RAM.
    ///
    /// # Errors
    /// [`MemoryError::OutsideRam`].
    pub fn require(&self, pa: u64, len: u64) -> Result<(), MemoryError> {
        self.offset_of(pa, len).map(|_| ()).ok_or_else(|| self.outside(pa, pa.saturating_add(len)))
    }

    /// Zeroes the `len` bytes at `pa` as [`Memory::store`] would.
    ///
    /// # Errors
    /// [`MemoryError::OutsideRam`]; nothing is written then.
    pub fn zero(&mut self, pa: u64, len: u64) -> Result<(), MemoryError> {
        self.require(pa, len)?;
        if let Some(start) = self.offset(pa).filter(|_| len != 0) {
            let end = start + len as usize;
            if let Some(ram) = self.ram.get_mut(start..end) {
                ram.fill(0);
            }
            self.note_written(start, end);
        }
        Ok(())
    }

    /// True if somebody other than the CPU's own store path wrote over decoded instructions: see
    /// [`Memory::take_stale_code`].
    #[inline]
    pub fn has_stale_code(&self) -> bool {
        !self.stale_code.is_empty()
    }

    /// Page numbers (offset / 4096) whose decoded instructions the host, or the table walker, wrote
    /// over since the last call. Their [`page_flags::HAS_CODE`] is already clear.
    pub fn take_stale_code(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.stale_code)
    }

    /// Records that `[start, end)` (offsets) was written by something that is not the CPU's store
    /// path: the pages are dirty, decoded instructions of theirs stale code.
    pub(crate) fn note_written(&mut self, start: usize, end: usize) {
        if start >= end {
            return;
        }
        for page in start >> PAGE_SHIFT..=(end.min(self.ram.len()) - 1) >> PAGE_SHIFT {
            self.mark_page_dirty(page as u32);
            self.make_code_stale(page);
        }
    }

    fn make_code_stale(&mut self, page: usize) {
        if let Some(flags) = self.flags.get_mut(page) {
            if *flags & page_flags::HAS_CODE != 0 {
                *flags &= !page_flags::HAS_CODE;
                self.stale_code.push(page);
            }
        }
    }

    /// Poisons every line that `range` (physical addresses) touches; gives how many of them were
    /// clean before. The bytes stay as they are.
    ///
    /// # Errors
    /// [`MemoryError::EmptyRange`] and [`MemoryError::OutsideRam`]; nothing is poisoned then.
    pub fn poison(&mut self, range: Range<u64>) -> Result<u64, MemoryError> {
        let (start, end) = self.poison_offsets(&range)?;
        let added = self.poison.add(start, end);
        self.refresh_flags(start, end);
        Ok(added)
    }

    /// Heals every line that `range` (physical addresses) touches; gives how many of them were
    /// poisoned. The bytes stay as they are.
    ///
    /// # Errors
    /// [`MemoryError::EmptyRange`] and [`MemoryError::OutsideRam`]; nothing is healed then.
    pub fn heal(&mut self, range: Range<u64>) -> Result<u64, MemoryError> {
        let (start, end) = self.poison_offsets(&range)?;
        let removed = self.poison.remove(start, end);
        self.refresh_flags(start, end);
        Ok(removed)
    }

    /// Zeroes the whole line at `pa` and heals it, as DC ZVA does: all of it is overwritten at
    /// once, so nothing bad is left in it. `None` if there is no RAM. Pages with decoded
    /// instructions become stale code.
    pub fn clean_line(&mut self, pa: u64) -> Option<()> {
        let offset = self.offset(pa)? & !(LINE_SIZE as usize - 1);
        let end = offset + LINE_SIZE as usize;
        self.ram.get_mut(offset..end)?.fill(0);
        self.note_written(offset, end);
        if self.flags(offset) & page_flags::HAS_POISON != 0 {
            self.poison.remove(offset as u64, end as u64);
            if let Some(trace) = &mut self.trace {
                trace.overwritten(offset as u64, LINE_SIZE);
            }
            self.refresh_flags(offset as u64, end as u64);
        }
        Some(())
    }

    /// True if one of the `len` bytes at `pa` lies in a poisoned line. Bytes outside RAM are not
    /// poisoned.
    #[inline]
    pub fn poisoned(&self, pa: u64, len: u64) -> bool {
        PoisonedLines { base: self.base, size: self.size(), poison: &self.poison }.touch(pa, len)
    }

    /// True if the page at `offset` has a poisoned line.
    #[inline]
    pub fn page_has_poison(&self, offset: usize) -> bool {
        self.flags(offset) & page_flags::HAS_POISON != 0
    }

    /// Poisoned lines in all of RAM.
    pub fn poisoned_lines(&self) -> u64 {
        self.poison.lines()
    }

    /// The poisoned physical address ranges, whole lines, in rising order, neighbours joined.
    pub fn poisoned_ranges(&self) -> Vec<Range<u64>> {
        self.poison.ranges().into_iter().map(|range| range.start + self.base..range.end + self.base).collect()
    }

    /// Brings HAS_POISON of the pages in `[start, end)` (offsets) in line with poison and trace.
    pub(crate) fn refresh_flags(&mut self, start: u64, end: u64) {
        for page in (start / PAGE_SIZE) as usize..=((end - 1) / PAGE_SIZE) as usize {
            self.refresh_flag(page);
        }
    }

    fn refresh_flag(&mut self, page: usize) {
        let is_watched = self.trace.as_ref().is_some_and(|trace| trace.watches(page));
        let flag = if is_watched || self.poison.in_page(page) { page_flags::HAS_POISON } else { 0 };
        if let Some(flags) = self.flags.get_mut(page) {
            *flags = *flags & !page_flags::HAS_POISON | flag;
        }
    }

    /// Puts a trace in the place of the one that is on.
    pub(crate) fn set_trace(&mut self, trace: Option<Box<Trace>>) -> Option<Box<Trace>> {
        let before = std::mem::replace(&mut self.trace, trace);
        self.refresh_flags(0, self.size());
        before
    }

    pub(crate) fn trace_mut(&mut self) -> Option<&mut Trace> {
        self.trace.as_deref_mut()
    }

    /// True if a load of the `len` bytes at `pa` must be looked at: one of their lines is poisoned, or a trace waits for it.
    #[inline]
    pub(crate) fn stops(&self, pa: u64, len: u64) -> bool {
        let is_traced = |trace: &Trace| trace.is_unseen(pa.wrapping_sub(self.base), len);
        self.trace.as_deref().is_some_and(is_traced) || self.poisoned(pa, len)
    }

    /// True if a trace is on.
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Offset of `len` bytes at `pa`, all in RAM.
    fn checked(&self, pa: u64, len: usize) -> Result<usize, MemoryError> {
        self.offset_of(pa, len as u64).ok_or_else(|| self.outside(pa, pa.saturating_add(len as u64)))
    }

    /// Offsets of a non-empty range of physical addresses, all in RAM.
    fn poison_offsets(&self, range: &Range<u64>) -> Result<(u64, u64), MemoryError> {
        if range.start >= range.end {
            return Err(MemoryError::EmptyRange { start: range.start, end: range.end });
        }
        let len = range.end - range.start;
        let start =
            self.offset_of(range.start, len).ok_or_else(|| self.outside(range.start, range.end))? as u64;
        Ok((start, start + len))
    }

    fn outside(&self, start: u64, end: u64) -> MemoryError {
        MemoryError::OutsideRam { start, end, ram_start: self.base, ram_end: self.base + self.size() }
    }
}

#[cfg(test)]
mod tests;
