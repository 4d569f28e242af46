//! `cargo xtask ci`: everything that a change must pass.
//!
//! The steps that take the lab run beside the others: a guest that boots, or an apt that fetches, leaves a CPU free. A step
//! that fails does not keep the next from running. A step whose tool is missing is skipped by name, with the reason; where
//! `CI=true` says that everything must be there, it fails instead, unless [`MAY_SKIP`] has it. The end of what failed steps
//! said is repeated before the summary. The last line is `N passed, N failed, N skipped`, of steps.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

mod call;
mod msrv;
mod steps;
mod tools;

use call::{Call, Ended, Output};
use steps::{Lane, MAY_SKIP, STEPS, Step};

/// Which steps to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Run the steps that take crates alone: no other download, no other tool
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Install the Debian packages that the steps use and that are missing, first; as root
    #[arg(long)]
    install: bool,
    /// Print the steps and end
    #[arg(long)]
    list: bool,
}

/// What a step does here and now.
enum Plan {
    /// These, until one fails.
    Run(Vec<Call>),
    /// Something else than usual, as the summary tells.
    RunInstead(Vec<Call>, String),
    /// The same, but what takes this is left out, as the summary tells.
    RunWithout(Vec<Call>, String),
    /// Nothing, with the reason.
    Skip(String),
    /// It failed before there was anything to run.
    Fail(String),
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// A line of the summary.
struct Entry {
    name: &'static str,
    outcome: Outcome,
    time: Duration,
    note: String,
    /// The end of what a failed step said, where it was kept.
    last_words: String,
}

/// Whether everything must be there that the steps take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// Steps whose tools are missing are skipped.
    WhatIsHere,
    /// `CI=true`: it fails, but for [`MAY_SKIP`].
    Everything,
}

/// Runs the steps.
pub(crate) fn run(options: &Options) -> ExitCode {
    if options.list {
        for step in STEPS {
            println!("{:<12} {}{}", step.name, step.about, if step.is_quick { " (quick)" } else { "" });
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options.only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        eprintln!("error: no step {unknown:?}: see --list");
        return ExitCode::from(2);
    }
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let demand = if is_ci && !options.quick { Demand::Everything } else { Demand::WhatIsHere };
    if options.install {
        match tools::install() {
            Err(error) if demand == Demand::Everything => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
            Err(error) => eprintln!("warning: {error}"),
            Ok(()) => {}
        }
    }
    let is_chosen = |step: &&Step| match (options.quick, &options.only[..]) {
        (true, _) => step.is_quick,
        (false, []) => true,
        (false, only) => only.iter().any(|name| name == step.name),
    };
    let entries = run_all(&STEPS.iter().filter(is_chosen).collect::<Vec<_>>(), demand);
    println!("\n{}", summary(&entries));
    if entries.iter().any(|entry| entry.outcome == Outcome::Failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Both lanes at once.
fn run_all(steps: &[&Step], demand: Demand) -> Vec<Entry> {
    let (first, second): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| step.lane == Lane::Host);
    // On a terminal the words of the first lane are seen as they come; the second lane's must not mix with them.
    let output: fn() -> Output =
        if std::io::stdout().is_terminal() { || Output::Shown } else { Output::kept };
    let second_output = if first.is_empty() { output } else { Output::kept };
    let mut entries = std::thread::scope(|scope| {
        let second = scope.spawn(|| run_lane(&second, demand, second_output));
        let mut entries = run_lane(&first, demand, output);
        match second.join() {
            Ok(of_second) => entries.extend(of_second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        entries
    });
    entries.sort_by_key(|entry| steps.iter().position(|step| step.name == entry.name));
    entries
}

fn run_lane(steps: &[&Step], demand: Demand, output: fn() -> Output) -> Vec<Entry> {
    let run = |step: &&Step| {
        let output = output();
        let entry = run_step(step, demand, &output);
        let text = output.show();
        let last_words =
            if entry.outcome == Outcome::Failed { last_lines(&text, LAST_WORDS) } else { String::new() };
        Entry { last_words, ..entry }
    };
    steps.iter().map(run).collect()
}

/// How many lines of a failed step are repeated before the summary: the log above it may be long, or cut.
const LAST_WORDS: usize = 60;

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn run_step(step: &Step, demand: Demand, output: &Output) -> Entry {
    output.say(&format!("\n=== {}: {}", step.name, step.about));
    let start = Instant::now();
    let (outcome, note) = match (step.plan)() {
        Plan::Run(calls) => outcome(&calls, String::new(), output),
        Plan::RunInstead(calls, note) => outcome(&calls, note, output),
        Plan::RunWithout(_, lacking) if demand == Demand::Everything => (Outcome::Skipped, lacking),
        Plan::RunWithout(calls, lacking) => outcome(&calls, format!("in part: {lacking}"), output),
        Plan::Skip(reason) => (Outcome::Skipped, reason),
        Plan::Fail(reason) => (Outcome::Failed, reason),
    };
    let may_skip = demand == Demand::WhatIsHere || MAY_SKIP.iter().any(|(name, _)| *name == step.name);
    let (outcome, note) = match outcome {
        Outcome::Skipped if !may_skip => (Outcome::Failed, format!("CI must not skip it: {note}")),
        other => (other, note),
    };
    let time = start.elapsed();
    output.say(&format!("=== {}: {} in {:.1} s {note}", step.name, word(outcome), time.as_secs_f64()));
    Entry { name: step.name, outcome, time, note, last_words: String::new() }
}

/// Runs the calls until one fails or cannot be done here; with what there is to note.
fn outcome(calls: &[Call], note: String, output: &Output) -> (Outcome, String) {
    for call in calls {
        match call.run(output) {
            Ok(Ended::Well) => {}
            Ok(Ended::Unavailable) => {
                return (Outcome::Skipped, format!("`{}`: what it takes cannot be had here", call.line()));
            }
            Err(error) => return (Outcome::Failed, error),
        }
    }
    (Outcome::Passed, note)
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    }
}

/// The last words of the failed steps, and a table of all; its last line counts them.
fn summary(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries.iter().filter(|entry| !entry.last_words.is_empty()) {
        let _ = writeln!(text, "the end of step {}:\n{}\n", entry.name, entry.last_words);
    }
    text.push_str("step         result   time     note\n");
    for entry in entries {
        let line = format!(
            "{:<12} {:<8} {:>5.1} s  {}",
            entry.name,
            word(entry.outcome),
            entry.time.as_secs_f64(),
            entry.note
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let count = |outcome| entries.iter().filter(|entry| entry.outcome == outcome).count();
    let _ = write!(
        text,
        "{} passed, {} failed, {} skipped",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, plan: fn() -> Plan) -> Step {
        Step { name, about: "a step of a test", lane: Lane::Host, is_quick: false, plan }
    }

    fn step(plan: fn() -> Plan) -> Entry {
        run_step(&of("test", plan), Demand::WhatIsHere, &Output::Shown)
    }

    fn succeeds() -> Call {
        Call::new("sh", &["-c", "exit 0"])
    }

    #[test]
    fn a_step_passes_if_every_call_exits_with_0() {
        let entry = step(|| Plan::Run(vec![succeeds(), succeeds()]));
        assert_eq!((entry.outcome, entry.note.as_str()), (Outcome::Passed, ""));
        let entry = step(|| Plan::RunInstead(vec![succeeds()], "otherwise".into()));
        assert_eq!((entry.outcome, entry.note.as_str()), (Outcome::Passed, "otherwise"));
    }

    #[test]
    fn a_step_fails_with_its_first_call_that_fails() {
        let entry = step(|| Plan::Run(vec![succeeds(), Call::new("sh", &["-c", "exit 3"])]));
        assert_eq!(entry.outcome, Outcome::Failed);
        assert_eq!(entry.note, "`sh -c exit 3`: exit status: 3");
        let entry = step(|| Plan::Run(vec![Call::new("sh", &["-c", "echo why; exit 1"]).quietly()]));
        assert_eq!(entry.outcome, Outcome::Failed);
    }

    #[test]
    fn a_program_that_is_missing_fails_a_step() {
        let entry = step(|| Plan::Run(vec![Call::new("/nonexistent/program", &[])]));
        assert_eq!(entry.outcome, Outcome::Failed);
    }

    #[test]
    fn a_step_without_its_tool_is_skipped_with_the_reason() {
        let entry = step(|| Plan::Skip("no such tool".into()));
        assert_eq!((entry.outcome, entry.note.as_str()), (Outcome::Skipped, "no such tool"));
    }

    #[test]
    fn a_step_is_skipped_if_a_program_says_that_it_cannot_be_done_here() {
        let entry = step(|| Plan::Run(vec![Call::new("sh", &["-c", "exit 77"]).if_available()]));
        assert_eq!(entry.outcome, Outcome::Skipped);
        assert_eq!(entry.note, "`sh -c exit 77`: what it takes cannot be had here");
        let entry = step(|| Plan::Run(vec![Call::new("sh", &["-c", "exit 77"])]));
        assert_eq!(entry.outcome, Outcome::Failed);
    }

    #[test]
    fn where_everything_is_demanded_what_is_skipped_fails_but_for_the_list() {
        let missing = || Plan::Skip("no such tool".into());
        let demanded = |step| run_step(&step, Demand::Everything, &Output::Shown);
        let entry = demanded(of("diff-isa", missing));
        assert_eq!(entry.outcome, Outcome::Failed);
        assert_eq!(entry.note, "CI must not skip it: no such tool");
        let without = || Plan::RunWithout(vec![succeeds()], "no QEMU".into());
        assert_eq!(demanded(of("tests", without)).outcome, Outcome::Failed);
        let entry = step(without);
        assert_eq!((entry.outcome, entry.note.as_str()), (Outcome::Passed, "in part: no QEMU"));
        for name in ["aarch64", "deny", "advisories", "kernel", "miri", "races", "fuzz"] {
            assert_eq!(demanded(of(name, missing)).outcome, Outcome::Skipped, "{name}");
        }
        assert_eq!(
            MAY_SKIP.map(|(name, _)| name),
            ["aarch64", "deny", "advisories", "kernel", "miri", "races", "fuzz"]
        );
    }

    #[test]
    fn a_step_that_cannot_be_prepared_fails() {
        let entry = step(|| Plan::Fail("the disk is full".into()));
        assert_eq!((entry.outcome, entry.note.as_str()), (Outcome::Failed, "the disk is full"));
    }

    fn meeting_place() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("seawall-lanes-{}", std::process::id()))
    }

    /// Waits for the other.
    fn meet(own: &str, other: &str) -> Plan {
        const SCRIPT: &str = "mkdir -p $T; touch $T/$0; \
                              for n in $(seq 600); do [ -e $T/$1 ] && exit 0; sleep 0.1; done; exit 1";
        let place = meeting_place().display().to_string();
        Plan::Run(vec![Call::new("sh", &["-c", SCRIPT, own, other]).with("T", &place)])
    }

    #[test]
    fn the_lanes_run_at_the_same_time_and_are_told_in_the_steps_order() {
        let lab = Step { lane: Lane::Lab, ..of("lab", || meet("a", "b")) };
        let host = of("host", || meet("b", "a"));
        let entries = run_all(&[&lab, &host], Demand::Everything);
        let told: Vec<_> = entries.iter().map(|entry| (entry.name, entry.outcome)).collect();
        assert_eq!(told, [("lab", Outcome::Passed), ("host", Outcome::Passed)]);
        let _ = std::fs::remove_dir_all(meeting_place());
    }

    #[test]
    fn summary_ends_with_the_counts() {
        let entry = |name, outcome, note: &str| Entry {
            name,
            outcome,
            time: Duration::from_millis(1250),
            note: note.into(),
            last_words: String::new(),
        };
        let entries = [
            entry("fmt", Outcome::Passed, ""),
            Entry {
                last_words: "two\nthree".into(),
                ..entry("tests", Outcome::Failed, "`x`: exit status: 1")
            },
            entry("miri", Outcome::Skipped, "no nightly"),
            entry("doc", Outcome::Passed, ""),
        ];
        assert_eq!(
            summary(&entries),
            "the end of step tests:\ntwo\nthree\n\n\
             step         result   time     note\n\
             fmt          passed     1.2 s\n\
             tests        FAILED     1.2 s  `x`: exit status: 1\n\
             miri         skipped    1.2 s  no nightly\n\
             doc          passed     1.2 s\n\
             2 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn what_a_failed_step_said_last_is_told_again() {
        let fails = of("test", || Plan::Run(vec![Call::new("sh", &["-c", "seq 100; echo why >&2; exit 1"])]));
        let passes = of("other", || Plan::Run(vec![succeeds()]));
        let entries = run_lane(&[&fails, &passes], Demand::WhatIsHere, Output::kept);
        let words: Vec<_> = entries[0].last_words.lines().collect();
        assert_eq!((words.len(), words[0], words[58]), (60, "43", "why"));
        assert_eq!(entries[1].last_words, "");
    }

    #[test]
    fn step_names_are_unique() {
        for (n, step) in STEPS.iter().enumerate() {
            assert!(STEPS.iter().skip(n + 1).all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
