//! `seawall campaign plan`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use seawall_campaign::engine::quoted;
use seawall_campaign::{Firmware, POLICIES, Planned, Request, plan};
use seawall_linux::{Fetch, cache_directory, services};

use super::failure;
use crate::style::{dim, head};
use crate::{Failure, VERSION, exit, guest, out, parse};

/// Rounds of the services that do not end before any horizon.
const ROUNDS: u32 = 1_000_000;

/// Boot the guest, keep moments of it, and find the pages that something uses from each on.
///
/// A page that nothing consumes before the horizon survives whatever the policy. The plan proves that: it lets all these
/// pages go bad at once, and the run must be the one without an error, to the bit.
#[derive(clap::Args)]
pub(super) struct Args {
    /// New directory of the campaign.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The guest of `seawall guest fetch debian --services`: root on a disk, a database, a web server, a compressor, five
    /// processes.
    #[arg(long, conflicts_with_all = ["kernel", "initrd", "disk"], required_unless_present = "kernel")]
    services: bool,
    /// arm64 Linux of your own.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initramfs.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Its disk, raw; may be given again. The campaign keeps a copy.
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// Its command line [default: console=ttyAMA0 panic=-1 quiet]
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// Size of the RAM.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse::size)]
    memory: u64,
    /// Number of CPUs.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    cpus: u32,
    /// How the guest learns of errors: by the abort alone (`dt`), or by a record as well (`acpi`).
    #[arg(long, value_enum, default_value_t = How::Both)]
    firmware: How,
    /// The first moment is when the guest writes a line that contains this.
    #[arg(long, value_name = "TEXT", default_value = "campaign: begin")]
    begin: String,
    /// Moments for each firmware.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    moments: u32,
    /// Guest's time from one moment to the next, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 400)]
    spacing: u64,
    /// Guest's time from a moment to the judgement, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300)]
    horizon: u64,
    /// Draw COUNT of the pages that are used at each moment [default: all]
    #[arg(long, value_name = "COUNT")]
    sample: Option<u64>,
    /// Number that the drawing depends on.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Checkpoints of the run without an error, from which experiments begin.
    #[arg(long, value_name = "COUNT", default_value_t = 24, hide_short_help = true)]
    checkpoints: u32,
    /// Policy to compare; may be given again [default: serror, mainline, full]
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
}

/// How a guest learns of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    Dt,
    Acpi,
    Both,
}

pub(super) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let mut request = Request {
        program: VERSION.to_owned(),
        kernel: args.kernel.clone().unwrap_or_default(),
        initrd: args.initrd.clone(),
        disks: args.disk.clone(),
        command_line: args.append.clone().unwrap_or_else(|| seawall_linux::COMMAND_LINE.to_owned()),
        memory: args.memory,
        cpus: args.cpus,
        firmware: match args.firmware {
            How::Dt => vec![Firmware::Dt],
            How::Acpi => vec![Firmware::Acpi],
            How::Both => Firmware::ALL.to_vec(),
        },
        begin: args.begin.clone(),
        moments: args.moments,
        spacing: Duration::from_millis(args.spacing).as_nanos() as u64,
        horizon: Duration::from_millis(args.horizon).as_nanos() as u64,
        checkpoints: args.checkpoints,
        sample: args.sample,
        seed: args.seed,
        policies: if args.policy.is_empty() {
            POLICIES.map(str::to_owned).to_vec()
        } else {
            args.policy.clone()
        },
    };
    if args.services {
        let directory = cache_directory()
            .ok_or_else(|| Failure::new(exit::FILE, "there is no home to keep a guest in"))?;
        let found =
            guest::fetch_services(&Fetch::new(directory), quiet).map_err(|error| guest::failure(&error))?;
        request.kernel = found.guest.kernel;
        request.initrd = Some(found.initrd);
        request.disks = vec![found.disk];
        if args.append.is_none() {
            request.command_line = format!("{} seawall.rounds={ROUNDS}", services::COMMAND_LINE);
        }
    }
    if !quiet {
        out::stderr(format!("seawall: the guest boots, until it says {:?}", args.begin));
    }
    let mut tell = |planned: &Planned| {
        if !quiet {
            let _ = out::stdout(&line(planned));
        }
    };
    let campaign = plan(&request, &args.directory, &mut tell).map_err(failure)?;
    if !quiet {
        let (_, status) = campaign.rows().map_err(failure)?;
        let directory = quoted(&args.directory);
        out::stdout(&format!(
            "{}\n  seawall campaign run {directory}\n",
            dim(format!("{} experiments:", status.all))
        ))?;
    }
    Ok(0)
}

fn line(planned: &Planned) -> String {
    let Planned { moment, pages, touched, steps, took, services, has_uses } = planned;
    let services = services.join(", ");
    let uses = if *has_uses { "" } else { "; the guest does not say what its pages are used for" };
    format!(
        "{} {touched} of {pages} pages are used; the others were all bad at once, and nothing changed\n  {}\n",
        head(format!("{moment:<7}")),
        dim(format!(
            "{steps} instructions, {:.2} s, {:.2} s with the trace; judged by {services}{uses}",
            took.0.as_secs_f64(),
            took.1.as_secs_f64()
        )),
    )
}
