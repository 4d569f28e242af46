//! `seawall campaign verify`.

use std::fmt::Write as _;
use std::num::NonZero;
use std::path::PathBuf;

use seawall_campaign::{Again, Row, verify};
use serde_json::json;

use super::run::Screen;
use super::{failure, open, say_whose_plan_it_is};
use crate::style::{bad, head};
use crate::{Failure, exit, out};

/// Try some of a campaign again, and compare.
///
/// Results are drawn, run again, and must be the same in every column. Pages that the plan left out, as nothing uses them, are
/// drawn and go bad one by one: every service must survive each, and nothing may meet it. The exit code is 1 if one is not
/// as the campaign says; each of these is printed, and `replay` shows it with its console.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Try so many results again.
    #[arg(long, value_name = "COUNT", default_value_t = 300)]
    results: usize,
    /// Try so many pages that nothing uses.
    #[arg(long, value_name = "COUNT", default_value_t = 300)]
    unused: usize,
    /// Seed of the draw.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZero<usize>>,
    /// Print one JSON object: results, unused (how many were tried), differing (pairs of the campaign's result and the
    /// new one), not_survived.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    say_whose_plan_it_is(&campaign, quiet);
    let again = Again { results: args.results, unused: args.unused, seed: args.seed };
    let screen = Screen::new(quiet);
    let verified = verify(&campaign, &again, args.threads, &|progress| screen.show(progress));
    screen.end();
    let verified = verified.map_err(failure)?;
    if args.json {
        out::stdout(&format!("{}\n", json!(verified)))?;
    } else {
        let mut text = String::new();
        for (before, now) in &verified.differing {
            let _ = writeln!(text, "{} was {}, is {}", bad(&now.id), told(before), told(now));
        }
        for row in &verified.not_survived {
            let _ = writeln!(text, "{} is not in the plan, and is {}", bad(&row.id), told(row));
        }
        let (results, unused) = (verified.results, verified.unused);
        let _ = writeln!(text, "{} {results} results and {unused} pages that nothing uses", head("tried"));
        out::stdout(&text)?;
    }
    let amiss = verified.differing.len() + verified.not_survived.len();
    match amiss {
        0 => Ok(0),
        _ => Err(Failure::new(
            exit::UNEXPECTED,
            format!("{amiss} came out another way than the campaign says"),
        )),
    }
}

/// An outcome with all that distinguishes two of them.
fn told(row: &Row) -> String {
    format!(
        "{} ({}; {} errors at {} ns, {} steps)",
        row.outcome.word(),
        if row.lost_services.is_empty() { "nothing lost" } else { &row.lost_services },
        row.errors + row.device_errors,
        row.time,
        row.steps
    )
}
