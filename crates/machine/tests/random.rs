//! Whatever a guest executes, the host goes on: random words, random registers, at EL0 and EL1, MMU on and off.

mod support;

use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, FpSimdState, StorePolicy};
use support::arbitrary::{value, word};
use support::{DATA, EL0, Guest, HARDWARE_UPDATE, TCR};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_guest_can_make_the_host_panic(
        code in prop::collection::vec(word(), 1..64),
        registers in prop::collection::vec(value(), 31),
        fp in prop::option::of((any::<u32>(), prop::collection::vec(any::<[u64; 2]>(), 32))),
        at_el0 in any::<bool>(),
        mapped in any::<bool>(),
        stores_abort in any::<bool>(),
        poison in prop::collection::vec(value(), 0..4),
    ) {
        let store_policy = if stores_abort { StorePolicy::Abort } else { StorePolicy::Defer };
        let mut guest = Guest::with(&code, Config { store_policy, ..Config::default() });
        if mapped {
            guest = guest.map();
            guest.set(Reg::TcrEl1, TCR | HARDWARE_UPDATE);
            guest.change_page(DATA, EL0, 0);
            guest.code_at(DATA, &code);
        }
        if at_el0 {
            guest.set(Reg::Pstate, 0);
            guest.set(Reg::Pc, DATA);
        }
        for (n, value) in registers.iter().enumerate() {
            guest.set(Reg::X(n as u8), *value);
        }
        if let Some((fpcr, values)) = fp {
            guest.set(Reg::CpacrEl1, 3 << 20);
            let mut state = FpSimdState { fpcr, ..FpSimdState::default() };
            for (v, [low, high]) in state.vregs.iter_mut().zip(values) {
                *v = u128::from(low) | u128::from(high) << 64;
            }
            prop_assert!(guest.vm.vcpu(0).expect("CPU 0").set_fp_simd(&state).is_ok());
        }
        for pa in poison {
            // Poison outside RAM is refused.
            let _ = guest.vm.poison(pa..pa.saturating_add(1));
        }
        let mut vcpu = guest.vm.vcpu(0).expect("CPU 0");
        vcpu.set_budget(Some(2000));
        for _ in 0..50 {
            match vcpu.run() {
                Ok(Exit::Intr | Exit::SystemEvent(_)) => break,
                Ok(Exit::Sea(exit)) => {
                    let events = VcpuEvents {
                        ext_iabt_pending: exit.is_fetch(),
                        ext_dabt_pending: !exit.is_fetch(),
                        ..VcpuEvents::default()
                    };
                    prop_assert!(vcpu.inject(&events).is_ok());
                }
                Ok(Exit::Nisv(_)) => {
                    let pc = vcpu.reg(Reg::Pc).expect("PC");
                    prop_assert!(vcpu.set_reg(Reg::Pc, pc.wrapping_add(4)).is_ok());
                }
                Ok(Exit::Mmio(_)) => vcpu.answer_mmio([0xa5; 8]),
                Ok(_) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        prop_assert!(vcpu.instructions() <= 2000);
    }
}
