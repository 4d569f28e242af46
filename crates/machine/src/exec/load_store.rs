//! Loads and stores of general registers: one, by the table, or two.

use super::access::{base, load_hit, load_pair_slow, load_slow, store_hit, store_slow};
use crate::cpu::Cpu;
use crate::decode::meaning::Mode;
use crate::decode::{Insn, Kind};
use crate::memory::Memory;

/// What came of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It completed by the TLB.
    Hit,
    /// It completed the slow way, and may have called for attention.
    Slow,
    /// It did not complete: see the CPU's trap.
    Trap,
}

/// A load or store of one register. `kind` and `mode` are constants where this is inlined.
#[inline(always)]
pub(super) fn one(
    cpu: &mut Cpu,
    memory: &mut Memory,
    insn: &Insn,
    kind: Kind,
    mode: Mode,
    pc: impl FnOnce() -> u64,
) -> Done {
    match kind.size() {
        0 => one_of::<1>(cpu, memory, insn, kind, mode, pc),
        1 => one_of::<2>(cpu, memory, insn, kind, mode, pc),
        2 => one_of::<4>(cpu, memory, insn, kind, mode, pc),
        _ => one_of::<8>(cpu, memory, insn, kind, mode, pc),
    }
}

#[inline(always)]
fn one_of<const N: usize>(
    cpu: &mut Cpu,
    memory: &mut Memory,
    insn: &Insn,
    kind: Kind,
    mode: Mode,
    pc: impl FnOnce() -> u64,
) -> Done {
    let base = match mode {
        Mode::Literal => pc(),
        _ => match base(cpu, insn) {
            Some(base) => base,
            None => return Done::Trap,
        },
    };
    let va = base.wrapping_add(match mode {
        Mode::Offset | Mode::Literal => insn.imm,
        Mode::Register => {
            let low = cpu.slot(insn.rm) & insn.imm;
            let sign = u64::from(insn.ra & 1) << 31;
            (low ^ sign).wrapping_sub(sign) << (insn.x & 63)
        }
        Mode::Writeback => first_offset(insn),
    });
    let mut done = Done::Hit;
    if kind.is_store() {
        let Some(bytes) = cpu.slot(insn.rd).to_le_bytes().first_chunk::<N>().copied() else {
            return Done::Trap;
        };
        if store_hit(cpu, memory, va, bytes).is_none() {
            if store_slow(cpu, memory, va, bytes, N as u64).is_none() {
                return Done::Trap;
            }
            done = Done::Slow;
        }
        if mode == Mode::Writeback {
            cpu.set_slot(insn.rn, base.wrapping_add(change(insn)));
        }
        return done;
    }
    let bytes: [u8; N] = match load_hit(cpu, memory, va) {
        Some(bytes) => bytes,
        None => match load_slow(cpu, memory, va) {
            Some(bytes) => {
                done = Done::Slow;
                bytes
            }
            None => return Done::Trap,
        },
    };
    // A loaded register that is the base as well has what was loaded.
    if mode == Mode::Writeback {
        cpu.set_slot(insn.rn, base.wrapping_add(change(insn)));
    }
    let mut wide = [0; 8];
    if let Some(low) = wide.first_chunk_mut::<N>() {
        *low = bytes;
    }
    cpu.set_slot(insn.rd, kind.extend(u64::from_le_bytes(wide)));
    done
}

/// Offset of the access, of an instruction with writeback.
#[inline(always)]
fn first_offset(insn: &Insn) -> u64 {
    insn.imm as u32 as i32 as u64
}

/// Change of its base.
#[inline(always)]
fn change(insn: &Insn) -> u64 {
    (insn.imm as i64 >> 32) as u64
}

/// `N` bytes from registers of `element` bytes.
#[inline(always)]
pub(super) fn store_two<const N: usize>(
    cpu: &mut Cpu,
    memory: &mut Memory,
    insn: &Insn,
    element: u32,
) -> Done {
    let Some(base) = base(cpu, insn) else { return Done::Trap };
    let va = base.wrapping_add(first_offset(insn));
    let mask = u64::MAX >> (64 - 8 * element);
    let both = u128::from(cpu.slot(insn.rd) & mask) | u128::from(cpu.slot(insn.ra) & mask) << (8 * element);
    let Some(bytes) = both.to_le_bytes().first_chunk::<N>().copied() else { return Done::Trap };
    let mut done = Done::Hit;
    if store_hit(cpu, memory, va, bytes).is_none() {
        if store_slow(cpu, memory, va, bytes, element.into()).is_none() {
            return Done::Trap;
        }
        done = Done::Slow;
    }
    cpu.set_slot(insn.rn, base.wrapping_add(change(insn)));
    done
}

/// `N` bytes to two registers, each as `kind` has it.
#[inline(always)]
pub(super) fn load_two<const N: usize>(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, kind: Kind) -> Done {
    let Some(base) = base(cpu, insn) else { return Done::Trap };
    let va = base.wrapping_add(first_offset(insn));
    let mut done = Done::Hit;
    let bytes: [u8; N] = match load_hit(cpu, memory, va) {
        Some(bytes) => bytes,
        None => match load_pair_slow(cpu, memory, va) {
            Some(bytes) => {
                done = Done::Slow;
                bytes
            }
            None => return Done::Trap,
        },
    };
    let mut wide = [0; 16];
    if let Some(low) = wide.first_chunk_mut::<N>() {
        *low = bytes;
    }
    let both = u128::from_le_bytes(wide);
    cpu.set_slot(insn.rn, base.wrapping_add(change(insn)));
    cpu.set_slot(insn.rd, kind.extend(both as u64));
    cpu.set_slot(insn.ra, kind.extend((both >> (4 * N)) as u64));
    done
}
