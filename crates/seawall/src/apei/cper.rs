//! One memory error as a Generic Error Status Block: header, one data entry, one memory section.
//!
//! The module uses no other part of this crate.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use seawall::apei::cper::{MemoryErrorRecord, Severity};
//!
//! let record = MemoryErrorRecord {
//!     address: 0x4021_0000,
//!     range: 0x4021_0000..0x4021_1000,
//!     severity: Severity::Recoverable,
//!     time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
//!     serial: 7,
//! };
//! let bytes = record.to_bytes();
//! assert_eq!(MemoryErrorRecord::from_bytes(&bytes), Ok(record));
//! ```

use std::ops::Range;
use std::time::SystemTime;

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};
use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

/// Bytes of a record.
pub const RECORD_SIZE: usize = size_of::<Block>();

/// `CPER_SEC_PLATFORM_MEM`, a5bc1114-6f64-4ede-b863-3e83ed7c83b1, as it lies in memory. UEFI 2.10, N.2.5.
const MEMORY_SECTION: [u8; 16] =
    [0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e, 0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1];

/// The block's status: one uncorrectable error (bit 0), and one data entry (bits `[13:4]`).
const ONE_UNCORRECTABLE: u32 = 1 | 1 << 4;
/// Revision of a data entry with a time: 3.0.
const REVISION: u16 = 0x300;
/// Validation bits of a data entry: text and time.
const TEXT_VALID: u8 = 1 << 1;
const TIME_VALID: u8 = 1 << 2;
/// Validation bits of a memory section.
const ADDRESS_VALID: u64 = 1 << 1;
const MASK_VALID: u64 = 1 << 2;
const TYPE_VALID: u64 = 1 << 14;
/// Memory error type: multi-bit ECC.
const MULTI_BIT_ECC: u8 = 3;
/// The start of a record's text; the serial number follows.
const TEXT: &[u8] = b"seawall ";

/// ACPI 6.5, 18.3.2.7.1 (the block and its entry), UEFI 2.10, N.2.5 (the section).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Block {
    status: U32,
    raw_data_offset: U32,
    raw_data_length: U32,
    data_length: U32,
    error_severity: U32,
    entry: Entry,
    section: Section,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    section_type: [u8; 16],
    error_severity: U32,
    revision: U16,
    validation: u8,
    flags: u8,
    error_data_length: U32,
    fru_id: [u8; 16],
    fru_text: [u8; 20],
    timestamp: [u8; 8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Section {
    validation: U64,
    error_status: U64,
    physical_address: U64,
    physical_address_mask: U64,
    /// Node, card, module, bank, device, row, column, bit: places in the host, which do not concern the
    /// guest.
    place: [U16; 8],
    requestor: U64,
    responder: U64,
    target: U64,
    error_type: u8,
    extended: u8,
    rank: U16,
    card_handle: U16,
    module_handle: U16,
}

const _: () = assert!(size_of::<Entry>() == 72 && size_of::<Section>() == 80 && RECORD_SIZE == 172);

/// ACPI's error severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Severity {
    /// The memory is lost, but not the whole system.
    Recoverable,
    /// The system is lost: Linux panics.
    Fatal,
    /// Nothing was lost.
    Corrected,
}

impl Severity {
    const fn bits(self) -> u32 {
        match self {
            Self::Recoverable => 0,
            Self::Fatal => 1,
            Self::Corrected => 2,
        }
    }

    const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::Recoverable),
            1 => Some(Self::Fatal),
            2 => Some(Self::Corrected),
            _ => None,
        }
    }
}

/// A memory error for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
// The only `unsafe` is in what zerocopy's macro expands to.
#[allow(clippy::unsafe_derive_deserialize)]
pub struct MemoryErrorRecord {
    /// The place of the access in the range: Linux takes the page of this address offline, and ignores the
    /// mask.
    pub address: u64,
    /// The bad guest physical addresses: a power of two of bytes, aligned to its size (a line, a page, a
    /// block). [`granule`] makes such a range.
    pub range: Range<u64>,
    /// The severity.
    pub severity: Severity,
    /// The time at which the error was found; the record holds whole seconds.
    pub time: SystemTime,
    /// The number of this record, which makes it differ from all others: Linux takes a record equal to one of
    /// the last ten seconds for a repeat and ignores it. The guest's log shows it as text of the unit,
    /// `seawall 7`.
    pub serial: u32,
}

/// The reason why bytes are not a record of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, got {got:#x}")]
pub struct NotARecord {
    /// The expected content.
    pub expected: &'static str,
    /// The value found.
    pub got: u64,
}

/// The smallest range that a record can express and that contains `range`.
///
/// ```
/// use seawall::apei::cper::granule;
///
/// assert_eq!(granule(0x4021_0040..0x4021_0080), 0x4021_0040..0x4021_0080);
/// assert_eq!(granule(0x4021_0ff0..0x4021_1010), 0x4021_0000..0x4021_2000);
/// ```
pub fn granule(range: Range<u64>) -> Range<u64> {
    let last = range.end.saturating_sub(1).max(range.start);
    let shift = u64::BITS - (range.start ^ last).leading_zeros();
    let mask = 1_u64.checked_shl(shift).map_or(u64::MAX, |size| size - 1);
    (range.start & !mask)..(last | mask).saturating_add(1)
}

impl MemoryErrorRecord {
    /// The Generic Error Status Block.
    ///
    /// A range that is not a [`granule`] is extended to one, an address outside of it becomes its start, and
    /// a time before 1970 becomes the start of 1970.
    pub fn to_bytes(&self) -> [u8; RECORD_SIZE] {
        let range = granule(self.range.clone());
        let mut block = Block::new_zeroed();
        block.status = ONE_UNCORRECTABLE.into();
        if self.severity == Severity::Corrected {
            block.status = (1 << 1 | 1 << 4).into();
        }
        block.data_length = ((size_of::<Entry>() + size_of::<Section>()) as u32).into();
        block.error_severity = self.severity.bits().into();

        let entry = &mut block.entry;
        entry.section_type = MEMORY_SECTION;
        entry.error_severity = self.severity.bits().into();
        entry.revision = REVISION.into();
        entry.validation = TEXT_VALID | TIME_VALID;
        entry.error_data_length = (size_of::<Section>() as u32).into();
        entry.fru_text = text(self.serial);
        entry.timestamp = timestamp(self.time);

        let section = &mut block.section;
        section.validation = (ADDRESS_VALID | MASK_VALID | TYPE_VALID).into();
        let address = if range.contains(&self.address) { self.address } else { range.start };
        section.physical_address = address.into();
        section.physical_address_mask = (!(range.end.saturating_sub(1) ^ range.start)).into();
        section.error_type = MULTI_BIT_ECC;
        transmute!(block)
    }

    /// The record in these bytes, if they have the form of [`MemoryErrorRecord::to_bytes`].
    ///
    /// # Errors
    /// [`NotARecord`].
    pub fn from_bytes(bytes: &[u8; RECORD_SIZE]) -> Result<Self, NotARecord> {
        let block: Block = transmute!(*bytes);
        let refuse = |expected, got| Err(NotARecord { expected, got });
        let bits = block.error_severity.get();
        let Some(severity) = Severity::from_bits(bits) else {
            return refuse("severity 0, 1 or 2", bits.into());
        };
        let serial = block
            .entry
            .fru_text
            .strip_prefix(TEXT)
            .and_then(|text| std::str::from_utf8(text).ok()?.trim_end_matches('\0').parse().ok());
        let Some(serial) = serial else {
            return refuse("a text with a serial number", block.entry.fru_text[0].into());
        };
        let Some(time) = time(block.entry.timestamp) else {
            return refuse("a time in BCD", U64::from_bytes(block.entry.timestamp).get());
        };
        let (address, mask) =
            (block.section.physical_address.get(), block.section.physical_address_mask.get());
        let start = address & mask;
        let Some(end) = start.checked_add(!mask).and_then(|last| last.checked_add(1)) else {
            return refuse("an address range below 2^64", address);
        };
        let record = Self { address, range: start..end, severity, time, serial };
        if record.to_bytes() != *bytes {
            return refuse("the fields of a memory error's record", block.status.get().into());
        }
        Ok(record)
    }
}

/// `seawall 7`, for the guest's log.
fn text(serial: u32) -> [u8; 20] {
    let mut text = [0; 20];
    let digits = serial.to_string();
    for (to, from) in text.iter_mut().zip(TEXT.iter().chain(digits.as_bytes())) {
        *to = *from;
    }
    text
}

/// Seconds, minutes, hours, 1 if the time is precise, day, month, year, century, in BCD. UEFI 2.10, N.2.2.
fn timestamp(time: SystemTime) -> [u8; 8] {
    let bcd = |number: u32| (number / 10 % 10 * 16 + number % 10) as u8;
    let time = DateTime::<Utc>::from(time.max(SystemTime::UNIX_EPOCH));
    let year = time.year_ce().1;
    [
        bcd(time.second()),
        bcd(time.minute()),
        bcd(time.hour()),
        1,
        bcd(time.day()),
        bcd(time.month()),
        bcd(year % 100),
        bcd(year / 100),
    ]
}

/// The time of a [`timestamp`].
fn time(bytes: [u8; 8]) -> Option<SystemTime> {
    let mut numbers = [0; 8];
    for (number, byte) in numbers.iter_mut().zip(bytes) {
        if byte >> 4 > 9 || byte & 15 > 9 {
            return None;
        }
        *number = u32::from(byte >> 4) * 10 + u32::from(byte & 15);
    }
    let [second, minute, hour, _, day, month, year, century] = numbers;
    let year = i32::try_from(century * 100 + year).ok()?;
    let date = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second)?;
    Some(date.and_utc().into())
}

#[cfg(test)]
mod tests;
