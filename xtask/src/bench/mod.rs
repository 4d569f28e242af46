//! `cargo xtask bench`: the figures that the project promises, measured, each beside its peer's from the same run.
//!
//! A CPU's speed is taken from two runs of one loop with different iteration counts, as the difference of iterations
//! over the difference of wall time: start-up, image loading and exit cancel. Every figure is the median of several
//! such measurements. QEMU runs the same flat images where `qemu-system-aarch64` is installed.

use std::process::{Command, ExitCode};

mod demo;
mod events;
mod guest;
mod linux;
mod peer;
mod snapshot;
mod table;

/// What to print, and what to make of it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a promised figure is missed or could not be measured
    #[arg(long)]
    check: bool,
    /// How often each figure is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measure only the figures whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// What is promised of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Promise {
    AtLeast(f64),
    AtMost(f64),
}

impl Promise {
    fn is_kept_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// One measured figure.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// The value, or why there is none.
    pub(crate) value: Result<f64, String>,
    pub(crate) promise: Promise,
    /// The peer's name and value, from the same run.
    pub(crate) peer: Option<(&'static str, Result<f64, String>)>,
}

impl Figure {
    /// Whether the promise is kept; a figure that could not be measured keeps nothing.
    pub(crate) fn is_kept(&self) -> bool {
        self.value.as_ref().is_ok_and(|value| self.promise.is_kept_by(*value))
    }

    /// How many times better than the peer: more of a rate, less of a time.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let ours = self.value.as_ref().ok()?;
        let peers = self.peer.as_ref()?.1.as_ref().ok()?;
        Some(match self.promise {
            Promise::AtLeast(_) => ours / peers,
            Promise::AtMost(_) => peers / ours,
        })
    }
}

/// A figure that can be measured: its name, and how, given the number of repetitions; or why this host lacks what it
/// takes.
type Measurement = (&'static str, fn(u32) -> Result<Figure, String>);

const MEASUREMENTS: [Measurement; 11] = [
    (guest::ALU, |repeat| Ok(guest::alu(repeat))),
    (guest::LOAD_STORE, |repeat| Ok(guest::load_store(repeat))),
    (guest::SEA, |repeat| Ok(guest::sea(repeat))),
    (snapshot::RESTORE, |repeat| Ok(snapshot::restore(repeat))),
    (snapshot::RATE, |repeat| Ok(snapshot::rate(repeat))),
    (linux::BOOT, linux::boot),
    (linux::MEMORY, |_| linux::memory()),
    (events::SET_EVENTS, |repeat| Ok(events::set_events(repeat))),
    (events::DECODE, |repeat| Ok(events::decode(repeat))),
    (events::TEXT, |repeat| Ok(events::text(repeat))),
    (demo::DEMO, |repeat| Ok(demo::demo(repeat))),
];

/// Runs the task.
pub(crate) fn run(options: &Options) -> ExitCode {
    if cfg!(debug_assertions) {
        return run_released(options);
    }
    let wanted = MEASUREMENTS.iter().filter(|(name, _)| name.contains(&options.only));
    let figures: Vec<Figure> = wanted
        .filter_map(|(name, measure)| {
            eprintln!("measuring: {name}");
            measure(options.repeat).map_err(|why| eprintln!("skipped: {name}: {why}")).ok()
        })
        .collect();
    if options.json {
        println!("{}", table::json(&figures));
    } else {
        print!("{}", table::text(&figures));
    }
    let all_kept = !figures.is_empty() && figures.iter().all(Figure::is_kept);
    if options.check && !all_kept { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Figures of a debug build mean nothing: runs the same in a release build.
fn run_released(options: &Options) -> ExitCode {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--release", "--quiet", "--package", "xtask", "--", "bench"]);
    cargo.args(["--repeat", &options.repeat.to_string(), "--only", &options.only]);
    cargo.args(options.json.then_some("--json")).args(options.check.then_some("--check"));
    match cargo.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The median of what `measure` gives, `repeat` times; the first error ends it.
pub(crate) fn median(repeat: u32, mut measure: impl FnMut() -> Result<f64, String>) -> Result<f64, String> {
    let mut values = (0..repeat).map(|_| measure()).collect::<Result<Vec<f64>, String>>()?;
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().ok_or_else(|| "measured no times".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: Result<f64, String>, promise: Promise, peer: Option<f64>) -> Figure {
        Figure { name: "figure", unit: "ns", value, promise, peer: peer.map(|value| ("peer", Ok(value))) }
    }

    #[test]
    fn promise_is_kept_at_its_bound_and_missed_beyond() {
        assert!(figure(Ok(2.0), Promise::AtLeast(2.0), None).is_kept());
        assert!(!figure(Ok(1.9), Promise::AtLeast(2.0), None).is_kept());
        assert!(figure(Ok(2.0), Promise::AtMost(2.0), None).is_kept());
        assert!(!figure(Ok(2.1), Promise::AtMost(2.0), None).is_kept());
    }

    #[test]
    fn figure_that_could_not_be_measured_keeps_nothing_and_says_why() {
        let failed = figure(Err("no such thing".to_owned()), Promise::AtMost(2.0), Some(1.0));
        assert!(!failed.is_kept());
        assert_eq!(failed.ratio(), None);
        let table = table::text(&[failed]);
        assert!(table.contains("no such thing") && table.contains("MISSED"), "{table}");
    }

    #[test]
    fn ratio_above_one_is_better_than_the_peer_for_rates_and_for_times() {
        assert_eq!(figure(Ok(6.0), Promise::AtLeast(1.0), Some(2.0)).ratio(), Some(3.0));
        assert_eq!(figure(Ok(2.0), Promise::AtMost(9.0), Some(6.0)).ratio(), Some(3.0));
        assert_eq!(figure(Ok(2.0), Promise::AtMost(9.0), None).ratio(), None);
    }

    #[test]
    fn median_is_the_middle_value_and_the_first_error_ends_it() {
        let mut values = [5.0, 1.0, 3.0].into_iter();
        assert_eq!(median(3, || values.next().ok_or_else(String::new)), Ok(3.0));
        assert_eq!(median(2, || Err("broken".to_owned())), Err("broken".to_owned()));
    }

    #[test]
    fn json_has_the_value_the_promise_and_the_peer() {
        let json = table::json(&[figure(Ok(2.0), Promise::AtMost(4.0), Some(8.0))]);
        assert_eq!(
            json.to_string(),
            r#"{"figures":[{"error":null,"kept":true,"name":"figure","peer":{"error":null,"name":"peer","value":8.0},"promise":{"at_most":4.0},"ratio":4.0,"unit":"ns","value":2.0}]}"#
        );
    }
}
