//! Section 3 of the facts: a guest hypervisor at virtual EL2, and its guest.

mod guest;

use guest::{
    FAR, PC, POSTED, VBAR, VBAR_EL2, check, dabt, el1, iabt, nested, serror, serror_esr, with_abort_esr,
};
use seawall_arm::{Esr, Target};
use seawall_events::kernel::{
    AbortDelivery, PendingSError, SErrorDelivery, finish_run, get_events, inject_held, prepare_run,
    set_events,
};
use seawall_events::{Reg, Registers};

const AMO: u64 = 1 << 5;
const TGE: u64 = 1 << 27;
const E2H: u64 = 1 << 34;
const TEA: u64 = 1 << 37;
const TMEA: u64 = 1 << 19;
const SCTLR2EN: u64 = 1 << 15;
const A: u64 = 1 << 8;

#[test]
fn tea_sends_the_abort_to_el2_as_from_a_lower_level() {
    for (pstate, events, esr) in [
        (5, dabt(), 0x9200_0010),
        (5, iabt(), 0x8200_0010),
        (0, dabt(), 0x9200_0010),
        (0, iabt(), 0x8200_0010),
    ] {
        let mut vcpu = nested(pstate, TEA);
        let applied = set_events(&mut vcpu, POSTED, &events).unwrap();
        assert_eq!(applied.abort, Some(AbortDelivery::Delivered(Target::El2)));
        check(
            &vcpu,
            &[
                (Reg::EsrEl2, esr),
                (Reg::FarEl2, FAR),
                (Reg::ElrEl2, PC),
                (Reg::SpsrEl2, pstate),
                (Reg::Pc, VBAR_EL2 + 0x400),
                (Reg::Pstate, 0x3c9),
                (Reg::EsrEl1, 0),
            ],
        );
        assert!(!vcpu.mmio_waits);
    }
}

#[test]
fn an_abort_routed_to_el2_goes_by_the_ease_of_the_guest_hypervisor() {
    const EASE: u64 = 1 << 5;
    for (has_sctlr2, sctlr2_el2, sctlr2_el1, pc) in [
        (true, EASE, 0, VBAR_EL2 + 0x580),
        (true, 0, EASE, VBAR_EL2 + 0x400),
        (false, EASE, EASE, VBAR_EL2 + 0x400),
    ] {
        let mut vcpu = nested(5, TEA);
        vcpu.config.sctlr2 = has_sctlr2;
        vcpu.set_reg(Reg::HcrxEl2, SCTLR2EN);
        vcpu.set_reg(Reg::Sctlr2El2, sctlr2_el2);
        vcpu.set_reg(Reg::Sctlr2El1, sctlr2_el1);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::Pc, pc), (Reg::EsrEl2, 0x9200_0010), (Reg::FarEl2, FAR)]);
    }
}

#[test]
fn tge_sends_the_abort_of_el0_to_el2() {
    let mut vcpu = nested(0, TGE | E2H);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::EsrEl2, 0x9200_0010), (Reg::Pc, VBAR_EL2 + 0x400), (Reg::Pstate, 0x3c9)]);
}

#[test]
fn tmea_sends_masked_aborts_of_el1_to_el2() {
    for (pstate, hcrx, pc) in [
        (5 | A, TMEA, VBAR_EL2 + 0x400),
        (5, TMEA, VBAR + 0x200),  // not masked
        (A, TMEA, VBAR + 0x400),  // not privileged
        (5 | A, 0, VBAR + 0x200), // not asked for
    ] {
        let mut vcpu = nested(pstate, 0);
        vcpu.set_reg(Reg::HcrxEl2, hcrx);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::Pc, pc)]);
    }
}

#[test]
fn without_routing_the_abort_stays_at_el1() {
    let mut vcpu = nested(5, 0);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x9600_0010), (Reg::Pc, VBAR + 0x200), (Reg::EsrEl2, 0)]);
}

#[test]
fn an_abort_of_the_guest_hypervisor_itself_is_of_the_same_level() {
    for (pstate, offset) in [(9, 0x200), (8, 0x000)] {
        let mut vcpu = nested(pstate, TEA);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::EsrEl2, 0x9600_0010), (Reg::Pc, VBAR_EL2 + offset), (Reg::FarEl2, FAR)]);
    }
}

#[test]
fn the_abort_esr_reaches_esr_el2() {
    let mut vcpu = nested(5, TEA);
    set_events(&mut vcpu, POSTED, &with_abort_esr(dabt(), 0x240)).unwrap();
    check(&vcpu, &[(Reg::EsrEl2, 0x9200_0250)]);
}

#[test]
fn an_abort_routed_to_el2_is_0x10_even_after_s1ptw() {
    let mut vcpu = nested(5, TEA);
    vcpu.last_fault.esr = Esr::from_bits(0x9200_0087);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::EsrEl2, 0x9200_0010)]);
}

#[test]
fn el2_entry_honours_sctlr_el2() {
    let mut vcpu = nested(5, TEA);
    vcpu.set_reg(Reg::SctlrEl2, 1 << 44); // DSSBS; SPAN clear
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pstate, 0x0040_13c9)]);
}

#[test]
fn ease_of_a_nested_guest_needs_sctlr2en() {
    for (hcrx, offset) in [(SCTLR2EN, 0x380), (0, 0x200)] {
        let mut vcpu = nested(5, 0);
        vcpu.config.sctlr2 = true;
        vcpu.set_reg(Reg::Sctlr2El1, 1 << 5);
        vcpu.set_reg(Reg::HcrxEl2, hcrx);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::Pc, VBAR + offset)]);
    }
}

#[test]
fn ease_of_the_guest_hypervisor_is_sctlr2_el2() {
    let mut vcpu = nested(9, 0);
    vcpu.config.sctlr2 = true;
    vcpu.set_reg(Reg::Sctlr2El2, 1 << 5);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pc, VBAR_EL2 + 0x380)]);
}

#[test]
fn amo_sends_serrors_to_el2_masked_or_not() {
    for pstate in [5, 5 | A, 0] {
        let mut vcpu = nested(pstate, AMO);
        vcpu.set_reg(Reg::FarEl2, 0x1234);
        set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
        check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0011), (Reg::Pc, VBAR_EL2 + 0x580), (Reg::FarEl2, 0x1234)]);
    }
}

#[test]
fn tmea_sends_masked_serrors_to_el2_and_nmea_does_not_count_at_el1() {
    let mut vcpu = nested(5 | A, 0);
    vcpu.config.sctlr2 = true;
    vcpu.set_reg(Reg::HcrxEl2, TMEA | SCTLR2EN);
    vcpu.set_reg(Reg::Sctlr2El1, 1 << 2);
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    check(&vcpu, &[(Reg::Pc, VBAR_EL2 + 0x580)]);
    // At EL0 it does.
    let mut vcpu = nested(A, 0);
    vcpu.config.sctlr2 = true;
    vcpu.set_reg(Reg::HcrxEl2, TMEA | SCTLR2EN);
    vcpu.set_reg(Reg::Sctlr2El1, 1 << 2);
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    check(&vcpu, &[(Reg::Pc, VBAR + 0x580)]);
}

#[test]
fn an_serror_that_el2_cannot_take_is_held_and_tried_again_at_each_run() {
    let mut vcpu = nested(9, 0);
    let applied = set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    assert_eq!(applied.serror, Some(SErrorDelivery::HeldForEl2));
    assert!(get_events(&vcpu).unwrap().serror_pending);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Waits);
    check(&vcpu, &[(Reg::Pc, PC)]);
    vcpu.set_reg(Reg::HcrEl2, AMO);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0011), (Reg::Pc, VBAR_EL2 + 0x380)]);
    assert!(!get_events(&vcpu).unwrap().serror_pending);
}

#[test]
fn a_host_kernel_at_el2_takes_serrors_as_if_amo_were_set() {
    let mut vcpu = nested(9, E2H);
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    check(&vcpu, &[(Reg::EsrEl2, 0xbf00_0000), (Reg::Pc, VBAR_EL2 + 0x380)]);
}

#[test]
fn an_serror_that_el2_masked_is_taken_at_el2_once_it_is_unmasked() {
    let mut vcpu = nested(9 | A, AMO);
    let applied = set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    assert_eq!(applied.serror, Some(SErrorDelivery::Pending));
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Waits);
    vcpu.set_reg(Reg::Pstate, 9);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0011), (Reg::Pc, VBAR_EL2 + 0x380), (Reg::EsrEl1, 0)]);
    assert!(!get_events(&vcpu).unwrap().serror_pending);
}

/// Measured on Linux 7.2.12, like the next three.
#[test]
fn a_pending_serror_is_routed_anew_at_each_exit() {
    let mut vcpu = nested(9 | A, AMO);
    set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    assert_eq!(finish_run(&mut vcpu), PendingSError::Waits);
    // Its guest ran meanwhile, and it asked for SErrors, so they do not go to the guest.
    vcpu.set_reg(Reg::Pstate, 5 | A);
    assert_eq!(finish_run(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0011), (Reg::Pc, VBAR_EL2 + 0x580), (Reg::EsrEl1, 0)]);
    assert_eq!(finish_run(&mut vcpu), PendingSError::None);
}

/// HCR_EL2.VSE is still set for the hypervisor, and now applies to its guest; so does VSESR_EL2, which is 0
/// here.
#[test]
fn until_then_the_guest_of_the_hypervisor_takes_one_that_is_not_its_own() {
    let mut vcpu = nested(9 | A, AMO);
    set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    vcpu.set_reg(Reg::Pstate, 5);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El1));
    check(&vcpu, &[(Reg::EsrEl1, 0xbe00_0000), (Reg::Pc, VBAR + 0x380), (Reg::EsrEl2, 0)]);
    assert_eq!(finish_run(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0011), (Reg::ElrEl2, VBAR + 0x380)]);
}

#[test]
fn a_pending_serror_is_held_at_the_exit_once_the_guest_hypervisor_does_not_route_it_any_more() {
    let mut vcpu = nested(9 | A, AMO);
    set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    vcpu.set_reg(Reg::HcrEl2, 0);
    assert_eq!(finish_run(&mut vcpu), PendingSError::Waits);
    vcpu.set_reg(Reg::Pstate, 9);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Waits);
    check(&vcpu, &[(Reg::Pc, PC)]);
    let events = get_events(&vcpu).unwrap();
    assert_eq!((events.serror_pending, events.serror_esr), (true, 0x11));
}

#[test]
fn until_then_the_cpu_takes_it_once_it_is_unmasked() {
    let mut vcpu = nested(9 | A, AMO);
    set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    vcpu.set_reg(Reg::HcrEl2, 0);
    vcpu.set_reg(Reg::Pstate, 9);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0011), (Reg::Pc, VBAR_EL2 + 0x380)]);
}

/// One held, one pending: two flags tell them apart, but they share one VSESR.
#[test]
fn an_serror_that_is_held_and_one_that_is_pending_are_taken_one_after_the_other() {
    let mut vcpu = nested(9, 0);
    set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    vcpu.set_reg(Reg::HcrEl2, TGE);
    vcpu.set_reg(Reg::Pstate, 9 | A);
    set_events(&mut vcpu, POSTED, &serror_esr(0x22)).unwrap();
    vcpu.set_reg(Reg::Pstate, 9);
    assert_eq!(inject_held(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0022), (Reg::ElrEl2, PC)]);
    vcpu.set_reg(Reg::Pstate, 9);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El2));
    check(&vcpu, &[(Reg::EsrEl2, 0xbe00_0022), (Reg::ElrEl2, VBAR_EL2 + 0x380)]);
    assert!(!get_events(&vcpu).unwrap().serror_pending);
}

#[test]
fn an_exit_of_a_guest_without_el2_leaves_its_serror_alone() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &serror_esr(0x11)).unwrap();
    vcpu.set_reg(Reg::Pstate, 5);
    assert_eq!(finish_run(&mut vcpu), PendingSError::None);
    assert!(vcpu.serror.pending);
    check(&vcpu, &[(Reg::Pc, PC)]);
}
