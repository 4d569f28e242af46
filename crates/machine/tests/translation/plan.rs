//! The programs and machines of the lockstep: code of what is translated, registers, pages, poison and budgets.

use proptest::prelude::*;
use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_machine::{Config, FpSimdState, StorePolicy, Translation};

use crate::support::arbitrary::{value, word};
use crate::support::{AF, CODE, DATA, EL0, GUARDED, Guest, HARDWARE_UPDATE, READ_ONLY, TCR, VECTORS};

/// FP and AdvSIMD that is translated, without register numbers: FADD, FSUB, FMUL, FDIV, FSQRT, FABS, FNEG, FCMP, FCMPE of both
/// precisions; FMOV of all kinds; MOVI, DUP, UMOV, INS; AND, BIC, ORR, EOR, ADD, SUB, CMEQ, UMAX, UMIN; MSR of FPSR and FPCR.
const VECTOR: [u32; 50] = [
    0x1e60_2800,
    0x1e20_2800,
    0x1e60_3800,
    0x1e20_3800,
    0x1e60_0800,
    0x1e20_0800,
    0x1e60_1800,
    0x1e20_1800,
    0x1e61_c000,
    0x1e21_c000,
    0x1e60_c000,
    0x1e20_c000,
    0x1e61_4000,
    0x1e21_4000,
    0x1e60_2000,
    0x1e20_2000,
    0x1e60_2010,
    0x1e20_2018,
    0x1e60_4000,
    0x1e20_4000,
    0x9e66_0000,
    0x9e67_0000,
    0x1e26_0000,
    0x1e27_0000,
    0x9eae_0000,
    0x1e6c_1000,
    0x4f03_e400,
    0x6f05_e400,
    0x0f02_e400,
    0x4e04_0c00,
    0x4e01_0c00,
    0x0e01_0c00,
    0x4e08_0c00,
    0x0e07_3c00,
    0x4e18_3c00,
    0x4e0c_1c00,
    0x6e05_2c00,
    0x4e20_1c00,
    0x0e60_1c00,
    0x4e60_1c00,
    0x4ea0_1c00,
    0x2e20_1c00,
    0x4e20_8400,
    0x0e60_8400,
    0x5ee0_8400,
    0x6ea0_8400,
    0x6ee0_8400,
    0x2e60_8c00,
    0x6e20_6400,
    0x6e20_6c00,
];
/// MRS of TCR_EL1, ESR_EL1, FAR_EL1, ELR_EL1, SPSR_EL1, DAIF, CTR_EL0, DCZID_EL0; DC ZVA; MSR of ELR_EL1, SPSR_EL1, SP_EL0,
/// TPIDR_EL0, TPIDR_EL1.
const SYSTEM: [u32; 16] = [
    0xd538_2040,
    0xd538_5201,
    0xd538_6002,
    0xd538_4023,
    0xd538_4000,
    0xd53b_4221,
    0xd53b_0022,
    0xd53b_00e3,
    0xd50b_7420,
    0xd50b_7421,
    0xd50b_7422,
    0xd518_4023,
    0xd518_401f,
    0xd518_4101,
    0xd51b_d042,
    0xd518_d080,
];

/// Data processing, loads and stores of all widths and modes, and branches within a few instructions, on few registers: what
/// is translated, and close together.
fn common() -> impl Strategy<Value = u32> {
    let registers = |word: u32, [d, n, m, a]: [u32; 4]| word & !0x1f_7fff | d | n << 5 | a << 10 | m << 16;
    let data = prop::sample::select(vec![
        0x0b00_0000_u32,
        0x2b00_0000,
        0x4b00_0000,
        0x6b00_0000,
        0x0b20_0000,
        0x6b20_0000,
        0x0a00_0000,
        0x2a00_0000,
        0x4a00_0000,
        0x6a00_0000,
        0x6a20_0000,
        0x1a00_0000,
        0x3a00_0000,
        0x7a00_0000,
        0x1a80_0000,
        0x5a80_0400,
        0x1ac0_0800,
        0x1ac0_0c00,
        0x1ac0_2000,
        0x1ac0_2400,
        0x1ac0_2800,
        0x1ac0_2c00,
        0x1b00_0000,
        0x1b00_8000,
        0x9b20_0000,
        0x9b20_8000,
        0x9bc0_7c00,
        0x9b40_7c00,
        0x9ba0_0000,
        0x5ac0_1000,
        0x5ac0_0800,
        0xdac0_0c00,
        0x1380_0000,
        0x7a40_0800,
        0x3a40_0000,
        0x7a40_1000,
    ]);
    let immediate = prop::sample::select(vec![
        0x1100_0000_u32,
        0x3100_0000,
        0x5100_0000,
        0x7100_0000,
        0x1200_0000,
        0x3200_0000,
        0x5200_0000,
        0x7200_0000,
        0x1280_0000,
        0x5280_0000,
        0x7280_0000,
        0x1300_0000,
        0x3300_0000,
        0x5300_0000,
        0x1000_0000,
        0x9000_0000,
    ]);
    let memory = prop::sample::select(vec![
        0x3940_0000_u32,
        0x3900_0000,
        0x7940_0000,
        0x7900_0000,
        0xb940_0000,
        0xb900_0000,
        0xf940_0000,
        0xf900_0000,
        0x3980_0000,
        0x39c0_0000,
        0x7980_0000,
        0x79c0_0000,
        0xb980_0000,
        0xf840_0400,
        0xf800_0400,
        0x3840_0c00,
        0xb800_0c00,
        0x3880_0400,
        0xb880_0c00,
        0xf860_6800,
        0xf820_6800,
        0xb860_4800,
        0x3820_c800,
        0x3860_d800,
        0xa940_0000,
        0xa900_0000,
        0xa8c0_0000,
        0xa980_0000,
        0x2940_0000,
        0x2900_0000,
        0x6940_0000,
        0xc8df_fc00,
        0x889f_fc00,
        0x08df_fc00,
        0x3dc0_0000,
        0x3d80_0000,
        0xfd40_0000,
        0xbd00_0000,
        0xad40_0000,
        0xad00_0000,
        0x6cc0_0000,
        0x2d80_0000,
        0x3ce0_6800,
        0x3ca0_7800,
        0x5800_0000,
        0x9c00_0000,
        0xc85f_7c00,
        0xc800_7c00,
        0xf820_0000,
        0xb8e0_8000,
        0xc8e0_fc00,
    ]);
    // B, BL, B.cond, CBZ, TBZ some instructions up or down.
    let branch = (0..5, -6..12_i32, any::<u32>()).prop_map(|(kind, offset, bits)| match kind {
        0 => 0x1400_0000 | offset as u32 & 0x3ff_ffff,
        1 => 0x9400_0000 | offset as u32 & 0x3ff_ffff,
        2 => 0x5400_0000 | (offset as u32 & 0x7_ffff) << 5 | bits & 15,
        3 => 0x3400_0000 | (offset as u32 & 0x7_ffff) << 5 | bits & 0x8100_0007,
        _ => 0x3600_0000 | (offset as u32 & 0x3fff) << 5 | bits & 0x81f8_0007,
    });
    let register = || prop_oneof![8 => 0..8_u32, 1 => Just(31_u32)];
    let quad = [register(), register(), register(), register()];
    prop_oneof![
        4 => (data, quad, any::<bool>(), any::<u32>()).prop_map(move |(word, [d, n, m, a], wide, bits)| {
            let word = registers(word, [d, n, m, 0]) | word & 0xfc00 | u32::from(wide) << 31;
            // Shift amounts, conditions and third operands.
            if bits & 1 == 0 { word } else { word | a << 10 | bits & 0x40_0000 }
        }),
        4 => (immediate, register(), register(), any::<u32>()).prop_map(|(word, d, n, bits)| {
            word | d | n << 5 | bits & 0x807f_fc00
        }),
        4 => (memory, register(), 0..4_u32, register(), any::<u32>()).prop_map(|(word, d, n, m, bits)| {
            // A register offset is a register; others are small.
            word | d | n << 5 | if word & 0x0020_0c00 == 0x0020_0800 { m << 16 } else { bits & 0x0007_0000 | bits & 0x1000 }
        }),
        2 => branch,
        // RET X6, BR X5, BLR X4, BR X16; MRS.
        1 => prop::sample::select(vec![
            0xd65f_00c0_u32, 0xd61f_00a0, 0xd63f_0080, 0xd61f_0200, 0xd538_4100, 0xd538_d081, 0xd53b_d042,
        ]),
        // BTI, BTI C, BTI J, BTI JC, PACIASP.
        1 => prop::sample::select(vec![0xd503_241f_u32, 0xd503_245f, 0xd503_249f, 0xd503_24df, 0xd503_233f]),
        1 => prop::sample::select(SYSTEM.to_vec()),
        2 => (prop::sample::select(VECTOR.to_vec()), [0..8_u32, 0..8, 0..8]).prop_map(|(word, [d, n, m])| {
            // Of FCMP and those with one source the fields that are no registers stay.
            let two = word & 0x0020_0400 == 0x0020_0400 || word & 0xff20_0c00 == 0x1e20_0800;
            word | n << 5 | if word & 0xff20_fc07 == 0x1e20_2000 { 0 } else { d } | if two { m << 16 } else { 0 }
        }),
        1 => prop::sample::select(vec![0xd51b_4420_u32, 0xd51b_4401, 0xd53b_4422]),
        1 => word(),
    ]
}

/// Loads and stores by the same few bases, some of which move, with a little arithmetic between them: LDR, STR, LDUR, STUR, LDP,
/// STP of all kinds, pre- and post-indexed ones, and of V registers.
pub(super) fn near() -> impl Strategy<Value = u32> {
    let scaled = prop::sample::select(vec![
        0xf940_0000_u32,
        0xf900_0000,
        0xb940_0000,
        0xb900_0000,
        0x7940_0000,
        0x3900_0000,
        0xfd40_0000,
        0x3d80_0000,
    ]);
    let other = prop::sample::select(vec![
        0xf840_0000_u32,
        0xf800_0000,
        0xf840_0400,
        0xf800_0c00,
        0xb880_0000,
        0x3800_0400,
    ]);
    let pair = prop::sample::select(vec![
        0xa940_0000_u32,
        0xa900_0000,
        0xa9c0_0000,
        0xa980_0000,
        0xa8c0_0000,
        0x2940_0000,
        0xad00_0000,
        0xacc0_0000,
    ]);
    // Now and then a base is loaded, or is SP.
    let target = || prop_oneof![12 => 0..8_u32, 1 => 8..11_u32];
    let base = || prop_oneof![6 => 8..11_u32, 1 => Just(31_u32)];
    prop_oneof![
        4 => (scaled, target(), base(), 0..10_u32).prop_map(|(word, d, n, at)| word | d | n << 5 | at << 10),
        2 => (other, target(), base(), -40..40_i32).prop_map(|(word, d, n, at)| word | d | n << 5 | (at as u32 & 0x1ff) << 12),
        3 => (pair, target(), target(), base(), -6..6_i32)
            .prop_map(|(word, d, a, n, at)| word | d | n << 5 | a << 10 | (at as u32 & 0x7f) << 15),
        1 => (8..11_u32, 0..64_u32).prop_map(|(n, more)| 0x9100_0000 | n | n << 5 | more << 10),
        1 => common(),
    ]
}

/// What is done to both machines.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) code: Vec<u32>,
    pub(super) registers: Vec<u64>,
    pub(super) vectors: Option<[u64; 2]>,
    pub(super) at_el0: bool,
    pub(super) mapped: bool,
    /// The first page of data is guarded (FEAT_BTI).
    pub(super) guarded: bool,
    pub(super) stores_abort: bool,
    /// What is different about the second page of data: set and cleared in its descriptor.
    pub(super) page: (u64, u64),
    pub(super) poison: Vec<u64>,
    pub(super) budgets: Vec<u64>,
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    let data = prop_oneof![
        4 => (0..0x2000_u64).prop_map(|offset| DATA + offset),
        1 => (0..0x100_u64).prop_map(|offset| CODE + offset),
        2 => value(),
    ];
    // Where BR, BLR and RET go.
    let target = || prop_oneof![3 => (0..80_u64).prop_map(|n| CODE + 4 * n), 1 => (0..80_u64).prop_map(|n| DATA + 4 * n)];
    let code = prop_oneof![
        3 => prop::collection::vec(common(), 1..80),
        1 => prop::collection::vec(word(), 1..80),
    ];
    let page =
        prop::sample::select(vec![(0, 0), (EL0, 0), (0, AF), (READ_ONLY, 0), (0, 1), (EL0 | READ_ONLY, 0)]);
    (
        (
            code,
            prop::collection::vec(data, 31),
            [target(), target(), target()],
            prop::option::of(any::<[u64; 2]>()),
        ),
        (any::<[bool; 4]>(), page),
        prop::collection::vec(value(), 0..3),
        prop::collection::vec(prop_oneof![1..8_u64, 1..200_u64, 1..2000_u64], 1..12),
    )
        .prop_map(
            |(
                (code, mut registers, targets, vectors),
                ([at_el0, mapped, guarded, stores_abort], page),
                poison,
                budgets,
            )| {
                registers[4..7].copy_from_slice(&targets);
                registers[16] = targets[0];
                Plan {
                    code,
                    registers,
                    vectors,
                    at_el0,
                    mapped,
                    guarded,
                    stores_abort,
                    page,
                    poison,
                    budgets,
                }
            },
        )
}

pub(super) fn guest(plan: &Plan, cpus: usize, translation: Translation) -> Guest {
    let store_policy = if plan.stores_abort { StorePolicy::Abort } else { StorePolicy::Defer };
    let mut guest = Guest::with(&plan.code, Config { store_policy, cpus, ..Config::default() });
    guest.vm.set_translation(translation);
    guest.code_at(DATA, &plan.code);
    if plan.mapped {
        guest = guest.map();
        guest.set(Reg::TcrEl1, TCR | HARDWARE_UPDATE);
        guest.change_page(DATA, if plan.guarded { EL0 | GUARDED } else { EL0 }, 0);
        guest.change_page(DATA + 0x1000, plan.page.0, plan.page.1);
    }
    if plan.at_el0 {
        guest.set(Reg::Pstate, 0);
        guest.set(Reg::Pc, DATA);
    }
    let vregs = plan.vectors.map(|[low, high]| {
        std::array::from_fn(|n| (u128::from(low) | u128::from(high) << 64).rotate_left(n as u32))
    });
    for cpu in 0..cpus {
        let mut vcpu = guest.vm.vcpu(cpu).expect("a CPU");
        vcpu.set_on(true);
        for (n, value) in plan.registers.iter().enumerate() {
            vcpu.set_reg(Reg::X(n as u8), *value).expect("X0 to X30");
        }
        if cpu != 0 {
            vcpu.set_reg(Reg::Pc, CODE + 4 * cpu as u64).expect("PC");
            vcpu.set_reg(Reg::VbarEl1, VECTORS).expect("VBAR_EL1");
        }
        if let Some(vregs) = vregs {
            vcpu.set_reg(Reg::CpacrEl1, 3 << 20).expect("CPACR_EL1");
            // Inexact is set, after which the host's arithmetic may answer, or not.
            let fpsr = (vregs[0] as u32 & 1) << 4;
            vcpu.set_fp_simd(&FpSimdState { vregs, fpsr, ..FpSimdState::default() }).expect("any state");
        }
    }
    for pa in &plan.poison {
        // Poison outside RAM is refused.
        let _ = guest.vm.poison(*pa..pa.saturating_add(1));
    }
    guest
}
