//! The two emulators of the lab side by side: the conformance suite on the KVM of each, scenario by scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::error::{Error, Result};
use super::machine::Machine;
use super::session::Ended;
use super::{HostKernel, Lab, binaries, code};

/// What Seawall's machine does not have and so skips: AArch32 state at EL0.
const KNOWN: [&str; 2] =
    ["abort::a_data_abort_at_el0_in_aarch32_state", "abort::an_instruction_abort_at_el0_in_aarch32_state"];

/// Scenario and outcome: `pass`, `fail` or `skip`.
type Outcomes = BTreeMap<String, String>;

/// Runs both. The exit code is 1 if any scenario fails, or has another outcome than it has on the other, unless that is known.
pub(crate) fn run(machine: &Machine, timeout: Duration) -> Result<u8> {
    let mut sides = Vec::new();
    for qemu in [true, false] {
        let machine = Machine { qemu, cpu: machine.cpu.clone().filter(|_| qemu), ..machine.clone() };
        let lab = Lab::prepare(&machine, HostKernel::Debian)?;
        let programs = binaries::build(&lab.folders, &lab.toolchain)?;
        let command = ["seawall", "check", "--backend", "kvm", "--json"].map(str::to_owned);
        let mut output = Vec::new();
        let ended = lab.run(&machine, &programs, &[], &command, timeout, &mut output)?;
        let outcomes = outcomes(&output);
        if !matches!(ended, Ended::Exited(_)) || outcomes.is_empty() {
            return Ok(code(&ended, timeout.as_secs()).max(1));
        }
        println!("{}", counts(machine.name(), &outcomes));
        sides.push(outcomes);
    }
    let [theirs, own] = &sides[..] else { return Err(Error::failed("two runs were expected")) };
    let (lines, is_equal) = differences(theirs, own);
    print!("{lines}");
    Ok(u8::from(!is_equal))
}

fn outcomes(output: &[u8]) -> Outcomes {
    let report: Value = serde_json::from_slice(output).unwrap_or_default();
    let entries = report["scenarios"].as_array().into_iter().flatten();
    let outcome = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        (format!("{}::{}", text("group"), text("name")), text("result"))
    };
    entries.map(outcome).collect()
}

fn counts(name: &str, outcomes: &Outcomes) -> String {
    let count = |word| outcomes.values().filter(|outcome| *outcome == word).count();
    format!("{name}: {} passed, {} failed, {} skipped", count("pass"), count("fail"), count("skip"))
}

/// A line for each scenario that differs, and one that counts; and if all is as it must be.
fn differences(theirs: &Outcomes, own: &Outcomes) -> (String, bool) {
    let mut text = String::new();
    let (mut equal, mut known, mut other) = (0, 0, 0);
    let names: BTreeSet<_> = theirs.keys().chain(own.keys()).collect();
    for name in names {
        let of = |side: &Outcomes| side.get(name).map_or("missing", String::as_str).to_owned();
        let (theirs, own) = (of(theirs), of(own));
        let is_known = KNOWN.contains(&name.as_str()) && (theirs.as_str(), own.as_str()) == ("pass", "skip");
        match (theirs == own && own != "fail", is_known) {
            (true, _) => equal += 1,
            (false, true) => known += 1,
            (false, false) => other += 1,
        }
        if theirs != own || own == "fail" {
            let word = if is_known { "known" } else { "DIFFERS" };
            let _ = writeln!(text, "{word}  {name}: QEMU {theirs}, Seawall's machine {own}");
        }
    }
    let _ = writeln!(text, "{equal} equal, {known} known to differ, {other} wrong");
    (text, other == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(entries: &[(&str, &str)]) -> Outcomes {
        entries.iter().map(|(name, outcome)| ((*name).to_owned(), (*outcome).to_owned())).collect()
    }

    #[test]
    fn scenarios_are_equal_if_neither_fails_and_the_known_ones_may_be_skipped_by_ours() {
        let [known, _] = KNOWN;
        let theirs = side(&[("a::b", "pass"), ("a::c", "skip"), (known, "pass")]);
        let own = side(&[("a::b", "pass"), ("a::c", "skip"), (known, "skip")]);
        let (text, is_equal) = differences(&theirs, &own);
        assert!(is_equal && text.ends_with("2 equal, 1 known to differ, 0 wrong\n"), "{text}");
        for (theirs, own) in [("pass", "skip"), ("fail", "fail"), ("skip", "pass"), ("pass", "fail")] {
            assert!(!differences(&side(&[("a::b", theirs)]), &side(&[("a::b", own)])).1, "{theirs} {own}");
        }
        assert!(!differences(&side(&[("a::b", "pass")]), &side(&[])).1);
    }

    #[test]
    fn outcomes_are_those_of_the_report() {
        let report = br#"{"scenarios":[{"group":"sea","name":"load","result":"pass"},{"group":"x","name":"y","result":"skip","reason":"z"}]}"#;
        let wanted = side(&[("sea::load", "pass"), ("x::y", "skip")]);
        assert_eq!(outcomes(report), wanted);
        assert_eq!(counts("m", &wanted), "m: 1 passed, 0 failed, 1 skipped");
    }
}
