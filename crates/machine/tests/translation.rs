//! Translated code in lockstep with the interpreter: two machines, one with each, are equal by state hash after each cut.

mod support;

use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, FpSimdState, StorePolicy, Translation};
use support::arbitrary::{value, word};
use support::{CODE, DATA, EL0, Guest, HARDWARE_UPDATE, TCR};

/// Data processing, loads and stores of all widths and modes, and branches within a few instructions, on few registers: what
/// is translated, and close together.
fn common() -> impl Strategy<Value = u32> {
    let registers = |word: u32, [d, n, m, a]: [u32; 4]| word & !0x1f_7fff | d | n << 5 | a << 10 | m << 16;
    let data = prop::sample::select(vec![
        0x0b00_0000_u32, 0x2b00_0000, 0x4b00_0000, 0x6b00_0000, 0x0b20_0000, 0x6b20_0000, 0x0a00_0000, 0x2a00_0000,
        0x4a00_0000, 0x6a00_0000, 0x6a20_0000, 0x1a00_0000, 0x3a00_0000, 0x7a00_0000, 0x1a80_0000, 0x5a80_0400,
        0x1ac0_0800, 0x1ac0_0c00, 0x1ac0_2000, 0x1ac0_2400, 0x1ac0_2800, 0x1ac0_2c00, 0x1b00_0000, 0x1b00_8000,
        0x9b20_0000, 0x9b20_8000, 0x9bc0_7c00, 0x9b40_7c00, 0x9ba0_0000, 0x5ac0_1000, 0x5ac0_0800, 0xdac0_0c00,
        0x1380_0000, 0x7a40_0800, 0x3a40_0000, 0x7a40_1000,
    ]);
    let immediate = prop::sample::select(vec![
        0x1100_0000_u32, 0x3100_0000, 0x5100_0000, 0x7100_0000, 0x1200_0000, 0x3200_0000, 0x5200_0000, 0x7200_0000,
        0x1280_0000, 0x5280_0000, 0x7280_0000, 0x1300_0000, 0x3300_0000, 0x5300_0000, 0x1000_0000, 0x9000_0000,
    ]);
    let memory = prop::sample::select(vec![
        0x3940_0000_u32, 0x3900_0000, 0x7940_0000, 0x7900_0000, 0xb940_0000, 0xb900_0000, 0xf940_0000, 0xf900_0000,
        0x3980_0000, 0x39c0_0000, 0x7980_0000, 0x79c0_0000, 0xb980_0000, 0xf840_0400, 0xf800_0400, 0x3840_0c00,
        0xb800_0c00, 0x3880_0400, 0xb880_0c00, 0xf860_6800, 0xf820_6800, 0xb860_4800, 0x3820_c800, 0x3860_d800,
        0xa940_0000, 0xa900_0000, 0xa8c0_0000, 0xa980_0000, 0x2940_0000, 0x2900_0000, 0x6940_0000, 0xc8df_fc00,
        0x889f_fc00, 0x08df_fc00, 0x3dc0_0000, 0x3d80_0000, 0xfd40_0000, 0xbd00_0000, 0xad40_0000, 0xad00_0000,
        0x6cc0_0000, 0x2d80_0000, 0x3ce0_6800, 0x3ca0_7800, 0x5800_0000, 0x9c00_0000, 0xc85f_7c00, 0xc800_7c00,
        0xf820_0000, 0xb8e0_8000, 0xc8e0_fc00,
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
        1 => prop::sample::select(vec![0xd65f_00c0_u32, 0xd61f_00a0, 0xd63f_0080, 0xd538_4100, 0xd538_d081, 0xd53b_d042]),
        1 => word(),
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
    stores_abort: bool,
    poison: Vec<u64>,
    budgets: Vec<u64>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let data = prop_oneof![
        4 => (0..0x2000_u64).prop_map(|offset| DATA + offset),
        1 => (0..0x100_u64).prop_map(|offset| CODE + offset),
        2 => value(),
    ];
    let code = prop_oneof![
        3 => prop::collection::vec(common(), 1..80),
        1 => prop::collection::vec(word(), 1..80),
    ];
    (
        (code, prop::collection::vec(data, 31), prop::option::of(any::<[u64; 2]>())),
        (any::<bool>(), any::<bool>(), any::<bool>()),
        prop::collection::vec(value(), 0..3),
        prop::collection::vec(prop_oneof![1..8_u64, 1..200_u64, 1..2000_u64], 1..12),
    )
        .prop_map(|((code, registers, vectors), (at_el0, mapped, stores_abort), poison, budgets)| Plan {
            code,
            registers,
            vectors,
            at_el0,
            mapped,
            stores_abort,
            poison,
            budgets,
        })
}

fn guest(plan: &Plan, translation: Translation) -> Guest {
    let store_policy = if plan.stores_abort { StorePolicy::Abort } else { StorePolicy::Defer };
    let mut guest = Guest::with(&plan.code, Config { store_policy, ..Config::default() });
    guest.vm.set_translation(translation);
    if plan.mapped {
        guest = guest.map();
        guest.set(Reg::TcrEl1, TCR | HARDWARE_UPDATE);
        guest.change_page(DATA, EL0, 0);
        guest.code_at(DATA, &plan.code);
    }
    if plan.at_el0 {
        guest.set(Reg::Pstate, 0);
        guest.set(Reg::Pc, DATA);
        if !plan.mapped {
            guest.code_at(DATA, &plan.code);
        }
    }
    for (n, value) in plan.registers.iter().enumerate() {
        guest.set(Reg::X(n as u8), *value);
    }
    if let Some([low, high]) = plan.vectors {
        guest.set(Reg::CpacrEl1, 3 << 20);
        let vregs = std::array::from_fn(|n| (u128::from(low) | u128::from(high) << 64).rotate_left(n as u32));
        let state = FpSimdState { vregs, ..FpSimdState::default() };
        guest.vm.vcpu(0).expect("CPU 0").set_fp_simd(&state).expect("any state");
    }
    for pa in &plan.poison {
        // Poison outside RAM is refused.
        let _ = guest.vm.poison(*pa..pa.saturating_add(1));
    }
    guest
}

/// Run and answer what comes. Gives what came.
fn go(guest: &mut Guest, budget: u64) -> String {
    let mut vcpu = guest.vm.vcpu(0).expect("CPU 0");
    vcpu.set_budget(Some(budget));
    let result = vcpu.run();
    let said = format!("{result:x?}");
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn translated_code_and_the_interpreter_are_equal_after_every_budget(plan in plan()) {
        let mut interpreted = guest(&plan, Translation::Off);
        let mut translated = guest(&plan, Translation::AtFirstUse);
        for budget in &plan.budgets {
            prop_assert_eq!(go(&mut interpreted, *budget), go(&mut translated, *budget));
            let pc = interpreted.get(Reg::Pc);
            for n in 0..31 {
                prop_assert_eq!(interpreted.x(n), translated.x(n), "x{} at {:#x}", n, pc);
            }
            prop_assert_eq!(
                interpreted.vm.state_hash(), translated.vm.state_hash(),
                "{:x?} {:x?} pstate {:#x} {:#x}", interpreted.taken(), translated.taken(),
                interpreted.get(Reg::Pstate), translated.get(Reg::Pstate)
            );
        }
    }
}
