//! `seawall demo`: the same guest and the same two errors under three policies.

mod scenario;
mod screen;

use serde_json::{Value, json};

use crate::{Failure, exit, out};
use scenario::Run;

/// Run one guest with the same two memory errors under three policies, and show the survivors.
///
/// The guest is a small operating system with four programs, on the software machine. In each run the same two lines of
/// its memory go bad: one in the code of `web`, one in the data of `db`. The survivors depend on the hypervisor's
/// injection. The command reads them from the guest's own report.
#[derive(clap::Args)]
#[command(after_help = "\
The exit code is 0 only if each policy's outcome is the expected one.")]
pub(crate) struct Args {
    /// Print one JSON object instead of the table.
    #[arg(long, conflicts_with = "trace")]
    json: bool,
    /// Show each run step by step: the guest's console, the exits, the injections.
    #[arg(long)]
    trace: bool,
}

/// The policies in the order of the columns, with their meaning.
const POLICIES: [(&str, &str, &str); 3] = [
    ("serror", "SError", "what KVM does today"),
    ("mainline", "mainline", "data abort, no ESR"),
    ("full", "full", "abort as it happened"),
];

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    let mut runs = Vec::new();
    for (policy, ..) in POLICIES {
        if args.trace {
            screen::trace_head(policy);
        }
        let run = scenario::run(policy, args.trace)
            .map_err(|error| Failure::new(exit::UNEXPECTED, format!("policy {policy}: {error}")))?;
        runs.push(run);
    }
    let wrong: Vec<String> = runs.iter().flat_map(scenario::check).collect();
    if args.json {
        out::stdout(&format!("{}\n", to_json(&runs, &wrong)))?;
    } else {
        out::stdout(&screen::screen(&runs))?;
        for line in &wrong {
            out::stderr(format!("{}: {line}", crate::style::bad("unexpected")));
        }
    }
    Ok(if wrong.is_empty() { 0 } else { exit::UNEXPECTED })
}

fn to_json(runs: &[Run], wrong: &[String]) -> Value {
    let runs: Vec<Value> = runs
        .iter()
        .map(|run| {
            let tasks: Vec<Value> = run
                .report
                .tasks
                .iter()
                .map(|task| {
                    json!({
                        "name": task.name,
                        "state": format!("{:?}", task.state).to_lowercase(),
                        "rounds": task.rounds,
                        "checksum": format!("{:?}", task.checksum).to_lowercase(),
                    })
                })
                .collect();
            json!({
                "policy": run.policy,
                "kernel": format!("{:?}", run.report.kernel).to_lowercase(),
                "survived": run.survivors(),
                "tasks": tasks,
                "errors": run.error_reports,
                "guest_saw": run.saw().iter().map(|saw| json!({
                    "esr": format!("{:#x}", saw.esr),
                    "far": saw.far.map(|far| format!("{far:#x}")),
                    "did": saw.did,
                })).collect::<Vec<_>>(),
                "instructions": run.instructions,
                "console": run.console,
            })
        })
        .collect();
    json!({ "runs": runs, "as_expected": wrong.is_empty(), "unexpected": wrong })
}
