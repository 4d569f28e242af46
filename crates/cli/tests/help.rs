//! A new user's first steps: help, manual, completions, and a file without an option.

mod seawall;

use std::process::Command;

use ::seawall::ledger::Ledger;
use seawall::{BRANCH_SELF, File, HELLO, OFF, ends, error, image, seawall, text};

fn stdout(args: &[&str]) -> String {
    let output = seawall(args);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{args:?}");
    text(&output.stdout)
}

#[test]
fn each_exit_code_is_in_the_help_of_the_command_and_of_run() {
    let codes = "Exit codes:
   0  done; the guest powered itself off
   1  an outcome was not what it must be, or `decode` found nothing to explain
   2  wrong usage
   3  a file cannot be read or written, or is no guest
   4  a range is not in memory, or a size cannot be
   5  the guest hung: a limit was reached, or it is idle for ever
   6  stopped: the guest took the same abort for ever, or a rule says so
   7  the guest needs something that the machine does not have
   8  the guest asked for a reset
   9  this host does not have what was asked for
  10  the guest's kernel panicked
  11  the guest does not fit into its memory
  12  a dry run met bad memory
  13  the guest ended without having named the page of a --poison page:NAME
  14  `wrap`: the program is statically linked
  15  `wrap`: the program is a script, or of another architecture or C library
  16  `wrap`: the program is setuid or has capabilities, so that no library is brought into it
  17  `wrap`: the library is not there, or does not fit the program's C library
  18  `wrap`: the host's kernel has no SEA exits
  19  `wrap`: the host's CPUs have no RAS extension
  20  `wrap`: the command is in seccomp's strict mode
 143  ended by SIGTERM; 129: by SIGHUP, 130: by SIGINT\n";
    for args in [&["--help"][..], &["run", "--help"], &["wrap", "--help"]] {
        let help = stdout(args);
        assert!(help.ends_with(codes), "{help}");
    }
}

#[test]
fn short_help_is_a_line_an_option_and_long_help_has_all_of_it() {
    let (short, long) = (stdout(&["run", "-h"]), stdout(&["run", "--help"]));
    assert!(short.lines().count() < 80 && long.lines().count() > 150, "{}", long.lines().count());
    for text in ["Ctrl-A X leaves", "seawall run --kernel vmlinuz"] {
        assert!(short.contains(text) && long.contains(text), "{text}");
    }
    for text in ["host-first", "kernel-fetch", "page:NAME", "1e9", "Exit codes:"] {
        assert!(long.contains(text), "{text}");
    }
    assert!(!short.contains("Exit codes:"));
    assert!(short.lines().all(|line| line.chars().count() <= 100), "{short}");
}

#[test]
fn a_file_without_an_option_is_the_kernel_and_its_kind_is_said() {
    let flat = File::code("flat", &HELLO);
    let first_line = |path: &str| {
        let output = seawall(&["run", path]);
        assert_eq!(output.status.code(), Some(0));
        text(&output.stderr).lines().next().unwrap().to_owned()
    };
    assert_eq!(
        first_line(flat.path()),
        format!(
            "seawall: {} is taken for a flat image of 32 bytes, as it has no mark of anything else (--kernel; --load \
             ADDR is where it goes)",
            flat.path()
        )
    );
    let linux = File::new("linux", &image(0x1000, &OFF));
    assert_eq!(
        first_line(linux.path()),
        format!("seawall: {} is taken for an arm64 Linux kernel (--kernel)", linux.path())
    );
    let both = seawall(&["run", flat.path(), "--kernel", flat.path()]);
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(seawall(&["run", flat.path(), "--restore", flat.path()]).status.code(), Some(2));
}

#[test]
fn a_snapshot_or_a_ledger_in_place_of_a_kernel_is_told_where_it_belongs() {
    let flat = File::code("to-keep", &HELLO);
    let kept = File::new("kept", b"");
    let output = seawall(&["run", "--memory", "2M", "--kernel", flat.path(), "--snapshot", kept.path()]);
    assert_eq!(output.status.code(), Some(0));
    let path = kept.path();
    let message = format!(
        "{path}: expected an arm64 kernel, got a snapshot of Seawall's: go on from it by --restore, without a kernel"
    );
    assert_eq!(ends(&[path]), error(3, &message));
    assert_eq!(ends(&["--kernel", path]), error(3, &message));
    let ledger = File::new("no-kernel", &Ledger::default().to_bytes());
    let path = ledger.path();
    let message = format!(
        "{path}: expected an arm64 kernel, got a ledger of Seawall's: it is for --ledger; seawall ledger shows it"
    );
    assert_eq!(ends(&[path]), error(3, &message));
}

#[test]
fn a_flat_image_takes_no_initramfs() {
    let (flat, initrd) = (File::code("no-initrd", &HELLO), File::new("cpio", b"070701"));
    let message = format!(
        "--initrd {}: expected a Linux kernel or an ELF to go with it, got {}, which has no mark of either and would run \
         as a flat image; give the kernel, or leave --initrd out",
        initrd.path(),
        flat.path()
    );
    assert_eq!(ends(&["--kernel", flat.path(), "--initrd", initrd.path()]), error(2, &message));
}

#[test]
fn counts_may_be_written_with_exponents_and_underscores() {
    let guest = File::code("counts", &[BRANCH_SELF]);
    for (count, instructions) in [("1e3", "1000"), ("2_000", "2000"), ("1.5e3", "1500"), ("0x10", "16")] {
        let (code, words) = ends(&["--kernel", guest.path(), "--max-insns", count]);
        assert_eq!(code, Some(5));
        let expected = format!("the guest did not end in {instructions} instructions (PC 0x40080000)");
        assert!(words.contains(&expected), "{words}");
    }
    let output = seawall(&["run", "--kernel", guest.path(), "--max-insns", "1e-3"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    let expected = "expected a whole number of at most 64 bits, such as 1000, 10_000_000 or 1e9, got `1e-3`";
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH seawall 1") && page.contains("seawall\\-ledger(1)"), "{page}");
    assert!(page.contains("the guest ended without having named the page"), "{page}");
    let page = stdout(&["man", "run"]);
    assert!(page.contains(".TH seawall-run 1") && page.contains("\\-\\-poison"), "{page}");
    assert!(stdout(&["man", "guest", "fetch"]).contains(".TH seawall-guest-fetch 1"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    stdout(&["man", "--dir", pages.to_str().unwrap()]);
    let mut names: Vec<_> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "seawall-campaign-merge.1",
            "seawall-campaign-plan.1",
            "seawall-campaign-replay.1",
            "seawall-campaign-report.1",
            "seawall-campaign-run.1",
            "seawall-campaign-status.1",
            "seawall-campaign-submit.1",
            "seawall-campaign-verify.1",
            "seawall-campaign.1",
            "seawall-check.1",
            "seawall-completions.1",
            "seawall-decode.1",
            "seawall-demo.1",
            "seawall-guest-fetch.1",
            "seawall-guest.1",
            "seawall-ledger.1",
            "seawall-man.1",
            "seawall-probe.1",
            "seawall-run.1",
            "seawall-wrap.1",
            "seawall.1"
        ]
    );
    let unknown = seawall(&["man", "guest", "feed"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(text(&unknown.stderr), "error: no command `feed`: expected one of fetch\n");
}

#[test]
fn each_shell_gets_its_completions() {
    assert!(stdout(&["completions", "zsh"]).starts_with("#compdef seawall\n"));
    assert!(stdout(&["completions", "fish"]).contains("complete -c seawall "));
    assert!(stdout(&["completions", "bash"]).contains("complete -F _seawall "));
    assert_eq!(seawall(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn bash_completes_commands_and_options() {
    if Command::new("bash").arg("--version").output().is_err() {
        println!("skipped: there is no bash here");
        return;
    }
    let script = File::new("completions", stdout(&["completions", "bash"]).as_bytes());
    let complete = |words: &[&str]| {
        let [.., before, typed] = words else { panic!("two words") };
        let ask = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={}; _seawall seawall '{typed}' '{before}'; echo \"${{COMPREPLY[*]}}\"",
            script.path(),
            words.join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        assert_eq!(text(&output.stderr), "");
        text(&output.stdout)
    };
    assert_eq!(complete(&["seawall", "le"]), "ledger\n");
    assert_eq!(complete(&["seawall", "run", "--max"]), "--max-insns\n");
    assert_eq!(complete(&["seawall", "run", "--policy", "main"]), "mainline\n");
}
