//! `seawall ledger`: a file of bad pages, for people and programs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use seawall::ledger::{BadRange, Cause, Ledger, PAGE};
use serde_json::{Value, json};

use crate::style::head;
use crate::{Failure, exit, out};

/// Show the bad pages of a guest, since when they are bad, and how they were found.
///
/// The file comes from `seawall run --ledger FILE`, or from any VMM that keeps a ledger with `seawall::ledger`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File of the ledger.
    file: PathBuf,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    let ledger = Ledger::load(&args.file).map_err(|error| Failure::new(exit::FILE, error.to_string()))?;
    let ledger = ledger.ok_or_else(|| {
        let message = format!(
            "cannot read the ledger {}: there is no such file; a run writes it when the first page goes bad",
            args.file.display()
        );
        Failure::new(exit::FILE, message)
    })?;
    out::stdout(&if args.json { format!("{}\n", as_json(&ledger)) } else { screen(&ledger) })?;
    Ok(0)
}

/// The cause, for people and programs.
fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Consumed => "consumed",
        Cause::Found => "found",
        Cause::Migrated => "migrated",
        Cause::Experiment => "experiment",
    }
}

fn bytes(bad: &BadRange) -> u64 {
    bad.range.end - bad.range.start
}

/// RFC 3339, to the second.
fn time(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn as_json(ledger: &Ledger) -> Value {
    let ranges: Vec<Value> = ledger
        .ranges()
        .map(|bad| {
            json!({
                "gpa": format!("{:#x}", bad.range.start),
                "bytes": bytes(&bad),
                "cause": cause(bad.cause),
                "time": time(bad.time),
            })
        })
        .collect();
    json!({ "pages": ledger.pages(), "page_bytes": PAGE, "ranges": ranges })
}

fn screen(ledger: &Ledger) -> String {
    if ledger.is_empty() {
        return "no page is bad\n".into();
    }
    let heading = format!("{:<39} {:>8}  {:<10}  since", "guest physical", "pages", "cause");
    let mut text = format!("{}\n", head(heading));
    for bad in ledger.ranges() {
        let range = format!("{:#x}..{:#x}", bad.range.start, bad.range.end);
        let (pages, cause, time) = (bytes(&bad) / PAGE, cause(bad.cause), time(bad.time));
        let _ = writeln!(text, "{range:<39} {pages:>8}  {cause:<10}  {time}");
    }
    let pages = if ledger.pages() == 1 { "page is" } else { "pages are" };
    let _ = writeln!(text, "{} {pages} bad, of {PAGE} bytes each", ledger.pages());
    text
}
