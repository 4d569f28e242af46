//! Exclusives and the atomics of FEAT_LSE. All of them read, so all consume poison.
//!
//! On Device memory they are IMPLEMENTATION DEFINED (DDI 0487, B2.9.2 and C3.2.12). Here, as on QEMU, they work: an atomic
//! is a read and a write of the bus; a store-exclusive goes by the monitor alone.

use super::access::{Alignment, Place, Request, probe};
use super::base;
use crate::cpu::{Cpu, Monitor};
use crate::decode::{Insn, Rmw};
use crate::memory::Memory;

/// Translate for an atomic access to the `size` bytes at `va`.
fn place(cpu: &mut Cpu, memory: &mut Memory, va: u64, size: u64, write: bool) -> Option<Place> {
    let (view, alignment) = (cpu.view, Alignment::Atomic);
    probe(cpu, memory, &Request { va, size, element: size, write, view, alignment })
}

/// Translate for a read and then a write. A fault that a load would have taken too has WnR = 0,
/// one that only the store takes has WnR = 1.
fn place_rmw(cpu: &mut Cpu, memory: &mut Memory, va: u64, size: u64) -> Option<Place> {
    place(cpu, memory, va, size, false)?;
    place(cpu, memory, va, size, true)
}

fn mark(cpu: &mut Cpu, memory: &Memory, place: &Place, size: u64, value: u128) {
    cpu.monitor = Some(Monitor { pa: place.pa(memory), size, value });
}

/// LDXR, LDAXR and their narrow forms.
#[inline(never)]
pub(super) fn load_exclusive(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let size = 1 << insn.x;
    let va = base(cpu, insn)?;
    let place = place(cpu, memory, va, size, false)?;
    let value = place.read(cpu, memory)?;
    mark(cpu, memory, &place, size, value);
    cpu.set_slot(insn.rd, value as u64);
    Some(())
}

/// LDXP, LDAXP.
#[inline(never)]
pub(super) fn load_exclusive_pair(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let element = 1 << insn.x;
    let va = base(cpu, insn)?;
    let place = place(cpu, memory, va, 2 * element, false)?;
    let value = place.read(cpu, memory)?;
    mark(cpu, memory, &place, 2 * element, value);
    let (low, high) = halves(value, element);
    cpu.set_slot(insn.rd, low);
    cpu.set_slot(insn.ra, high);
    Some(())
}

/// STXR, STLXR and their narrow forms.
#[inline(never)]
pub(super) fn store_exclusive(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let size = 1 << insn.x;
    let value = low_bytes(u128::from(cpu.slot(insn.rd)), size);
    store_if_marked(cpu, memory, insn, size, value)
}

/// STXP, STLXP.
#[inline(never)]
pub(super) fn store_exclusive_pair(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let element = 1 << insn.x;
    let value = pair(cpu.slot(insn.rd), cpu.slot(insn.ra), element);
    store_if_marked(cpu, memory, insn, 2 * element, value)
}

fn store_if_marked(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, size: u64, value: u128) -> Option<()> {
    let va = base(cpu, insn)?;
    let place = place(cpu, memory, va, size, true)?;
    let mark = cpu.monitor.filter(|monitor| monitor.pa == place.pa(memory) && monitor.size == size);
    // A device is not read to see what is there.
    let passes = match mark {
        Some(monitor) => !place.is_in_ram() || place.read(cpu, memory)? == monitor.value,
        None => false,
    };
    if passes {
        place.write(cpu, memory, value)?;
    }
    cpu.monitor = None;
    cpu.set_slot(insn.rm, u64::from(!passes));
    Some(())
}

/// CAS and its ordered and narrow forms.
#[inline(never)]
pub(super) fn compare_and_swap(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let size = 1 << insn.x;
    let va = base(cpu, insn)?;
    let place = place_rmw(cpu, memory, va, size)?;
    let old = place.read(cpu, memory)?;
    if old == low_bytes(u128::from(cpu.slot(insn.rm)), size) {
        place.write(cpu, memory, low_bytes(u128::from(cpu.slot(insn.rd)), size))?;
    }
    cpu.set_slot(crate::decode::insn::dest(insn.rm), old as u64);
    Some(())
}

/// CASP: pairs of consecutive registers.
#[inline(never)]
pub(super) fn compare_and_swap_pair(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let element = 1 << insn.x;
    let va = base(cpu, insn)?;
    let place = place_rmw(cpu, memory, va, 2 * element)?;
    let old = place.read(cpu, memory)?;
    let expected = pair(cpu.slot(insn.rm), cpu.slot(insn.rm + 1), element);
    if old == expected {
        let new = pair(cpu.slot(insn.rd), cpu.slot(insn.rd + 1), element);
        place.write(cpu, memory, new)?;
    }
    let (low, high) = halves(old, element);
    cpu.set_slot(insn.rm, low);
    cpu.set_slot(crate::decode::insn::dest(insn.rm + 1), high);
    Some(())
}

/// LDADD, LDCLR, LDEOR, LDSET, LDSMAX, LDSMIN, LDUMAX, LDUMIN, SWP and their STxxx aliases.
#[inline(never)]
pub(super) fn read_modify_write(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn) -> Option<()> {
    let size = 1 << insn.x;
    let va = base(cpu, insn)?;
    let place = place_rmw(cpu, memory, va, size)?;
    let old = place.read(cpu, memory)? as u64;
    let operand = low_bytes(u128::from(cpu.slot(insn.rm)), size) as u64;
    // Signed comparison of narrow values: bring the sign to the top.
    let shift = 64 - 8 * size as u32;
    let signed = |value: u64| (value << shift) as i64;
    let operation = Rmw::from_bits(u32::from(insn.ra));
    debug_assert!(operation.is_some(), "the decoder gives an operation, got {}", insn.ra);
    let operation = operation.unwrap_or(Rmw::Swap);
    let first_if = |is_first| if is_first { old } else { operand };
    let new = match operation {
        Rmw::Add => old.wrapping_add(operand),
        Rmw::Clear => old & !operand,
        Rmw::Xor => old ^ operand,
        Rmw::Set => old | operand,
        Rmw::SignedMax => first_if(signed(old) >= signed(operand)),
        Rmw::SignedMin => first_if(signed(old) <= signed(operand)),
        Rmw::UnsignedMax => first_if(old >= operand),
        Rmw::UnsignedMin => first_if(old <= operand),
        Rmw::Swap => operand,
    };
    place.write(cpu, memory, u128::from(new))?;
    cpu.set_slot(insn.rd, old);
    Some(())
}

/// The low `size` bytes of a value.
fn low_bytes(value: u128, size: u64) -> u128 {
    value & (u128::MAX >> (128 - 8 * size))
}

/// Two registers as memory holds them: the first at the lower address.
fn pair(low: u64, high: u64, element: u64) -> u128 {
    let bits = 8 * element as u32;
    low_bytes(u128::from(low), element) | low_bytes(u128::from(high), element) << bits
}

fn halves(value: u128, element: u64) -> (u64, u64) {
    (low_bytes(value, element) as u64, (value >> (8 * element)) as u64)
}
