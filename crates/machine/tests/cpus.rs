//! Several CPUs: PSCI, turns, and what one CPU's instructions mean for another.

mod support;

use seawall_arm::Reg;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, Error, Vm};
use support::gic::{self, msr};
use support::{CODE, DATA, EL1H, Guest, LOOP, VECTORS, page_descriptor};

/// Where the second CPU's code is.
const SECOND: u64 = 0x400b_0000;
const HVC: u32 = 0xd400_0002;
const WFI: u32 = 0xd503_207f;
const WFE: u32 = 0xd503_205f;
const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
/// ldr x2, [x1]; str x3, [x1]; blr x6
const LDR: u32 = 0xf940_0022;
const STR: u32 = 0xf900_0023;
const BLR: u32 = 0xd63f_00c0;

/// Two CPUs, both on: the first at [`CODE`], the second at [`SECOND`]. MMU off.
fn guest(first: &[u32], second: &[u32]) -> Guest {
    let mut guest = Guest::with(first, Config { cpus: 2, ..Config::default() });
    guest.code_at(SECOND, second);
    guest.vm.vcpu(1).expect("CPU 1").set_on(true);
    set(&mut guest, 1, Reg::Pc, SECOND);
    set(&mut guest, 1, Reg::VbarEl1, VECTORS);
    guest
}

fn set(guest: &mut Guest, cpu: usize, reg: Reg, value: u64) {
    guest.vm.vcpu(cpu).expect("a CPU").set_reg(reg, value).expect("a register");
}

fn get(guest: &mut Guest, cpu: usize, reg: Reg) -> u64 {
    guest.vm.vcpu(cpu).expect("a CPU").reg(reg).expect("a register")
}

/// Run one CPU for so many steps.
fn step(guest: &mut Guest, cpu: usize, steps: u64) {
    let mut vcpu = guest.vm.vcpu(cpu).expect("a CPU");
    vcpu.set_budget(Some(steps));
    assert_eq!(vcpu.run(), Ok(Exit::Intr));
    vcpu.set_budget(None);
}

/// Run all CPUs for at most so many steps.
fn run(guest: &mut Guest, steps: u64) -> (usize, Exit) {
    guest.vm.set_budget(Some(steps));
    guest.vm.run().expect("no host error")
}

#[test]
fn a_vm_has_1_to_123_cpus() {
    for cpus in [0, 124] {
        let error = Vm::new(Config { cpus, memory_size: 1 << 20, ..Config::default() }).expect_err("refused");
        assert_eq!(error, Error::CpuCount(cpus));
        assert_eq!(error.to_string(), format!("expected 1 to 123 CPUs, got {cpus}"));
    }
    let vm = Vm::new(Config { cpus: 123, memory_size: 1 << 20, ..Config::default() }).expect("made");
    assert_eq!(vm.cpu_count(), 123);
}

/// The host's own timer: at that very step, or when all CPUs wait; and it is still a run of the same steps.
#[test]
fn a_run_comes_back_at_the_hosts_alarm() {
    let mut busy = guest(&[LOOP], &[LOOP]);
    busy.vm.set_alarm(Some(25_001));
    assert_eq!(run(&mut busy, 1_000_000).1, Exit::Intr);
    assert_eq!((busy.vm.time(), busy.vm.budget()), (25_001, Some(1_000_000 - 25_001)));
    assert_eq!(busy.vm.run().expect("no host error").1, Exit::Intr, "until the alarm is another");
    busy.vm.set_alarm(None);
    assert_eq!(busy.vm.run().expect("no host error").1, Exit::Intr);
    let mut other = guest(&[LOOP], &[LOOP]);
    run(&mut other, 1_000_000);
    assert_eq!(busy.vm.state_hash(), other.vm.state_hash());

    let mut idle = guest(&[WFI, LOOP], &[WFI, LOOP]);
    idle.vm.set_alarm(Some(5_000_000_000));
    assert_eq!(run(&mut idle, 1_000).1, Exit::Intr);
    assert_eq!((idle.vm.time(), idle.vm.budget()), (5_000_000_000, Some(998)));
    idle.vm.set_alarm(None);
    assert_eq!(run(&mut idle, 1_000).1, Exit::Idle);
}

#[test]
fn only_the_first_cpu_is_on_until_psci_turns_another_on() {
    let mut guest = Guest::with(&[HVC, LOOP], Config { cpus: 2, ..Config::default() });
    // mrs x8, mpidr_el1
    guest.code_at(SECOND, &[0xd538_00a8, LOOP]);
    assert_eq!(guest.vm.vcpu(1).expect("CPU 1").run(), Ok(Exit::Idle));
    for (n, value) in [0xc400_0003, 1, SECOND, 0x1234_5678_9abc_def0].into_iter().enumerate() {
        guest.set(Reg::X(n as u8), value);
    }
    assert_eq!(run(&mut guest, 30_000), (0, Exit::Intr));
    assert_eq!(guest.x(0), 0);
    assert!(guest.vm.vcpu(1).expect("CPU 1").is_on());
    assert_eq!(get(&mut guest, 1, Reg::X(0)), 0x1234_5678_9abc_def0);
    assert_eq!(get(&mut guest, 1, Reg::X(8)), 0x8000_0001);
    assert_eq!(get(&mut guest, 1, Reg::Pstate), EL1H);
    // Turns of 10,000 steps.
    let steps = |guest: &mut Guest, cpu| guest.vm.vcpu(cpu).expect("a CPU").instructions();
    assert_eq!((steps(&mut guest, 0), steps(&mut guest, 1), guest.vm.time()), (20_000, 10_000, 30_000));
}

#[test]
fn when_all_cpus_are_off_the_vm_is_idle() {
    let mut guest = guest(&[HVC], &[HVC]);
    for cpu in 0..2 {
        set(&mut guest, cpu, Reg::X(0), 0x8400_0002);
    }
    assert_eq!(run(&mut guest, 100), (1, Exit::Idle));
    assert_eq!([0, 1].map(|cpu| guest.vm.vcpu(cpu).expect("a CPU").is_on()), [false; 2]);
    assert_eq!(guest.vm.instructions(), 2);
}

#[test]
fn an_sea_names_the_cpu_that_consumed_the_poison() {
    let mut guest = guest(&[LOOP], &[NOP, LDR, NOP]);
    set(&mut guest, 1, Reg::X(1), DATA + 8);
    guest.poison(DATA);
    let (cpu, Exit::Sea(sea)) = run(&mut guest, 100_000) else { panic!("expected an SEA exit") };
    assert_eq!((cpu, sea.esr.bits(), sea.gva, sea.gpa), (1, 0x9200_0210, DATA + 8, DATA));
    assert_eq!(get(&mut guest, 1, Reg::Pc), SECOND + 4);
}

/// Adds 1 to the doubleword at x1, x5 times, and waits: ldxr x0, [x1]; add x0, x0, #1; stxr w2, x0, [x1];
/// cbnz w2, ldxr; subs x5, x5, #1; b.ne ldxr; wfi.
const COUNT: [u32; 7] = [0xc85f_7c20, 0x9100_0400, 0xc802_7c20, 0x35ff_ffa2, 0xf100_04a5, 0x54ff_ff61, WFI];

#[test]
fn exclusives_of_two_cpus_lose_no_addition_wherever_the_turns_end() {
    let mut guest = guest(&COUNT, &COUNT);
    for cpu in 0..2 {
        set(&mut guest, cpu, Reg::X(1), DATA);
        set(&mut guest, cpu, Reg::X(5), 20_000);
    }
    assert_eq!(run(&mut guest, 1_000_000).1, Exit::Idle);
    assert_eq!(guest.read(DATA), 40_000);
    assert!(guest.vm.time() > 240_002, "some store-exclusives failed: {}", guest.vm.time());
}

#[test]
fn a_store_exclusive_fails_if_another_cpu_had_a_turn_even_if_the_value_is_the_same() {
    // ldxr x0, [x1]; subs x4, x4, #1; b.ne subs; stxr w2, x0, [x1]; wfi
    let mut guest = guest(&[0xc85f_7c20, 0xf100_0484, 0x54ff_ffe1, 0xc802_7c20, WFI], &[STR, STR, WFI]);
    for (cpu, spins) in [(0, 10_000), (1, 0)] {
        set(&mut guest, cpu, Reg::X(1), DATA);
        set(&mut guest, cpu, Reg::X(4), spins);
    }
    assert_eq!(run(&mut guest, 100_000).1, Exit::Idle);
    assert_eq!(guest.x(2), 1);
}

#[test]
fn tlb_maintenance_of_the_inner_shareable_kind_reaches_the_other_cpu() {
    // str x3, [x1]; dsb ish; tlbi vaae1is, x5
    let mut guest = guest(&[STR, 0xd503_3b9f, 0xd508_8365], &[LDR, LDR, LDR]).map();
    for reg in [Reg::MairEl1, Reg::TcrEl1, Reg::Ttbr0El1, Reg::SctlrEl1] {
        let value = guest.get(reg);
        set(&mut guest, 1, reg, value);
    }
    guest.write(DATA, 0x1111);
    guest.write(DATA + 0x1000, 0x2222);
    let descriptor = guest.read(page_descriptor(DATA));
    guest.set(Reg::X(1), page_descriptor(DATA));
    guest.set(Reg::X(3), descriptor + 0x1000);
    guest.set(Reg::X(5), DATA >> 12);
    set(&mut guest, 1, Reg::X(1), DATA);
    step(&mut guest, 1, 1);
    step(&mut guest, 0, 2);
    step(&mut guest, 1, 1);
    assert_eq!(get(&mut guest, 1, Reg::X(2)), 0x1111, "the entry is still there");
    step(&mut guest, 0, 1);
    step(&mut guest, 1, 1);
    assert_eq!(get(&mut guest, 1, Reg::X(2)), 0x2222);
}

#[test]
fn code_that_one_cpu_writes_is_what_the_other_executes() {
    // mov x7, #1; mov x7, #2
    let [one, two] = [0xd280_0027_u64, 0xd280_0047];
    // str w3, [x1], twice.
    let mut guest = guest(&[0xb900_0023, 0xb900_0023], &[BLR, BLR]);
    guest.code_at(DATA, &[NOP, RET]);
    guest.set(Reg::X(1), DATA);
    set(&mut guest, 1, Reg::X(6), DATA);
    for (cpu0_writes, expected) in [(one, 1), (two, 2)] {
        guest.set(Reg::X(3), cpu0_writes);
        step(&mut guest, 0, 1);
        step(&mut guest, 1, 3);
        assert_eq!(get(&mut guest, 1, Reg::X(7)), expected);
    }
}

#[test]
fn an_sgi_wakes_the_other_cpu() {
    // subs x4, x4, #1; b.ne subs; msr ICC_SGI1R_EL1, x3; wfi
    let mut guest = guest(&[0xf100_0484, 0x54ff_ffe1, 0xd518_cba3, WFI], &[WFI, LOOP]);
    for cpu in 0..2 {
        gic::open(&mut guest, cpu);
    }
    set(&mut guest, 1, Reg::Pstate, 0x345);
    guest.set(Reg::X(3), 5 << 24 | 2);
    // More than a turn: the second CPU waits when the SGI comes.
    guest.set(Reg::X(4), 10_000);
    assert_eq!(run(&mut guest, 20_010), (1, Exit::Intr));
    assert_eq!(get(&mut guest, 1, Reg::Pc), VECTORS + 0x280);
    assert_eq!(get(&mut guest, 1, Reg::ElrEl1), SECOND + 4);
    assert_eq!(guest.get(Reg::Pc), CODE + 16, "the first waits");
}

#[test]
fn all_wait_until_the_first_timer_and_only_its_cpu_goes_on() {
    let mut guest = guest(&[WFI, LOOP], &[WFI, LOOP]);
    for (cpu, tick) in [(0, 5000), (1, 4000)] {
        gic::open(&mut guest, cpu);
        gic::execute(&mut guest, cpu, msr::CNTV_CVAL_EL0, tick, 0);
        gic::execute(&mut guest, cpu, msr::CNTV_CTL_EL0, 1, 0);
    }
    let start = guest.vm.instructions();
    assert_eq!(run(&mut guest, 102), (1, Exit::Intr));
    assert_eq!((guest.vm.instructions() - start, guest.vm.time()), (102, 64_100));
    assert_eq!((guest.get(Reg::Pc), get(&mut guest, 1, Reg::Pc)), (CODE + 4, SECOND + 4));
}

#[test]
fn a_cpu_alone_does_not_skip_time_that_another_could_use() {
    let mut guest = guest(&[WFI, NOP], &[LOOP]);
    gic::open(&mut guest, 0);
    gic::execute(&mut guest, 0, msr::CNTV_CVAL_EL0, 5000, 0);
    gic::execute(&mut guest, 0, msr::CNTV_CTL_EL0, 1, 0);
    let start = guest.vm.time();
    assert_eq!(guest.vm.vcpu(0).expect("CPU 0").run(), Ok(Exit::Idle));
    assert_eq!(guest.vm.time(), start + 1);
    guest.vm.vcpu(1).expect("CPU 1").set_on(false);
    guest.set(Reg::Pc, CODE);
    step(&mut guest, 0, 2);
    assert_eq!(guest.vm.time(), 80_001);
}

#[test]
fn sev_ends_the_others_wait_and_their_next_one() {
    // sev; wfi
    let mut guest = guest(&[0xd503_209f, WFI], &[WFE, WFE, WFI]);
    step(&mut guest, 0, 1);
    step(&mut guest, 1, 1);
    assert_eq!(get(&mut guest, 1, Reg::Pc), SECOND + 4);
    assert_eq!(guest.vm.vcpu(1).expect("CPU 1").run(), Ok(Exit::Idle));
    assert_eq!(get(&mut guest, 1, Reg::Pc), SECOND + 8);
}

#[test]
fn reset_turns_all_but_the_first_off_and_keeps_time() {
    let mut guest = guest(&[NOP, LOOP], &[LOOP]);
    assert_eq!(run(&mut guest, 30_000).1, Exit::Intr);
    guest.vm.reset();
    assert_eq!([0, 1].map(|cpu| guest.vm.vcpu(cpu).expect("a CPU").is_on()), [true, false]);
    assert_eq!((guest.get(Reg::Pc), guest.vm.time(), guest.vm.instructions()), (0, 30_000, 30_000));
}
