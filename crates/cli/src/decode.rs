//! `seawall decode`: syndromes and events in words.

use std::fmt::Write as _;

use seawall_arm::{Dfsr, Esr, Ifsr, Pstate, Syndrome};
use seawall_events::{Abi, Layout, VcpuEvents};
use serde_json::{Value, json};

use crate::style::{dim, head};
use crate::{Failure, exit, out, parse};

/// Explains syndrome values, field by field.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seawall decode 0x92000210
  seawall decode --spsr 0x3c5
  seawall decode 0000000096000210       as a kernel prints it
  seawall decode 0000000100$(printf %0118d)
                                        64 bytes of kvm_vcpu_events in hex, as one argument or several")]
pub(crate) struct Args {
    /// Values: 0x hexadecimal, decimal, or 8 or 16 bare hex digits; or 64 bytes of kvm_vcpu_events as 128
    /// hex digits.
    #[arg(required = true, value_name = "VALUE")]
    values: Vec<String>,
    /// The values are AArch32 data fault status registers.
    #[arg(long, group = "kind")]
    dfsr: bool,
    /// The values are AArch32 instruction fault status registers.
    #[arg(long, group = "kind")]
    ifsr: bool,
    /// The values are SPSR_ELx or PSTATE.
    #[arg(long, group = "kind")]
    spsr: bool,
    /// One JSON array on stdout, an object for each value.
    #[arg(long)]
    json: bool,
}

/// One value, explained.
struct Explained {
    text: String,
    rows: Vec<Row>,
    json: Value,
}

/// A field of a register: name, bits, value, meaning.
struct Row {
    name: String,
    bits: String,
    value: String,
    meaning: String,
}

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    let explained = explain_all(args)?;
    if args.json {
        let all: Vec<Value> = explained.into_iter().map(|one| one.json).collect();
        out::stdout(&format!("{}\n", Value::Array(all)))?;
        return Ok(0);
    }
    let texts: Vec<String> = explained.iter().map(in_words).collect();
    out::stdout(&texts.join("\n"))?;
    Ok(0)
}

fn explain_all(args: &Args) -> Result<Vec<Explained>, Failure> {
    // A struct of 64 bytes may be one argument, or be spread over several.
    let joined = args.values.concat();
    if let Some(Ok(bytes)) = parse::bytes(&joined).map(<[u8; 64]>::try_from) {
        return Ok(vec![explain_events(&bytes)]);
    }
    args.values
        .iter()
        .map(|value| {
            let number = parse::register(value).map_err(|reason| {
                let hint = "; a kvm_vcpu_events is 64 bytes, 128 hex digits";
                Failure::new(exit::USAGE, format!("{reason}{hint}"))
            })?;
            explain(args, number).map_err(|reason| Failure::new(exit::USAGE, reason))
        })
        .collect()
}

fn explain(args: &Args, value: u64) -> Result<Explained, String> {
    match (args.dfsr, args.ifsr, args.spsr) {
        (true, ..) => explain_dfsr(value),
        (_, true, _) => explain_ifsr(value),
        (.., true) => Ok(explain_spsr(value)),
        _ => Ok(explain_esr(value)),
    }
}

/// The text, and a line for each field.
fn in_words(one: &Explained) -> String {
    let mut text = format!("{}\n", head(&one.text));
    let width = |pick: fn(&Row) -> &String| one.rows.iter().map(|row| pick(row).len()).max().unwrap_or(0);
    let (name, bits, value) = (width(|row| &row.name), width(|row| &row.bits), width(|row| &row.value));
    for row in &one.rows {
        let line = format!("  {:name$}  {:bits$}  {:value$}", row.name, row.bits, row.value);
        if row.meaning.is_empty() {
            let _ = writeln!(text, "{}", line.trim_end());
        } else {
            let _ = writeln!(text, "{line}  {}", dim(&row.meaning));
        }
    }
    text
}

fn row(name: &str, msb: u8, lsb: u8, value: u64, meaning: impl Into<String>) -> Row {
    let (bits, value) = if msb == lsb {
        (format!("[{msb}]"), format!("{value}"))
    } else {
        (format!("[{msb}:{lsb}]"), format!("{value:#x}"))
    };
    Row { name: name.into(), bits, value, meaning: meaning.into() }
}

fn register_json(kind: &str, value: u64, text: &str, rows: &[Row]) -> Value {
    let fields: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "name": row.name, "bits": row.bits, "value": row.value, "meaning": row.meaning }))
        .collect();
    json!({ "kind": kind, "value": format!("{value:#x}"), "text": text, "fields": fields })
}

fn explain_esr(value: u64) -> Explained {
    let esr = Esr::from_bits(value);
    let il = if esr.il() { "32-bit instruction, or no instruction" } else { "16-bit instruction" };
    let mut rows = vec![
        row("EC", 31, 26, esr.ec().bits().into(), esr.ec().to_string()),
        row("IL", 25, 25, esr.il().into(), il),
    ];
    for field in esr.fields().filter(|field| field.lsb < 32 || field.value != 0) {
        rows.push(row(field.name, field.msb, field.lsb, field.value.into(), meaning(esr, field.name)));
    }
    let text = esr.to_string();
    let json = register_json("esr", value, &text, &rows);
    Explained { text, rows, json }
}

/// What a field of a data abort, an instruction abort or an SError means; empty if its name says it.
fn meaning(esr: Esr, name: &str) -> String {
    let on = |yes: bool, then: &str, otherwise: &str| if yes { then } else { otherwise }.to_string();
    match (esr.syndrome(), name) {
        (Syndrome::DataAbort(abort), "DFSC") => abort.dfsc.to_string(),
        (Syndrome::InstructionAbort(abort), "IFSC") => abort.ifsc.to_string(),
        (Syndrome::DataAbort(abort), "SET") => abort.set.to_string(),
        (Syndrome::InstructionAbort(abort), "SET") => abort.set.to_string(),
        (Syndrome::DataAbort(abort), "FnV") => on(abort.fnv, "FAR is not valid", "FAR is valid"),
        (Syndrome::InstructionAbort(abort), "FnV") => on(abort.fnv, "FAR is not valid", "FAR is valid"),
        (Syndrome::DataAbort(abort), "ISV") => {
            on(abort.isv, "the fields below describe the access", "the access is not described")
        }
        (Syndrome::DataAbort(abort), "WnR") => on(abort.wnr, "write", "read"),
        (Syndrome::DataAbort(abort), "SAS") => format!("{} bytes", abort.sas.bytes()),
        (Syndrome::DataAbort(abort), "SRT") => format!("register {}", abort.srt),
        (Syndrome::DataAbort(abort), "CM") if abort.cm => "cache maintenance or address translation".into(),
        (Syndrome::DataAbort(abort), "S1PTW") if abort.s1ptw => "stage 2 fault on the stage 1 walk".into(),
        (Syndrome::InstructionAbort(abort), "S1PTW") if abort.s1ptw => {
            "stage 2 fault on the stage 1 walk".into()
        }
        (Syndrome::SError(serror), "AET") => serror.aet.to_string(),
        (Syndrome::SError(serror), "DFSC") => match serror.dfsc {
            0x11 => "asynchronous SError".into(),
            0 => "uncategorised".into(),
            _ => "reserved".into(),
        },
        (Syndrome::SError(_), "IDS") => {
            on(esr.iss() >> 24 & 1 == 1, "implementation defined syndrome", "architected syndrome")
        }
        _ => String::new(),
    }
}

fn word(value: u64, name: &str) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("expected a 32-bit {name}, got {value:#x}"))
}

fn explain_dfsr(value: u64) -> Result<Explained, String> {
    let dfsr = Dfsr::from_bits(word(value, "DFSR")?);
    let mut rows = vec![
        row("FnV", 16, 16, dfsr.fnv().into(), if dfsr.fnv() { "DFAR is not valid" } else { "DFAR is valid" }),
        row("AET", 15, 14, dfsr.aet().into(), ""),
        row("CM", 13, 13, dfsr.cm().into(), ""),
        row("ExT", 12, 12, dfsr.ext().into(), ""),
        row("WnR", 11, 11, dfsr.wnr().into(), if dfsr.wnr() { "write" } else { "read" }),
    ];
    rows.extend(fsr_status(value, dfsr.status().to_string()));
    let text = dfsr.to_string();
    let json = register_json("dfsr", value, &text, &rows);
    Ok(Explained { text, rows, json })
}

fn explain_ifsr(value: u64) -> Result<Explained, String> {
    let ifsr = Ifsr::from_bits(word(value, "IFSR")?);
    let mut rows = vec![
        row("FnV", 16, 16, ifsr.fnv().into(), if ifsr.fnv() { "IFAR is not valid" } else { "IFAR is valid" }),
        row("ExT", 12, 12, ifsr.ext().into(), ""),
    ];
    rows.extend(fsr_status(value, ifsr.status().to_string()));
    let text = ifsr.to_string();
    let json = register_json("ifsr", value, &text, &rows);
    Ok(Explained { text, rows, json })
}

/// LPAE, and FS or STATUS.
fn fsr_status(value: u64, meaning: String) -> [Row; 2] {
    if value >> 9 & 1 == 1 {
        [row("LPAE", 9, 9, 1, "long descriptors"), row("STATUS", 5, 0, value & 0x3f, meaning)]
    } else {
        let fs = value >> 6 & 0x10 | value & 0xf;
        let status = Row { bits: "[10,3:0]".into(), ..row("FS", 4, 0, fs, meaning) };
        [row("LPAE", 9, 9, 0, "short descriptors"), status]
    }
}

fn explain_spsr(value: u64) -> Explained {
    let pstate = Pstate::from_bits(value);
    let common: &[(&str, u8, u8, &str)] = &[
        ("N", 31, 31, "negative"),
        ("Z", 30, 30, "zero"),
        ("C", 29, 29, "carry"),
        ("V", 28, 28, "overflow"),
    ];
    let own: &[(&str, u8, u8, &str)] = if pstate.is_aarch32() {
        &[
            ("Q", 27, 27, "saturation"),
            ("IT[1:0]", 26, 25, "if-then state"),
            ("DIT", 24, 24, "data independent timing"),
            ("SSBS", 23, 23, "speculative store bypass safe"),
            ("PAN", 22, 22, "privileged access never"),
            ("SS", 21, 21, "software step"),
            ("IL", 20, 20, "illegal execution state"),
            ("GE", 19, 16, "greater than or equal"),
            ("IT[7:2]", 15, 10, "if-then state"),
            ("E", 9, 9, "big-endian data"),
            ("A", 8, 8, "SError masked"),
            ("I", 7, 7, "IRQ masked"),
            ("F", 6, 6, "FIQ masked"),
            ("T", 5, 5, "T32"),
        ]
    } else {
        &[
            ("TCO", 25, 25, "tag check override"),
            ("DIT", 24, 24, "data independent timing"),
            ("UAO", 23, 23, "user access override"),
            ("PAN", 22, 22, "privileged access never"),
            ("SS", 21, 21, "software step"),
            ("IL", 20, 20, "illegal execution state"),
            ("ALLINT", 13, 13, "all interrupts masked"),
            ("SSBS", 12, 12, "speculative store bypass safe"),
            ("BTYPE", 11, 10, "branch type"),
            ("D", 9, 9, "debug masked"),
            ("A", 8, 8, "SError masked"),
            ("I", 7, 7, "IRQ masked"),
            ("F", 6, 6, "FIQ masked"),
        ]
    };
    let high: &[(&str, u8, u8, &str)] = &[
        ("UINJ", 36, 36, "injected undefined instruction"),
        ("PACM", 35, 35, "PC is mixed into pointer authentication"),
        ("EXLOCK", 34, 34, "exception return state is locked"),
        ("PPEND", 33, 33, "profiling exception pending"),
        ("PM", 32, 32, "profiling exceptions masked"),
    ];
    let high = high.iter().filter(|field| !pstate.is_aarch32() && value >> field.1 & 1 == 1);
    let mut rows: Vec<Row> = high
        .chain(common)
        .chain(own)
        .map(|&(name, msb, lsb, meaning)| {
            let mask = (1_u64 << (msb - lsb + 1)) - 1;
            row(name, msb, lsb, value >> lsb & mask, meaning)
        })
        .collect();
    rows.push(row("M", 4, 0, value & Pstate::M, pstate.mode().to_string()));
    let text = format!("{value:#x} {pstate}");
    let json = register_json("spsr", value, &text, &rows);
    Explained { text, rows, json }
}

/// The three readings of one struct: what each ABI makes of these bytes.
fn explain_events(bytes: &[u8; 64]) -> Explained {
    const READINGS: [(&str, Abi); 3] = [
        ("mainline", Abi::Mainline),
        ("extended", Abi::Extended(Layout::Posted)),
        ("extended, ESR last", Abi::Extended(Layout::Trailing)),
    ];
    let mut rows = Vec::new();
    let mut readings = Vec::new();
    for (name, abi) in READINGS {
        let (meaning, value) = match VcpuEvents::from_bytes(abi, bytes) {
            Ok(events) => (words(&events), events_json(&events)),
            Err(refusal) => (format!("EINVAL: {refusal}"), json!({ "error": refusal.to_string() })),
        };
        rows.push(Row { name: name.into(), bits: String::new(), value: String::new(), meaning });
        readings.push(json!({ "abi": name, "events": value }));
    }
    let text = "kvm_vcpu_events".to_string();
    let json = json!({ "kind": "kvm_vcpu_events", "readings": readings });
    Explained { text, rows, json }
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
