//! Assisted injection on a stock kernel, case by case: the guest's view, in literals, and the cost in calls.

use seawall_arm::Target;
use seawall_events::kernel::AbortDelivery;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Refusal, Reg, Registers, VcpuEvents};
use seawall_inject::{Errno, InjectError, KvmVcpu, Last};
use seawall_model::guests::{
    FAR, PC, VBAR, VBAR_EL2, aarch32, after_s1ptw, check, dabt, guest, iabt, nested, with, with_esr,
    with_serror,
};
use seawall_model::{Call, FAILED, Kernel, Vcpu};

const EL1: Option<AbortDelivery> = Some(AbortDelivery::Delivered(Target::El1));
const EL2: Option<AbortDelivery> = Some(AbortDelivery::Delivered(Target::El2));
const NOWHERE: Option<AbortDelivery> = Some(AbortDelivery::NotDelivered);

const TEA: u64 = 1 << 37;
/// An abort that the kernel made earlier, and that the guest has handled.
const OLD: (Reg, u64) = (Reg::EsrEl1, 0x9600_0010);
const OLD_EL2: (Reg, u64) = (Reg::EsrEl2, 0x9200_0010);

/// Injects, expects this delivery, and returns the vCPU after it.
fn inject(vcpu: &Vcpu, last: Last, events: &VcpuEvents, delivery: Option<AbortDelivery>) -> Vcpu {
    let (result, vcpu) = Kernel::stock(vcpu).set_events(last, events);
    assert_eq!(result, Ok(delivery));
    vcpu
}

/// Facts, section 3: an instruction abort where mainline makes a data abort.
#[test]
fn an_instruction_abort_is_entered_as_the_extended_abi_would() {
    for last in [Last::NoWalk, Last::Any] {
        let vcpu = inject(&guest(0x3c5), last, &iabt(), EL1);
        check(
            &vcpu,
            &[
                (Reg::EsrEl1, 0x8600_0010),
                (Reg::FarEl1, FAR),
                (Reg::ElrEl1, PC),
                (Reg::SpsrEl1, 0x3c5),
                (Reg::Pc, VBAR + 0x200),
                (Reg::Pstate, 0x3c5),
            ],
        );
        assert!(vcpu.waiting.is_none(), "the access that waited is dropped");
        let vcpu = inject(&guest(0x3c0), last, &iabt(), EL1);
        check(&vcpu, &[(Reg::EsrEl1, 0x8200_0010), (Reg::Pc, VBAR + 0x400), (Reg::SpsrEl1, 0x3c0)]);
    }
}

/// Golden vectors: "Proposed ABI", and the SEA exits measured in the lab, replayed.
#[test]
fn the_esr_that_was_given_is_ored_into_the_kernels_own() {
    for (pstate, events, esr) in [
        (0x3c5, with_esr(dabt(), 0x1c0_c700), 0x97c0_c710),
        (0x3c5, with_esr(iabt(), 0x100_0600), 0x8700_0610),
        (0x3c0, with_esr(dabt(), 0x210), 0x9200_0210),
        (0x3c0, with_esr(iabt(), 0x210), 0x8200_0210),
        (0x3c5, with_esr(iabt(), 0x215), 0x8600_0215),
        (0x3c5, with_esr(dabt(), 0x50), 0x9600_0050),
        (0x3c5, with_esr(dabt(), 0x1ff_ffff), 0x97ff_ffff),
    ] {
        for last in [Last::NoWalk, Last::Any] {
            check(&inject(&guest(pstate), last, &events, EL1), &[(Reg::EsrEl1, esr), (Reg::FarEl1, FAR)]);
        }
    }
}

#[test]
fn an_esr_whose_flag_is_clear_is_not_looked_at() {
    let events = VcpuEvents { ext_abt_esr: u64::MAX, ..dabt() };
    check(&inject(&guest(5), Last::NoWalk, &events, EL1), &[(Reg::EsrEl1, 0x9600_0010)]);
}

/// `SCTLR2_EL1.EASE`: the kernel chose the SError vector, and the abort stays there.
#[test]
fn with_ease_an_instruction_abort_is_at_the_serror_vector() {
    let mut vcpu = with(guest(5), &[(Reg::Sctlr2El1, 1 << 5)]);
    vcpu.config.sctlr2 = true;
    let vcpu = inject(&vcpu, Last::Any, &iabt(), EL1);
    check(&vcpu, &[(Reg::EsrEl1, 0x8600_0010), (Reg::Pc, VBAR + 0x380)]);
}

/// Facts, section 3: after S1PTW the status is 0x14 + level.
#[test]
fn after_a_fault_on_the_guests_walk_an_instruction_abort_has_the_level() {
    for (level, esr) in [(-1, 0x8200_0013), (0, 0x8200_0014), (1, 0x8200_0015), (3, 0x8200_0017)] {
        let vcpu = after_s1ptw(guest(0), Some(level));
        check(&inject(&vcpu, Last::Any, &iabt(), EL1), &[(Reg::EsrEl1, esr), (Reg::FarEl1, FAR)]);
    }
}

/// Facts, section 3: if the walk fails nothing is injected, and SET returns 0.
#[test]
fn what_the_kernel_silently_did_not_inject_is_noticed_and_nothing_has_changed() {
    for (reg, esr) in [(Reg::EsrEl1, 0), OLD, (Reg::EsrEl1, 0x8600_0010), (Reg::EsrEl1, 0x5600_0000)] {
        for events in [dabt(), iabt(), with_esr(dabt(), 0x200)] {
            let before = with(after_s1ptw(guest(5), None), &[(reg, esr)]);
            assert_eq!(inject(&before, Last::Any, &events, NOWHERE), before);
            let before = with(after_s1ptw(nested(5, 0), None), &[(reg, esr), OLD_EL2, (Reg::ElrEl1, PC)]);
            assert_eq!(inject(&before, Last::Any, &events, NOWHERE), before);
        }
    }
}

#[test]
fn an_serror_beside_an_abort_that_was_not_delivered_is_injected() {
    let before = with(after_s1ptw(guest(5), None), &[OLD]);
    let events = VcpuEvents { serror_has_esr: true, serror_esr: 0x11, ..with_serror(iabt()) };
    let vcpu = inject(&before, Last::Any, &events, NOWHERE);
    check(&vcpu, &[(Reg::EsrEl1, 0xbe00_0011), (Reg::Pc, VBAR + 0x380), (Reg::ElrEl1, PC)]);
    // If the SError fails, nothing was injected at all.
    let (result, vcpu) = Kernel::stock(&before).and_fails(5).set_events(Last::Any, &events);
    assert_eq!(result, Err(InjectError::Kernel { call: "KVM_SET_VCPU_EVENTS", errno: FAILED }));
    assert_eq!(vcpu, before);
}

/// A guest whose vector is itself bad stays where it is, with the same ESR again.
#[test]
fn an_abort_that_changes_no_register_is_told_from_none() {
    let stays = [
        (Reg::Pc, VBAR + 0x200),
        (Reg::ElrEl1, VBAR + 0x200),
        (Reg::FarEl1, FAR),
        (Reg::SpsrEl1, 0x3c5),
        OLD,
    ];
    for vcpu in [with(guest(0x3c5), &stays), with(nested(0x3c5, 0), &stays)] {
        let mut wanted = vcpu.clone();
        wanted.waiting = None;
        assert_eq!(inject(&vcpu, Last::Any, &dabt(), EL1), wanted);
        wanted.set_reg(Reg::EsrEl1, 0x8600_0010);
        assert_eq!(inject(&vcpu, Last::Any, &iabt(), EL1), wanted);
        assert_eq!(inject(&after_s1ptw(vcpu.clone(), None), Last::Any, &iabt(), NOWHERE).regs, vcpu.regs);
    }
}

/// HCR_EL2: AMO `[5]`, TGE `[27]`, E2H `[34]`, TEA `[37]`; HCRX_EL2: TMEA `[19]`.
#[test]
fn what_a_guest_hypervisor_takes_from_its_own_guest_is_not_asked_of_the_kernel() {
    const AMO: u64 = 1 << 5;
    const TGE: u64 = 1 << 27;
    const E2H: u64 = 1 << 34;
    const TMEA: u64 = 1 << 19;
    let serror = VcpuEvents { serror_pending: true, ..VcpuEvents::default() };
    for (pstate, hcr, hcrx, events, safe, calls) in [
        (0x3c5, TEA, 0, dabt(), false, 3),
        (0x3c5, TEA, 0, iabt(), false, 3),
        (0x3c5, TEA, 0, serror, true, 3),
        (0x000, AMO, 0, serror, false, 3),
        (0x000, AMO, 0, dabt(), true, 3),
        (0x3c5, 0, TMEA, dabt(), false, 3),
        (0x3c5, 0, 0, dabt(), true, 3),
        (0x3c9, TEA | AMO, TMEA, dabt(), true, 1),
        (0x000, TEA | AMO | TGE | E2H, 0, dabt(), true, 2),
        (0x3c5, TEA | AMO, TMEA, VcpuEvents::default(), true, 0),
    ] {
        let vcpu = with(nested(pstate, hcr), &[(Reg::HcrxEl2, hcrx)]);
        let kernel = Kernel::stock(&vcpu);
        let checked = kernel.injector().check_nested(&kernel, &events);
        let expected = if safe { Ok(()) } else { Err(InjectError::TakenByHypervisor { hcr_el2: hcr }) };
        assert_eq!(checked, expected, "{pstate:#x} {hcr:#x} {hcrx:#x}");
        assert_eq!(kernel.calls.borrow().len(), calls);
        assert_eq!(*kernel.vcpu.borrow(), vcpu);
    }
    assert_eq!(InjectError::TakenByHypervisor { hcr_el2: TEA }.errno(), Errno(95));
}

/// Facts, section 3, nested: EC 0x20/0x24, `FAR_EL2`.
#[test]
fn an_abort_that_virtual_el2_takes_is_rewritten_there() {
    for last in [Last::NoWalk, Last::Any] {
        let vcpu = with(nested(9, TEA), &[(Reg::EsrEl1, 0x5600_0000)]);
        let vcpu = inject(&vcpu, last, &with_esr(iabt(), 0x200), EL2);
        check(
            &vcpu,
            &[
                (Reg::EsrEl2, 0x8600_0210),
                (Reg::FarEl2, FAR),
                (Reg::ElrEl2, PC),
                (Reg::Pc, VBAR_EL2 + 0x200),
                (Reg::Pstate, 0x3c9),
                (Reg::EsrEl1, 0x5600_0000),
            ],
        );
        let vcpu = inject(&nested(9, 0), last, &iabt(), EL2);
        check(&vcpu, &[(Reg::EsrEl2, 0x8600_0010), (Reg::Pc, VBAR_EL2 + 0x200)]);
        let vcpu = with(nested(5, 0), &[OLD_EL2]);
        check(
            &inject(&vcpu, last, &iabt(), EL1),
            &[(Reg::EsrEl1, 0x8600_0010), (Reg::Pc, VBAR + 0x200), OLD_EL2],
        );
    }
}

/// Facts, section 3, AArch32: IFSR, IFAR, LR_abt = PC + 4, vector 12; the ESR is ignored.
#[test]
fn a_prefetch_abort_of_aarch32_has_ifsr_and_ifar_and_leaves_dfsr_and_dfar() {
    for (ttbcr, ifsr) in [(0, 0x08), (1 << 31, 0x210)] {
        let before = with(
            aarch32(0x4000_0010),
            &[
                (Reg::TcrEl1, ttbcr),
                (Reg::EsrEl1, 0x805),
                (Reg::FarEl1, 0x1111_1111_2222_2222),
                (Reg::X(20), 7),
            ],
        );
        let vcpu = inject(&before, Last::Any, &with_esr(iabt(), 0x200), EL1);
        check(
            &vcpu,
            &[
                (Reg::Ifsr32, ifsr),
                (Reg::FarEl1, 0x0050_0123_2222_2222),
                (Reg::EsrEl1, 0x805),
                (Reg::X(20), 0x40_1044),
                (Reg::Pc, 0x8000_100c),
                (Reg::SpsrAbt, 0x4000_0010),
                (Reg::Pstate, 0x4000_0197),
            ],
        );
    }
}

#[test]
fn a_data_abort_of_aarch32_is_the_kernels_own() {
    let vcpu = inject(&aarch32(0x10), Last::Any, &with_esr(dabt(), 0x200), EL1);
    check(&vcpu, &[(Reg::EsrEl1, 0x08), (Reg::FarEl1, FAR), (Reg::X(20), 0x40_1048), (Reg::Pc, 0x8000_1010)]);
}

/// At the vector 0xffff0000, as at the top of the range of VBAR, addresses have 32 bits.
#[test]
fn a_prefetch_abort_of_aarch32_wraps_at_32_bits() {
    let before = with(aarch32(0x10), &[(Reg::VbarEl1, 0xffff_fff0), (Reg::Pc, 0xffff_fffc)]);
    let vcpu = inject(&before, Last::Any, &iabt(), EL1);
    check(&vcpu, &[(Reg::X(20), 0), (Reg::Pc, 0xffff_fffc)]);
}

/// Half a prefetch abort would return to the wrong instruction.
#[test]
fn a_prefetch_abort_of_aarch32_that_fails_half_way_is_the_kernels_data_abort_again() {
    let before = aarch32(0x10);
    // 3 GETs, the delivery, 4 GETs, IFSR: the four that make it another abort are calls 9 to 12.
    for call in 9..13 {
        let (result, vcpu) = Kernel::stock(&before).and_fails(call).set_events(Last::Any, &iabt());
        assert_eq!(result, Err(InjectError::Degraded { call: "KVM_SET_ONE_REG", errno: FAILED }));
        check(&vcpu, &[(Reg::EsrEl1, 0x08), (Reg::FarEl1, FAR)]);
        check(&vcpu, &[(Reg::X(20), 0x40_1048), (Reg::Pc, 0x8000_1010)]);
    }
}

/// Measured on Linux 7.2.12: the data abort of an AArch32 vCPU that never ran is lost.
#[test]
fn a_prefetch_abort_of_an_aarch32_vcpu_that_never_ran_is_not_delivered_and_leaves_no_trace() {
    let mut before = with(aarch32(0x10), &[(Reg::EsrEl1, 0x805), (Reg::FarEl1, 0x1111_1111_2222_2222)]);
    before.has_run = false;
    let (result, vcpu) = Kernel::stock(&before).set_events(Last::Any, &iabt());
    assert_eq!(result, Ok(NOWHERE));
    check(&vcpu, &[(Reg::Pc, PC), (Reg::Pstate, 0x10), (Reg::X(20), 0), (Reg::Ifsr32, 0)]);
    check(&vcpu, &[(Reg::EsrEl1, 0x805), (Reg::FarEl1, 0x1111_1111_2222_2222)]);
}

/// A guest at its own data abort vector, which is bad: PC stays, and the abort is delivered.
#[test]
fn a_prefetch_abort_at_the_aarch32_vector_itself_is_delivered() {
    let vcpu = inject(&with(aarch32(0x10), &[(Reg::Pc, 0x8000_1010)]), Last::Any, &iabt(), EL1);
    check(&vcpu, &[(Reg::Pc, 0x8000_100c), (Reg::X(20), 0x8000_1014)]);
}

#[test]
fn a_rewrite_that_fails_leaves_the_kernels_data_abort_and_says_so() {
    let (result, vcpu) =
        Kernel::stock(&guest(0x3c5)).and_fails(2).set_events(Last::NoWalk, &with_serror(iabt()));
    let error = result.unwrap_err();
    assert_eq!(error, InjectError::Degraded { call: "KVM_SET_ONE_REG", errno: FAILED });
    assert_eq!(error.errno(), Errno(5)); // EIO
    check(&vcpu, &[(Reg::EsrEl1, 0x9600_0010), (Reg::Pc, VBAR + 0x200), (Reg::FarEl1, FAR)]);
    assert!(!vcpu.serror.pending, "the SError of the same call is not injected");
}

#[test]
fn an_serror_that_fails_after_the_abort_is_told_apart() {
    let (result, vcpu) =
        Kernel::stock(&guest(0x3c5)).and_fails(3).set_events(Last::NoWalk, &with_serror(iabt()));
    assert_eq!(result, Err(InjectError::NoSError { call: "KVM_SET_VCPU_EVENTS", errno: FAILED }));
    check(&vcpu, &[(Reg::EsrEl1, 0x8600_0010), (Reg::Pc, VBAR + 0x200)]);
    assert!(!vcpu.serror.pending);
}

/// The mark has no meaning to the guest: SRT, while ISV is 0.
#[test]
fn a_mark_that_cannot_be_taken_away_changes_nothing_that_a_guest_reads() {
    let before = with(after_s1ptw(guest(5), None), &[OLD]);
    for (call, esr) in [(1, 0x9600_0010), (2, 0x9600_0010), (4, 0x9601_0010)] {
        let (result, vcpu) = Kernel::stock(&before).and_fails(call).set_events(Last::Any, &iabt());
        assert!(matches!(result, Err(InjectError::Kernel { errno: FAILED, .. })), "{call}: {result:?}");
        assert_eq!(vcpu, with(before.clone(), &[(Reg::EsrEl1, esr)]));
    }
}

/// SError beside an abort: the abort's entry masks it, unless NMEA.
#[test]
fn an_serror_of_the_same_call_comes_after_the_abort_is_what_was_asked() {
    let events = VcpuEvents { serror_has_esr: true, serror_esr: 0x11, ..with_serror(iabt()) };
    let vcpu = inject(&guest(5), Last::NoWalk, &events, EL1);
    check(&vcpu, &[(Reg::EsrEl1, 0x8600_0010)]);
    assert_eq!((vcpu.serror.pending, vcpu.serror.vsesr), (true, 0x11));

    let mut vcpu = with(guest(5), &[(Reg::Sctlr2El1, 1 << 2)]);
    vcpu.config.sctlr2 = true;
    let vcpu = inject(&vcpu, Last::NoWalk, &events, EL1);
    check(&vcpu, &[(Reg::EsrEl1, 0xbe00_0011), (Reg::Pc, VBAR + 0x380), (Reg::ElrEl1, VBAR + 0x200)]);
}

#[test]
fn what_the_proposal_refuses_is_refused_before_the_first_call() {
    let both = VcpuEvents { ext_iabt_pending: true, ..dabt() };
    for (ras, events, refusal) in [
        (true, both, Refusal::BothAborts),
        (true, with_esr(iabt(), 1 << 25), Refusal::AbortEsrOutsideIss(1 << 25)),
        (false, with_esr(VcpuEvents::default(), 0), Refusal::AbortEsrWithoutRas),
        (
            true,
            VcpuEvents { serror_has_esr: true, serror_esr: 1 << 26, ..dabt() },
            Refusal::SErrorEsrOutsideIss(1 << 26),
        ),
        (false, VcpuEvents { serror_has_esr: true, ..dabt() }, Refusal::SErrorEsrWithoutRas),
    ] {
        let mut vcpu = guest(5);
        vcpu.config.ras = ras;
        let kernel = Kernel::stock(&vcpu);
        let (result, after) = kernel.set_events(Last::Any, &events);
        assert_eq!(result, Err(InjectError::Refused(refusal)));
        assert_eq!(result.unwrap_err().errno(), Errno::EINVAL);
        assert_eq!((after, kernel.calls.into_inner()), (vcpu, vec![]));
    }
}

/// A kernel whose data abort has another ESR than today's.
struct Later(Kernel);

impl KvmVcpu for Later {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        self.0.set_vcpu_events(bytes)?;
        self.0.vcpu.borrow_mut().set_reg(Reg::EsrEl1, 0x9600_0210);
        Ok(())
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        self.0.get_vcpu_events()
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        self.0.get_one_reg(id)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        self.0.set_one_reg(id, value)
    }
}

#[test]
fn an_esr_that_is_not_the_kernels_of_today_is_left_alone_and_reported() {
    for last in [Last::NoWalk, Last::Any] {
        let kernel = Later(Kernel::stock(&guest(5)));
        let result = kernel.0.injector().set_events(&kernel, last, &iabt());
        assert_eq!(result, Err(InjectError::Unexpected { register: Reg::EsrEl1, found: 0x9600_0210 }));
        assert_eq!(result.unwrap_err().errno(), Errno(5));
        check(&kernel.0.vcpu.borrow(), &[(Reg::EsrEl1, 0x9600_0210), (Reg::Pc, VBAR + 0x200)]);
    }
}

#[test]
fn the_calls_are_these() {
    let calls = |vcpu: &Vcpu, last, events: &VcpuEvents| {
        let kernel = Kernel::stock(vcpu);
        kernel.set_events(last, events).0.expect("nothing fails");
        kernel.calls.into_inner()
    };
    let (get, set) = (Call::GetOneReg(Reg::EsrEl1), Call::SetOneReg(Reg::EsrEl1));
    assert_eq!(calls(&guest(5), Last::NoWalk, &iabt()), [Call::SetVcpuEvents, get, set]);
    assert_eq!(calls(&guest(5), Last::Any, &iabt()), [get, Call::SetVcpuEvents, get, set]);
}

/// The number of calls, beyond the one that delivers: the table of `Injector`'s documentation, with those of
/// the nested guard.
#[test]
fn no_case_costs_more_calls_than_documented() {
    let fresh = guest(5);
    let old = with(guest(5), &[OLD]);
    let to_el1 = nested(5, 0);
    let to_el2 = nested(9, 0);
    let (old_to_el1, old_to_el2) = (with(nested(5, 0), &[OLD]), with(nested(9, 0), &[OLD]));
    let both_to_el2 = with(nested(9, 0), &[OLD, OLD_EL2]);
    let narrow = aarch32(0x10);
    let data = dabt();
    for (n, (vcpu, events, no_walk, any)) in [
        (&fresh, data, 0, 2),
        (&fresh, with_esr(data, 0), 0, 2),
        (&fresh, with_esr(data, 0x200), 2, 3),
        (&fresh, iabt(), 2, 3),
        (&fresh, with_esr(iabt(), 0x200), 2, 3),
        (&old, data, 0, 3),
        (&old, iabt(), 2, 4),
        (&to_el1, data, 3 + 1, 3 + 4),
        (&to_el1, iabt(), 3 + 3, 3 + 5),
        (&to_el2, data, 1 + 1, 1 + 3),
        (&to_el2, iabt(), 1 + 3, 1 + 4),
        (&old_to_el1, iabt(), 3 + 3, 3 + 6),
        (&old_to_el2, iabt(), 1 + 3, 1 + 6),
        (&both_to_el2, iabt(), 1 + 3, 1 + 7),
        (&narrow, data, 2, 2),
        (&narrow, with_esr(data, 0x200), 2, 2),
        (&narrow, iabt(), 12, 12),
        (&fresh, with_serror(data), 0, 3),
        (&fresh, with_serror(iabt()), 3, 4),
        (&narrow, with_serror(data), 3, 3),
        (&fresh, with_serror(VcpuEvents::default()), 0, 0),
        (&fresh, VcpuEvents::default(), 0, 0),
    ]
    .into_iter()
    .enumerate()
    {
        for (last, more) in [(Last::NoWalk, no_walk), (Last::Any, any)] {
            let kernel = Kernel::stock(vcpu);
            kernel.set_events(last, &events).0.expect("nothing fails");
            assert_eq!(kernel.calls.borrow().len(), 1 + more, "row {n}, {last:?}: {:?}", kernel.calls);
        }
    }
}
