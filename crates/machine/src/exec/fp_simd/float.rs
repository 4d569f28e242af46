//! Floating-point: elements in and out of [`crate::float`].

use std::cmp::Ordering;

use super::lanes::{LOW, element, splat, unzip, with_element};
use crate::cpu::Cpu;
use crate::decode::Insn;
use crate::decode::fp_simd::op::{FloatOp as F, Shape, rounding};
use crate::float::{Env, Format, Integer, Rounding};

/// One instruction.
#[inline(never)]
pub(in super::super) fn float(cpu: &mut Cpu, insn: &Insn, op: F) -> Option<()> {
    cpu.check_fp()?;
    let shape = insn.shape();
    let format = Format::of_size(shape.size);
    let (d, n, m) = (cpu.vector(insn.rd), cpu.vector(insn.rn), cpu.vector(insn.rm));
    let sign = format.sign_bit();
    let env = &mut cpu.fp;
    let result = match op {
        F::Mla | F::Mls => {
            let m = operand(insn, shape, m);
            let flip = if op == F::Mls { sign } else { 0 };
            each(shape, |i| {
                let (a, x, y) =
                    (element(d, shape.size, i), element(n, shape.size, i), element(m, shape.size, i));
                env.mul_add(format, a, x ^ flip, y)
            })
        }
        F::Madd | F::Msub | F::Nmadd | F::Nmsub => {
            let negate_addend = matches!(op, F::Nmadd | F::Nmsub);
            let negate_product = matches!(op, F::Msub | F::Nmadd);
            let flip = |negate| if negate { sign } else { 0 };
            let a = element(cpu.v[insn.ra as usize & 31], shape.size, 0) ^ flip(negate_addend);
            let x = element(n, shape.size, 0) ^ flip(negate_product);
            u128::from(env.mul_add(format, a, x, element(m, shape.size, 0)))
        }
        F::Addp | F::Maxp | F::Minp | F::Maxnmp | F::Minnmp => {
            let (x, y) = (unzip(shape, n, m, false), unzip(shape, n, m, true));
            let op = match op {
                F::Addp => F::Add,
                F::Maxp => F::Max,
                F::Minp => F::Min,
                F::Maxnmp => F::Maxnm,
                other => {
                    debug_assert_eq!(other, F::Minnmp);
                    F::Minnm
                }
            };
            two(env, op, shape, x, y)
        }
        F::AddAcross | F::MaxAcross | F::MinAcross | F::MaxnmAcross | F::MinnmAcross => {
            across(env, op, shape, n)
        }
        F::Cmeq | F::Cmge | F::Cmgt | F::Acge | F::Acgt => masks(env, op, shape, n, m),
        F::CmeqZero | F::CmgeZero | F::CmgtZero => masks(env, without_zero(op), shape, n, 0),
        F::CmleZero | F::CmltZero => masks(env, without_zero(op), shape, 0, n),
        F::Cmp | F::Cmpe => {
            let m = if insn.ra == 1 { 0 } else { m };
            cpu.state.nzcv = flags(env, op == F::Cmpe, shape, n, m);
            return Some(());
        }
        F::Ccmp | F::Ccmpe => {
            let holds = insn.imm >> (cpu.state.nzcv & 15) & 1 == 1;
            cpu.state.nzcv = if holds { flags(env, op == F::Ccmpe, shape, n, m) } else { insn.rd };
            return Some(());
        }
        F::Csel => {
            let holds = insn.imm >> (cpu.state.nzcv & 15) & 1 == 1;
            if holds { n & shape.mask() } else { m & shape.mask() }
        }
        F::Abs => n & !splat(sign, shape.size) & shape.mask(),
        F::Neg => (n ^ splat(sign, shape.size)) & shape.mask(),
        F::Sqrt => one(shape, n, |x| env.sqrt(format, x)),
        F::Recpe => one(shape, n, |x| env.recip_estimate(format, x)),
        F::Rsqrte => one(shape, n, |x| env.rsqrt_estimate(format, x)),
        F::Recpx => one(shape, n, |x| env.recip_exponent(format, x)),
        F::Rint => {
            let rounding = named(insn.ra, env);
            one(shape, n, |x| env.round_to_integer(format, x, rounding, insn.imm == 1))
        }
        F::ToInteger => {
            let (to, rounding) = (integer(insn, shape.bits()), named(insn.ra, env));
            one(shape, n, |x| env.fp_to_fixed(format, x, to, rounding))
        }
        F::FromInteger => {
            let from = integer(insn, shape.bits());
            one(shape, n, |x| env.fixed_to_fp(format, x, from))
        }
        F::ToGeneral => {
            let (to, rounding) = (integer(insn, 8 << shape.width), named(insn.ra, env));
            let value = env.fp_to_fixed(format, element(n, shape.size, 0), to, rounding);
            cpu.set_slot(insn.rd, value);
            return Some(());
        }
        F::FromGeneral => {
            let from = integer(insn, 8 << shape.width);
            u128::from(env.fixed_to_fp(format, cpu.regs[insn.rn as usize & 63], from))
        }
        F::Convert => {
            let to = Format::of_size(insn.imm as u32);
            u128::from(env.convert(format, to, element(n, shape.size, 0)))
        }
        F::Cvtl => {
            let (to, source) = (Format::of_size(shape.size + 1), if shape.upper { n >> 64 } else { n });
            (0..shape.count()).fold(0, |result, i| {
                let value = env.convert(format, to, element(source, shape.size, i));
                with_element(result, shape.size + 1, i, value)
            })
        }
        F::Cvtn | F::Cvtxn => {
            let from = Format::of_size(shape.size + 1);
            let rounding = if op == F::Cvtxn { Rounding::Odd } else { env.rounding() };
            let narrow =
                each(shape, |i| env.convert_by(from, format, element(n, shape.size + 1, i), rounding));
            if shape.upper { d & LOW | narrow << 64 } else { narrow }
        }
        _ => two(env, op, shape, n, operand(insn, shape, m)),
    };
    cpu.set_vector(insn.rd, result);
    Some(())
}

/// Vm, or its element `imm` in every place.
fn operand(insn: &Insn, shape: Shape, m: u128) -> u128 {
    if shape.by_element { splat(element(m, shape.size, insn.imm as u32), shape.size) } else { m }
}

/// A value for each element, by its index.
#[inline]
fn each(shape: Shape, mut f: impl FnMut(u32) -> u64) -> u128 {
    (0..shape.count()).fold(0, |result, i| with_element(result, shape.size, i, f(i)))
}

#[inline]
fn one(shape: Shape, n: u128, mut f: impl FnMut(u64) -> u64) -> u128 {
    each(shape, |i| f(element(n, shape.size, i)))
}

/// The operations on two operands.
#[inline]
fn two(env: &mut Env, op: F, shape: Shape, n: u128, m: u128) -> u128 {
    let format = Format::of_size(shape.size);
    each(shape, |i| {
        let (x, y) = (element(n, shape.size, i), element(m, shape.size, i));
        binary(env, op, format, x, y)
    })
}

#[inline]
fn binary(env: &mut Env, op: F, format: Format, x: u64, y: u64) -> u64 {
    match op {
        F::Sub => env.sub(format, x, y),
        F::Mul => env.mul(format, x, y),
        F::Div => env.div(format, x, y),
        F::Nmul => env.mul(format, x, y) ^ format.sign_bit(),
        F::Max | F::MaxAcross => env.max_or_min(format, x, y, false),
        F::Min | F::MinAcross => env.max_or_min(format, x, y, true),
        F::Maxnm | F::MaxnmAcross => env.max_or_min_number(format, x, y, false),
        F::Minnm | F::MinnmAcross => env.max_or_min_number(format, x, y, true),
        F::Abd => env.sub(format, x, y) & !format.sign_bit(),
        F::Recps => env.recip_step(format, x, y),
        F::Rsqrts => env.rsqrt_step(format, x, y),
        F::Mulx => env.mulx(format, x, y),
        F::Add | F::AddAcross => env.add(format, x, y),
        other => {
            debug_assert!(false, "{other:?} is not of two operands");
            0
        }
    }
}

/// A reduction, in the order of `Reduce`: halves first.
fn across(env: &mut Env, op: F, shape: Shape, n: u128) -> u128 {
    let format = Format::of_size(shape.size);
    let at = |i| element(n, shape.size, i);
    let low = binary(env, op, format, at(0), at(1));
    if shape.count() < 4 {
        return low.into();
    }
    let high = binary(env, op, format, at(2), at(3));
    binary(env, op, format, low, high).into()
}

/// The comparison that one with zero is.
fn without_zero(op: F) -> F {
    match op {
        F::CmeqZero => F::Cmeq,
        F::CmgeZero | F::CmleZero => F::Cmge,
        other => {
            debug_assert!(matches!(other, F::CmgtZero | F::CmltZero), "{other:?} does not compare with zero");
            F::Cmgt
        }
    }
}

fn masks(env: &mut Env, op: F, shape: Shape, n: u128, m: u128) -> u128 {
    let format = Format::of_size(shape.size);
    let absolute = matches!(op, F::Acge | F::Acgt);
    let keep = if absolute { !format.sign_bit() } else { u64::MAX };
    each(shape, |i| {
        let (x, y) = (element(n, shape.size, i) & keep, element(m, shape.size, i) & keep);
        let ordering = env.compare(format, x, y, op != F::Cmeq);
        let holds = match op {
            F::Cmeq => ordering == Some(Ordering::Equal),
            F::Cmge | F::Acge => matches!(ordering, Some(Ordering::Equal | Ordering::Greater)),
            _ => ordering == Some(Ordering::Greater),
        };
        if holds { u64::MAX } else { 0 }
    })
}

/// NZCV of a comparison. Source: `FPCompare`.
fn flags(env: &mut Env, signals: bool, shape: Shape, n: u128, m: u128) -> u8 {
    let format = Format::of_size(shape.size);
    match env.compare(format, element(n, shape.size, 0), element(m, shape.size, 0), signals) {
        None => 0b0011,
        Some(Ordering::Equal) => 0b0110,
        Some(Ordering::Less) => 0b1000,
        Some(Ordering::Greater) => 0b0010,
    }
}

fn integer(insn: &Insn, bits: u32) -> Integer {
    Integer { bits, unsigned: insn.rm == 1, fraction: insn.imm as u32 }
}

fn named(number: u8, env: &Env) -> Rounding {
    match number {
        rounding::TIE_EVEN => Rounding::TieEven,
        rounding::UP => Rounding::Up,
        rounding::DOWN => Rounding::Down,
        rounding::ZERO => Rounding::Zero,
        rounding::TIE_AWAY => Rounding::TieAway,
        other => {
            debug_assert_eq!(other, rounding::CURRENT);
            env.rounding()
        }
    }
}
