//! Sections 1 and 3 of the facts: the conditions of a SEA exit, and its content.

mod guest;

use guest::{PC, VBAR, Vcpu, check, el0, el1, el1_unmasked, nested};
use seawall_arm::{Esr, Target};
use seawall_events::kernel::{
    HostFallback, LastFault, SErrorDelivery, SeaPolicy, handle_guest_sea, inject_fetch_from_hole,
    inject_walk_abort, is_sea,
};
use seawall_events::{Reg, SeaExit};

const TO_USER: SeaPolicy = SeaPolicy { to_user: true, guest_has_ras: true };

fn exit_of(esr: u64, policy: SeaPolicy) -> SeaExit {
    let mut vcpu = el0();
    vcpu.last_fault =
        LastFault { esr: Esr::from_bits(esr), far: 0xffff_8000_1234_5678, ipa: Some(0x8020_1fff) };
    let before = vcpu.clone();
    let exit = handle_guest_sea(&mut vcpu, policy).unwrap();
    assert_eq!(vcpu, before, "nothing is pended and PC is not moved");
    exit
}

fn fallback_of(mut vcpu: Vcpu, esr: u64, policy: SeaPolicy) -> (Vcpu, HostFallback) {
    vcpu.last_fault.esr = Esr::from_bits(esr);
    let fallback = handle_guest_sea(&mut vcpu, policy).unwrap_err();
    (vcpu, fallback)
}

#[test]
fn measured_exits_come_out_as_measured() {
    for esr in [0x9200_0210, 0x8200_0210, 0x9200_0050, 0x9200_0010] {
        let exit = exit_of(esr, TO_USER);
        assert_eq!((exit.esr.bits(), exit.flags), (esr, 1));
        assert_eq!((exit.gva, exit.gpa), (0xffff_8000_1234_5678, 0x8020_1000));
    }
    // A page table in bad memory, on a fetch.
    let exit = exit_of(0x8200_0215, TO_USER);
    assert_eq!((exit.esr.bits(), exit.flags, exit.gpa), (0x8200_0215, 0, 0));
}

#[test]
fn esr_keeps_ec_il_fnv_ea_cm_wnr_and_fsc_and_nothing_else() {
    // ISS2, ISV, [23:14], VNCR, SET, S1PTW set as well.
    let exit = exit_of(0x00ff_ffff_93ff_fff0, SeaPolicy { guest_has_ras: false, ..TO_USER });
    assert_eq!(exit.esr.bits(), 0x9200_0770);
}

#[test]
fn esr_has_set_only_if_the_vm_has_ras() {
    assert_eq!(exit_of(0x9200_1a10, TO_USER).esr.bits(), 0x9200_1a10);
    let without = SeaPolicy { guest_has_ras: false, ..TO_USER };
    assert_eq!(exit_of(0x9200_1a10, without).esr.bits(), 0x9200_0210);
}

#[test]
fn gva_is_valid_if_and_only_if_fnv_is_0() {
    let exit = exit_of(0x9200_0210, TO_USER);
    assert_eq!(exit.gva_valid(), Some(0xffff_8000_1234_5678));
    let exit = exit_of(0x9200_0610, TO_USER);
    assert_eq!((exit.gva_valid(), exit.gva), (None, 0));
}

#[test]
fn gpa_is_page_aligned() {
    assert_eq!(exit_of(0x9200_0210, TO_USER).gpa_valid(), Some(0x8020_1000));
}

#[test]
fn gpa_is_not_valid_for_a_walk_nor_for_0x10_with_fnv() {
    for esr in [0x9200_0213, 0x9200_0214, 0x9200_0217, 0x9200_021b, 0x9200_021f, 0x9200_0610] {
        let exit = exit_of(esr, TO_USER);
        assert_eq!((exit.gpa_valid(), exit.flags, exit.gpa), (None, 0, 0), "{esr:#x}");
    }
    // Among the codes without a walk, KVM checks FnV for 0x10 alone.
    for esr in [0x9200_0218, 0x9200_0618] {
        assert_eq!(exit_of(esr, TO_USER).gpa_valid(), Some(0x8020_1000), "{esr:#x}");
    }
}

#[test]
fn the_sea_codes_are_0x10_0x13_to_0x18_and_0x1b_to_0x1f() {
    let codes = [0x10, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f];
    for class in [0x20, 0x24] {
        for code in 0..0x40 {
            let esr = Esr::from_bits(class << 26 | code);
            assert_eq!(is_sea(esr), codes.contains(&code), "{class:#x} {code:#x}");
        }
    }
    assert!(!is_sea(Esr::from_bits(0xbe00_0010)), "an SError is none");
}

#[test]
fn a_vm_that_did_not_opt_in_gets_an_serror_with_iss_bit_24() {
    let (vcpu, fallback) = fallback_of(el1_unmasked(), 0x9200_0210, SeaPolicy { to_user: false, ..TO_USER });
    assert_eq!(fallback.serror, SErrorDelivery::Delivered(Target::El1));
    check(&vcpu, &[(Reg::EsrEl1, 0xbf00_0000), (Reg::Pc, VBAR + 0x380)]);
    let (vcpu, fallback) = fallback_of(el1(), 0x9200_0210, SeaPolicy { to_user: false, ..TO_USER });
    assert_eq!(fallback.serror, SErrorDelivery::Pending);
    check(&vcpu, &[(Reg::Pc, PC)]);
    assert_eq!(vcpu.serror.vsesr, 1 << 24);
}

#[test]
fn without_ras_the_abort_is_the_host_s_own() {
    let mut vcpu = el1_unmasked();
    vcpu.config.ras = false;
    let (vcpu, _) = fallback_of(vcpu, 0x9200_0210, TO_USER);
    check(&vcpu, &[(Reg::EsrEl1, 0xbf00_0000)]);
}

#[test]
fn an_abort_on_a_stage_2_walk_is_the_host_s_own() {
    for esr in [0x9200_0093, 0x9200_0094, 0x9200_0097] {
        let (vcpu, _) = fallback_of(el1_unmasked(), esr, TO_USER);
        check(&vcpu, &[(Reg::EsrEl1, 0xbf00_0000)]);
    }
    // S1PTW alone, or a stage 1 walk, belongs to the guest.
    assert_eq!(exit_of(0x9200_0090, TO_USER).esr.bits(), 0x9200_0010);
    assert_eq!(exit_of(0x9200_0015, TO_USER).esr.bits(), 0x9200_0015);
}

#[test]
fn the_vncr_page_is_the_host_s_own_while_the_guest_hypervisor_runs() {
    let (vcpu, fallback) = fallback_of(nested(9, 1 << 5), 0x9200_2010, TO_USER);
    assert_eq!(fallback.serror, SErrorDelivery::Delivered(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbf00_0000)]);
    let mut vcpu = nested(5, 0);
    vcpu.last_fault.esr = Esr::from_bits(0x9200_2010);
    assert!(handle_guest_sea(&mut vcpu, TO_USER).is_ok());
    // Bit [13] of a fetch's ISS is RES0, not VNCR.
    let mut vcpu = nested(9, 1 << 5);
    vcpu.last_fault.esr = Esr::from_bits(0x8200_2010);
    assert!(handle_guest_sea(&mut vcpu, TO_USER).is_ok());
}

#[test]
fn a_fetch_from_a_hole_is_given_to_the_guest_by_the_host() {
    let mut vcpu = el1();
    vcpu.last_fault.esr = Esr::from_bits(0x8200_0005);
    inject_fetch_from_hole(&mut vcpu);
    check(&vcpu, &[(Reg::EsrEl1, 0x8600_0010), (Reg::Pc, VBAR + 0x200)]);
}

#[test]
fn a_walk_through_a_hole_is_given_to_the_guest_with_its_level() {
    for (trapped, esr) in [(0x9200_0085, 0x9600_0015), (0x8200_0085, 0x8600_0015)] {
        let mut vcpu = el1();
        vcpu.last_fault.esr = Esr::from_bits(trapped);
        vcpu.walk_level = Some(1);
        inject_walk_abort(&mut vcpu);
        check(&vcpu, &[(Reg::EsrEl1, esr)]);
    }
}
