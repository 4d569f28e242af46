use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::apei::cper::{MemoryErrorRecord, RECORD_SIZE, Severity};

/// 2026-11-21 13:14:15 UTC.
const NOON: u64 = 1_795_266_855;

fn record() -> MemoryErrorRecord {
    MemoryErrorRecord {
        address: 0x4021_0000,
        range: 0x4021_0000..0x4021_1000,
        severity: Severity::Recoverable,
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(NOON),
        serial: 17,
    }
}

fn field<'a>(explanation: &'a Explanation, part: &str, name: &str) -> &'a Field {
    let part = explanation.parts.iter().find(|known| known.name == part).unwrap();
    part.fields.iter().find(|field| field.name == name).unwrap()
}

/// `name value meaning`, with `!` before a field that is not valid.
fn check(explanation: &Explanation, part: &str, expected: &[&str]) {
    let line = |field: &Field| {
        let mark = if field.valid == Some(false) { "!" } else { "" };
        format!("{mark}{} {} {}", field.name, field.value, field.meaning).trim_end().to_owned()
    };
    let part = explanation.parts.iter().find(|known| known.name == part).unwrap();
    assert_eq!(part.fields.iter().map(line).collect::<Vec<_>>(), expected);
}

/// ACPI 6.5, tables 18.11 and 18.12.
#[test]
fn a_block_of_ours_has_each_field_in_words() {
    let explanation = explain(&record().to_bytes()).unwrap();
    assert_eq!((explanation.form, explanation.unread), (Form::StatusBlock, 0));
    assert_eq!(explanation.problems, []);
    check(
        &explanation,
        "status block",
        &[
            "block_status 0x11 uncorrectable error, 1 data entry",
            "raw_data_offset 0",
            "raw_data_length 0",
            "data_length 152",
            "error_severity 0 recoverable",
        ],
    );
    check(
        &explanation,
        "data entry 0",
        &[
            "section_type a5bc1114-6f64-4ede-b863-3e83ed7c83b1 memory error",
            "error_severity 0 recoverable",
            "revision 0x300",
            "validation_bits 0x6",
            "flags 0x0",
            "error_data_length 80",
            "!fru_id 00000000-0000-0000-0000-000000000000",
            "fru_text seawall 17",
            "timestamp 2026-11-21 13:14:15 precise",
        ],
    );
    let section = explanation.parts.iter().find(|part| part.name == "memory error").unwrap();
    let valid: Vec<_> =
        section.fields.iter().filter(|field| field.valid == Some(true)).map(|field| field.name).collect();
    assert_eq!(valid, ["physical_address", "physical_address_mask", "error_type"]);
    assert_eq!(field(&explanation, "memory error", "physical_address_mask").value, "0xfffffffffffff000");
    assert_eq!(field(&explanation, "memory error", "error_type").meaning, "multi-bit ECC");
    assert_eq!((section.offset, section.size), (92, 80));
}

/// A memory section with all fields valid: UEFI 2.10, table N.31.
fn full_section() -> Vec<u8> {
    let mut section = vec![0; 80];
    let mut put = |at: usize, bytes: &[u8]| section[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0x3f_ffff_u64.to_le_bytes());
    put(8, &0x0004_0400_u64.to_le_bytes());
    put(16, &0x000e_5321_8400_u64.to_le_bytes());
    put(24, &0xffff_ffff_ffff_ffc0_u64.to_le_bytes());
    for (at, number) in
        [(32, 1_u16), (34, 2), (36, 3), (38, 0x0405), (40, 6), (42, 0x6532), (44, 64), (46, 9)]
    {
        put(at, &number.to_le_bytes());
    }
    put(48, &0x11_u64.to_le_bytes());
    put(56, &0x22_u64.to_le_bytes());
    put(64, &0x33_u64.to_le_bytes());
    // extended: chip 5, row bits [17:16] = 1.
    put(72, &[2, 0xa1, 7, 0, 0x20, 0x11, 0x21, 0x11]);
    section
}

#[test]
fn a_memory_section_alone_is_known_by_its_size() {
    let explanation = explain(&full_section()).unwrap();
    assert_eq!(explanation.form, Form::Section);
    check(
        &explanation,
        "memory error",
        &[
            "validation_bits 0x3fffff",
            "error_status 0x40400 storage error in memory, in data",
            "physical_address 0xe53218400",
            "physical_address_mask 0xffffffffffffffc0",
            "node 1",
            "card 2",
            "module 3",
            "bank 1029",
            "bank_address 5",
            "bank_group 4",
            "device 6",
            "row 91442 with bits [17:16] from `extended`",
            "column 64",
            "bit_position 9",
            "requestor_id 0x11",
            "responder_id 0x22",
            "target_id 0x33",
            "error_type 2 single-bit ECC",
            "extended 0xa1",
            "chip_id 5",
            "rank 7",
            "card_handle 0x1120",
            "module_handle 0x1121",
        ],
    );
    assert_eq!(explanation.errors[0].to_string(), "memory error: 0xe53218400..0xe53218440, single-bit ECC");
}

/// UEFI 2.1 and 2.2 ended the section at the error type.
#[test]
fn a_memory_section_of_73_bytes_has_no_fields_behind_them() {
    let explanation = explain(&full_section()[..73]).unwrap();
    assert_eq!(explanation.parts[0].fields.last().unwrap().name, "error_type");
    assert_eq!(explanation.problems, []);
}

/// UEFI 2.10, table N.32.
#[test]
fn the_second_form_of_a_memory_section_has_wider_fields() {
    let mut section = vec![0; 96];
    section[..8].copy_from_slice(&0x0000_6102_u64.to_le_bytes());
    section[16..24].copy_from_slice(&0x8000_1000_u64.to_le_bytes());
    section[44..48].copy_from_slice(&0x0002_0001_u32.to_le_bytes());
    section[61] = 3;
    section[62] = 1;
    let explanation = explain(&section).unwrap();
    let part = "memory error, second form";
    assert_eq!(field(&explanation, part, "row").value, "131073");
    assert_eq!(field(&explanation, part, "row").valid, Some(true));
    assert_eq!(field(&explanation, part, "status").meaning, "uncorrected");
    assert_eq!(explanation.errors[0].to_string(), "memory error, second form: 0x80001000, multi-bit ECC");
}

/// UEFI 2.10, tables N.16 to N.30: a cache error with the EL1 registers at that moment.
fn processor_section() -> Vec<u8> {
    let mut section = Vec::new();
    let context = 8 + 17 * 8;
    section.extend(5_u32.to_le_bytes()); // MPIDR and running state are valid
    section.extend([1, 0, 1, 0]);
    section.extend((40_u32 + 32 + context).to_le_bytes());
    section.extend([0; 4]);
    section.extend(0x8108_0000_u64.to_le_bytes());
    section.extend(0x481f_d010_u64.to_le_bytes());
    section.extend(1_u32.to_le_bytes());
    section.extend(0_u32.to_le_bytes());
    // Version, length, valid: flags, error_info, both addresses; a cache error, the first captured.
    section.extend([0, 32, 0x1e, 0, 2, 0, 0, 1]);
    // A data read in level 1, not corrected, the context not corrupted.
    section.extend((0x1f_u64 | 1 << 16 | 3 << 18 | 1 << 22).to_le_bytes());
    section.extend(0xffff_8000_1234_5678_u64.to_le_bytes());
    section.extend(0x4021_0040_u64.to_le_bytes());
    section.extend([0, 0, 5, 0]);
    section.extend((17_u32 * 8).to_le_bytes());
    for register in 0..17_u64 {
        section.extend(if register == 1 { 0x9600_0410 } else { register }.to_le_bytes());
    }
    section
}

#[test]
fn an_arm_processor_error_has_its_causes_and_registers() {
    let explanation = explain(&processor_section()).unwrap();
    assert_eq!(explanation.problems, []);
    check(
        &explanation,
        "Arm processor error",
        &[
            "validation_bits 0x5",
            "err_info_num 1",
            "context_info_num 1",
            "section_length 216",
            "!error_affinity_level 0",
            "mpidr 0x81080000",
            "midr 0x481fd010",
            "running_state 0x1 running",
            "psci_state 0",
        ],
    );
    check(
        &explanation,
        "error information 0",
        &[
            "version 0",
            "length 32",
            "validation_bits 0x1e",
            "error_type 0x2 cache; before UEFI 2.9A: bus",
            "!multiple_error 0 one error",
            "flags 0x1 first captured",
            "error_info 0x4d001f",
            "virtual_fault_address 0xffff800012345678",
            "physical_fault_address 0x40210040",
            "transaction_type 1 data access",
            "operation 3 data read",
            "level 1",
            "processor_context_corrupt 0 not corrupted",
            "corrected 0 not corrected",
            "!precise_pc 0 imprecise",
            "!restartable_pc 0 not restartable",
        ],
    );
    let esr = field(&explanation, "context 0", "esr_el1");
    assert_eq!(
        esr.meaning,
        "0x96000410 data abort from the same EL, IL, SET=UER FnV DFSC 0x10 synchronous external abort"
    );
    assert_eq!(field(&explanation, "context 0", "ttbr1_el1").value, "0x10");
    assert_eq!(
        explanation.errors[0].to_string(),
        "Arm processor error: 0x40210040, cache; before UEFI 2.9A: bus"
    );
}

/// A stored record of one section: UEFI 2.10, tables N.1 and N.4.
fn kept_record() -> Vec<u8> {
    let mut record = Vec::from(*b"CPER");
    record.extend([1, 1, 0xff, 0xff, 0xff, 0xff, 1, 0]);
    record.extend(1_u32.to_le_bytes());
    record.extend(2_u32.to_le_bytes());
    record.extend((128_u32 + 72 + 80).to_le_bytes());
    record.extend([0x15, 0x14, 0x13, 0, 0x21, 0x11, 0x26, 0x20]);
    record.extend([0; 48]);
    record.extend([
        0x8a, 0x78, 0x78, 0x9a, 0xe8, 0xbb, 0xe4, 0x11, 0x80, 0x9e, 0x67, 0x61, 0x1e, 0x5d, 0x46, 0xb0,
    ]);
    record.extend(0x77_u64.to_le_bytes());
    record.extend(2_u32.to_le_bytes());
    record.extend([0; 20]);
    record.extend(200_u32.to_le_bytes());
    record.extend(80_u32.to_le_bytes());
    record.extend([0, 3, 2, 0, 1, 0, 0, 0]);
    record.extend(names::MEMORY);
    record.extend([0; 16]);
    record.extend(1_u32.to_le_bytes());
    record.extend(b"DIMM A1\0\0\0\0\0\0\0\0\0\0\0\0\0");
    record.extend(full_section());
    record
}

#[test]
fn a_record_has_header_descriptors_and_sections() {
    let explanation = explain(&kept_record()).unwrap();
    assert_eq!((explanation.form, explanation.unread), (Form::Record, 0));
    assert_eq!(explanation.problems, []);
    let names: Vec<_> =
        explanation.parts.iter().map(|part| (part.name.as_str(), part.offset, part.size)).collect();
    assert_eq!(names, [("record", 0, 128), ("section descriptor 0", 128, 72), ("memory error", 200, 80)]);
    for (part, name, meaning) in [
        ("record", "notification_type", "SEA, synchronous external abort"),
        ("record", "error_severity", "fatal"),
        ("record", "flags", "of an earlier boot"),
        ("record", "timestamp", "imprecise"),
        ("section descriptor 0", "section_type", "memory error"),
        ("section descriptor 0", "flags", "primary"),
    ] {
        assert_eq!(field(&explanation, part, name).meaning, meaning, "{part} {name}");
    }
    assert_eq!(
        explanation.errors[0].to_string(),
        "memory error, fatal: 0xe53218400..0xe53218440, single-bit ECC, unit `DIMM A1`"
    );
}

#[test]
fn sections_that_overlap_are_read_once() {
    let mut record = kept_record();
    record[10] = 2;
    record.splice(200..200, record[128..200].to_vec());
    record[20..24].copy_from_slice(&352_u32.to_le_bytes());
    // Both claim all bytes.
    for at in [128, 200] {
        record[at..at + 4].copy_from_slice(&0_u32.to_le_bytes());
        record[at + 4..at + 8].copy_from_slice(&352_u32.to_le_bytes());
    }
    let explanation = explain(&record).unwrap();
    assert_eq!(
        explanation.problems.last().unwrap().to_string(),
        "at byte 200: expected sections that do not overlap, got more than the record's 352 bytes"
    );
}

/// ACPI 6.5, table 18.12: before revision 3.0 an entry has no time and is 64 bytes long.
#[test]
fn an_entry_of_revision_2_has_no_time() {
    let mut block = record().to_bytes().to_vec();
    block.drain(84..92);
    block[12..16].copy_from_slice(&144_u32.to_le_bytes());
    block[40..42].copy_from_slice(&0x201_u16.to_le_bytes());
    let explanation = explain(&block).unwrap();
    assert_eq!(explanation.problems, []);
    assert_eq!(
        explanation.errors[0].to_string(),
        "memory error, recoverable: 0x40210000..0x40211000, multi-bit ECC, unit `seawall 17`"
    );
}

#[test]
fn what_is_cut_is_explained_up_to_the_cut() {
    let bytes = record().to_bytes();
    let explanation = explain(&bytes[..120]).unwrap();
    let problems: Vec<String> = explanation.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "at byte 20: expected 152 bytes of data entries, got 100",
            "at byte 92: expected 80 bytes in the section of data entry 0, got 28",
            "at byte 92: expected 73 bytes of a memory error, got 28",
        ]
    );
    assert_eq!(field(&explanation, "memory error", "physical_address").value, "0x40210000");
}

#[test]
fn bytes_that_are_nothing_say_what_is_expected() {
    let refused = explain(&[0xff; 30]).unwrap_err().to_string();
    assert!(
        refused.starts_with("at byte 0: expected a record (it begins with CPER), a status block"),
        "{refused}"
    );
    assert!(refused.ends_with("got 30 bytes that are none of these"), "{refused}");
    assert!(explain(&[]).is_err());
}

#[test]
fn the_rest_of_a_larger_area_is_counted_as_unread() {
    let mut area = record().to_bytes().to_vec();
    area.resize(496, 0);
    assert_eq!(explain(&area).unwrap().unread, 324);
}

#[test]
fn text_from_firmware_cannot_command_a_terminal() {
    let mut bytes = record().to_bytes();
    bytes[64..68].copy_from_slice(b"\x1b[2J");
    let explanation = explain(&bytes).unwrap();
    assert_eq!(field(&explanation, "data entry 0", "fru_text").value, "\\u{1b}[2Jall 17");
}

/// Checks that nothing panics and each part lies within the bytes.
fn stays_within(bytes: &[u8]) {
    let Ok(explanation) = explain(bytes) else { return };
    for part in &explanation.parts {
        assert!(part.offset + part.size <= bytes.len(), "{part:?}");
        assert!(part.fields.iter().all(|field| field.offset + field.size <= bytes.len()), "{part:?}");
    }
    assert!(explanation.unread <= bytes.len());
}

#[test]
fn every_prefix_of_every_structure_is_read_or_refused() {
    for whole in [record().to_bytes().to_vec(), full_section(), processor_section(), kept_record()] {
        for len in 0..=whole.len() {
            stays_within(&whole[..len]);
        }
    }
}

proptest! {
    /// The reader gets the writer's range, severity, text and time.
    #[test]
    fn a_record_that_was_written_is_read_back_equal(
        page in 0_u64..1 << 40, order in 0_u32..=23, seconds in 0_u64..253_402_300_800, serial: u32,
        (severity, word) in prop_oneof![
            Just((Severity::Recoverable, "recoverable")), Just((Severity::Fatal, "fatal")),
            Just((Severity::Corrected, "corrected"))
        ],
    ) {
        let start = page << order;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let record = MemoryErrorRecord { address: start, range: start..start + (1 << order), severity, time, serial };
        let explanation = explain(&record.to_bytes()).unwrap();
        prop_assert_eq!(&explanation.problems, &[]);
        prop_assert_eq!(explanation.unread, 0);
        let [error] = explanation.errors.as_slice() else { panic!("one error") };
        prop_assert_eq!(error.range(), Some(record.range));
        prop_assert_eq!(error.severity.as_deref(), Some(word));
        let unit = format!("seawall {serial}");
        prop_assert_eq!(error.unit.as_deref(), Some(unit.as_str()));
        let time = DateTime::<Utc>::from(time).format("%Y-%m-%d %H:%M:%S").to_string();
        prop_assert_eq!(error.time.as_deref(), Some(time.as_str()));
        prop_assert_eq!(error.error_type.as_deref(), Some("multi-bit ECC"));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        stays_within(&bytes);
        let mut block = record().to_bytes()[..20].to_vec();
        block.extend(&bytes);
        stays_within(&block);
        let mut kept = kept_record()[..128].to_vec();
        kept.extend(&bytes);
        stays_within(&kept);
    }

    #[test]
    fn any_change_of_a_structure_is_read_or_refused(
        changes in proptest::collection::vec((0..280_usize, any::<u8>()), 1..8), which in 0..4_usize,
    ) {
        let whole = [record().to_bytes().to_vec(), full_section(), processor_section(), kept_record()];
        let mut bytes = whole[which].clone();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        stays_within(&bytes);
    }
}

#[test]
fn the_size_of_our_records_is_what_the_reader_takes() {
    assert_eq!(
        explain(&record().to_bytes()).unwrap().parts.iter().map(|part| part.size).sum::<usize>(),
        RECORD_SIZE
    );
}
