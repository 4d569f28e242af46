//! Whatever the tables and registers hold, a walk ends, and ends within the rules.

use super::*;
use proptest::prelude::*;

/// Descriptors that often lead on: tables and leaves inside the 64 KiB of RAM, and noise.
fn descriptor() -> impl Strategy<Value = u64> {
    let attributes = any::<u64>().prop_map(|bits| bits & 0xfff8_0000_0000_0ffc);
    prop_oneof![
        4 => (0..16_u64, any::<u64>()).prop_map(|(page, limits)| 0x4000_0003 | page << 12 | limits & 0x7800_0000_0000_0000),
        3 => (any::<u64>(), attributes).prop_map(|(pa, bits)| pa & 0x0000_ffff_ffff_f000 | bits | 1),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(pa, bits)| pa & 0x0000_ffff_ffff_f000 | bits & 0xfff8_0000_0000_0ffc | 3),
        1 => any::<u64>(),
    ]
}

fn tcr() -> impl Strategy<Value = u64> {
    let sensible = (16..48_u64, 16..48_u64, any::<u64>())
        .prop_map(|(t0sz, t1sz, rest)| rest & !0x0080_803f_003f | t0sz | t1sz << 16);
    prop_oneof![3 => sensible, 1 => any::<u64>()]
}

fn access() -> impl Strategy<Value = Access> {
    let kind = prop_oneof![
        Just(AccessKind::Read),
        Just(AccessKind::Write),
        Just(AccessKind::Fetch),
        Just(AccessKind::CacheClean),
        Just(AccessKind::CacheInvalidate),
        Just(AccessKind::AddressTranslationRead),
        Just(AccessKind::AddressTranslationWrite),
    ];
    (kind, any::<bool>(), any::<bool>()).prop_map(|(kind, privileged, pan)| Access { kind, privileged, pan })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_walk_over_any_tables_ends_in_48_bits_or_in_a_fault_with_a_level(
        pattern in prop::collection::vec(descriptor(), 64),
        tcr in tcr(),
        sctlr in any::<u64>(),
        ttbr in any::<u64>(),
        vas in prop::collection::vec(any::<u64>(), 16),
        sign in any::<bool>(),
        access in access(),
        pa_bits in 32..=48_u32,
        poison in prop::collection::vec(0..0x400_u64, 0..8),
    ) {
        let mut memory = Memory::new(0x4000_0000, 0x1_0000).expect("RAM");
        for (index, pa) in (0x4000_0000..0x4001_0000_u64).step_by(8).enumerate() {
            // A stride that is no power of two spreads the pattern over every index.
            let value = pattern[(index * 7 + index / 512) % 64];
            memory.store(pa, &value.to_le_bytes()).expect("in RAM");
        }
        for line in poison {
            memory.poison(0x4000_0000 + line * 64..0x4000_0001 + line * 64).expect("in RAM");
        }
        let ttbr = 0x4000_0000 | ttbr & 0xffff_0000_0000_f000;
        let regime = Regime { sctlr, tcr, ttbr0: ttbr, ttbr1: ttbr, mair: 0xff44_0804_00ff_bb00, pa_bits, stage2: None };
        for va in vas {
            let va = if sign { va | 0xffff_8000_0000_0000 } else { va & 0x0000_7fff_ffff_ffff };
            let before = memory.ram().to_vec();
            match translate(&mut memory, &regime, va, access) {
                Ok(translation) => {
                    prop_assert!(translation.pa >> pa_bits == 0);
                    let mask = (1 << translation.shift.min(12)) - 1;
                    prop_assert_eq!(translation.pa & mask, va & mask);
                    prop_assert!((0..=3).contains(&translation.level));
                    prop_assert!(translation.el1.read);
                    prop_assert!(!(regime.mmu_on() && translation.el0.write && translation.el1.execute));
                    // Nothing more to set: the same access again changes nothing and says the same.
                    let settled = memory.ram().to_vec();
                    prop_assert_eq!(translate(&mut memory, &regime, va, access), Ok(translation));
                    prop_assert_eq!(&settled, memory.ram());
                }
                Err(fault) => {
                    prop_assert_eq!(&before, memory.ram());
                    if let FaultKind::External { descriptor_pa, cause, .. } = fault.kind {
                        let FaultStatus::ExternalOnWalk { level } = fault.status else {
                            return Err(TestCaseError::fail(format!("{fault:?}")));
                        };
                        prop_assert_eq!(cause == ExternalCause::Poison, memory.poisoned(descriptor_pa, 8));
                        prop_assert!(level >= descriptor_level(&memory, &regime, va, descriptor_pa).expect("the walk got there"));
                    }
                }
            }
        }
    }
}
