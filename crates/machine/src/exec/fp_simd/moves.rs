//! Elements moved about.

use super::lanes::{LOW, element, splat, unzip, with_element};
use crate::cpu::Cpu;
use crate::decode::Insn;
use crate::decode::fp_simd::op::{MoveOp as M, Shape};

/// One instruction.
#[inline(never)]
pub(in super::super) fn moves(cpu: &mut Cpu, insn: &Insn, op: M) -> Option<()> {
    cpu.check_fp()?;
    let shape = insn.shape();
    let (d, n) = (cpu.vector(insn.rd), cpu.vector(insn.rn));
    let index = insn.imm as u32;
    let result = match op {
        M::Umov => {
            cpu.set_slot(insn.rd, element(n, shape.size, index));
            return Some(());
        }
        M::Smov => {
            let value = super::lanes::number(n, shape.size, index, false) as u64;
            cpu.set_slot(insn.rd, if shape.width == 3 { value } else { value & 0xffff_ffff });
            return Some(());
        }
        M::InsGeneral => {
            let value = cpu.slot(insn.rn);
            cpu.set_vector(insn.rd, with_element(d, shape.size, index, value));
            return Some(());
        }
        M::InsElement => {
            let value = element(n, shape.size, insn.ra.into());
            cpu.set_vector(insn.rd, with_element(d, shape.size, index, value));
            return Some(());
        }
        M::DupElement => splat(element(n, shape.size, index), shape.size),
        M::DupGeneral => splat(cpu.slot(insn.rn), shape.size),
        M::Movi => splat(insn.imm, 3),
        M::OrrImmediate => d | splat(insn.imm, 3),
        M::BicImmediate => d & !splat(insn.imm, 3),
        M::Ext => extract(shape, n, cpu.vector(insn.rm), index),
        M::Tbl => table(cpu, insn, 0),
        M::Tbx => table(cpu, insn, d),
        M::Uzp1 => unzip(shape, n, cpu.vector(insn.rm), false),
        M::Uzp2 => unzip(shape, n, cpu.vector(insn.rm), true),
        M::Trn1 => transpose(shape, n, cpu.vector(insn.rm), 0),
        M::Trn2 => transpose(shape, n, cpu.vector(insn.rm), 1),
        M::Zip1 => interleave(shape, n, cpu.vector(insn.rm), 0),
        M::Zip2 => interleave(shape, n, cpu.vector(insn.rm), shape.count() / 2),
    };
    cpu.set_vector(insn.rd, result & shape.mask());
    Some(())
}

/// Bytes of `high`:`low` from `position` on.
fn extract(shape: Shape, low: u128, high: u128, position: u32) -> u128 {
    let shift = 8 * position;
    if shape.width == 3 {
        return (low & LOW | high << 64) >> shift;
    }
    if shift == 0 { low } else { low >> shift | high << (128 - shift) }
}

/// TBL, TBX: bytes of `ra` registers by the indices in Vm; `other` where there is none.
fn table(cpu: &Cpu, insn: &Insn, other: u128) -> u128 {
    let indices = cpu.vector(insn.rm);
    (0..insn.shape().count()).fold(other, |result, i| {
        let index = element(indices, 0, i) as u8;
        if index >= insn.ra * 16 {
            return result;
        }
        let register = cpu.vector(insn.rn.wrapping_add(index / 16));
        with_element(result, 0, i, element(register, 0, u32::from(index % 16)))
    })
}

/// TRN1, TRN2: element `part` of each pair, of Vn and of Vm in turn.
fn transpose(shape: Shape, n: u128, m: u128, part: u32) -> u128 {
    (0..shape.count() / 2).fold(0, |result, i| {
        let from = 2 * i + part;
        let result = with_element(result, shape.size, 2 * i, element(n, shape.size, from));
        with_element(result, shape.size, 2 * i + 1, element(m, shape.size, from))
    })
}

/// ZIP1, ZIP2: elements from `start` on, of Vn and of Vm in turn.
fn interleave(shape: Shape, n: u128, m: u128, start: u32) -> u128 {
    (0..shape.count() / 2).fold(0, |result, i| {
        let from = start + i;
        let result = with_element(result, shape.size, 2 * i, element(n, shape.size, from));
        with_element(result, shape.size, 2 * i + 1, element(m, shape.size, from))
    })
}
