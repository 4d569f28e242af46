//! The guest's position after an injection, and the cost of finding it, for each way to the ABI.

use seawall_arm::{Esr, Target};
use seawall_events::{Layout, Reg, VcpuEvents};
use seawall_inject::{Delivery, Errno, GuestKind, InjectError, Injector, Last, Way};
use seawall_model::guests::{
    FAR, PC, VBAR, VBAR_EL2, aarch32, after_s1ptw, check, dabt, guest, iabt, nested, with, with_esr,
    with_serror,
};
use seawall_model::{Call, FAILED, Kernel, Vcpu, WAYS};

const LASTS: [Last; 2] = [Last::NoWalk, Last::Any];
const TEA: u64 = 1 << 37;

fn at_vector(target: Target, pc: u64, esr: u64, far: u64) -> Delivery {
    Delivery::AtVector { target, pc, esr: Esr::from_bits(esr), far }
}

/// Checks each way and each kind of last exit.
fn each(vcpu: &Vcpu, events: &VcpuEvents, expected: Delivery) {
    for way in WAYS {
        for last in LASTS {
            let (delivery, _) = Kernel::of(way, vcpu).inject(last, events);
            assert_eq!(delivery, Ok(expected), "{way:?}, {last:?}");
        }
    }
}

/// Facts, section 3; DDI 0487, `AArch64.TakeException`.
#[test]
fn an_abort_is_at_the_vector_with_the_esr_and_far_that_the_handler_reads() {
    each(&guest(0x3c5), &dabt(), at_vector(Target::El1, VBAR + 0x200, 0x9600_0010, FAR));
    each(&guest(0x3c0), &iabt(), at_vector(Target::El1, VBAR + 0x400, 0x8200_0010, FAR));
    each(&guest(0), &with_esr(iabt(), 0x210), at_vector(Target::El1, VBAR + 0x400, 0x8200_0210, FAR));
    each(&guest(5), &with_esr(dabt(), 0x50), at_vector(Target::El1, VBAR + 0x200, 0x9600_0050, FAR));
    each(&nested(9, 0), &with_esr(iabt(), 0x210), at_vector(Target::El2, VBAR_EL2 + 0x200, 0x8600_0210, FAR));
    each(&nested(5, 0), &dabt(), at_vector(Target::El1, VBAR + 0x200, 0x9600_0010, FAR));
}

/// DDI 0487, `AArch32.ReportDataAbort`, `AArch32.ReportPrefetchAbort`: DFSR and DFAR, IFSR and IFAR.
#[test]
fn an_abort_of_aarch32_is_read_back_from_the_registers_that_it_has() {
    let vcpu = with(aarch32(0x10), &[(Reg::FarEl1, 0x1111_1111_2222_2222), (Reg::TcrEl1, 1 << 31)]);
    each(&vcpu, &dabt(), at_vector(Target::El1, 0x8000_1010, 0x210, FAR));
    each(&vcpu, &with_esr(iabt(), 0x200), at_vector(Target::El1, 0x8000_100c, 0x210, FAR));
}

/// A guest whose vector is itself bad stays where it is, with the same ESR again.
#[test]
fn an_abort_that_does_not_move_the_guest_is_one_all_the_same() {
    for (events, esr) in [(dabt(), 0x9600_0010), (with_esr(iabt(), 0x1_0210), 0x8601_0210)] {
        let stays = [
            (Reg::Pc, VBAR + 0x200),
            (Reg::ElrEl1, VBAR + 0x200),
            (Reg::FarEl1, FAR),
            (Reg::SpsrEl1, 0x3c5),
            (Reg::EsrEl1, esr),
        ];
        let vcpu = with(guest(0x3c5), &stays);
        each(&vcpu, &events, at_vector(Target::El1, VBAR + 0x200, esr, FAR));
        for way in WAYS {
            let before = after_s1ptw(vcpu.clone(), None);
            let (delivery, after) = Kernel::of(way, &before).inject(Last::Any, &events);
            assert_eq!((delivery, after), (Ok(Delivery::NotDelivered), before), "{way:?}");
        }
    }
    let narrow = with(aarch32(0x10), &[(Reg::Pc, 0x8000_1010)]);
    each(&narrow, &dabt(), at_vector(Target::El1, 0x8000_1010, 0x08, FAR));
}

/// Facts, section 3: if the walk fails nothing is injected, and SET returns 0.
#[test]
fn what_a_kernel_silently_did_not_inject_is_said_of_every_kernel() {
    for way in WAYS {
        for before in [after_s1ptw(guest(5), None), after_s1ptw(nested(5, 0), None)] {
            for events in [dabt(), with_esr(iabt(), 0x210)] {
                let (delivery, after) = Kernel::of(way, &before).inject(Last::Any, &events);
                assert_eq!((delivery, after), (Ok(Delivery::NotDelivered), before.clone()), "{way:?}");
            }
        }
    }
}

/// Measured on Linux 7.2.12: the abort of an AArch32 vCPU that never ran is lost, and its FSR and FAR are written.
#[test]
fn an_aarch32_vcpu_that_never_ran_takes_nothing_and_that_is_said() {
    let before = Vcpu { has_run: false, ..aarch32(0x10) };
    for events in [dabt(), iabt()] {
        let (delivery, after) = Kernel::stock(&before).inject(Last::Any, &events);
        assert_eq!(delivery, Ok(Delivery::NotDelivered));
        check(&after, &[(Reg::Pc, PC), (Reg::Pstate, 0x10), (Reg::X(20), 0)]);
    }
}

/// DDI 0487, `PSTATE.A`; KVM loses an unmasked SError of an AArch32 EL1.
#[test]
fn an_serror_is_at_its_vector_or_pends_or_is_lost() {
    let serror = VcpuEvents { serror_has_esr: true, serror_esr: 0x11, ..with_serror(VcpuEvents::default()) };
    each(&with(guest(5), &[(Reg::FarEl1, 7)]), &serror, at_vector(Target::El1, VBAR + 0x380, 0xbe00_0011, 7));
    each(&guest(0x3c5), &serror, Delivery::SErrorPending);
    each(&nested(9, 0), &serror, Delivery::SErrorPending);
    each(&aarch32(0x10), &serror, Delivery::NotDelivered);
    each(&aarch32(0x110), &serror, Delivery::SErrorPending);
    // Another one already waits, and is not the requested one.
    let mut vcpu = guest(5);
    vcpu.serror.pending = true;
    each(&vcpu, &serror, at_vector(Target::El1, VBAR + 0x380, 0xbe00_0011, 0));
    // This holds at the vector itself too: EL1t, whose entry does not change PC.
    let mut vcpu = with(guest(4), &[(Reg::Pc, VBAR + 0x180)]);
    vcpu.serror.pending = true;
    each(&vcpu, &serror, at_vector(Target::El1, VBAR + 0x180, 0xbe00_0011, 0));
}

#[test]
fn of_an_abort_and_an_serror_the_guest_is_where_the_later_took_it() {
    let both = VcpuEvents { serror_has_esr: true, serror_esr: 0x11, ..with_serror(with_esr(iabt(), 0x210)) };
    each(&guest(5), &both, at_vector(Target::El1, VBAR + 0x200, 0x8600_0210, FAR));
    // SCTLR2_EL1.NMEA: the SError is taken in the abort's handler.
    let mut vcpu = with(guest(5), &[(Reg::Sctlr2El1, 1 << 2)]);
    vcpu.config.sctlr2 = true;
    each(&vcpu, &both, at_vector(Target::El1, VBAR + 0x380, 0xbe00_0011, FAR));
    let walked = after_s1ptw(guest(5), None);
    for way in WAYS {
        let (delivery, _) = Kernel::of(way, &walked).inject(Last::Any, &both);
        assert_eq!(delivery, Ok(at_vector(Target::El1, VBAR + 0x380, 0xbe00_0011, 0)), "{way:?}");
    }
}

#[test]
fn nothing_asked_is_nothing_delivered() {
    each(&guest(5), &VcpuEvents::default(), Delivery::NotDelivered);
}

/// `HCR_EL2.TEA`: Linux's own call cannot deliver that soundly; a kernel with the proposal is not a stock
/// one.
#[test]
fn the_nested_guard_is_for_stock_kernels() {
    let before = nested(0x3c5, TEA);
    let (delivery, after) = Kernel::stock(&before).inject(Last::NoWalk, &dabt());
    assert_eq!((delivery, after), (Err(InjectError::TakenByHypervisor { hcr_el2: TEA }), before.clone()));
    for way in [Way::Native(Layout::Posted), Way::Native(Layout::Trailing)] {
        let (delivery, _) = Kernel::of(way, &before).inject(Last::NoWalk, &dabt());
        assert_eq!(delivery, Ok(at_vector(Target::El2, VBAR_EL2 + 0x400, 0x9200_0010, FAR)));
    }
}

#[test]
fn an_injection_that_was_done_and_cannot_be_seen_is_no_reason_to_do_it_again() {
    for way in WAYS {
        let whole = Kernel::of(way, &guest(5));
        let (_, done) = whole.inject(Last::NoWalk, &with_esr(iabt(), 0x210));
        let last = whole.calls.borrow().len() - 1;
        let (result, after) =
            Kernel::of(way, &guest(5)).and_fails(last).inject(Last::NoWalk, &with_esr(iabt(), 0x210));
        let error = result.unwrap_err();
        assert_eq!(error, InjectError::Unseen { call: "KVM_GET_ONE_REG", errno: FAILED });
        assert!(error.has_injected());
        assert_eq!(after, done);
    }
}

fn calls(way: Way, vcpu: &Vcpu, last: Last, events: &VcpuEvents) -> Vec<Call> {
    let kernel = Kernel::of(way, vcpu);
    kernel.inject(last, events).0.expect("nothing fails");
    kernel.calls.into_inner()
}

/// The calls for a SEA exit and for a SIGBUS, in order.
#[test]
fn the_calls_of_an_injection_are_these() {
    use Call::{GetOneReg, SetOneReg, SetVcpuEvents};
    let (pc, esr, far) = (GetOneReg(Reg::Pc), GetOneReg(Reg::EsrEl1), GetOneReg(Reg::FarEl1));
    let rewrite = SetOneReg(Reg::EsrEl1);
    let full = with_esr(iabt(), 0x210);
    let native = Way::Native(Layout::Posted);
    assert_eq!(calls(Way::Assisted, &guest(5), Last::NoWalk, &full), [SetVcpuEvents, esr, rewrite, pc, far]);
    assert_eq!(
        calls(Way::Assisted, &guest(5), Last::Any, &full),
        [esr, SetVcpuEvents, esr, rewrite, pc, far]
    );
    assert_eq!(calls(Way::Assisted, &guest(5), Last::Any, &dabt()), [esr, SetVcpuEvents, esr, pc, far]);
    assert_eq!(calls(native, &guest(5), Last::NoWalk, &full), [SetVcpuEvents, esr, pc, far]);
    assert_eq!(calls(native, &guest(5), Last::Any, &full), [esr, SetVcpuEvents, esr, pc, far]);
    // Over an old abort that looks the same.
    let old = with(guest(5), &[(Reg::EsrEl1, 0x8600_0210)]);
    assert_eq!(calls(native, &old, Last::Any, &full), [esr, rewrite, SetVcpuEvents, esr, pc, far]);
}

#[test]
fn no_injection_costs_more_calls_than_these() {
    let serror = with_serror(VcpuEvents::default());
    let data32 = aarch32(0x10);
    for (vcpu, events, no_walk, any) in [
        (guest(5), dabt(), 4, 5),
        (guest(5), iabt(), 5, 6),
        (nested(9, 0), iabt(), 7, 8),
        (nested(5, 0), iabt(), 9, 11),
        (data32.clone(), dabt(), 5, 5),
        (data32, iabt(), 13, 13),
        (guest(5), serror, 6, 6),
        (guest(0x3c5), serror, 6, 6),
        (guest(0x3c5), with_serror(iabt()), 9, 10),
        (guest(5), VcpuEvents::default(), 1, 1),
    ] {
        for (last, number) in [(Last::NoWalk, no_walk), (Last::Any, any)] {
            let calls = calls(Way::Assisted, &vcpu, last, &events);
            assert_eq!(calls.len(), number, "{events:?}, {last:?}: {calls:?}");
        }
    }
}

#[test]
fn a_probe_finds_what_the_vcpu_and_its_kernel_are_and_leaves_no_trace() {
    let mut no_ras = guest(5);
    no_ras.config.ras = false;
    for (vcpu, kind, number) in [
        (guest(0x3c5), GuestKind::Aarch64, 2),
        (guest(0), GuestKind::Aarch64, 2),
        (guest(0x30), GuestKind::Aarch64, 3), // USR, Thumb, below an AArch64 EL1
        (no_ras, GuestKind::Aarch64, 2),
        (aarch32(0x1d3), GuestKind::Aarch32, 2),       // SVC
        (aarch32(0x6000_0030), GuestKind::Aarch32, 4), // USR, Thumb
        (nested(0x3c9, 0), GuestKind::Nested, 1),
        (nested(0, 0), GuestKind::Nested, 1),
    ] {
        for (way, more) in [(WAYS[0], 3), (WAYS[1], 2), (WAYS[2], 3)] {
            let kernel = Kernel::of(way, &vcpu);
            let injector = Injector { guest: kind, ras: vcpu.config.ras, way };
            assert_eq!(Injector::probe(&kernel), Ok(injector));
            // KVM_GET_VCPU_EVENTS tells if there is RAS.
            assert_eq!(kernel.calls.borrow().len(), number + 1 + more);
            assert_eq!(*kernel.vcpu.borrow(), vcpu);
        }
    }
}

/// The kernel's own errno, such as `ENOEXEC`.
#[test]
fn a_vcpu_that_cannot_be_asked_is_not_taken_for_anything() {
    for call in 0..6 {
        let kernel = Kernel::stock(&guest(5)).and_fails(call);
        let error = Injector::probe(&kernel).unwrap_err();
        assert_eq!((error.errno(), error.has_injected()), (FAILED, false), "{call}");
    }
    assert_eq!(FAILED, Errno::EINTR);
}
