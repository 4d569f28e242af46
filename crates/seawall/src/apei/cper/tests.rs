use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// 2026-11-21 13:14:15 UTC.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_266_855)
}

fn record() -> MemoryErrorRecord {
    MemoryErrorRecord {
        address: 0x4021_0000,
        range: 0x4021_0000..0x4021_1000,
        severity: Severity::Recoverable,
        time: noon(),
        serial: 17,
    }
}

/// ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.2 and N.2.5: each field at its offset.
#[test]
fn each_field_is_where_the_specification_puts_it() {
    let bytes = record().to_bytes();
    let expected: [(usize, &[u8]); 16] = [
        (0, &[0x11, 0, 0, 0]),
        (4, &[0; 8]),
        (12, &[152, 0, 0, 0]),
        (16, &[0, 0, 0, 0]),
        (
            20,
            &[0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e, 0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1],
        ),
        (36, &[0, 0, 0, 0]),
        (40, &[0, 3]),
        (42, &[6, 0]),
        (44, &[80, 0, 0, 0]),
        (48, &[0; 16]),
        (64, b"seawall 17\0\0\0\0\0\0\0\0\0\0"),
        (84, &[0x15, 0x14, 0x13, 1, 0x21, 0x11, 0x26, 0x20]),
        (92, &[6, 0x40, 0, 0, 0, 0, 0, 0]),
        (108, &[0, 0, 0x21, 0x40, 0, 0, 0, 0]),
        (116, &[0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (164, &[3, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (at, expected) in expected {
        assert_eq!(&bytes[at..at + expected.len()], expected, "at {at}");
    }
    assert_eq!(bytes.len(), 172);
}

#[test]
fn a_corrected_error_is_not_said_to_be_uncorrectable() {
    let bytes = MemoryErrorRecord { severity: Severity::Corrected, ..record() }.to_bytes();
    assert_eq!((bytes[0], bytes[16], bytes[36]), (0x12, 2, 2));
}

#[test]
fn two_records_of_the_same_page_in_the_same_second_differ() {
    assert_ne!(record().to_bytes(), MemoryErrorRecord { serial: 18, ..record() }.to_bytes());
}

#[test]
fn a_range_grows_to_the_next_granule() {
    for (range, expected) in [
        (0x4000_0000..0x4000_0040, 0x4000_0000..0x4000_0040),
        (0x4000_0001..0x4000_0002, 0x4000_0001..0x4000_0002),
        (0x4000_003f..0x4000_0041, 0x4000_0000..0x4000_0080),
        (0x4000_0000..0x8000_0000, 0x4000_0000..0x8000_0000),
        (0x4000_0000..0x4000_0000, 0x4000_0000..0x4000_0001),
    ] {
        assert_eq!(granule(range.clone()), expected, "{range:x?}");
    }
}

#[test]
fn what_is_no_record_is_refused_with_what_was_expected() {
    let mut bytes = record().to_bytes();
    bytes[16] = 3;
    let refused = MemoryErrorRecord::from_bytes(&bytes).unwrap_err();
    assert_eq!(refused.to_string(), "expected severity 0, 1 or 2, got 0x3");
    let mut bytes = record().to_bytes();
    bytes[84] = 0x1a;
    let refused = MemoryErrorRecord::from_bytes(&bytes).unwrap_err();
    assert_eq!(refused.to_string(), "expected a time in BCD, got 0x202611210113141a");
    assert!(MemoryErrorRecord::from_bytes(&[0; RECORD_SIZE]).is_err());
}

proptest! {
    #[test]
    fn a_record_is_read_back_as_it_was(
        page in 0_u64..1 << 40, order in 0_u32..=30, met: u64, seconds in 0_u64..253_402_300_800, serial: u32,
        severity in prop_oneof![
            Just(Severity::Recoverable), Just(Severity::Fatal), Just(Severity::Corrected)
        ],
    ) {
        let start = page << order;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let record = MemoryErrorRecord { address: start + (met & ((1 << order) - 1)), range: start..start + (1 << order), severity, time, serial };
        prop_assert_eq!(MemoryErrorRecord::from_bytes(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn no_byte_can_change_without_its_being_seen(at in 0..RECORD_SIZE, flip in 1_u8..) {
        let mut bytes = record().to_bytes();
        bytes[at] ^= flip;
        prop_assert_ne!(MemoryErrorRecord::from_bytes(&bytes), Ok(record()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), RECORD_SIZE)) {
        let bytes: [u8; RECORD_SIZE] = bytes.try_into().expect("as many");
        let _ = MemoryErrorRecord::from_bytes(&bytes);
    }
}
