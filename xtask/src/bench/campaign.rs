//! A campaign of Debian's guest on two threads, beside one: experiments a second, and memory.

use std::path::Path;
use std::process::Command;

use super::cost::{self, Cost};
use super::{Measure, Promise, Times, Trial};

pub(crate) const RATE: &str = "experiments of a campaign, on two threads";
pub(crate) const MEMORY: &str = "memory for one more experiment at a time";

/// Pages of the shorter run and of the longer, each under three policies: what a run takes beside its experiments cancels.
const PAGES: [u32; 2] = [4, 24];
const POLICIES: u32 = 3;

/// A plan, kept as long as it is measured.
struct Planned {
    folder: tempfile::TempDir,
    binary: std::path::PathBuf,
}

impl Planned {
    fn new() -> Result<Self, String> {
        let binary = super::demo::build()?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut plan = Command::new(&binary);
        plan.args(["campaign", "plan"]).arg(folder.path());
        plan.args(["--services", "--firmware", "dt", "--horizon", "50", "--sample", &PAGES[1].to_string()]);
        let planned = cost::to_end(&mut plan)?;
        if planned.status.success() {
            Ok(Self { folder, binary })
        } else {
            Err(format!("no plan: it ended with {}", planned.status))
        }
    }

    /// A run of so many pages, with none of the results that there were.
    fn run(&self, threads: u32, pages: u32) -> Result<Command, String> {
        for result in ["results", "results.parquet"] {
            let path = self.folder.path().join(result);
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { remove(&path) };
            gone.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let mut run = Command::new(&self.binary);
        run.args(["campaign", "run"]).arg(self.folder.path());
        run.args(["--threads", &threads.to_string(), "--pages", &pages.to_string()]);
        Ok(run)
    }

    /// Experiments a second: by CPU time, as if each thread had a core that it never waits on.
    fn rate(&self, threads: u32) -> Result<Cost, String> {
        let cost = |pages| {
            let run = cost::to_end(&mut self.run(threads, pages)?)?;
            if run.status.success() { Ok(run.cost) } else { Err(format!("it ended with {}", run.status)) }
        };
        let [few, many] = PAGES;
        let difference = cost(many)? - cost(few)?;
        let experiments = f64::from((many - few) * POLICIES);
        Ok(Cost {
            cpu: experiments / (difference.cpu / f64::from(threads)),
            wall: experiments / difference.wall,
        })
    }

    fn peak(&self, threads: u32) -> Result<u64, String> {
        cost::peak_memory(&mut self.run(threads, PAGES[1])?, cost::PROPORTIONAL).map(|(peak, _)| peak)
    }
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Experiments a second on two threads and on one.
///
/// # Errors
/// Why it is not measured here.
pub(super) fn rate() -> Result<Trial<'static>, String> {
    let planned = std::rc::Rc::new(Planned::new()?);
    let one = std::rc::Rc::clone(&planned);
    let peers: Vec<(String, Measure<'_>)> = vec![("one thread".to_owned(), Box::new(move || one.rate(1)))];
    let promise = Promise::RateOfPeers(Times { cpu: 1.8, wall: Some(1.8) });
    Ok(Trial { name: RATE, unit: "/s", promise, ours: Box::new(move || planned.rate(2)), peers })
}

/// MiB that a run takes at most on two threads, less what it takes on one: all that one more guest writes to is in it.
///
/// # Errors
/// Why it is not measured here.
pub(super) fn memory() -> Result<Trial<'static>, String> {
    let planned = Planned::new()?;
    let ours: Measure<'_> = Box::new(move || {
        let more = planned.peak(2)?.saturating_sub(planned.peak(1)?);
        let mebibytes = f64::from((more >> 10) as u32) / 1024.0;
        Ok(Cost { cpu: mebibytes, wall: mebibytes })
    });
    Ok(Trial { name: MEMORY, unit: "MiB", promise: Promise::AtMost(40.0), ours, peers: Vec::new() })
}
