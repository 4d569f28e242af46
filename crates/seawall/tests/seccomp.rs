//! The ledger's writer under a seccomp filter of its step's rules and the runtime's alone, and with any one
//! of them left out. A filter cannot be removed, and kills: each case runs in a process of its own.

#![cfg(all(target_os = "linux", feature = "ledger", any(target_arch = "aarch64", target_arch = "x86_64")))]
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, exit};
use std::time::SystemTime;
use std::{env, thread};

use seawall::ledger::{Cause, Keeper, Writer};
use seawall_host::seccomp::{RUNTIME, Rule, STEPS, WRITE_LEDGER, allow};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// The child's variable with the rule to leave out, if any.
const LEFT_OUT: &str = "SEAWALL_TEST_LEFT_OUT";

fn run_under(rules: &[Rule], writer: Writer) -> thread::JoinHandle<()> {
    let mut filter = BTreeMap::new();
    allow(&mut filter, rules).unwrap();
    let arch = env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(filter, SeccompAction::KillProcess, SeccompAction::Allow, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    thread::spawn(move || {
        apply_filter(&program).unwrap();
        writer.run();
    })
}

/// Lets no file grow from now on, like a full disk.
fn fill_disk() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure outlives the call; an ignored signal runs no code.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const none), 0);
    }
}

/// Not a test, but the process that the other test starts.
#[test]
fn child() {
    let Ok(left_out) = env::var(LEFT_OUT) else { return };
    let left_out = left_out.parse().ok().map(|number: usize| WRITE_LEDGER.rules[number]);
    let rules = RUNTIME.iter().chain(WRITE_LEDGER.rules).filter(|rule| Some(**rule) != left_out);
    let directory = tempfile::tempdir().unwrap();
    let (keeper, writer) = Keeper::with_writer(&directory.path().join("ledger")).unwrap();
    let thread = run_under(&rules.copied().collect::<Vec<_>>(), writer);
    // A new file, and one that replaces another.
    for page in 0..2 {
        keeper.insert(page * 0x2000..page * 0x2000 + 1, Cause::Consumed, SystemTime::now());
        keeper.flush().unwrap();
    }
    fill_disk();
    keeper.insert(0x8000..0x8001, Cause::Consumed, SystemTime::now());
    keeper.flush().unwrap_err();
    drop(keeper);
    thread.join().unwrap();
    exit(0);
}

fn run(left_out: Option<usize>) -> ExitStatus {
    let number = left_out.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "--exact", "--test-threads", "1"]).env(LEFT_OUT, number);
    command.output().unwrap().status
}

#[test]
fn the_ledger_is_written_under_its_rules_and_killed_with_one_fewer() {
    assert_eq!(run(None).code(), Some(0), "under all rules");
    // No test can make the names of new files collide.
    let met = WRITE_LEDGER.rules.iter().enumerate().filter(|(_, rule)| rule.name != "getrandom");
    for (number, rule) in met {
        assert_eq!(run(Some(number)).signal(), Some(libc::SIGSYS), "without {rule}");
    }
}

/// The name of the call on aarch64, where it differs.
fn on_aarch64(name: &str) -> &str {
    match name {
        "readlink" => "readlinkat",
        "unlink" => "unlinkat",
        same => same,
    }
}

#[test]
fn the_guide_has_a_row_for_each_step_with_all_its_calls() {
    let guide = include_str!("../../../docs/embedding.md");
    for step in STEPS {
        let row = guide.lines().find(|line| line.starts_with(&format!("| {} |", step.name)));
        let row = row.unwrap_or_else(|| panic!("the guide has no row for `{}`", step.name));
        for rule in step.rules {
            let word = rule.purpose.unwrap_or(on_aarch64(rule.name));
            assert!(row.contains(word), "the row of `{}` has no `{word}`", step.name);
        }
    }
}
