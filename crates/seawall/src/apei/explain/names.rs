//! Numbers and GUIDs of ACPI and UEFI in words.

/// The first table entry with this key.
fn find<K: PartialEq, V: Copy>(table: &[(K, V)], key: &K) -> Option<V> {
    table.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
}

/// The names of the set bits, separated by commas; then the unnamed bits as a number.
pub(super) fn flags(value: u64, names: &[(u32, &str)]) -> String {
    let mut rest = value;
    let mut words = Vec::new();
    for (bit, name) in names.iter().filter(|(bit, _)| value >> bit & 1 == 1) {
        rest &= !(1 << bit);
        words.push((*name).to_owned());
    }
    if rest != 0 {
        words.push(format!("reserved {rest:#x}"));
    }
    words.join(", ")
}

/// Error severity: ACPI 6.5, table 18.12; UEFI 2.10, table N.1.
pub fn severity(severity: u64) -> String {
    let name = find(&[(0, "recoverable"), (1, "fatal"), (2, "corrected"), (3, "informational")], &severity);
    name.map_or_else(|| format!("reserved severity {severity}"), str::to_owned)
}

/// Memory error type: UEFI 2.10, table N.31, offset 72.
pub fn memory_error_type(kind: u64) -> String {
    const NAMES: [&str; 16] = [
        "unknown",
        "no error",
        "single-bit ECC",
        "multi-bit ECC",
        "single-symbol chipkill ECC",
        "multi-symbol chipkill ECC",
        "master abort",
        "target abort",
        "parity error",
        "watchdog timeout",
        "invalid address",
        "mirror broken",
        "memory sparing",
        "scrub corrected error",
        "scrub uncorrected error",
        "physical memory map-out event",
    ];
    let name = usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind));
    name.map_or_else(|| format!("reserved type {kind}"), |name| (*name).to_owned())
}

/// Error status: UEFI 2.10, N.2.12: the type in bits `[15:8]`, then flags.
pub fn error_status(status: u64) -> String {
    const TYPES: &[(u64, &str)] = &[
        (1, "internal error of the component"),
        (4, "storage error in memory"),
        (5, "storage error in a TLB"),
        (6, "storage error in a cache"),
        (7, "functional unit failed"),
        (8, "self test failed"),
        (9, "internal queue over- or underflow"),
        (16, "bus error"),
        (17, "virtual address not found in the IO-TLB or IO-PDIR"),
        (18, "improper access"),
        (19, "access to an address of no component"),
        (20, "loss of lockstep"),
        (21, "response without a request"),
        (22, "bus parity error"),
        (23, "protocol error"),
        (24, "path error"),
        (25, "bus timeout"),
        (26, "poisoned data was read"),
    ];
    const FLAGS: &[(u32, &str)] = &[
        (16, "in the address"),
        (17, "in control signals"),
        (18, "in data"),
        (19, "found by the responder"),
        (20, "found by the requestor"),
        (21, "first of a sequence"),
        (22, "further errors not logged"),
    ];
    let kind = status >> 8 & 0xff;
    let name = find(TYPES, &kind).map_or_else(|| format!("reserved type {kind}"), str::to_owned);
    match flags(status & !0xff00, FLAGS) {
        flags if flags.is_empty() => name,
        flags => format!("{name}, {flags}"),
    }
}

/// The block's status: ACPI 6.5, table 18.11.
pub(super) fn block_status(status: u64) -> String {
    const FLAGS: &[(u32, &str)] = &[
        (0, "uncorrectable error"),
        (1, "correctable error"),
        (2, "several uncorrectable errors"),
        (3, "several correctable errors"),
    ];
    let entries = status >> 4 & 0x3ff;
    let entries = format!("{entries} data {}", if entries == 1 { "entry" } else { "entries" });
    match flags(status & !0x3ff0, FLAGS) {
        flags if flags.is_empty() => format!("no error, {entries}"),
        flags => format!("{flags}, {entries}"),
    }
}

/// Flags of a data entry or a section descriptor: UEFI 2.10, table N.5.
pub(super) fn section_flags(value: u64) -> String {
    const FLAGS: &[(u32, &str)] = &[
        (0, "primary"),
        (1, "containment warning"),
        (2, "reset"),
        (3, "threshold exceeded"),
        (4, "resource not accessible"),
        (5, "latent error"),
        (6, "propagated"),
        (7, "overflow"),
    ];
    flags(value, FLAGS)
}

/// Flags of a record: UEFI 2.10, table N.3.
pub(super) fn record_flags(value: u64) -> String {
    flags(value, &[(0, "recovered"), (1, "of an earlier boot"), (2, "simulated")])
}

/// A GUID in its memory order: the first three groups are little-endian. A second call reverses it.
pub(super) const fn swapped(guid: [u8; 16]) -> [u8; 16] {
    let g = guid;
    [g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]]
}

/// A GUID in memory order, from its digits.
const fn guid(digits: u128) -> [u8; 16] {
    swapped(digits.to_be_bytes())
}

/// UEFI 2.10, N.2.5.
pub(super) const MEMORY: [u8; 16] = guid(0xa5bc1114_6f64_4ede_b863_3e83ed7c83b1);
/// UEFI 2.10, N.2.6.
pub(super) const MEMORY_2: [u8; 16] = guid(0x61ec04fc_48e6_d813_25c9_8daa44750b12);
/// UEFI 2.10, N.2.4.4.
pub(super) const ARM_PROCESSOR: [u8; 16] = guid(0xe19e3d16_bc11_11e4_9caa_c2051d5d46b0);

/// Section types: UEFI 2.10, table N.5.
pub(super) fn section_type(guid_of_section: &[u8; 16]) -> Option<&'static str> {
    const TYPES: &[([u8; 16], &str)] = &[
        (MEMORY, "memory error"),
        (MEMORY_2, "memory error, second form"),
        (ARM_PROCESSOR, "Arm processor error"),
        (guid(0x9876ccad_47b4_4bdb_b65e_16f193c4f3db), "processor error, generic"),
        (guid(0xdc3ea0b0_a144_4797_b95b_53fa242b6e1d), "IA32 or x64 processor error"),
        (guid(0xd995e954_bbc1_430f_ad91_b44dcb3c6f35), "PCIe error"),
        (guid(0xc5753963_3b84_4095_bf78_eddad3f9c9dd), "PCI or PCI-X bus error"),
        (guid(0x81212a96_09ed_4996_9471_8d729c8e69ed), "firmware error record"),
    ];
    find(TYPES, guid_of_section)
}

/// Notification types: UEFI 2.10, table N.1.
pub(super) fn notification_type(notification: &[u8; 16]) -> Option<&'static str> {
    const TYPES: &[([u8; 16], &str)] = &[
        (guid(0x2dce8bb1_bdd7_450e_b9ad_9cf4ebd4f890), "CMC, corrected machine check"),
        (guid(0x4e292f96_d843_4a55_a8c2_d481f27ebeee), "CPE, corrected platform error"),
        (guid(0xe8f56ffe_919c_4cc5_ba88_65abe14913bb), "MCE, machine check"),
        (guid(0xcf93c01f_1a16_4dfc_b8bc_9c4daf67c104), "PCIe error"),
        (guid(0x5bad89ff_b7e6_42c9_814a_cf2485d6e98a), "NMI"),
        (guid(0x3d61a466_ab40_409a_a698_f362d464b38f), "boot error"),
        (guid(0x9a78788a_bbe8_11e4_809e_67611e5d46b0), "SEA, synchronous external abort"),
        (guid(0x5c284c81_b0ae_4e87_a322_b04c85624323), "SEI, SError"),
        (guid(0x09a9d5ac_5204_4214_96e5_94992e752bcd), "PEI, platform error interrupt"),
    ];
    find(TYPES, notification)
}

/// A GUID that names only its owner.
pub(super) fn unnamed(_: &[u8; 16]) -> Option<&'static str> {
    None
}
