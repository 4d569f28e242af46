//! Any 64 bytes, in any guest state.

mod guest;

use guest::Vcpu;
use proptest::prelude::*;
use seawall_arm::{Esr, ExceptionLevel, Mode, Pstate};
use seawall_events::kernel::{
    LastFault, SErrorDelivery, VcpuConfig, VirtualSError, get_events, prepare_run, set_events,
    set_events_bytes,
};
use seawall_events::{Abi, Errno, Layout, Reg, Registers, VcpuEvents};

fn any_abi() -> impl Strategy<Value = Abi> {
    prop_oneof![
        Just(Abi::Mainline),
        Just(Abi::Extended(Layout::Posted)),
        Just(Abi::Extended(Layout::Trailing))
    ]
}

/// Bytes that are all random, or zero except for the fields, so that many pass the checks.
fn any_bytes() -> impl Strategy<Value = [u8; 64]> {
    let sparse = (any::<[bool; 5]>(), any::<u64>(), any::<u64>(), 0..40_u32, 0..40_u32).prop_map(
        |(flags, serror_esr, abort_esr, serror_shift, abort_shift)| {
            let mut bytes = [0; 64];
            for (byte, flag) in bytes.iter_mut().zip(flags) {
                *byte = u8::from(flag);
            }
            bytes[8..16].copy_from_slice(&(serror_esr >> serror_shift).to_le_bytes());
            bytes[16..24].copy_from_slice(&(abort_esr >> abort_shift).to_le_bytes());
            bytes
        },
    );
    prop_oneof![proptest::collection::vec(any::<u8>(), 64).prop_map(|v| v.try_into().unwrap()), sparse,]
}

prop_compose! {
    fn any_config()(ras: bool, mte: bool, sctlr2: bool, el2: bool, el1_aarch32: bool) -> VcpuConfig {
        VcpuConfig { ras, mte, sctlr2, el2: el2 && !el1_aarch32, el1_aarch32 }
    }
}

prop_compose! {
    fn any_vcpu()(
        regs in proptest::collection::vec(any::<u64>(), 52),
        config in any_config(),
        esr: u64,
        far: u64,
        ipa: Option<u64>,
        pending: bool,
        vsesr in 0..0x200_0000_u64,
        mmio_waits: bool,
        walk_level in proptest::option::of(-1..=3_i8),
    ) -> Vcpu {
        Vcpu {
            regs: regs.try_into().unwrap(),
            config,
            last_fault: LastFault { esr: Esr::from_bits(esr), far, ipa },
            serror: VirtualSError { pending, vsesr, held_for_el2: false },
            mmio_waits,
            walk_level,
        }
    }
}

/// A possible state of a guest, in a mode that exists for it.
fn any_sound_vcpu() -> impl Strategy<Value = Vcpu> {
    (any_vcpu(), any::<usize>()).prop_map(|(mut vcpu, pick)| {
        let modes: &[Mode] = match (vcpu.config.el1_aarch32, vcpu.config.el2) {
            (true, _) => &[Mode::User, Mode::Supervisor, Mode::Abort, Mode::Irq, Mode::System],
            (false, true) => &[Mode::El0t, Mode::El1t, Mode::El1h, Mode::El2t, Mode::El2h],
            (false, false) => &[Mode::El0t, Mode::El1t, Mode::El1h, Mode::User],
        };
        let mode = modes[pick % modes.len()];
        let pstate = vcpu.reg(Reg::Pstate) & 0xffff_ffe0 | u64::from(mode.bits());
        vcpu.set_reg(Reg::Pstate, pstate);
        vcpu
    })
}

/// Miri looks for undefined behaviour, and takes a thousand times as long.
const CASES: u32 = if cfg!(miri) { 8 } else { 4096 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_in_no_state_panic(mut vcpu in any_vcpu(), abi in any_abi(), bytes in any_bytes()) {
        let _ = set_events_bytes(&mut vcpu, abi, || Some(bytes));
        let _ = prepare_run(&mut vcpu);
        let _ = get_events(&vcpu);
    }

    #[test]
    fn extended_refuses_without_a_trace(
        vcpu in any_vcpu(), trailing: bool, bytes in any_bytes(),
    ) {
        let abi = Abi::Extended(if trailing { Layout::Trailing } else { Layout::Posted });
        let mut after = vcpu.clone();
        if let Err(refused) = set_events_bytes(&mut after, abi, || Some(bytes)) {
            prop_assert_eq!(after, vcpu);
            prop_assert!(!refused.abort_delivered);
            prop_assert_eq!(refused.refusal.errno(), Errno::Einval);
        }
    }

    #[test]
    fn what_is_accepted_leaves_a_state_that_the_guest_can_take(
        vcpu in any_sound_vcpu(), abi in any_abi(), bytes in any_bytes(),
    ) {
        let mut after = vcpu.clone();
        let Ok(applied) = set_events_bytes(&mut after, abi, || Some(bytes)) else { return Ok(()) };
        let pstate = Pstate::from_bits(after.reg(Reg::Pstate));
        let moved = after.reg(Reg::Pc) != vcpu.reg(Reg::Pc) || pstate.bits() != vcpu.reg(Reg::Pstate);
        let lost = applied.serror == Some(SErrorDelivery::Lost) && applied.abort.is_none();
        if moved && !lost {
            // The guest has the handler's mode, and the vector is within reach.
            let expected: &[Mode] = match (vcpu.config.el1_aarch32, vcpu.config.el2) {
                (true, _) => &[Mode::Abort],
                (false, true) => &[Mode::El1h, Mode::El2h],
                (false, false) => &[Mode::El1h],
            };
            prop_assert!(expected.contains(&pstate.mode()), "{:?}", pstate);
            prop_assert!(pstate.has(Pstate::A) && pstate.has(Pstate::I));
            prop_assert!(!pstate.has(Pstate::IL), "an illegal state would trap for ever");
            prop_assert!(!after.mmio_waits);
            if pstate.is_aarch32() {
                prop_assert!(u32::try_from(after.reg(Reg::Pc)).is_ok());
            } else {
                let vbar = match pstate.exception_level() {
                    ExceptionLevel::El2 => Reg::VbarEl2,
                    _ => Reg::VbarEl1,
                };
                let vector = after.reg(Reg::Pc).wrapping_sub(vcpu.reg(vbar));
                prop_assert!(vector < 0x800 && vector % 0x80 == 0, "{:#x}", vector);
            }
        }
        // The pending events can be read and set again.
        let events = get_events(&after).unwrap();
        prop_assert!(events.serror_esr <= 0x1ff_ffff);
        let again = after.clone();
        if !moved && events.serror_pending && applied.serror == Some(SErrorDelivery::Pending) {
            prop_assert!(set_events(&mut after, abi, &events).is_ok());
            if vcpu.config.ras {
                prop_assert_eq!(after, again);
            }
        }
    }

    #[test]
    fn events_survive_every_layout_that_can_say_them(
        flags: [bool; 5], serror_esr: u64, ext_abt_esr: u64,
    ) {
        let [serror_pending, serror_has_esr, ext_dabt_pending, ext_iabt_pending, ext_abt_has_esr] = flags;
        let events = VcpuEvents {
            serror_pending, serror_has_esr, ext_dabt_pending, ext_iabt_pending, ext_abt_has_esr,
            serror_esr, ext_abt_esr,
        };
        for abi in [Abi::Extended(Layout::Posted), Abi::Extended(Layout::Trailing)] {
            prop_assert_eq!(VcpuEvents::from_bytes(abi, &events.to_bytes(abi).unwrap()), Ok(events));
        }
        let plain = VcpuEvents { ext_iabt_pending: false, ext_abt_has_esr: false, ext_abt_esr: 0, ..events };
        let bytes = plain.to_bytes(Abi::Mainline).unwrap();
        prop_assert_eq!(VcpuEvents::from_bytes(Abi::Mainline, &bytes), Ok(plain));
    }
}
