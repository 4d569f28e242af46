//! Translated code in lockstep with the interpreter: two machines, one with each, are equal by state hash after each cut.

mod plan;
#[path = "../support/mod.rs"]
mod support;

use plan::{guest, near, plan};
use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Snapshot, Translation};
use support::{CODE, DATA, EL0, GUARDED, Guest, LOOP};

const NOP: u32 = 0xd503_201f;

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
