//! Code that changes, budgets, exclusives, and the counter.

mod support;

use seawall_arm::Reg;
use seawall_inject::{Exit, Inject as _};
use support::{CODE, DATA, Guest, TABLES, page_descriptor};

const NOP: u32 = 0xd503_201f;
const INCREMENT: u32 = 0x9100_0400; // add x0, x0, #1
const LOOP: u32 = support::LOOP;

#[test]
fn a_budget_is_used_to_the_instruction() {
    // add x0, x0, #1; b .-4
    let mut guest = Guest::new(&[INCREMENT, 0x17ff_ffff]);
    for budget in [1, 2, 3, 1000, 4097] {
        guest.set(Reg::X(0), 0);
        guest.set(Reg::Pc, CODE);
        let before = guest.vm.vcpu(0).expect("CPU 0").instructions();
        guest.steps(budget);
        let after = guest.vm.vcpu(0).expect("CPU 0").instructions();
        assert_eq!((guest.x(0), after - before), (budget.div_ceil(2), budget));
    }
    assert_eq!(guest.run(0), Exit::Intr);
}

#[test]
fn a_budget_is_used_to_the_instruction_across_pages() {
    let mut guest = Guest::new(&[INCREMENT; 3000]);
    guest.steps(2500);
    assert_eq!((guest.x(0), guest.get(Reg::Pc)), (2500, CODE + 10_000));
}

#[test]
fn a_store_into_the_next_instruction_is_executed() {
    // str w2, [x1]; nop; b .
    let mut guest = Guest::new(&[NOP, 0xb900_0022, NOP, LOOP]);
    guest.set(Reg::X(1), CODE + 8);
    guest.set(Reg::X(2), u64::from(INCREMENT));
    guest.steps(4);
    assert_eq!((guest.x(0), guest.get(Reg::Pc)), (1, CODE + 12));
}

#[test]
fn code_written_through_another_mapping_is_executed() {
    let mut guest = Guest::mapped(&[0xb900_0022, 0xd61f_0060]); // str w2, [x1]; br x3
    // DATA + 0x1000 maps to the page of DATA.
    guest.write(page_descriptor(DATA + 0x1000), DATA | support::AF | support::NORMAL | support::PAGE);
    guest.code_at(DATA, &[NOP, LOOP]);
    guest.set(Reg::X(1), DATA + 0x1000);
    guest.set(Reg::X(2), u64::from(INCREMENT));
    guest.set(Reg::X(3), DATA);
    // Execute the old code first.
    guest.set(Reg::Pc, DATA);
    guest.steps(2);
    guest.set(Reg::Pc, CODE);
    guest.steps(3);
    assert_eq!(guest.x(0), 1);
}

#[test]
fn code_that_the_host_writes_is_executed() {
    let mut guest = Guest::new(&[NOP, LOOP]);
    guest.steps(3);
    guest.code_at(CODE, &[INCREMENT]);
    guest.set(Reg::Pc, CODE);
    guest.steps(1);
    assert_eq!(guest.x(0), 1);
}

#[test]
fn data_in_a_page_of_code_can_be_stored_and_loaded() {
    // str x2, [x1]; ldr x0, [x1]
    let mut guest = Guest::mapped(&[0xf900_0022, 0xf940_0020]);
    guest.set(Reg::X(1), CODE + 0x800);
    guest.set(Reg::X(2), 77);
    guest.steps(2);
    assert_eq!(guest.x(0), 77);
}

#[test]
fn a_load_across_two_pages_joins_their_bytes() {
    let mut guest = Guest::mapped(&[0xf940_0020]);
    guest.write(page_descriptor(DATA + 0x1000), (DATA + 0x5000) | support::AF | support::NORMAL | 3);
    guest.write(DATA + 0xff8, 0x1122_3344_5566_7788);
    guest.write(DATA + 0x5000, 0x99aa_bbcc_ddee_ff00);
    guest.set(Reg::X(1), DATA + 0xffc);
    guest.steps(1);
    assert_eq!(guest.x(0), 0xddee_ff00_1122_3344);
}

/// `ldxr x2, [x1]`, one instruction, `stxr w4, x3, [x1]`: the status.
fn exclusive(between: u32) -> u64 {
    let mut guest = Guest::mapped(&[0xc85f_7c22, between, 0xc804_7c23]);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::X(3), 5);
    guest.set(Reg::X(5), DATA);
    guest.set(Reg::X(6), 1);
    guest.steps(3);
    assert_eq!(guest.read(DATA) == 5, guest.x(4) == 0);
    guest.x(4)
}

#[test]
fn a_store_exclusive_needs_the_mark_of_its_load() {
    assert_eq!(exclusive(NOP), 0);
    // clrex
    assert_eq!(exclusive(0xd503_3f5f), 1);
    // str x6, [x5]: the marked bytes have changed.
    assert_eq!(exclusive(0xf900_00a6), 1);
    // ldxr x7, [x5] elsewhere would move the mark; here ldxrb w7, [x5] marks fewer bytes.
    assert_eq!(exclusive(0x085f_7ca7), 1);
    let mut guest = Guest::mapped(&[0xc804_7c23]);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.x(4), 1);
}

#[test]
fn an_exception_return_clears_the_mark() {
    // ldxr x2, [x1]; eret; stxr w4, x3, [x1]
    let mut guest = Guest::mapped(&[0xc85f_7c22, 0xd69f_03e0, 0xc804_7c23]);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::ElrEl1, CODE + 8);
    guest.set(Reg::SpsrEl1, support::EL1H);
    guest.steps(3);
    assert_eq!(guest.x(4), 1);
}

#[test]
fn the_counter_ticks_every_sixteen_instructions() {
    // mrs x0, cntvct_el0 after 32 instructions
    let mut code = vec![NOP; 32];
    code.push(0xd53b_e040);
    let mut guest = Guest::new(&code);
    guest.steps(33);
    assert_eq!(guest.x(0), 2);
}

#[test]
fn a_changed_descriptor_counts_after_its_tlbi() {
    // ldr x0, [x1]; tlbi vaae1, x2; ldr x3, [x1]
    let mut guest = Guest::mapped(&[0xf940_0020, 0xd508_8762, 0xf940_0023]);
    guest.write(DATA, 1);
    guest.write(DATA + 0x1000, 2);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::X(2), DATA >> 12);
    guest.steps(1);
    guest.write(page_descriptor(DATA), (DATA + 0x1000) | support::AF | support::NORMAL | 3);
    guest.steps(2);
    assert_eq!((guest.x(0), guest.x(3)), (1, 2));
}

#[test]
fn tlbi_by_address_drops_the_whole_block() {
    // ldr x0, [x1]; tlbi vaae1, x2; ldr x3, [x1], where x2 is another page of the same 2 MiB block
    let mut guest = Guest::mapped(&[0xf940_0020, 0xd508_8762, 0xf940_0023]);
    let block = 0x4040_0000;
    guest.write(block + 0x3000, 1);
    guest.write(block + 0x20_3000, 2);
    guest.set(Reg::X(1), block + 0x3000);
    guest.set(Reg::X(2), (block + 0x9000) >> 12);
    // Change the descriptor by the guest's own store so that the host's writes do not flush the TLB.
    // str x5, [x6] between the load and the TLBI.
    guest.code_at(CODE, &[0xf940_0020, 0xf900_00c5, 0xd508_8762, 0xf940_0023]);
    guest.set(Reg::X(5), (block + 0x20_0000) | support::AF | support::NORMAL | support::BLOCK);
    guest.set(Reg::X(6), TABLES[1] + 16);
    guest.steps(4);
    assert_eq!((guest.x(0), guest.x(3)), (1, 2));
}

#[test]
fn two_runs_of_the_same_machine_are_the_same() {
    let mut first = Guest::mapped(&[INCREMENT, 0x17ff_ffff]);
    let mut second = Guest::mapped(&[INCREMENT, 0x17ff_ffff]);
    first.steps(12345);
    for budget in [1, 44, 300, 12000] {
        second.steps(budget);
    }
    for reg in [Reg::X(0), Reg::Pc, Reg::Pstate] {
        assert_eq!(first.get(reg), second.get(reg));
    }
    assert_eq!(first.vm.state_hash(), second.vm.state_hash());
}

#[test]
fn a_reset_cpu_starts_anew() {
    let mut guest = Guest::mapped(&[INCREMENT]);
    guest.steps(1);
    guest.vm.vcpu(0).expect("CPU 0").reset().expect("CPU 0");
    let state = [Reg::Pc, Reg::X(0), Reg::Pstate, Reg::SctlrEl1, Reg::Ttbr0El1].map(|reg| guest.get(reg));
    assert_eq!(state, [0, 0, support::EL1H, 0x30d5_0998, 0]);
}

#[test]
fn a_vcpu_that_is_not_there_is_an_error() {
    let mut guest = Guest::new(&[NOP]);
    assert_eq!(guest.vm.vcpu(1).err(), Some(seawall_machine::Error::NoCpu { index: 1, count: 1 }));
    let mut vcpu = guest.vm.vcpu(0).expect("CPU 0");
    assert_eq!(vcpu.set_reg(Reg::Pstate, 0x1d3), Err(seawall_machine::Error::Mode(0x1d3)));
    assert_eq!(vcpu.reg(Reg::HcrEl2), Err(seawall_machine::Error::NoRegister(Reg::HcrEl2)));
}

/// The two are one operation of the interpreter's.
#[test]
fn a_compare_and_the_branch_behind_it_are_two_steps_and_either_can_be_branched_to() {
    // subs x1, x1, #1; b.ne . - 4; nop
    let mut guest = Guest::new(&[0xf100_0421, 0x54ff_ffe1, 0xd503_201f]);
    guest.set(Reg::X(1), 2);
    guest.steps(1);
    assert_eq!((guest.x(1), guest.get(Reg::Pc)), (1, CODE + 4));
    guest.steps(1);
    assert_eq!((guest.x(1), guest.get(Reg::Pc)), (1, CODE));
    guest.steps(2);
    assert_eq!((guest.x(1), guest.get(Reg::Pc)), (0, CODE + 8));
    // Z is set: the branch by itself is not taken.
    guest.set(Reg::Pc, CODE + 4);
    guest.steps(1);
    assert_eq!((guest.x(1), guest.get(Reg::Pc)), (0, CODE + 8));
}
