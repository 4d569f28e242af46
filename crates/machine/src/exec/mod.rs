//! The interpreter: runs decoded instructions of one page until something else must be done.
//!
//! `cpu.pc` and `cpu.steps` are up to date only when [`run_page`] is not running; instructions that
//! need them go through functions that are given them.

// The hit path of a load or store must be in the loop itself: that is what makes it fast.
#![allow(clippy::inline_always)]

pub(crate) mod access;
mod alu;
mod atomic;
mod data;
#[cfg(test)]
mod fills;
mod fp_simd;
mod load_store;
mod page;
pub(crate) mod system;

use std::slice::Iter;

use seawall_arm::ExceptionClass;

use crate::cpu::Cpu;
use crate::decode::meaning::{Arithmetic, Mode, Operand, Operation, Width, accesses, arithmetic};
use crate::decode::{Insn, Kind, Op};
use crate::icache::{ICache, INSNS_PER_PAGE};
use crate::memory::Memory;
use crate::trap::Trap;
use access::{Alignment, base};
use data::single_forms;
use load_store::Done;
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
    // The second of a fused pair, unless the stretch ends between the two.
    macro_rules! then_branch {
        ($insn:ident, $op:expr) => {{
            if let Some(form) = const { $op.arithmetic() } {
                data::by_form(cpu, $insn, form);
            }
            if let Some(second) = insns.next() {
                if second.x >> (cpu.state.nzcv & 15) & 1 == 1 {
                    branch!(second);
                }
            }
        }};
    }
    macro_rules! condition {
        ($insn:ident) => {
            $insn.x >> (cpu.state.nzcv & 15) & 1 == 1
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
    // After a load or store.
    macro_rules! moved {
        ($done:expr) => {
            match $done {
                Done::Hit => {}
                Done::Slow => heed!(),
                Done::Trap => leave!(Leave::Trap),
            }
        };
    }
    macro_rules! with_accesses {
        ($($arguments:tt)*) => {
            accesses! { with_single_forms! $($arguments)* }
        };
    }
    macro_rules! with_single_forms {
        ($($arguments:tt)*) => {
            single_forms! { execute! $($arguments)* }
        };
    }
    // One match, so that one jump finds any operation: the tables' rows, and the arms here.
    macro_rules! execute {
        (
            $insn:ident
            ($($data:ident: $operation:ident $width:ident $operand:ident $sets_flags:ident,)*)
            ($($access:ident: $kind:ident $mode:ident,)*)
            ($($single:ident,)*)
        ) => {
            match $insn.op {
                $(Op::$data => {
                    let form = Arithmetic {
                        operation: Operation::$operation,
                        width: Width::$width,
                        operand: Operand::$operand,
                        sets_flags: $sets_flags,
                    };
                    data::by_form(cpu, $insn, form);
                })*
                $(Op::$access => {
                    moved!(load_store::one(cpu, memory, $insn, Kind::$kind, Mode::$mode, || pc!()));
                })*
                $(Op::$single => data::single(cpu, $insn, Op::$single, page_va, || pc!()),)*
                    Op::Pending => leave!(Leave::Pending),
                    Op::Undefined => {
                        cpu.trap = Trap::Undefined($insn.imm as u32);
                        leave!(Leave::Trap);
                    }
                    Op::SubsImm64B => then_branch!($insn, Op::SubsImm64),
                    Op::SubsImm32B => then_branch!($insn, Op::SubsImm32),
                    Op::Subs64B => then_branch!($insn, Op::Subs64),
                    Op::Subs32B => then_branch!($insn, Op::Subs32),
                    Op::AndsImm64B => then_branch!($insn, Op::AndsImm64),
                    Op::AndsImm32B => then_branch!($insn, Op::AndsImm32),

                    Op::B => branch!($insn),
                    Op::Bl => {
                        cpu.regs[30] = pc!().wrapping_add(4);
                        branch!($insn);
                    }
                    Op::BCond => {
                        if condition!($insn) {
                            branch!($insn);
                        }
                    }
                    Op::Cbz64 => {
                        if r!($insn.rn) == 0 {
                            branch!($insn);
                        }
                    }
                    Op::Cbz32 => {
                        if r!($insn.rn) as u32 == 0 {
                            branch!($insn);
                        }
                    }
                    Op::Cbnz64 => {
                        if r!($insn.rn) != 0 {
                            branch!($insn);
                        }
                    }
                    Op::Cbnz32 => {
                        if r!($insn.rn) as u32 != 0 {
                            branch!($insn);
                        }
                    }
                    Op::Tbz => {
                        if r!($insn.rn) >> ($insn.x & 63) & 1 == 0 {
                            branch!($insn);
                        }
                    }
                    Op::Tbnz => {
                        if r!($insn.rn) >> ($insn.x & 63) & 1 != 0 {
                            branch!($insn);
                        }
                    }
                    Op::Ret => {
                        let target = r!($insn.rn);
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
                        let is_veneer = matches!($insn.rn, 16 | 17);
                        cpu.state.btype = if guarded && !is_veneer { 3 } else { 1 };
                        cpu.pc = cpu.branch_address(r!($insn.rn));
                        branch_to_pc!();
                    }
                    Op::Blr => {
                        cpu.state.btype = 2;
                        let target = r!($insn.rn);
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
                        cpu.trap = Trap::Svc($insn.imm as u16);
                        leave!(Leave::Trap);
                    }
                    Op::Hvc => {
                        cpu.trap =
                            if cpu.state.el == 0 { Trap::Undefined(0xd400_0002) } else { Trap::Hvc($insn.imm as u16) };
                        leave!(Leave::Trap);
                    }
                    // Without EL2 there is no EL3 either, nor firmware in its place.
                    Op::Smc => {
                        cpu.trap = if cpu.state.el == 0 || cpu.el2.is_none() {
                            Trap::Undefined(0xd400_0003 | ($insn.imm as u32 & 0xffff) << 5)
                        } else {
                            Trap::Smc($insn.imm as u16)
                        };
                        leave!(Leave::Trap);
                    }
                    Op::Brk => {
                        cpu.raise(ExceptionClass::BRK64, $insn.imm as u32 & 0xffff, None);
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
                        let value = give!(cpu.read_system_register($insn.imm as u16, $insn.rd));
                        set!($insn, value);
                    }
                    Op::Msr => {
                        cpu.elapsed = done!();
                        give!(cpu.write_system_register($insn.imm as u16, $insn.rd));
                        heed!();
                    }
                    Op::MsrImm => watch!(cpu.write_pstate_field($insn.x, $insn.imm as u8)),
                    Op::Sys => watch!(system::system_instruction(cpu, memory, $insn.imm as u16, $insn.rd)),

                    Op::Unprivileged => {
                        let (view, alignment) = (cpu.unprivileged_view(), Alignment::Plain);
                        watch!(access::single(cpu, memory, $insn, view, alignment));
                    }
                    Op::Ordered => watch!(access::single(cpu, memory, $insn, cpu.view, Alignment::Ordered)),
                    Op::Ldxr => watch!(atomic::load_exclusive(cpu, memory, $insn)),
                    Op::Stxr => watch!(atomic::store_exclusive(cpu, memory, $insn)),
                    Op::Ldxp => watch!(atomic::load_exclusive_pair(cpu, memory, $insn)),
                    Op::Stxp => watch!(atomic::store_exclusive_pair(cpu, memory, $insn)),
                    Op::Cas => watch!(atomic::compare_and_swap(cpu, memory, $insn)),
                    Op::Casp => watch!(atomic::compare_and_swap_pair(cpu, memory, $insn)),
                    Op::Rmw => watch!(atomic::read_modify_write(cpu, memory, $insn)),

                    Op::Vector(op) => give!(fp_simd::vector(cpu, $insn, op)),
                    Op::Float(op) => give!(fp_simd::float(cpu, $insn, op)),
                    Op::Move(op) => give!(fp_simd::moves(cpu, $insn, op)),
                    Op::Crypto(op) => give!(fp_simd::crypto(cpu, $insn, op)),
                    Op::VectorMemory(op) => watch!(fp_simd::access(cpu, memory, $insn, op, pc!())),
                Op::StpW => moved!(load_store::store_two::<8>(cpu, memory, $insn, 4)),
                Op::StpX => moved!(load_store::store_two::<16>(cpu, memory, $insn, 8)),
                Op::LdpW => moved!(load_store::load_two::<8>(cpu, memory, $insn, Kind::LdrW)),
                Op::LdpX => moved!(load_store::load_two::<16>(cpu, memory, $insn, Kind::LdrX)),
                Op::LdpSw => moved!(load_store::load_two::<8>(cpu, memory, $insn, Kind::LdrSw64)),
            }
        };
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
        arithmetic!(with_accesses! insn);
    };
    cpu.pc = page_va.wrapping_add((index as u64) << 2);
    (leave, budget - left)
}
