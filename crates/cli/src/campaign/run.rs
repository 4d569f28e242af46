//! `seawall campaign run`.

use std::io::IsTerminal as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use seawall_campaign::{Only, Progress, Row, Shard, merge, run, write_report};

use super::{failure, line, open};
use crate::style::head;
use crate::{Failure, VERSION, out};

/// How often a run says how far it is, where nobody sees a bar.
const EACH: Duration = Duration::from_secs(30);

/// Run the experiments that have no result yet.
///
/// A run can be stopped or killed at any time; the next one goes on from there. At its end it merges the results and
/// writes the report. Each result depends on the plan alone, not on threads, shards or hosts.
///
/// Pages are tried in the order in which they were drawn, in rounds of 240 of each moment. So a run that was stopped has tried
/// a random sample of each moment's pages, and its report says how large.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Run part I of N equal parts.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Run the experiments of one moment, such as acpi-0; may be given again.
    #[arg(long, value_name = "MOMENT")]
    moment: Vec<String>,
    /// Run the experiments under one policy; may be given again.
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// Run those with the COUNT pages of each moment that were drawn first.
    #[arg(long, value_name = "COUNT")]
    pages: Option<u64>,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZero<usize>>,
}

pub(super) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    campaign.check_program(VERSION).map_err(failure)?;
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let only = Only { moments: args.moment.clone(), policies: args.policy.clone(), pages: args.pages };
    let screen = Screen::new(quiet);
    let table = run(&campaign, shard, &only, args.threads, &|progress, _: &Row| screen.show(progress));
    screen.end();
    let table = table.map_err(|error| {
        let Failure { code, message } = failure(error);
        Failure::new(code, format!("{message}; finished results are kept, the next run goes on from them"))
    })?;
    if args.shard.is_none() {
        merge(&campaign, true).map_err(failure)?;
        write_report(&campaign).map_err(failure)?;
    }
    if !quiet {
        let (_, status) = campaign.rows().map_err(failure)?;
        let next = match (args.shard, table) {
            (Some(_), Some(table)) => format!("{} {}", head("shard"), table.display()),
            (Some(_), None) => format!("{} is not complete", head("shard")),
            (None, _) => format!("{} {}", head("report"), args.directory.join("report.html").display()),
        };
        out::stdout(&format!("{}\n{next}\n", line(&status)))?;
    }
    Ok(0)
}

/// This process's.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// A bar for a person, a line now and then for anybody else.
pub(super) struct Screen {
    bar: ProgressBar,
    began: Instant,
    /// Processor time before.
    used: Duration,
    told: std::sync::Mutex<Instant>,
    lines: bool,
}

impl Screen {
    pub(super) fn new(quiet: bool) -> Self {
        let is_seen = !quiet && std::io::stderr().is_terminal();
        let bar = if is_seen { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len}, {msg}, {eta} left") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            began: now,
            used: processor_time(),
            told: std::sync::Mutex::new(now),
            lines: !quiet && !is_seen,
        }
    }

    pub(super) fn show(&self, progress: Progress) {
        let elapsed = self.began.elapsed().as_secs_f64().max(1e-3);
        let (rate, cores) = (f64::from(progress.new as u32) / elapsed, self.cores(elapsed));
        self.bar.set_length(progress.all as u64);
        self.bar.set_position(progress.done as u64);
        self.bar.set_message(format!("{rate:.1} a second on {cores:.1} cores"));
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
            "seawall: {} of {} experiments, {rate:.1} a second on {cores:.1} cores, {left:.0} s left",
            progress.done, progress.all
        ));
    }

    /// How many cores this process had, on the average.
    fn cores(&self, elapsed: f64) -> f64 {
        let used = processor_time().saturating_sub(self.used);
        used.as_secs_f64() / elapsed
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
