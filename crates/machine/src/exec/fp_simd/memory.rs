//! Loads and stores of the FP and AdvSIMD registers. They consume poison, fault and find holes as the integer
//! ones do: by [`probe`], access by access; structures element by element. All of an instruction is
//! translated before anything of it changes.

// The hit path of the common forms.
#![allow(clippy::inline_always)]

use super::super::access::{Alignment, Place, Request, load, load_pair, probe, store};
use super::super::base;
use super::lanes::{LOW, element, splat, with_element};
use crate::cpu::Cpu;
use crate::decode::Insn;
use crate::decode::fp_simd::memory::writeback;
use crate::decode::fp_simd::op::{Structures, VectorAccess};
use crate::memory::Memory;

/// One instruction, at `pc`.
#[inline(never)]
pub(in super::super) fn access(
    cpu: &mut Cpu,
    memory: &mut Memory,
    insn: &Insn,
    op: VectorAccess,
    pc: u64,
) -> Option<()> {
    cpu.check_fp()?;
    let size = u32::from(insn.x & 0xff);
    match op {
        VectorAccess::Load | VectorAccess::Store => {
            let (base, va) = addresses(cpu, insn)?;
            if op == VectorAccess::Load {
                let value = load_one(cpu, memory, va, size)?;
                cpu.set_vector(insn.rd, value);
            } else {
                store_one(cpu, memory, va, size, cpu.vector(insn.rd))?;
            }
            change_base(cpu, insn, base);
            Some(())
        }
        VectorAccess::LoadIndexed => {
            let va = indexed_address(cpu, insn)?;
            let value = load_one(cpu, memory, va, size)?;
            cpu.set_vector(insn.rd, value);
            Some(())
        }
        VectorAccess::StoreIndexed => {
            let va = indexed_address(cpu, insn)?;
            store_one(cpu, memory, va, size, cpu.vector(insn.rd))
        }
        VectorAccess::LoadLiteral => {
            let value = load_one(cpu, memory, pc.wrapping_add(insn.imm), size)?;
            cpu.set_vector(insn.rd, value);
            Some(())
        }
        VectorAccess::LoadPair => load_two(cpu, memory, insn, size),
        VectorAccess::StorePair => store_two(cpu, memory, insn, size),
        VectorAccess::LoadMultiple | VectorAccess::StoreMultiple => multiple(cpu, memory, insn, op),
        VectorAccess::LoadElement | VectorAccess::StoreElement | VectorAccess::LoadReplicate => {
            one_element(cpu, memory, insn, op)
        }
    }
}

/// The base, and the address of the access.
#[inline(always)]
fn addresses(cpu: &mut Cpu, insn: &Insn) -> Option<(u64, u64)> {
    let base = base(cpu, insn)?;
    Some((base, base.wrapping_add(insn.imm as u32 as i32 as u64)))
}

/// Writeback, by 0 if there is none.
#[inline(always)]
fn change_base(cpu: &mut Cpu, insn: &Insn, base: u64) {
    cpu.set_slot(insn.rn, base.wrapping_add((insn.imm as i64 >> 32) as u64));
}

fn indexed_address(cpu: &mut Cpu, insn: &Insn) -> Option<u64> {
    let low = cpu.slot(insn.rm) & insn.imm;
    let sign = u64::from(insn.ra & 1) << 31;
    let offset = (low ^ sign).wrapping_sub(sign) << (insn.x >> 8);
    Some(base(cpu, insn)?.wrapping_add(offset))
}

#[inline(always)]
fn load_one(cpu: &mut Cpu, memory: &mut Memory, va: u64, size: u32) -> Option<u128> {
    Some(match size {
        0 => u8::from_le_bytes(load(cpu, memory, va)?).into(),
        1 => u16::from_le_bytes(load(cpu, memory, va)?).into(),
        2 => u32::from_le_bytes(load(cpu, memory, va)?).into(),
        3 => u64::from_le_bytes(load(cpu, memory, va)?).into(),
        _ => u128::from_le_bytes(load(cpu, memory, va)?),
    })
}

#[inline(always)]
fn store_one(cpu: &mut Cpu, memory: &mut Memory, va: u64, size: u32, value: u128) -> Option<()> {
    match size {
        0 => store(cpu, memory, va, (value as u8).to_le_bytes(), 1),
        1 => store(cpu, memory, va, (value as u16).to_le_bytes(), 2),
        2 => store(cpu, memory, va, (value as u32).to_le_bytes(), 4),
        3 => store(cpu, memory, va, (value as u64).to_le_bytes(), 8),
        _ => store(cpu, memory, va, value.to_le_bytes(), 16),
    }
}

fn load_two(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, size: u32) -> Option<()> {
    let (base, va) = addresses(cpu, insn)?;
    let (first, second) = match size {
        2 => {
            let both = u64::from_le_bytes(load_pair(cpu, memory, va)?);
            (u128::from(both as u32), u128::from(both >> 32))
        }
        3 => {
            let both = u128::from_le_bytes(load_pair(cpu, memory, va)?);
            (both & LOW, both >> 64)
        }
        _ => {
            let first = u128::from_le_bytes(load(cpu, memory, va)?);
            (first, u128::from_le_bytes(load(cpu, memory, va.wrapping_add(16))?))
        }
    };
    cpu.set_vector(insn.rd, first);
    cpu.set_vector(insn.ra, second);
    change_base(cpu, insn, base);
    Some(())
}

fn store_two(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, size: u32) -> Option<()> {
    let (base, va) = addresses(cpu, insn)?;
    let (first, second) = (cpu.vector(insn.rd), cpu.vector(insn.ra));
    match size {
        2 => {
            let both = u64::from(first as u32) | u64::from(second as u32) << 32;
            store(cpu, memory, va, both.to_le_bytes(), 4)?;
        }
        3 => store(cpu, memory, va, (first & LOW | second << 64).to_le_bytes(), 8)?,
        _ => store_quads(cpu, memory, va, first, second)?,
    }
    change_base(cpu, insn, base);
    Some(())
}

/// STP of Q registers: 32 bytes at once if they are in the TLB, else both probed before either is written.
fn store_quads(cpu: &mut Cpu, memory: &mut Memory, va: u64, first: u128, second: u128) -> Option<()> {
    let entry = cpu.tlb.write[cpu.view as usize & 3].entry(va);
    if entry.covers(va, 32) {
        let offset = entry.offset(va);
        memory.write(offset, first.to_le_bytes())?;
        return memory.write(offset + 16, second.to_le_bytes());
    }
    let low = probe(cpu, memory, &request(cpu, va, 16, true))?;
    let high = probe(cpu, memory, &request(cpu, va.wrapping_add(16), 16, true))?;
    low.write(cpu, memory, first)?;
    high.write(cpu, memory, second)
}

fn request(cpu: &Cpu, va: u64, size: u64, write: bool) -> Request {
    Request { va, size, element: size, write, view: cpu.view, alignment: Alignment::Plain }
}

/// The most bytes and the most elements of one instruction.
const MOST: usize = 64;

/// `count` elements of 2^`size` bytes, from `va` on, read into the first bytes.
fn load_elements(cpu: &mut Cpu, memory: &mut Memory, va: u64, size: u32, count: u32) -> Option<[u8; MOST]> {
    let mut bytes = [0; MOST];
    let total = (count << size) as usize;
    let entry = cpu.tlb.read[cpu.view as usize & 3].entry(va);
    if entry.covers(va, total as u64) {
        let offset = entry.offset(va);
        if let (Some(to), Some(from)) = (bytes.get_mut(..total), memory.ram().get(offset..offset + total)) {
            to.copy_from_slice(from);
            return Some(bytes);
        }
    }
    for (i, to) in bytes.chunks_exact_mut(1 << size).take(count as usize).enumerate() {
        let place = probe(cpu, memory, &request(cpu, va.wrapping_add((i as u64) << size), 1 << size, false))?;
        for (to, from) in to.iter_mut().zip(place.read(cpu, memory)?.to_le_bytes()) {
            *to = from;
        }
    }
    Some(bytes)
}

/// The other way.
fn store_elements(
    cpu: &mut Cpu,
    memory: &mut Memory,
    va: u64,
    size: u32,
    count: u32,
    bytes: &[u8; MOST],
) -> Option<()> {
    let total = (count << size) as usize;
    let entry = cpu.tlb.write[cpu.view as usize & 3].entry(va);
    if entry.covers(va, total as u64) {
        let offset = entry.offset(va);
        for (i, chunk) in bytes.get(..total)?.chunks(8).enumerate() {
            let offset = offset + 8 * i;
            if let Some(doubleword) = chunk.first_chunk::<8>() {
                memory.write(offset, *doubleword)?;
                continue;
            }
            for (i, byte) in chunk.iter().enumerate() {
                memory.write(offset + i, [*byte])?;
            }
        }
        return Some(());
    }
    let mut places: [Option<Place>; MOST] = [None; MOST];
    for (i, place) in places.iter_mut().take(count as usize).enumerate() {
        *place =
            Some(probe(cpu, memory, &request(cpu, va.wrapping_add((i as u64) << size), 1 << size, true))?);
    }
    // 64 bytes are in two lines at most: the CPU's notes of written code keep the first and the last element.
    for (place, from) in places.iter().flatten().zip(bytes.chunks_exact(1 << size)) {
        let value = from.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte));
        place.write(cpu, memory, value)?;
    }
    Some(())
}

/// The base moves on by the bytes accessed, or by Rm.
fn post_index(cpu: &mut Cpu, insn: &Insn, base: u64) {
    let change = match insn.ra {
        writeback::IMMEDIATE => insn.imm & 0xffff_ffff,
        writeback::REGISTER => cpu.slot(insn.rm),
        none => {
            debug_assert_eq!(none, writeback::NONE);
            return;
        }
    };
    cpu.set_slot(insn.rn, base.wrapping_add(change));
}

/// The bytes of an element.
fn of_bytes(bytes: &[u8; MOST], size: u32, i: u32) -> u64 {
    let start = (i << size) as usize;
    let slice = bytes.get(start..start + (1 << size)).unwrap_or_default();
    slice.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// LD1 to LD4, ST1 to ST4 of whole registers.
fn multiple(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, op: VectorAccess) -> Option<()> {
    let Structures { size, quad, repeat, elements } = Structures::unpack(insn.x);
    let va = base(cpu, insn)?;
    let in_register = (8 << u32::from(quad)) >> size;
    let count = repeat * elements * in_register;
    // Where element `i` in memory goes: its register's number from Rt on, and its index there.
    let position = |i: u32| {
        let (structure, member) = (i / elements, i % elements);
        (insn.rd.wrapping_add((structure / in_register + member) as u8) & 31, structure % in_register)
    };
    if op == VectorAccess::LoadMultiple {
        let bytes = load_elements(cpu, memory, va, size, count)?;
        for i in 0..count {
            let (register, index) = position(i);
            let old = if index == 0 { 0 } else { cpu.vector(register) };
            cpu.set_vector(register, with_element(old, size, index, of_bytes(&bytes, size, i)));
        }
    } else {
        let mut bytes = [0; MOST];
        for (i, to) in bytes.chunks_exact_mut(1 << size).take(count as usize).enumerate() {
            let (register, index) = position(i as u32);
            let value = element(cpu.vector(register), size, index);
            for (to, from) in to.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        }
        store_elements(cpu, memory, va, size, count, &bytes)?;
    }
    post_index(cpu, insn, va);
    Some(())
}

/// LD1 to LD4, ST1 to ST4 of one element, and LD1R to LD4R.
fn one_element(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, op: VectorAccess) -> Option<()> {
    let Structures { size, quad, elements, .. } = Structures::unpack(insn.x);
    let va = base(cpu, insn)?;
    let index = (insn.imm >> 32) as u32;
    let register = |i: u32| insn.rd.wrapping_add(i as u8) & 31;
    if op == VectorAccess::StoreElement {
        let mut bytes = [0; MOST];
        for (i, to) in bytes.chunks_exact_mut(1 << size).take(elements as usize).enumerate() {
            let value = element(cpu.vector(register(i as u32)), size, index);
            for (to, from) in to.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        }
        store_elements(cpu, memory, va, size, elements, &bytes)?;
    } else {
        let bytes = load_elements(cpu, memory, va, size, elements)?;
        for i in 0..elements {
            let value = of_bytes(&bytes, size, i);
            let new = if op == VectorAccess::LoadElement {
                with_element(cpu.vector(register(i)), size, index, value)
            } else {
                splat(value, size) & if quad { u128::MAX } else { LOW }
            };
            cpu.set_vector(register(i), new);
        }
    }
    post_index(cpu, insn, va);
    Some(())
}
