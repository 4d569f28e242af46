//! The destination's process. It prints its observations on standard output, and types its standard input.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use seawall::Outcome;
use seawall::migration::Limits;
use seawall::telemetry::ErrorReport;
use seawall_vmm::{Arriving, Observer};

/// The variable with the socket of the migration.
pub(super) const ASKED: &str = "SEAWALL_LAB_MIGRATE_FROM";
/// The time limit of the guest.
const LIMIT: Duration = Duration::from_secs(120);

/// Prefixes of its output lines.
pub(super) const CONSOLE: &str = "console: ";
pub(super) const ERROR: &str = "error: ";
pub(super) const ARRIVED: &str = "arrived: ";
pub(super) const BAD: &str = "bad: ";
pub(super) const END: &str = "end: ";

/// Runs as the destination of a migration if this process was started as one, and returns its exit code.
pub fn destination_if_asked() -> Option<ExitCode> {
    let path = std::env::var_os(ASKED)?;
    Some(match UnixStream::connect(path).map_err(Into::into).and_then(|link| destination(&link)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("destination: {error}");
            ExitCode::FAILURE
        }
    })
}

fn destination(link: &UnixStream) -> Result<(), Box<dyn Error>> {
    let arriving = Arriving::read(link, &Limits::default())?;
    let config = arriving.config();
    let (mut machine, arrived) = arriving.receive(config, Box::new(Says))?;
    say(&format!("{ARRIVED}{} pages", arrived.pages));
    for bad in machine.ledger().with(|ledger| ledger.ranges().collect::<Vec<_>>()) {
        let seconds = bad.time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        say(&format!("{BAD}{:#x}..{:#x} {:?} {seconds}", bad.range.start, bad.range.end, bad.cause));
    }
    arrived.take_over(link)?;
    let keyboard = machine.keyboard();
    std::thread::spawn(move || {
        let mut typed = [0];
        while let Ok(1..) = io::stdin().read(&mut typed) {
            keyboard.type_in(&typed);
        }
    });
    let end = machine.run(Some(LIMIT))?;
    say(&format!("{END}{end}"));
    Ok(())
}

/// The parent process may have gone.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints the guest's output, and its errors.
struct Says;

impl Observer for Says {
    fn line(&mut self, line: &str) {
        say(&format!("{CONSOLE}{}", line.trim_end()));
    }

    fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
        say(&format!("{ERROR}vcpu {}: {outcome}", report.vcpu));
    }
}
