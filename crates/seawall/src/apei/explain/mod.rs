//! Error records of any writer, field by field: a Generic Error Status Block as the guest finds it, a CPER
//! record as stored over a reset, or a section of either.
//!
//! [`explain`] takes any bytes. It checks each length before it uses it, and reads as far as the bytes reach:
//! a truncated record is explained up to the cut, with the [`Malformed`] place behind it.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use seawall::apei::cper::{MemoryErrorRecord, Severity};
//! use seawall::apei::explain::{Form, explain};
//!
//! let record = MemoryErrorRecord {
//!     address: 0x4021_0000,
//!     range: 0x4021_0000..0x4021_1000,
//!     severity: Severity::Recoverable,
//!     time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_266_855),
//!     serial: 7,
//! };
//! let explanation = explain(&record.to_bytes())?;
//! assert_eq!(explanation.form, Form::StatusBlock);
//! assert_eq!(
//!     explanation.errors[0].to_string(),
//!     "memory error, recoverable: 0x40210000..0x40211000, multi-bit ECC, unit `seawall 7`, 2026-11-21 13:14:15"
//! );
//! # Ok::<(), seawall::apei::explain::Malformed>(())
//! ```
//!
//! Source: ACPI 6.5, 18.3.2.7; UEFI 2.10, appendix N.

use std::ops::Range;

use thiserror::Error;

mod layout;
mod memory;
mod names;
mod processor;
mod reported;

pub use layout::{Field, Part};
use layout::{Spec, bytes, decimal, fields, guid, hex, number, text, time};
pub use names::{error_status, memory_error_type, severity};
pub use reported::ReportedError;
use reported::{reported, value};

/// Bytes of a status block before its first data entry.
const BLOCK_HEADER: usize = 20;
/// Bytes of a data entry before its section: from revision 3.0 on, and in earlier revisions.
const ENTRY_HEADER: usize = 72;
const OLD_ENTRY_HEADER: usize = 64;
/// Bytes of a record before its section descriptors.
const RECORD_HEADER: usize = 128;
/// Bytes of a section descriptor.
const DESCRIPTOR: usize = 72;

/// The kind of structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Form {
    /// A Generic Error Status Block.
    StatusBlock,
    /// A record, which begins with `CPER`.
    Record,
    /// A section alone; its size tells its kind.
    Section,
}

/// Bytes that contradict their structure.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[error("at byte {offset}: expected {expected}, got {got}")]
pub struct Malformed {
    /// Offset in bytes from the start.
    pub offset: usize,
    /// The structure or value that was expected there.
    pub expected: String,
    /// The bytes or value found.
    pub got: String,
}

impl Malformed {
    fn short(offset: usize, expected: String, got: usize) -> Self {
        Self { offset, expected, got: format!("{got}") }
    }
}

/// The explanation of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Explanation {
    /// The kind of structure.
    pub form: Form,
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// The errors that it reports.
    pub errors: Vec<ReportedError>,
    /// The places where the bytes contradict themselves.
    pub problems: Vec<Malformed>,
    /// The number of bytes behind the structure, which were not read.
    pub unread: usize,
}

/// Explains a status block, a record or a section.
///
/// # Errors
/// [`Malformed`] if the bytes are none of these.
pub fn explain(bytes: &[u8]) -> Result<Explanation, Malformed> {
    let mut reader = Reader {
        bytes,
        explanation: Explanation {
            form: Form::Section,
            parts: Vec::new(),
            errors: Vec::new(),
            problems: Vec::new(),
            unread: 0,
        },
    };
    let end = if bytes.starts_with(b"CPER") {
        reader.record()
    } else if is_status_block(bytes) {
        reader.status_block()
    } else if let Some(kind) = section_by_size(bytes) {
        let error = ReportedError { section: name_of(&kind), ..ReportedError::default() };
        reader.section(&kind, 0..bytes.len(), error);
        bytes.len()
    } else {
        return Err(Malformed {
            offset: 0,
            expected:
                "a record (it begins with CPER), a status block (20 bytes, data entries behind them), or a \
                       section alone: a memory error of 73, 80 or 96 bytes, or an Arm processor error"
                    .into(),
            got: format!("{} bytes that are none of these", bytes.len()),
        });
    };
    reader.explanation.unread = bytes.len().saturating_sub(end);
    Ok(reader.explanation)
}

/// Returns true if the bytes begin like a status block: reserved bits clear, a known severity, data that is
/// long enough.
fn is_status_block(bytes: &[u8]) -> bool {
    let fits = |at, size, fits: fn(u64) -> bool| number(bytes, at, size).is_some_and(fits);
    bytes.len() >= BLOCK_HEADER
        && fits(0, 4, |status| status >> 14 == 0)
        && fits(12, 4, |length| length == 0 || length >= OLD_ENTRY_HEADER as u64)
        && fits(16, 4, |severity| severity <= 3)
        // A section that begins with zeroes looks like an empty block.
        && (fits(12, 4, |length| length > 0) || section_by_size(bytes).is_none())
}

/// The kind of a section that stands alone.
fn section_by_size(bytes: &[u8]) -> Option<[u8; 16]> {
    let says = number(bytes, 8, 4)?;
    let information = number(bytes, 4, 2)?;
    let least = processor::HEADER as u64 + information * processor::INFORMATION as u64;
    match bytes.len() {
        len if information > 0 && says == len as u64 && says >= least => Some(names::ARM_PROCESSOR),
        memory::SIZE | memory::OLD_SIZE => Some(names::MEMORY),
        memory::SIZE_2 => Some(names::MEMORY_2),
        _ => None,
    }
}

fn name_of(kind: &[u8; 16]) -> String {
    names::section_type(kind).map_or_else(|| format!("section {}", layout::guid_text(kind)), str::to_owned)
}

const BLOCK: &[Spec] = &[
    hex("block_status", 0, 4).means(names::block_status),
    decimal("raw_data_offset", 4, 4),
    decimal("raw_data_length", 8, 4),
    decimal("data_length", 12, 4),
    decimal("error_severity", 16, 4).means(severity),
];

const ENTRY: &[Spec] = &[
    guid("section_type", 0, names::section_type),
    decimal("error_severity", 16, 4).means(severity),
    hex("revision", 20, 2),
    hex("validation_bits", 22, 1),
    hex("flags", 23, 1).means(names::section_flags),
    decimal("error_data_length", 24, 4),
    guid("fru_id", 28, names::unnamed).valid(0),
    text("fru_text", 44, 20).valid(1),
];

/// The time, which data entries have from revision 3.0 on.
const ENTRY_TIME: &[Spec] = &[time("timestamp", 64).valid(2)];

const RECORD: &[Spec] = &[
    text("signature", 0, 4),
    hex("revision", 4, 2),
    hex("signature_end", 6, 4),
    decimal("section_count", 10, 2),
    decimal("error_severity", 12, 4).means(severity),
    hex("validation_bits", 16, 4),
    decimal("record_length", 20, 4),
    time("timestamp", 24).valid(1),
    guid("platform_id", 32, names::unnamed).valid(0),
    guid("partition_id", 48, names::unnamed).valid(2),
    guid("creator_id", 64, names::unnamed),
    guid("notification_type", 80, names::notification_type),
    hex("record_id", 96, 8),
    hex("flags", 104, 4).means(names::record_flags),
    hex("persistence_information", 108, 8),
];

const SECTION_DESCRIPTOR: &[Spec] = &[
    decimal("section_offset", 0, 4),
    decimal("section_length", 4, 4),
    hex("revision", 8, 2),
    hex("validation_bits", 10, 1),
    hex("flags", 12, 4).means(names::section_flags),
    guid("section_type", 16, names::section_type),
    guid("fru_id", 32, names::unnamed).valid(0),
    decimal("error_severity", 48, 4).means(severity),
    text("fru_text", 52, 20).valid(1),
];

struct Reader<'a> {
    bytes: &'a [u8],
    explanation: Explanation,
}

impl Reader<'_> {
    fn number(&self, at: usize, size: usize) -> usize {
        number(self.bytes, at, size).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }

    fn guid(&self, at: usize) -> [u8; 16] {
        let raw = at.checked_add(16).and_then(|end| self.bytes.get(at..end));
        raw.and_then(|raw| raw.try_into().ok()).unwrap_or_default()
    }

    /// Adds a part with the fields that are present.
    fn part(
        &mut self,
        name: impl Into<String>,
        range: Range<usize>,
        specs: &[&[Spec]],
        validation: usize,
    ) -> &Part {
        let end = range.end.min(self.bytes.len());
        let structure = self.bytes.get(range.start..end).unwrap_or_default();
        let fields = specs.iter().flat_map(|specs| fields(specs, structure, range.start, validation as u64));
        let part =
            Part { name: name.into(), offset: range.start, size: structure.len(), fields: fields.collect() };
        let at = self.explanation.parts.len();
        self.explanation.parts.push(part);
        &self.explanation.parts[at]
    }

    /// The end of `len` bytes at `at`. If there are fewer, this adds a problem and returns the end of the
    /// bytes.
    fn end(&mut self, at: usize, len: usize, of: &str) -> usize {
        let there = self.bytes.len().saturating_sub(at);
        if there < len {
            let expected = format!("{len} bytes of {of}");
            self.explanation.problems.push(Malformed::short(at, expected, there));
        }
        at + len.min(there)
    }

    /// Returns the end of the block.
    fn status_block(&mut self) -> usize {
        self.explanation.form = Form::StatusBlock;
        self.part("status block", 0..BLOCK_HEADER, &[BLOCK], 0);
        let (raw_at, raw_len) = (self.number(4, 4), self.number(8, 4));
        let end = self.end(BLOCK_HEADER, self.number(12, 4), "data entries");
        let mut at = BLOCK_HEADER;
        let mut entries = 0;
        while at < end {
            at = self.entry(at, end, entries);
            entries += 1;
        }
        let says = self.number(0, 4) >> 4 & 0x3ff;
        if says != entries {
            self.explanation.problems.push(Malformed {
                offset: 0,
                expected: format!("{says} data entries, as block_status says"),
                got: format!("{entries}"),
            });
        }
        if raw_len == 0 {
            return end;
        }
        let raw_at = raw_at.min(self.bytes.len());
        let raw_end = self.end(raw_at, raw_len, "raw data");
        let raw = bytes("bytes", 0, raw_end.saturating_sub(raw_at));
        self.part("raw data", raw_at..raw_end, &[&[raw]], 0);
        end.max(raw_end)
    }

    /// Reads a data entry and its section; returns their end.
    fn entry(&mut self, at: usize, block_end: usize, n: usize) -> usize {
        let is_timed = self.number(at + 20, 2) >> 8 >= 3;
        let header = if is_timed { ENTRY_HEADER } else { OLD_ENTRY_HEADER };
        let body = at + header;
        if body > block_end {
            let expected = format!("{header} bytes of data entry {n}");
            self.explanation.problems.push(Malformed::short(at, expected, block_end - at));
        }
        let name = format!("data entry {n}");
        let specs: &[&[Spec]] = if is_timed { &[ENTRY, ENTRY_TIME] } else { &[ENTRY] };
        let error = reported(self.part(name, at..body.min(block_end), specs, self.number(at + 22, 1)));
        if body > block_end {
            return block_end;
        }
        let len = self.number(at + 24, 4);
        if len > block_end - body {
            let expected = format!("{len} bytes in the section of data entry {n}");
            self.explanation.problems.push(Malformed::short(body, expected, block_end - body));
        }
        let end = body + len.min(block_end - body);
        let kind = self.guid(at);
        self.section(&kind, body..end, ReportedError { section: name_of(&kind), ..error });
        end
    }

    /// Returns the end of the record.
    fn record(&mut self) -> usize {
        self.explanation.form = Form::Record;
        let header = self.end(0, RECORD_HEADER, "a record's header");
        self.part("record", 0..header, &[RECORD], self.number(16, 4));
        if header < RECORD_HEADER {
            return header;
        }
        let signature_end = self.number(6, 4);
        if signature_end != 0xffff_ffff {
            self.explanation.problems.push(Malformed {
                offset: 6,
                expected: "0xffffffff behind the signature".into(),
                got: format!("{signature_end:#x}"),
            });
        }
        let end = self.end(0, self.number(20, 4), "the record");
        // Overlapping sections could make a long explanation of a short record.
        let mut left = self.bytes.len();
        for n in 0..self.number(10, 2) {
            let at = RECORD_HEADER + n * DESCRIPTOR;
            if self.end(at, DESCRIPTOR, &format!("section descriptor {n}")) < at + DESCRIPTOR {
                break;
            }
            let name = format!("section descriptor {n}");
            let validation = self.number(at + 10, 1);
            let error = reported(self.part(name, at..at + DESCRIPTOR, &[SECTION_DESCRIPTOR], validation));
            let kind = self.guid(at + 16);
            let (start, len) = (self.number(at, 4).min(self.bytes.len()), self.number(at + 4, 4));
            let section_end = self.end(start, len, &format!("section {n}"));
            if section_end - start > left {
                self.explanation.problems.push(Malformed {
                    offset: at,
                    expected: "sections that do not overlap".into(),
                    got: format!("more than the record's {} bytes", self.bytes.len()),
                });
                break;
            }
            left -= section_end - start;
            self.section(&kind, start..section_end, ReportedError { section: name_of(&kind), ..error });
        }
        end
    }

    /// Reads a section of this kind; `error` holds what is known of it so far.
    fn section(&mut self, kind: &[u8; 16], range: Range<usize>, mut error: ReportedError) {
        let section = self.bytes.get(range.clone()).unwrap_or_default();
        let base = range.start;
        let memory = |least: usize| {
            let short = section.len() < least;
            short.then(|| Malformed::short(base, format!("{least} bytes of a memory error"), section.len()))
        };
        let (fields, problem) = match *kind {
            names::MEMORY => (memory::section(section, base), memory(memory::OLD_SIZE)),
            names::MEMORY_2 => (memory::section_2(section, base), memory(memory::SIZE_2)),
            names::ARM_PROCESSOR => {
                let (parts, problem) = processor::section(section, base);
                error.address = parts.iter().find_map(|part| value(part, "physical_fault_address"));
                error.error_type =
                    parts.iter().find_map(|part| Some(part.valid("error_type")?.meaning.clone()));
                self.explanation.parts.extend(parts);
                self.explanation.problems.extend(problem);
                self.explanation.errors.push(error);
                return;
            }
            _ => (fields(&[bytes("bytes", 0, section.len())], section, base, 0), None),
        };
        let part = Part { name: error.section.clone(), offset: base, size: section.len(), fields };
        if matches!(*kind, names::MEMORY | names::MEMORY_2) {
            error.address = value(&part, "physical_address");
            error.mask = value(&part, "physical_address_mask");
            error.error_type = part.valid("error_type").map(|field| field.meaning.clone());
        }
        self.explanation.parts.push(part);
        self.explanation.problems.extend(problem);
        self.explanation.errors.push(error);
    }
}

#[cfg(test)]
mod tests;
