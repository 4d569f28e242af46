//! The rows of column A of the golden vectors, measured on another CPU: a guest's handler sees exactly these.

mod support;

use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_inject::{Exit, Inject as _};
use support::{CODE, DATA, EL0T, EL1H, Guest, HOLE, TABLES, VECTORS};

/// `ldr x0, [x1]`
const LDR: u32 = 0xf940_0020;
/// `str x0, [x1]`
const STR: u32 = 0xf900_0020;

fn inject(guest: &mut Guest, events: VcpuEvents) {
    guest.vm.vcpu(0).expect("CPU 0").inject(&events).expect("accepted");
}

fn data_abort() -> VcpuEvents {
    VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }
}

fn instruction_abort() -> VcpuEvents {
    VcpuEvents { ext_iabt_pending: true, ..VcpuEvents::default() }
}

#[test]
fn external_data_abort_of_a_load_at_el1() {
    let mut guest = Guest::new(&[LDR]);
    guest.set(Reg::X(1), DATA + 0x48);
    guest.poison(DATA + 0x40);
    assert!(matches!(guest.run(10), Exit::Sea(_)));
    inject(&mut guest, data_abort());
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000010, DATA + 0x48, CODE, EL1H]);
    assert_eq!(guest.get(Reg::Pstate), 0x3c5);
}

#[test]
fn external_data_abort_of_a_store_is_told_by_the_replayed_wnr() {
    let config = seawall_machine::Config {
        store_policy: seawall_machine::StorePolicy::Abort,
        ..seawall_machine::Config::default()
    };
    let mut guest = Guest::with(&[STR], config);
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA);
    let Exit::Sea(sea) = guest.run(10) else { panic!("a store to poison exits") };
    assert_eq!(sea.esr.bits(), 0x92000250);
    inject(&mut guest, VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: 1 << 6, ..data_abort() });
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000050, DATA, CODE, EL1H]);
}

#[test]
fn external_data_abort_of_a_post_indexed_load_leaves_the_base() {
    // ldr x0, [x1], #8
    let mut guest = Guest::new(&[0xf840_8420]);
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA);
    assert!(matches!(guest.run(10), Exit::Sea(_)));
    inject(&mut guest, data_abort());
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000010, DATA, CODE, EL1H]);
    assert_eq!(guest.x(1), DATA);
}

#[test]
fn external_data_abort_from_el0() {
    let mut guest = Guest::new(&[LDR]);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::Pstate, EL0T);
    guest.poison(DATA);
    assert!(matches!(guest.run(10), Exit::Sea(_)));
    inject(&mut guest, data_abort());
    assert_eq!(guest.taken(), [VECTORS + 0x400, 0x92000010, DATA, CODE, EL0T]);
}

#[test]
fn external_instruction_abort_after_a_branch_keeps_btype() {
    // br x1
    let mut guest = Guest::new(&[0xd61f_0020]);
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA);
    let Exit::Sea(sea) = guest.run(10) else { panic!("a fetch of poison exits") };
    assert_eq!((sea.esr.bits(), sea.gva, sea.gpa, sea.flags), (0x82000210, DATA, DATA, 1));
    inject(&mut guest, instruction_abort());
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x86000010, DATA, DATA, 0x7c5]);
}

#[test]
fn a_fetch_from_where_there_is_no_ram_is_an_external_abort_by_the_host() {
    let mut guest = Guest::new(&[0xd61f_0020]);
    guest.set(Reg::X(1), HOLE);
    guest.steps(2);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x86000010, HOLE, HOLE, 0x7c5]);
}

/// A guest whose level 1 descriptor for gibibyte 2 would be at HOLE's page: TTBR1 with its table in a hole.
fn table_in_a_hole(code: &[u32]) -> Guest {
    let mut guest = Guest::mapped(code);
    // TTBR1: 39 bits, 4 KiB granule (TG1 = 0b10), table in the hole; EPD1 clear.
    guest.set(Reg::TcrEl1, support::TCR & !(1 << 23) | 0x19 << 16 | 2 << 30);
    guest.set(Reg::Ttbr1El1, HOLE);
    guest
}

const HIGH: u64 = 0xffff_ffff_c000_0000;

#[test]
fn table_walk_of_a_load_with_the_level_1_table_in_a_hole() {
    let mut guest = table_in_a_hole(&[LDR]);
    guest.set(Reg::X(1), HIGH);
    guest.steps(1);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000015, HIGH, CODE, EL1H]);
}

#[test]
fn table_walk_of_a_fetch_with_the_level_1_table_in_a_hole() {
    // br x1
    let mut guest = table_in_a_hole(&[0xd61f_0020]);
    guest.set(Reg::X(1), HIGH);
    guest.steps(2);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x86000015, HIGH, HIGH, 0x7c5]);
}

#[test]
fn table_walk_of_a_fetch_with_a_poisoned_level_1_table_exits() {
    let mut guest = Guest::mapped(&[LDR]);
    guest.poison(TABLES[0]);
    let Exit::Sea(sea) = guest.run(10) else { panic!("a walk of poison exits") };
    assert_eq!((sea.esr.bits(), sea.flags, sea.gpa, sea.gva), (0x82000215, 0, 0, CODE));
}

#[test]
fn serror_with_an_esr_leaves_far_alone() {
    let mut guest = Guest::new(&[support::LOOP]);
    guest.set(Reg::Pstate, 0x2c5);
    guest.set(Reg::FarEl1, 0x1234);
    let serror = |esr| VcpuEvents {
        serror_pending: true,
        serror_has_esr: true,
        serror_esr: esr,
        ..VcpuEvents::default()
    };
    inject(&mut guest, serror(0x100c11));
    assert_eq!(guest.taken(), [VECTORS + 0x380, 0xbe100c11, 0x1234, CODE, 0x2c5]);
    guest.set(Reg::Pstate, 0x2c5);
    inject(&mut guest, serror(0x1000c11));
    assert_eq!(guest.get(Reg::EsrEl1), 0xbf000c11);
}

#[test]
fn a_masked_serror_waits_and_is_taken_before_the_instruction_after_the_unmasking() {
    // nop; msr daifclr, #4; nop
    let mut guest = Guest::new(&[0xd503_201f, 0xd503_44ff, 0xd503_201f]);
    inject(&mut guest, VcpuEvents { serror_pending: true, ..VcpuEvents::default() });
    let events = guest.vm.vcpu(0).expect("CPU 0").events().expect("always");
    assert!(events.serror_pending && events.serror_has_esr);
    assert_eq!(events.serror_esr, 0x1000000);
    guest.steps(2);
    assert_eq!(guest.get(Reg::Pc), CODE + 8);
    guest.steps(1);
    let [pc, esr, _, elr, spsr] = guest.taken();
    assert_eq!([pc, esr, elr, spsr], [VECTORS + 0x380, 0xbf000000, CODE + 8, 0x2c5]);
}

#[test]
fn an_esb_puts_a_masked_serror_off_into_disr() {
    // esb; mrs x0, disr_el1; msr daifclr, #4; nop
    let mut guest = Guest::new(&[0xd503_221f, 0xd538_c120, 0xd503_44ff, 0xd503_201f]);
    inject(
        &mut guest,
        VcpuEvents { serror_pending: true, serror_has_esr: true, serror_esr: 0xc11, ..VcpuEvents::default() },
    );
    guest.steps(4);
    assert_eq!(guest.x(0), 0x8000_0c11);
    assert_eq!(guest.get(Reg::Pc), CODE + 16);
}

#[test]
fn the_proposed_abi_ors_the_iss_into_the_esr() {
    let mut guest = Guest::new(&[LDR, LDR]);
    guest.set(Reg::X(1), DATA);
    let with_esr = |events, esr| VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: esr, ..events };
    inject(&mut guest, with_esr(data_abort(), 0x1c0_c700));
    assert_eq!(guest.get(Reg::EsrEl1), 0x97c0c710);
    inject(&mut guest, with_esr(instruction_abort(), 0x100_0600));
    assert_eq!(guest.get(Reg::EsrEl1), 0x87000610);
}

#[test]
fn without_the_opt_in_poison_becomes_an_serror_with_ids() {
    let config = seawall_machine::Config { sea_to_user: false, ..Default::default() };
    let mut guest = Guest::with(&[LDR], config);
    guest.set(Reg::Pstate, 0x2c5);
    guest.set(Reg::X(1), DATA);
    guest.poison(DATA);
    guest.steps(1);
    let [pc, esr, _, elr, _] = guest.taken();
    assert_eq!([pc, esr, elr], [VECTORS + 0x380, 0xbf000000, CODE]);
}
