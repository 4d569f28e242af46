//! Loads and stores: the fast path through the software TLB, and the slow one that translates,
//! looks for poison and finds holes.

use seawall_arm::{ExceptionClass, FaultStatus};

use crate::bus::{BusAccess, first_piece};
use crate::cpu::Cpu;
use crate::decode::insn::SP;
use crate::decode::{Insn, Kind};
use crate::memory::{LINE_SIZE, Memory, PAGE_SIZE, page_flags};
use crate::tlb::{Fill, View};
use crate::trap::{HostAbort, Intent, Trap};
use crate::vm::StorePolicy;
use crate::walk::{self, Access, WalkStage};

/// SCTLR_EL1.A: every unaligned access faults.
const SCTLR_A: u64 = 1 << 1;
/// SCTLR_EL1.nAA: unaligned acquire and release accesses may cross a 16-byte boundary.
const SCTLR_NAA: u64 = 1 << 6;

/// How an access must be aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alignment {
    /// Only if SCTLR_EL1.A, or the memory is Device.
    Plain,
    /// Acquire or release: within 16 bytes (FEAT_LSE2), unless SCTLR_EL1.nAA.
    Ordered,
    /// Exclusive or atomic: within 16 bytes (FEAT_LSE2).
    Atomic,
}

/// What is asked of [`probe`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) va: u64,
    /// Bytes, 1 to 16.
    pub(super) size: u64,
    /// Bytes of one element: what alignment is about.
    pub(super) element: u64,
    pub(super) write: bool,
    pub(super) view: View,
    pub(super) alignment: Alignment,
}

/// Where the bytes of an access are: one piece, or two if it crosses a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    va: u64,
    first: At,
    first_len: usize,
    second: At,
    len: usize,
    element: u64,
}

/// Where a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Offset in RAM.
    Ram(usize),
    /// Physical address where there is no RAM.
    Bus(u64),
}

impl Place {
    /// All of it in RAM, from this offset on.
    #[inline(always)]
    fn in_ram(va: u64, offset: usize, len: usize) -> Self {
        Self { va, first: At::Ram(offset), first_len: len, second: At::Ram(0), len, element: len as u64 }
    }

    /// Physical address of the first byte.
    pub(super) fn pa(&self, memory: &Memory) -> u64 {
        match self.first {
            At::Ram(offset) => memory.base() + offset as u64,
            At::Bus(pa) => pa,
        }
    }

    /// True if it is in RAM.
    pub(super) fn is_in_ram(&self) -> bool {
        matches!((self.first, self.second), (At::Ram(_), At::Ram(_)))
    }

    /// The bytes, zero-extended. `None`: the bus is to be asked, as the CPU's trap says.
    #[inline]
    pub(super) fn read(&self, cpu: &mut Cpu, memory: &Memory) -> Option<u128> {
        let mut bytes = [0; 16];
        let (head, tail) = bytes.split_at_mut(self.first_len);
        let tail = tail.get_mut(..self.len - self.first_len).unwrap_or_default();
        for (at, va, to) in [(self.first, self.va, head), (self.second, self.second_va(), tail)] {
            match at {
                At::Ram(offset) => copy(to, memory.ram(), offset),
                At::Bus(pa) => bus_read(cpu, pa, va, to, self.element)?,
            }
        }
        Some(u128::from_le_bytes(bytes))
    }

    /// Put the low bytes of `value` there. `None`: the bus is to be asked, as the CPU's trap says.
    #[inline]
    pub(super) fn write(&self, cpu: &mut Cpu, memory: &mut Memory, value: u128) -> Option<()> {
        let bytes = value.to_le_bytes();
        let (head, tail) = bytes.split_at(self.first_len);
        let tail = tail.get(..self.len - self.first_len).unwrap_or_default();
        for (at, va, from) in [(self.first, self.va, head), (self.second, self.second_va(), tail)] {
            match at {
                At::Ram(offset) if !from.is_empty() => put(cpu, memory, offset, from),
                At::Ram(_) => {}
                At::Bus(pa) => bus_write(cpu, pa, va, from, self.element)?,
            }
        }
        Some(())
    }

    fn second_va(&self) -> u64 {
        self.va.wrapping_add(self.first_len as u64)
    }
}

#[cold]
#[inline(never)]
fn bus_read(cpu: &mut Cpu, mut pa: u64, mut va: u64, mut to: &mut [u8], element: u64) -> Option<()> {
    while !to.is_empty() {
        let len = first_piece(pa, to.len() as u64, element);
        let data = cpu.bus(BusAccess { va, pa, len: len as u8, write: false, data: 0 })?;
        let (piece, rest) = to.split_at_mut_checked(len as usize)?;
        piece.iter_mut().zip(data.to_le_bytes()).for_each(|(to, from)| *to = from);
        (pa, va, to) = (pa.wrapping_add(len), va.wrapping_add(len), rest);
    }
    Some(())
}

#[cold]
#[inline(never)]
fn bus_write(cpu: &mut Cpu, mut pa: u64, mut va: u64, mut from: &[u8], element: u64) -> Option<()> {
    while !from.is_empty() {
        let len = first_piece(pa, from.len() as u64, element);
        let (piece, rest) = from.split_at_checked(len as usize)?;
        let data = piece.iter().rev().fold(0, |data, byte| data << 8 | u64::from(*byte));
        cpu.bus(BusAccess { va, pa, len: len as u8, write: true, data })?;
        (pa, va, from) = (pa.wrapping_add(len), va.wrapping_add(len), rest);
    }
    Some(())
}

/// Zeroes for DC ZVA where there is no RAM.
pub(super) fn zero_on_bus(cpu: &mut Cpu, pa: u64, va: u64) -> Option<()> {
    bus_write(cpu, pa, va, &[0; LINE_SIZE as usize], 8)
}

fn copy(to: &mut [u8], ram: &[u8], offset: usize) {
    if let Some(from) = ram.get(offset..).and_then(|ram| ram.get(..to.len())) {
        to.copy_from_slice(from);
    }
}

fn put(cpu: &mut Cpu, memory: &mut Memory, offset: usize, bytes: &[u8]) {
    if let Some(to) = memory.ram_mut().get_mut(offset..).and_then(|ram| ram.get_mut(..bytes.len())) {
        to.copy_from_slice(bytes);
    }
    if memory.flags(offset) & page_flags::HAS_CODE != 0 {
        cpu.note_code_written(offset, bytes.len());
    }
}

impl Cpu {
    /// Remember that bytes of a page with decoded instructions were written.
    pub(super) fn note_code_written(&mut self, offset: usize, len: usize) {
        let slot = usize::from(self.written_code[0].1 != 0);
        self.written_code[slot] = (offset, len);
        self.call_attention();
    }

    /// EL0's rights for unprivileged accesses, unless PSTATE.UAO, or EL0 is not of this regime. Source:
    /// `AArch64.IsUnprivAccessPriv`.
    pub(super) fn unprivileged_view(&self) -> View {
        let is_unprivileged = self.state.rest & seawall_arm::Pstate::UAO == 0 && self.has_el0();
        if is_unprivileged { View::El0 } else { self.view }
    }
}

/// SP as a base register must be 16-byte aligned (`CheckSPAlignment`).
#[cold]
#[inline(never)]
fn raise_sp_alignment(cpu: &mut Cpu) {
    cpu.raise(ExceptionClass::SP_ALIGNMENT, 0, None);
}

/// The base address of a load or store; `None` if it is a misaligned SP.
#[inline(always)]
pub(super) fn base(cpu: &mut Cpu, insn: &Insn) -> Option<u64> {
    let base = cpu.slot(insn.rn);
    if insn.rn == SP && base & 15 != 0 && cpu.sp_must_align {
        raise_sp_alignment(cpu);
        return None;
    }
    Some(base)
}

/// Load `N` bytes by the TLB.
#[inline(always)]
pub(super) fn load_hit<const N: usize>(cpu: &Cpu, memory: &Memory, va: u64) -> Option<[u8; N]> {
    let entry = cpu.tlb.read[cpu.view as usize & 3].entry(va);
    if !entry.covers(va, N as u64) {
        return None;
    }
    memory.read(entry.offset(va))
}

/// Store `N` bytes by the TLB.
#[inline(always)]
pub(super) fn store_hit<const N: usize>(
    cpu: &Cpu,
    memory: &mut Memory,
    va: u64,
    bytes: [u8; N],
) -> Option<()> {
    let entry = cpu.tlb.write[cpu.view as usize & 3].entry(va);
    if !entry.covers(va, N as u64) {
        return None;
    }
    memory.write(entry.offset(va), bytes)
}

/// Load `N` bytes the slow way.
#[inline(always)]
pub(super) fn load_slow<const N: usize>(cpu: &mut Cpu, memory: &mut Memory, va: u64) -> Option<[u8; N]> {
    let value = load_elements(cpu, memory, va, N as u64, N as u64)?;
    value.to_le_bytes().first_chunk().copied()
}

/// Load a pair of elements, `N` bytes together, the slow way.
#[inline(always)]
pub(super) fn load_pair_slow<const N: usize>(cpu: &mut Cpu, memory: &mut Memory, va: u64) -> Option<[u8; N]> {
    let value = load_elements(cpu, memory, va, N as u64, N as u64 / 2)?;
    value.to_le_bytes().first_chunk().copied()
}

/// Store `N` bytes made of elements of `element` bytes the slow way.
#[inline(always)]
pub(super) fn store_slow<const N: usize>(
    cpu: &mut Cpu,
    memory: &mut Memory,
    va: u64,
    bytes: [u8; N],
    element: u64,
) -> Option<()> {
    let mut wide = [0; 16];
    wide.first_chunk_mut::<N>()?.copy_from_slice(&bytes);
    store_elements(cpu, memory, va, u128::from_le_bytes(wide), N as u64, element)
}

/// Load `N` bytes.
#[inline(always)]
pub(super) fn load<const N: usize>(cpu: &mut Cpu, memory: &mut Memory, va: u64) -> Option<[u8; N]> {
    load_hit(cpu, memory, va).or_else(|| load_slow(cpu, memory, va))
}

/// Load a pair of elements, `N` bytes together.
#[inline(always)]
pub(super) fn load_pair<const N: usize>(cpu: &mut Cpu, memory: &mut Memory, va: u64) -> Option<[u8; N]> {
    load_hit(cpu, memory, va).or_else(|| load_pair_slow(cpu, memory, va))
}

/// Store `N` bytes made of elements of `element` bytes.
#[inline(always)]
pub(super) fn store<const N: usize>(
    cpu: &mut Cpu,
    memory: &mut Memory,
    va: u64,
    bytes: [u8; N],
    element: u64,
) -> Option<()> {
    store_hit(cpu, memory, va, bytes).or_else(|| store_slow(cpu, memory, va, bytes, element))
}

#[cold]
#[inline(never)]
fn load_elements(cpu: &mut Cpu, memory: &mut Memory, va: u64, size: u64, element: u64) -> Option<u128> {
    let view = cpu.view;
    let alignment = Alignment::Plain;
    let request = Request { va, size, element, write: false, view, alignment };
    probe(cpu, memory, &request)?.read(cpu, memory)
}

#[cold]
#[inline(never)]
fn store_elements(
    cpu: &mut Cpu,
    memory: &mut Memory,
    va: u64,
    value: u128,
    size: u64,
    element: u64,
) -> Option<()> {
    let view = cpu.view;
    let alignment = Alignment::Plain;
    let request = Request { va, size, element, write: true, view, alignment };
    probe(cpu, memory, &request)?.write(cpu, memory, value)
}

/// A single-register access out of the ordinary: unprivileged, or with acquire or release.
#[inline(never)]
pub(super) fn single(
    cpu: &mut Cpu,
    memory: &mut Memory,
    insn: &Insn,
    view: View,
    alignment: Alignment,
) -> Option<()> {
    let kind = Kind::from_number(insn.x);
    let va = base(cpu, insn)?.wrapping_add(insn.imm);
    let size = 1 << kind.size();
    let request = Request { va, size, element: size, write: kind.is_store(), view, alignment };
    let place = probe(cpu, memory, &request)?;
    if kind.is_store() {
        return place.write(cpu, memory, u128::from(cpu.slot(insn.rd)));
    }
    let value = place.read(cpu, memory)?;
    cpu.set_slot(insn.rd, kind.extend(value as u64));
    Some(())
}

/// Translate an access, byte by byte if need be, with all its checks, and change nothing that
/// the guest can see but the tables' access flags. `None`: the CPU's trap says why not.
///
/// In the order of priority: alignment (SCTLR_EL1.A), then for each page translation, Device
/// alignment, hole, poison.
pub(super) fn probe(cpu: &mut Cpu, memory: &mut Memory, request: &Request) -> Option<Place> {
    let &Request { va, size, element, write, view, .. } = request;
    let intent = if write { Intent::STORE } else { Intent::LOAD };
    let arrays = if write { &cpu.tlb.write } else { &cpu.tlb.read };
    let entry = arrays[view as usize & 3].entry(va);
    if entry.covers(va, size) && va & (size - 1) == 0 {
        return Some(Place::in_ram(va, entry.offset(va), size as usize));
    }
    if let Some(offset) = entry.looked_at(va, size) {
        let pa = memory.base() + offset as u64;
        if memory.flags(offset) & page_flags::HAS_POISON != 0 {
            if memory.stops(pa, size) {
                cpu.trap = Trap::Poison(host_abort(request, va, pa));
                return None;
            }
            return Some(Place::in_ram(va, offset, size as usize));
        }
    }
    if va & (element - 1) != 0 && misalignment_faults(cpu, request) {
        cpu.raise_abort(FaultStatus::Alignment, va, intent);
        return None;
    }
    let first_len = size.min(PAGE_SIZE - (va & (PAGE_SIZE - 1)));
    let first = probe_page(cpu, memory, request, va, first_len)?;
    let second = if first_len < size {
        probe_page(cpu, memory, request, va.wrapping_add(first_len), size - first_len)?
    } else {
        At::Ram(0)
    };
    Some(Place { va, first, first_len: first_len as usize, second, len: size as usize, element })
}

/// The host's view of an access whose byte at `va` is at `pa`.
fn host_abort(request: &Request, va: u64, pa: u64) -> HostAbort {
    let intent = if request.write { Intent::STORE } else { Intent::LOAD };
    HostAbort { intent, va, pa, walk_level: None, stage: WalkStage::First, size: request.size }
}

/// True if an access that is not aligned to its element faults whatever the memory.
fn misalignment_faults(cpu: &Cpu, request: &Request) -> bool {
    let sctlr = cpu.sys.sctlr;
    let within_16 = (request.va & 15) + request.size <= 16;
    sctlr & SCTLR_A != 0
        || match request.alignment {
            Alignment::Plain => false,
            Alignment::Ordered => !within_16 && sctlr & SCTLR_NAA == 0,
            Alignment::Atomic => !within_16,
        }
}

/// The part of [`probe`] that is about one page.
fn probe_page(cpu: &mut Cpu, memory: &mut Memory, request: &Request, va: u64, len: u64) -> Option<At> {
    let &Request { size, element, write, view, .. } = request;
    let intent = if write { Intent::STORE } else { Intent::LOAD };
    let access = Access::data(write, view != View::El0, view == View::El1Pan);
    let translation = match walk::translate(memory, &cpu.regime(), va, access) {
        Ok(translation) => translation,
        Err(fault) => {
            cpu.raise_fault(&fault, va, intent, size);
            return None;
        }
    };
    if memory.has_stale_code() {
        cpu.call_attention();
    }
    let is_device = translation.attributes.is_device();
    if is_device && request.va & (element - 1) != 0 {
        cpu.raise_abort(FaultStatus::Alignment, va, intent);
        return None;
    }
    cpu.check_watchpoints(va, len, intent, access.privileged)?;
    let pa = translation.pa;
    let Some(offset) = memory.offset(pa) else {
        if cpu.serves_all {
            return Some(At::Bus(pa));
        }
        cpu.trap = Trap::Hole(host_abort(request, va, pa));
        return None;
    };
    let flags = memory.flags(offset);
    let consumes = !write || cpu.store_policy == StorePolicy::Abort;
    let has_poison = flags & page_flags::HAS_POISON != 0;
    if consumes && has_poison && memory.stops(pa, len) {
        cpu.trap = Trap::Poison(host_abort(request, va, pa));
        if !write {
            fill(cpu, memory, &translation, va, offset, view, false);
        }
        return None;
    }
    if write {
        memory.mark_dirty(offset);
    }
    fill(cpu, memory, &translation, va, offset, view, write);
    Some(At::Ram(offset))
}

/// The page of RAM at `offset`, which `va` translates to, goes into the TLB if accesses to it need not be looked at. To be
/// written to, it must be marked dirty.
pub(super) fn fill(
    cpu: &mut Cpu,
    memory: &Memory,
    translation: &walk::Translation,
    va: u64,
    offset: usize,
    view: View,
    write: bool,
) {
    let page = offset as u64 / PAGE_SIZE;
    // Translated code rests on it: a page in the TLB is a whole page of RAM.
    if cpu.watches_in_page(va) || page >= memory.size() / PAGE_SIZE {
        return;
    }
    let flags = memory.flags(offset);
    let has_poison = flags & page_flags::HAS_POISON != 0;
    let fill = Fill {
        va,
        page: page as u32,
        strict: translation.attributes.is_device() || cpu.sys.sctlr & SCTLR_A != 0,
        shift: translation.shift,
        global: translation.asid.is_none(),
    };
    if write {
        if flags & page_flags::HAS_CODE == 0 && !(has_poison && cpu.store_policy == StorePolicy::Abort) {
            cpu.tlb.fill_write(view, fill);
        }
    } else if has_poison {
        cpu.tlb.fill_looked_at(view, fill);
    } else {
        cpu.tlb.fill_read(view, fill);
    }
}
