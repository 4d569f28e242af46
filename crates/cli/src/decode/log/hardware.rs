//! Records of hardware errors in Linux's format: `{1}[Hardware Error]: ...`, one field on each line.

use std::sync::LazyLock;

use regex::bytes::Regex;
use seawall::apei::explain::{ReportedError, error_status, memory_error_type};

use super::finding::{Finding, Place};
use super::line::Line;
use super::rules::regex;
use crate::decode::explained::Field;

/// The number of records that several CPUs may print at the same time.
const OPEN: usize = 8;
/// The number of foreign lines after which a record counts as complete.
const PATIENCE: u32 = 8;
/// The number of an error's fields that are kept.
const FIELDS: usize = 64;

static LINE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?:\{(?P<key>[0-9]{1,18})\})?\[Hardware Error\]:(?P<rest>.*)$"));

/// `node:0 card:1`: the place of a memory section.
static PAIR: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b(?P<k>[a-z_]+): ?(?P<v>0x[0-9a-f]{1,16}|[0-9]{1,10})\b"));

/// Linux's names for a place, which `--cper` uses too.
const PLACE: [&str; 16] = [
    "node",
    "card",
    "module",
    "rank",
    "bank",
    "bank_group",
    "bank_address",
    "device",
    "row",
    "column",
    "bit_position",
    "requestor_id",
    "responder_id",
    "target_id",
    "chip_id",
    "bit_pos",
];

/// Fields with a line of their own: Linux's name, and the name in `--cper`.
const FIELD: &[(&str, &str)] = &[
    ("fru_id", "fru_id"),
    ("fru_text", "fru_text"),
    ("error_status", "error_status"),
    ("physical_address", "physical_address"),
    ("physical_address_mask", "physical_address_mask"),
    ("error_type", "error_type"),
    ("MIDR", "midr"),
    ("Multiprocessor Affinity Register (MPIDR)", "mpidr"),
    ("error affinity level", "error_affinity_level"),
    ("running state", "running_state"),
    ("Power State Coordination Interface state", "psci_state"),
    ("error_info", "error_info"),
    ("virtual fault address", "virtual_fault_address"),
    ("physical fault address", "physical_fault_address"),
];

/// The records that are being printed.
#[derive(Default)]
pub(super) struct Records {
    open: Vec<Record>,
}

struct Record {
    /// The number in braces; kernels without one print one record at a time.
    key: Option<u64>,
    /// The number of foreign lines since the last line of this record.
    idle: u32,
    severity: Option<String>,
    /// The time, which precedes its error.
    time: Option<String>,
    error: Option<(Place, ReportedError, Vec<Field>)>,
}

impl Records {
    /// Takes a line, if it belongs to a record. Returns the errors that are complete.
    pub(super) fn take(&mut self, line: &Line) -> Vec<Finding> {
        let Some(captures) = LINE.captures(line.bytes) else { return self.forget() };
        let text =
            |name| captures.name(name).map(|part| String::from_utf8_lossy(part.as_bytes()).into_owned());
        let key = text("key").and_then(|key| key.parse().ok());
        let rest = text("rest").unwrap_or_default();
        let mut over = Vec::new();
        let (name, value) = rest.trim().split_once(": ").unwrap_or((rest.trim(), ""));
        let known = self.open.iter().position(|record| record.key == key);
        let is_header = name.starts_with("Hardware error from APEI");
        let begins = is_header || name == "event severity" && known.is_some_and(|n| self.has_severity(n));
        let at = match known {
            Some(at) if !begins => at,
            _ => {
                if let Some(at) = known {
                    over.extend(self.open.swap_remove(at).end());
                }
                if self.open.len() >= OPEN {
                    over.extend(self.open.swap_remove(0).end());
                }
                self.open.push(Record { key, idle: 0, severity: None, time: None, error: None });
                self.open.len() - 1
            }
        };
        if let Some(record) = self.open.get_mut(at) {
            over.extend(record.take(line, name, value));
        }
        over
    }

    fn has_severity(&self, at: usize) -> bool {
        self.open.get(at).is_some_and(|record| record.severity.is_some())
    }

    /// Notes a foreign line: closes the records without a line for long.
    fn forget(&mut self) -> Vec<Finding> {
        for record in &mut self.open {
            record.idle += 1;
        }
        let is_over = |record: &Record| record.idle > PATIENCE;
        let (over, open): (Vec<Record>, Vec<Record>) =
            std::mem::take(&mut self.open).into_iter().partition(is_over);
        self.open = open;
        over.into_iter().filter_map(Record::end).collect()
    }

    /// Returns all open records, at the end of the log.
    pub(super) fn end(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.open).into_iter().filter_map(Record::end).collect()
    }
}

impl Record {
    fn take(&mut self, line: &Line, name: &str, value: &str) -> Option<Finding> {
        self.idle = 0;
        match name {
            "event severity" => self.severity = Some(value.to_owned()),
            "precise tstamp" | "imprecise tstamp" => self.time = Some(shortened(value)),
            _ if name.starts_with("Error ") && name.ends_with(", type") => {
                let before = self.over();
                let severity = Some(shortened(value));
                let error = ReportedError { severity, time: self.time.take(), ..ReportedError::default() };
                self.error = Some((Place::new(line, "ghes"), error, Vec::new()));
                return before;
            }
            _ => self.field(line, name, value),
        }
        None
    }

    fn field(&mut self, line: &Line, name: &str, value: &str) {
        let Some((place, error, fields)) = &mut self.error else { return };
        place.last_line = line.number;
        if matches!(name, "section_type" | "section type") {
            // Linux writes ARM; the rest has the same names as here.
            error.section = shortened(value).replace("ARM processor", "Arm processor");
            return;
        }
        let mut put = |name: &str, value: String, meaning: String| {
            if fields.len() < FIELDS {
                fields.push(Field::named(name, value, meaning));
            }
        };
        let Some((_, name)) = FIELD.iter().find(|(theirs, _)| *theirs == name) else {
            for (name, number) in places(&format!("{name}: {value}")) {
                put(&name, number, String::new());
            }
            return;
        };
        if matches!(*name, "fru_id" | "fru_text") {
            put(name, shortened(value), String::new());
            if *name == "fru_text" {
                error.unit = Some(shortened(value));
            }
            return;
        }
        let Some((number, shown, words)) = number(value) else { return };
        let is_memory = error.section.starts_with("memory error");
        let meaning = match *name {
            "error_status" => error_status(number),
            "error_type" if is_memory => memory_error_type(number),
            _ => words,
        };
        match *name {
            "physical_address" | "physical_fault_address" => error.address = Some(number),
            "physical_address_mask" => error.mask = Some(number),
            "error_type" if error.error_type.is_none() => error.error_type = Some(meaning.clone()),
            _ => {}
        }
        put(name, shown, meaning);
    }

    /// The complete error.
    fn over(&mut self) -> Option<Finding> {
        let (place, mut error, fields) = self.error.take()?;
        if error.section.is_empty() {
            error.section = "hardware error".into();
        }
        Some(Finding::hardware_error(place, &error, fields))
    }

    fn end(mut self) -> Option<Finding> {
        self.over()
    }
}

/// The pairs of a memory error's place, with the names of `--cper`.
pub(super) fn places(text: &str) -> Vec<(String, String)> {
    let pairs = PAIR.captures_iter(text.as_bytes()).filter_map(|captures| {
        let part = |name| captures.name(name).and_then(|part| std::str::from_utf8(part.as_bytes()).ok());
        let name = *PLACE.iter().find(|known| Some(**known) == part("k"))?;
        let (_, shown, _) = number(part("v")?)?;
        Some((if name == "bit_pos" { "bit_position" } else { name }.to_owned(), shown))
    });
    pairs.collect()
}

/// The number at the beginning of a text or in its last parentheses, in its original form, and the words
/// after it: `3, multi-bit ECC`, `0x02: cache error`, `Storage error in DRAM memory (0x0000000000000400)`.
fn number(text: &str) -> Option<(u64, String, String)> {
    let text = text.trim();
    let digits = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let words = text.strip_prefix(digits).unwrap_or_default().trim_start_matches([',', ':', ' ']);
    if let Some(hex) = digits.strip_prefix("0x") {
        let number = u64::from_str_radix(hex, 16).ok()?;
        return Some((number, format!("{number:#x}"), shortened(words)));
    }
    if let Ok(number) = digits.parse() {
        return Some((number, number.to_string(), shortened(words)));
    }
    let (_, inner) = text.rsplit_once("(0x")?;
    let number = u64::from_str_radix(inner.trim_end_matches(')'), 16).ok()?;
    Some((number, format!("{number:#x}"), String::new()))
}

/// The kept part of a text from a log: 80 characters.
pub(super) fn shortened(text: &str) -> String {
    text.trim().chars().take(80).collect()
}
