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
pub(crate) mod system;

use seawall_arm::ExceptionClass;

use crate::cpu::Cpu;
use crate::decode::insn::SP;
use crate::decode::{Insn, Kind, Op};
use crate::icache::{INSNS_PER_PAGE, Page};
use crate::memory::Memory;
use crate::tlb::View;
use crate::trap::Trap;
use access::{Alignment, Request, load, load_pair, store};

/// Why [`run_page`] came back. The CPU's PC is that of the instruction to execute next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The PC is in another page, the budget is used up, or the CPU called for attention.
    Resume,
    /// The instruction is not decoded yet.
    Pending,
    /// The instruction did not complete: see the CPU's trap.
    Trap,
}

/// SP as a base register must be 16-byte aligned (`CheckSPAlignment`).
#[cold]
#[inline(never)]
fn raise_sp_alignment(cpu: &mut Cpu) {
    cpu.raise(ExceptionClass::SP_ALIGNMENT, 0, None);
}

/// The base address of a load or store; `None` if it is a misaligned SP.
#[inline(always)]
fn base(cpu: &mut Cpu, insn: &Insn) -> Option<u64> {
    let base = cpu.slot(insn.rn);
    if insn.rn == SP && base & 15 != 0 && cpu.sp_must_align {
        raise_sp_alignment(cpu);
        return None;
    }
    Some(base)
}

/// A page of instructions as [`run_page`] needs it.
#[derive(Clone, Copy)]
pub(crate) struct Code<'a> {
    pub(crate) page: &'a Page,
    /// The page is guarded (FEAT_BTI).
    pub(crate) guarded: bool,
}

/// Run from the CPU's PC, which lies in `code`, for at most `budget` instructions. Gives why it
/// stopped and how many instructions completed.
pub(crate) fn run_page(cpu: &mut Cpu, memory: &mut Memory, code: Code<'_>, budget: u64) -> (Leave, u64) {
    let page = code.page;
    let page_va = cpu.pc & !0xfff;
    let mut index = (cpu.pc >> 2) as usize & (INSNS_PER_PAGE - 1);
    let mut left = budget;

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
    macro_rules! pc {
        () => {
            page_va.wrapping_add((index as u64) << 2)
        };
    }
    // Leave without completing the instruction.
    macro_rules! give {
        ($option:expr) => {
            match $option {
                Some(value) => value,
                None => break Leave::Trap,
            }
        };
    }
    macro_rules! branch {
        ($insn:ident) => {{
            index = index.wrapping_add($insn.imm as usize);
            left -= 1;
            continue;
        }};
    }
    // Leave after an instruction that set the CPU's PC itself.
    macro_rules! leave_at_pc {
        () => {{
            left -= 1;
            return (Leave::Resume, budget - left);
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
            let value = $word::from_le_bytes(give!(load(cpu, memory, va)));
            set!($insn, value $(as $as)* as u64);
        }};
    }
    macro_rules! load_writeback {
        ($insn:ident, $word:ident $(as $as:ident)*) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let value = $word::from_le_bytes(give!(load(cpu, memory, va)));
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
            set!($insn, value $(as $as)* as u64);
        }};
    }
    macro_rules! store_from {
        ($insn:ident, $va:expr, $word:ident) => {{
            let va = $va;
            let bytes = (r!($insn.rd) as $word).to_le_bytes();
            give!(store(cpu, memory, va, bytes, size_of::<$word>() as u64));
        }};
    }
    macro_rules! store_writeback {
        ($insn:ident, $word:ident) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let bytes = (r!($insn.rd) as $word).to_le_bytes();
            give!(store(cpu, memory, va, bytes, size_of::<$word>() as u64));
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
        }};
    }
    macro_rules! load_two {
        ($insn:ident, $both:ident, $half:ident $(as $as:ident)*) => {{
            let base = give!(base(cpu, $insn));
            let va = base.wrapping_add($insn.imm as u32 as i32 as u64);
            let both = $both::from_le_bytes(give!(load_pair(cpu, memory, va)));
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
            give!(store(cpu, memory, va, both.to_le_bytes(), size_of::<$half>() as u64));
            r!($insn.rn) = base.wrapping_add(($insn.imm as i64 >> 32) as u64);
        }};
    }

    let leave = loop {
        if left <= cpu.attention {
            break Leave::Resume;
        }
        let Some(insn) = page.get(index) else { break Leave::Resume };
        match insn.op {
            Op::Pending => break Leave::Pending,
            Op::Undefined => {
                cpu.trap = Trap::Undefined(insn.imm as u32);
                break Leave::Trap;
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
            Op::Extr32 => {
                let (high, low) = (r!(insn.rn) as u32, r!(insn.rm) as u32);
                set!(insn, alu::extr32(high, low, u32::from(insn.x)));
            }

            Op::Ccmp64 => {
                cpu.state.nzcv = if condition!(insn) {
                    alu::subs64(r!(insn.rn), r!(insn.rm) | insn.imm).1
                } else {
                    insn.ra
                };
            }
            Op::Ccmp32 => {
                cpu.state.nzcv = if condition!(insn) {
                    alu::subs32(r!(insn.rn) as u32, (r!(insn.rm) | insn.imm) as u32).1
                } else {
                    insn.ra
                };
            }
            Op::Ccmn64 => {
                cpu.state.nzcv = if condition!(insn) {
                    alu::adds64(r!(insn.rn), r!(insn.rm) | insn.imm).1
                } else {
                    insn.ra
                };
            }
            Op::Ccmn32 => {
                cpu.state.nzcv = if condition!(insn) {
                    alu::adds32(r!(insn.rn) as u32, (r!(insn.rm) | insn.imm) as u32).1
                } else {
                    insn.ra
                };
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
                let amount = (r!(insn.rm) & 31) as u32;
                set!(insn, u64::from((r!(insn.rn) as u32).rotate_right(amount)));
            }
            Op::Crc32 => {
                let (crc, value) = (r!(insn.rn) as u32, r!(insn.rm));
                set!(insn, alu::crc32(crc, value, insn.x, insn.imm as u32));
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
            Op::Smaddl => {
                let product = i64::from(r!(insn.rn) as i32) * i64::from(r!(insn.rm) as i32);
                set!(insn, r!(insn.ra).wrapping_add(product as u64));
            }
            Op::Smsubl => {
                let product = i64::from(r!(insn.rn) as i32) * i64::from(r!(insn.rm) as i32);
                set!(insn, r!(insn.ra).wrapping_sub(product as u64));
            }
            Op::Umaddl => {
                let product = u64::from(r!(insn.rn) as u32) * u64::from(r!(insn.rm) as u32);
                set!(insn, r!(insn.ra).wrapping_add(product));
            }
            Op::Umsubl => {
                let product = u64::from(r!(insn.rn) as u32) * u64::from(r!(insn.rm) as u32);
                set!(insn, r!(insn.ra).wrapping_sub(product));
            }
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
                branch!(insn)
            }
            Op::BCond => {
                if condition!(insn) {
                    branch!(insn)
                }
            }
            Op::Cbz64 => {
                if r!(insn.rn) == 0 {
                    branch!(insn)
                }
            }
            Op::Cbz32 => {
                if r!(insn.rn) as u32 == 0 {
                    branch!(insn)
                }
            }
            Op::Cbnz64 => {
                if r!(insn.rn) != 0 {
                    branch!(insn)
                }
            }
            Op::Cbnz32 => {
                if r!(insn.rn) as u32 != 0 {
                    branch!(insn)
                }
            }
            Op::Tbz => {
                if r!(insn.rn) >> (insn.x & 63) & 1 == 0 {
                    branch!(insn)
                }
            }
            Op::Tbnz => {
                if r!(insn.rn) >> (insn.x & 63) & 1 != 0 {
                    branch!(insn)
                }
            }
            Op::Ret => {
                let target = r!(insn.rn);
                if (target ^ page_va) >> 12 == 0 && target.trailing_zeros() >= 2 {
                    index = (target >> 2) as usize & (INSNS_PER_PAGE - 1);
                    left -= 1;
                    continue;
                }
                cpu.pc = cpu.branch_address(target);
                leave_at_pc!()
            }
            Op::Br => {
                // BTYPE is 11 for a jump that BTI guards, 01 for one through X16 or X17.
                let is_veneer = matches!(insn.rn, 16 | 17);
                cpu.state.btype = if code.guarded && !is_veneer { 3 } else { 1 };
                cpu.pc = cpu.branch_address(r!(insn.rn));
                leave_at_pc!()
            }
            Op::Blr => {
                cpu.state.btype = 2;
                let target = r!(insn.rn);
                cpu.regs[30] = pc!().wrapping_add(4);
                cpu.pc = cpu.branch_address(target);
                leave_at_pc!()
            }
            Op::Eret => {
                cpu.pc = pc!();
                // Its own step is still one of EL1.
                cpu.elapsed = budget - left + 1;
                if cpu.exception_return().is_none() {
                    break Leave::Trap;
                }
                leave_at_pc!()
            }

            Op::Svc => {
                cpu.trap = Trap::Svc(insn.imm as u16);
                break Leave::Trap;
            }
            Op::Hvc => {
                cpu.trap =
                    if cpu.state.el == 0 { Trap::Undefined(0xd400_0002) } else { Trap::Hvc(insn.imm as u16) };
                break Leave::Trap;
            }
            Op::Brk => {
                cpu.raise(ExceptionClass::BRK64, insn.imm as u32 & 0xffff, None);
                break Leave::Trap;
            }
            Op::Wfi => {
                give!(cpu.check_wfi());
                cpu.trap = Trap::Wfi;
                break Leave::Trap;
            }
            Op::Wfe => give!(cpu.wait_for_event()),
            Op::Sev => {
                cpu.trap = Trap::Sev;
                break Leave::Trap;
            }
            Op::Sevl => cpu.event = true,
            Op::Esb => cpu.error_synchronization_barrier(),
            Op::Clrex => cpu.monitor = None,
            Op::Isb => cpu.call_attention(),
            Op::Mrs => {
                cpu.elapsed = budget - left;
                let value = give!(cpu.read_system_register(insn.imm as u16, insn.rd));
                set!(insn, value);
            }
            Op::Msr => {
                cpu.elapsed = budget - left;
                give!(cpu.write_system_register(insn.imm as u16, insn.rd));
            }
            Op::MsrImm => give!(cpu.write_pstate_field(insn.x, insn.imm as u8)),
            Op::Sys => give!(system::system_instruction(cpu, memory, insn.imm as u16, insn.rd)),

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
                give!(single(cpu, memory, insn, view, alignment));
            }
            Op::Ordered => give!(single(cpu, memory, insn, cpu.view, Alignment::Ordered)),
            Op::Ldxr => give!(atomic::load_exclusive(cpu, memory, insn)),
            Op::Stxr => give!(atomic::store_exclusive(cpu, memory, insn)),
            Op::Ldxp => give!(atomic::load_exclusive_pair(cpu, memory, insn)),
            Op::Stxp => give!(atomic::store_exclusive_pair(cpu, memory, insn)),
            Op::Cas => give!(atomic::compare_and_swap(cpu, memory, insn)),
            Op::Casp => give!(atomic::compare_and_swap_pair(cpu, memory, insn)),
            Op::Rmw => give!(atomic::read_modify_write(cpu, memory, insn)),

            Op::Vector(op) => give!(fp_simd::vector(cpu, insn, op)),
            Op::Float(op) => give!(fp_simd::float(cpu, insn, op)),
            Op::Move(op) => give!(fp_simd::moves(cpu, insn, op)),
            Op::Crypto(op) => give!(fp_simd::crypto(cpu, insn, op)),
            Op::VectorMemory(op) => give!(fp_simd::access(cpu, memory, insn, op, pc!())),
        }
        index += 1;
        left -= 1;
    };
    cpu.pc = pc!();
    (leave, budget - left)
}

/// A single-register access out of the ordinary: unprivileged, or with acquire or release.
#[inline(never)]
fn single(cpu: &mut Cpu, memory: &mut Memory, insn: &Insn, view: View, alignment: Alignment) -> Option<()> {
    let kind = Kind::from_number(insn.x);
    let va = base(cpu, insn)?.wrapping_add(insn.imm);
    let size = 1 << kind.size();
    let request = Request { va, size, element: size, write: kind.is_store(), view, alignment };
    let place = access::probe(cpu, memory, &request)?;
    if kind.is_store() {
        place.write(cpu, memory, u128::from(cpu.slot(insn.rd)));
    } else {
        cpu.set_slot(insn.rd, kind.extend(place.read(memory) as u64));
    }
    Some(())
}
