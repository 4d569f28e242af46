//! Section 2 of the facts: the steps of `KVM_SET_VCPU_EVENTS`, and the result of `KVM_GET_VCPU_EVENTS`.

mod guest;

use std::cell::Cell;

use guest::{
    FAR, PC, POSTED, VBAR, Vcpu, check, dabt, el0, el1, el1_unmasked, iabt, serror, serror_esr,
    with_abort_esr,
};
use seawall_arm::{Esr, Target};
use seawall_events::kernel::{
    AbortDelivery, LastFault, SErrorDelivery, VcpuConfig, VcpuState, VirtualSError, get_events,
    get_events_bytes, set_events, set_events_bytes,
};
use seawall_events::{Abi, Errno, Refusal, Refused, Reg, Registers, VcpuEvents};

/// Checks that the call is refused with this reason and leaves the guest unchanged.
fn check_refused(vcpu: &Vcpu, abi: Abi, events: &VcpuEvents, refusal: Refusal) {
    let mut after = vcpu.clone();
    let refused = set_events(&mut after, abi, events);
    assert_eq!(refused, Err(Refused { refusal, abort_delivered: false }), "{abi:?} {events:?}");
    assert_eq!(&after, vcpu, "{abi:?} {events:?}");
}

fn without_ras(mut vcpu: Vcpu) -> Vcpu {
    vcpu.config.ras = false;
    vcpu
}

/// A vCPU before KVM_ARM_VCPU_INIT.
struct Uninitialised(Vcpu);

impl Registers for Uninitialised {
    fn reg(&self, reg: Reg) -> u64 {
        self.0.reg(reg)
    }
    fn set_reg(&mut self, reg: Reg, value: u64) {
        self.0.set_reg(reg, value);
    }
}

impl VcpuState for Uninitialised {
    fn config(&self) -> VcpuConfig {
        self.0.config
    }
    fn last_fault(&self) -> LastFault {
        self.0.last_fault
    }
    fn walk_level(&self, _: u64, _: u64) -> Option<i8> {
        None
    }
    fn drop_mmio(&mut self) {}
    fn serror(&self) -> VirtualSError {
        self.0.serror
    }
    fn set_serror(&mut self, serror: VirtualSError) {
        self.0.serror = serror;
    }
    fn is_initialised(&self) -> bool {
        false
    }
}

#[test]
fn before_vcpu_init_both_ioctls_fail_with_enoexec_and_nothing_is_copied_in() {
    let mut vcpu = Uninitialised(el1());
    let asked = Cell::new(false);
    let refused = set_events_bytes(&mut vcpu, POSTED, || {
        asked.set(true);
        None
    });
    assert_eq!(refused.unwrap_err().refusal.errno(), Errno::Enoexec);
    assert!(!asked.get());
    assert_eq!(get_events(&vcpu).unwrap_err().errno().number(), 8);
    assert_eq!(set_events(&mut vcpu, POSTED, &dabt()).unwrap_err().refusal, Refusal::NotInitialised);
    assert_eq!(vcpu.0, el1());
}

#[test]
fn failed_copy_in_is_efault() {
    let mut vcpu = el1();
    let refused = set_events_bytes(&mut vcpu, Abi::Mainline, || None).unwrap_err();
    assert_eq!(refused.refusal.errno().number(), 14);
    assert_eq!(vcpu, el1());
}

#[test]
fn reserved_and_pad_are_einval_before_any_effect() {
    for offset in [7, 60] {
        let mut wire = [0; 64];
        wire[2] = 1; // ext_dabt_pending
        wire[offset] = 1;
        // The trailing layout has the abort's ESR at 56..64: it means nothing without its flag.
        for abi in [Abi::Mainline, POSTED] {
            let mut vcpu = el1();
            let refused = set_events_bytes(&mut vcpu, abi, || Some(wire)).unwrap_err();
            assert_eq!(refused.refusal.errno().number(), 22, "{abi:?} {offset}");
            assert_eq!(vcpu, el1(), "{abi:?} {offset}");
        }
    }
}

#[test]
fn nothing_pending_returns_0_and_changes_nothing() {
    for abi in Abi::ALL {
        let mut vcpu = el1();
        let applied = set_events(&mut vcpu, abi, &VcpuEvents::default()).unwrap();
        assert_eq!((applied.abort, applied.serror), (None, None));
        assert_eq!(vcpu, el1());
    }
}

#[test]
fn mainline_does_not_look_at_the_serror_esr_unless_one_is_pending() {
    let events = VcpuEvents { serror_has_esr: true, serror_esr: u64::MAX, ..VcpuEvents::default() };
    for vcpu in [el1(), without_ras(el1())] {
        let mut after = vcpu.clone();
        set_events(&mut after, Abi::Mainline, &events).unwrap();
        assert_eq!(after, vcpu);
    }
}

#[test]
fn mainline_refuses_an_serror_esr_without_ras() {
    check_refused(&without_ras(el1()), Abi::Mainline, &serror_esr(0x10_0c11), Refusal::SErrorEsrWithoutRas);
}

#[test]
fn serror_esr_outside_the_iss_is_einval() {
    for esr in [1 << 25, 0x0200_0011, 1 << 32, u64::MAX] {
        for abi in Abi::ALL {
            check_refused(&el1(), abi, &serror_esr(esr), Refusal::SErrorEsrOutsideIss(esr));
        }
    }
    set_events(&mut el1(), POSTED, &serror_esr(0x01ff_ffff)).unwrap();
}

#[test]
fn mainline_delivers_the_abort_before_it_refuses_the_serror() {
    for (vcpu, refusal) in
        [(el1(), Refusal::SErrorEsrOutsideIss(1 << 25)), (without_ras(el1()), Refusal::SErrorEsrWithoutRas)]
    {
        let events = VcpuEvents { ext_dabt_pending: true, ..serror_esr(1 << 25) };
        let mut after = vcpu;
        let refused = set_events(&mut after, Abi::Mainline, &events).unwrap_err();
        assert_eq!(refused, Refused { refusal, abort_delivered: true });
        assert!(refused.to_string().ends_with("(the external abort of the same call was delivered)"));
        check(&after, &[(Reg::Pc, VBAR + 0x200), (Reg::ElrEl1, PC), (Reg::EsrEl1, 0x9600_0010)]);
        assert_eq!(after.serror, VirtualSError::default());
    }
}

#[test]
fn mainline_makes_a_data_abort_even_after_a_fetch() {
    let mut vcpu = el0();
    vcpu.last_fault.esr = Esr::from_bits(0x8200_0210);
    set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x9200_0010), (Reg::FarEl1, FAR)]);
}

#[test]
fn mainline_refuses_the_fields_of_the_proposal() {
    check_refused(&el1(), Abi::Mainline, &iabt(), Refusal::NotInMainline);
    check_refused(&el1(), Abi::Mainline, &with_abort_esr(dabt(), 0), Refusal::NotInMainline);
    // The word where the proposal has ext_abt_esr is reserved in mainline.
    let esr_alone = VcpuEvents { ext_abt_esr: 1, ..dabt() };
    check_refused(&el1(), Abi::Mainline, &esr_alone, Refusal::NotInMainline);
}

#[test]
fn on_a_fresh_vcpu_the_address_is_zero() {
    let mut vcpu = el1();
    vcpu.last_fault = LastFault::default();
    set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    check(&vcpu, &[(Reg::FarEl1, 0), (Reg::EsrEl1, 0x9600_0010)]);
}

#[test]
fn extended_refuses_an_esr_without_ras_even_with_nothing_pending() {
    let vcpu = without_ras(el1());
    let serror_esr = VcpuEvents { serror_has_esr: true, ..VcpuEvents::default() };
    check_refused(&vcpu, POSTED, &serror_esr, Refusal::SErrorEsrWithoutRas);
    let abort_esr = VcpuEvents { ext_abt_has_esr: true, ..VcpuEvents::default() };
    check_refused(&vcpu, POSTED, &abort_esr, Refusal::AbortEsrWithoutRas);
}

#[test]
fn extended_refuses_an_esr_outside_the_iss_even_with_nothing_pending() {
    let serror_esr = VcpuEvents { serror_has_esr: true, serror_esr: 1 << 25, ..VcpuEvents::default() };
    check_refused(&el1(), POSTED, &serror_esr, Refusal::SErrorEsrOutsideIss(1 << 25));
    let abort_esr = with_abort_esr(VcpuEvents::default(), 1 << 32);
    check_refused(&el1(), POSTED, &abort_esr, Refusal::AbortEsrOutsideIss(1 << 32));
}

#[test]
fn extended_refuses_both_aborts_at_once() {
    let both = VcpuEvents { ext_iabt_pending: true, ..dabt() };
    check_refused(&el1(), POSTED, &both, Refusal::BothAborts);
}

#[test]
fn extended_checks_everything_before_any_effect() {
    let bad_serror = VcpuEvents { ext_dabt_pending: true, ..serror_esr(1 << 25) };
    check_refused(&el1(), POSTED, &bad_serror, Refusal::SErrorEsrOutsideIss(1 << 25));
    // RAS first, then the ESRs, then the pair of aborts.
    let all = VcpuEvents {
        ext_iabt_pending: true,
        ..with_abort_esr(VcpuEvents { ext_dabt_pending: true, ..serror_esr(1 << 25) }, 1 << 26)
    };
    check_refused(&without_ras(el1()), POSTED, &all, Refusal::SErrorEsrWithoutRas);
    check_refused(&el1(), POSTED, &all, Refusal::SErrorEsrOutsideIss(1 << 25));
    let both_and_bad_esr = with_abort_esr(VcpuEvents { ext_iabt_pending: true, ..dabt() }, 1 << 26);
    check_refused(&el1(), POSTED, &both_and_bad_esr, Refusal::AbortEsrOutsideIss(1 << 26));
}

#[test]
fn extended_ignores_an_esr_whose_flag_is_clear() {
    let events = VcpuEvents { serror_esr: u64::MAX, ext_abt_esr: u64::MAX, ..dabt() };
    let mut vcpu = without_ras(el1());
    set_events(&mut vcpu, POSTED, &events).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x9600_0010)]);
}

#[test]
fn has_esr_with_nothing_pending_does_nothing() {
    let events =
        VcpuEvents { serror_has_esr: true, serror_esr: 0x11, ..with_abort_esr(VcpuEvents::default(), 0x200) };
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &events).unwrap();
    assert_eq!(vcpu, el1());
}

#[test]
fn abort_esr_is_ored_into_the_kernels_own() {
    // ISV|SAS|SF|AR|CM|FnV|EA, and ISV|FnV|EA: the proposal's own selftest.
    for (events, esr) in [
        (with_abort_esr(dabt(), 0x1c0_c700), 0x97c0_c710),
        (with_abort_esr(iabt(), 0x100_0600), 0x8700_0610),
        // The fault status too: 0x10 | 0x15 is a walk at level 1.
        (with_abort_esr(dabt(), 0x215), 0x9600_0215),
    ] {
        let mut vcpu = el1();
        set_events(&mut vcpu, POSTED, &events).unwrap();
        check(&vcpu, &[(Reg::EsrEl1, esr), (Reg::FarEl1, FAR), (Reg::Pc, VBAR + 0x200)]);
    }
}

#[test]
fn abort_esr_does_not_reach_ec_and_il() {
    let mut vcpu = el0();
    set_events(&mut vcpu, POSTED, &with_abort_esr(iabt(), 0x01ff_ffff)).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x83ff_ffff)]);
}

#[test]
fn far_is_that_of_the_last_exit_even_with_fnv() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &with_abort_esr(dabt(), 1 << 10)).unwrap();
    check(&vcpu, &[(Reg::FarEl1, FAR), (Reg::EsrEl1, 0x9600_0410)]);
}

#[test]
fn serror_without_an_esr_is_ids_alone() {
    let mut vcpu = el1_unmasked();
    set_events(&mut vcpu, Abi::Mainline, &serror()).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0xbf00_0000), (Reg::Pc, VBAR + 0x380)]);
}

#[test]
fn masked_serror_is_pending_and_get_returns_its_esr() {
    let mut vcpu = el1();
    let applied = set_events(&mut vcpu, POSTED, &serror_esr(0x10_0c11)).unwrap();
    assert_eq!(applied.serror, Some(SErrorDelivery::Pending));
    let events = get_events(&vcpu).unwrap();
    assert_eq!(events, VcpuEvents { serror_esr: 0x10_0c11, ..serror_esr(0) });
    // has_esr is 1 even without an ESR: it says that the host has RAS.
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    assert_eq!(get_events(&vcpu).unwrap(), serror_esr(1 << 24));
}

#[test]
fn get_says_has_esr_by_ras_even_with_nothing_pending() {
    let ras = VcpuEvents { serror_has_esr: true, ..VcpuEvents::default() };
    assert_eq!(get_events(&el1()), Ok(ras));
    assert_eq!(get_events(&without_ras(el1())), Ok(VcpuEvents::default()));
    let mut expected = [0; 64];
    expected[1] = 1;
    assert_eq!(get_events_bytes(&el1(), POSTED), Ok(expected));
}

#[test]
fn get_gives_no_esr_without_ras() {
    let mut vcpu = without_ras(el1());
    set_events(&mut vcpu, Abi::Mainline, &serror()).unwrap();
    assert_eq!(get_events(&vcpu), Ok(serror()));
}

#[test]
fn a_delivered_abort_is_never_pending_in_get() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &with_abort_esr(dabt(), 0x200)).unwrap();
    let events = get_events(&vcpu).unwrap();
    assert!(!events.ext_dabt_pending && !events.ext_iabt_pending && !events.ext_abt_has_esr);
    assert_eq!(events.ext_abt_esr, 0);
}

#[test]
fn what_get_returned_may_be_given_to_set() {
    for abi in Abi::ALL {
        let mut vcpu = el1();
        set_events(&mut vcpu, abi, &serror_esr(0x11)).unwrap();
        let before = vcpu.clone();
        let bytes = get_events_bytes(&vcpu, abi).unwrap();
        set_events_bytes(&mut vcpu, abi, || Some(bytes)).unwrap();
        assert_eq!(vcpu, before);
    }
}

#[test]
fn serror_pending_0_does_not_cancel_an_serror() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    set_events(&mut vcpu, POSTED, &VcpuEvents::default()).unwrap();
    assert!(get_events(&vcpu).unwrap().serror_pending);
}

#[test]
fn commit_drops_a_waiting_mmio_access() {
    for (mut vcpu, events) in [(el1(), dabt()), (el1(), iabt()), (el1_unmasked(), serror())] {
        assert!(vcpu.mmio_waits);
        set_events(&mut vcpu, POSTED, &events).unwrap();
        assert!(!vcpu.mmio_waits, "{events:?}");
    }
}

#[test]
fn masked_serror_leaves_a_waiting_mmio_access_alone() {
    let mut vcpu = el1();
    set_events(&mut vcpu, POSTED, &serror()).unwrap();
    assert!(vcpu.mmio_waits);
    check(&vcpu, &[(Reg::Pc, PC), (Reg::Pstate, 0x3c5)]);
}

#[test]
fn entry_state_is_visible_when_the_call_returns() {
    let mut vcpu = el1();
    let applied = set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    assert_eq!(applied.abort, Some(AbortDelivery::Delivered(Target::El1)));
    check(
        &vcpu,
        &[
            (Reg::Pc, VBAR + 0x200),
            (Reg::Pstate, 0x3c5),
            (Reg::ElrEl1, PC),
            (Reg::SpsrEl1, 0x3c5),
            (Reg::EsrEl1, 0x9600_0010),
            (Reg::FarEl1, FAR),
        ],
    );
}

#[test]
fn abort_and_serror_in_one_call_take_the_abort_and_leave_the_serror_pending() {
    let mut vcpu = el1_unmasked();
    let events = VcpuEvents { ext_dabt_pending: true, ..serror_esr(0x11) };
    let applied = set_events(&mut vcpu, POSTED, &events).unwrap();
    assert_eq!(applied.abort, Some(AbortDelivery::Delivered(Target::El1)));
    assert_eq!(applied.serror, Some(SErrorDelivery::Pending));
    check(&vcpu, &[(Reg::Pc, VBAR + 0x200), (Reg::EsrEl1, 0x9600_0010), (Reg::ElrEl1, PC)]);
    assert_eq!(vcpu.serror.vsesr, 0x11);
}

#[test]
fn with_nmea_the_serror_stacks_on_top_of_the_abort() {
    let mut vcpu = el1_unmasked();
    vcpu.config.sctlr2 = true;
    vcpu.set_reg(Reg::Sctlr2El1, 1 << 2);
    let events = VcpuEvents { ext_dabt_pending: true, ..serror_esr(0x11) };
    set_events(&mut vcpu, POSTED, &events).unwrap();
    check(
        &vcpu,
        &[
            (Reg::Pc, VBAR + 0x380),
            (Reg::ElrEl1, VBAR + 0x200),
            (Reg::SpsrEl1, 0x3c5),
            (Reg::EsrEl1, 0xbe00_0011),
            (Reg::FarEl1, FAR),
        ],
    );
}
