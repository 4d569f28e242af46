//! What consumes poison, what does not, and what an SEA exit leaves behind: nothing.

mod support;

use seawall_arm::{ErrorState, Reg};
use seawall_events::SeaExit;
use seawall_inject::Exit;
use seawall_machine::{Config, StorePolicy};
use support::{
    AF, CODE, DATA, DBM, EL1H, Guest, HARDWARE_UPDATE, READ_ONLY, TABLES, TCR, VECTORS, page_descriptor,
};

/// `ldr x0, [x1]`
const LDR: u32 = 0xf940_0020;
/// `str x0, [x1]`
const STR: u32 = 0xf900_0020;
const NOP: u32 = 0xd503_201f;

fn sea(guest: &mut Guest) -> SeaExit {
    match guest.run(100) {
        Exit::Sea(sea) => sea,
        exit => panic!("expected a SEA exit, got {exit:?}"),
    }
}

/// The exit of one instruction with X1 = `va`, MMU on, the line at DATA + 0x40 poisoned.
fn consumed_by(word: u32, va: u64) -> Option<SeaExit> {
    let mut guest = Guest::mapped(&[word, NOP]);
    guest.set(Reg::X(1), va);
    guest.set(Reg::X(2), 0x1111);
    guest.poison(DATA + 0x40);
    match guest.run(1) {
        Exit::Sea(sea) => {
            let unchanged = [Reg::Pc, Reg::X(1), Reg::X(2), Reg::X(3)].map(|reg| guest.get(reg));
            assert_eq!(unchanged, [CODE, va, 0x1111, 0]);
            assert_eq!(guest.run(1), Exit::Sea(sea), "it repeats");
            assert_eq!(guest.vm.vcpu(0).expect("CPU 0").instructions(), 0);
            Some(sea)
        }
        Exit::Intr => None,
        exit => panic!("unexpected {exit:?}"),
    }
}

#[test]
fn every_kind_of_load_consumes() {
    let bad = DATA + 0x48;
    for (word, name) in [
        (0xf940_0020, "ldr x0, [x1]"),
        (0xb940_0022, "ldr w2, [x1]"),
        (0x3940_0020, "ldrb w0, [x1]"),
        (0x39c0_0022, "ldrsb w2, [x1]"),
        (0xb980_0027, "ldrsw x7, [x1]"),
        (0xf840_8420, "ldr x0, [x1], #8"),
        (0xa940_0c22, "ldp x2, x3, [x1]"),
        (0xc85f_7c22, "ldxr x2, [x1]"),
        (0xc8df_fc20, "ldar x0, [x1]"),
        (0xf840_0820, "ldtr x0, [x1]"),
        (0xf822_0023, "ldadd x2, x3, [x1]"),
        (0xf822_8023, "swp x2, x3, [x1]"),
        (0xc8a2_7c23, "cas x2, x3, [x1]"),
    ] {
        // LDTR needs EL0's right to the page.
        let exit = if word == 0xf840_0820 {
            let mut guest = Guest::mapped(&[word]);
            guest.change_page(DATA, support::EL0, 0);
            guest.set(Reg::X(1), bad);
            guest.poison(bad);
            Some(sea(&mut guest))
        } else {
            consumed_by(word, bad)
        };
        let exit = exit.unwrap_or_else(|| panic!("{name} does not consume"));
        let expected = SeaExit { gva: bad, gpa: DATA, flags: 1, ..exit };
        assert_eq!((exit, exit.esr.bits()), (expected, 0x92000210), "{name}");
    }
}

#[test]
fn neighbours_of_a_poisoned_line_are_as_good_as_ever() {
    for va in [DATA + 0x38, DATA + 0x80, DATA] {
        assert_eq!(consumed_by(LDR, va), None, "{va:#x}");
    }
    // The last byte of the access is the first of the bad line.
    let exit = consumed_by(LDR, DATA + 0x39).expect("one byte is enough");
    assert_eq!((exit.esr.bits(), exit.gva), (0x92000210, DATA + 0x39));
}

#[test]
fn stores_and_cache_maintenance_do_not_consume() {
    for (word, name) in [
        (STR, "str x0, [x1]"),
        (0xa900_0c22, "stp x2, x3, [x1]"),
        (0xc89f_fc20, "stlr x0, [x1]"),
        (0xd50b_7e21, "dc civac, x1"),
        (0xd50b_7521, "ic ivau, x1"),
        (0xf980_0020, "prfm pldl1keep, [x1]"),
        (0xd508_7801, "at s1e1r, x1"),
    ] {
        assert_eq!(consumed_by(word, DATA + 0x48), None, "{name}");
    }
}

#[test]
fn a_line_that_was_stored_to_stays_poisoned() {
    let mut guest = Guest::mapped(&[STR, LDR]);
    guest.set(Reg::X(0), 0x55);
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA);
    assert_eq!(sea(&mut guest).esr.bits(), 0x92000210);
    assert_eq!(guest.get(Reg::Pc), CODE + 4);
    assert_eq!(guest.read(DATA), 0x55);
}

#[test]
fn dc_zva_cleans_the_whole_line() {
    // str x0, [x1]; dc zva, x1; ldr x0, [x1]
    let mut guest = Guest::mapped(&[STR, 0xd50b_7421, LDR]);
    guest.set(Reg::X(0), 0x55);
    guest.set(Reg::X(1), DATA + 0x48);
    guest.poison(DATA + 0x40);
    guest.steps(3);
    assert_eq!(guest.x(0), 0);
    assert_eq!(guest.vm.memory().poisoned_lines(), 0);
}

/// lab/README.md, "The poison register": a store to a bad line is dropped, one of the whole line too.
#[test]
fn an_error_that_persists_outlives_dc_zva() {
    // str x0, [x1]; dc zva, x1; ldr x0, [x1]
    let config = Config { store_policy: StorePolicy::Persist, ..Config::default() };
    let mut guest = Guest::with(&[STR, 0xd50b_7421, LDR], config).map();
    guest.set(Reg::X(1), DATA + 0x48);
    guest.poison(DATA + 0x40);
    guest.steps(2);
    assert_eq!(guest.vm.memory().poisoned_lines(), 1);
    assert_eq!(sea(&mut guest).gva, DATA + 0x48);
}

#[test]
fn stores_abort_if_the_policy_says_so_but_not_on_the_clean_lines_of_the_page() {
    let config = Config { store_policy: StorePolicy::Abort, ..Config::default() };
    let mut guest = Guest::with(&[STR, STR], config).map();
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA + 0x40);
    guest.steps(1);
    guest.set(Reg::X(1), DATA + 0x40);
    assert_eq!(sea(&mut guest).esr.bits(), 0x92000250);
}

#[test]
fn the_vms_set_bits_are_in_the_exit_only_with_ras() {
    for (ras, state, esr) in
        [(true, ErrorState::Restartable, 0x92001a10), (true, ErrorState::Uncontainable, 0x92001210)]
    {
        let config = Config { ras, error_state: state, ..Config::default() };
        let mut guest = Guest::with(&[LDR], config);
        guest.set(Reg::X(1), DATA);
        guest.poison(DATA);
        assert_eq!(sea(&mut guest).esr.bits(), esr);
    }
}

#[test]
fn without_ras_the_error_is_the_hosts_own_and_the_guest_gets_an_serror() {
    let config = Config { ras: false, ..Config::default() };
    let mut guest = Guest::with(&[LDR], config);
    guest.set(Reg::Pstate, 0x2c5);
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA);
    guest.steps(1);
    assert_eq!(guest.taken()[..2], [VECTORS + 0x380, 0xbf000000]);
}

#[test]
fn a_fetch_consumes_its_own_line_only() {
    let mut guest = Guest::mapped(&[NOP; 32]);
    guest.poison(CODE + 0x40);
    let exit = sea(&mut guest);
    assert_eq!((exit.esr.bits(), exit.gva, exit.gpa), (0x82000210, CODE + 0x40, CODE));
    assert_eq!(guest.get(Reg::Pc), CODE + 0x40);
    assert_eq!(guest.vm.vcpu(0).expect("CPU 0").instructions(), 16);
}

#[test]
fn poison_that_comes_at_run_time_is_met_at_once() {
    // Two loads from one page, and code that was executed before.
    let mut guest = Guest::mapped(&[LDR, LDR, NOP, support::LOOP]);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    guest.poison(DATA);
    assert_eq!(sea(&mut guest).gva, DATA);
    guest.vm.heal(DATA..DATA + 1).expect("in RAM");
    guest.steps(4);
    guest.poison(CODE);
    assert_eq!(sea(&mut guest).esr.bits(), 0x82000210);
}

#[test]
fn a_load_from_a_poisoned_line_stops_the_guest_and_goes_on_when_it_is_healed() {
    let mut guest = Guest::mapped(&[LDR, NOP]);
    guest.set(Reg::X(0), 0x1111);
    guest.set(Reg::X(1), DATA);
    guest.vm.memory_mut().store(DATA, &0x5ea_3a11_u64.to_le_bytes()).expect("in RAM");
    guest.poison(DATA);
    let exit = sea(&mut guest);
    assert_eq!((exit.esr.bits(), exit.flags, exit.gva, exit.gpa), (0x9200_0210, 1, DATA, DATA));
    assert_eq!((guest.get(Reg::X(0)), guest.get(Reg::Pc)), (0x1111, CODE));
    guest.vm.heal(DATA..DATA + 1).expect("in RAM");
    guest.steps(1);
    assert_eq!((guest.get(Reg::X(0)), guest.get(Reg::Pc)), (0x5ea_3a11, CODE + 4));
}

#[test]
fn a_second_poisoned_line_in_a_page_that_has_one_is_met_at_once() {
    let mut guest = Guest::mapped(&[LDR, support::LOOP]);
    guest.set(Reg::X(1), DATA);
    guest.poison(CODE + 0x800);
    guest.steps(5);
    guest.poison(CODE);
    assert_eq!(sea(&mut guest).esr.bits(), 0x82000210);
}

#[test]
fn poison_in_each_table_of_the_walk_is_told_by_its_level() {
    // The level 2 descriptors of code and data share a line, so it is the fetch that meets it.
    for (descriptor, esr, va) in [
        (TABLES[0] + 8, 0x82000215, CODE),
        (TABLES[1] + 8, 0x82000216, CODE),
        (page_descriptor(DATA), 0x92000217, DATA + 8),
    ] {
        let mut guest = Guest::mapped(&[LDR]);
        guest.set(Reg::X(1), DATA + 8);
        guest.poison(descriptor);
        let exit = sea(&mut guest);
        assert_eq!((exit.esr.bits(), exit.gva, exit.flags, exit.gpa), (esr, va, 0, 0));
    }
}

#[test]
fn the_update_of_the_access_flag_and_the_dirty_state_consumes_a_poisoned_descriptor() {
    for (word, esr) in [(LDR, 0x92000217), (STR, 0x92000257)] {
        let mut guest = Guest::mapped(&[word]);
        guest.set(Reg::TcrEl1, TCR | HARDWARE_UPDATE);
        guest.change_page(DATA, DBM | READ_ONLY, AF);
        let before = guest.read(page_descriptor(DATA));
        guest.set(Reg::X(1), DATA);
        guest.poison(page_descriptor(DATA));
        assert_eq!(sea(&mut guest).esr.bits(), esr);
        assert_eq!(guest.read(page_descriptor(DATA)), before, "nothing was updated");
    }
}

#[test]
fn a_dirty_managed_page_is_marked_by_its_first_store_and_not_by_a_load() {
    let mut guest = Guest::mapped(&[LDR, STR]);
    guest.set(Reg::TcrEl1, TCR | HARDWARE_UPDATE);
    guest.change_page(DATA, DBM | READ_ONLY, AF);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    let descriptor = guest.read(page_descriptor(DATA));
    assert_eq!(descriptor & (AF | READ_ONLY), AF | READ_ONLY);
    guest.steps(1);
    let descriptor = guest.read(page_descriptor(DATA));
    assert_eq!(descriptor & (AF | READ_ONLY), AF);
}

#[test]
fn a_store_exclusive_does_not_consume_but_its_load_does() {
    // ldxr x2, [x1]; stxr w4, x3, [x1]
    let mut guest = Guest::mapped(&[0xc85f_7c22, 0xc804_7c23]);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::X(3), 9);
    guest.steps(1);
    guest.poison(DATA);
    guest.steps(1);
    assert_eq!((guest.x(4), guest.read(DATA)), (0, 9));
}

#[test]
fn a_masked_guest_is_not_spared() {
    let mut guest = Guest::new(&[LDR]);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::Pstate, EL1H);
    guest.poison(DATA);
    assert_eq!(sea(&mut guest).gva, DATA);
}
