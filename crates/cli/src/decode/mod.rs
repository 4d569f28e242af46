//! `seawall decode`: explains syndromes, events, error records and whole logs in words.

mod cper;
mod events;
mod explained;
mod hex;
mod log;
mod number;
mod register;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use explained::{Explained, in_words};
use number::{Given, Kind};

use crate::{Failure, exit, out, parse};

/// Explain an ESR, DFSR, IFSR, SPSR, kvm_vcpu_events, a record of an error (CPER), or all of these in a log.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Numbers as they stand in a log, or lines of a log. A bare number is hexadecimal if it has 7 digits or more, and
    /// always if it is an FSR. The 64 bytes of kvm_vcpu_events are 128 hexadecimal digits.
    #[arg(value_name = "VALUE", conflicts_with_all = ["log", "cper"])]
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
    /// Read a log from FILE, or from stdin: a log of Linux, U-Boot, FreeBSD, QEMU (-d int), EDK2, TF-A, Xen, rasdaemon, ...
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with = "kind")]
    log: Option<PathBuf>,
    /// Explain a GHES status block, a CPER record or a section of one: hexadecimal digits, or a file. The file has such
    /// digits, the output of `hexdump -C` or `xxd`, or the bytes themselves; - is stdin.
    #[arg(long, value_name = "HEX|FILE", num_args = 1.., conflicts_with_all = ["log", "kind"])]
    cper: Option<Vec<String>>,
    /// Show the fields of each value in a log too.
    #[arg(long)]
    fields: bool,
    /// Print JSON: one array with an object for each value; with --log, one object a line for each finding.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  seawall decode 0x92000210
  seawall decode 0000000096000210            as a kernel prints it
  seawall decode '0x25/0x96000210'           as QEMU's -d int prints it
  seawall decode --dfsr 1406                 as a 32-bit kernel prints it: (0x1406), Oops: 1406
  seawall decode --spsr 0x3c5
  seawall decode 'SError Interrupt on CPU0, code 0x00000000be000011 -- SError'
  seawall decode 0000000100$(printf %0118d)  64 bytes of kvm_vcpu_events, as one argument or several
  dmesg | seawall decode --log               every ESR, FSR, SError code, SEA exit and hardware error in it
  seawall decode --log console.log --json | jq -r 'select(.kind == \"esr\") | .text'
  seawall decode --cper record.bin           a GHES status block, a CPER record or section, field by field
  xxd /sys/firmware/acpi/tables/data/BERT | seawall decode --cper -

Exit codes: 0 something was explained; 1 a log has nothing to explain, or a record contradicts itself; 2 a value is not
a number; 3 a file cannot be read. docs/decode.md has the fields of the JSON.";

/// Notes on stderr about how a value was read, unless `--quiet`.
#[derive(Clone, Copy)]
struct Notes {
    quiet: bool,
}

impl Notes {
    fn say(self, note: impl std::fmt::Display) {
        if !self.quiet {
            out::stderr(format!("note: {note}"));
        }
    }
}

pub(crate) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let notes = Notes { quiet };
    let style = log::Style { json: args.json, fields: args.fields };
    if let Some(path) = &args.log {
        return log::main(path, style, notes);
    }
    if let Some(given) = &args.cper {
        return cper::main(given, args.json, notes);
    }
    if args.values.is_empty() {
        if std::io::stdin().is_terminal() {
            let expected =
                "expected a value such as 0x92000210, --log FILE or --cper FILE; --help has examples";
            return Err(Failure::new(exit::USAGE, expected));
        }
        return log::main(Path::new("-"), style, notes);
    }
    let explained = explain_all(args, notes)?;
    if args.json {
        return json(&explained);
    }
    let texts: Vec<String> = explained.iter().map(in_words).collect();
    out::stdout(&texts.join("\n"))?;
    Ok(0)
}

/// One array.
fn json(explained: &[impl serde::Serialize]) -> Result<u8, Failure> {
    let text = serde_json::to_string(explained)
        .map_err(|error| Failure::new(exit::UNEXPECTED, format!("cannot write JSON: {error}")))?;
    out::stdout(&format!("{text}\n"))?;
    Ok(0)
}

fn explain_all(args: &Args, say: Notes) -> Result<Vec<Explained>, Failure> {
    // A struct of 64 bytes may be one argument, or be spread over several.
    let joined = args.values.concat();
    if let Some(Ok(bytes)) = parse::bytes(&joined).map(<[u8; 64]>::try_from) {
        return Ok(vec![events::explain(&bytes)]);
    }
    let kind = match (args.dfsr, args.ifsr, args.spsr) {
        (true, ..) => Kind::Dfsr,
        (_, true, _) => Kind::Ifsr,
        (.., true) => Kind::Spsr,
        _ => Kind::Esr,
    };
    let usage = |reason: String| Failure::new(exit::USAGE, reason);
    let given = number::all(&args.values, kind).map_err(usage)?;
    let mut explained = Vec::new();
    for Given { kind, value, notes } in given {
        for note in notes {
            say.say(note);
        }
        explained.push(register::explain(kind, value).map_err(usage)?);
    }
    Ok(explained)
}
