//! Integer AdvSIMD: the table of operations, and those on operands of one shape.

use super::lanes::Lane as _;
use super::lanes::{element, map, map_by_size, numbers, splat, unzip, zip, zip_by_size};
use super::saturating::{Saturation, accumulate};
use super::{across, long, narrow, shift};
use crate::cpu::Cpu;
use crate::decode::Insn;
use crate::decode::fp_simd::op::{Shape, VectorOp as V};
use crate::float::{unsigned_recip, unsigned_recip_sqrt};

/// What an operation works on. Registers are cut to the shape where elements outside it could count.
pub(super) struct Operands {
    pub(super) shape: Shape,
    /// The destination before.
    pub(super) d: u128,
    /// Vn and Vm, all bits.
    pub(super) n: u128,
    pub(super) m: u128,
    /// The immediate.
    pub(super) imm: u32,
}

impl Operands {
    fn new(cpu: &Cpu, insn: &Insn) -> Self {
        let shape = insn.shape();
        let imm = insn.imm as u32;
        let m = cpu.vector(insn.rm);
        let m = if shape.by_element { splat(element(m, shape.size, imm), shape.size) } else { m };
        Self { shape, d: cpu.vector(insn.rd), n: cpu.vector(insn.rn), m, imm }
    }
}

/// One instruction.
#[inline(never)]
pub(in super::super) fn vector(cpu: &mut Cpu, insn: &Insn, op: V) -> Option<()> {
    cpu.check_fp()?;
    let operands = Operands::new(cpu, insn);
    let mut saturation = Saturation::default();
    let result = execute(op, &operands, &mut saturation);
    saturation.note(cpu);
    cpu.set_vector(insn.rd, result);
    Some(())
}

/// The destination after an operation.
fn execute(op: V, operands: &Operands, saturation: &mut Saturation) -> u128 {
    let &Operands { shape, d, n, m, imm } = operands;
    let mask = shape.mask();
    let (size, bits) = (shape.size, shape.bits());
    let (a, b) = (n & mask, m & mask);
    let result = match op {
        V::And => a & b,
        V::Bic => a & !b,
        V::Orr => a | b,
        V::Orn => a | !b,
        V::Eor => a ^ b,
        V::Bsl => d & a | !d & b,
        V::Bit => d & !b | a & b,
        V::Bif => d & b | a & !b,

        V::Add => zip_by_size!(u, size, a, b, |x, y| x.wrapping_add(y)),
        V::Sub => zip_by_size!(u, size, a, b, |x, y| x.wrapping_sub(y)),
        V::Mul => multiply(size, a, b),
        V::Mla => zip_by_size!(u, size, d, multiply(size, a, b), |x, y| x.wrapping_add(y)),
        V::Mls => zip_by_size!(u, size, d, multiply(size, a, b), |x, y| x.wrapping_sub(y)),
        V::Pmul => zip::<u8>(a, b, |x, y| long::carryless(x.into(), y.into()) as u8),
        V::Shadd => numbers(shape, false, [a, b], |x, y| (x + y) >> 1),
        V::Uhadd => numbers(shape, true, [a, b], |x, y| (x + y) >> 1),
        V::Srhadd => numbers(shape, false, [a, b], |x, y| (x + y + 1) >> 1),
        V::Urhadd => numbers(shape, true, [a, b], |x, y| (x + y + 1) >> 1),
        V::Shsub => numbers(shape, false, [a, b], |x, y| (x - y) >> 1),
        V::Uhsub => numbers(shape, true, [a, b], |x, y| (x - y) >> 1),
        V::Sqadd => numbers(shape, false, [a, b], |x, y| saturation.to(x + y, bits, false)),
        V::Uqadd => numbers(shape, true, [a, b], |x, y| saturation.to(x + y, bits, true)),
        V::Sqsub => numbers(shape, false, [a, b], |x, y| saturation.to(x - y, bits, false)),
        V::Uqsub => numbers(shape, true, [a, b], |x, y| saturation.to(x - y, bits, true)),
        V::Cmgt => greater(size, a, b),
        V::Cmhi => zip_by_size!(u, size, a, b, |x, y| <_>::all_or_none(x > y)),
        V::Cmge => greater_or_equal(size, a, b),
        V::Cmhs => zip_by_size!(u, size, a, b, |x, y| <_>::all_or_none(x >= y)),
        V::Cmtst => zip_by_size!(u, size, a, b, |x, y| <_>::all_or_none(x & y != 0)),
        V::Cmeq => equal(size, a, b),
        V::Sshl | V::Ushl | V::Sqshl | V::Uqshl | V::Srshl | V::Urshl | V::Sqrshl | V::Uqrshl => {
            shift::by_register(op, shape, a, b, saturation)
        }
        V::Smax => zip_by_size!(s, size, a, b, |x, y| x.max(y)),
        V::Umax => zip_by_size!(u, size, a, b, |x, y| x.max(y)),
        V::Smin => zip_by_size!(s, size, a, b, |x, y| x.min(y)),
        V::Umin => zip_by_size!(u, size, a, b, |x, y| x.min(y)),
        V::Sabd => zip_by_size!(s, size, a, b, |x, y| x.abs_diff(y) as _),
        V::Uabd => zip_by_size!(u, size, a, b, |x, y| x.abs_diff(y)),
        V::Saba => {
            let difference = zip_by_size!(s, size, a, b, |x, y| x.abs_diff(y) as _);
            zip_by_size!(u, size, d, difference, |x, y| x.wrapping_add(y))
        }
        V::Uaba => {
            let difference = zip_by_size!(u, size, a, b, |x, y| x.abs_diff(y));
            zip_by_size!(u, size, d, difference, |x, y| x.wrapping_add(y))
        }
        V::Sqdmulh => numbers(shape, false, [a, b], |x, y| saturation.to((2 * x * y) >> bits, bits, false)),
        V::Sqrdmulh => numbers(shape, false, [a, b], |x, y| {
            saturation.to((2 * x * y + (1 << (bits - 1))) >> bits, bits, false)
        }),
        V::Addp | V::Smaxp | V::Umaxp | V::Sminp | V::Uminp => pairwise(op, shape, a, b),

        V::Rev16 => map::<u16>(a, u16::swap_bytes),
        V::Rev32 => reverse(size, map::<u32>(a, u32::swap_bytes)),
        V::Rev64 => reverse(size, map::<u64>(a, u64::swap_bytes)),
        V::Suqadd => accumulate(shape, d, a, false, saturation),
        V::Usqadd => accumulate(shape, d, a, true, saturation),
        V::Cls => map_by_size!(s, size, a, |x| ((x ^ x >> 1).leading_zeros() as u8 - 1) as _),
        V::Clz => map_by_size!(u, size, a, |x| x.leading_zeros() as _),
        V::Cnt => map::<u8>(a, |x| x.count_ones() as u8),
        V::Not => !a,
        V::Rbit => map::<u8>(a, u8::reverse_bits),
        V::Sqabs => numbers(shape, false, [a, a], |x, _| saturation.to(x.abs(), bits, false)),
        V::Sqneg => numbers(shape, false, [a, a], |x, _| saturation.to(-x, bits, false)),
        V::Abs => map_by_size!(s, size, a, |x| x.wrapping_abs()),
        V::Neg => map_by_size!(u, size, a, |x| x.wrapping_neg()),
        V::CmgtZero => greater(size, a, 0),
        V::CmgeZero => greater_or_equal(size, a, 0),
        V::CmeqZero => equal(size, a, 0),
        V::CmleZero => greater_or_equal(size, 0, a),
        V::CmltZero => greater(size, 0, a),
        V::Urecpe => map::<u32>(a, unsigned_recip),
        V::Ursqrte => map::<u32>(a, unsigned_recip_sqrt),

        V::AddpScalar | V::Addv | V::Saddlv | V::Uaddlv | V::Smaxv | V::Umaxv | V::Sminv | V::Uminv => {
            return across::reduce(op, shape, n);
        }
        V::Saddlp | V::Uaddlp | V::Sadalp | V::Uadalp => across::add_neighbours(op, shape, d, a),

        V::Sshr => map_by_size!(s, size, a, |x| x >> imm.min(bits - 1)),
        V::Ushr => map_by_size!(u, size, a, |x| x.checked_shr(imm).unwrap_or(0)),
        V::Shl => map_by_size!(u, size, a, |x| x << (imm & (bits - 1))),
        V::Ssra
        | V::Usra
        | V::Srshr
        | V::Urshr
        | V::Srsra
        | V::Ursra
        | V::Sri
        | V::Sli
        | V::Sqshlu
        | V::SqshlImm
        | V::UqshlImm => shift::by_immediate(op, shape, [d, a], imm, saturation),

        V::Xtn
        | V::Sqxtn
        | V::Uqxtn
        | V::Sqxtun
        | V::Shrn
        | V::Rshrn
        | V::Sqshrn
        | V::Sqrshrn
        | V::Uqshrn
        | V::Uqrshrn
        | V::Sqshrun
        | V::Sqrshrun
        | V::Addhn
        | V::Raddhn
        | V::Subhn
        | V::Rsubhn => return narrow::narrow(op, operands, saturation),

        V::Saddl
        | V::Uaddl
        | V::Saddw
        | V::Uaddw
        | V::Ssubl
        | V::Usubl
        | V::Ssubw
        | V::Usubw
        | V::Sabal
        | V::Uabal
        | V::Sabdl
        | V::Uabdl
        | V::Smlal
        | V::Umlal
        | V::Smlsl
        | V::Umlsl
        | V::Smull
        | V::Umull
        | V::Sqdmlal
        | V::Sqdmlsl
        | V::Sqdmull
        | V::Pmull
        | V::Shll
        | V::Sshll
        | V::Ushll => return long::long(op, operands, saturation),
    };
    result & mask
}

fn multiply(size: u32, a: u128, b: u128) -> u128 {
    zip_by_size!(u, size, a, b, |x, y| x.wrapping_mul(y))
}

fn equal(size: u32, a: u128, b: u128) -> u128 {
    zip_by_size!(u, size, a, b, |x, y| <_>::all_or_none(x == y))
}

fn greater(size: u32, a: u128, b: u128) -> u128 {
    zip_by_size!(s, size, a, b, |x, y| <_>::all_or_none(x > y))
}

fn greater_or_equal(size: u32, a: u128, b: u128) -> u128 {
    zip_by_size!(s, size, a, b, |x, y| <_>::all_or_none(x >= y))
}

/// The bytes of each element turned round.
fn reverse(size: u32, a: u128) -> u128 {
    map_by_size!(u, size, a, |x| x.swap_bytes())
}

/// An operation on neighbours: of `a`, then of `b`.
fn pairwise(op: V, shape: Shape, a: u128, b: u128) -> u128 {
    let (x, y) = (unzip(shape, a, b, false), unzip(shape, a, b, true));
    let size = shape.size;
    match op {
        V::Smaxp => zip_by_size!(s, size, x, y, |x, y| x.max(y)),
        V::Umaxp => zip_by_size!(u, size, x, y, |x, y| x.max(y)),
        V::Sminp => zip_by_size!(s, size, x, y, |x, y| x.min(y)),
        V::Uminp => zip_by_size!(u, size, x, y, |x, y| x.min(y)),
        other => {
            debug_assert_eq!(other, V::Addp);
            zip_by_size!(u, size, x, y, |x, y| x.wrapping_add(y))
        }
    }
}
