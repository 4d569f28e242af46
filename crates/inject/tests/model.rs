//! Injection on a stock kernel, and on one with the extended ABI in either layout, compared with the ABI in
//! `seawall-events`: the same guest and position after it, in any guest state; and the state after a call fails
//! half way.

use proptest::prelude::*;
use seawall_arm::{Esr, Mode};
use seawall_events::kernel::{AbortDelivery, LastFault, VcpuConfig, VirtualSError, set_events};
use seawall_events::{Errno, Reg, Registers, VcpuEvents};
use seawall_inject::{Delivery, GuestKind, InjectError, Last, Way};
use seawall_model::guests::guest;
use seawall_model::{Call, FAILED, Kernel, POSTED, REGISTERS, Vcpu, WAYS};

const S1PTW: u64 = 1 << 7;
/// The bit that may stay in an ESR with an old abort, if the call that clears it fails.
const MARK: u64 = 1 << 16;

/// `KVM_CAP_ARM_INJECT_SERROR_ESR` and the kinds of vCPUs.
fn any_config() -> impl Strategy<Value = VcpuConfig> {
    (prop::bool::weighted(0.8), any::<bool>(), any::<bool>(), 0..3_u8).prop_map(|(ras, mte, sctlr2, kind)| {
        VcpuConfig { ras, mte, sctlr2, el2: kind == 1, el1_aarch32: kind == 2 }
    })
}

/// ESRs: any; those that the kernel makes for an external data abort; those made from them by an ISS or EC.
fn any_esr() -> impl Strategy<Value = u64> {
    let fsc = prop_oneof![4 => Just(0x10_u64), 1 => 0x13..=0x17_u64];
    let own = (any::<bool>(), fsc).prop_map(|(same, fsc)| 0x9200_0000 | u64::from(same) << 26 | fsc);
    prop_oneof![
        2 => any::<u64>(),
        6 => own.clone(),
        1 => (own.clone(), 0..25_u32).prop_map(|(esr, bit)| esr | 1 << bit),
        1 => own.prop_map(|esr| esr & !(1 << 28)),
    ]
}

/// 64 bits, of which a few matter.
fn any_control(decisive: &'static [u32]) -> impl Strategy<Value = u64> {
    (any::<u64>(), proptest::collection::vec(any::<bool>(), decisive.len()), any::<bool>()).prop_map(
        |(bits, choices, rest)| {
            let bits = if rest { bits } else { 0 };
            decisive
                .iter()
                .zip(choices)
                .fold(bits, |bits, (bit, on)| bits & !(1 << bit) | u64::from(on) << bit)
        },
    )
}

prop_compose! {
    fn any_fault()(esr: u64, walks: bool, far: u64, ipa in prop::option::weighted(0.8, any::<u64>())) -> LastFault {
        let esr = if walks { esr | S1PTW } else { esr & !S1PTW };
        LastFault { esr: Esr::from_bits(esr), far, ipa }
    }
}

prop_compose! {
    /// A possible state of a guest, most often with an abort behind it.
    fn any_vcpu()(
        regs in proptest::collection::vec(any::<u64>(), REGISTERS),
        config in any_config(),
        last_fault in any_fault(),
        (pending, held, vsesr, mmio_waits) in (any::<bool>(), any::<bool>(), 0..0x200_0000_u64, any::<bool>()),
        walk_level in proptest::option::of(-1..=3_i8),
        (mode, pc) in (any::<prop::sample::Index>(), 0..4_u8),
        (esr_el1, esr_el2) in (any_esr(), any_esr()),
        (hcr, hcrx) in (any_control(&[5, 27, 34, 37]), any_control(&[15, 19])),
        (sctlr2_el1, sctlr2_el2) in (any_control(&[2, 5]), any_control(&[2, 5])),
    ) -> Vcpu {
        let modes: &[Mode] = match (config.el1_aarch32, config.el2) {
            (true, _) => &[
                Mode::User, Mode::Fiq, Mode::Irq, Mode::Supervisor, Mode::Abort, Mode::Undefined, Mode::System,
            ],
            (false, true) => &[Mode::El0t, Mode::El1t, Mode::El1h, Mode::El2t, Mode::El2h],
            (false, false) => &[Mode::El0t, Mode::El1t, Mode::El1h, Mode::User],
        };
        let serror = VirtualSError { pending, vsesr, held_for_el2: held && config.el2 };
        let regs = regs.try_into().expect("so many");
        let waiting = guest(0).waiting.filter(|_| mmio_waits);
        let base = Vcpu::new(config);
        let mut vcpu = Vcpu { regs, last_fault, serror, waiting, walk_level, has_run: true, ..base };
        let pstate = vcpu.reg(Reg::Pstate) & 0xffff_ffe0 | u64::from(mode.get(modes).bits());
        let pc = match pc {
            0 => vcpu.reg(Reg::VbarEl1) & !0x7ff | 0x200, // a vector that is bad itself
            1 => vcpu.reg(Reg::ElrEl1),
            2 => vcpu.reg(Reg::ElrEl2),
            _ => vcpu.reg(Reg::Pc),
        };
        for (reg, value) in [
            (Reg::Pstate, pstate),
            (Reg::Pc, pc),
            (Reg::EsrEl1, esr_el1),
            (Reg::EsrEl2, esr_el2),
            (Reg::HcrEl2, hcr),
            (Reg::HcrxEl2, hcrx),
            (Reg::Sctlr2El1, sctlr2_el1),
            (Reg::Sctlr2El2, sctlr2_el2),
        ] {
            vcpu.set_reg(reg, value);
        }
        if config.el1_aarch32 {
            // KVM keeps 32 bits of them.
            for reg in (0..=30).map(Reg::X).chain([Reg::Pc]) {
                vcpu.set_reg(reg, vcpu.reg(reg) & 0xffff_ffff);
            }
        }
        vcpu
    }
}

/// Events that pass the checks most often.
fn any_events() -> impl Strategy<Value = VcpuEvents> {
    let esr = || {
        prop_oneof![
            8 => 0..0x200_0000_u64,
            2 => Just(0),
            1 => any::<u64>(),
        ]
    };
    (0..16_u8, any::<[bool; 3]>(), esr(), esr()).prop_map(
        |(abort, [serror_pending, serror_has_esr, ext_abt_has_esr], serror_esr, ext_abt_esr)| VcpuEvents {
            serror_pending,
            serror_has_esr,
            ext_dabt_pending: abort & 1 != 0,
            ext_iabt_pending: abort & 1 == 0 && abort != 0 || abort == 15,
            ext_abt_has_esr,
            serror_esr,
            ext_abt_esr,
        },
    )
}

/// The answer that a VMM may give about the last exit.
fn last(vcpu: &Vcpu, cautious: bool) -> Last {
    let walked = vcpu.last_fault.esr.bits() & S1PTW != 0;
    if walked || cautious { Last::Any } else { Last::NoWalk }
}

/// Compares the registers, except for a mark that could not be cleared from an ESR which `before` held, and
/// for an IFSR that no data abort uses.
fn is_as_good_as(found: &Vcpu, wanted: &Vcpu, before: &Vcpu) -> bool {
    let mut found = found.clone();
    for esr in [Reg::EsrEl1, Reg::EsrEl2] {
        if found.reg(esr) == before.reg(esr) ^ MARK && wanted.reg(esr) == before.reg(esr) {
            found.set_reg(esr, before.reg(esr));
        }
    }
    if before.guest() == GuestKind::Aarch32 {
        found.set_reg(Reg::Ifsr32, wanted.reg(Reg::Ifsr32));
    }
    found == *wanted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// DESIGN: the kernel's abort is turned into the requested one, and the guest's position is found, not
    /// assumed.
    #[test]
    fn the_guest_cannot_tell_one_way_from_another_and_is_where_the_injector_says(
        vcpu in any_vcpu(), events in any_events(), cautious: bool, way in prop::sample::select(&WAYS[..]),
    ) {
        let mut wanted = vcpu.clone();
        let applied = set_events(&mut wanted, POSTED, &events);
        let last = last(&vcpu, cautious);
        let (silent, of_silent) = Kernel::of(way, &vcpu).set_events(last, &events);
        let (delivery, found) = Kernel::of(way, &vcpu).inject(last, &events);
        if let Err(InjectError::TakenByHypervisor { .. }) = delivery {
            prop_assert!(way == Way::Assisted && vcpu.config.el2);
            prop_assert_eq!(silent.err(), delivery.err());
            prop_assert_eq!((&found, &of_silent), (&vcpu, &vcpu));
            return Ok(());
        }
        prop_assert_eq!(&found, &wanted);
        prop_assert_eq!(&of_silent, &wanted);
        let is_there = |reg| found.reg(reg) == vcpu.reg(reg);
        if events.serror_pending && vcpu.serror.pending && is_there(Reg::Pc) && is_there(Reg::Pstate) {
            // `Injector`, Limits: nobody can tell if it was taken there or waits.
            return Ok(());
        }
        match (applied, silent, delivery) {
            (Ok(applied), Ok(silent), Ok(delivery)) => {
                prop_assert_eq!(silent, applied.abort);
                prop_assert_eq!(delivery, Delivery::of(&wanted, &events, &applied));
            }
            (Err(refused), Err(InjectError::Refused(silent)), Err(InjectError::Refused(refusal))) => {
                prop_assert_eq!((silent, refusal), (refused.refusal, refused.refusal));
                prop_assert_eq!(refusal.errno(), Errno::Einval);
            }
            all => prop_assert!(false, "expected the same of each, got {:?}", all),
        }
    }

    #[test]
    fn a_call_that_fails_leaves_the_guest_as_it_was_or_with_an_abort_that_is_sound(
        vcpu in any_vcpu(), events in any_events(), cautious: bool, way in prop::sample::select(&WAYS[..]),
    ) {
        let last = last(&vcpu, cautious);
        let Ok(delivery) = Kernel::of(way, &vcpu).set_events(last, &events).0 else { return Ok(()) };
        let whole = Kernel::of(way, &vcpu);
        let (_, done) = whole.inject(last, &events);
        let calls = whole.calls.into_inner();
        let delivered_by = calls.iter().position(|call| *call == Call::SetVcpuEvents).expect("one delivers");

        let mut without_serror = vcpu.clone();
        set_events(&mut without_serror, POSTED, &VcpuEvents { serror_pending: false, ..events }).expect("less");
        let mut kernels = vcpu.clone();
        let dabt = VcpuEvents { ext_dabt_pending: delivery.is_some(), ..VcpuEvents::default() };
        set_events(&mut kernels, POSTED, &dabt).expect("no more than an abort");
        if way != Way::Assisted {
            kernels.clone_from(&without_serror);
        }

        for (n, call) in calls.iter().enumerate() {
            let (result, found) = Kernel::of(way, &vcpu).and_fails(n).inject(last, &events);
            let error = result.expect_err("a call failed");
            let is_serror = *call == Call::SetVcpuEvents && n > delivered_by;
            prop_assert_eq!(error.has_injected(), error.errno().0 == 5);
            match error {
                InjectError::Kernel { errno, .. } => {
                    prop_assert!(n <= delivered_by || delivery == Some(AbortDelivery::NotDelivered));
                    prop_assert_eq!(errno, FAILED);
                    if n <= delivered_by {
                        prop_assert_eq!(&found, &vcpu);
                    } else {
                        prop_assert!(is_as_good_as(&found, &vcpu, &vcpu), "{:x?}", found);
                    }
                }
                InjectError::Degraded { errno, .. } => {
                    prop_assert!(n > delivered_by && !is_serror);
                    // An unreadable register cannot be told from a delivery.
                    let is_read = matches!(call, Call::GetOneReg(_));
                    prop_assert!(is_read || delivery != Some(AbortDelivery::NotDelivered));
                    prop_assert_eq!(errno, FAILED);
                    prop_assert!(is_as_good_as(&found, &kernels, &vcpu), "{:x?}", found);
                }
                InjectError::NoSError { errno, .. } => {
                    prop_assert!(is_serror && matches!(delivery, Some(AbortDelivery::Delivered(_))));
                    prop_assert_eq!(errno, FAILED);
                    prop_assert_eq!(&found, &without_serror);
                }
                InjectError::Unseen { errno, .. } => {
                    prop_assert!(n > delivered_by && matches!(call, Call::GetOneReg(_) | Call::GetVcpuEvents));
                    prop_assert_eq!(errno, FAILED);
                    prop_assert_eq!(&found, &done);
                }
                other => prop_assert!(false, "call {}: {:?}", n, other),
            }
        }
    }
}
