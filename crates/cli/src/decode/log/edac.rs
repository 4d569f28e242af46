//! Memory errors on one line: `mc_event` and `arm_event` of rasdaemon and of the kernel's tracing, and EDAC's
//! own lines in the kernel's log.

use std::sync::LazyLock;

use regex::bytes::Regex;
use seawall::apei::explain::{ReportedError, error_status};

use super::finding::{Finding, Place};
use super::hardware::{places, shortened};
use super::line::Line;
use super::rules::{hexadecimal, regex};
use crate::decode::explained::Field;

/// `mc_event: ... 1 Uncorrected error: multi-bit ECC on unknown memory (address: 0x... APEI location: ...)`, or
/// `EDAC MC0: 1 UE multi-bit ECC on unknown memory (page:0x40210 offset:0x0 ...)`.
static MEMORY: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?:\bmc_event\b(?P<before>.*?) ?|\bEDAC MC[0-9]+: )(?P<count>[0-9]+) (?P<severity>corrected|uncorrected|deferred|fatal|info|CE|UE|DE|FE)(?: error(?:s|\(s\))?:)? ?(?P<type>.*?) on (?P<label>.*?) ?\((?P<detail>.*)\)",
    )
});

/// A field of the detail.
static DETAIL: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"\b(?P<k>address|grain|page|offset|status)[:(] ?(?:0x(?P<v>[0-9a-f]{1,16})|(?P<d>[0-9]{1,18}))\b")
});

/// `arm_event: ... affinity: 0 MPIDR: 0x81080000 MIDR: 0x481fd010 running_state: 1 psci_state: 0`.
static ARM: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"\b(?P<k>affinity(?: level)?|MPIDR|MIDR|running.state|psci.state): ?(?P<v>0x[0-9a-f]{1,16}|[0-9]{1,10})\b",
    )
});

static TIME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(?: [+-][0-9]{4})?"));

/// The error of a line.
pub(super) fn error(line: &Line) -> Option<Finding> {
    memory(line).or_else(|| processor(line))
}

fn memory(line: &Line) -> Option<Finding> {
    let captures = MEMORY.captures(line.bytes)?;
    let text = |name| captures.name(name).map(|part| String::from_utf8_lossy(part.as_bytes()).into_owned());
    let detail = text("detail")?;
    let mut fields = vec![Field::named("count", text("count")?, "")];
    let (mut address, mut page, mut offset) = (None, None, None);
    for captures in DETAIL.captures_iter(detail.as_bytes()) {
        let name = captures.name("k").map(|name| name.as_bytes().to_ascii_lowercase()).unwrap_or_default();
        let decimal =
            captures.name("d").and_then(|digits| std::str::from_utf8(digits.as_bytes()).ok()?.parse().ok());
        let hex = captures.name("v").and_then(|digits| hexadecimal(digits.as_bytes()));
        let Some(value) = hex.or(decimal) else { continue };
        match name.as_slice() {
            b"address" => address = Some(value),
            b"page" => page = Some(value),
            b"offset" => offset = Some(value),
            b"status" => {
                fields.push(Field::named("error_status", format!("{value:#x}"), error_status(value)));
            }
            _ => fields.push(Field::named("grain", value.to_string(), "bytes; 0 or 1: not known")),
        }
    }
    // EDAC counts in the kernel's pages.
    if let (None, Some(page)) = (address, page) {
        address = u64::checked_mul(page, 4096).and_then(|page| page.checked_add(offset.unwrap_or(0)));
        fields.push(Field::named(
            "page",
            format!("{page:#x}"),
            "the address is that of a kernel with 4 KiB pages",
        ));
    }
    if let Some(address) = address {
        fields.push(Field::named("physical_address", format!("{address:#x}"), ""));
    }
    // EDAC gives the place in its own words, and again in those of the firmware.
    for (name, value) in places(&detail) {
        if fields.iter().all(|field| field.name != name) {
            fields.push(Field::named(&name, value, ""));
        }
    }
    let severity = match text("severity")?.to_ascii_lowercase().as_str() {
        "ce" => "corrected".to_owned(),
        "ue" => "uncorrected".into(),
        "de" => "deferred".into(),
        "fe" => "fatal".into(),
        "info" => "informational".into(),
        other => other.to_owned(),
    };
    let error = ReportedError {
        section: "memory error".into(),
        severity: Some(severity),
        address,
        mask: None,
        error_type: text("type").map(|text| shortened(&text)).filter(|text| !text.is_empty()),
        unit: text("label").map(|text| shortened(&text)),
        time: text("before").and_then(|before| time(before.as_bytes())),
    };
    Some(Finding::hardware_error(Place::new(line, "mc-event"), &error, fields))
}

fn processor(line: &Line) -> Option<Finding> {
    let at = line.bytes.windows(9).position(|word| word == b"arm_event")?;
    let rest = line.bytes.get(at..).unwrap_or_default();
    let fields: Vec<Field> = ARM
        .captures_iter(rest)
        .filter_map(|captures| {
            let part =
                |name| captures.name(name).map(|part| String::from_utf8_lossy(part.as_bytes()).into_owned());
            let name = match part("k")?.to_ascii_lowercase().replace(' ', "_").as_str() {
                "mpidr" => "mpidr",
                "midr" => "midr",
                "running_state" => "running_state",
                "psci_state" => "psci_state",
                _ => "error_affinity_level",
            };
            Some(Field::named(name, part("v")?, ""))
        })
        .collect();
    let mpidr = fields.iter().find(|field| field.name == "mpidr")?;
    let error = ReportedError {
        section: "Arm processor error".into(),
        unit: Some(format!("MPIDR {}", mpidr.value)),
        time: time(rest),
        ..ReportedError::default()
    };
    Some(Finding::hardware_error(Place::new(line, "arm-event"), &error, fields))
}

fn time(text: &[u8]) -> Option<String> {
    TIME.find(text).map(|time| String::from_utf8_lossy(time.as_bytes()).into_owned())
}
