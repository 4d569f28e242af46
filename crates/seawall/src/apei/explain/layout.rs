//! Fields at fixed offsets, and their validation bits.

use std::fmt::Write as _;

use super::names;

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Field {
    /// Its name; for fields that Linux prints, Linux's name.
    pub name: &'static str,
    /// Offset in bytes from the start of the input.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// The value: hexadecimal with `0x`, decimal, a GUID, a text, a time, or bytes as bare hexadecimal digits.
    pub value: String,
    /// The validation bit of the field; `None` if the structure has none for it.
    pub valid: Option<bool>,
    /// The value in words; empty if the value is clear enough.
    pub meaning: String,
}

/// A structure, or a named part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Part {
    /// The name, such as `data entry 0`.
    pub name: String,
    /// Offset in bytes from the start of the input.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// The fields in memory order.
    pub fields: Vec<Field>,
}

impl Part {
    /// The field with this name, unless its validation bit marks it as not valid.
    pub fn valid(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name && field.valid != Some(false))
    }
}

/// A value in words.
pub(super) type Meaning = fn(u64) -> String;

/// The format of a field's value.
#[derive(Clone, Copy)]
enum Show {
    Hex(Meaning),
    Decimal(Meaning),
    Guid(fn(&[u8; 16]) -> Option<&'static str>),
    Text,
    Time,
    Bytes,
}

/// The place of a field in its structure, and its format.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    name: &'static str,
    at: usize,
    size: usize,
    /// The field's bit in the structure's validation bits.
    bit: Option<u32>,
    show: Show,
}

fn silent(_: u64) -> String {
    String::new()
}

const fn spec(name: &'static str, at: usize, size: usize, show: Show) -> Spec {
    Spec { name, at, size, bit: None, show }
}

pub(super) const fn hex(name: &'static str, at: usize, size: usize) -> Spec {
    spec(name, at, size, Show::Hex(silent))
}

pub(super) const fn decimal(name: &'static str, at: usize, size: usize) -> Spec {
    spec(name, at, size, Show::Decimal(silent))
}

pub(super) const fn guid(
    name: &'static str,
    at: usize,
    names: fn(&[u8; 16]) -> Option<&'static str>,
) -> Spec {
    spec(name, at, 16, Show::Guid(names))
}

/// Text that ends at a zero byte, or at the end of the field.
pub(super) const fn text(name: &'static str, at: usize, size: usize) -> Spec {
    spec(name, at, size, Show::Text)
}

/// UEFI 2.10, table N.2: seconds, minutes, hours, precise, day, month, year, century, in BCD.
pub(super) const fn time(name: &'static str, at: usize) -> Spec {
    spec(name, at, 8, Show::Time)
}

pub(super) const fn bytes(name: &'static str, at: usize, size: usize) -> Spec {
    spec(name, at, size, Show::Bytes)
}

impl Spec {
    /// The field is valid if this validation bit is set.
    pub(super) const fn valid(mut self, bit: u32) -> Self {
        self.bit = Some(bit);
        self
    }

    /// The field's number in words.
    pub(super) const fn means(mut self, meaning: Meaning) -> Self {
        self.show = match self.show {
            Show::Hex(_) => Show::Hex(meaning),
            Show::Decimal(_) => Show::Decimal(meaning),
            other => other,
        };
        self
    }

    /// The field in `structure`, which begins at `base`; `None` if it ends past the structure.
    pub(super) fn read(&self, structure: &[u8], base: usize, validation: u64) -> Option<Field> {
        let raw = structure.get(self.at..self.at.checked_add(self.size)?)?;
        let (value, meaning) = match self.show {
            Show::Hex(meaning) => (format!("{:#x}", little_endian(raw)), meaning(little_endian(raw))),
            Show::Decimal(meaning) => (little_endian(raw).to_string(), meaning(little_endian(raw))),
            Show::Guid(names) => {
                let raw = <&[u8; 16]>::try_from(raw).ok()?;
                (guid_text(raw), names(raw).unwrap_or_default().to_owned())
            }
            Show::Text => (printable(raw), String::new()),
            Show::Time => time_text(raw),
            Show::Bytes => (digits(raw), String::new()),
        };
        let valid = self.bit.map(|bit| validation >> bit & 1 == 1);
        Some(Field { name: self.name, offset: base + self.at, size: self.size, value, valid, meaning })
    }
}

/// The fields of a structure that begins at `base`, as far as its bytes reach.
pub(super) fn fields(specs: &[Spec], structure: &[u8], base: usize, validation: u64) -> Vec<Field> {
    specs.iter().filter_map(|spec| spec.read(structure, base, validation)).collect()
}

/// A little-endian number of at most 8 bytes at `at`.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    Some(little_endian(bytes.get(at..at.checked_add(size)?)?))
}

fn little_endian(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Bytes in hexadecimal without separators.
fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `a5bc1114-6f64-4ede-b863-3e83ed7c83b1`.
pub(super) fn guid_text(raw: &[u8; 16]) -> String {
    let mut text = digits(&names::swapped(*raw));
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// The text up to the first zero byte, with terminal control characters escaped.
fn printable(raw: &[u8]) -> String {
    let raw = raw.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(raw)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// `2026-11-21 13:14:15`, with its precision.
fn time_text(raw: &[u8]) -> (String, String) {
    let is_bcd = |byte: &u8| byte >> 4 <= 9 && byte & 15 <= 9;
    let &[second, minute, hour, flags, day, month, year, century] = raw else {
        return (String::new(), String::new());
    };
    if ![second, minute, hour, day, month, year, century].iter().all(is_bcd) {
        return (format!("{:#x}", little_endian(raw)), "not a time in BCD".into());
    }
    // The hexadecimal digits of BCD are its decimal digits.
    let text = format!("{century:02x}{year:02x}-{month:02x}-{day:02x} {hour:02x}:{minute:02x}:{second:02x}");
    (text, if flags & 1 == 1 { "precise" } else { "imprecise" }.into())
}
