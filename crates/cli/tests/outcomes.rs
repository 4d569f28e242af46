//! `seawall run`: every outcome is reported, of errors, of rules, and of poison without effect.

mod seawall;

use seawall::{File, HELLO, OFF, RESET, ends, error, json, loader, resetter, says, seawall, text};
use serde_json::Value;

/// The command's lines on stderr.
fn said(args: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = seawall(&[&["run"], args].concat());
    let lines = text(&output.stderr).lines().map(str::to_owned).collect();
    (output.status.code(), lines)
}

#[test]
fn a_dry_run_says_what_would_have_been_done_to_whom_and_why() {
    let image = resetter("dry-run");
    let run = ["--kernel", image.path(), "--poison", "0x40200000", "--dry-run"];
    let met = "seawall: load at EL1, PC 0x4008000c: gva 0x40200000, gpa 0x40200000: dry run:";
    let kernel = "seawall: vCPU 0 at EL1, the guest's kernel; an error of the kind kernel-data, by";
    let end = "seawall: the guest met bad memory after 3 instructions: a dry run ends here";
    let check = |more: &[&str], what: &str, why: &str| {
        let expected = [format!("{met} {what}"), format!("{kernel} {why}"), end.to_owned()];
        assert_eq!(said(&[&run[..], more].concat()), (Some(12), expected.to_vec()));
    };
    check(&[], "data abort, ISS 0x210 would have been injected", "--policy full: the abort as it happened");
    check(
        &["--policy", "mainline"],
        "data abort, no ESR given would have been injected",
        "--policy mainline: a data abort without an ESR, whatever happened",
    );
    check(
        &["--policy", "serror"],
        "SError, no ESR given would have been injected",
        "--policy serror: an SError, whatever happened",
    );
    check(
        &["--rule", "kernel-data=data-abort"],
        "data abort, no ESR given would have been injected",
        "--rule kernel-data=data-abort",
    );
    check(
        &["--rule", "user-data=stop"],
        "data abort, ISS 0x210 would have been injected",
        "the rule kernel-data=replay of --policy full",
    );
    let report = json(&seawall(&[&["run", "--json"], &run[..]].concat()));
    assert_eq!(report["outcome"], "dry-run");
    assert_eq!(report["errors"].as_array().unwrap().len(), 1);
    assert_eq!(report["errors"][0]["exit_esr"], "0x92000210");
}

#[test]
fn a_rule_that_stops_a_guest_says_which_it_is() {
    let image = resetter("ruled");
    let run = |rule| said(&["--kernel", image.path(), "--poison", "0x40200000", "--rule", rule]);
    let stopped = [
        "seawall: load at EL1, PC 0x4008000c: gva 0x40200000, gpa 0x40200000: stopped: the policy stops a guest at this \
         kind of error: kernel-data",
        "seawall: vCPU 0 at EL1, the guest's kernel; an error of the kind kernel-data, by --rule kernel-data=stop",
        "seawall: the guest was stopped after 3 instructions: the policy stops a guest at this kind of error: kernel-data",
    ];
    assert_eq!(run("kernel-data=stop"), (Some(6), stopped.map(String::from).to_vec()));
    // Another kind's rule does not apply; this machine's host has no copy of a page.
    assert_eq!(run("user-data=stop").0, Some(8));
    assert_eq!(run("kernel-data=host-first").0, Some(8));
    let (code, words) = run("kernel-data=die");
    assert_eq!(code, Some(2));
    let words = words.join(" ");
    assert!(words.contains("ANSWER one of replay, data-abort, serror, stop, host-first"), "{words}");
}

#[test]
fn a_storm_is_said_with_its_last_error() {
    let image = File::code("stormy", &loader(0xd69f_03e0)); // eret: back to the load
    let (code, lines) = said(&["--kernel", image.path(), "--poison", "0x40200000"]);
    assert_eq!((code, lines.len()), (Some(6), 16 + 3));
    let storm = "the guest took the same abort 17 times at PC 0x4008000c, address 0x40200000: it does not handle it (are \
                 its vectors or page tables bad?)";
    assert_eq!(
        lines[16],
        format!("seawall: load at EL1, PC 0x4008000c: gva 0x40200000, gpa 0x40200000: stopped: {storm}")
    );
    assert_eq!(
        lines[17],
        "seawall: vCPU 0 at EL1, the guest's kernel; an error of the kind kernel-data, by the storm guard"
    );
    assert_eq!(lines[18], format!("seawall: the guest was stopped after 19 instructions: {storm}"));
}

#[test]
fn a_page_that_the_guest_never_named_is_a_failure_with_the_names_that_it_gave() {
    let pages =
        "seawall: page heap 0x40200000\nseawall: page code 0x40300000\nseawall: page heap 0x40200000\n";
    let guest = File::code("never-named", &says(pages, &OFF));
    let run = |poison: &str| ends(&["--kernel", guest.path(), "--poison", poison]);
    let message = "--poison page:stack: the guest never named it; it named heap, code";
    assert_eq!(run("page:stack"), error(13, message));
    let two = ["--kernel", guest.path(), "--poison", "page:stack", "--poison", "page:bss"];
    let message = "--poison page:stack, page:bss: the guest never named it; it named heap, code";
    assert_eq!(ends(&two), error(13, message));
    let silent = File::code("names-nothing", &HELLO);
    let message = "--poison page:stack: the guest never named it; it named no page at all";
    assert_eq!(ends(&["--kernel", silent.path(), "--poison", "page:stack"]), error(13, message));
    let report = json(&seawall(&["run", "--json", "--kernel", guest.path(), "--poison", "page:stack"]));
    assert_eq!((&report["outcome"], &report["poison_to_come"]), (&"power-off".into(), &1.into()));
    assert_eq!(
        (&report["pages_named"], &report["pages_not_named"]),
        (&serde_json::json!(["heap", "code"]), &serde_json::json!(["stack"]))
    );
}

#[test]
fn a_guest_that_came_to_a_bad_end_has_that_ends_exit_code() {
    let panic = "Kernel panic - not syncing: no init\n";
    let guest = File::code("panics", &says(panic, &RESET));
    let (code, lines) = said(&["--kernel", guest.path(), "--poison", "page:stack"]);
    assert_eq!(code, Some(10));
    assert_eq!(
        lines.last().unwrap(),
        "seawall: --poison page:stack: the guest never named it; it named no page at all"
    );
    let resets = File::code("resets", &says("", &RESET));
    assert_eq!(said(&["--kernel", resets.path(), "--poison", "page:stack"]).0, Some(13));
}

#[test]
fn poison_that_never_came_due_is_said() {
    let code = File::code("late", &HELLO);
    let output = seawall(&["run", "--kernel", code.path(), "--poison", "0x40000000@1000"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("1 of the --poison ranges did not go bad"), "{stderr}");
    // The guest's `hi` has no line break: the command's message still starts a line.
    assert!(stderr.starts_with("\nseawall: ") && !stderr.contains("\n\n"), "{stderr:?}");
}

#[test]
fn poison_that_was_never_consumed_is_said() {
    // mov x1, #0x40200000; ldr x2, [x1]
    let load = [0xd2a8_0401, 0xf940_0022];
    let guest =
        File::code("unconsumed", &says("seawall: page heap 0x40200000\n", &[&load[..], &OFF].concat()));
    let run = |poison: &[&str]| {
        let poison: Vec<&str> = poison.iter().flat_map(|poison| ["--poison", poison]).collect();
        let (code, lines) = said(&[&["--kernel", guest.path()], &poison[..]].concat());
        (code, lines.into_iter().filter(|line| line.contains("consumed")).collect::<Vec<_>>())
    };
    assert_eq!(
        run(&["0x40200040", "page:heap@3"]),
        (
            Some(5),
            vec!["seawall: 0x40200040..0x40200080, was bad and was never consumed: nothing read it".into()]
        ),
        "nothing is at VBAR_EL1"
    );
    // The load is past then.
    assert_eq!(
        run(&["page:heap@8"]),
        (
            Some(0),
            vec![
                "seawall: page heap, 0x40200000..0x40200040, was bad and was never consumed: nothing read it"
                    .into()
            ]
        )
    );
    let args =
        ["run", "--json", "--kernel", guest.path(), "--poison", "0x40200040", "--poison", "0x40201000"];
    assert_eq!(json(&seawall(&args))["poison_not_consumed"], Value::from(2));
}

#[test]
fn quiet_says_nothing_but_errors() {
    let guest = resetter("quiet");
    let run = |more: &[&str]| said(&[&["--quiet", "--kernel", guest.path()], more].concat());
    assert_eq!(run(&[]), (Some(0), vec![]));
    assert_eq!(run(&["--poison", "0x40300000"]), (Some(0), vec![]));
    let reset = "error: the guest asked for a reset after 6 instructions".to_owned();
    assert_eq!(run(&["--poison", "0x40200000"]), (Some(8), vec![reset]));
    let unnamed = "error: --poison page:x: the guest never named it; it named no page at all".to_owned();
    assert_eq!(run(&["--poison", "page:x"]), (Some(13), vec![unnamed]));
    // An option of each command, before and after its name.
    let code = File::code("quiet-before", &HELLO);
    let output = seawall(&["-q", "run", "--kernel", code.path()]);
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("hi", ""));
}
