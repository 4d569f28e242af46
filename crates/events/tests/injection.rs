//! Section 3 of the facts: injection into AArch64 EL1.

mod guest;

use guest::{
    FAR, PC, POSTED, VBAR, Vcpu, check, dabt, el0, el1, el1_unmasked, guest, iabt, serror, serror_esr,
};
use seawall_arm::{Esr, Target};
use seawall_events::kernel::{
    AbortDelivery, PendingSError, SErrorDelivery, VirtualSError, get_events, prepare_run, set_events,
};
use seawall_events::{Abi, Reg, Registers};

/// The handler's PSTATE after a data abort into a guest in `pstate` with `sctlr`.
fn handler_pstate(pstate: u64, sctlr: u64) -> u64 {
    let mut vcpu = guest(pstate);
    vcpu.set_reg(Reg::SctlrEl1, sctlr);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    vcpu.reg(Reg::Pstate)
}

const SPAN: u64 = 1 << 23;

#[test]
fn esr_is_il_class_and_0x10_and_nothing_else() {
    for (pstate, events, esr) in [
        (0x3c0, dabt(), 0x9200_0010), // from EL0: 0x24
        (0x3c5, dabt(), 0x9600_0010), // from EL1: 0x25
        (0x3c4, dabt(), 0x9600_0010), // EL1t is EL1
        (0x3c0, iabt(), 0x8200_0010), // from EL0: 0x20
        (0x3c5, iabt(), 0x8600_0010), // from EL1: 0x21
        (0x010, dabt(), 0x9200_0010), // from AArch32 EL0
    ] {
        let mut vcpu = guest(pstate);
        // FnV, EA, SET, WnR of the last exit are not copied.
        vcpu.last_fault.esr = Esr::from_bits(0x9200_1e50);
        set_events(&mut vcpu, POSTED, &events).unwrap();
        check(&vcpu, &[(Reg::EsrEl1, esr), (Reg::FarEl1, FAR), (Reg::ElrEl1, PC)]);
    }
}

#[test]
fn pstate_a_never_holds_an_sea_back() {
    let mut vcpu = el1();
    assert_ne!(vcpu.reg(Reg::Pstate) & 0x100, 0);
    set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pc, VBAR + 0x200)]);
}

#[test]
fn after_s1ptw_the_status_is_0x14_plus_the_level_that_a_new_walk_finds() {
    for (level, status) in [(-1, 0x13), (0, 0x14), (1, 0x15), (2, 0x16), (3, 0x17)] {
        let mut vcpu = el0();
        vcpu.last_fault.esr = Esr::from_bits(0x9200_0087); // S1PTW
        vcpu.walk_level = Some(level);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::EsrEl1, 0x9200_0000 | status)]);
        let mut vcpu = Vcpu { last_fault: vcpu.last_fault, walk_level: Some(level), ..el0() };
        set_events(&mut vcpu, POSTED, &iabt()).unwrap();
        check(&vcpu, &[(Reg::EsrEl1, 0x8200_0000 | status)]);
    }
}

#[test]
fn after_s1ptw_with_a_walk_that_fails_nothing_is_injected_and_set_returns_0() {
    let s1ptw = Esr::from_bits(0x9200_0087);
    for (level, ipa) in [(None, Some(0x8020_0000)), (Some(3), None)] {
        let mut vcpu = el0();
        vcpu.last_fault.esr = s1ptw;
        vcpu.last_fault.ipa = ipa;
        vcpu.walk_level = level;
        let before = vcpu.clone();
        let applied = set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        assert_eq!(applied.abort, Some(AbortDelivery::NotDelivered));
        assert_eq!(vcpu, before, "not even the MMIO access is dropped");
    }
}

#[test]
fn ease_takes_the_abort_to_the_serror_vector_of_the_same_base() {
    for (pstate, offset) in [(5, 0x380), (4, 0x180), (0, 0x580), (0x10, 0x780)] {
        let mut vcpu = guest(pstate);
        vcpu.config.sctlr2 = true;
        vcpu.set_reg(Reg::Sctlr2El1, 1 << 5);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::Pc, VBAR + offset)]);
        assert_eq!(vcpu.reg(Reg::EsrEl1) >> 26 & !1, 0x24, "the class is still a data abort");
    }
}

#[test]
fn ease_has_no_effect_in_a_guest_without_sctlr2() {
    let mut vcpu = el1();
    vcpu.set_reg(Reg::Sctlr2El1, 1 << 5);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pc, VBAR + 0x200)]);
}

#[test]
fn vector_base_goes_by_where_the_abort_comes_from() {
    for (pstate, sync, serror_vector) in
        [(5, 0x200, 0x380), (4, 0x000, 0x180), (0, 0x400, 0x580), (0x10, 0x600, 0x780)]
    {
        let mut vcpu = guest(pstate);
        set_events(&mut vcpu, POSTED, &dabt()).unwrap();
        check(&vcpu, &[(Reg::Pc, VBAR + sync)]);
        let mut vcpu = guest(pstate);
        set_events(&mut vcpu, POSTED, &serror()).unwrap();
        check(&vcpu, &[(Reg::Pc, VBAR + serror_vector)]);
    }
}

#[test]
fn elr_is_the_pc_and_spsr_the_pstate() {
    let pstate = 0xf1f0_1c05;
    let mut vcpu = guest(pstate);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::ElrEl1, PC), (Reg::SpsrEl1, pstate)]);
}

#[test]
fn entry_keeps_nzcv_and_dit() {
    assert_eq!(handler_pstate(0xf100_0005, SPAN), 0xf100_03c5);
}

#[test]
fn entry_keeps_pan_and_sets_it_if_span_is_0() {
    assert_eq!(handler_pstate(0x0040_0005, SPAN), 0x0040_03c5);
    assert_eq!(handler_pstate(0x0000_0005, SPAN), 0x0000_03c5);
    assert_eq!(handler_pstate(0x0000_0005, 0), 0x0040_03c5);
}

#[test]
fn entry_sets_tco_if_the_guest_has_mte() {
    let mut vcpu = el1_unmasked();
    vcpu.config.mte = true;
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pstate, 0x0200_03c5)]);
    // Without MTE the bit is not kept.
    assert_eq!(handler_pstate(0x0200_0005, SPAN), 0x3c5);
}

#[test]
fn entry_clears_uao_ss_il_and_btype() {
    for bit in [1 << 23, 1 << 21, 1 << 20, 3 << 10] {
        assert_eq!(handler_pstate(5 | bit, SPAN), 0x3c5, "{bit:#x}");
    }
}

#[test]
fn entry_takes_ssbs_from_dssbs() {
    assert_eq!(handler_pstate(5, SPAN | 1 << 44), 0x13c5);
    assert_eq!(handler_pstate(0x1005, SPAN), 0x3c5);
}

#[test]
fn entry_masks_everything_and_runs_at_el1h() {
    for pstate in [0, 4, 5, 0x10, 0x105] {
        assert_eq!(handler_pstate(pstate, SPAN), 0x3c5, "{pstate:#x}");
    }
}

#[test]
fn kvm_s_injector_does_not_set_allint() {
    assert_eq!(handler_pstate(0x2005, SPAN), 0x3c5);
    assert_eq!(handler_pstate(5, SPAN | 1 << 61), 0x3c5);
}

/// RES0 in the architecture, but KVM adds the offset to user space's value unchanged. Measured on Linux
/// 7.2.12.
#[test]
fn kvm_s_injector_adds_to_vbar_as_it_is() {
    let mut vcpu = el1();
    vcpu.set_reg(Reg::VbarEl1, VBAR | 0x404);
    set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pc, VBAR + 0x604)]);
}

/// The CPU takes it, not KVM. DDI 0487, `VBAR_EL1`: bits [10:0] are RES0.
#[test]
fn an_serror_that_waited_is_taken_at_vbar_without_its_low_bits() {
    let mut vcpu = el1();
    vcpu.set_reg(Reg::VbarEl1, VBAR | 0x404);
    set_events(&mut vcpu, Abi::Mainline, &serror_esr(1)).unwrap();
    vcpu.set_reg(Reg::Pstate, 0x2c5);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El1));
    check(&vcpu, &[(Reg::Pc, VBAR + 0x380)]);
}

#[test]
fn unmasked_serror_is_taken_at_once_and_leaves_far_alone() {
    let mut vcpu = el1_unmasked();
    vcpu.set_reg(Reg::FarEl1, 0x1234);
    let applied = set_events(&mut vcpu, POSTED, &serror_esr(0x10_0c11)).unwrap();
    assert_eq!(applied.serror, Some(SErrorDelivery::Delivered(Target::El1)));
    check(&vcpu, &[(Reg::EsrEl1, 0xbe10_0c11), (Reg::Pc, VBAR + 0x380), (Reg::FarEl1, 0x1234)]);
    assert_eq!(vcpu.serror, VirtualSError::default());
}

#[test]
fn masked_serror_sets_vse_and_vsesr() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &serror_esr(0x01ff_ffff)).unwrap();
    let expected = VirtualSError { pending: true, vsesr: 0x01ff_ffff, held_for_el2: false };
    assert_eq!(vcpu.serror, expected);
    check(&vcpu, &[(Reg::Pc, PC), (Reg::EsrEl1, 0)]);
}

#[test]
fn nmea_unmasks_serrors_where_sctlr2_is_in_effect() {
    for (sctlr2, pc) in [(true, VBAR + 0x380), (false, PC)] {
        let mut vcpu = el1();
        vcpu.config.sctlr2 = sctlr2;
        vcpu.set_reg(Reg::Sctlr2El1, 1 << 2);
        set_events(&mut vcpu, POSTED, &serror()).unwrap();
        check(&vcpu, &[(Reg::Pc, pc)]);
    }
}

#[test]
fn pending_serror_is_taken_when_the_guest_unmasks_it() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &serror_esr(0x100_0c11)).unwrap();
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Waits);
    vcpu.set_reg(Reg::Pc, 0x40_2000);
    vcpu.set_reg(Reg::Pstate, 0x2c5); // A clear
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El1));
    // Golden: VSESR 0x1000c11 gives ESR 0xbf000c11, FAR untouched.
    check(
        &vcpu,
        &[
            (Reg::EsrEl1, 0xbf00_0c11),
            (Reg::Pc, VBAR + 0x380),
            (Reg::ElrEl1, 0x40_2000),
            (Reg::SpsrEl1, 0x2c5),
            (Reg::FarEl1, 0),
        ],
    );
    assert!(!get_events(&vcpu).unwrap().serror_pending);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::None);
}

#[test]
fn pending_serror_is_taken_from_el0_when_a_is_clear_there() {
    let mut vcpu = guest(0x100);
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Waits);
    vcpu.set_reg(Reg::Pstate, 0);
    assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El1));
    check(&vcpu, &[(Reg::EsrEl1, 0xbf00_0000), (Reg::Pc, VBAR + 0x580)]);
}
