//! A summary of one error in a record.

use std::fmt;
use std::ops::Range;

use super::Part;

/// One of the errors that the bytes report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ReportedError {
    /// The kind of its section, such as `memory error`.
    pub section: String,
    /// The severity in words; `None` for a section alone.
    pub severity: Option<String>,
    /// The physical address, if it is valid.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hex"))]
    pub address: Option<u64>,
    /// The significant bits of the address, if the field is valid.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hex"))]
    pub mask: Option<u64>,
    /// The kind of error, in words.
    pub error_type: Option<String>,
    /// The text of the field-replaceable unit.
    pub unit: Option<String>,
    /// The time of the error in the record's form.
    pub time: Option<String>,
}

/// A string such as `"0x40210000"`: numbers in JSON lose bits past 2^53.
#[cfg(feature = "serde")]
#[allow(clippy::ref_option, reason = "serde gives a reference to the field")]
fn hex<S: serde::Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serializer.collect_str(&format_args!("{number:#x}")),
        None => serializer.serialize_none(),
    }
}

impl ReportedError {
    /// The bad addresses: all that agree with `address` in the bits of `mask`; `None` without an address, or
    /// if the mask is not a granule.
    pub fn range(&self) -> Option<Range<u64>> {
        let size_less_one = !self.mask?;
        let is_granule = size_less_one & size_less_one.wrapping_add(1) == 0;
        let start = self.address? & !size_less_one;
        let end = start.checked_add(size_less_one)?.checked_add(1)?;
        is_granule.then_some(start..end)
    }
}

/// `memory error, recoverable: 0x40210000..0x40211000, multi-bit ECC, ...`.
impl fmt::Display for ReportedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.section)?;
        if let Some(severity) = &self.severity {
            write!(f, ", {severity}")?;
        }
        let place = match (self.range(), self.address, self.mask) {
            (Some(range), ..) => Some(format!("{:#x}..{:#x}", range.start, range.end)),
            (None, Some(address), Some(mask)) => Some(format!("{address:#x} (mask {mask:#x})")),
            (None, Some(address), None) => Some(format!("{address:#x}")),
            (None, None, _) => None,
        };
        let unit = self.unit.as_ref().map(|unit| format!("unit `{unit}`"));
        let mut separator = ": ";
        for word in [place, self.error_type.clone(), unit, self.time.clone()].into_iter().flatten() {
            write!(f, "{separator}{word}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// The severity, unit and time of a data entry or a section descriptor.
pub(super) fn reported(part: &Part) -> ReportedError {
    ReportedError {
        severity: part.valid("error_severity").map(|field| field.meaning.clone()),
        unit: part.valid("fru_text").map(|field| field.value.clone()),
        time: part.valid("timestamp").map(|field| field.value.clone()),
        ..ReportedError::default()
    }
}

/// The number in a hexadecimal field, if it is valid.
pub(super) fn value(part: &Part, name: &str) -> Option<u64> {
    u64::from_str_radix(part.valid(name)?.value.strip_prefix("0x")?, 16).ok()
}
