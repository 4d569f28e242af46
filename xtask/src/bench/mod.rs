//! `cargo xtask bench`: the figures that the project promises, measured, each beside its peers' from the same run.
//!
//! Every figure is the median of several measurements by CPU time; the least and the greatest stand beside, and the median
//! by wall time. The measurements of a figure take turns with its peers': ours, theirs, ours, theirs. So both meet
//! the host's noise. QEMU runs the same images on one thread (`thread=single`), as a second one would hide work.
//!
//! A CPU's speed is taken from two runs of one loop with different iteration counts, as the difference of iterations over
//! the difference of times: start-up, image loading and exit cancel.

use std::process::{Command, ExitCode};

mod campaign;
mod cost;
mod demo;
mod events;
mod guest;
mod linux;
mod peer;
mod snapshot;
mod table;

use cost::Cost;

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

/// What is promised of a figure, by CPU time.
#[derive(Clone, Copy)]
enum Promise {
    AtLeast(f64),
    AtMost(f64),
    /// A rate that is so many times the best peer's.
    RateOfPeers(Times),
    /// A time of which the best peer takes so many times as much.
    TimeOfPeers(Times),
}

/// So many times as good as the best peer, at least.
#[derive(Clone, Copy)]
struct Times {
    cpu: f64,
    /// By wall time, if that is promised as well.
    wall: Option<f64>,
}

impl Times {
    const fn of_cpu_time(cpu: f64) -> Self {
        Self { cpu, wall: None }
    }

    fn are_kept_by(self, ratio: Cost) -> bool {
        ratio.cpu >= self.cpu && self.wall.is_none_or(|wall| ratio.wall >= wall)
    }
}

/// What one contestant of a figure took, in its unit.
type Measure<'a> = Box<dyn FnMut() -> Result<Cost, String> + 'a>;

/// A figure to be measured.
struct Trial<'a> {
    name: &'static str,
    unit: &'static str,
    promise: Promise,
    ours: Measure<'a>,
    /// Others, by their names, at the same work.
    peers: Vec<(String, Measure<'a>)>,
}

impl Trial<'_> {
    /// Everybody in turn, so many times. Whoever fails has no figure.
    fn measure(self, repeat: u32) -> Figure {
        let mut contestants = vec![(String::new(), self.ours, Ok(Vec::new()))];
        contestants.extend(self.peers.into_iter().map(|(name, measure)| (name, measure, Ok(Vec::new()))));
        for _ in 0..repeat {
            for (_, measure, series) in &mut contestants {
                let Ok(costs) = series else { continue };
                match measure() {
                    Ok(cost) => costs.push(cost),
                    Err(why) => *series = Err(why),
                }
            }
        }
        let spread = |series: Result<Vec<Cost>, String>| series.and_then(|costs| Spread::of(&costs));
        let mut all = contestants.into_iter().map(|(name, _, series)| (name, spread(series)));
        let ours = all.next().map_or_else(|| Err("measured no times".to_owned()), |(_, ours)| ours);
        let peers = all.collect();
        Figure { name: self.name, unit: self.unit, promise: self.promise, ours, peers }
    }
}

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    /// The medians.
    median: Cost,
    /// Of CPU time.
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(costs: &[Cost]) -> Result<Self, String> {
        let sorted = |of: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (cpu, wall) = (sorted(|cost| cost.cpu), sorted(|cost| cost.wall));
        match (&cpu[..], wall.get(wall.len() / 2)) {
            ([least, ..], Some(&median_wall)) => Ok(Self {
                median: Cost { cpu: cpu[cpu.len() / 2], wall: median_wall },
                least: *least,
                greatest: cpu[cpu.len() - 1],
            }),
            _ => Err("measured no times".to_owned()),
        }
    }
}

/// One measured figure.
struct Figure {
    name: &'static str,
    unit: &'static str,
    promise: Promise,
    /// Ours, or why there is none.
    ours: Result<Spread, String>,
    peers: Vec<(String, Result<Spread, String>)>,
}

impl Figure {
    /// Whether the promise is kept; a figure that could not be measured keeps nothing.
    fn is_kept(&self) -> bool {
        let Ok(ours) = &self.ours else { return false };
        match self.promise {
            Promise::AtLeast(least) => ours.median.cpu >= least,
            Promise::AtMost(most) => ours.median.cpu <= most,
            Promise::RateOfPeers(times) | Promise::TimeOfPeers(times) => {
                let mut ratios = self.peers.iter().filter_map(|(_, spread)| self.ratio(spread)).peekable();
                ratios.peek().is_some() && ratios.all(|ratio| times.are_kept_by(ratio))
            }
        }
    }

    /// How many times better than a peer: more of a rate, less of a time.
    fn ratio(&self, peer: &Result<Spread, String>) -> Option<Cost> {
        let (ours, peer) = (self.ours.as_ref().ok()?.median, peer.as_ref().ok()?.median);
        Some(match self.promise {
            Promise::AtLeast(_) | Promise::RateOfPeers(_) => {
                Cost { cpu: ours.cpu / peer.cpu, wall: ours.wall / peer.wall }
            }
            Promise::AtMost(_) | Promise::TimeOfPeers(_) => {
                Cost { cpu: peer.cpu / ours.cpu, wall: peer.wall / ours.wall }
            }
        })
    }
}

/// A figure that can be measured: its name, and how; or why this host lacks what it takes.
type Measurement = (&'static str, for<'a> fn(&'a [peer::Qemu]) -> Result<Trial<'a>, String>);

const MEASUREMENTS: [Measurement; 15] = [
    (guest::ALU, guest::alu),
    (guest::LOAD_STORE, guest::load_store),
    (guest::SEA, |qemus| Ok(guest::sea(qemus))),
    (snapshot::RESTORE, |_| snapshot::restore()),
    (snapshot::RATE, |_| snapshot::rate()),
    (snapshot::THREADS, |_| snapshot::threads()),
    (linux::BOOT, linux::boot),
    (linux::WORKLOAD, |_| linux::workload()),
    (linux::MEMORY, |_| linux::memory()),
    (campaign::RATE, |_| campaign::rate()),
    (campaign::MEMORY, |_| campaign::memory()),
    (events::SET_EVENTS, |_| Ok(events::set_events())),
    (events::DECODE, |_| Ok(events::decode())),
    (events::TEXT, |_| Ok(events::text())),
    (demo::DEMO, |_| demo::demo()),
];

/// Runs the task.
pub(crate) fn run(options: &Options) -> ExitCode {
    if cfg!(debug_assertions) {
        return run_released(options);
    }
    let qemus = peer::all();
    let wanted = MEASUREMENTS.iter().filter(|(name, _)| name.contains(&options.only));
    let figures: Vec<Figure> = wanted
        .filter_map(|(name, trial)| {
            eprintln!("measuring: {name}");
            match trial(&qemus) {
                Ok(trial) => Some(trial.measure(options.repeat)),
                Err(why) => {
                    eprintln!("skipped: {name}: {why}");
                    None
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(cpu: f64) -> Spread {
        Spread { median: Cost { cpu, wall: 2.0 * cpu }, least: cpu, greatest: cpu }
    }

    fn figure(ours: Result<f64, String>, promise: Promise, peers: &[f64]) -> Figure {
        let peers = peers.iter().map(|&cpu| ("peer".to_owned(), Ok(spread(cpu)))).collect();
        Figure { name: "figure", unit: "ns", promise, ours: ours.map(spread), peers }
    }

    #[test]
    fn promise_is_kept_at_its_bound_and_missed_beyond() {
        assert!(figure(Ok(2.0), Promise::AtLeast(2.0), &[]).is_kept());
        assert!(!figure(Ok(1.9), Promise::AtLeast(2.0), &[]).is_kept());
        assert!(figure(Ok(2.0), Promise::AtMost(2.0), &[]).is_kept());
        assert!(!figure(Ok(2.1), Promise::AtMost(2.0), &[]).is_kept());
    }

    #[test]
    fn a_promise_beside_peers_is_measured_by_the_best_of_them_and_needs_one() {
        let (time, rate) = (Promise::TimeOfPeers, Promise::RateOfPeers);
        let half = Times::of_cpu_time(0.5);
        assert!(figure(Ok(4.0), time(half), &[4.0, 2.0]).is_kept());
        assert!(!figure(Ok(4.1), time(half), &[4.0, 2.0]).is_kept());
        assert!(!figure(Ok(4.0), time(half), &[]).is_kept());
        assert!(figure(Ok(2.0), rate(half), &[4.0, 2.0]).is_kept());
        assert!(!figure(Ok(1.9), rate(half), &[4.0, 2.0]).is_kept());
    }

    #[test]
    fn a_promise_of_wall_time_is_one_more() {
        let twice_as_fast = |wall| Promise::TimeOfPeers(Times { cpu: 2.0, wall: Some(wall) });
        assert!(figure(Ok(1.0), twice_as_fast(2.0), &[2.0]).is_kept());
        assert!(!figure(Ok(1.0), twice_as_fast(2.1), &[2.0]).is_kept());
    }

    #[test]
    fn figure_that_could_not_be_measured_keeps_nothing_and_says_why() {
        let failed = figure(Err("no such thing".to_owned()), Promise::AtMost(2.0), &[1.0]);
        assert!(!failed.is_kept());
        assert_eq!(failed.ratio(&Ok(spread(1.0))), None);
        let table = table::text(&[failed]);
        assert!(table.contains("no such thing") && table.contains("MISSED"), "{table}");
    }

    #[test]
    fn ratio_above_one_is_better_than_the_peer_for_rates_and_for_times() {
        let ratio = |promise, peer| figure(Ok(2.0), promise, &[]).ratio(&Ok(spread(peer)));
        assert_eq!(ratio(Promise::AtLeast(1.0), 1.0), Some(Cost { cpu: 2.0, wall: 2.0 }));
        assert_eq!(ratio(Promise::AtMost(9.0), 6.0), Some(Cost { cpu: 3.0, wall: 3.0 }));
        assert_eq!(
            ratio(Promise::TimeOfPeers(Times::of_cpu_time(9.0)), 6.0),
            Some(Cost { cpu: 3.0, wall: 3.0 })
        );
    }

    #[test]
    fn a_spread_has_the_middle_value_of_each_time_and_both_ends_of_cpu_time() {
        let costs = [(5.0, 9.0), (1.0, 7.0), (3.0, 8.0)].map(|(cpu, wall)| Cost { cpu, wall });
        let expected = Spread { median: Cost { cpu: 3.0, wall: 8.0 }, least: 1.0, greatest: 5.0 };
        assert_eq!(Spread::of(&costs), Ok(expected));
        assert_eq!(Spread::of(&[]), Err("measured no times".to_owned()));
    }

    #[test]
    fn contestants_take_turns_and_whoever_fails_is_measured_no_more() {
        let turns = std::cell::RefCell::new(String::new());
        let by = |name: char, times: usize| -> Measure<'_> {
            let mut left = times;
            let turns = &turns;
            Box::new(move || {
                turns.borrow_mut().push(name);
                left = left.checked_sub(1).ok_or("broken")?;
                Ok(Cost { cpu: 1.0, wall: 1.0 })
            })
        };
        let trial = Trial {
            name: "figure",
            unit: "s",
            promise: Promise::AtMost(1.0),
            ours: by('a', 9),
            peers: vec![("peer".to_owned(), by('b', 1))],
        };
        let figure = trial.measure(3);
        assert!(figure.is_kept());
        assert_eq!(figure.peers[0].1, Err("broken".to_owned()));
        assert_eq!(turns.into_inner(), "ababa");
    }

    #[test]
    fn json_has_the_values_the_promise_and_the_peers() {
        let json = table::json(&[figure(Ok(2.0), Promise::AtMost(4.0), &[8.0])]);
        assert_eq!(
            json.to_string(),
            r#"{"figures":[{"error":null,"kept":true,"name":"figure","peers":[{"error":null,"name":"peer","ratio":{"cpu":4.0,"wall":4.0},"value":{"cpu":8.0,"greatest":8.0,"least":8.0,"wall":16.0}}],"promise":{"at_most":4.0},"unit":"ns","value":{"cpu":2.0,"greatest":2.0,"least":2.0,"wall":4.0}}]}"#
        );
    }
}
