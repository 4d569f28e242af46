//! The command as a user runs it, with its output and its exit codes.

mod seawall;

use std::process::Command;

use seawall::{File, HELLO, json, seawall, text};
use serde_json::Value;

#[test]
fn demo_comes_to_what_each_policy_must() {
    let output = seawall(&["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["as_expected"], true);
    let survived: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| &run["survived"]).collect();
    assert_eq!(survived, [0, 2, 3]);
    let full = &report["runs"][2];
    assert_eq!(full["guest_saw"][0]["esr"], "0x82000210");
    assert_eq!(full["errors"][0]["access"], "fetch");
    assert_eq!(full["errors"][0]["guest_far"], full["errors"][0]["gva"]);
    assert_eq!(full["guest_saw"][1]["esr"], "0x92000210");
    // FAR_EL1 has no meaning for an SError.
    assert_eq!(report["runs"][0]["errors"][0]["guest_far"], Value::Null);
}

#[test]
fn demo_shows_the_three_policies_side_by_side_without_colours_in_a_pipe() {
    let output = seawall(&["demo"]);
    let screen = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(!screen.contains('\x1b'), "{screen}");
    let survived = screen.lines().find(|line| line.trim_start().starts_with("survived")).unwrap();
    let words: Vec<_> = survived.split_whitespace().collect();
    assert_eq!(words, ["survived", "0", "of", "4", "2", "of", "4", "3", "of", "4"]);
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
}

#[test]
fn demo_trace_shows_console_exit_and_injection() {
    let trace = text(&seawall(&["demo", "--trace"]).stderr);
    for part in ["--- policy serror", "--- policy full", "goes bad", "KVM_EXIT_ARM_SEA 0x82000210", "[ready]"]
    {
        assert!(trace.contains(part), "{part} in {trace}");
    }
}

#[test]
fn decode_takes_several_values_and_each_kind() {
    let output = seawall(&["decode", "0x92000210", "0x92000010"]);
    let words = text(&output.stdout);
    assert!(words.starts_with("0x92000210 data abort from a lower EL"), "{words}");
    assert!(words.contains("\n0x92000010 data abort from a lower EL"), "{words}");
    let spsr = text(&seawall(&["decode", "--spsr", "0x3c5"]).stdout);
    assert!(spsr.starts_with("0x3c5 nzcv DAIF EL1h"), "{spsr}");
    let dfsr = text(&seawall(&["decode", "--dfsr", "0x210"]).stdout);
    assert!(dfsr.starts_with("DFSR 0x210 LPAE, synchronous external abort"), "{dfsr}");
    let ifsr = text(&seawall(&["decode", "--ifsr", "0x8"]).stdout);
    assert!(ifsr.starts_with("IFSR 0x8 short-descriptor, synchronous external abort"), "{ifsr}");
}

#[test]
fn decode_json_has_a_field_for_each_name() {
    let esr = json(&seawall(&["decode", "--json", "0x82000215"]));
    assert_eq!(esr[0]["value"], "0x82000215");
    let fields = esr[0]["fields"].as_array().unwrap();
    let ifsc = fields.iter().find(|field| field["name"] == "IFSC").unwrap();
    assert_eq!(ifsc["bits"], "[5:0]");
    assert_eq!(ifsc["value"], "0x15");
    assert_eq!(ifsc["meaning"], "synchronous external abort on table walk, level 1");
}

#[test]
fn decode_reads_64_bytes_as_each_abi_would() {
    // ext_iabt_pending, ext_abt_has_esr, ext_abt_esr @16 = 0x200, in two arguments.
    let rest = "00".repeat(45);
    let events = json(&seawall(&["decode", "--json", "00000001010000000000000000000000000200", &rest]));
    let readings = events[0]["readings"].as_array().unwrap();
    assert!(readings[0]["events"]["error"].as_str().unwrap().contains("offset 16"));
    assert_eq!(readings[1]["events"]["ext_iabt_pending"], true);
    assert_eq!(readings[1]["events"]["ext_abt_esr"], "0x200");
}

#[test]
fn help_teaches_and_wrong_usage_is_2() {
    let help = text(&seawall(&["--help"]).stdout);
    for part in ["seawall demo", "seawall decode 0x92000210", "Exit codes:"] {
        assert!(help.contains(part), "{part}");
    }
    let alone = seawall(&[]);
    assert_eq!(alone.status.code(), Some(0));
    assert!(text(&alone.stdout).contains("Start here:"));
    assert_eq!(seawall(&["run"]).status.code(), Some(2));
    assert_eq!(seawall(&["run", "--kernel", "x", "--policy", "none"]).status.code(), Some(2));
    assert_eq!(seawall(&["demo", "--json", "--trace"]).status.code(), Some(2));
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let code = File::code("full", &HELLO);
    for args in [
        &["demo"][..],
        &["demo", "--json"],
        &["decode", "0x92000210"],
        &[],
        &["run", "--kernel", code.path()],
        &["run", "--json", "--kernel", code.path()],
    ] {
        let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
        let output = Command::new(env!("CARGO_BIN_EXE_seawall")).args(args).stdout(full).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to stdout: "), "{args:?}: {stderr}");
    }
}

#[test]
fn decode_shows_the_bits_above_31_of_an_spsr_that_are_set() {
    let words = text(&seawall(&["decode", "--spsr", "0x5000003c5"]).stdout);
    assert!(words.starts_with("0x5000003c5 nzcv DAIF EXLOCK PM EL1h\n"), "{words}");
    assert!(words.contains("EXLOCK  [34]     1"), "{words}");
    let it = text(&seawall(&["decode", "--spsr", "0x0200fc3f"]).stdout);
    assert!(it.contains("IT[1:0]  [26:25]  0x1") && it.contains("IT[7:2]  [15:10]  0x3f"), "{it}");
}
