//! The memory error sections, both forms.

use super::layout::{Field, Spec, decimal, fields, hex, number};
use super::names::{error_status, memory_error_type};

/// Bytes of the section: UEFI 2.10, table N.31.
pub(super) const SIZE: usize = 80;
/// Bytes of the section in UEFI 2.1 and 2.2: up to the error type.
pub(super) const OLD_SIZE: usize = 73;
/// Bytes of the second form: UEFI 2.10, table N.32.
pub(super) const SIZE_2: usize = 96;

const SECTION: &[Spec] = &[
    hex("validation_bits", 0, 8),
    hex("error_status", 8, 8).valid(0).means(error_status),
    hex("physical_address", 16, 8).valid(1),
    hex("physical_address_mask", 24, 8).valid(2),
    decimal("node", 32, 2).valid(3),
    decimal("card", 34, 2).valid(4),
    decimal("module", 36, 2).valid(5),
    decimal("bank", 38, 2).valid(6),
    decimal("bank_address", 38, 1).valid(20),
    decimal("bank_group", 39, 1).valid(19),
    decimal("device", 40, 2).valid(7),
    decimal("row", 42, 2).valid(8),
    decimal("column", 44, 2).valid(9),
    decimal("bit_position", 46, 2).valid(10),
    hex("requestor_id", 48, 8).valid(11),
    hex("responder_id", 56, 8).valid(12),
    hex("target_id", 64, 8).valid(13),
    decimal("error_type", 72, 1).valid(14).means(memory_error_type),
    hex("extended", 73, 1),
    decimal("rank", 74, 2).valid(15),
    hex("card_handle", 76, 2).valid(16),
    hex("module_handle", 78, 2).valid(17),
];

const SECTION_2: &[Spec] = &[
    hex("validation_bits", 0, 8),
    hex("error_status", 8, 8).valid(0).means(error_status),
    hex("physical_address", 16, 8).valid(1),
    hex("physical_address_mask", 24, 8).valid(2),
    decimal("node", 32, 2).valid(3),
    decimal("card", 34, 2).valid(4),
    decimal("module", 36, 2).valid(5),
    decimal("bank", 38, 2).valid(6),
    decimal("bank_address", 38, 1).valid(21),
    decimal("bank_group", 39, 1).valid(20),
    decimal("device", 40, 4).valid(7),
    decimal("row", 44, 4).valid(8),
    decimal("column", 48, 4).valid(9),
    decimal("rank", 52, 4).valid(10),
    decimal("bit_position", 56, 4).valid(11),
    decimal("chip_id", 60, 1).valid(12),
    decimal("error_type", 61, 1).valid(13).means(memory_error_type),
    hex("status", 62, 1).valid(14).means(corrected),
    hex("requestor_id", 64, 8).valid(15),
    hex("responder_id", 72, 8).valid(16),
    hex("target_id", 80, 8).valid(17),
    hex("card_handle", 88, 4).valid(18),
    hex("module_handle", 92, 4).valid(19),
];

fn corrected(status: u64) -> String {
    if status & 1 == 0 { "corrected" } else { "uncorrected" }.into()
}

/// The fields of a memory error section of 73 bytes or more, at `base`.
pub(super) fn section(bytes: &[u8], base: usize) -> Vec<Field> {
    const ROW_VALID: u64 = 1 << 8;
    const ROW_EXTENSION_VALID: u64 = 1 << 18;
    const CHIP_VALID: u64 = 1 << 21;
    let validation = number(bytes, 0, 8).unwrap_or(0);
    let mut fields = fields(SECTION, bytes, base, validation);
    let extended = number(bytes, 73, 1).unwrap_or(0);
    // Bits [17:16] of the row, and the chip, lie in `extended`.
    if validation & ROW_EXTENSION_VALID != 0 {
        if let Some(row) = fields.iter_mut().find(|field| field.name == "row") {
            let low = if validation & ROW_VALID == 0 { 0 } else { number(bytes, 42, 2).unwrap_or(0) };
            row.value = (low | (extended & 3) << 16).to_string();
            row.valid = Some(true);
            row.meaning = "with bits [17:16] from `extended`".into();
        }
    }
    if let Some(at) = fields.iter().position(|field| field.name == "extended") {
        let chip = Field {
            name: "chip_id",
            offset: base + 73,
            size: 1,
            value: (extended >> 5).to_string(),
            valid: Some(validation & CHIP_VALID != 0),
            meaning: String::new(),
        };
        fields.insert(at + 1, chip);
    }
    fields
}

/// The fields of a memory error section of the second form, at `base`.
pub(super) fn section_2(bytes: &[u8], base: usize) -> Vec<Field> {
    fields(SECTION_2, bytes, base, number(bytes, 0, 8).unwrap_or(0))
}
