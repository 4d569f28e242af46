//! FEAT_HAFDBS: what the walker writes into leaf descriptors, and when it must not.

use super::*;

const HA: u64 = 1 << 39;
const HD: u64 = 1 << 40;
/// Clean and writable: DBM, AF, read-only for both.
const CLEAN: u64 = 0x0008_0000_8000_07c5;
/// The same without AF.
const OLD_CLEAN: u64 = 0x0008_0000_8000_03c5;

fn with_leaf(leaf: u64) -> Memory {
    tables(&[(0x4000_0000, 0x4000_1003), (0x4000_1000, leaf)])
}

#[track_caller]
fn leaf_after(leaf: u64, tcr: u64, access: Access) -> u64 {
    let mut memory = with_leaf(leaf);
    translate(&mut memory, &regime(tcr), 0, access).expect("maps");
    read_back(&memory, 0x4000_1000)
}

#[test]
fn ha_sets_the_access_flag_on_every_kind_of_access_but_at() {
    let tcr = TCR_4K | HA;
    assert_eq!(leaf_after(0x8000_03c5, tcr, READ), 0x8000_07c5);
    assert_eq!(leaf_after(0x8000_0345, tcr, WRITE), 0x8000_0745);
    assert_eq!(leaf_after(0x8000_03c5, tcr, Access::fetch(true)), 0x8000_07c5);
    for kind in [AccessKind::AddressTranslationRead, AccessKind::AddressTranslationWrite] {
        assert_eq!(leaf_after(0x8000_0345, tcr, Access { kind, privileged: true, pan: false }), 0x8000_0345);
    }
}

#[test]
fn hd_lets_a_store_make_a_clean_page_dirty() {
    assert_eq!(leaf_after(CLEAN, TCR_4K | HA | HD, WRITE), 0x0008_0000_8000_0745);
    assert_eq!(leaf_after(OLD_CLEAN, TCR_4K | HA | HD, WRITE), 0x0008_0000_8000_0745);
    assert_eq!(leaf_after(CLEAN, TCR_4K | HA | HD, READ), CLEAN);
    let invalidate = Access { kind: AccessKind::CacheInvalidate, privileged: true, pan: false };
    assert_eq!(leaf_after(CLEAN, TCR_4K | HA | HD, invalidate), CLEAN);
}

#[test]
fn a_clean_page_is_not_writable_in_the_tlb_until_it_is_dirty() {
    let mut memory = with_leaf(CLEAN);
    let regime = regime(TCR_4K | HA | HD);
    let read = translate(&mut memory, &regime, 0, READ).expect("maps");
    assert!(read.writable_clean && !read.el1.write && !read.el0.write && read.el0.read);
    let write = translate(&mut memory, &regime, 0, WRITE).expect("maps");
    assert!(!write.writable_clean && write.el1.write && write.el0.write);
}

#[test]
fn dbm_without_hd_or_hd_without_ha_is_read_only() {
    for tcr in [TCR_4K, TCR_4K | HA, TCR_4K | HD] {
        let mut memory = with_leaf(CLEAN);
        let fault = translate(&mut memory, &regime(tcr), 0, WRITE).expect_err("read only");
        assert_eq!(fault.status, FaultStatus::Permission { level: 1 });
        assert_eq!(read_back(&memory, 0x4000_1000), CLEAN);
    }
}

#[test]
fn hd_leaves_a_read_only_page_without_dbm_read_only() {
    let mut memory = with_leaf(0x8000_07c5);
    let fault = translate(&mut memory, &regime(TCR_4K | HA | HD), 0, WRITE).expect_err("read only");
    assert_eq!(fault.status, FaultStatus::Permission { level: 1 });
    let read = translate(&mut memory, &regime(TCR_4K | HA | HD), 0, READ).expect("maps");
    assert!(!read.writable_clean && !read.el1.write);
}

#[test]
fn a_read_only_table_above_keeps_a_dbm_page_from_being_written() {
    let mut memory = tables(&[(0x4000_0000, 1 << 62 | 0x4000_1003), (0x4000_1000, CLEAN)]);
    let fault = translate(&mut memory, &regime(TCR_4K | HA | HD), 0, WRITE).expect_err("read only");
    assert_eq!(fault.status, FaultStatus::Permission { level: 1 });
    let read = translate(&mut memory, &regime(TCR_4K | HA | HD), 0, READ).expect("maps");
    assert!(!read.writable_clean);
}

#[test]
fn an_access_that_faults_changes_nothing() {
    let mut memory = with_leaf(0x8000_0385);
    let el0_read = Access::data(false, false, false);
    let fault = translate(&mut memory, &regime(TCR_4K | HA), 0, el0_read).expect_err("EL1 only");
    assert_eq!(fault.status, FaultStatus::Permission { level: 1 });
    assert_eq!(read_back(&memory, 0x4000_1000), 0x8000_0385);
}

#[test]
fn probing_changes_nothing() {
    let memory = with_leaf(OLD_CLEAN);
    let probed = probe(&memory, &regime(TCR_4K | HA | HD), 0, WRITE).expect("maps");
    assert_eq!(probed.pa, 0x8000_0000);
    assert_eq!(read_back(&memory, 0x4000_1000), OLD_CLEAN);
}

#[test]
fn an_update_in_a_poisoned_line_aborts_and_leaves_the_descriptor() {
    let mut memory = with_leaf(OLD_CLEAN);
    memory.poison(0x4000_1000..0x4000_1001).expect("in RAM");
    let fault = translate(&mut memory, &regime(TCR_4K | HA | HD), 0, WRITE).expect_err("poison");
    assert_eq!(fault.status, FaultStatus::ExternalOnWalk { level: 1 });
    assert_eq!(read_back(&memory, 0x4000_1000), OLD_CLEAN);
    assert!(memory.poisoned(0x4000_1000, 8));
}

#[test]
fn an_update_of_a_page_with_decoded_code_makes_that_code_stale() {
    let mut memory = with_leaf(OLD_CLEAN);
    memory.set_has_code(0x1000);
    translate(&mut memory, &regime(TCR_4K | HA), 0, READ).expect("maps");
    assert_eq!(memory.take_stale_code(), [1]);
}
