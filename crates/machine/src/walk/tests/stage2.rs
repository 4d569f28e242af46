//! Stage 2: DDI 0487, `AArch64.S2Translate`.

use super::super::stage2::{Asks, Stage2};
use super::*;

const RAM: u64 = 0x4000_0000;
const TABLE: u64 = RAM + 0x1_0000;
const AF: u64 = 1 << 10;
/// S2AP, read and write.
const RW: u64 = 3 << 6;
const NORMAL: u64 = 0xf << 2;

/// VTCR_EL2 of the 4 KiB granule, and MMU of stage 1 off.
fn regime(t0sz: u64, sl0: u64, more: u64) -> Regime {
    let vtcr = t0sz | sl0 << 6 | 5 << 16 | more;
    let stage2 = Stage2::new(TABLE, vtcr);
    Regime { sctlr: 0, tcr: 0, ttbr0: 0, ttbr1: 0, mair: 0xff, pa_bits: 48, stage2: Some(stage2) }
}

fn memory(descriptors: &[(u64, u64)]) -> Memory {
    let mut memory = Memory::new(RAM, 4 << 20).expect("4 MiB");
    for (at, descriptor) in descriptors {
        memory.store(*at, &descriptor.to_le_bytes()).expect("in RAM");
    }
    memory
}

fn read(memory: &mut Memory, regime: &Regime, ipa: u64) -> Result<u64, (FaultStatus, FaultKind)> {
    let result = translate(memory, regime, ipa, Access::data(false, true, false));
    result.map(|translation| translation.pa).map_err(|fault| (fault.status, fault.kind))
}

/// D8.2.8: with T0SZ 24 (40 bits) and SL0 1 two tables of level 1 lie one behind the other.
#[test]
fn concatenated_tables_are_one_table() {
    // 1 GiB blocks: the first of each table.
    let block = |pa: u64| pa | AF | RW | NORMAL | 1;
    let mut memory = memory(&[(TABLE, block(0x4000_0000)), (TABLE + 0x1000, block(0x8000_0000))]);
    let regime = regime(24, 1, 0);
    assert_eq!(read(&mut memory, &regime, 0x1234), Ok(0x4000_1234));
    assert_eq!(read(&mut memory, &regime, (512 << 30) + 0x1234), Ok(0x8000_1234));
}

/// `AArch64.S2InconsistentSL`, `AArch64.IPAIsOutOfRange`: Translation faults of level 0.
#[test]
fn a_start_level_that_does_not_fit_and_an_address_out_of_range_fault_at_level_0() {
    let mut memory = memory(&[]);
    for (t0sz, sl0, ipa) in [
        // 25 bits are less than two entries of level 1.
        (39, 1, 0),
        // 44 bits from level 2: more than 16 tables.
        (20, 0, 0),
        (24, 1, 1 << 40),
        (8, 2, 0),
    ] {
        let kind = FaultKind::Stage2 { ipa, of_walk: false };
        let expected = Err((FaultStatus::Translation { level: 0 }, kind));
        assert_eq!(read(&mut memory, &regime(t0sz, sl0, 0), ipa), expected, "T0SZ {t0sz} SL0 {sl0}");
    }
}

/// `AArch64.S2CheckPermissions`: XN forbids fetches alone, S2AP loads and stores.
#[test]
fn rights_are_those_of_both_stages() {
    let descriptor = |bits: u64| RAM | AF | NORMAL | 1 | bits;
    for (bits, expected) in [
        (0, [false, false, true]),
        (1 << 6, [true, false, true]),
        (2 << 6, [false, true, true]),
        (3 << 6 | 1 << 54, [true, true, false]),
    ] {
        let mut memory = memory(&[(TABLE, descriptor(bits))]);
        let regime = regime(25, 1, 0);
        let accesses =
            [Access::data(false, true, false), Access::data(true, true, false), Access::fetch(true)];
        let allowed = accesses.map(|access| translate(&mut memory, &regime, 0x100, access).is_ok());
        assert_eq!(allowed, expected, "{bits:#x}");
    }
}

/// VTCR_EL2.HA and HD: the flag, and S2AP[1] by a store where DBM is set.
#[test]
fn hardware_sets_the_access_flag_and_the_dirty_state() {
    const HA: u64 = 1 << 21;
    const HD: u64 = 1 << 22;
    let clean = RAM | NORMAL | 1 << 6 | 1 << 51 | 1;
    let kind = FaultKind::Stage2 { ipa: 0, of_walk: false };
    let mut memory = memory(&[(TABLE, clean)]);
    let now = |memory: &Memory| read_back(memory, TABLE);
    assert_eq!(read(&mut memory, &regime(25, 1, 0), 0), Err((FaultStatus::AccessFlag { level: 1 }, kind)));
    let regime = regime(25, 1, HA | HD);
    let translation = translate(&mut memory, &regime, 0, Access::data(false, true, false)).expect("readable");
    assert!(translation.writable_clean && !translation.el1.write);
    assert_eq!(now(&memory), clean | AF);
    // AT asks, and changes nothing.
    let ask = Access { kind: AccessKind::AddressTranslationWrite, privileged: true, pan: false };
    assert!(translate(&mut memory, &regime, 0, ask).is_ok());
    assert_eq!(now(&memory), clean | AF);
    translate(&mut memory, &regime, 0, Access::data(true, true, false)).expect("writable");
    assert_eq!(now(&memory), clean | AF | 2 << 6);
}

/// `AArch64.S1Translate`: hardware's update of a descriptor of stage 1 needs stage 2's leave to write; and a walk through
/// Device memory is a Permission fault with HCR_EL2.PTW.
#[test]
fn what_a_walk_of_stage_1_does_is_checked_by_stage_2() {
    const TABLE1: u64 = RAM + 0x20_0000;
    const NORMAL_INDEX: u64 = 0;
    // Stage 1: T0SZ 25, one block of 1 GiB at level 1 without AF, in a page that stage 2 maps read-only.
    let first = RAM | NORMAL_INDEX | 1;
    let page = |bits: u64| RAM | AF | bits | 1;
    let with = |bits: u64, protected_walks: bool| {
        let mut regime = regime(25, 1, 0);
        regime.sctlr = 1;
        regime.tcr = 0x19 | 5 << 32 | 1 << 39;
        regime.ttbr0 = TABLE1;
        if let Some(stage2) = &mut regime.stage2 {
            stage2.protected_walks = protected_walks;
        }
        // IPA 0x4000_0000 is the second entry.
        (memory(&[(TABLE1 + 8, first), (TABLE + 8, page(bits))]), regime)
    };
    let fault =
        Err((FaultStatus::Permission { level: 1 }, FaultKind::Stage2 { ipa: TABLE1 + 8, of_walk: true }));
    let (mut memory, regime) = with(1 << 6 | NORMAL, false);
    assert_eq!(read(&mut memory, &regime, 0x4000_0000), fault);
    let (mut memory, regime) = with(RW | NORMAL, false);
    assert_eq!(read(&mut memory, &regime, 0x4000_0000), Ok(0x4000_0000));
    let (mut memory, regime) = with(RW, true);
    assert_eq!(read(&mut memory, &regime, 0x4000_0000), fault);
    let (mut memory, regime) = with(RW, false);
    assert_eq!(read(&mut memory, &regime, 0x4000_0000), Ok(0x4000_0000));
}

/// `S2CombineS1MemAttrs`: the stricter of two types.
#[test]
fn memory_is_of_the_stricter_type() {
    for (first, second, expected) in [
        (0xff, 0xf, (0xff, 3)),
        (0xff, 0x5, (0x44, 2)),
        (0xff, 0xa, (0xbb, 3)),
        (0xff, 0x1, (0x04, 2)),
        (0x04, 0xf, (0x04, 2)),
        (0x04, 0x0, (0x00, 2)),
        (0x44, 0xf, (0x44, 2)),
    ] {
        let mut memory = memory(&[(TABLE, RAM | AF | RW | second << 2 | 3 << 8 | 1), (RAM, 0)]);
        let output = regime(25, 1, 0)
            .stage2
            .and_then(|stage2| {
                let asks = Asks::Access(Access::data(false, true, false));
                stage2.translate(&memory, 0, 48, asks).ok()
            })
            .map(|(output, _)| output.combine(MemoryAttributes { mair: first, shareability: 3 }));
        let expected = MemoryAttributes { mair: expected.0, shareability: expected.1 };
        assert_eq!(output, Some(expected), "MAIR {first:#x}, MemAttr {second:#x}");
        memory.store(RAM, &[0]).expect("in RAM");
    }
}
