//! How the host cuts a run: budgets, alarms and kicks change nothing of what the guest does.

mod support;

use seawall_arm::Reg;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, StateHash};
use support::gic::{self, msr};
use support::{Guest, LOOP, VECTORS};

const SECOND: u64 = 0x400b_0000;
const WFI: u32 = 0xd503_207f;
const WFE: u32 = 0xd503_205f;
const NOP: u32 = 0xd503_201f;

/// Two CPUs with one code each, both on.
fn guest(first: &[u32], second: &[u32]) -> Guest {
    let mut guest = Guest::with(first, Config { cpus: 2, ..Config::default() });
    guest.code_at(SECOND, second);
    let mut vcpu = guest.vm.vcpu(1).unwrap();
    vcpu.set_on(true);
    vcpu.set_reg(Reg::Pc, SECOND).unwrap();
    vcpu.set_reg(Reg::VbarEl1, VECTORS).unwrap();
    guest
}

/// Runs for so many steps, each budget of them a run.
fn run(guest: &mut Guest, budgets: &[u64]) -> (Exit, StateHash) {
    let mut exit = Exit::Idle;
    for budget in budgets {
        guest.vm.set_budget(Some(*budget));
        exit = guest.vm.run().unwrap().1;
    }
    (exit, guest.vm.state_hash())
}

/// The rest of the turn was still there after a cut right behind the WFI.
#[test]
fn a_machine_that_goes_idle_is_in_the_same_state_wherever_the_run_was_cut() {
    let (exit, whole) = run(&mut guest(&[NOP, NOP, WFI], &[NOP, WFI]), &[100]);
    assert_eq!(exit, Exit::Idle);
    for cut in 1..=5 {
        let (exit, cut_state) = run(&mut guest(&[NOP, NOP, WFI], &[NOP, WFI]), &[cut, 100]);
        assert_eq!(exit, Exit::Idle, "{cut}");
        assert_eq!(cut_state, whole, "cut after {cut} steps");
    }
}

/// Two timers of one tick: the CPU whose turn it is next goes first.
#[test]
fn a_cpu_that_waits_has_given_up_its_turn_even_if_the_run_is_cut_behind_its_wfi() {
    let guest = || {
        let mut guest = guest(&[WFI, LOOP], &[WFI, LOOP]);
        for cpu in 0..2 {
            gic::open(&mut guest, cpu);
            gic::execute(&mut guest, cpu, msr::CNTV_CVAL_EL0, 5000, 0);
            gic::execute(&mut guest, cpu, msr::CNTV_CTL_EL0, 1, 0);
        }
        guest
    };
    let whole = run(&mut guest(), &[500]);
    for cut in 1..4 {
        assert_eq!(run(&mut guest(), &[cut, 500 - cut]), whole, "cut after {cut} steps");
    }
}

#[test]
fn an_alarm_ends_the_run_at_its_time_and_changes_nothing() {
    let (_, whole) = run(&mut guest(&[LOOP], &[LOOP]), &[25_000]);
    let mut guest = guest(&[LOOP], &[LOOP]);
    guest.vm.set_budget(Some(25_000));
    for at in [1, 9_999, 10_000, 12_345] {
        guest.vm.set_alarm(Some(at));
        assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
        assert_eq!((guest.vm.time(), guest.vm.budget()), (at, Some(25_000 - at)));
    }
    // One that was is none, and leaves no step to do.
    assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
    assert_eq!(guest.vm.time(), 12_345);
    guest.vm.set_alarm(None);
    assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
    assert_eq!(guest.vm.state_hash(), whole);
}

#[test]
fn time_goes_on_to_the_alarm_while_all_cpus_wait() {
    let mut guest = guest(&[WFI, LOOP], &[WFI, LOOP]);
    guest.vm.set_alarm(Some(1_000_001));
    assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
    assert_eq!((guest.vm.time(), guest.vm.instructions()), (1_000_001, 2));
    guest.vm.set_alarm(None);
    assert_eq!(guest.vm.run().unwrap().1, Exit::Idle);
}

#[test]
fn a_kick_ends_one_run_of_a_guest_that_never_exits() {
    let codes: [&[u32]; 4] = [
        &[LOOP],
        // tlbi vmalle1is; b . - 4
        &[0xd508_831f, 0x17ff_ffff],
        // wfe; b . - 4
        &[WFE, 0x17ff_ffff],
        // An exception at its own vector: .word 0
        &[0],
    ];
    for code in codes {
        let mut guest = guest(code, code);
        let kicker = guest.vm.kicker();
        kicker.kick();
        assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
        assert_eq!(guest.vm.instructions(), 0);
        std::thread::scope(|scope| {
            let end = scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                kicker.kick();
            });
            assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
            end.join().unwrap();
        });
        // A vCPU alone, as by KVM_RUN; one that waits for an event of another is idle.
        if code[0] == WFE {
            continue;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                kicker.kick();
            });
            assert_eq!(guest.vm.vcpu(0).unwrap().run().unwrap(), Exit::Intr);
        });
        guest.vm.set_budget(Some(7));
        let before = guest.vm.instructions();
        assert_eq!(guest.vm.run().unwrap().1, Exit::Intr);
        assert_eq!(guest.vm.instructions() - before, 7, "a kick counts once");
    }
}
