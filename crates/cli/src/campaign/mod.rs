//! `seawall campaign`: which pages of a guest can go bad, and what that costs.

mod plan;
mod run;
mod submit;
mod verify;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use seawall_campaign::engine::slurm_states;
use seawall_campaign::{Campaign, Error, Row, Status, merge, replay, write_report};
use serde_json::json;

use crate::style::{bad, dim, head};
use crate::{Failure, VERSION, exit, out};

/// Find out how much of a guest survives when its memory goes bad, page by page.
///
/// A campaign lets each page that a guest uses go bad, under each policy, on the software machine, and judges the guest by
/// its services. `plan` boots the guest and proves which pages do not matter; `run` does the others, on all cores;
/// `report` shows it. docs/campaigns.md goes through it.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

const HELP: &str = "\
Examples:
  seawall campaign plan map --services --sample 100     Debian's guest with a database, a web server and more
  seawall campaign run map                              all experiments, on all cores; again after a stop
  seawall campaign report map                           map/report.html, map/report.json
  seawall campaign replay map acpi-0-0x40a3f000-full    one experiment, with its console
  seawall campaign verify map                           300 results and 300 pages that nothing uses, again
  seawall campaign submit map --engine slurm            the same as a job array, on hosts that share the directory
  seawall campaign run map --shard 3/16                 a part, on any host that has the directory";

#[derive(clap::Subcommand)]
enum Action {
    Plan(Box<plan::Args>),
    Run(run::Args),
    Submit(submit::Args),
    Status(StatusArgs),
    Merge(MergeArgs),
    Report(ReportArgs),
    Replay(ReplayArgs),
    Verify(verify::Args),
}

/// Show how far a campaign is.
#[derive(clap::Args)]
struct StatusArgs {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print one JSON object: done, all, next, not_as_planned, campaign (its id).
    #[arg(long)]
    json: bool,
}

/// Put the results of all shards into one table, DIR/results.parquet.
///
/// The bytes are the same, however the campaign was cut into shards. Results that disagree are an error.
#[derive(clap::Args)]
struct MergeArgs {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Merge the results that there are.
    #[arg(long)]
    partial: bool,
}

/// Show what the results come to: DIR/report.html, one page that needs nothing else, and DIR/report.json.
#[derive(clap::Args)]
struct ReportArgs {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Run one experiment again, with its guest's console and each memory error.
#[derive(clap::Args)]
struct ReplayArgs {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Experiment: FIRMWARE-MOMENT-PAGE-POLICY, such as acpi-0-0x40a3f000-full.
    id: String,
    /// Print the result as one JSON object, with the console's lines.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    match &args.action {
        Action::Plan(args) => plan::main(args, quiet),
        Action::Run(args) => run::main(args, quiet),
        Action::Submit(args) => submit::main(args, quiet),
        Action::Status(args) => status(args),
        Action::Merge(args) => merged(args, quiet),
        Action::Report(args) => reported(args, quiet),
        Action::Replay(args) => replayed(args, quiet),
        Action::Verify(args) => verify::main(args, quiet),
    }
}

fn open(directory: &Path) -> Result<Campaign, Failure> {
    Campaign::open(directory).map_err(failure)
}

/// Another program's results may be compared with, and it is said.
fn say_whose_plan_it_is(campaign: &Campaign, quiet: bool) {
    if !quiet && campaign.check_program(VERSION).is_err() {
        let planned = &campaign.manifest.program;
        out::stderr(format!("seawall: {planned} planned this campaign; this is {VERSION}"));
    }
}

fn failure(error: Error) -> Failure {
    let code = match error {
        Error::Machine(error) => return error.into(),
        Error::Option { .. } | Error::NoExperiment(_) => exit::USAGE,
        Error::Batch { .. } => exit::UNAVAILABLE,
        Error::Guest(_) | Error::Disagree { .. } | Error::Missing { .. } => exit::UNEXPECTED,
        _ => exit::FILE,
    };
    Failure::new(code, error.to_string())
}

fn status(args: &StatusArgs) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    let (_, status) = campaign.rows().map_err(failure)?;
    if args.json {
        let mut status = json!(status);
        status["campaign"] = json!(campaign.id);
        out::stdout(&format!("{status}\n"))?;
    } else {
        let jobs = slurm_states(&campaign).map(|text| format!("{text}\n")).unwrap_or_default();
        out::stdout(&format!("{}\n{jobs}", line(&status)))?;
    }
    Ok(0)
}

fn line(Status { done, all, next, not_as_planned }: &Status) -> String {
    let next = next.as_ref().map(|id| format!("; next {id}")).unwrap_or_default();
    let amiss = match not_as_planned {
        0 => String::new(),
        amiss => bad(format!("; {amiss} did not meet their page where the plan says")).to_string(),
    };
    format!("{} {done} of {all} experiments{next}{amiss}", head("done"))
}

fn merged(args: &MergeArgs, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    let (path, status) = merge(&campaign, args.partial).map_err(failure)?;
    if !quiet {
        out::stdout(&format!(
            "{} {}: {} of {} experiments\n",
            head("results"),
            path.display(),
            status.done,
            status.all
        ))?;
    }
    Ok(0)
}

fn reported(args: &ReportArgs, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    let paths = write_report(&campaign).map_err(failure)?;
    if !quiet {
        let text = paths
            .iter()
            .fold(String::new(), |text, path| format!("{text}{} {}\n", head("report"), path.display()));
        out::stdout(&text)?;
    }
    Ok(0)
}

fn first_use(row: &Row, planned: bool) -> String {
    if !planned {
        return "not in the plan: nothing uses it before the horizon".to_owned();
    }
    format!("first used by {} at {} ({}, EL{})", row.consumer, row.pc, row.symbol, row.el)
}

fn replayed(args: &ReplayArgs, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    let planned = &campaign.manifest.program;
    say_whose_plan_it_is(&campaign, quiet);
    let replay = replay(&campaign, &args.id).map_err(failure)?;
    let differs = replay.before.as_ref().is_some_and(|before| *before != replay.row);
    let row = &replay.row;
    if args.json {
        out::stdout(&format!(
            "{}\n",
            json!({ "result": row, "console": replay.lines, "cpus": replay.cpus, "before": replay.before })
        ))?;
    } else {
        let mut text = replay.lines.iter().fold(String::new(), |text, line| text + line + "\n");
        let _ = writeln!(
            text,
            "{} {}: {}\n{}",
            head(&row.id),
            row.page_use,
            row.outcome.word(),
            dim(first_use(row, replay.planned)),
        );
        for (number, (pc, pstate)) in replay.cpus.iter().enumerate() {
            let _ = writeln!(text, "at the end: CPU {number} at PC {pc:#x}, PSTATE {pstate:#x}");
        }
        for (name, value) in [("lost", &row.lost_services), ("the kernel said", &row.words)] {
            if !value.is_empty() {
                let _ = writeln!(text, "{name}: {value}");
            }
        }
        out::stdout(&text)?;
    }
    if differs {
        return Err(Failure::new(
            exit::UNEXPECTED,
            format!(
                "the result is another than the one that the campaign has, which {planned} planned; this is {VERSION}"
            ),
        ));
    }
    Ok(0)
}
