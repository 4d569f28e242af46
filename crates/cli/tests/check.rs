//! `seawall check`, as a user runs it.

use std::process::{Command, Output};

use serde_json::{Value, json};

fn check(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seawall")).arg("check").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn on_the_machine_nothing_fails_and_the_last_line_has_the_totals() {
    let output = check(&[]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let passed = stdout.lines().filter(|line| line.starts_with("  pass  ")).count();
    let skipped = stdout.lines().filter(|line| line.starts_with("  skip  ")).count();
    assert!(passed > 100, "{stdout}");
    assert_eq!(stdout.lines().last(), Some(&*format!("{passed} passed, 0 failed, {skipped} skipped")));
    assert!(!stdout.contains('\x1b'), "colours, though this is no terminal");
}

#[test]
fn what_is_skipped_has_its_reason() {
    let output = check(&["nested::an_abort_at_el2_stays_there"]);
    assert_eq!(output.status.code(), Some(0));
    let expected = "\
nested
  skip  an_abort_at_el2_stays_there: the machine has no EL2: the host plays it
0 passed, 0 failed, 1 skipped
";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn filters_choose_by_group_or_name() {
    let output = check(&["mmio::a_load", "both::the_abort"]);
    let expected = "\
both
  pass  the_abort_is_taken_and_the_serror_stays_pending
mmio
  pass  a_load_is_completed_with_the_answer
2 passed, 0 failed, 0 skipped
";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn json_has_the_scenarios_and_the_totals() {
    let output = check(&["--json", "mmio::a_load_is", "nested::an_abort_at_el2"]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "backend": "machine",
        "scenarios": [
            { "group": "mmio", "name": "a_load_is_completed_with_the_answer", "result": "pass" },
            {
                "group": "nested",
                "name": "an_abort_at_el2_stays_there",
                "result": "skip",
                "reason": "the machine has no EL2: the host plays it",
            },
        ],
        "passed": 1,
        "failed": 0,
        "skipped": 1,
    });
    assert_eq!(report, expected);
}

#[test]
fn list_names_the_scenarios_and_runs_none() {
    let output = check(&["--list", "mainline::the_address"]);
    let expected = "\
mainline::the_address_is_0_on_a_fresh_vcpu
mainline::the_address_is_stale_once_the_access_is_completed
mainline::the_address_is_stale_after_an_exit_that_was_no_abort
";
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), expected.to_owned()));
    let output = check(&["--list", "--json", "mainline::the_address_is_0"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report, json!({ "scenarios": ["mainline::the_address_is_0_on_a_fresh_vcpu"] }));
}

#[test]
fn a_filter_that_matches_nothing_is_wrong_usage() {
    let output = check(&["no_such_thing"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: no scenario has `no_such_thing` in its name; `seawall check --list` names them\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn a_backend_that_is_not_here_has_an_exit_code_of_its_own_and_advice() {
    let output = check(&["--backend", "kvm"]);
    assert_eq!(output.status.code(), Some(9));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: KVM/arm64 is not available here"), "{stderr}");
    assert!(stderr.contains("cargo xtask lab"), "{stderr}");
}
