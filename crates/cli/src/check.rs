//! `seawall check`: the conformance suite.

use std::sync::Arc;

use clap::ValueEnum;
use seawall_conformance::{
    Backend, Entry, LIMIT, Machine, Mismatch, Scenario, Totals, Verdict, kvm, run, scenarios,
};
use serde_json::json;

use crate::style::{bad, dim, good, head};
use crate::{Failure, exit, out};

/// Check external aborts against the ABI, on the software machine or on this host's KVM.
///
/// Each scenario is a small guest, an injection, and the syndrome that the guest must see. The same
/// scenarios run on the software machine and on KVM. Each expectation is a number from the manual, from Linux
/// or from a measurement. The command skips a scenario that needs a feature this host lacks, and names it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seawall check                             on the software machine, on any host
  seawall check --backend kvm               on this host's KVM (arm64)
  seawall check --backend kvm sea:: walk::  only these groups
  cargo xtask lab -- seawall check --backend kvm
                                            on real KVM, without Arm hardware

On KVM as root, the scenarios about SIGBUS take some pages of memory out of use (MADV_HWPOISON) until the
host restarts.

The last line is `N passed, N failed, N skipped`. Exit codes: 0 nothing failed, 1 something failed,
2 wrong usage or a filter that matches nothing, 9 the backend is not available.")]
pub(crate) struct Args {
    /// Run only the scenarios whose GROUP::NAME contains one of these texts.
    #[arg(value_name = "NAME-FILTER")]
    filters: Vec<String>,
    /// Backend that runs the scenarios.
    #[arg(long, value_enum, default_value_t = Which::Machine)]
    backend: Which,
    /// Print the names of the scenarios, and run none.
    #[arg(long)]
    list: bool,
    /// Print one JSON object on stdout at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// The software machine.
    Machine,
    /// /dev/kvm of an arm64 host.
    Kvm,
}

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    let chosen: Vec<Scenario> = scenarios().filter(|scenario| scenario.matches(&args.filters)).collect();
    if chosen.is_empty() {
        let message = format!(
            "no scenario has `{}` in its name; `seawall check --list` names them",
            args.filters.join("` or `")
        );
        return Err(Failure::new(exit::USAGE, message));
    }
    if args.list {
        list(args.json, &chosen)?;
        return Ok(0);
    }
    let backend = open(args.backend)?;
    let mut output = Output { json: args.json, group: "" };
    let mut totals = Totals::default();
    let mut entries = Vec::new();
    for scenario in &chosen {
        let entry = run(&backend, scenario, LIMIT);
        totals.add(&entry.verdict);
        output.entry(&entry)?;
        entries.push(entry);
    }
    output.end(backend.name(), &entries, totals)?;
    Ok(exit_code(totals))
}

fn exit_code(totals: Totals) -> u8 {
    if totals.failed == 0 { 0 } else { exit::UNEXPECTED }
}

fn open(which: Which) -> Result<Arc<dyn Backend>, Failure> {
    match which {
        Which::Machine => Ok(Arc::new(Machine)),
        Which::Kvm => kvm().map_err(|error| Failure::new(exit::UNAVAILABLE, error.to_string())),
    }
}

fn list(as_json: bool, chosen: &[Scenario]) -> Result<(), Failure> {
    if as_json {
        let names: Vec<String> = chosen.iter().map(Scenario::to_string).collect();
        return out::stdout(&format!("{}\n", json!({ "scenarios": names })));
    }
    chosen.iter().try_for_each(|scenario| out::stdout(&format!("{scenario}\n")))
}

struct Output {
    json: bool,
    group: &'static str,
}

impl Output {
    /// A line for the scenario, under its group's heading; below it the mismatches, field by field.
    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        if self.group != entry.group {
            self.group = entry.group;
            out::stdout(&format!("{}\n", head(entry.group)))?;
        }
        out::stdout(&lines(entry))
    }

    fn end(&self, backend: &str, entries: &[Entry], totals: Totals) -> Result<(), Failure> {
        if self.json {
            let report = json!({
                "backend": backend,
                "scenarios": entries,
                "passed": totals.passed,
                "failed": totals.failed,
                "skipped": totals.skipped,
            });
            return out::stdout(&format!("{report}\n"));
        }
        let Totals { passed, failed, skipped } = totals;
        out::stdout(&format!("{passed} passed, {failed} failed, {skipped} skipped\n"))
    }
}

fn lines(entry: &Entry) -> String {
    let Entry { name, .. } = entry;
    match &entry.verdict {
        Verdict::Passed => format!("  {}  {name}\n", good("pass")),
        Verdict::Skipped { reason } => format!("  {}  {}\n", dim("skip"), dim(format!("{name}: {reason}"))),
        Verdict::Failed { mismatches, stopped } => {
            let first = format!("  {}  {name}\n", bad("FAIL"));
            let wrong = mismatches.iter().map(|wrong| {
                let Mismatch { case, field, expected, got } = wrong;
                let case = if case.is_empty() { String::new() } else { format!("[{case}] ") };
                format!("        {case}{field}: expected {expected}, got {got}\n")
            });
            let stopped = stopped.iter().map(|why| format!("        stopped: {why}\n"));
            [first].into_iter().chain(wrong).chain(stopped).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_expected_and_what_came_field_by_field() {
        let wrong = |case: &str, field: &str, expected: &str, got: &str| Mismatch {
            case: case.into(),
            field: field.into(),
            expected: expected.into(),
            got: got.into(),
        };
        let entry = Entry {
            group: "esr",
            name: "each_iss_bit",
            verdict: Verdict::Failed {
                mismatches: vec![
                    wrong("ISS 0x1", "ESR", "0x96000011", "0x96000010"),
                    wrong("", "FAR", "0x1234", "0x0"),
                ],
                stopped: Some("the guest hung".into()),
            },
        };
        let expected = "  FAIL  each_iss_bit
        [ISS 0x1] ESR: expected 0x96000011, got 0x96000010
        FAR: expected 0x1234, got 0x0
        stopped: the guest hung
";
        assert_eq!(anstream::adapter::strip_str(&lines(&entry)).to_string(), expected);
        assert_eq!(exit_code(Totals { passed: 9, failed: 1, skipped: 0 }), 1);
        assert_eq!(exit_code(Totals { passed: 9, failed: 0, skipped: 3 }), 0);
    }
}
