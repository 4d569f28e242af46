//! An error of a record, in short.

use std::fmt;
use std::ops::Range;

use super::Part;

/// One error of those that the bytes report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ReportedError {
    /// The kind of its section, such as `memory error`.
    pub section: String,
    /// How bad it is, in words; `None` for a section alone.
    pub severity: Option<String>,
    /// The physical address, if it is valid.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hex"))]
    pub address: Option<u64>,
    /// The bits of the address that count, if that is valid.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hex"))]
    pub mask: Option<u64>,
    /// The kind of error, in words.
    pub error_type: Option<String>,
    /// The text of the field-replaceable unit.
    pub unit: Option<String>,
    /// When it was found, as the record says it.
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
    /// The bad addresses: all that agree with `address` in the bits of `mask`; `None` without an address, and if the
    /// mask is no granule.
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

/// The severity, unit and time that a data entry or a section descriptor gives.
pub(super) fn reported(part: &Part) -> ReportedError {
    ReportedError {
        severity: part.valid("error_severity").map(|field| field.meaning.clone()),
        unit: part.valid("fru_text").map(|field| field.value.clone()),
        time: part.valid("timestamp").map(|field| field.value.clone()),
        ..ReportedError::default()
    }
}

/// The number of a field that is shown in hexadecimal, if it is valid.
pub(super) fn value(part: &Part, name: &str) -> Option<u64> {
    u64::from_str_radix(part.valid(name)?.value.strip_prefix("0x")?, 16).ok()
}
