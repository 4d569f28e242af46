//! `cargo xtask ci`: everything that a change must pass, one step after the other.
//!
//! A step that fails does not keep the next from running. A step whose tool is missing is skipped by name, with the
//! reason. The last line is `N passed, N failed, N skipped`, of steps.

use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

mod steps;
mod tools;

use steps::{STEPS, Step};

/// Which steps to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Print the steps and end
    #[arg(long)]
    list: bool,
}

/// A program to run from the workspace's folder. It succeeds if it exits with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
    /// What it writes to stdout is shown only if it fails.
    quiet: bool,
    /// Exit code 77 says that what it takes cannot be had here.
    may_be_unavailable: bool,
}

/// How a call ended that did not fail.
enum Ended {
    Well,
    Unavailable,
}

/// Exit code of a program that could not do its work here for want of something. As of automake's tests.
const UNAVAILABLE: i32 = 77;

impl Call {
    fn new(program: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self {
            program: program.into(),
            arguments,
            environment: Vec::new(),
            quiet: false,
            may_be_unavailable: false,
        }
    }

    fn cargo(arguments: &[&str]) -> Self {
        Self::new("cargo", arguments)
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn quietly(self) -> Self {
        Self { quiet: true, ..self }
    }

    fn if_available(self) -> Self {
        Self { may_be_unavailable: true, ..self }
    }

    fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.environment {
            let _ = write!(line, "{name}='{value}' ");
        }
        line.push_str(&self.program);
        for argument in &self.arguments {
            let _ = write!(line, " {argument}");
        }
        line
    }

    fn run(&self) -> Result<Ended, String> {
        println!("$ {}", self.line());
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().copied()).current_dir(tools::root());
        if self.quiet {
            command.stdout(Stdio::piped());
        }
        let output = command.spawn().and_then(std::process::Child::wait_with_output);
        let output = output.map_err(|error| format!("{}: {error}", self.program))?;
        if output.status.success() {
            return Ok(Ended::Well);
        }
        if self.may_be_unavailable && output.status.code() == Some(UNAVAILABLE) {
            return Ok(Ended::Unavailable);
        }
        println!("{}", String::from_utf8_lossy(&output.stdout));
        Err(format!("`{}`: {}", self.line(), output.status))
    }
}

/// What a step does here and now.
enum Plan {
    /// These, until one fails.
    Run(Vec<Call>),
    /// Something else than usual, as the summary tells.
    RunInstead(Vec<Call>, String),
    /// Nothing, with the reason.
    Skip(String),
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Runs the steps.
pub(crate) fn run(options: &Options) -> ExitCode {
    if options.list {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options.only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        eprintln!("error: no step {unknown:?}: see --list");
        return ExitCode::from(2);
    }
    let chosen = STEPS
        .iter()
        .filter(|step| options.only.is_empty() || options.only.iter().any(|name| name == step.name));
    let entries: Vec<Entry> = chosen.map(run_step).collect();
    println!("\n{}", summary(&entries));
    if entries.iter().any(|entry| entry.outcome == Outcome::Failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn run_step(step: &Step) -> Entry {
    println!("\n=== {}: {}", step.name, step.about);
    let start = Instant::now();
    let (outcome, note) = match (step.plan)() {
        Plan::Run(calls) => outcome(&calls, String::new()),
        Plan::RunInstead(calls, note) => outcome(&calls, note),
        Plan::Skip(reason) => {
            println!("skipped: {reason}");
            (Outcome::Skipped, reason)
        }
    };
    let time = start.elapsed();
    println!("=== {}: {} in {:.1} s", step.name, word(&outcome), time.as_secs_f64());
    Entry { name: step.name, outcome, time, note }
}

/// Runs the calls until one fails or cannot be done here; with what there is to note.
fn outcome(calls: &[Call], note: String) -> (Outcome, String) {
    for call in calls {
        match call.run() {
            Ok(Ended::Well) => {}
            Ok(Ended::Unavailable) => {
                let reason = format!("`{}`: what it takes cannot be had here", call.line());
                println!("skipped: {reason}");
                return (Outcome::Skipped, reason);
            }
            Err(error) => {
                println!("FAILED: {error}");
                return (Outcome::Failed, error);
            }
        }
    }
    (Outcome::Passed, note)
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    }
}

/// A table of the steps; its last line counts them.
fn summary(entries: &[Entry]) -> String {
    let mut text = String::from("step         result   time     note\n");
    for entry in entries {
        let line = format!(
            "{:<12} {:<8} {:>5.1} s  {}",
            entry.name,
            word(&entry.outcome),
            entry.time.as_secs_f64(),
            entry.note
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let count = |outcome: &Outcome| entries.iter().filter(|entry| entry.outcome == *outcome).count();
    let _ = write!(
        text,
        "{} passed, {} failed, {} skipped",
        count(&Outcome::Passed),
        count(&Outcome::Failed),
        count(&Outcome::Skipped)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(plan: fn() -> Plan) -> Entry {
        run_step(&Step { name: "test", about: "a step of a test", plan })
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
    fn summary_ends_with_the_counts() {
        let entry = |name, outcome, note: &str| Entry {
            name,
            outcome,
            time: Duration::from_millis(1250),
            note: note.into(),
        };
        let entries = [
            entry("fmt", Outcome::Passed, ""),
            entry("tests", Outcome::Failed, "`x`: exit status: 1"),
            entry("miri", Outcome::Skipped, "no nightly"),
            entry("doc", Outcome::Passed, ""),
        ];
        assert_eq!(
            summary(&entries),
            "step         result   time     note\n\
             fmt          passed     1.2 s\n\
             tests        FAILED     1.2 s  `x`: exit status: 1\n\
             miri         skipped    1.2 s  no nightly\n\
             doc          passed     1.2 s\n\
             2 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn step_names_are_unique() {
        for (n, step) in STEPS.iter().enumerate() {
            assert!(STEPS.iter().skip(n + 1).all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
