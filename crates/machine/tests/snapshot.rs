//! What goes on after a snapshot goes on the same after a restore, in a new machine, and in one from a file.

mod support;

use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_guest::{DemoOptions, demo_with, interrupts};
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_machine::memory::MemoryError;
use seawall_machine::{Config, Error, FpSimdState, RAM_BASE, Snapshot, StateHash, StorePolicy, Vm};
use support::arbitrary::{value, word};
use support::{CODE, DATA, EL0, Guest, HARDWARE_UPDATE, TCR};

/// Runs all CPUs for at most so many steps, with a host that answers everything alike; gives what the host saw.
fn play(vm: &mut Vm, steps: u64) -> Vec<(usize, Exit)> {
    vm.set_budget(Some(steps));
    let mut exits = Vec::new();
    while exits.len() < 200 {
        let (cpu, exit) = vm.run().expect("no host error");
        exits.push((cpu, exit));
        let mut vcpu = vm.vcpu(cpu).expect("that ran");
        match exit {
            Exit::Intr | Exit::Idle | Exit::SystemEvent(SystemEvent::Shutdown) => break,
            Exit::Sea(sea) => {
                let (ext_iabt_pending, ext_dabt_pending) = (sea.is_fetch(), !sea.is_fetch());
                let events = VcpuEvents { ext_iabt_pending, ext_dabt_pending, ..VcpuEvents::default() };
                vcpu.inject(&events).expect("one abort");
            }
            Exit::Nisv(_) => {
                let pc = vcpu.reg(Reg::Pc).expect("PC");
                vcpu.set_reg(Reg::Pc, pc.wrapping_add(4)).expect("PC");
            }
            Exit::Mmio(_) => vcpu.answer_mmio([0x90; 8]),
            _ => {}
        }
    }
    exits
}

/// What the host saw in each of several runs, and the state after each.
fn story(vm: &mut Vm, runs: &[u64]) -> Vec<(Vec<(usize, Exit)>, StateHash)> {
    runs.iter().map(|steps| (play(vm, *steps), vm.state_hash())).collect()
}

fn through_a_file(snapshot: &Snapshot) -> Snapshot {
    let mut file = Vec::new();
    snapshot.save(&mut file).expect("memory has room");
    Snapshot::load(&*file).expect("what was just saved")
}

/// The machine is snapshot, and what goes on then must go on the same each time.
fn check(vm: &mut Vm, runs: &[u64]) {
    let before = vm.state_hash();
    let snapshot = vm.snapshot().expect("room");
    assert_eq!(vm.state_hash(), before, "taking a snapshot changes nothing");
    let expected = story(vm, runs);
    let after = vm.snapshot().expect("room");

    vm.restore(&snapshot).expect("the same machine");
    assert_eq!(vm.state_hash(), before);
    assert_eq!(story(vm, runs), expected, "the same machine again");

    let mut other = snapshot.machine().expect("room");
    assert_eq!(other.state_hash(), before);
    assert_eq!(story(&mut other, runs), expected, "a new machine");

    let mut loaded = through_a_file(&snapshot).machine().expect("room");
    assert_eq!(loaded.state_hash(), before);
    assert_eq!(story(&mut loaded, runs), expected, "a machine from a file");

    // To and fro between two snapshots, also of another machine.
    for machine in [vm, &mut other, &mut loaded] {
        machine.restore(&after).expect("a machine alike");
        assert_eq!(Some(machine.state_hash()), expected.last().map(|(_, hash)| *hash));
        machine.restore(&snapshot).expect("a machine alike");
        assert_eq!(story(machine, runs), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_random_program_goes_on_the_same_after_a_restore(
        code in prop::collection::vec(word(), 1..64),
        second in prop::collection::vec(word(), 1..64),
        registers in prop::collection::vec(value(), 31),
        fp in any::<(u32, [u64; 4])>(),
        cpus in 1..3_usize,
        at_el0 in any::<bool>(),
        mapped in any::<bool>(),
        stores_abort in any::<bool>(),
        poison in prop::collection::vec(value(), 0..4),
        first in 0..400_u64,
        runs in prop::collection::vec(1..400_u64, 1..4),
    ) {
        let store_policy = if stores_abort { StorePolicy::Abort } else { StorePolicy::Defer };
        let mut guest = Guest::with(&code, Config { store_policy, cpus, ..Config::default() });
        if mapped {
            guest = guest.map();
            guest.set(Reg::TcrEl1, TCR | HARDWARE_UPDATE);
            guest.change_page(DATA, EL0, 0);
            guest.code_at(DATA, &code);
        }
        guest.code_at(CODE + 0x1000, &second);
        for cpu in 0..cpus {
            let mut vcpu = guest.vm.vcpu(cpu).expect("a CPU");
            vcpu.set_on(true);
            if cpu == 1 {
                vcpu.set_reg(Reg::Pc, CODE + 0x1000).expect("PC");
            } else if at_el0 {
                vcpu.set_reg(Reg::Pstate, 0).expect("PSTATE");
                vcpu.set_reg(Reg::Pc, DATA).expect("PC");
            }
            vcpu.set_reg(Reg::CpacrEl1, 3 << 20).expect("CPACR_EL1");
            for (n, value) in registers.iter().enumerate() {
                vcpu.set_reg(Reg::X(n as u8), *value).expect("Xn");
            }
            let mut state = FpSimdState { fpcr: fp.0, ..FpSimdState::default() };
            for (v, value) in state.vregs.iter_mut().zip(fp.1) {
                *v = u128::from(value) << 64 | u128::from(!value);
            }
            vcpu.set_fp_simd(&state).expect("FP registers");
        }
        for pa in poison {
            // Poison outside RAM is refused.
            let _ = guest.vm.poison(pa..pa.saturating_add(1));
        }
        play(&mut guest.vm, first);
        check(&mut guest.vm, &runs);
    }
}

/// A machine with a guest of the house loaded.
fn loaded<L>(image: &seawall_guest::Image<L>, config: Config) -> Vm {
    let mut vm = Vm::new(config).expect("room");
    vm.memory_mut().store(image.load_address, &image.bytes).expect("fits");
    vm.vcpu(0).expect("CPU 0").set_reg(Reg::Pc, image.entry).expect("PC");
    vm
}

#[test]
fn the_demo_guest_goes_on_the_same_wherever_the_snapshot_is_taken() {
    let image = demo_with(&DemoOptions::default());
    for first in [0, 1, 1000, 20_000, 54_321] {
        let mut vm = loaded(&image, Config::default());
        play(&mut vm, first);
        vm.poison(image.load_address + 0x1000..image.load_address + 0x1040).expect("in RAM");
        check(&mut vm, &[1, 9999, 40_000]);
    }
}

#[test]
fn timers_and_interrupts_come_at_the_same_step_after_a_restore() {
    let image = interrupts();
    for first in [500, 3000, 12_000, 70_000] {
        let mut vm = loaded(&image, Config::default());
        play(&mut vm, first);
        check(&mut vm, &[777, 30_000, 100_000]);
    }
}

#[test]
fn an_mmio_access_that_waits_is_answered_in_each_machine_of_the_snapshot() {
    // ldr x0, [x1]; ldr x2, [x1]
    let mut guest = Guest::new(&[0xf940_0020, 0xf940_0022]);
    guest.set(Reg::X(1), 0x0900_0000);
    guest.vm.set_budget(Some(10));
    assert!(matches!(guest.vm.run(), Ok((0, Exit::Mmio(_)))));
    let snapshot = guest.vm.snapshot().expect("room");
    for answer in [0x11, 0x22] {
        let mut vm = through_a_file(&snapshot).machine().expect("room");
        assert_eq!(vm.budget(), Some(10), "the access completes at the next run");
        let mut vcpu = vm.vcpu(0).expect("CPU 0");
        vcpu.answer_mmio([answer, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(vcpu.run(), Ok(Exit::Mmio(_))), "the second access");
        assert_eq!(vcpu.reg(Reg::X(0)), Ok(answer.into()));
    }
}

#[test]
fn many_machines_of_one_snapshot_run_side_by_side_and_do_not_see_each_other() {
    // str x0, [x1]; add x1, x1, #8; b .-8
    let mut guest = Guest::new(&[0xf900_0020, 0x9100_2021, 0x17ff_fffe]);
    guest.set(Reg::X(1), DATA);
    guest.vm.memory_mut().store(DATA + 0x10_0000, &vec![0xaa; 0x60_0000]).expect("in RAM");
    let snapshot = guest.vm.snapshot().expect("room");
    let run = |value: u64| {
        let mut vm = snapshot.machine().expect("room");
        vm.vcpu(0).expect("CPU 0").set_reg(Reg::X(0), value).expect("X0");
        play(&mut vm, 300_000);
        let mut bytes = [0; 16];
        vm.memory().load(DATA + 0x7_fff8, &mut bytes).expect("in RAM");
        (u128::from_le_bytes(bytes), vm.state_hash())
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..9).map(|value| scope.spawn(move || (value, run(value)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for (value, result) in results {
        assert_eq!(result.0, u128::from(value) << 64 | u128::from(value));
        assert_eq!(result, run(value));
    }
}

#[test]
fn code_that_was_written_after_the_snapshot_is_not_run_after_the_restore() {
    // add x0, x0, #1; b .-4
    let mut guest = Guest::new(&[0x9100_0400, 0x17ff_ffff]);
    let snapshot = guest.vm.snapshot().expect("room");
    guest.steps(100);
    // add x0, x0, #16
    guest.code_at(CODE, &[0x9100_4000]);
    guest.steps(100);
    guest.vm.restore(&snapshot).expect("the same machine");
    guest.steps(100);
    assert_eq!(guest.x(0), 50);
    let before = guest.vm.snapshot().expect("room");
    guest.code_at(CODE, &[0x9100_4000]);
    guest.steps(100);
    assert_eq!(guest.x(0), 50 + 50 * 16);
    guest.vm.restore(&before).expect("the same machine");
    guest.steps(100);
    assert_eq!(guest.x(0), 100);
}

#[test]
fn a_store_that_never_enters_the_tlb_is_undone_by_a_restore() {
    // Around DATA + 0x800 a watchpoint, of EL0 alone: stores to the page go the long way. msr dbgwvr0_el1, x2;
    // msr dbgwcr0_el1, x3; msr mdscr_el1, x4; isb; str x0, [x1]; then ldxr, stxr; dc zva of another page
    let code = [0xd510_00c2, 0xd510_00e3, 0xd510_0244, 0xd503_3fdf];
    let stores = [0xf900_0020, 0xc85f_7c25, 0xc806_7c20, 0xd50b_7427];
    let mut guest = Guest::mapped(&[&code[..], &stores[..]].concat());
    for (n, value) in
        [(0, 0x55), (1, DATA), (2, DATA + 0x800), (3, 0x1ffd & !2), (4, 1 << 15), (7, DATA + 0x3000)]
    {
        guest.set(Reg::X(n), value);
    }
    guest.vm.memory_mut().store(DATA + 0x3000, &[0xaa; 64]).expect("in RAM");
    guest.steps(4);
    let before = guest.vm.state_hash();
    let snapshot = guest.vm.snapshot().expect("room");
    guest.steps(4);
    assert_eq!((guest.read(DATA), guest.x(6), guest.read(DATA + 0x3000)), (0x55, 0, 0));
    guest.vm.restore(&snapshot).expect("the same machine");
    assert_eq!((guest.read(DATA), guest.read(DATA + 0x3000)), (0, 0xaaaa_aaaa_aaaa_aaaa));
    assert_eq!(guest.vm.state_hash(), before);
}

#[test]
fn poison_is_part_of_the_snapshot() {
    // ldr x0, [x1]
    let mut guest = Guest::new(&[0xf940_0020]);
    guest.set(Reg::X(1), DATA);
    let clean = guest.vm.snapshot().expect("room");
    guest.poison(DATA);
    let poisoned = guest.vm.snapshot().expect("room");
    for _ in 0..2 {
        guest.vm.restore(&clean).expect("the same machine");
        assert_eq!((guest.run(1), guest.vm.memory().poisoned_lines()), (Exit::Intr, 0));
        guest.vm.restore(&poisoned).expect("the same machine");
        assert!(matches!(guest.run(1), Exit::Sea(_)));
        assert_eq!(guest.vm.memory().poisoned_lines(), 1);
        assert!(guest.vm.memory().poisoned(DATA, 1));
    }
    let mut loaded = through_a_file(&poisoned).machine().expect("room");
    assert!(matches!(loaded.vcpu(0).expect("CPU 0").run(), Ok(Exit::Sea(_))));
}

#[test]
fn a_machine_made_otherwise_becomes_that_of_the_snapshot() {
    let mut small = Vm::new(Config { memory_size: 1 << 20, cpus: 3, ..Config::default() }).expect("room");
    let mut guest = Guest::new(&[0x9100_0400, 0x17ff_ffff]);
    guest.steps(7);
    let snapshot = guest.vm.snapshot().expect("room");
    small.restore(&snapshot).expect("room");
    assert_eq!((small.config(), small.state_hash()), (guest.vm.config(), guest.vm.state_hash()));
}

#[test]
fn the_state_hash_sees_each_thing_that_a_guest_sees() {
    fn hash(change: impl FnOnce(&mut Guest)) -> StateHash {
        let mut guest = Guest::new(&[0x9100_0400, 0x17ff_ffff]);
        change(&mut guest);
        guest.vm.state_hash()
    }
    type Change = fn(&mut Guest);
    let changes: [(&str, Change); 12] = [
        ("nothing", |_| {}),
        ("a register", |guest| guest.set(Reg::X(30), 1)),
        ("SP_EL0", |guest| guest.set(Reg::SpEl0, 1)),
        ("PSTATE", |guest| guest.set(Reg::Pstate, 0x3c4)),
        ("a system register", |guest| guest.set(Reg::TpidrEl1, 1)),
        ("a byte of RAM", |guest| guest.vm.memory_mut().store(DATA, &[1]).expect("in RAM")),
        ("the same byte elsewhere", |guest| {
            guest.vm.memory_mut().store(DATA + 0x1000, &[1]).expect("in RAM");
        }),
        ("poison", |guest| guest.poison(DATA)),
        ("an interrupt line", |guest| guest.vm.set_irq_line(40, true).expect("an SPI")),
        ("time", |guest| guest.steps(2)),
        ("a V register", |guest| {
            let mut state = FpSimdState::default();
            state.vregs[31] = 1;
            guest.vm.vcpu(0).expect("CPU 0").set_fp_simd(&state).expect("CPU 0");
        }),
        ("a pending SError", |guest| {
            let events = VcpuEvents { serror_pending: true, ..VcpuEvents::default() };
            guest.vm.vcpu(0).expect("CPU 0").inject(&events).expect("an SError");
        }),
    ];
    let hashes: Vec<_> = changes.iter().map(|(what, change)| (what, hash(change))).collect();
    for (n, (what, one)) in hashes.iter().enumerate() {
        for (other_what, other) in hashes.iter().skip(n + 1) {
            assert_ne!(one, other, "{what}, {other_what}");
        }
    }
}

#[test]
fn the_state_hash_does_not_see_what_only_the_host_sees() {
    let machine = || Guest::new(&[0x9100_0400, 0x17ff_ffff]);
    let (mut one, mut other) = (machine(), machine());
    one.steps(1000);
    for _ in 0..10 {
        other.steps(100);
    }
    // A page that was written to and is zero again is as one that never was.
    other.write(DATA, 1);
    other.write(DATA, 0);
    other.vm.set_budget(Some(12));
    assert_eq!(one.vm.state_hash(), other.vm.state_hash());
}

#[test]
fn the_state_hash_is_the_same_in_each_release_with_the_same_version() {
    let guest = Guest::new(&[0x9100_0400, 0x17ff_ffff]);
    assert_eq!(
        guest.vm.state_hash().to_string(),
        "a73f7b4379e81e38841070ba88d5e1d6c45bb619db5652f6e19fb0e75d8691b7"
    );
}

#[test]
fn a_snapshot_shares_what_did_not_change_with_the_one_before() {
    let mut vm = Vm::new(Config { memory_size: 64 << 20, ..Config::default() }).expect("room");
    vm.memory_mut().store(RAM_BASE, &vec![1; 32 << 20]).expect("in RAM");
    let mut snapshots = vec![vm.snapshot().expect("room")];
    for n in 0..200 {
        vm.memory_mut().store(RAM_BASE + (n << 12), &[2]).expect("in RAM");
        snapshots.push(vm.snapshot().expect("room"));
    }
    for (n, snapshot) in (0_u64..).zip(&snapshots).step_by(40) {
        vm.restore(snapshot).expect("the same machine");
        let mut bytes = [0; 2];
        for (page, expected) in [(n.wrapping_sub(1), 2), (n, 1)].into_iter().filter(|(page, _)| *page < 200) {
            vm.memory().load(RAM_BASE + (page << 12), &mut bytes).expect("in RAM");
            assert_eq!(bytes, [expected, 1], "snapshot {n}, page {page}");
        }
    }
}

#[test]
fn a_guest_larger_than_the_host_is_refused() {
    let size = 1 << 46;
    let error = Vm::new(Config { memory_size: size, ..Config::default() }).expect_err("refused");
    assert_eq!(error, Error::Memory(MemoryError::HostMemory { size }));
}
