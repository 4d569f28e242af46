//! Branches, exception generation and system instructions.
//! Source: C4.1.87 "Branches, Exception Generating and System instructions".

use super::insn::{Insn, Op, condition_mask, dest};
use super::{bit, bits, reg, sign_extend};

pub(super) fn decode(word: u32) -> Option<Insn> {
    match bits(word, 31, 29) {
        0b000 | 0b100 => Some(immediate(word)),
        0b001 | 0b101 if bit(word, 25) => Some(test_and_branch(word)),
        0b001 | 0b101 => Some(compare_and_branch(word)),
        0b010 if bits(word, 25, 24) == 0 && !bit(word, 4) => Some(conditional(word)),
        0b110 if bit(word, 25) => register(word),
        0b110 if bits(word, 25, 24) == 0 => exception(word),
        0b110 if bits(word, 25, 22) == 0b0100 => system(word),
        _ => None,
    }
}

/// An offset in instructions, as the interpreter's index takes it.
const fn offset(field: u32, width: u32) -> u64 {
    sign_extend(field, width) as u64
}

fn immediate(word: u32) -> Insn {
    let op = if bit(word, 31) { Op::Bl } else { Op::B };
    Insn { imm: offset(bits(word, 25, 0), 26), ..Insn::new(op) }
}

fn conditional(word: u32) -> Insn {
    Insn { imm: offset(bits(word, 23, 5), 19), x: condition_mask(bits(word, 3, 0)), ..Insn::new(Op::BCond) }
}

fn compare_and_branch(word: u32) -> Insn {
    let op = match (bit(word, 24), bit(word, 31)) {
        (false, true) => Op::Cbz64,
        (false, false) => Op::Cbz32,
        (true, true) => Op::Cbnz64,
        (true, false) => Op::Cbnz32,
    };
    Insn { rn: reg(word, 0), imm: offset(bits(word, 23, 5), 19), ..Insn::new(op) }
}

fn test_and_branch(word: u32) -> Insn {
    let op = if bit(word, 24) { Op::Tbnz } else { Op::Tbz };
    let position = bits(word, 31, 31) << 5 | bits(word, 23, 19);
    Insn { rn: reg(word, 0), x: position as u16, imm: offset(bits(word, 18, 5), 14), ..Insn::new(op) }
}

fn register(word: u32) -> Option<Insn> {
    // op2 = 11111, op3 = 000000 (no pointer authentication), op4 = 00000.
    if bits(word, 20, 10) != 0b11111_000000 || bits(word, 4, 0) != 0 {
        return None;
    }
    let rn = reg(word, 5);
    let op = match bits(word, 24, 21) {
        0 => Op::Br,
        1 => Op::Blr,
        2 => Op::Ret,
        4 if rn == 31 => Op::Eret,
        _ => return None,
    };
    Some(Insn { rn, ..Insn::new(op) })
}

fn exception(word: u32) -> Option<Insn> {
    // HLT without halting debug is UNDEFINED, as is DCPSn.
    let op = match (bits(word, 23, 21), bits(word, 4, 0)) {
        (0, 0b00001) => Op::Svc,
        (0, 0b00010) => Op::Hvc,
        (0, 0b00011) => Op::Smc,
        (1, 0) => Op::Brk,
        _ => return None,
    };
    Some(Insn { imm: u64::from(bits(word, 20, 5)), ..Insn::new(op) })
}

fn system(word: u32) -> Option<Insn> {
    let rt = reg(word, 0);
    let id = u64::from(bits(word, 20, 5));
    match (bit(word, 21), bits(word, 20, 19)) {
        (false, 0) => system_op0_0(word),
        (false, 1) => Some(Insn { rd: rt, imm: id, ..Insn::new(Op::Sys) }),
        (true, 2 | 3) => Some(Insn { rd: dest(rt), imm: id, ..Insn::new(Op::Mrs) }),
        (false, _) => Some(Insn { rd: rt, imm: id, ..Insn::new(Op::Msr) }),
        (true, _) => None,
    }
}

fn system_op0_0(word: u32) -> Option<Insn> {
    if reg(word, 0) != 31 {
        return None;
    }
    let (op1, crn, crm, op2) = (bits(word, 18, 16), bits(word, 15, 12), bits(word, 11, 8), bits(word, 7, 5));
    match (op1, crn) {
        (3, 2) => Some(hint(crm << 3 | op2)),
        (3, 3) => barrier(crm, op2),
        (_, 4) => processor_state(op1, crm, op2),
        _ => None,
    }
}

/// HINT space: what is not one of ours is a NOP, pointer authentication included.
fn hint(number: u32) -> Insn {
    match number {
        2 => Insn::new(Op::Wfe),
        3 => Insn::new(Op::Wfi),
        4 => Insn::new(Op::Sev),
        5 => Insn::new(Op::Sevl),
        16 => Insn::new(Op::Esb),
        // BTI {c, j, jc}; x = which of them. PACIASP and PACIBSP stay NOPs but are landing pads.
        32 | 34 | 36 | 38 => Insn { x: (number - 32) as u16 / 2, ..Insn::new(Op::Bti) },
        25 | 27 => Insn { x: LANDING_PACIASP, ..Insn::new(Op::Bti) },
        _ => Insn::new(Op::Nop),
    }
}

/// `x` of a `Bti` operation that is really PACIASP or PACIBSP.
pub(crate) const LANDING_PACIASP: u16 = 4;

fn barrier(crm: u32, op2: u32) -> Option<Insn> {
    Some(match op2 {
        2 => Insn::new(Op::Clrex),
        // DSB, DMB and SB order accesses of other observers; here all is in order already.
        4 | 5 => Insn::new(Op::Nop),
        6 => Insn::new(Op::Isb),
        7 if crm == 0 => Insn::new(Op::Nop),
        _ => return None,
    })
}

fn processor_state(op1: u32, crm: u32, op2: u32) -> Option<Insn> {
    let field = op1 << 3 | op2;
    match field {
        0o00 if crm == 0 => Some(Insn::new(Op::Cfinv)),
        // UAO, PAN, SPSel; SSBS, DIT, DAIFSet, DAIFClr.
        0o03 | 0o04 | 0o05 | 0o31 | 0o32 | 0o36 | 0o37 => {
            Some(Insn { x: field as u16, imm: u64::from(crm), ..Insn::new(Op::MsrImm) })
        }
        _ => None,
    }
}
