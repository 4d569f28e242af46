//! Data processing: registers and flags, and nothing that can fail.

use super::alu;
use crate::cpu::Cpu;
use crate::decode::meaning::{Arithmetic, Operand, Operation, Width};
use crate::decode::{Insn, Op};

/// Data processing that has one form.
macro_rules! single_forms {
    ($with:ident! $($arguments:tt)*) => {
        $with! { $($arguments)*
            (
                Nop, Bti, Adr, Adrp, MovImm, Movk64, Movk32, Mov64, AluGen64, AluGen32, Adc64, Adc32, Ubfm64,
                Ubfm32, Bfm64, Bfm32, Sbfm64, Sbfm32, Sbfiz64, Sbfiz32, Extr64, Extr32, Ccmp64, Ccmp32, Ccmn64,
                Ccmn32, Csel64, Csel32, Rbit64, Rbit32, Rev16x64, Rev16x32, Rev32x64, Rev64, Rev32, Clz64,
                Clz32, Cls64, Cls32, Udiv64, Udiv32, Sdiv64, Sdiv32, Lslv64, Lslv32, Lsrv64, Lsrv32, Asrv64,
                Asrv32, Rorv64, Rorv32, Crc32, Madd64, Madd32, Msub64, Msub32, Smaddl, Smsubl, Umaddl, Umsubl,
                Smulh, Umulh, Cfinv, Rmif, Setf,
            )
        }
    };
}
pub(super) use single_forms;

/// One that is in the table. `form` is a constant where this is inlined.
#[inline(always)]
pub(super) fn by_form(cpu: &mut Cpu, insn: &Insn, form: Arithmetic) {
    let a = cpu.slot(insn.rn);
    let (value, flags) = match form.width {
        Width::W64 => {
            let b = match form.operand {
                Operand::Immediate => insn.imm,
                Operand::Shifted => cpu.slot(insn.rm) << (insn.x & 63) ^ inversion(insn, form),
            };
            match form.operation {
                Operation::Add if form.sets_flags => alu::adds64(a, b),
                Operation::Add => (a.wrapping_add(b), 0),
                Operation::Sub if form.sets_flags => alu::subs64(a, b),
                Operation::Sub => (a.wrapping_sub(b), 0),
                Operation::And => (a & b, alu::nz64(a & b)),
                Operation::Orr => (a | b, alu::nz64(a | b)),
                Operation::Eor => (a ^ b, alu::nz64(a ^ b)),
            }
        }
        Width::W32 => {
            let a = a as u32;
            let b = match form.operand {
                Operand::Immediate => insn.imm as u32,
                Operand::Shifted => {
                    (cpu.slot(insn.rm) as u32) << (insn.x & 31) ^ inversion(insn, form) as u32
                }
            };
            let logical = |value: u32| (u64::from(value), alu::nz32(value));
            match form.operation {
                Operation::Add => alu::adds32(a, b),
                Operation::Sub => alu::subs32(a, b),
                Operation::And => logical(a & b),
                Operation::Orr => logical(a | b),
                Operation::Eor => logical(a ^ b),
            }
        }
    };
    cpu.set_slot(insn.rd, value);
    if form.sets_flags {
        cpu.state.nzcv = flags;
    }
}

#[inline(always)]
fn inversion(insn: &Insn, form: Arithmetic) -> u64 {
    if form.operation.may_invert() { insn.imm } else { 0 }
}

/// One that has one form. `op` is a constant where this is inlined; `pc` gives the instruction's address.
#[inline(always)]
pub(super) fn single(cpu: &mut Cpu, insn: &Insn, op: Op, page_va: u64, pc: impl FnOnce() -> u64) {
    macro_rules! r {
        ($slot:expr) => {
            cpu.slot($slot)
        };
    }
    macro_rules! set {
        ($insn:ident, $value:expr) => {{
            let value = $value;
            cpu.set_slot($insn.rd, value);
        }};
    }
    macro_rules! set_with_optional_flags {
        ($insn:ident, $value:expr) => {{
            let (value, flags) = $value;
            cpu.set_slot($insn.rd, value);
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
    match op {
        Op::Nop | Op::Bti => {}

        Op::Adr => set!(insn, pc().wrapping_add(insn.imm)),
        Op::Adrp => set!(insn, page_va.wrapping_add(insn.imm)),
        Op::MovImm => set!(insn, insn.imm),
        Op::Movk64 => set!(insn, r!(insn.rn) & !(0xffff << (insn.x & 63)) | insn.imm),
        Op::Movk32 => {
            set!(insn, r!(insn.rn) & (!(0xffff << (insn.x & 63)) & 0xffff_ffff) | insn.imm);
        }
        Op::Mov64 => set!(insn, r!(insn.rm)),

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
        _ => debug_assert!(false, "{op:?} is in the list"),
    }
}
