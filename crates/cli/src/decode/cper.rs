//! Error records, as hexadecimal digits or from a file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use seawall::apei::explain::{Explanation, Form, Part, explain};
use serde::Serialize;

use super::explained::{Field, table};
use super::{Notes, hex};
use crate::style::head;
use crate::{Failure, exit, out};

/// The largest input in bytes: four megabytes of text; no firmware's record is near a megabyte.
const LIMIT: u64 = 4 << 20;
/// The number of a field's hexadecimal digits that are shown to people. JSON has all.
const SHOWN: usize = 64;

#[derive(Serialize)]
struct Record {
    kind: &'static str,
    text: String,
    #[serde(flatten)]
    explanation: Explanation,
}

pub(super) fn main(given: &[String], json: bool, notes: Notes) -> Result<u8, Failure> {
    let bytes = bytes_of(given)?;
    let explanation =
        explain(&bytes).map_err(|malformed| Failure::new(exit::USAGE, malformed.to_string()))?;
    for problem in &explanation.problems {
        notes.say(problem);
    }
    if explanation.unread > 0 {
        notes.say(format!("{} bytes behind the record were not read", explanation.unread));
    }
    let code = if explanation.problems.is_empty() { 0 } else { exit::UNEXPECTED };
    if json {
        super::json(&[Record { kind: "cper", text: text(&explanation), explanation }])?;
    } else {
        out::stdout(&in_words(&explanation))?;
    }
    Ok(code)
}

/// The form of the record, and its errors.
fn text(explanation: &Explanation) -> String {
    let form = match explanation.form {
        Form::StatusBlock => "GHES status block",
        Form::Record => "CPER record",
        Form::Section => "CPER section",
    };
    let errors: Vec<String> = explanation.errors.iter().map(ToString::to_string).collect();
    if errors.is_empty() {
        format!("{form}: no error in it")
    } else {
        format!("{form}: {}", errors.join("; "))
    }
}

fn in_words(explanation: &Explanation) -> String {
    let mut words = format!("{}\n", head(text(explanation)));
    for part in &explanation.parts {
        let Part { name, offset, size, .. } = part;
        let _ = writeln!(words, "\n{} at byte {offset}, {size} bytes", head(name));
        words.push_str(&table(&part.fields.iter().map(row).collect::<Vec<_>>()));
    }
    words
}

fn row(field: &seawall::apei::explain::Field) -> Field {
    let meaning = match (field.valid, field.meaning.as_str()) {
        (Some(false), "") => "not valid".to_owned(),
        (Some(false), meaning) => format!("not valid ({meaning})"),
        (Some(true), "") => "valid".into(),
        (Some(true), meaning) => format!("valid, {meaning}"),
        (None, meaning) => meaning.into(),
    };
    let mut value: String = field.value.chars().take(SHOWN).collect();
    if value.len() < field.value.len() {
        value.push_str("...");
    }
    Field { name: field.name.into(), bits: format!("@{}", field.offset), value, meaning }
}

/// The bytes: of a file with that name, of stdin, or the digits themselves.
fn bytes_of(given: &[String]) -> Result<Vec<u8>, Failure> {
    if let [one] = given {
        let path = Path::new(one);
        if one == "-" || path.is_file() {
            let cannot = |error: io::Error| Failure::new(exit::FILE, format!("cannot read {one}: {error}"));
            let mut bytes = Vec::new();
            let file: Box<dyn Read> = if one == "-" {
                Box::new(io::stdin().lock())
            } else {
                Box::new(File::open(path).map_err(cannot)?)
            };
            file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(cannot)?;
            if bytes.len() as u64 > LIMIT {
                return Err(Failure::new(
                    exit::FILE,
                    format!("{one} is longer than {LIMIT} bytes: no record is"),
                ));
            }
            // A record contains bytes that text does not.
            return match std::str::from_utf8(&bytes) {
                Ok(text) if !text.contains('\0') => {
                    hex::bytes(text).map_err(|reason| Failure::new(exit::FILE, format!("{one}: {reason}")))
                }
                _ => Ok(bytes),
            };
        }
    }
    hex::bytes(&given.join("\n"))
        .map_err(|reason| Failure::new(exit::USAGE, format!("{reason}; there is no file of that name")))
}
