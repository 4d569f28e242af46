//! The software TLB: direct-mapped, one 4 KiB page an entry.
//!
//! There is one array per kind of access (load, store, fetch) and per [`View`]: the rights are in
//! which array holds the page, so that a hit is one comparison. A page with poison is in an array
//! of loads by a tag that no address has, a page with decoded instructions never in one of stores,
//! so neither costs clean memory anything.
//!
//! An entry may go at any time; it may stay only as long as the architecture lets a TLB keep it.
//! Entries of another ASID never are in here: changing the ASID drops those that are not global.
//!
//! Each array knows which of its entries hold a page, so invalidation costs what it drops. Maintenance
//! that is broadcast goes into a log ([`crate::broadcast`]), which a CPU reads when it runs next.

// On the path of every load and store.
#![allow(clippy::inline_always)]

use crate::memory::PAGE_SHIFT;

/// Entries in an array.
const SETS: usize = 256;
/// Bytes of a page less one.
const PAGE_MASK: u64 = (1 << PAGE_SHIFT) - 1;

/// With whose rights data is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// EL0's, also for LDTR and STTR at EL1.
    El0,
    /// EL1's with PSTATE.PAN clear.
    El1,
    /// EL1's with PSTATE.PAN set.
    El1Pan,
}

/// One page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The virtual address of the page, tag byte included. Bit 0, which makes it differ from that of any page: data, unaligned
    /// accesses fault (Device memory, SCTLR_EL1.A); fetch, the page is guarded.
    tag: u64,
    /// Data: what an address lacks to be an offset in RAM. Fetch: the number of the decoded page.
    word: u64,
}

/// The entries of an array: all their tags, then all their words, which makes a lookup by translated code two host
/// instructions shorter than entries side by side.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Entries {
    tags: [u64; SETS],
    words: [u64; SETS],
}

/// The layout of an array, for translated code.
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
pub(crate) mod layout {
    use super::{Entries, PAGE_SHIFT, SETS};

    pub(crate) const TAG: i32 = std::mem::offset_of!(Entries, tags) as i32;
    pub(crate) const WORD: i32 = std::mem::offset_of!(Entries, words) as i32;
    /// An address shifted right by this and masked is where its tag is among the tags, and its word among the words.
    pub(crate) const INDEX_SHIFT: u8 = (PAGE_SHIFT - size_of::<u64>().ilog2()) as u8;
    pub(crate) const INDEX_MASK: i32 = ((SETS - 1) * size_of::<u64>()) as i32;
}

/// Bits that make the tag of a page that is [looked at](Entry::looked_at) one that no address has.
const LOOKED_AT: u64 = 1 << PAGE_SHIFT | 0b11;

impl Entry {
    /// No page, at this place of an array: the number is not that of any page, and no address that is looked for at this
    /// place has the tag, which belongs to the place beside it. With the MMU off any address may be looked for.
    const fn none(set: usize) -> Entry {
        Entry { tag: ((set ^ 1) << PAGE_SHIFT) as u64 | 1, word: u64::MAX }
    }

    /// True if the `size` bytes at `va` all lie in this page and are aligned if they must be.
    #[inline(always)]
    pub(crate) fn covers(&self, va: u64, size: u64) -> bool {
        let last = va.wrapping_add(size - 1);
        let outside = (va ^ self.tag | last ^ self.tag) & !PAGE_MASK;
        outside | va & (size - 1) & (self.tag & 1).wrapping_neg() == 0
    }

    /// Offset in RAM of `va`.
    #[inline(always)]
    pub(crate) fn offset(&self, va: u64) -> usize {
        va.wrapping_add(self.word) as usize
    }

    /// Fetch: the number of the decoded page.
    #[inline(always)]
    pub(crate) fn page(&self) -> u32 {
        self.word as u32
    }

    /// Fetch: the page is guarded.
    #[inline(always)]
    pub(crate) fn is_strict(&self) -> bool {
        self.tag & 1 != 0
    }

    /// Loads: the offset in RAM of the `size` bytes at `va`, if they are aligned and in a page that each access looks at.
    /// The page's flags say what that is; the entry saves the walk alone.
    #[inline]
    pub(crate) fn looked_at(&self, va: u64, size: u64) -> Option<usize> {
        let is_here = self.tag == va & !PAGE_MASK ^ LOOKED_AT && va & (size - 1) == 0;
        is_here.then(|| self.offset(va))
    }

    /// The virtual address of the page.
    fn va(&self) -> u64 {
        let is_looked_at = self.tag & LOOKED_AT & PAGE_MASK == LOOKED_AT & PAGE_MASK;
        (if is_looked_at { self.tag ^ LOOKED_AT } else { self.tag }) & !PAGE_MASK
    }

    /// Data: the page's number in RAM.
    fn ram_page(&self) -> u32 {
        (self.va().wrapping_add(self.word) >> PAGE_SHIFT) as u32
    }
}

/// What invalidation must know of an entry.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// log2 of the bytes that the translation spans.
    shift: u8,
    /// Valid for every ASID.
    global: bool,
}

/// One array.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    entries: Box<Entries>,
    /// Apart, so that an array is two words and found by a shift.
    upkeep: Box<Upkeep>,
}

/// What is looked at only when entries come and go.
#[derive(Clone, Debug)]
struct Upkeep {
    scopes: [Scope; SETS],
    /// The entries that may hold a page, a bit each: no other does.
    filled: [u64; SETS / 64],
}

impl Entries {
    /// The mask is SETS - 1, so the index is in bounds, which the compiler sees.
    #[inline(always)]
    fn get(&self, set: usize) -> Entry {
        Entry { tag: self.tags[set & (SETS - 1)], word: self.words[set & (SETS - 1)] }
    }

    fn set(&mut self, set: usize, Entry { tag, word }: Entry) {
        self.tags[set & (SETS - 1)] = tag;
        self.words[set & (SETS - 1)] = word;
    }
}

impl Array {
    fn new() -> Self {
        Self {
            entries: Box::new(Entries {
                tags: std::array::from_fn(|set| Entry::none(set).tag),
                words: std::array::from_fn(|set| Entry::none(set).word),
            }),
            upkeep: Box::new(Upkeep {
                scopes: [Scope { shift: 12, global: true }; SETS],
                filled: [0; SETS / 64],
            }),
        }
    }

    /// The entry that would hold `va`.
    #[inline(always)]
    pub(crate) fn entry(&self, va: u64) -> Entry {
        self.entries.get((va >> PAGE_SHIFT) as usize)
    }

    /// Where the entries are, for translated code.
    pub(crate) fn address(&self) -> u64 {
        std::ptr::from_ref(&*self.entries).expose_provenance() as u64
    }

    fn insert(&mut self, va: u64, word: u64, marks: u64, scope: Scope) {
        let set = (va >> PAGE_SHIFT) as usize & (SETS - 1);
        self.entries.set(set, Entry { tag: va & !PAGE_MASK ^ marks, word });
        self.upkeep.scopes[set] = scope;
        self.upkeep.filled[set / 64] |= 1 << (set % 64);
    }

    fn clear(&mut self) {
        self.retain(|_, _| false);
    }

    /// Costs what the array holds.
    fn retain(&mut self, keep: impl Fn(&Entry, Scope) -> bool) {
        let Upkeep { scopes, filled } = &mut *self.upkeep;
        for (word, filled) in filled.iter_mut().enumerate() {
            let mut rest = *filled;
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let set = word * 64 + bit;
                #[cfg(test)]
                work::count();
                if !keep(&self.entries.get(set), scopes[set]) {
                    self.entries.set(set, Entry::none(set));
                    *filled &= !(1 << bit);
                }
            }
        }
    }
}

/// How many entries this thread's TLBs looked at to drop some.
#[cfg(test)]
pub(crate) mod work {
    std::thread_local! {
        static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    pub(super) fn count() {
        LOOKED_AT.set(LOOKED_AT.get() + 1);
    }

    pub(crate) fn take() -> u64 {
        LOOKED_AT.replace(0)
    }
}

/// All arrays of one CPU.
#[derive(Clone, Debug)]
pub(crate) struct Tlb {
    /// Loads, by [`View`]; the fourth is never filled and makes the index a mask.
    pub(crate) read: [Array; 4],
    /// Stores, by [`View`].
    pub(crate) write: [Array; 4],
    /// Fetches at EL0 and EL1.
    pub(crate) fetch: [Array; 2],
    /// For each half of the address space, the range in which translations larger than 4 KiB may be cached:
    /// its first and last address, without the tag byte.
    large: [(u64, u64); 2],
}

/// What the CPU knows of a page that it puts into the TLB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    /// Virtual address, of any byte of the page.
    pub(crate) va: u64,
    /// Data: the page's number in RAM, which has it. Fetch: the number of the decoded page.
    pub(crate) page: u32,
    /// Data: unaligned accesses fault. Fetch: the page is guarded.
    pub(crate) strict: bool,
    /// log2 of the bytes that the translation spans.
    pub(crate) shift: u32,
    /// True if it holds for every ASID.
    pub(crate) global: bool,
}

impl Fill {
    /// What the page's addresses lack to be offsets in RAM.
    fn delta(&self) -> u64 {
        (u64::from(self.page) << PAGE_SHIFT).wrapping_sub(self.va & !PAGE_MASK)
    }
}

/// A range with nothing in it.
const EMPTY: (u64, u64) = (u64::MAX, 0);

/// An address without its tag byte.
pub(crate) fn untagged(va: u64) -> u64 {
    va << 8 >> 8
}

/// Which half of the address space an address is in.
fn half(va: u64) -> usize {
    (va >> 55 & 1) as usize
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            read: std::array::from_fn(|_| Array::new()),
            write: std::array::from_fn(|_| Array::new()),
            fetch: std::array::from_fn(|_| Array::new()),
            large: [EMPTY; 2],
        }
    }

    fn arrays(&mut self) -> impl Iterator<Item = &mut Array> {
        self.read.iter_mut().chain(&mut self.write).chain(&mut self.fetch)
    }

    fn scope(&mut self, fill: &Fill) -> Scope {
        if fill.shift > PAGE_SHIFT {
            let size = 1_u64.checked_shl(fill.shift).unwrap_or(0);
            let first = untagged(fill.va) & size.wrapping_neg();
            let (low, high) = self.large[half(fill.va)];
            self.large[half(fill.va)] = (low.min(first), high.max(first.wrapping_add(size - 1)));
        }
        Scope { shift: fill.shift as u8, global: fill.global }
    }

    pub(crate) fn fill_read(&mut self, view: View, fill: Fill) {
        let scope = self.scope(&fill);
        self.read[view as usize & 3].insert(fill.va, fill.delta(), fill.strict.into(), scope);
    }

    /// Loads from the page are looked at, but need no walk: it has poison.
    pub(crate) fn fill_looked_at(&mut self, view: View, fill: Fill) {
        let scope = self.scope(&fill);
        self.read[view as usize & 3].insert(fill.va, fill.delta(), LOOKED_AT, scope);
    }

    pub(crate) fn fill_write(&mut self, view: View, fill: Fill) {
        let scope = self.scope(&fill);
        self.write[view as usize & 3].insert(fill.va, fill.delta(), fill.strict.into(), scope);
    }

    pub(crate) fn fill_fetch(&mut self, el: u8, fill: Fill) {
        let scope = self.scope(&fill);
        self.fetch[el as usize & 1].insert(fill.va, fill.page.into(), fill.strict.into(), scope);
    }

    /// Where in RAM the pages of loads and stores are, by offset.
    #[cfg(test)]
    pub(crate) fn data_pages(&self) -> impl Iterator<Item = u64> {
        let held = |array: &Array, set: usize| array.upkeep.filled[set / 64] >> (set % 64) & 1 == 1;
        let pages = move |array: &Array| -> Vec<u64> {
            let entries = (0..SETS).filter(|set| held(array, *set)).map(|set| array.entries.get(set));
            entries.map(|entry| entry.va().wrapping_add(entry.word)).collect()
        };
        self.read.iter().chain(&self.write).flat_map(pages)
    }

    /// Drop everything.
    pub(crate) fn clear(&mut self) {
        self.arrays().for_each(Array::clear);
        self.large = [EMPTY; 2];
    }

    /// Drop the fetches: decoded pages were given new numbers, or dropped.
    pub(crate) fn clear_fetch(&mut self) {
        self.fetch.iter_mut().for_each(Array::clear);
    }

    /// Drop all stores to pages of RAM, in rising order: they have got decoded instructions.
    pub(crate) fn drop_writes_to(&mut self, pages: &[u32]) {
        let keep = |entry: &Entry, _| pages.binary_search(&entry.ram_page()).is_err();
        self.write.iter_mut().for_each(|array| array.retain(keep));
    }

    /// Drop what a change of ASID or table makes invalid: all that is not global, and the lower
    /// half of the address space.
    pub(crate) fn drop_address_space(&mut self) {
        self.arrays().for_each(|array| {
            array.retain(|entry, scope| scope.global && half(entry.va()) == 1);
        });
    }

    /// TLBI by address: drop the translations that `va` (bits `[55:12]`; the tag byte is not looked
    /// at) falls into, in whatever granule or block they are.
    pub(crate) fn drop_address(&mut self, va: u64) {
        let (low, high) = self.large[half(va)];
        if (low..=high).contains(&untagged(va)) {
            self.drop_addresses(&[untagged(va)]);
            return;
        }
        let set = (va >> PAGE_SHIFT) as usize & (SETS - 1);
        for array in self.arrays() {
            if untagged(array.entries.get(set).va() ^ va) >> PAGE_SHIFT == 0 {
                array.entries.set(set, Entry::none(set));
                array.upkeep.filled[set / 64] &= !(1 << (set % 64));
            }
        }
    }

    /// The same for many addresses, without their tag bytes, in rising order.
    pub(crate) fn drop_addresses(&mut self, addresses: &[u64]) {
        let keep = |entry: &Entry, scope: Scope| {
            // What the translation spans, as far as addresses go that have no tag byte.
            let first = untagged(entry.va()) >> scope.shift;
            let from = addresses.partition_point(|va| va >> scope.shift < first);
            addresses.get(from).is_none_or(|va| va >> scope.shift != first)
        };
        self.arrays().for_each(|array| array.retain(keep));
    }
}

#[cfg(test)]
mod tests;
