//! `seawall campaign submit`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::ValueEnum;
use seawall_campaign::engine::{Engine, Job, quoted};

use super::{failure, open};
use crate::style::{dim, head};
use crate::{Failure, VERSION, exit, out};

/// Let a batch system run the experiments, on hosts that share the campaign's directory and have this program.
///
/// Each task is a shard. A task that is killed goes on from the results that it has left when it is started again. When all
/// tasks are done, `seawall campaign merge DIR` puts the results together.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Batch system: a job array of Slurm's, or a task array of HyperQueue's.
    #[arg(long, value_enum)]
    engine: Which,
    /// Tasks [default: one for 200 experiments]
    #[arg(long, value_name = "COUNT")]
    shards: Option<NonZero<usize>>,
    /// Threads of each task.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    threads: NonZero<usize>,
    /// Program to run, if the other hosts have it elsewhere [default: this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Option for sbatch or `hq submit`; may be given again, such as --option=--partition=arm.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    option: Vec<String>,
    /// Print the script, and submit nothing.
    #[arg(long)]
    print: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Slurm,
    Hq,
}

pub(super) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let campaign = open(&args.directory)?;
    campaign.check_program(VERSION).map_err(failure)?;
    let own =
        std::env::current_exe().map_err(|error| Failure::new(exit::FILE, format!("this program: {error}")));
    let program = args.program.clone().map_or_else(|| own, Ok)?;
    let job = Job {
        engine: match args.engine {
            Which::Slurm => Engine::Slurm,
            Which::Hq => Engine::Hq,
        },
        program: &program,
        shards: args.shards.map(NonZero::get),
        threads: args.threads.get(),
        options: &args.option,
    };
    let (_, status) = campaign.rows().map_err(failure)?;
    if args.print {
        let directory = std::path::absolute(&args.directory)
            .map_err(|error| Failure::new(exit::FILE, format!("{}: {error}", args.directory.display())))?;
        out::stdout(&job.script(&directory, &campaign.id, job.shards(status.all)))?;
        return Ok(0);
    }
    let said = job.submit(&campaign, status.all).map_err(failure)?;
    if !quiet {
        let directory = quoted(&args.directory);
        let next = dim("how far it is, and the results when it is done:");
        out::stdout(&format!(
            "{} {said}, {} tasks\n{next}\n  seawall campaign status {directory}\n  seawall campaign merge {directory}\n",
            head("job"),
            job.shards(status.all),
        ))?;
    }
    Ok(0)
}
