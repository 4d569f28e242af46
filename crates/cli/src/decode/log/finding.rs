//! A finding of a log: its place and its explanation.

use std::fmt::Write as _;

use seawall::apei::explain::ReportedError;
use serde::Serialize;

use super::line::Line;
use crate::decode::explained::{Explained, Field, table};
use crate::style::{dim, head};

/// The number of a line's characters that are shown to people. JSON has all examined ones.
const SHOWN: usize = 200;

/// An explained part of a log. docs/decode.md documents the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    #[serde(flatten)]
    pub(super) place: Place,
    #[serde(flatten)]
    pub(super) explained: Explained,
}

/// The place of a finding, and its rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: u64,
    /// The last line of the finding; `line` if it is one line.
    pub(super) last_line: u64,
    /// The name of the rule.
    pub(super) found_as: &'static str,
    /// The line; for several, the first.
    pub(super) source: String,
    /// True if the line was longer than the examined part.
    pub(super) cut: bool,
}

impl Place {
    pub(super) fn new(line: &Line, found_as: &'static str) -> Self {
        let source = String::from_utf8_lossy(line.bytes).into_owned();
        Self { line: line.number, last_line: line.number, found_as, source, cut: line.is_cut }
    }
}

impl Finding {
    pub(super) fn hardware_error(place: Place, error: &ReportedError, fields: Vec<Field>) -> Self {
        let text = error.to_string();
        let explained = Explained { kind: "hardware-error", value: None, text, fields, readings: Vec::new() };
        Self { place, explained }
    }

    /// The line, with its meaning below.
    pub(super) fn in_words(&self, with_fields: bool) -> String {
        let Place { line, last_line, source, .. } = &self.place;
        let lines = if line == last_line { line.to_string() } else { format!("{line}-{last_line}") };
        let mut text = format!("{lines}: {}\n", dim(printable(source)));
        let register = match self.explained.kind {
            "esr" => "ESR ",
            _ => "",
        };
        let _ = writeln!(text, "  {}", head(format!("{register}{}", self.explained.text)));
        if with_fields {
            text.push_str(&table(&self.explained.fields));
        }
        text
    }
}

/// A line that is safe for a terminal: no control characters, at most [`SHOWN`] characters.
fn printable(source: &str) -> String {
    let mut text = String::new();
    for c in source.trim().chars().take(SHOWN) {
        match c {
            '\t' => text.push(' '),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    if source.trim().chars().nth(SHOWN).is_some() {
        text.push_str(" ...");
    }
    text
}
