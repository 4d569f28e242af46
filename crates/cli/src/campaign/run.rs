//! `seawall campaign run`.

use std::io::IsTerminal as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use seawall_campaign::{Progress, Row, Shard, merge, run, write_report};

use super::{failure, line, open};
use crate::style::head;
use crate::{Failure, VERSION, out};

/// How often a run says how far it is, where nobody sees a bar.
const EACH: Duration = Duration::from_secs(30);

/// Run the experiments that have no result yet.
///
/// A run can be stopped or killed at any time; the next one goes on from there. When all is done it merges the results and
/// writes the report. Each result depends on the plan alone, not
/// on threads, shards or hosts.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Run part I of N equal parts.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZero<usize>>,
}

pub(super) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    campaign.check_program(VERSION).map_err(|error| failure(&error))?;
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let screen = Screen::new(quiet);
    let table = run(&campaign, shard, args.threads, &|progress, _: &Row| screen.show(progress));
    screen.end();
    let table = table.map_err(|error| failure(&error))?;
    if args.shard.is_none() {
        merge(&campaign, false).map_err(|error| failure(&error))?;
        write_report(&campaign).map_err(|error| failure(&error))?;
    }
    if !quiet {
        let (_, status) = campaign.rows().map_err(|error| failure(&error))?;
        let next = match args.shard {
            Some(_) => format!("{} {}", head("shard"), table.display()),
            None => format!("{} {}", head("report"), args.directory.join("report.html").display()),
        };
        out::stdout(&format!("{}\n{next}\n", line(&status)))?;
    }
    Ok(0)
}

/// A bar for a person, a line now and then for anybody else.
struct Screen {
    bar: ProgressBar,
    began: Instant,
    told: std::sync::Mutex<Instant>,
    lines: bool,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        let is_seen = !quiet && std::io::stderr().is_terminal();
        let bar = if is_seen { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len}, {msg}, {eta} left") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, began: now, told: std::sync::Mutex::new(now), lines: !quiet && !is_seen }
    }

    fn show(&self, progress: Progress) {
        let rate = f64::from(progress.new as u32) / self.began.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_length(progress.all as u64);
        self.bar.set_position(progress.done as u64);
        self.bar.set_message(format!("{rate:.1} a second"));
        if !self.lines {
            return;
        }
        let Ok(mut told) = self.told.lock() else { return };
        if told.elapsed() < EACH {
            return;
        }
        *told = Instant::now();
        let left = f64::from((progress.all - progress.done) as u32) / rate.max(1e-3);
        out::stderr(format!(
            "seawall: {} of {} experiments, {rate:.1} a second, {left:.0} s left",
            progress.done, progress.all
        ));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
