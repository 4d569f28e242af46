//! Explanations, for people and as JSON. docs/decode.md documents the JSON.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::style::{dim, head};

/// One value, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Explained {
    /// `esr`, `dfsr`, `ifsr`, `spsr`, `kvm_vcpu_events`, `sea-exit` or `hardware-error`.
    pub(super) kind: &'static str,
    /// The register's value, `0x` and lower-case digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// The whole explanation in one line.
    pub(super) text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) fields: Vec<Field>,
    /// For a kvm_vcpu_events: the reading of each ABI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) readings: Vec<Value>,
}

/// A field of a register: name, bits, value, meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Field {
    pub(super) name: String,
    /// `[31:26]`; empty if it is not a field of a register.
    pub(super) bits: String,
    pub(super) value: String,
    pub(super) meaning: String,
}

impl Field {
    pub(super) fn new(name: &str, msb: u8, lsb: u8, value: u64, meaning: impl Into<String>) -> Self {
        let (bits, value) = if msb == lsb {
            (format!("[{msb}]"), format!("{value}"))
        } else {
            (format!("[{msb}:{lsb}]"), format!("{value:#x}"))
        };
        Self { name: name.into(), bits, value, meaning: meaning.into() }
    }

    /// A field without bits of its own.
    pub(super) fn named(name: &str, value: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { name: name.into(), bits: String::new(), value: value.into(), meaning: meaning.into() }
    }
}

/// The text, and a line for each field.
pub(super) fn in_words(one: &Explained) -> String {
    format!("{}\n{}", head(&one.text), table(&one.fields))
}

/// A line for each field, in columns.
pub(super) fn table(fields: &[Field]) -> String {
    let mut text = String::new();
    let width = |pick: fn(&Field) -> &String| {
        fields.iter().map(|field| pick(field).chars().count()).max().unwrap_or(0)
    };
    let (name, bits, value) =
        (width(|field| &field.name), width(|field| &field.bits), width(|field| &field.value));
    for field in fields {
        let mut line = format!("  {:name$}", field.name);
        for (cell, width) in [(&field.bits, bits), (&field.value, value)] {
            if width > 0 {
                let _ = write!(line, "  {cell:width$}");
            }
        }
        if field.meaning.is_empty() {
            let _ = writeln!(text, "{}", line.trim_end());
        } else {
            let _ = writeln!(text, "{line}  {}", dim(&field.meaning));
        }
    }
    text
}
