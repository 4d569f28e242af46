//! Each fault of `AArch64.S1Walk`, at each level at which it can be.

use super::*;

const VA: u64 = 0x0000_1234_5678_9abc;

#[track_caller]
fn faults(descriptors: &[(u64, u64)], regime: &Regime, va: u64, expected: FaultStatus) {
    let fault = translate(&mut tables(descriptors), regime, va, READ).expect_err("a fault");
    assert_eq!(fault, Fault { status: expected, kind: FaultKind::Stage1 });
}

#[test]
fn an_invalid_descriptor_is_a_translation_fault_at_its_level() {
    let walk = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x4000_2003), (0x4000_2598, 0x4000_3003)];
    for level in 0..4_u8 {
        let so_far = &walk[..usize::from(level)];
        faults(so_far, &regime(TCR_4K), VA, FaultStatus::Translation { level: level as i8 });
    }
}

#[test]
fn bit_1_alone_does_not_make_a_descriptor_valid() {
    faults(&[(0x4000_0120, 0x4000_1002)], &regime(TCR_4K), VA, FaultStatus::Translation { level: 0 });
}

#[test]
fn a_block_where_the_granule_has_none_is_a_translation_fault() {
    // 4 KiB: none at level 0; 0b01 is reserved at level 3.
    faults(&[(0x4000_0120, BLOCK)], &regime(TCR_4K), VA, FaultStatus::Translation { level: 0 });
    let to_level_3 = [
        (0x4000_0120, 0x4000_1003),
        (0x4000_1688, 0x4000_2003),
        (0x4000_2598, 0x4000_3003),
        (0x4000_3c48, BLOCK),
    ];
    faults(&to_level_3, &regime(TCR_4K), VA, FaultStatus::Translation { level: 3 });
    // 16 KiB: none at level 1 (that needs LPA2).
    let to_level_1 = [(0x4000_0008, 0x4000_4003), (0x4000_4918, BLOCK)];
    faults(&to_level_1, &regime(TCR_16K), 0x0000_9234_5678_9abc, FaultStatus::Translation { level: 1 });
    // 64 KiB: none at level 1 (that needs LPA).
    faults(
        &[(0x4000_0120, BLOCK)],
        &regime(TCR_64K),
        0x0000_9234_5678_9abc,
        FaultStatus::Translation { level: 1 },
    );
}

#[test]
fn an_address_outside_its_range_is_a_translation_fault_at_level_0() {
    for va in [
        0x0001_0000_0000_0000,
        0x007f_ffff_ffff_ffff,
        0xff80_0000_0000_0000,
        0xfffe_ffff_ffff_ffff,
        1 << 63,
        1 << 55,
    ] {
        faults(&[], &regime(TCR_4K), va, FaultStatus::Translation { level: 0 });
    }
    // 39 bits, where the walk itself starts at level 1.
    faults(&[], &small(25), 1 << 39, FaultStatus::Translation { level: 0 });
    faults(&[], &small(25), 1 << 38, FaultStatus::Translation { level: 1 });
}

#[test]
fn epd_disables_the_walks_of_its_half_alone() {
    let upper = 0xffff_0000_0000_0000;
    let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, 0x8000_0000 | BLOCK)];
    faults(&descriptors, &regime(TCR_4K | 1 << 7), 0, FaultStatus::Translation { level: 0 });
    faults(&descriptors, &regime(TCR_4K | 1 << 23), upper, FaultStatus::Translation { level: 0 });
    assert_eq!(arrives(&descriptors, &regime(TCR_4K | 1 << 7), upper).0, 0x8000_0000);
    assert_eq!(arrives(&descriptors, &regime(TCR_4K | 1 << 23), 0).0, 0x8000_0000);
}

#[test]
fn a_tnsz_that_no_table_can_serve_is_a_translation_fault_at_level_0() {
    let mut ones = tables(&[]);
    for offset in (0..0x8_0000).step_by(8) {
        ones.store(0x4000_0000 + offset, &0x4000_0703_u64.to_le_bytes()).expect("in RAM");
    }
    for (t0sz, tg0, valid) in [
        (15, 0, false),
        (16, 0, true),
        (48, 0, true),
        (49, 0, false),
        (47, 1, true),
        (48, 1, false),
        (48, 2, true),
    ] {
        let regime = regime(5 << 32 | tg0 << 14 | t0sz);
        let status = probe(&ones, &regime, 0, READ).map(|_| ()).map_err(|fault| fault.status);
        let expected = if valid { Ok(()) } else { Err(FaultStatus::Translation { level: 0 }) };
        assert_eq!(status, expected, "T0SZ {t0sz} TG0 {tg0}");
    }
}

#[test]
fn a_clear_access_flag_is_a_fault_at_the_leafs_level() {
    let level_1 = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x8000_0345)];
    faults(&level_1, &regime(TCR_4K), VA, FaultStatus::AccessFlag { level: 1 });
    let level_2 = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x4000_2003), (0x4000_2598, 0x8000_0345)];
    faults(&level_2, &regime(TCR_4K), VA, FaultStatus::AccessFlag { level: 2 });
    let level_3 = [
        (0x4000_0120, 0x4000_1003),
        (0x4000_1688, 0x4000_2003),
        (0x4000_2598, 0x4000_3003),
        (0x4000_3c48, 0x8000_0347),
    ];
    faults(&level_3, &regime(TCR_4K), VA, FaultStatus::AccessFlag { level: 3 });
}

#[test]
fn addresses_beyond_ips_are_address_size_faults_where_they_are_met() {
    // IPS 0: 32 bits.
    let tcr = TCR_4K & !(7 << 32);
    let mut beyond = regime(tcr);
    beyond.ttbr0 = 0x1_4000_0000;
    faults(&[], &beyond, VA, FaultStatus::AddressSize { level: 0 });
    faults(&[(0x4000_0120, 0x1_4000_1003)], &regime(tcr), VA, FaultStatus::AddressSize { level: 0 });
    let block = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x1_4000_0000 | BLOCK)];
    faults(&block, &regime(tcr), VA, FaultStatus::AddressSize { level: 1 });
    // Priority: an output address that is too large comes before its access flag.
    let old_block = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x1_4000_0345)];
    faults(&old_block, &regime(tcr), VA, FaultStatus::AddressSize { level: 1 });
}

#[test]
fn ips_reaches_as_far_as_it_says_and_never_beyond_the_cpu() {
    let reach = |ips: u64, pa_bits: u32, block: u64| {
        let mut regime = regime(TCR_4K & !(7 << 32) | ips << 32);
        regime.pa_bits = pa_bits;
        let descriptors = [(0x4000_0120, 0x4000_1003), (0x4000_1688, block | BLOCK)];
        translate(&mut tables(&descriptors), &regime, VA, READ).is_ok()
    };
    for (ips, bits) in [(0, 32), (1, 36), (2, 40), (3, 42), (4, 44)] {
        assert!(reach(ips, 48, 1 << (bits - 1)), "IPS {ips}");
        assert!(!reach(ips, 48, 1 << bits), "IPS {ips}");
    }
    assert!(reach(5, 48, 1 << 47) && reach(6, 48, 1 << 47));
    assert!(!reach(5, 40, 1 << 40) && reach(5, 40, 1 << 39));
}

#[test]
fn a_table_in_a_hole_is_an_external_abort_at_its_level() {
    let walk = [(0x4000_0120, 0x4000_1003_u64), (0x4000_1688, 0x4000_2003), (0x4000_2598, 0x4000_3003)];
    let reads = [0x9000_0120, 0x9000_1688, 0x9000_2598, 0x9000_3c48];
    for (level, descriptor_pa) in reads.into_iter().enumerate() {
        let mut regime = regime(TCR_4K);
        let mut memory = tables(&walk);
        if let Some((pa, descriptor)) = level.checked_sub(1).map(|above| walk[above]) {
            memory.store(pa, &(descriptor + 0x5000_0000).to_le_bytes()).expect("in RAM");
        } else {
            regime.ttbr0 = 0x9000_0000;
        }
        let fault = translate(&mut memory, &regime, VA, READ).expect_err("a hole");
        let kind = FaultKind::External { descriptor_pa, cause: ExternalCause::Hole, stage: WalkStage::First };
        assert_eq!(fault, Fault { status: FaultStatus::ExternalOnWalk { level: level as i8 }, kind });
    }
}

#[test]
fn a_descriptor_in_a_poisoned_line_is_an_external_abort_and_one_beside_it_is_not() {
    let walk = [
        (0x4000_0120, 0x4000_1003),
        (0x4000_1688, 0x4000_2003),
        (0x4000_2598, 0x4000_3003),
        (0x4000_3c48, 0x8000_0000 | PAGE),
    ];
    for (level, (pa, _)) in walk.iter().enumerate() {
        let mut memory = tables(&walk);
        let line = pa & !63;
        memory.poison(line - 64..line).expect("in RAM");
        memory.poison(line + 64..line + 128).expect("in RAM");
        assert_eq!(translate(&mut memory, &regime(TCR_4K), VA, READ).expect("clean line").pa, 0x8000_0abc);
        memory.poison(line..line + 1).expect("in RAM");
        let fault = translate(&mut memory, &regime(TCR_4K), VA, READ).expect_err("poison");
        let kind =
            FaultKind::External { descriptor_pa: *pa, cause: ExternalCause::Poison, stage: WalkStage::First };
        assert_eq!(fault, Fault { status: FaultStatus::ExternalOnWalk { level: level as i8 }, kind });
    }
}

#[test]
fn syndrome_codes_of_walk_faults_are_the_manuals() {
    assert_eq!(FaultStatus::Translation { level: 3 }.bits(), 0x07);
    assert_eq!(FaultStatus::ExternalOnWalk { level: 1 }.bits(), 0x15);
    assert_eq!(FaultStatus::Permission { level: 2 }.bits(), 0x0e);
}
