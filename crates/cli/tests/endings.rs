//! `seawall run`: after every end of a run the ledger is written, and an event and `--json` report the end.

mod seawall;

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use ::seawall::ledger::Ledger;
use seawall::{BRANCH_SELF, File, HVC, MOV_W0_8, MOVK_W0_8400, RESET, WFI, json, loader, says, seawall};
use serde_json::Value;

/// A guest that loads from 0x40200000; `handler` takes the abort.
fn guest(name: &str, handler: &[u32]) -> File {
    let mut words = loader(handler[0]);
    words.extend(&handler[1..]);
    File::code(name, &words)
}

/// A file that does not exist yet, removed with this.
fn no_file(name: &str) -> File {
    let file = File::new(name, b"");
    std::fs::remove_file(file.path()).unwrap();
    file
}

/// Pages in a ledger's file; `None` if there is no file.
fn pages(file: &File) -> Option<u64> {
    std::fs::read(file.path()).ok().map(|bytes| Ledger::from_bytes(&bytes).unwrap().pages())
}

/// The last line of a file of events.
fn last(events: &File) -> Value {
    let text = std::fs::read_to_string(events.path()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn every_end_writes_the_ledger_the_end_event_and_the_json_object() {
    let check = |name: &str, handler: &[u32], more: &[&str], code: i32, ledger_pages: Option<u64>| {
        let (image, ledger, events) = (
            guest(&format!("end-{name}"), handler),
            no_file(&format!("end-{name}-ledger")),
            no_file(&format!("end-{name}-events")),
        );
        let args =
            ["run", "--json", "--kernel", image.path(), "--poison", "0x40200000", "--backend", "machine"];
        let files = ["--ledger", ledger.path(), "--events", events.path()];
        let output = seawall(&[&args[..], &files, more].concat());
        let (report, end) = (json(&output), last(&events));
        assert_eq!(output.status.code(), Some(code), "{name}: {report}");
        assert_eq!((&report["outcome"], &end["outcome"]), (&name.into(), &name.into()), "{report}");
        assert_eq!((&end["event"], &end["text"]), (&"end".into(), &report["text"]), "{name}");
        assert_eq!(
            (pages(&ledger), &report["errors_count"].as_u64().map(|n| n > 0)),
            (ledger_pages, &Some(true)),
            "{name}"
        );
        assert_eq!(report["bad_pages"], ledger_pages.unwrap_or_default(), "{name}");
        assert_eq!((&report["backend"], &report["policy"]), (&"machine".into(), &"full".into()), "{name}");
    };
    let panic = says("Kernel panic - not syncing: no init\n", &RESET);
    check("power-off", &[MOV_W0_8, MOVK_W0_8400, HVC], &[], 0, Some(1));
    check("reset", &RESET, &[], 8, Some(1));
    check("panic", &panic, &[], 10, Some(1));
    check("idle", &[WFI], &[], 5, Some(1));
    check("bad-vector", &[0], &[], 5, Some(1)); // udf #0
    check("storm", &[0xd69f_03e0], &[], 6, Some(1)); // eret: back to the load
    check("policy", &[BRANCH_SELF], &["--rule", "kernel-data=stop"], 6, Some(1));
    check("instruction-limit", &[BRANCH_SELF], &["--max-insns", "1000"], 5, Some(1));
    check("time-limit", &[BRANCH_SELF], &["--timeout", "1", "--max-insns", "1e15"], 5, Some(1));
    check("dry-run", &[BRANCH_SELF], &["--dry-run"], 12, None);
}

/// The console goes to a full disk.
#[test]
fn a_run_that_fails_itself_writes_the_ledger_and_the_end_event_too() {
    let image = guest("failed", &says("hi", &[BRANCH_SELF]));
    let (ledger, events) = (no_file("failed-ledger"), no_file("failed-events"));
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["run", "--kernel", image.path(), "--poison", "0x40200000", "--backend", "machine"])
        .args(["--ledger", ledger.path(), "--events", events.path()])
        .stdin(Stdio::null())
        .stdout(full)
        .output()
        .unwrap();
    let message = "cannot write to stdout: No space left on device (os error 28)";
    assert_eq!(output.status.code(), Some(3));
    let stderr = seawall::text(&output.stderr);
    assert!(stderr.ends_with(&format!("error: {message}\n")), "{stderr}");
    assert_eq!(stderr.matches(message).count(), 1, "{stderr}");
    let end = last(&events);
    assert_eq!(
        (&end["event"], &end["outcome"], &end["text"]),
        (&"end".into(), &"failed".into(), &message.into())
    );
    assert_eq!(pages(&ledger), Some(1));
}

/// systemd stops a service by SIGTERM; Ctrl-C is SIGINT in a shell that does not give the guest the terminal.
#[test]
fn a_signal_ends_a_run_as_the_keyboard_does_and_the_exit_code_names_it() {
    use rustix::process::{Pid, Signal, kill_process};

    for (signal, code, name) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")] {
        let image = guest(&format!("signal-{code}"), &says("hi\n", &[BRANCH_SELF]));
        let (ledger, events) = (no_file(&format!("signal-{code}-l")), no_file(&format!("signal-{code}-e")));
        let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(["run", "--kernel", image.path(), "--poison", "0x40200000", "--backend", "machine"])
            .args(["--max-insns", "1e15", "--timeout", "600"])
            .args(["--ledger", ledger.path(), "--events", events.path()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The abort was taken, and the guest loops forever.
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"hi\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let end = last(&events);
        assert_eq!((output.status.code(), &end["outcome"]), (Some(code), &"signal".into()), "{output:?}");
        assert!(end["text"].as_str().unwrap().starts_with(&format!("ended by {name} after ")), "{end}");
        assert_eq!(pages(&ledger), Some(1));
    }
}
