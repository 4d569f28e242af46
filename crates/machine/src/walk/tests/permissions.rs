//! `AArch64.S1DirectBasePermissions` and `AArch64.S1CheckPermissions`, as a table of what EL0 and EL1 may do.

use super::*;

const AP_EL1_RW: u64 = 0b00 << 6;
const AP_ALL_RW: u64 = 0b01 << 6;
const AP_EL1_RO: u64 = 0b10 << 6;
const AP_ALL_RO: u64 = 0b11 << 6;
const NO_PXN: u64 = 0;
const BIT_PXN: u64 = 1 << 53;
const BIT_UXN: u64 = 1 << 54;
const WXN: u64 = 1 << 19;

/// A 1 GiB block with `bits` under a table descriptor with `limits`; SCTLR_EL1 has `sctlr` besides M.
fn block(bits: u64, limits: u64, sctlr: u64) -> (Memory, Regime) {
    let memory = tables(&[(0x4000_0000, 0x4000_1003 | limits), (0x4000_1000, 0x8000_0705 | bits)]);
    let mut regime = regime(TCR_4K);
    regime.sctlr |= sctlr;
    (memory, regime)
}

/// The rights of EL0 and EL1 as "rwx rwx", first as the translation tells them, then as the accesses find them.
#[track_caller]
fn rights(bits: u64, limits: u64, sctlr: u64, expected: &str) {
    let (memory, regime) = block(bits, limits, sctlr);
    let letters = |p: Permissions| {
        format!(
            "{}{}{}",
            if p.read { 'r' } else { '-' },
            if p.write { 'w' } else { '-' },
            if p.execute { 'x' } else { '-' }
        )
    };
    // AT-like probes at EL1 without PAN always may read, so the translation is there to be asked.
    let told = probe(&memory, &regime, 0, READ).expect("EL1 may read");
    assert_eq!(format!("{} {}", letters(told.el0), letters(told.el1)), expected);
    let found = |privileged| {
        let may = |kind| match probe(&memory, &regime, 0, Access { kind, privileged, pan: false }) {
            Ok(_) => true,
            Err(fault) => {
                assert_eq!(
                    fault,
                    Fault { status: FaultStatus::Permission { level: 1 }, kind: FaultKind::Stage1 }
                );
                false
            }
        };
        Permissions {
            read: may(AccessKind::Read),
            write: may(AccessKind::Write),
            execute: may(AccessKind::Fetch),
        }
    };
    assert_eq!(format!("{} {}", letters(found(false)), letters(found(true))), expected);
}

#[test]
fn ap_and_xn_give_the_rights_of_the_manuals_table() {
    rights(AP_EL1_RW | NO_PXN, 0, 0, "--x rwx");
    rights(AP_EL1_RW | BIT_PXN, 0, 0, "--x rw-");
    rights(AP_EL1_RW | BIT_UXN, 0, 0, "--- rwx");
    rights(AP_ALL_RO | NO_PXN, 0, 0, "r-x r-x");
    rights(AP_ALL_RO | BIT_PXN | BIT_UXN, 0, 0, "r-- r--");
    rights(AP_EL1_RO | BIT_UXN, 0, 0, "--- r-x");
    rights(AP_EL1_RO | BIT_PXN, 0, 0, "--x r--");
}

#[test]
fn what_el0_can_write_el1_never_executes() {
    rights(AP_ALL_RW, 0, 0, "rwx rw-");
    rights(AP_ALL_RW | BIT_UXN, 0, 0, "rw- rw-");
}

#[test]
fn wxn_takes_execution_from_what_is_writable_at_that_level() {
    rights(AP_ALL_RW, 0, WXN, "rw- rw-");
    rights(AP_EL1_RW, 0, WXN, "--x rw-");
    rights(AP_ALL_RO, 0, WXN, "r-x r-x");
}

#[test]
fn table_limits_bind_every_level_below() {
    rights(AP_ALL_RW, 1 << 61, 0, "--x rwx");
    rights(AP_ALL_RW, 1 << 62, 0, "r-x r-x");
    rights(AP_ALL_RW, 3 << 61, 0, "--x r-x");
    rights(AP_ALL_RO, 1 << 60, 0, "r-- r-x");
    rights(AP_ALL_RO, 1 << 59, 0, "r-x r--");
}

#[test]
fn limits_of_two_tables_add_up() {
    let memory = tables(&[
        (0x4000_0000, 1 << 62 | 0x4000_1003),
        (0x4000_1000, 1 << 60 | 0x4000_2003),
        (0x4000_2000, 0x8000_0745),
    ]);
    let told = probe(&memory, &regime(TCR_4K), 0, READ).expect("maps");
    assert_eq!(told.el0, Permissions { read: true, write: false, execute: false });
    assert_eq!(told.el1, Permissions { read: true, write: false, execute: true });
}

#[test]
fn hpd_lifts_the_table_limits_of_its_half_alone() {
    let (memory, mut regime) = block(AP_ALL_RW, 0xf << 59, 0);
    let el0_may = |regime: &Regime, va| probe(&memory, regime, va, READ).expect("maps").el0;
    let none = Permissions::default();
    let all = Permissions { read: true, write: true, execute: true };
    assert_eq!(el0_may(&regime, 0), none);
    regime.tcr = TCR_4K | 1 << 41;
    assert_eq!(el0_may(&regime, 0), all);
    assert_eq!(el0_may(&regime, 0xffff_0000_0000_0000), none);
    regime.tcr = TCR_4K | 1 << 42;
    assert_eq!(el0_may(&regime, 0), none);
    assert_eq!(el0_may(&regime, 0xffff_0000_0000_0000), all);
}

#[test]
fn pan_keeps_el1_from_data_that_el0_can_load_and_from_nothing_else() {
    let ok = |bits, kind, privileged, pan| {
        let (memory, regime) = block(bits, 0, 0);
        probe(&memory, &regime, 0, Access { kind, privileged, pan }).is_ok()
    };
    for kind in [
        AccessKind::Read,
        AccessKind::Write,
        AccessKind::AddressTranslationRead,
        AccessKind::AddressTranslationWrite,
    ] {
        assert!(!ok(AP_ALL_RW, kind, true, true), "{kind:?}");
        assert!(ok(AP_ALL_RW, kind, true, false), "{kind:?}");
        assert!(ok(AP_ALL_RW, kind, false, true), "{kind:?}");
        assert!(ok(AP_EL1_RW, kind, true, true), "{kind:?}");
    }
    assert!(ok(AP_ALL_RO, AccessKind::Fetch, true, true));
    // The table limit that hides a page from EL0 hides it from PAN too.
    let (memory, regime) = block(AP_ALL_RW, 1 << 61, 0);
    assert!(
        probe(&memory, &regime, 0, Access { kind: AccessKind::Read, privileged: true, pan: true }).is_ok()
    );
}

#[test]
fn cache_maintenance_needs_what_its_kind_needs() {
    let ok = |bits, kind, privileged| {
        let (memory, regime) = block(bits, 0, 0);
        probe(&memory, &regime, 0, Access { kind, privileged, pan: false }).is_ok()
    };
    assert!(ok(AP_EL1_RO, AccessKind::CacheClean, true));
    assert!(!ok(AP_EL1_RO, AccessKind::CacheClean, false));
    assert!(ok(AP_ALL_RO, AccessKind::CacheClean, false));
    assert!(!ok(AP_ALL_RO, AccessKind::CacheInvalidate, true));
    assert!(ok(AP_ALL_RW, AccessKind::CacheInvalidate, true));
}
