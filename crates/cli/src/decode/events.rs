//! A `kvm_vcpu_events`, as each ABI reads it.

use std::fmt::Write as _;

use seawall_arm::Esr;
use seawall_events::{Abi, Layout, VcpuEvents};
use serde_json::{Value, json};

use super::explained::{Explained, Field};

/// The three readings of one struct, one for each ABI.
pub(super) fn explain(bytes: &[u8; 64]) -> Explained {
    const READINGS: [(&str, Abi); 3] = [
        ("mainline", Abi::Mainline),
        ("extended", Abi::Extended(Layout::Posted)),
        ("extended, ESR last", Abi::Extended(Layout::Trailing)),
    ];
    let mut fields = Vec::new();
    let mut readings = Vec::new();
    for (name, abi) in READINGS {
        let (meaning, value) = match VcpuEvents::from_bytes(abi, bytes) {
            Ok(events) => (words(&events), events_json(&events)),
            Err(refusal) => (format!("EINVAL: {refusal}"), json!({ "error": refusal.to_string() })),
        };
        fields.push(Field::named(name, "", meaning));
        readings.push(json!({ "abi": name, "events": value }));
    }
    Explained { kind: "kvm_vcpu_events", value: None, text: "kvm_vcpu_events".into(), fields, readings }
}

fn events_json(events: &VcpuEvents) -> Value {
    json!({
        "serror_pending": events.serror_pending,
        "serror_has_esr": events.serror_has_esr,
        "serror_esr": format!("{:#x}", events.serror_esr),
        "ext_dabt_pending": events.ext_dabt_pending,
        "ext_iabt_pending": events.ext_iabt_pending,
        "ext_abt_has_esr": events.ext_abt_has_esr,
        "ext_abt_esr": format!("{:#x}", events.ext_abt_esr),
    })
}

fn words(events: &VcpuEvents) -> String {
    let mut text = match (events.ext_dabt_pending, events.ext_iabt_pending) {
        (true, true) => "data and instruction abort (EINVAL: at most one)".to_string(),
        (true, false) => "data abort".to_string(),
        (false, true) => "instruction abort".to_string(),
        (false, false) => String::new(),
    };
    let iss = |text: &mut String, has_esr: bool, esr: u64| {
        let _ = match (has_esr, esr & !Esr::ISS_MASK) {
            (true, 0) => write!(text, ", ISS {esr:#x}"),
            (true, _) => write!(text, ", ESR {esr:#x} (EINVAL: bits outside the ISS)"),
            (false, _) => write!(text, ", no ESR"),
        };
    };
    if !text.is_empty() {
        iss(&mut text, events.ext_abt_has_esr, events.ext_abt_esr);
    }
    if events.serror_pending {
        text.push_str(if text.is_empty() { "SError" } else { "; SError" });
        iss(&mut text, events.serror_has_esr, events.serror_esr);
    }
    if text.is_empty() {
        text.push_str("nothing pending");
        if events.serror_has_esr {
            text.push_str("; has_esr: the host has RAS");
        }
    }
    text
}
