//! The interpreter: runs decoded instructions of one page until something else must be done.
//!
//! `cpu.pc` and `cpu.steps` are up to date only when [`run_page`] is not running; instructions that
//! need them go through functions that are given them.

// The hit path of a load or store must be in the loop itself: that is what makes it fast.
#![allow(clippy::inline_always)]

pub(crate) mod access;
mod alu;
mod atomic;
mod fp_simd;
mod page;
pub(crate) mod system;

use std::slice::Iter;

use seawall_arm::ExceptionClass;

use crate::cpu::Cpu;
use crate::decode::{Insn, Op};
use crate::icache::{ICache, INSNS_PER_PAGE};
use crate::memory::Memory;
use crate::trap::Trap;
use access::{Alignment, base, load_hit, load_pair_slow, load_slow, store_hit, store_slow};
pub(crate) use page::{Code, Leave, is_landing_pad, next_page};

/// Run from the CPU's PC, which lies in `code`, for at most `budget` instructions. Gives why it
/// stopped and how many instructions completed.
///
/// It goes by stretches: straight on in a page, to its end or that of the budget. So one comparison between two
/// instructions is enough; what asks for attention cuts the stretch short.
pub(crate) fn run_page(
    cpu: &mut Cpu,
    memory: &mut Memory,
    icache: &ICache,
    code: Code<'_>,
    budget: u64,
) -> (Leave, u64) {
    let Code { mut page, mut guarded } = code;
    let mut page_va = cpu.pc & !0xfff;
    let mut index = (cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
    let mut left = budget;
    // The stretch: where it starts and ends, and what is still to be done of it.
    let mut start;
    let mut end;
    let mut insns: Iter<'_, Insn>;

    // The value of a register; of an instruction's operand.
    macro_rules! r {
        ($slot:expr) => {
            cpu.regs[$slot as usize & 63]
        };
    }
    macro_rules! set {
        ($insn:ident, $value:expr) => {{
            let value = $value;
            cpu.regs[$insn.rd as usize & 63] = value;
        }};
    }
    macro_rules! set_with_flags {
        ($insn:ident, $value:expr) => {{
            let (value, flags) = $value;
            cpu.regs[$insn.rd as usize & 63] = value;
            cpu.state.nzcv = flags;
        }};
    }
    // The second of a fused pair, unless the stretch ends between the two.
    macro_rules! flags_then_branch {
        ($insn:ident, $value:expr) => {{
            let (value, flags) = $value;
            cpu.regs[$insn.rd as usize & 63] = value;
            cpu.state.nzcv = flags;
            if let Some(second) = insns.next() {
                if second.x >> (flags & 15) & 1 == 1 {
                    branch!(second);
                }
            }
        }};
    }
    macro_rules! set_with_optional_flags {
        ($insn:ident, $value:expr) => {{
            let (value, flags) = $value;
            cpu.regs[$insn.rd as usize & 63] = value;
            if let Some(flags) = flags {
                cpu.state.nzcv = flags;
            }
        }};
    }
    macro_rules! condition {
        ($insn:ident) => {
            $insn.x >> (cpu.state.nzcv & 15) & 1 == 1
        };
    }
    macro_rules! compare_if {
        ($insn:ident, $value:expr) => {
            cpu.state.nzcv = if condition!($insn) { $value.1 } else { $insn.ra }
        };
    }
    // The index of the instruction after this one.
    macro_rules! next_index {
        () => {
            end - insns.len()
        };
    }
    macro_rules! pc {
        () => {
            page_va.wrapping_add(((next_index!() - 1) as u64) << 2)
        };
    }
    // Instructions that completed before this one.
    macro_rules! done {
        () => {
            budget - left + (next_index!() - 1 - start) as u64
        };
    }
    // Leave without completing the instruction.
    macro_rules! leave {
        ($leave:expr) => {{
            index = next_index!() - 1;
            left -= (index - start) as u64;
            break $leave;
        }};
    }
    macro_rules! give {
        ($option:expr) => {
            match $option {
                Some(value) => value,
                None => leave!(Leave::Trap),
            }
        };
    }
    // After what may have called for attention: this instruction is the last of the stretch.
    macro_rules! heed {
        () => {
            if cpu.attention {
                end = next_index!();
                insns = [].iter();
            }
        };
    }
    // A load or store: by the TLB, or the slow way.
    macro_rules! hit {
        ($fast:expr, $slow:expr) => {
            match $fast {
                Some(value) => value,
                None => {
                    let value = give!($slow);
                    heed!();
                    value
                }
            }
        };
    }
    // What may call for attention.
    macro_rules! watch {
        ($option:expr) => {{
            give!($option);
            heed!();
        }};
    }
    macro_rules! branch {
        ($insn:ident) => {{
            let next = next_index!();
            left -= (next - start) as u64;
            index = next.wrapping_sub(1).wrapping_add($insn.imm as usize);
            start_stretch!();
        }};
    }
    // Begin at `index`. Outside of the page there is nothing.
    macro_rules! start_stretch {
        () => {
            let rest = page.get(index..).unwrap_or_default();
            let rest = rest.get(..left as usize).unwrap_or(rest);
            (start, end, insns) = (index, index.wrapping_add(rest.len()), rest.iter());
        };
    }
    // Go on at the CPU's PC, here if the page there is known.
    macro_rules! go_on {
        () => {{
            let Some(code) = next_page(cpu, icache, budget - left) else {
                return (Leave::Resume, budget - left);
            };
            Code { page, guarded } = code;
            page_va = cpu.pc & !0xfff;
            index = (cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
            start_stretch!();
        }};
    }
    // The same after an instruction that set the PC itself.
    macro_rules! branch_to_pc {
        () => {{
            left -= (next_index!() - start) as u64;
            go_on!();
        }};
    }
    // Loads and stores by addressing mode. `$bytes` is the array type, `$word` what it is read
    // as, `$as` the casts that extend it.
    macro_rules! plain_address {
        ($insn:ident) => {
            give!(base(cpu, $insn)).wrapping_add($insn.imm)
        };
    }
    macro_rules! register_address {
        ($insn:ident) => {{
            let low = r!($insn.rm) & $insn.imm;
            let sign = u64::from($insn.ra & 1) << 31;
            let offset = (low ^ sign).wrapping_sub(sign) << ($insn.x & 63);
            give!(base(cpu, $insn)).wrapping_add(offset)
        }};
    }
    macro_rules! load_to {
        ($insn:ident, $va:expr, $word:ident $(as $as:ident)*) => {{
            let va = $va;
            let value = $word::from_le_bytes(hit!(load_hit(cpu, memory, va), load_slow(cpu, memory, va)));
            set!($insn, value $(as $as)* as u64);
        }};
    }
    macro_rules! load_writeback {
        ($insn:ident, $word:ident $(as $as:ident)*) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let value = $word::from_le_bytes(hit!(load_hit(cpu, memory, va), load_slow(cpu, memory, va)));
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
            set!($insn, value $(as $as)* as u64);
        }};
    }
    macro_rules! store_from {
        ($insn:ident, $va:expr, $word:ident) => {{
            let va = $va;
            let bytes = (r!($insn.rd) as $word).to_le_bytes();
            hit!(
                store_hit(cpu, memory, va, bytes),
                store_slow(cpu, memory, va, bytes, size_of::<$word>() as u64)
            );
        }};
    }
    macro_rules! store_writeback {
        ($insn:ident, $word:ident) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let bytes = (r!($insn.rd) as $word).to_le_bytes();
            hit!(
                store_hit(cpu, memory, va, bytes),
                store_slow(cpu, memory, va, bytes, size_of::<$word>() as u64)
            );
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
        }};
    }
    macro_rules! load_two {
        ($insn:ident, $both:ident, $half:ident $(as $as:ident)*) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let both = $both::from_le_bytes(hit!(load_hit(cpu, memory, va), load_pair_slow(cpu, memory, va)));
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
            set!($insn, both as $half $(as $as)* as u64);
            r!($insn.ra) = (both >> $half::BITS) as $half $(as $as)* as u64;
        }};
    }
    macro_rules! store_two {
        ($insn:ident, $both:ident, $half:ident) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let both = r!($insn.rd) as $half as $both | (r!($insn.ra) as $half as $both) << $half::BITS;
            hit!(
                store_hit(cpu, memory, va, both.to_le_bytes()),
                store_slow(cpu, memory, va, both.to_le_bytes(), size_of::<$half>() as u64)
            );
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
        }};
    }

    if cpu.attention {
        return (Leave::Resume, 0);
    }
    start_stretch!();
    let leave = loop {
        let Some(insn) = insns.next() else {
            left -= end.wrapping_sub(start) as u64;
            index = end;
            if left == 0 || cpu.attention {
                break Leave::Resume;
            }
            cpu.pc = page_va.wrapping_add((index as u64) << 2);
            go_on!();
            continue;
        };
        match insn.op {
            Op::Pending => leave!(Leave::Pending),
            Op::Undefined => {
                cpu.trap = Trap::Undefined(insn.imm as u32);
                leave!(Leave::Trap);
            }
            Op::Nop | Op::Bti => {}

            Op::Adr => set!(insn, pc!().wrapping_add(insn.imm)),
            Op::Adrp => set!(insn, page_va.wrapping_add(insn.imm)),
            Op::MovImm => set!(insn, insn.imm),
            Op::Movk64 => set!(insn, r!(insn.rn) & !(0xffff << (insn.x & 63)) | insn.imm),
            Op::Movk32 => {
                set!(insn, r!(insn.rn) & (!(0xffff << (insn.x & 63)) & 0xffff_ffff) | insn.imm);
            }
            Op::Mov64 => set!(insn, r!(insn.rm)),

            Op::AddImm64 => set!(insn, r!(insn.rn).wrapping_add(insn.imm)),
            Op::AddImm32 => set!(insn, u64::from((r!(insn.rn) as u32).wrapping_add(insn.imm as u32))),
            Op::AddsImm64 => set_with_flags!(insn, alu::adds64(r!(insn.rn), insn.imm)),
            Op::AddsImm32 => set_with_flags!(insn, alu::adds32(r!(insn.rn) as u32, insn.imm as u32)),
            Op::SubsImm64 => set_with_flags!(insn, alu::subs64(r!(insn.rn), insn.imm)),
            Op::SubsImm32 => set_with_flags!(insn, alu::subs32(r!(insn.rn) as u32, insn.imm as u32)),
            Op::SubsImm64B => flags_then_branch!(insn, alu::subs64(r!(insn.rn), insn.imm)),
            Op::SubsImm32B => flags_then_branch!(insn, alu::subs32(r!(insn.rn) as u32, insn.imm as u32)),
            Op::Subs64B => flags_then_branch!(insn, alu::subs64(r!(insn.rn), r!(insn.rm) << (insn.x & 63))),
            Op::Subs32B => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31);
                flags_then_branch!(insn, alu::subs32(r!(insn.rn) as u32, b));
            }
            Op::AndsImm64B => {
                let value = r!(insn.rn) & insn.imm;
                flags_then_branch!(insn, (value, alu::nz64(value)));
            }
            Op::AndsImm32B => {
                let value = (r!(insn.rn) & insn.imm) as u32;
                flags_then_branch!(insn, (u64::from(value), alu::nz32(value)));
            }
            Op::Add64 => set!(insn, r!(insn.rn).wrapping_add(r!(insn.rm) << (insn.x & 63))),
            Op::Add32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31);
                set!(insn, u64::from((r!(insn.rn) as u32).wrapping_add(b)));
            }
            Op::Sub64 => set!(insn, r!(insn.rn).wrapping_sub(r!(insn.rm) << (insn.x & 63))),
            Op::Sub32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31);
                set!(insn, u64::from((r!(insn.rn) as u32).wrapping_sub(b)));
            }
            Op::Adds64 => {
                set_with_flags!(insn, alu::adds64(r!(insn.rn), r!(insn.rm) << (insn.x & 63)));
            }
            Op::Adds32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31);
                set_with_flags!(insn, alu::adds32(r!(insn.rn) as u32, b));
            }
            Op::Subs64 => {
                set_with_flags!(insn, alu::subs64(r!(insn.rn), r!(insn.rm) << (insn.x & 63)));
            }
            Op::Subs32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31);
                set_with_flags!(insn, alu::subs32(r!(insn.rn) as u32, b));
            }
            Op::AndImm => set!(insn, r!(insn.rn) & insn.imm),
            Op::OrrImm64 => set!(insn, r!(insn.rn) | insn.imm),
            Op::OrrImm32 => set!(insn, u64::from(r!(insn.rn) as u32 | insn.imm as u32)),
            Op::EorImm64 => set!(insn, r!(insn.rn) ^ insn.imm),
            Op::EorImm32 => set!(insn, u64::from(r!(insn.rn) as u32 ^ insn.imm as u32)),
            Op::AndsImm64 => {
                let value = r!(insn.rn) & insn.imm;
                set_with_flags!(insn, (value, alu::nz64(value)));
            }
            Op::AndsImm32 => {
                let value = (r!(insn.rn) & insn.imm) as u32;
                set_with_flags!(insn, (u64::from(value), alu::nz32(value)));
            }
            Op::And64 => set!(insn, r!(insn.rn) & (r!(insn.rm) << (insn.x & 63) ^ insn.imm)),
            Op::And32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31) ^ insn.imm as u32;
                set!(insn, u64::from(r!(insn.rn) as u32 & b));
            }
            Op::Orr64 => set!(insn, r!(insn.rn) | (r!(insn.rm) << (insn.x & 63) ^ insn.imm)),
            Op::Orr32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31) ^ insn.imm as u32;
                set!(insn, u64::from(r!(insn.rn) as u32 | b));
            }
            Op::Eor64 => set!(insn, r!(insn.rn) ^ r!(insn.rm) << (insn.x & 63) ^ insn.imm),
            Op::Eor32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31) ^ insn.imm as u32;
                set!(insn, u64::from(r!(insn.rn) as u32 ^ b));
            }
            Op::Ands64 => {
                let value = r!(insn.rn) & (r!(insn.rm) << (insn.x & 63) ^ insn.imm);
                set_with_flags!(insn, (value, alu::nz64(value)));
            }
            Op::Ands32 => {
                let b = (r!(insn.rm) as u32) << (insn.x & 31) ^ insn.imm as u32;
                let value = r!(insn.rn) as u32 & b;
                set_with_flags!(insn, (u64::from(value), alu::nz32(value)));
            }
            Op::AluGen64 => {
                set_with_optional_flags!(insn, alu::general64(insn, r!(insn.rn), r!(insn.rm)));
            }
            Op::AluGen32 => {
                set_with_optional_flags!(insn, alu::general32(insn, r!(insn.rn), r!(insn.rm)));
            }
            Op::Adc64 => {
                let result = alu::carry64(insn, r!(insn.rn), r!(insn.rm), cpu.state.nzcv);
                set_with_optional_flags!(insn, result);
            }
            Op::Adc32 => {
                let result = alu::carry32(insn, r!(insn.rn), r!(insn.rm), cpu.state.nzcv);
                set_with_optional_flags!(insn, result);
            }

            Op::Ubfm64 => set!(insn, r!(insn.rn).rotate_right(u32::from(insn.rm)) & insn.imm),
            Op::Ubfm32 => {
                let rotated = (r!(insn.rn) as u32).rotate_right(u32::from(insn.rm));
                set!(insn, u64::from(rotated) & insn.imm);
            }
            Op::Bfm64 => {
                let rotated = r!(insn.rn).rotate_right(u32::from(insn.rm));
                set!(insn, r!(insn.ra) & !insn.imm | rotated & insn.imm);
            }
            Op::Bfm32 => {
                let rotated = u64::from((r!(insn.rn) as u32).rotate_right(u32::from(insn.rm)));
                let value = r!(insn.ra) & !insn.imm | rotated & insn.imm;
                set!(insn, value & 0xffff_ffff);
            }
            Op::Sbfm64 => {
                let top = (r!(insn.rn) << (insn.rm & 63)) as i64;
                set!(insn, (top >> (insn.ra & 63)) as u64);
            }
            Op::Sbfm32 => {
                let top = ((r!(insn.rn) as u32) << (insn.rm & 31)) as i32;
                set!(insn, u64::from((top >> (insn.ra & 31)) as u32));
            }
            Op::Sbfiz64 => {
                let top = (r!(insn.rn) << (insn.rm & 63)) as i64;
                set!(insn, ((top >> (insn.ra & 63)) as u64) << (insn.x & 63));
            }
            Op::Sbfiz32 => {
                let top = ((r!(insn.rn) as u32) << (insn.rm & 31)) as i32;
                set!(insn, u64::from(((top >> (insn.ra & 31)) as u32) << (insn.x & 31)));
            }
            Op::Extr64 => set!(insn, alu::extr64(r!(insn.rn), r!(insn.rm), u32::from(insn.x))),
            Op::Extr32 => set!(insn, alu::extr32(r!(insn.rn) as u32, r!(insn.rm) as u32, insn.x.into())),

            Op::Ccmp64 => compare_if!(insn, alu::subs64(r!(insn.rn), r!(insn.rm) | insn.imm)),
            Op::Ccmp32 => {
                compare_if!(insn, alu::subs32(r!(insn.rn) as u32, (r!(insn.rm) | insn.imm) as u32));
            }
            Op::Ccmn64 => compare_if!(insn, alu::adds64(r!(insn.rn), r!(insn.rm) | insn.imm)),
            Op::Ccmn32 => {
                compare_if!(insn, alu::adds32(r!(insn.rn) as u32, (r!(insn.rm) | insn.imm) as u32));
            }
            Op::Csel64 => {
                let other = (r!(insn.rm) ^ insn.imm).wrapping_add(u64::from(insn.ra));
                set!(insn, if condition!(insn) { r!(insn.rn) } else { other });
            }
            Op::Csel32 => {
                let other = (r!(insn.rm) ^ insn.imm).wrapping_add(u64::from(insn.ra));
                let value = if condition!(insn) { r!(insn.rn) } else { other };
                set!(insn, value & 0xffff_ffff);
            }

            Op::Rbit64 => set!(insn, r!(insn.rn).reverse_bits()),
            Op::Rbit32 => set!(insn, u64::from((r!(insn.rn) as u32).reverse_bits())),
            Op::Rev16x64 => set!(insn, alu::rev16(r!(insn.rn))),
            Op::Rev16x32 => set!(insn, alu::rev16(r!(insn.rn)) & 0xffff_ffff),
            Op::Rev32x64 => set!(insn, r!(insn.rn).swap_bytes().rotate_left(32)),
            Op::Rev64 => set!(insn, r!(insn.rn).swap_bytes()),
            Op::Rev32 => set!(insn, u64::from((r!(insn.rn) as u32).swap_bytes())),
            Op::Clz64 => set!(insn, u64::from(r!(insn.rn).leading_zeros())),
            Op::Clz32 => set!(insn, u64::from((r!(insn.rn) as u32).leading_zeros())),
            Op::Cls64 => set!(insn, alu::cls64(r!(insn.rn))),
            Op::Cls32 => set!(insn, alu::cls32(r!(insn.rn) as u32)),
            Op::Udiv64 => set!(insn, r!(insn.rn).checked_div(r!(insn.rm)).unwrap_or(0)),
            Op::Udiv32 => {
                let (a, b) = (r!(insn.rn) as u32, r!(insn.rm) as u32);
                set!(insn, u64::from(a.checked_div(b).unwrap_or(0)));
            }
            Op::Sdiv64 => set!(insn, alu::sdiv64(r!(insn.rn), r!(insn.rm))),
            Op::Sdiv32 => set!(insn, alu::sdiv32(r!(insn.rn) as u32, r!(insn.rm) as u32)),
            Op::Lslv64 => set!(insn, r!(insn.rn) << (r!(insn.rm) & 63)),
            Op::Lslv32 => set!(insn, u64::from((r!(insn.rn) as u32) << (r!(insn.rm) & 31))),
            Op::Lsrv64 => set!(insn, r!(insn.rn) >> (r!(insn.rm) & 63)),
            Op::Lsrv32 => set!(insn, u64::from(r!(insn.rn) as u32 >> (r!(insn.rm) & 31))),
            Op::Asrv64 => set!(insn, (r!(insn.rn) as i64 >> (r!(insn.rm) & 63)) as u64),
            Op::Asrv32 => {
                set!(insn, u64::from((r!(insn.rn) as i32 >> (r!(insn.rm) & 31)) as u32));
            }
            Op::Rorv64 => set!(insn, r!(insn.rn).rotate_right((r!(insn.rm) & 63) as u32)),
            Op::Rorv32 => {
                set!(insn, u64::from((r!(insn.rn) as u32).rotate_right((r!(insn.rm) & 31) as u32)));
            }
            Op::Crc32 => {
                set!(insn, alu::crc32(r!(insn.rn) as u32, r!(insn.rm), insn.x, insn.imm as u32));
            }
            Op::Madd64 => set!(insn, r!(insn.rn).wrapping_mul(r!(insn.rm)).wrapping_add(r!(insn.ra))),
            Op::Madd32 => {
                let value = r!(insn.rn).wrapping_mul(r!(insn.rm)).wrapping_add(r!(insn.ra));
                set!(insn, value & 0xffff_ffff);
            }
            Op::Msub64 => set!(insn, r!(insn.ra).wrapping_sub(r!(insn.rn).wrapping_mul(r!(insn.rm)))),
            Op::Msub32 => {
                let value = r!(insn.ra).wrapping_sub(r!(insn.rn).wrapping_mul(r!(insn.rm)));
                set!(insn, value & 0xffff_ffff);
            }
            Op::Smaddl => set!(insn, r!(insn.ra).wrapping_add(alu::smull(r!(insn.rn), r!(insn.rm)))),
            Op::Smsubl => set!(insn, r!(insn.ra).wrapping_sub(alu::smull(r!(insn.rn), r!(insn.rm)))),
            Op::Umaddl => set!(insn, r!(insn.ra).wrapping_add(alu::umull(r!(insn.rn), r!(insn.rm)))),
            Op::Umsubl => set!(insn, r!(insn.ra).wrapping_sub(alu::umull(r!(insn.rn), r!(insn.rm)))),
            Op::Smulh => {
                let product = i128::from(r!(insn.rn) as i64) * i128::from(r!(insn.rm) as i64);
                set!(insn, (product >> 64) as u64);
            }
            Op::Umulh => {
                let product = u128::from(r!(insn.rn)) * u128::from(r!(insn.rm));
                set!(insn, (product >> 64) as u64);
            }
            Op::Cfinv => cpu.state.nzcv ^= 0b0010,
            Op::Rmif => cpu.state.nzcv = alu::rmif(insn, r!(insn.rn), cpu.state.nzcv),
            Op::Setf => cpu.state.nzcv = alu::setf(insn, r!(insn.rn), cpu.state.nzcv),

            Op::B => branch!(insn),
            Op::Bl => {
                cpu.regs[30] = pc!().wrapping_add(4);
                branch!(insn);
            }
            Op::BCond => {
                if condition!(insn) {
                    branch!(insn);
                }
            }
            Op::Cbz64 => {
                if r!(insn.rn) == 0 {
                    branch!(insn);
                }
            }
            Op::Cbz32 => {
                if r!(insn.rn) as u32 == 0 {
                    branch!(insn);
                }
            }
            Op::Cbnz64 => {
                if r!(insn.rn) != 0 {
                    branch!(insn);
                }
            }
            Op::Cbnz32 => {
                if r!(insn.rn) as u32 != 0 {
                    branch!(insn);
                }
            }
            Op::Tbz => {
                if r!(insn.rn) >> (insn.x & 63) & 1 == 0 {
                    branch!(insn);
                }
            }
            Op::Tbnz => {
                if r!(insn.rn) >> (insn.x & 63) & 1 != 0 {
                    branch!(insn);
                }
            }
            Op::Ret => {
                let target = r!(insn.rn);
                if (target ^ page_va) & !0xffc == 0 {
                    left -= (next_index!() - start) as u64;
                    index = (target >> 2) as usize & (INSNS_PER_PAGE - 1);
                    start_stretch!();
                } else {
                    cpu.pc = cpu.branch_address(target);
                    branch_to_pc!();
                }
            }
            Op::Br => {
                // BTYPE is 11 for a jump that BTI guards, 01 for one through X16 or X17.
                let is_veneer = matches!(insn.rn, 16 | 17);
                cpu.state.btype = if guarded && !is_veneer { 3 } else { 1 };
                cpu.pc = cpu.branch_address(r!(insn.rn));
                branch_to_pc!();
            }
            Op::Blr => {
                cpu.state.btype = 2;
                let target = r!(insn.rn);
                cpu.regs[30] = pc!().wrapping_add(4);
                cpu.pc = cpu.branch_address(target);
                branch_to_pc!();
            }
            Op::Eret => {
                cpu.pc = pc!();
                // Its own step is still one of EL1.
                cpu.elapsed = done!() + 1;
                if cpu.exception_return().is_none() {
                    leave!(Leave::Trap);
                }
                return (Leave::Returned, cpu.elapsed);
            }

            Op::Svc => {
                cpu.trap = Trap::Svc(insn.imm as u16);
                leave!(Leave::Trap);
            }
            Op::Hvc => {
                cpu.trap =
                    if cpu.state.el == 0 { Trap::Undefined(0xd400_0002) } else { Trap::Hvc(insn.imm as u16) };
                leave!(Leave::Trap);
            }
            // Without EL2 there is no EL3 either, nor firmware in its place.
            Op::Smc => {
                cpu.trap = if cpu.state.el == 0 || cpu.el2.is_none() {
                    Trap::Undefined(0xd400_0003 | (insn.imm as u32 & 0xffff) << 5)
                } else {
                    Trap::Smc(insn.imm as u16)
                };
                leave!(Leave::Trap);
            }
            Op::Brk => {
                cpu.raise(ExceptionClass::BRK64, insn.imm as u32 & 0xffff, None);
                leave!(Leave::Trap);
            }
            Op::Wfi => {
                give!(cpu.check_wfi());
                give!(cpu.el2_lets_wait(false));
                cpu.trap = Trap::Wfi;
                leave!(Leave::Trap);
            }
            Op::Wfe => give!(cpu.wait_for_event()),
            Op::Sev => {
                cpu.trap = Trap::Sev;
                leave!(Leave::Trap);
            }
            Op::Sevl => cpu.event = true,
            Op::Esb => cpu.error_synchronization_barrier(),
            Op::Clrex => cpu.monitor = None,
            Op::Isb => {
                cpu.call_attention();
                heed!();
            }
            Op::Mrs => {
                cpu.elapsed = done!();
                let value = give!(cpu.read_system_register(insn.imm as u16, insn.rd));
                set!(insn, value);
            }
            Op::Msr => {
                cpu.elapsed = done!();
                give!(cpu.write_system_register(insn.imm as u16, insn.rd));
                heed!();
            }
            Op::MsrImm => watch!(cpu.write_pstate_field(insn.x, insn.imm as u8)),
            Op::Sys => watch!(system::system_instruction(cpu, memory, insn.imm as u16, insn.rd)),

            Op::StrB => store_from!(insn, plain_address!(insn), u8),
            Op::StrH => store_from!(insn, plain_address!(insn), u16),
            Op::StrW => store_from!(insn, plain_address!(insn), u32),
            Op::StrX => store_from!(insn, plain_address!(insn), u64),
            Op::LdrB => load_to!(insn, plain_address!(insn), u8),
            Op::LdrH => load_to!(insn, plain_address!(insn), u16),
            Op::LdrW => load_to!(insn, plain_address!(insn), u32),
            Op::LdrX => load_to!(insn, plain_address!(insn), u64),
            Op::LdrSb64 => load_to!(insn, plain_address!(insn), i8 as i64),
            Op::LdrSh64 => load_to!(insn, plain_address!(insn), i16 as i64),
            Op::LdrSw64 => load_to!(insn, plain_address!(insn), i32 as i64),
            Op::LdrSb32 => load_to!(insn, plain_address!(insn), i8 as i32 as u32),
            Op::LdrSh32 => load_to!(insn, plain_address!(insn), i16 as i32 as u32),
            Op::StrBReg => store_from!(insn, register_address!(insn), u8),
            Op::StrHReg => store_from!(insn, register_address!(insn), u16),
            Op::StrWReg => store_from!(insn, register_address!(insn), u32),
            Op::StrXReg => store_from!(insn, register_address!(insn), u64),
            Op::LdrBReg => load_to!(insn, register_address!(insn), u8),
            Op::LdrHReg => load_to!(insn, register_address!(insn), u16),
            Op::LdrWReg => load_to!(insn, register_address!(insn), u32),
            Op::LdrXReg => load_to!(insn, register_address!(insn), u64),
            Op::LdrSb64Reg => load_to!(insn, register_address!(insn), i8 as i64),
            Op::LdrSh64Reg => load_to!(insn, register_address!(insn), i16 as i64),
            Op::LdrSw64Reg => load_to!(insn, register_address!(insn), i32 as i64),
            Op::LdrSb32Reg => load_to!(insn, register_address!(insn), i8 as i32 as u32),
            Op::LdrSh32Reg => load_to!(insn, register_address!(insn), i16 as i32 as u32),
            Op::StrBWb => store_writeback!(insn, u8),
            Op::StrHWb => store_writeback!(insn, u16),
            Op::StrWWb => store_writeback!(insn, u32),
            Op::StrXWb => store_writeback!(insn, u64),
            Op::LdrBWb => load_writeback!(insn, u8),
            Op::LdrHWb => load_writeback!(insn, u16),
            Op::LdrWWb => load_writeback!(insn, u32),
            Op::LdrXWb => load_writeback!(insn, u64),
            Op::LdrSb64Wb => load_writeback!(insn, i8 as i64),
            Op::LdrSh64Wb => load_writeback!(insn, i16 as i64),
            Op::LdrSw64Wb => load_writeback!(insn, i32 as i64),
            Op::LdrSb32Wb => load_writeback!(insn, i8 as i32 as u32),
            Op::LdrSh32Wb => load_writeback!(insn, i16 as i32 as u32),
            Op::LdrWLit => load_to!(insn, pc!().wrapping_add(insn.imm), u32),
            Op::LdrXLit => load_to!(insn, pc!().wrapping_add(insn.imm), u64),
            Op::LdrSwLit => load_to!(insn, pc!().wrapping_add(insn.imm), i32 as i64),
            Op::StpW => store_two!(insn, u64, u32),
            Op::StpX => store_two!(insn, u128, u64),
            Op::LdpW => load_two!(insn, u64, u32),
            Op::LdpX => load_two!(insn, u128, u64),
            Op::LdpSw => load_two!(insn, u64, i32 as i64),
            Op::Unprivileged => {
                let (view, alignment) = (cpu.unprivileged_view(), Alignment::Plain);
                watch!(access::single(cpu, memory, insn, view, alignment));
            }
            Op::Ordered => watch!(access::single(cpu, memory, insn, cpu.view, Alignment::Ordered)),
            Op::Ldxr => watch!(atomic::load_exclusive(cpu, memory, insn)),
            Op::Stxr => watch!(atomic::store_exclusive(cpu, memory, insn)),
            Op::Ldxp => watch!(atomic::load_exclusive_pair(cpu, memory, insn)),
            Op::Stxp => watch!(atomic::store_exclusive_pair(cpu, memory, insn)),
            Op::Cas => watch!(atomic::compare_and_swap(cpu, memory, insn)),
            Op::Casp => watch!(atomic::compare_and_swap_pair(cpu, memory, insn)),
            Op::Rmw => watch!(atomic::read_modify_write(cpu, memory, insn)),

            Op::Vector(op) => give!(fp_simd::vector(cpu, insn, op)),
            Op::Float(op) => give!(fp_simd::float(cpu, insn, op)),
            Op::Move(op) => give!(fp_simd::moves(cpu, insn, op)),
            Op::Crypto(op) => give!(fp_simd::crypto(cpu, insn, op)),
            Op::VectorMemory(op) => watch!(fp_simd::access(cpu, memory, insn, op, pc!())),
        }
    };
    cpu.pc = page_va.wrapping_add((index as u64) << 2);
    (leave, budget - left)
}
