//! What the walker promises, one literal table at a time. The descriptors, addresses and indices are
//! worked out by hand from DDI 0487 ("Translation table descriptor formats"), not by the walker.

mod faults;
mod permissions;
mod properties;
mod stage2;
mod updates;

use super::*;

/// TCR_EL1: both halves 48 bits, 4 KiB granules, IPS 48 bits.
const TCR_4K: u64 = 5 << 32 | 0b10 << 30 | 16 << 16 | 16;
/// The same with 16 KiB granules (TG1 = 01, TG0 = 10).
const TCR_16K: u64 = 5 << 32 | 0b01 << 30 | 16 << 16 | 0b10 << 14 | 16;
/// The same with 64 KiB granules (TG1 = 11, TG0 = 01).
const TCR_64K: u64 = 5 << 32 | 0b11 << 30 | 16 << 16 | 0b01 << 14 | 16;

/// A page that EL0 and EL1 may read and write: AF, inner shareable, `AP[1]`, AttrIndx 1, valid, page.
const PAGE: u64 = 0x747;
/// The same as a block.
const BLOCK: u64 = 0x745;

const READ: Access = Access { kind: AccessKind::Read, privileged: true, pan: false };
const WRITE: Access = Access { kind: AccessKind::Write, privileged: true, pan: false };

/// RAM of 512 KiB at 0x4000_0000 with `descriptors` (physical address, value) in it.
fn tables(descriptors: &[(u64, u64)]) -> Memory {
    let mut memory = Memory::new(0x4000_0000, 0x8_0000).expect("RAM");
    for (pa, descriptor) in descriptors {
        memory.store(*pa, &descriptor.to_le_bytes()).expect("in RAM");
    }
    memory
}

/// MMU on, both TTBRs at 0x4000_0000, MAIR: 0 = Device-nGnRnE, 1 = Normal write-back, 2 = non-cacheable.
fn regime(tcr: u64) -> Regime {
    Regime {
        sctlr: 1,
        tcr,
        ttbr0: 0x4000_0000,
        ttbr1: 0x4000_0000,
        mair: 0x44_ff_00,
        pa_bits: 48,
        stage2: None,
    }
}

/// TTBR0 alone, 4 KiB granule, IPS 48 bits, with this T0SZ.
fn small(t0sz: u64) -> Regime {
    regime(5 << 32 | t0sz)
}

fn read_back(memory: &Memory, pa: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.load(pa, &mut bytes).expect("in RAM");
    u64::from_le_bytes(bytes)
}

/// Walks for a load at EL1; gives (pa, shift, level).
#[track_caller]
fn arrives(descriptors: &[(u64, u64)], regime: &Regime, va: u64) -> (u64, u32, i8) {
    let translation = translate(&mut tables(descriptors), regime, va, READ).expect("a translation");
    (translation.pa, translation.shift, translation.level)
}

#[test]
fn a_4k_walk_reads_four_tables_and_keeps_twelve_bits() {
    let descriptors = [
        (0x4000_0120, 0x4000_1003),
        (0x4000_1688, 0x4000_2003),
        (0x4000_2598, 0x4000_3003),
        (0x4000_3c48, 0x0000_7654_3210_0000 | PAGE),
    ];
    let expected = (0x0000_7654_3210_0abc, 12, 3);
    assert_eq!(arrives(&descriptors, &regime(TCR_4K), 0x0000_1234_5678_9abc), expected);
}

#[test]
fn a_4k_level_2_block_is_2_mib() {
    let descriptors = [
        (0x4000_0120, 0x4000_1003),
        (0x4000_1688, 0x4000_2003),
        (0x4000_2598, 0x0000_7654_3220_0000 | BLOCK),
    ];
    let expected = (0x0000_7654_3238_9abc, 21, 2);
    assert_eq!(arrives(&descriptors, &regime(TCR_4K), 0x0000_1234_5678_9abc), expected);
}

#[test]
fn a_4k_level_1_block_is_1_gib() {
    let descriptors = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x0000_7654_4000_0000 | BLOCK)];
    let expected = (0x0000_7654_5678_9abc, 30, 1);
    assert_eq!(arrives(&descriptors, &regime(TCR_4K), 0x0000_1234_5678_9abc), expected);
}

#[test]
fn a_16k_walk_has_two_descriptors_at_level_0_and_keeps_fourteen_bits() {
    let descriptors = [
        (0x4000_0008, 0x4000_4003),
        (0x4000_4918, 0x4000_8003),
        (0x4000_9158, 0x4000_c003),
        (0x4000_cf10, 0x0000_7654_3210_4000 | PAGE),
    ];
    let expected = (0x0000_7654_3210_5abc, 14, 3);
    assert_eq!(arrives(&descriptors, &regime(TCR_16K), 0x0000_9234_5678_9abc), expected);
}

#[test]
fn a_16k_level_2_block_is_32_mib() {
    let descriptors = [
        (0x4000_0008, 0x4000_4003),
        (0x4000_4918, 0x4000_8003),
        (0x4000_9158, 0x0000_7654_3200_0000 | BLOCK),
    ];
    let expected = (0x0000_7654_3278_9abc, 25, 2);
    assert_eq!(arrives(&descriptors, &regime(TCR_16K), 0x0000_9234_5678_9abc), expected);
}

#[test]
fn a_64k_walk_starts_at_level_1_and_keeps_sixteen_bits() {
    let descriptors =
        [(0x4000_0120, 0x4001_0003), (0x4001_8d10, 0x4002_0003), (0x4002_b3c0, 0x0000_7654_3211_0000 | PAGE)];
    let expected = (0x0000_7654_3211_9abc, 16, 3);
    assert_eq!(arrives(&descriptors, &regime(TCR_64K), 0x0000_9234_5678_9abc), expected);
}

#[test]
fn a_64k_level_2_block_is_512_mib() {
    let descriptors = [(0x4000_0120, 0x4001_0003), (0x4001_8d10, 0x0000_7654_2000_0000 | BLOCK)];
    let expected = (0x0000_7654_3678_9abc, 29, 2);
    assert_eq!(arrives(&descriptors, &regime(TCR_64K), 0x0000_9234_5678_9abc), expected);
}

/// 4 KiB granule, T0SZ n: the walk starts where the bits of the range end, in a table of its own size.
#[test]
fn the_start_level_follows_from_t0sz() {
    // 39 bits: level 1, index [38:30] = 1.
    let descriptors =
        [(0x4000_0008, 0x4000_1003), (0x4000_1008, 0x4000_2003), (0x4000_2008, 0x9000_0000 | PAGE)];
    assert_eq!(arrives(&descriptors, &small(25), 0x4020_1123), (0x9000_0123, 12, 3));
    // 30 bits: level 2, index [29:21] = 1.
    let descriptors = [(0x4000_0008, 0x4000_1003), (0x4000_1008, 0x9000_0000 | PAGE)];
    assert_eq!(arrives(&descriptors, &small(34), 0x20_1123), (0x9000_0123, 12, 3));
    // 21 bits: level 3, index [20:12] = 0x1ff. FEAT_TTST.
    let descriptors = [(0x4000_0ff8, 0x9000_0000 | PAGE)];
    assert_eq!(arrives(&descriptors, &small(43), 0x1f_f123), (0x9000_0123, 12, 3));
    // 16 bits, the least: level 3, sixteen descriptors.
    let descriptors = [(0x4000_0078, 0x9000_0000 | PAGE)];
    assert_eq!(arrives(&descriptors, &small(48), 0xf123), (0x9000_0123, 12, 3));
}

#[test]
fn a_table_smaller_than_a_granule_is_aligned_to_its_own_size() {
    // T0SZ 22: 42 bits, of which level 0 resolves three: eight descriptors, 64 bytes.
    let mut regime = small(22);
    regime.ttbr0 = 0x4000_0040;
    let descriptors = [(0x4000_0078, 0x4000_1003), (0x4000_1000, 0x0000_0000_8000_0000 | BLOCK)];
    assert_eq!(arrives(&descriptors, &regime, 0x0000_0380_0000_0010), (0x8000_0010, 30, 1));
    // Bits of the TTBR below the table's size are not part of its address.
    regime.ttbr0 = 0x4000_007f;
    assert_eq!(arrives(&descriptors, &regime, 0x0000_0380_0000_0010), (0x8000_0010, 30, 1));
}

#[test]
fn the_index_in_a_small_upper_half_leaves_out_the_sign_bits() {
    // T1SZ 22: the top of the address space is the last of eight descriptors.
    let regime = regime(5 << 32 | 0b10 << 30 | 22 << 16 | 16);
    let descriptors = [(0x4000_0038, 0x4000_1003), (0x4000_1ff8, 0x8000_0000 | BLOCK)];
    assert_eq!(arrives(&descriptors, &regime, 0xffff_ffff_ffff_f123), (0xbfff_f123, 30, 1));
}

#[test]
fn the_asid_is_no_part_of_the_tables_address() {
    let mut regime = regime(TCR_4K);
    regime.ttbr0 |= 0xffff << 48;
    let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, 0x8000_0000 | BLOCK)];
    assert_eq!(arrives(&descriptors, &regime, 0x1234), (0x8000_1234, 30, 1));
}

#[test]
fn bit_55_chooses_the_table_and_the_granule() {
    let mut regime = regime(5 << 32 | 0b11 << 30 | 16 << 16 | 16);
    regime.ttbr1 = 0x4001_0000;
    let descriptors = [
        (0x4000_0000, 0x4000_1003),
        (0x4000_1000, 0x0000_0000_c000_0000 | BLOCK),
        // 64 KiB granule: index [47:42] = 0x3f, then [41:29] = 0x1fff.
        (0x4001_01f8, 0x4002_0003),
        (0x4002_fff8, 0x0000_0000_a000_0000 | BLOCK),
    ];
    assert_eq!(arrives(&descriptors, &regime, 0x1234), (0xc000_1234, 30, 1));
    assert_eq!(arrives(&descriptors, &regime, 0xffff_ffff_ffff_1234), (0xbfff_1234, 29, 2));
}

#[test]
fn a_tag_in_the_top_byte_is_ignored_only_with_tbi() {
    let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, 0x8000_0000 | BLOCK)];
    let tagged = 0xa500_0000_0000_1234;
    assert_eq!(arrives(&descriptors, &regime(TCR_4K | 1 << 37), tagged), (0x8000_1234, 30, 1));
    let refused = translate(&mut tables(&descriptors), &regime(TCR_4K | 1 << 38), tagged, READ);
    assert_eq!(refused.map_err(|fault| fault.status), Err(FaultStatus::Translation { level: 0 }));
    // The upper half has its own bit, and bit 55 still chooses the half.
    let descriptors = [(0x4000_0ff8, 0x4000_1003), (0x4000_1ff8, 0x8000_0000 | BLOCK)];
    let tagged = 0x5aff_ffff_ffff_fff0;
    assert_eq!(arrives(&descriptors, &regime(TCR_4K | 1 << 38), tagged), (0xbfff_fff0, 30, 1));
}

#[test]
fn attributes_come_from_mair_and_non_cacheable_memory_is_outer_shareable() {
    for (index, mair, shareability, device) in [(0, 0x00, 2, true), (1, 0xff, 3, false), (2, 0x44, 2, false)]
    {
        let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, 0x8000_0701 | index << 2)];
        let attributes =
            translate(&mut tables(&descriptors), &regime(TCR_4K), 0, READ).expect("maps").attributes;
        assert_eq!(attributes, MemoryAttributes { mair, shareability });
        assert_eq!(attributes.is_device(), device);
    }
}

#[test]
fn a_page_is_global_unless_ng_and_the_asid_comes_from_where_a1_says() {
    let asid_of = |leaf: u64, tcr: u64| {
        let mut regime = regime(tcr);
        regime.ttbr0 |= 0x1234 << 48;
        regime.ttbr1 |= 0x5678 << 48;
        let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, leaf)];
        translate(&mut tables(&descriptors), &regime, 0, READ).expect("maps").asid
    };
    assert_eq!(asid_of(0x8000_0745, TCR_4K), None);
    assert_eq!(asid_of(0x8000_0f45, TCR_4K), Some(0x34));
    assert_eq!(asid_of(0x8000_0f45, TCR_4K | 1 << 36), Some(0x1234));
    assert_eq!(asid_of(0x8000_0f45, TCR_4K | 1 << 22), Some(0x78));
    assert_eq!(asid_of(0x8000_0f45, TCR_4K | 1 << 22 | 1 << 36), Some(0x5678));
}

#[test]
fn the_gp_bit_marks_a_guarded_page() {
    let guarded = |leaf: u64| {
        let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, leaf)];
        translate(&mut tables(&descriptors), &regime(TCR_4K), 0, READ).expect("maps").guarded
    };
    assert!(guarded(0x0004_0000_8000_0745));
    assert!(!guarded(0x0000_0000_8000_0745));
}

#[test]
fn the_contiguous_bit_changes_nothing() {
    let descriptors = [(0x4000_0000, 0x4000_1003), (0x4000_1000, 0x0010_0000_8000_0745)];
    assert_eq!(arrives(&descriptors, &regime(TCR_4K), 0x1234), (0x8000_1234, 30, 1));
}

#[test]
fn with_the_mmu_off_addresses_go_through_as_device_and_fetches_as_normal() {
    let mut off = regime(TCR_4K);
    off.sctlr = 0;
    let memory = tables(&[]);
    let data = probe(&memory, &off, 0x4000_1234, WRITE).expect("flat");
    assert_eq!((data.pa, data.shift, data.asid), (0x4000_1234, 48, None));
    assert_eq!(data.attributes, MemoryAttributes { mair: 0, shareability: 2 });
    assert!(data.el0.write && data.el1.execute);
    let fetch = probe(&memory, &off, 0x4000_1234, Access::fetch(true)).expect("flat");
    assert_eq!(fetch.attributes, MemoryAttributes { mair: 0x44, shareability: 2 });
    off.sctlr = 1 << 12;
    let fetch = probe(&memory, &off, 0x4000_1234, Access::fetch(true)).expect("flat");
    assert_eq!(fetch.attributes.mair, 0xaa);
}

#[test]
fn with_the_mmu_off_an_address_beyond_the_pa_size_is_an_address_size_fault_at_level_0() {
    let mut off = regime(TCR_4K);
    off.sctlr = 0;
    let memory = tables(&[]);
    let status =
        |regime: &Regime, va| probe(&memory, regime, va, READ).map(|t| t.pa).map_err(|fault| fault.status);
    assert_eq!(status(&off, 0x0000_ffff_ffff_ffff), Ok(0x0000_ffff_ffff_ffff));
    assert_eq!(status(&off, 0x0001_0000_0000_0000), Err(FaultStatus::AddressSize { level: 0 }));
    assert_eq!(status(&off, 0xa500_0000_0000_1234), Err(FaultStatus::AddressSize { level: 0 }));
    off.tcr |= 1 << 37;
    assert_eq!(status(&off, 0xa500_0000_0000_1234), Ok(0x1234));
    off.pa_bits = 40;
    assert_eq!(status(&off, 0x0000_0100_0000_0000), Err(FaultStatus::AddressSize { level: 0 }));
}

#[test]
fn a_rewalk_finds_the_level_whose_table_is_in_the_page() {
    let descriptors = [(0x4000_0120, 0x4000_1003), (0x4000_1688, 0x4000_2003), (0x4000_2598, 0x4000_3003)];
    let memory = tables(&descriptors);
    let level = |ipa| descriptor_level(&memory, &regime(TCR_4K), 0x0000_1234_5678_9abc, ipa);
    assert_eq!(level(0x4000_0000), Some(0));
    assert_eq!(level(0x4000_1000), Some(1));
    assert_eq!(level(0x4000_2598), Some(2));
    assert_eq!(level(0x4000_3000), Some(3), "the level is known before its descriptor is read");
    assert_eq!(level(0x4000_4000), None);
    assert_eq!(descriptor_level(&memory, &regime(TCR_4K), 0xffff << 48, 0x4000_1000), None);
    let mut off = regime(TCR_4K);
    off.sctlr = 0;
    assert_eq!(descriptor_level(&memory, &off, 0x0000_1234_5678_9abc, 0x4000_0000), None);
}

#[test]
fn a_rewalk_finds_a_table_in_a_hole() {
    let memory = tables(&[(0x4000_0120, 0x9000_0003)]);
    assert_eq!(descriptor_level(&memory, &regime(TCR_4K), 0x0000_1234_5678_9abc, 0x9000_0000), Some(1));
    assert_eq!(descriptor_level(&memory, &regime(TCR_4K), 0x0000_1234_5678_9abc, 0x9100_0000), None);
}
