//! Registers, field by field.

use seawall_arm::{AsynchronousErrorType, Dfsr, Esr, FsrFormat, FsrStatus, Ifsr, Pstate, Syndrome};

use super::explained::{Explained, Field};
use super::number::Kind;

/// A register's value in words.
///
/// # Errors
/// A message with the expected width, if the register is narrower.
pub(super) fn explain(kind: Kind, value: u64) -> Result<Explained, String> {
    Ok(match kind {
        Kind::Esr => explain_esr(value),
        Kind::Dfsr => explain_dfsr(word(value, "DFSR")?),
        Kind::Ifsr => explain_ifsr(word(value, "IFSR")?),
        Kind::Spsr => explain_spsr(value),
    })
}

fn explained(kind: &'static str, value: u64, text: String, fields: Vec<Field>) -> Explained {
    Explained { kind, value: Some(format!("{value:#x}")), text, fields, readings: Vec::new() }
}

fn explain_esr(value: u64) -> Explained {
    let esr = Esr::from_bits(value);
    let il = if esr.il() { "32-bit instruction, or no instruction" } else { "16-bit instruction" };
    let mut rows = vec![
        Field::new("EC", 31, 26, esr.ec().bits().into(), esr.ec().to_string()),
        Field::new("IL", 25, 25, esr.il().into(), il),
    ];
    for field in esr.fields().filter(|field| field.lsb < 32 || field.value != 0) {
        rows.push(Field::new(field.name, field.msb, field.lsb, field.value.into(), meaning(esr, field.name)));
    }
    explained("esr", value, esr.to_string(), rows)
}

/// The meaning of a field of a data abort, an instruction abort or an SError; empty if its name is clear.
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

fn explain_dfsr(value: u32) -> Explained {
    let dfsr = Dfsr::from_bits(value);
    let mut rows = vec![Field::new(
        "FnV",
        16,
        16,
        dfsr.fnv().into(),
        if dfsr.fnv() { "DFAR is not valid" } else { "DFAR is valid" },
    )];
    let aet = match dfsr.status() {
        FsrStatus::AsynchronousSError | FsrStatus::AsynchronousEcc => {
            match AsynchronousErrorType::from_bits(dfsr.aet()) {
                AsynchronousErrorType::Uncontainable => "UC, or a CPU without FEAT_RAS".into(),
                aet => aet.to_string(),
            }
        }
        _ => String::new(),
    };
    rows.extend([
        Field::new("AET", 15, 14, dfsr.aet().into(), aet),
        Field::new("CM", 13, 13, dfsr.cm().into(), if dfsr.cm() { "cache maintenance" } else { "" }),
        Field::new("ExT", 12, 12, dfsr.ext().into(), ""),
        Field::new("WnR", 11, 11, dfsr.wnr().into(), if dfsr.wnr() { "write" } else { "read" }),
    ]);
    rows.extend(fsr_status(value, dfsr.status().to_string()));
    if dfsr.format() == FsrFormat::Short {
        rows.push(Field::new("Domain", 7, 4, dfsr.domain().into(), ""));
    }
    explained("dfsr", value.into(), dfsr.to_string(), rows)
}

fn explain_ifsr(value: u32) -> Explained {
    let ifsr = Ifsr::from_bits(value);
    let mut rows = vec![
        Field::new(
            "FnV",
            16,
            16,
            ifsr.fnv().into(),
            if ifsr.fnv() { "IFAR is not valid" } else { "IFAR is valid" },
        ),
        Field::new("ExT", 12, 12, ifsr.ext().into(), ""),
    ];
    rows.extend(fsr_status(value, ifsr.status().to_string()));
    explained("ifsr", value.into(), ifsr.to_string(), rows)
}

/// LPAE, and FS or STATUS.
fn fsr_status(value: u32, meaning: String) -> [Field; 2] {
    if value >> 9 & 1 == 1 {
        let status = Field::new("STATUS", 5, 0, (value & 0x3f).into(), meaning);
        [Field::new("LPAE", 9, 9, 1, "long descriptors"), status]
    } else {
        let fs = value >> 6 & 0x10 | value & 0xf;
        let status = Field { bits: "[10,3:0]".into(), ..Field::new("FS", 4, 0, fs.into(), meaning) };
        [Field::new("LPAE", 9, 9, 0, "short descriptors"), status]
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
    let mut rows: Vec<Field> = high
        .chain(common)
        .chain(own)
        .map(|&(name, msb, lsb, meaning)| {
            let mask = (1_u64 << (msb - lsb + 1)) - 1;
            Field::new(name, msb, lsb, value >> lsb & mask, meaning)
        })
        .collect();
    rows.push(Field::new("M", 4, 0, value & Pstate::M, pstate.mode().to_string()));
    explained("spsr", value, format!("{value:#x} {pstate}"), rows)
}
