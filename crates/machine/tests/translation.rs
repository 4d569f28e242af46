//! Translated code in lockstep with the interpreter: two machines, one with each, are equal by state hash after each cut.

mod support;

use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, FpSimdState, Snapshot, StorePolicy, Translation};
use support::arbitrary::{value, word};
use support::{AF, CODE, DATA, EL0, GUARDED, Guest, HARDWARE_UPDATE, LOOP, READ_ONLY, TCR, VECTORS};

const NOP: u32 = 0xd503_201f;
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
fn near() -> impl Strategy<Value = u32> {
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
struct Plan {
    code: Vec<u32>,
    registers: Vec<u64>,
    vectors: Option<[u64; 2]>,
    at_el0: bool,
    mapped: bool,
    /// The first page of data is guarded (FEAT_BTI).
    guarded: bool,
    stores_abort: bool,
    /// What is different about the second page of data: set and cleared in its descriptor.
    page: (u64, u64),
    poison: Vec<u64>,
    budgets: Vec<u64>,
}

fn plan() -> impl Strategy<Value = Plan> {
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

fn guest(plan: &Plan, cpus: usize, translation: Translation) -> Guest {
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

/// Answer what a CPU asks of the host. Gives what it asked.
fn answer(guest: &mut Guest, cpu: usize, result: &Result<Exit, seawall_machine::Error>) -> String {
    let said = format!("{cpu} {result:x?}");
    let mut vcpu = guest.vm.vcpu(cpu).expect("a CPU");
    match result {
        Ok(Exit::Sea(exit)) => {
            let events = VcpuEvents {
                ext_iabt_pending: exit.is_fetch(),
                ext_dabt_pending: !exit.is_fetch(),
                ..VcpuEvents::default()
            };
            vcpu.inject(&events).expect("an abort can be injected");
        }
        Ok(Exit::Mmio(_)) => vcpu.answer_mmio([0xa5; 8]),
        _ => {}
    }
    said
}

/// Run one CPU and answer what comes. Gives what came.
fn go(guest: &mut Guest, budget: u64) -> String {
    let mut vcpu = guest.vm.vcpu(0).expect("CPU 0");
    vcpu.set_budget(Some(budget));
    let result = vcpu.run();
    answer(guest, 0, &result)
}

/// Run all CPUs.
fn go_all(guest: &mut Guest, budget: u64) -> String {
    guest.vm.set_budget(Some(budget));
    match guest.vm.run() {
        Ok((cpu, exit)) => answer(guest, cpu, &Ok(exit)),
        Err(error) => error.to_string(),
    }
}

/// The two are equal, which if not is said by registers first.
fn same(interpreted: &mut Guest, translated: &mut Guest) -> Result<(), TestCaseError> {
    if interpreted.vm.state_hash() != translated.vm.state_hash() {
        let mut registers = |n| (interpreted.x(n), translated.x(n));
        let different: Vec<_> = (0..31).map(|n| (n, registers(n))).filter(|(_, (a, b))| a != b).collect();
        prop_assert!(
            false,
            "{different:x?} {:x?} {:x?} pstate {:#x} {:#x}",
            interpreted.taken(),
            translated.taken(),
            interpreted.get(Reg::Pstate),
            translated.get(Reg::Pstate)
        );
    }
    Ok(())
}

/// The machine goes on in another that is made of its snapshot.
fn through_a_snapshot(guest: &mut Guest, translation: Translation) -> Snapshot {
    let snapshot = guest.vm.snapshot().expect("room for it");
    guest.vm = snapshot.machine().expect("room for it");
    guest.vm.set_translation(translation);
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn accesses_near_to_each_other_and_to_the_end_of_a_page_are_equal_after_every_budget(
        mut plan in plan(),
        code in prop::collection::vec(near(), 4..60),
        bases in [-0xa0..0xa0_i64, -0xa0..0xa0_i64, -0xa0..0xa0_i64, -0xa0..0xa0_i64],
        (step, poison) in (prop::sample::select(vec![1, 8, 16]), prop::option::of(-2..2_i64)),
    ) {
        let near = |bytes: i64| (DATA + 0x1000).wrapping_add_signed(bytes);
        plan.code = code;
        for (n, base) in bases[..3].iter().enumerate() {
            plan.registers[8 + n] = near(base & -step);
        }
        plan.poison.extend(poison.map(|line| near(64 * line)));
        let with_sp = |translation| {
            let mut guest = guest(&plan, 1, translation);
            let sp = near(bases[3] & -step);
            guest.set(Reg::SpEl1, sp);
            guest.set(Reg::SpEl0, sp);
            guest
        };
        let (mut interpreted, mut translated) = (with_sp(Translation::Off), with_sp(Translation::AtFirstUse));
        for budget in &plan.budgets {
            prop_assert_eq!(go(&mut interpreted, *budget), go(&mut translated, *budget));
            same(&mut interpreted, &mut translated)?;
        }
    }

    #[test]
    fn translated_code_and_the_interpreter_are_equal_after_every_budget(plan in plan()) {
        let mut interpreted = guest(&plan, 1, Translation::Off);
        let mut translated = guest(&plan, 1, Translation::AtFirstUse);
        for budget in &plan.budgets {
            prop_assert_eq!(go(&mut interpreted, *budget), go(&mut translated, *budget));
            same(&mut interpreted, &mut translated)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn several_cpus_are_equal_in_translated_code_and_in_the_interpreter(plan in plan()) {
        let mut interpreted = guest(&plan, 3, Translation::Off);
        let mut translated = guest(&plan, 3, Translation::AtFirstUse);
        for budget in &plan.budgets {
            let budget = 37 * budget;
            prop_assert_eq!(go_all(&mut interpreted, budget), go_all(&mut translated, budget));
            same(&mut interpreted, &mut translated)?;
        }
    }

    #[test]
    fn a_snapshot_of_either_goes_on_in_the_other_and_machines_of_one_share_translations(plan in plan()) {
        let mut interpreted = guest(&plan, 1, Translation::Off);
        let mut translated = guest(&plan, 1, Translation::AtFirstUse);
        for budget in &plan.budgets {
            prop_assert_eq!(go(&mut interpreted, *budget), go(&mut translated, *budget));
            same(&mut interpreted, &mut translated)?;
            through_a_snapshot(&mut interpreted, Translation::Off);
            // A machine that translates what the next one finds translated, and writes to it.
            let snapshot = through_a_snapshot(&mut translated, Translation::AtFirstUse);
            let mut first = Guest { vm: snapshot.machine().expect("room for it") };
            first.vm.set_translation(Translation::AtFirstUse);
            go(&mut first, *budget);
        }
    }

    #[test]
    fn the_two_may_be_changed_for_each_other_at_any_time(plan in plan()) {
        let mut interpreted = guest(&plan, 1, Translation::Off);
        let mut changed = guest(&plan, 1, Translation::AtFirstUse);
        let modes = [Translation::Hot, Translation::Off, Translation::AtFirstUse];
        for (budget, mode) in plan.budgets.iter().zip(modes.into_iter().cycle()) {
            prop_assert_eq!(go(&mut interpreted, *budget), go(&mut changed, *budget));
            same(&mut interpreted, &mut changed)?;
            changed.vm.set_translation(mode);
        }
    }
}

/// Equal after each number of steps.
fn lockstep(make: impl Fn() -> Guest, most: u64) {
    for steps in 0..most {
        let [interpreted, translated] = [Translation::Off, Translation::AtFirstUse].map(|translation| {
            let mut guest = make();
            guest.vm.set_translation(translation);
            let said = go(&mut guest, steps);
            (said, guest.vm.state_hash())
        });
        assert_eq!(interpreted, translated, "after {steps} steps");
    }
}

#[test]
fn a_branch_with_the_last_step_of_a_budget_has_landed() {
    // br x1; nop; nop: br x1 clears BTYPE where it lands, though nothing is translated there.
    lockstep(
        || {
            let mut guest = Guest::new(&[NOP, 0xd61f_0020, NOP, LOOP]);
            guest.set(Reg::X(1), CODE + 12);
            guest
        },
        6,
    );
}

/// Arm ARM, BTypeCompatible_BTI.
#[test]
fn branches_land_in_guarded_pages_on_landing_pads_alone_and_leave_them_freely() {
    // blr x1; subs x4, x4, #1; b.ne .-8; br x2; at DATA, which is guarded: bti c; add x0, x0, #1; ret; br x3; bti j; br x1.
    let code = [0xd63f_0020, 0xf100_0484, 0x54ff_ffc1, 0xd61f_0040];
    let guarded = [0xd503_245f, 0x9100_0400, 0xd65f_03c0, 0xd61f_0060, 0xd503_249f, 0xd61f_0020];
    let make = |pad: u64| {
        let mut guest = Guest::mapped(&code);
        guest.code_at(DATA, &guarded);
        guest.change_page(DATA, GUARDED, 0);
        guest.set(Reg::X(1), DATA);
        guest.set(Reg::X(2), DATA + pad);
        guest.set(Reg::X(4), 3);
        guest
    };
    // BR from a page that is not guarded lands on BTI J, and BR in a guarded one, with BTYPE 11, not on BTI C.
    lockstep(|| make(16), 25);
    let mut guest = make(16);
    guest.steps(22);
    assert_eq!((guest.x(0), guest.get(Reg::EsrEl1), guest.get(Reg::ElrEl1)), (3, 0x3600_0003, DATA));
    // BR, with BTYPE 01, does not land on another instruction.
    lockstep(|| make(12), 25);
    let mut guest = make(12);
    guest.steps(20);
    assert_eq!((guest.x(0), guest.get(Reg::EsrEl1), guest.get(Reg::ElrEl1)), (3, 0x3600_0001, DATA + 12));
}

#[test]
fn what_an_exception_return_unmasks_is_taken_before_the_next_instruction() {
    // eret; nop; nop; b .: to the nops with SErrors unmasked.
    lockstep(
        || {
            let mut guest = Guest::new(&[0xd69f_03e0, NOP, NOP, LOOP]);
            guest.set(Reg::ElrEl1, CODE + 4);
            guest.set(Reg::SpsrEl1, 0x2c5);
            let serror = VcpuEvents { serror_pending: true, ..VcpuEvents::default() };
            guest.vm.vcpu(0).expect("CPU 0").inject(&serror).expect("an SError waits");
            guest
        },
        6,
    );
}

#[test]
fn a_loop_ends_at_any_step_and_with_its_flags() {
    // add x1, x1, x0; subs x0, x0, #1; b.hi .-8; nop; b .
    let code = [0x8b00_0021, 0xf100_0400, 0x54ff_ffc8, NOP, LOOP];
    lockstep(
        || {
            let mut guest = Guest::new(&code);
            guest.set(Reg::X(0), 5);
            guest
        },
        24,
    );
}

#[test]
fn code_that_writes_over_itself_in_a_loop_is_executed_as_written() {
    // str w2, [x1]; add w2, w2, w3; nop (written); subs x4, x4, #1; b.ne .-16; b .
    let code = [0xb900_0022, 0x0b03_0042, NOP, 0xf100_0484, 0x54ff_ff81, LOOP];
    lockstep(
        || {
            let mut guest = Guest::new(&code);
            guest.set(Reg::X(1), CODE + 8);
            // add x0, x0, #1, then #2, and so on.
            guest.set(Reg::X(2), 0x9100_0400);
            guest.set(Reg::X(3), 0x400);
            guest.set(Reg::X(4), 6);
            guest
        },
        34,
    );
}

#[test]
fn dc_zva_clears_a_line_and_its_poison_whether_or_not_the_tlb_has_the_page() {
    for at_el0 in [false, true] {
        lockstep(
            || {
                // str x2, [x1]; dc zva, x1; dc zva, x3; dc zva, x4; mrs x5, dczid_el0; b .
                let code = [0xf900_0022, 0xd50b_7421, 0xd50b_7423, 0xd50b_7424, 0xd53b_00e5, LOOP];
                let mut guest = Guest::mapped(&code);
                guest.code_at(DATA, &code);
                guest.change_page(DATA, EL0, 0);
                guest.change_page(DATA + 0x1000, EL0, 0);
                for (n, va) in [(1, DATA + 0x1048), (3, DATA + 0x1fff), (4, CODE + 0x100)] {
                    guest.set(Reg::X(n), va);
                }
                guest.set(Reg::X(2), u64::MAX);
                guest.vm.poison(DATA + 0x1fc0..DATA + 0x1fc1).expect("RAM");
                if at_el0 {
                    guest.set(Reg::Pstate, 0);
                    guest.set(Reg::Pc, DATA);
                }
                guest
            },
            8,
        );
    }
}

#[test]
fn machines_of_one_snapshot_on_several_threads_are_equal_to_the_interpreter() {
    // A loop of loads and stores that calls a function, through which the translations of two pages are made at once.
    let mut origin =
        Guest::mapped(&[0xf940_0020, 0x9100_0400, 0xf900_0020, 0x9400_0bfd, 0xf100_0442, 0x54ff_ff61, LOOP]);
    origin.code_at(CODE + 0x3000, &[0x8b02_0063, 0xd65f_03c0]);
    origin.set(Reg::X(1), DATA);
    origin.set(Reg::X(2), 1000);
    let snapshot = origin.vm.snapshot().expect("room for it");
    let run = |translation| {
        let mut vm = snapshot.machine().expect("room for it");
        vm.set_translation(translation);
        let mut guest = Guest { vm };
        guest.steps(6000);
        (guest.x(3), guest.vm.state_hash())
    };
    let expected = run(Translation::Off);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..50).map(|_| run(Translation::AtFirstUse)).collect::<Vec<_>>()))
            .collect();
        for thread in threads {
            assert!(thread.join().expect("no panic").iter().all(|found| *found == expected));
        }
    });
}

#[test]
fn a_host_that_has_translations_says_so() {
    let mut guest = Guest::new(&[LOOP]);
    guest.vm.set_translation(Translation::AtFirstUse);
    let has = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    assert_eq!(guest.vm.translation() == Translation::AtFirstUse, has);
    guest.vm.set_translation(Translation::Off);
    assert_eq!(guest.vm.translation(), Translation::Off);
}
