//! `KVM_EXIT_ARM_SEA`: `kvm_run` as VMMs print it, on one line or several.

use std::sync::LazyLock;

use regex::bytes::Regex;
use seawall_arm::Esr;
use seawall_events::SeaExit;

use super::finding::{Finding, Place};
use super::line::Line;
use super::rules::{Found, hexadecimal, regex};
use crate::decode::explained::{Explained, Field};

/// The start of an exit: its name, its number, or a report of ours (docs/telemetry.md).
static BEGIN: LazyLock<Regex> = LazyLock::new(|| {
    regex(r#"\bKVM_EXIT_ARM_SEA\b|\bexit_reason\b["']?\s*[:=]?\s*["']?(?:41|0x29)\b|\barm_sea\b|"exit_esr""#)
});

/// A member of `kvm_run.arm_sea`.
static MEMBER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"\b(?P<k>flags|(?:exit_)?esr(?:_el2)?|gva|gpa|KVM_EXIT_ARM_SEA)\b["']?\s*[:=]?\s*["']?0x(?P<v>[0-9a-f]{1,16})\b|\b(?P<f>flags)\b["']?\s*[:=]?\s*(?P<d>[0-9])\b"#,
    )
});

/// The exit in progress.
#[derive(Default)]
pub(super) struct SeaExits {
    open: Option<Open>,
}

struct Open {
    place: Place,
    flags: Option<u64>,
    esr: Option<u64>,
    gva: Option<u64>,
    gpa: Option<u64>,
}

impl SeaExits {
    /// Takes a line's parts of an exit, and removes its ESR from `registers`. Returns the exit that is
    /// complete.
    pub(super) fn take(&mut self, line: &Line, registers: &mut Vec<Found>) -> Option<Finding> {
        let mut over = None;
        if BEGIN.is_match(line.bytes) {
            over = self.end();
            let place = Place::new(line, "sea-exit");
            self.open = Some(Open { place, flags: None, esr: None, gva: None, gpa: None });
        }
        let open = self.open.as_mut()?;
        let mut has_member = false;
        for captures in MEMBER.captures_iter(line.bytes) {
            let name = captures.name("k").or_else(|| captures.name("f")).map(|name| name.as_bytes());
            let Some(value) = captures.name("v").or_else(|| captures.name("d")) else { continue };
            let member = match name.and_then(|name| name.last()).map(u8::to_ascii_lowercase) {
                Some(b's') => &mut open.flags,
                // gva and gpa both end so; the second letter tells them apart.
                Some(b'a') => match name.and_then(|name| name.get(1)).map(u8::to_ascii_lowercase) {
                    Some(b'v') => &mut open.gva,
                    Some(b'p') => &mut open.gpa,
                    // KVM_EXIT_ARM_SEA 0x92000210
                    _ => &mut open.esr,
                },
                _ => &mut open.esr,
            };
            if member.is_some() {
                continue;
            }
            *member = hexadecimal(value.as_bytes());
            has_member = true;
            registers.retain(|found| found.at != (value.start(), value.end()));
        }
        if has_member {
            open.place.last_line = line.number;
        }
        let is_whole = open.flags.is_some() && open.esr.is_some() && open.gva.is_some() && open.gpa.is_some();
        let is_over = is_whole || !has_member && open.place.line != line.number;
        over.or_else(|| if is_over { self.end() } else { None })
    }

    /// The exit in progress, if it had an ESR.
    pub(super) fn end(&mut self) -> Option<Finding> {
        let Open { place, flags, esr, gva, gpa } = self.open.take()?;
        let esr = Esr::from_bits(esr?);
        let exit = SeaExit {
            flags: flags.unwrap_or(u64::from(gpa.is_some())),
            esr,
            gva: gva.unwrap_or(0),
            gpa: gpa.unwrap_or(0),
        };
        let gva = exit.gva_valid().filter(|_| gva.is_some());
        let gpa = exit.gpa_valid().filter(|_| gpa.is_some());
        let address = |name, address: Option<u64>| match address {
            Some(address) => format!("{name} {address:#x}"),
            None => format!("no {name}"),
        };
        let field = |name, value: Option<u64>, without: &str| match value {
            Some(value) => Field::named(name, format!("{value:#x}"), ""),
            None => Field::named(name, "", without),
        };
        let text = format!("SEA exit: {esr}; {}, {}", address("gva", gva), address("gpa", gpa));
        let is_set = exit.flags & 1 == 1;
        let fields = vec![
            Field::named(
                "flags",
                format!("{:#x}", exit.flags),
                if is_set { "gpa is valid" } else { "gpa is not valid" },
            ),
            Field::named("esr", format!("{:#x}", esr.bits()), esr.to_string()),
            field("gva", gva, "not valid: FnV, or not printed"),
            field("gpa", gpa, "not valid: bit 0 of flags is 0, or not printed"),
        ];
        let value = Some(format!("{:#x}", esr.bits()));
        Some(Finding {
            place,
            explained: Explained { kind: "sea-exit", value, text, fields, readings: Vec::new() },
        })
    }
}
