//! `seawall run --ledger`, and `seawall ledger`, which shows its file.

mod seawall;

use std::time::{Duration, SystemTime};

use ::seawall::ledger::{Cause, Ledger};
use seawall::{File, json, resetter, seawall, text};
use serde_json::Value;

#[test]
fn a_guest_that_reboots_is_healed_and_the_ledger_says_what_is_bad() {
    let (image, ledger) = (resetter("reboots"), File::new("ledger", b""));
    std::fs::remove_file(ledger.path()).unwrap();
    let args =
        ["run", "--kernel", image.path(), "--poison", "0x40200000", "--ledger", ledger.path(), "--json"];
    let output = seawall(&args);
    assert_eq!(output.status.code(), Some(8), "a reset");
    assert_eq!(json(&output)["bad_pages"], 1);
    // `SEAWALL`, zero, version 1, one range: the page at 0x40200000.
    let file = std::fs::read(ledger.path()).unwrap();
    assert_eq!(
        (&file[..8], file[8], file[16], &file[24..32]),
        (&b"SEAWALL\0"[..], 1, 1, &0x4020_0000_u64.to_le_bytes()[..])
    );
    // The next run heals it before it starts; the reboot heals memory that goes bad then.
    let output = seawall(&[&args[..], &["--reboot", "1"]].concat());
    let report = json(&output);
    assert_eq!((output.status.code(), &report["outcome"]), (Some(0), &Value::from("power-off")), "{report}");
    assert_eq!(report["bad_pages"], 0);
    let output = seawall(&["run", "--kernel", image.path(), "--poison", "0x40200000", "--reboot", "1"]);
    let said = text(&output.stderr);
    assert!(said.contains("the guest starts again (reset): 1 bad page healed, 0 left out"), "{said}");
    let output = seawall(&[&args[..], &["--reboot", "1", "--no-heal"]].concat());
    assert_eq!(output.status.code(), Some(8), "it does not look at its memory map");
    assert_eq!(json(&output)["bad_pages"], 1);
}

#[test]
fn a_file_that_is_no_ledger_is_refused_and_stays() {
    let (image, file) = (resetter("no-ledger-guest"), File::new("no-ledger", b"precious"));
    let output = seawall(&["run", "--kernel", image.path(), "--ledger", file.path()]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(said.contains("expected a ledger, which begins with `SEAWALL`, got something else"), "{said}");
    assert_eq!(std::fs::read(file.path()).unwrap(), b"precious");
}

/// Pages that went bad one after the other, and a block of 1 GiB that went bad at once.
fn ledger(name: &str) -> File {
    let mut ledger = Ledger::default();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    ledger.insert(0x4021_0000..0x4021_1000, Cause::Consumed, at(1_790_856_000));
    ledger.insert(0x4021_1000..0x4021_3000, Cause::Found, at(1_790_856_061));
    ledger.insert(0x8000_0000..0xc000_0000, Cause::Migrated, at(0));
    ledger.insert(0xf_ffff_ffff_f000..0x10_0000_0000_0000, Cause::Experiment, at(1_790_856_061));
    File::new(name, &ledger.to_bytes())
}

#[test]
fn a_ledger_is_shown_range_by_range() {
    let file = ledger("shown");
    let output = seawall(&["ledger", file.path()]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    assert_eq!(
        text(&output.stdout),
        "guest physical                             pages  cause       since\n\
         0x40210000..0x40211000                         1  consumed    2026-10-01T12:00:00Z\n\
         0x40211000..0x40213000                         2  found       2026-10-01T12:01:01Z\n\
         0x80000000..0xc0000000                    262144  migrated    1970-01-01T00:00:00Z\n\
         0xffffffffff000..0x10000000000000              1  experiment  2026-10-01T12:01:01Z\n\
         262148 pages are bad, of 4096 bytes each\n"
    );
    let empty = File::new("empty-ledger", &Ledger::default().to_bytes());
    assert_eq!(text(&seawall(&["ledger", empty.path()]).stdout), "no page is bad\n");
}

#[test]
fn a_ledger_as_json_has_each_range() {
    let file = ledger("json");
    let report = json(&seawall(&["ledger", "--json", file.path()]));
    assert_eq!((&report["pages"], &report["page_bytes"]), (&262_148.into(), &4096.into()));
    assert_eq!(report["ranges"].as_array().unwrap().len(), 4);
    assert_eq!(
        report["ranges"][1],
        serde_json::json!({
            "gpa": "0x40211000", "bytes": 8192, "cause": "found", "time": "2026-10-01T12:01:01Z"
        })
    );
}

#[test]
fn a_file_that_is_no_ledger_is_not_shown() {
    let check = |path: &str, message: &str| {
        let output = seawall(&["ledger", path]);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), stderr), (Some(3), format!("error: {message}\n")));
    };
    let foreign = File::new("foreign", b"precious");
    let path = foreign.path();
    check(path, &format!("{path}: expected a ledger, which begins with `SEAWALL`, got something else"));
    let mut damaged = std::fs::read(ledger("whole").path()).unwrap();
    damaged[30] ^= 1;
    let damaged = File::new("damaged", &damaged);
    let path = damaged.path();
    check(path, &format!("{path}: the checksum is wrong: the ledger was damaged"));
    check(
        "/no/such/ledger",
        "cannot read the ledger /no/such/ledger: there is no such file; a run writes it when the first page goes bad",
    );
}

#[test]
fn a_run_says_how_many_pages_of_its_ledger_it_heals() {
    let (image, ledger) = (resetter("heals"), File::new("heals-ledger", b""));
    std::fs::remove_file(ledger.path()).unwrap();
    let run = |more: &[&str]| {
        let args = ["run", "--kernel", image.path(), "--ledger", ledger.path()];
        text(&seawall(&[&args[..], more].concat()).stderr)
    };
    let first = run(&["--poison", "0x40200000", "--poison", "0x40300000"]);
    assert!(!first.contains("healed"), "{first}");
    let left_out = run(&["--no-heal"]);
    assert!(
        left_out.starts_with(
            "seawall: of the ledger, before the guest starts: 0 bad pages healed, 1 left out of the guest's memory\n"
        ),
        "{left_out}"
    );
    let events = File::new("heals-events", b"");
    let healed = run(&["--events", events.path()]);
    assert!(
        healed.starts_with(
            "seawall: of the ledger, before the guest starts: 1 bad page healed, 0 left out of the guest's memory\n"
        ),
        "{healed}"
    );
    let events = std::fs::read_to_string(events.path()).unwrap();
    let first: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["event"], &first["healed"], &first["left_out"]),
        (&"heal".into(), &1.into(), &0.into())
    );
    // Nothing is left to heal.
    assert!(!run(&[]).contains("healed"));
}
