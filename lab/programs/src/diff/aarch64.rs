//! The A64 code. Words are the output of `llvm-mc -triple=aarch64 -mattr=+v8.5a --show-encoding`.
//!
//! X28 holds an MMIO address, X26 that of the bad line, X25 one without memory.

use seawall_arm::Pstate;

use super::code::{Action, Code, Instruction, RAM};

const fn a64(word: u32, text: &'static str, action: Action) -> Instruction {
    Instruction { word, bytes: 4, thumb: false, text, action }
}

const fn load(word: u32, text: &'static str, bytes: u8, signed: bool, wide: bool) -> Instruction {
    a64(word, text, Action::Load { target: Some(1), bytes, signed, wide, base: 28 })
}

const fn store(word: u32, text: &'static str, bytes: u8) -> Instruction {
    a64(word, text, Action::Store { source: Some(2), bytes, base: 28 })
}

const fn field(word: u32, text: &'static str, bit: u64, set: bool, privileged: bool) -> Instruction {
    a64(word, text, Action::Field { bit, set, privileged })
}

const LDR_X1: Instruction = load(0xf9400381, "ldr x1, [x28]", 8, false, true);
const STR_X2: Instruction = store(0xf9000382, "str x2, [x28]", 8);
const STR_XZR: Instruction =
    a64(0xf900039f, "str xzr, [x28]", Action::Store { source: None, bytes: 8, base: 28 });
const NOP: Instruction = a64(0xd503201f, "nop", Action::Nothing);
const ERET: Instruction = a64(0xd69f03e0, "eret", Action::ExceptionReturn);
const SYSTEM_OFF: [Instruction; 2] = [
    a64(0x52b08000, "mov w0, #0x84000000", Action::Constant { target: 0, value: 0x8400_0000, keep: 0 }),
    a64(0x72800100, "movk w0, #8", Action::Constant { target: 0, value: 8, keep: 0xffff_0000 }),
];
const HVC_0: Instruction = a64(0xd4000002, "hvc #0", Action::Hypercall { immediate: 0 });
const HVC_80: Instruction = a64(0xd4001002, "hvc #0x80", Action::Hypercall { immediate: 0x80 });
const HVC_7F: Instruction = a64(0xd4000fe2, "hvc #0x7f", Action::Hypercall { immediate: 0x7f });

/// Programs for every guest.
const EVERYWHERE: &[&[Instruction]] = &[
    &[LDR_X1],
    &[load(0xb9400381, "ldr w1, [x28]", 4, false, false)],
    &[load(0x79400381, "ldrh w1, [x28]", 2, false, false)],
    &[load(0x39400381, "ldrb w1, [x28]", 1, false, false)],
    &[load(0x39800381, "ldrsb x1, [x28]", 1, true, true)],
    &[load(0x39c00381, "ldrsb w1, [x28]", 1, true, false)],
    &[load(0x79800381, "ldrsh x1, [x28]", 2, true, true)],
    &[load(0x79c00381, "ldrsh w1, [x28]", 2, true, false)],
    &[load(0xb9800381, "ldrsw x1, [x28]", 4, true, true)],
    &[a64(
        0xf940039f,
        "ldr xzr, [x28]",
        Action::Load { target: None, bytes: 8, signed: false, wide: true, base: 28 },
    )],
    &[STR_X2],
    &[store(0xb9000382, "str w2, [x28]", 4)],
    &[store(0x79000382, "strh w2, [x28]", 2)],
    &[store(0x39000382, "strb w2, [x28]", 1)],
    &[a64(0xa9400b81, "ldp x1, x2, [x28]", Action::Unsyndromed { write: false, base: 28, offset: 0 })],
    &[a64(0xa9000b81, "stp x1, x2, [x28]", Action::Unsyndromed { write: true, base: 28, offset: 0 })],
    &[a64(0xf8408781, "ldr x1, [x28], #8", Action::Unsyndromed { write: false, base: 28, offset: 0 })],
    &[a64(0xf8008f81, "str x1, [x28, #8]!", Action::Unsyndromed { write: true, base: 28, offset: 8 })],
    &[a64(0xd50344ff, "msr daifclr, #4", Action::Mask { set: false, bits: Pstate::A }), LDR_X1],
    &[a64(0xd5034fff, "msr daifclr, #15", Action::Mask { set: false, bits: Pstate::DAIF }), STR_X2],
    &[a64(0xd50344df, "msr daifset, #4", Action::Mask { set: true, bits: Pstate::A }), STR_X2],
    &[
        NOP,
        a64(0xd50344ff, "msr daifclr, #4", Action::Mask { set: false, bits: Pstate::A }),
        a64(0xd5034fdf, "msr daifset, #15", Action::Mask { set: true, bits: Pstate::DAIF }),
        LDR_X1,
    ],
    &[NOP, STR_XZR],
];

/// Programs for a guest without EL2.
const ALONE: &[&[Instruction]] = &[
    &[HVC_0, STR_X2],
    &[HVC_80, LDR_X1],
    &[SYSTEM_OFF[0], SYSTEM_OFF[1], HVC_80],
    &[SYSTEM_OFF[0], SYSTEM_OFF[1], HVC_7F],
    &[a64(0xd4001001, "svc #0x80", Action::SupervisorCall { immediate: 0x80 })],
    &[a64(0x00000000, "udf #0", Action::Undefined)],
    &[ERET],
    &[a64(0xd61f0320, "br x25", Action::BranchTo(25))],
    &[a64(
        0xf9400341,
        "ldr x1, [x26]",
        Action::Load { target: Some(1), bytes: 8, signed: false, wide: true, base: 26 },
    )],
    &[a64(0xd61f0340, "br x26", Action::BranchTo(26))],
    &[field(0xd500419f, "msr pan, #1", Pstate::PAN, true, true), STR_X2],
    &[field(0xd500409f, "msr pan, #0", Pstate::PAN, false, true), STR_X2],
    &[field(0xd500417f, "msr uao, #1", Pstate::UAO, true, true), STR_X2],
    &[field(0xd503415f, "msr dit, #1", Pstate::DIT, true, false), STR_X2],
    &[field(0xd503403f, "msr ssbs, #0", Pstate::SSBS, false, false), STR_X2],
    &[field(0xd503413f, "msr ssbs, #1", Pstate::SSBS, true, false), STR_X2],
];

/// Each vector: report by MMIO.
const REPORT: &[Instruction] = &[STR_XZR, LDR_X1];
/// Each vector: return.
const RETURN: &[Instruction] = &[NOP, ERET];
/// Each vector: stop the machine, by a call whose syndrome looks like S1PTW.
const STOP: &[Instruction] = &[SYSTEM_OFF[0], SYSTEM_OFF[1], HVC_80];

fn back(offset: i64) -> Instruction {
    let imm26 = (offset >> 2) as u32 & 0x3ff_ffff;
    a64(0x1400_0000 | imm26, "b", Action::Branch(offset))
}

/// The code; `alone`: without EL2.
pub(super) fn fill(code: &mut Code, alone: bool) {
    for body in EVERYWHERE.iter().chain(if alone { ALONE } else { &[] }) {
        code.add_program(body, false, back);
    }
    let handlers: &[&[Instruction]] = if alone { &[REPORT, RETURN, STOP, REPORT] } else { &[REPORT] };
    for (n, handler) in handlers.iter().enumerate() {
        let base = RAM.0 + 0x1000 + n as u64 * 0x800;
        code.add_table(base);
        for vector in (0..0x800).step_by(0x80) {
            let end = code.put(base + vector, handler);
            code.put(end, &[back((base + vector).wrapping_sub(end) as i64)]);
        }
    }
    code.add_probes(STR_XZR);
}
