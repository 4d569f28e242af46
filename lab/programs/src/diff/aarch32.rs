//! The A32 and T32 code. Words are the output of `llvm-mc -triple=armv8-a` and `-triple=thumbv8-a
//! -mattr=+virtualization --show-encoding`; the first halfword of a 32-bit T32 instruction is the low one.
//!
//! R7 holds an MMIO address. Registers above R7 are not used, because some modes have their own.

use seawall_arm::Pstate;

use super::code::{Action, Code, HIGH, Instruction, RAM};

const fn a32(word: u32, text: &'static str, action: Action) -> Instruction {
    Instruction { word, bytes: 4, thumb: false, text, action }
}

const fn t32(bytes: u8, word: u32, text: &'static str, action: Action) -> Instruction {
    Instruction { word, bytes, thumb: true, text, action }
}

const fn load(bytes: u8, signed: bool) -> Action {
    Action::Load { target: Some(1), bytes, signed, wide: false, base: 7 }
}

const fn store(bytes: u8) -> Action {
    Action::Store { source: Some(2), bytes, base: 7 }
}

const fn unsyndromed(write: bool, offset: u64) -> Action {
    Action::Unsyndromed { write, base: 7, offset }
}

const A: u64 = Pstate::A;
const AIF: u64 = Pstate::A | Pstate::I | Pstate::F;
const MASK_A: Action = Action::Mask { set: true, bits: A };
const UNMASK_A: Action = Action::Mask { set: false, bits: A };
/// PSCI `SYSTEM_OFF` into R0.
const LOW: Action = Action::Constant { target: 0, value: 8, keep: 0 };
const HIGH_HALF: Action = Action::Constant { target: 0, value: 0x8400_0000, keep: 0xffff };

const LDR: Instruction = a32(0xe5971000, "ldr r1, [r7]", load(4, false));
const STR: Instruction = a32(0xe5872000, "str r2, [r7]", store(4));
const STR_T32: Instruction = t32(2, 0x603a, "str.n r2, [r7]", store(4));
const STR_W: Instruction = t32(4, 0x2000_f8c7, "str.w r2, [r7]", store(4));
const LDR_T32: Instruction = t32(2, 0x6839, "ldr.n r1, [r7]", load(4, false));

const A32: &[&[Instruction]] = &[
    &[LDR],
    &[a32(0xe1d710b0, "ldrh r1, [r7]", load(2, false))],
    &[a32(0xe5d71000, "ldrb r1, [r7]", load(1, false))],
    &[a32(0xe1d710d0, "ldrsb r1, [r7]", load(1, true))],
    &[a32(0xe1d710f0, "ldrsh r1, [r7]", load(2, true))],
    &[STR],
    &[a32(0xe1c720b0, "strh r2, [r7]", store(2))],
    &[a32(0xe5c72000, "strb r2, [r7]", store(1))],
    &[a32(0xe8970006, "ldm r7, {r1, r2}", unsyndromed(false, 0))],
    &[a32(0xe8870006, "stm r7, {r1, r2}", unsyndromed(true, 0))],
    &[a32(0xe4971008, "ldr r1, [r7], #8", unsyndromed(false, 0))],
    &[a32(0xe5a71008, "str r1, [r7, #8]!", unsyndromed(true, 8))],
    &[a32(0xf1080100, "cpsie a", UNMASK_A), LDR],
    &[a32(0xf10c0100, "cpsid a", MASK_A), STR],
    &[a32(0xf10801c0, "cpsie aif", Action::Mask { set: false, bits: AIF }), STR],
    &[
        a32(0xe320f000, "nop", Action::Nothing),
        a32(0xf1080100, "cpsie a", UNMASK_A),
        a32(0xf10c01c0, "cpsid aif", Action::Mask { set: true, bits: AIF }),
        LDR,
    ],
    &[a32(0xe1400070, "hvc #0", Action::Hypercall { immediate: 0 }), STR],
    &[
        a32(0xe3000008, "movw r0, #8", LOW),
        a32(0xe3480400, "movt r0, #0x8400", HIGH_HALF),
        a32(0xe1400870, "hvc #0x80", Action::Hypercall { immediate: 0x80 }),
    ],
];

const T32: &[&[Instruction]] = &[
    &[LDR_T32],
    &[t32(4, 0x1000_f8d7, "ldr.w r1, [r7]", load(4, false))],
    &[t32(2, 0x8839, "ldrh r1, [r7]", load(2, false))],
    &[t32(2, 0x7839, "ldrb r1, [r7]", load(1, false))],
    &[t32(4, 0x1000_f9b7, "ldrsh.w r1, [r7]", load(2, true))],
    &[STR_T32],
    &[t32(2, 0x803a, "strh r2, [r7]", store(2))],
    &[STR_W],
    &[t32(4, 0x0006_e897, "ldm.w r7, {r1, r2}", unsyndromed(false, 0))],
    &[t32(2, 0xb664, "cpsie a", UNMASK_A), LDR_T32],
    &[t32(2, 0xb674, "cpsid a", MASK_A), t32(2, 0xbf00, "nop", Action::Nothing), STR_W],
    &[
        t32(4, 0x0008_f240, "movw r0, #8", LOW),
        t32(4, 0x4000_f2c8, "movt r0, #0x8400", HIGH_HALF),
        t32(4, 0x8080_f7e0, "hvc.w #0x80", Action::Hypercall { immediate: 0x80 }),
    ],
];

/// The PC of A32 code is 8 bytes ahead, that of T32 code 4.
fn back_a32(offset: i64) -> Instruction {
    let imm24 = ((offset - 8) >> 2) as u32 & 0xff_ffff;
    a32(0xea00_0000 | imm24, "b", Action::Branch(offset))
}

fn back_t32(offset: i64) -> Instruction {
    let imm11 = ((offset - 4) >> 1) as u32 & 0x7ff;
    t32(2, 0xe000 | imm11, "b", Action::Branch(offset))
}

pub(super) fn fill(code: &mut Code) {
    for body in A32 {
        code.add_program(body, false, back_a32);
    }
    for body in T32 {
        code.add_program(body, true, back_t32);
    }
    // Eight vectors of 4 bytes, each of which stores; after them more exits.
    for table in [RAM.0 + 0x1000, HIGH.0] {
        let end = code.put(table, &[STR; 8]);
        let end = code.put(end, &[LDR]);
        code.put(end, &[back_a32(-4)]);
    }
    let table = RAM.0 + 0x1800;
    let end = code.put(table, &[STR_W; 8]);
    let end = code.put(end, &[LDR_T32]);
    code.put(end, &[back_t32(-2)]);
    code.add_table(RAM.0 + 0x1000);
    code.add_table(table);
    code.add_probes(STR);
}
