//! `seawall probe`, on the host of the tests.

use std::process::{Command, Output};

use serde_json::Value;

fn probe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seawall")).arg("probe").args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = probe(args);
    assert_eq!(output.status.code(), Some(0), "{:?}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json() -> Value {
    serde_json::from_str(&stdout(&["--json"])).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_fields_of_the_json_are_those_of_the_help() {
    let report = json();
    let top = [
        "admin",
        "advice",
        "architecture",
        "errors",
        "injection",
        "kernel",
        "kvm",
        "lab",
        "memory",
        "os",
        "page_kib",
        "program",
    ];
    assert_eq!(keys(&report), top);
    assert_eq!(keys(&report["kvm"]), ["capabilities", "extended_abi", "state", "why"]);
    let kinds = [
        "data_abort",
        "data_abort_esr",
        "instruction_abort",
        "instruction_abort_esr",
        "serror",
        "serror_esr",
    ];
    assert_eq!(keys(&report["injection"]), kinds);
    for kind in kinds {
        assert_eq!(keys(&report["injection"][kind]), ["way", "why"]);
    }
    assert_eq!(keys(&report["errors"]), ["einj", "firmware_claims_sea", "hest", "seen"]);
    let memory = ["bad_kib", "early_kill", "huge_pages", "hwpoison", "recovers", "transparent_huge_pages"];
    assert_eq!(keys(&report["memory"]), memory);
    assert_eq!(keys(&report["lab"]), ["bad_ranges", "poison_register", "why"]);
    let help = stdout(&["--help"]);
    for key in top.iter().chain(&kinds).chain(&memory) {
        assert!(help.contains(key), "{key} in {help}");
    }
}

#[test]
fn a_host_has_kvm_arm64_with_its_capabilities_or_a_reason_why_not() {
    let report = json();
    let is_arm64 = report["kvm"]["state"] == "arm64";
    assert_eq!(report["kvm"]["capabilities"].is_object(), is_arm64);
    assert_eq!(report["kvm"]["why"].is_string(), !is_arm64);
    assert_eq!(report["errors"]["seen"] == "no-kvm", !is_arm64);
    for (kind, injection) in report["injection"].as_object().unwrap() {
        assert_eq!(injection["why"].is_string(), injection["way"] == "none", "{kind}: {injection}");
        assert!(is_arm64 || injection["way"] == "none", "{kind}: {injection}");
    }
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn another_architecture_s_kvm_is_not_taken_for_arm_s_and_the_lab_is_advised() {
    let report = json();
    assert_ne!(report["kvm"]["state"], "arm64");
    let advice = report["advice"].as_array().unwrap();
    assert!(advice.iter().any(|sentence| sentence.as_str().unwrap().starts_with("`cargo xtask lab`")));
    assert_eq!(report["lab"]["poison_register"], false);
}

#[test]
fn the_table_has_a_part_for_each_question_and_fits_a_terminal() {
    let table = stdout(&[]);
    let parts: Vec<&str> = table.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
    assert_eq!(parts, ["host", "KVM", "injection", "errors", "memory", "advice"]);
    assert!(!table.contains('\x1b'), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn wrong_usage_is_2_and_a_full_disk_is_3() {
    assert_eq!(probe(&["--backend", "kvm"]).status.code(), Some(2));
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_seawall")).arg("probe").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}
