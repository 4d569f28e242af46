//! `seawall campaign` as a user runs it: killed and gone on with, on a real Slurm and HyperQueue, and looked at in a real browser.

mod hyperqueue;
mod linux;
mod slurm;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const SEAWALL: &str = env!("CARGO_BIN_EXE_seawall");

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(SEAWALL);
    command.arg("campaign").args(args);
    command
}

pub(crate) fn campaign(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

pub(crate) fn succeeds(args: &[&str]) -> String {
    let output = campaign(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A campaign of the bare-metal guest with two services, so many moments long; its directory.
pub(crate) fn planned(folder: &Path, moments: &str) -> PathBuf {
    let (kernel, map) = (folder.join("services.bin"), folder.join("map"));
    std::fs::write(&kernel, seawall_guest::services()).unwrap();
    let (kernel, map) = (kernel.to_str().unwrap(), map.to_str().unwrap());
    succeeds(&[
        "plan",
        map,
        "--kernel",
        kernel,
        "--append",
        "",
        "--memory",
        "2M",
        "--firmware",
        "dt",
        "--moments",
        moments,
        "--spacing",
        "1",
        "--horizon",
        "2",
        "--checkpoints",
        "8",
    ]);
    PathBuf::from(map)
}

/// The same campaign without results, elsewhere.
pub(crate) fn copied(map: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(map).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to.to_owned()
}

/// All results of a campaign, by a run that nobody disturbs.
pub(crate) fn undisturbed(map: &Path, to: &Path) -> Vec<u8> {
    let whole = copied(map, to);
    succeeds(&["run", whole.to_str().unwrap(), "--threads", "2"]);
    std::fs::read(whole.join("results.parquet")).unwrap()
}

/// Generous: a task of Slurm's whose node died is started again after half a minute.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_run_that_is_killed_ten_times_gives_the_bytes_of_one_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let map = planned(folder.path(), "6");
    let expected = undisturbed(&map, &folder.path().join("whole"));
    let path = map.to_str().unwrap();
    let mut killed = 0;
    for n in 0..10 {
        let run = Command::new(SEAWALL).args(["-q", "campaign", "run", path]).stdout(Stdio::null()).spawn();
        let mut run = run.unwrap();
        // No test of time: whenever it comes, what there is by then must be gone on from.
        std::thread::sleep(Duration::from_millis(13 + 29 * (n * 7 % 10)));
        killed += u32::from(run.try_wait().unwrap().is_none());
        let _ = run.kill();
        run.wait().unwrap();
    }
    succeeds(&["run", path]);
    assert_eq!(std::fs::read(map.join("results.parquet")).unwrap(), expected, "killed {killed} times");
    let status: Value = serde_json::from_str(&succeeds(&["status", path, "--json"])).unwrap();
    assert_eq!((&status["done"], &status["not_as_planned"]), (&status["all"], &Value::from(0)));
}

#[test]
fn a_verification_says_which_result_is_another_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let map = planned(folder.path(), "1");
    let path = map.to_str().unwrap();
    succeeds(&["run", path, "--pages", "2", "--policy", "full"]);
    let all_same = succeeds(&["verify", path, "--unused", "2"]);
    assert_eq!(all_same, "tried 2 results and 2 pages that nothing uses\n");
    let journal = std::fs::read_dir(map.join("results")).unwrap().flatten().next().unwrap().path();
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replace("\"lost\":1", "\"lost\":0")).unwrap();
    std::fs::remove_file(map.join("results.parquet")).unwrap();
    let output = campaign(&["verify", path, "--unused", "0"]);
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("-full was some-lost"), "{said}");
    assert!(said.contains("came out another way than the campaign says"), "{said}");
}

#[test]
fn what_went_wrong_is_said_with_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let map = planned(folder.path(), "1");
    let path = map.to_str().unwrap();
    let fails = |args: &[&str], code: i32, words: &str| {
        let output = campaign(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    };
    fails(
        &["run", "/nonexistent"],
        3,
        "/nonexistent: expected a campaign, which `seawall campaign plan` makes",
    );
    let kernel = folder.path().join("services.bin");
    let refused = folder.path().join("refused");
    let guest = ["plan", refused.to_str().unwrap(), "--kernel", kernel.to_str().unwrap()];
    for (option, value, code, words) in [
        ("--sample", "0", 2, "expected at least one page of a sample"),
        ("--cpus", "0", 2, "expected 1 to 123 vCPUs, got 0"),
        ("--memory", "3", 11, "give the guest more memory"),
    ] {
        fails(&[&guest[..], &[option, value]].concat(), code, words);
    }
    let twice = ["--policy", "full", "--policy", "full"];
    fails(&[&guest[..], &twice].concat(), 2, "expected each policy once, got full twice");
    fails(&["merge", path], 1, "experiments have no result yet");
    fails(&["replay", path, "dt-0-nowhere-full"], 2, "there is no experiment dt-0-nowhere-full");
    fails(&["plan", path, "--kernel", path, "--memory", "2M"], 3, "a directory without a campaign");
    fails(&["run", path, "--shard", "3/2"], 2, "expected I/N");
    fails(
        &["plan", "/tmp/x", "--kernel", "k", "--policy", "panic"],
        2,
        "policies among serror, mainline, full",
    );
    let script = succeeds(&["submit", path, "--engine", "slurm", "--shards", "4", "--print"]);
    assert!(script.contains("#SBATCH --array=1-4\n"), "{script}");
    for (engine, program) in [("slurm", "sbatch"), ("hq", "hq")] {
        let arguments = ["submit", path, "--engine", engine, "--shards", "4"];
        let output = command(&arguments).env("PATH", "/nonexistent").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(9), "{stderr}");
        assert!(
            stderr.contains(&format!("expected {program} to take the job, on a host that has it")),
            "{stderr}"
        );
    }
}

#[test]
fn the_report_shows_maps_bars_and_replays_in_a_browser() {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    let Some(browser) = browser else {
        println!("skipped: there is no Chromium here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let map = planned(folder.path(), "2");
    let path = map.to_str().unwrap();
    succeeds(&["run", path]);
    succeeds(&["report", path]);
    let page = format!("file://{path}/report.html");
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let shown = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"])
        .args([&profile, &page])
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&shown.stdout);
    assert!(dom.contains("data-ready=\"yes\""), "{}", String::from_utf8_lossy(&shown.stderr));
    for policy in ["serror", "mainline", "full"] {
        assert!(dom.contains(&format!("data-policy=\"{policy}\"")), "a map of {policy}");
    }
    assert!(dom.contains("campaign replay"), "a command that replays");
    assert!(dom.contains("b (SIGBUS)"), "a lost service");
    // All 38 pages in use, of two moments of 512, were tried: 34 of them cost one service of two, and nothing was drawn.
    let figures = "<td>full, without records</td><td class=\"n\">0.0 % (0 of 38)</td>\
                   <td class=\"n\">89.5 % (34 of 38)</td><td class=\"n\">96.3 %</td>";
    assert!(dom.contains(figures), "figures of a census");
    assert!(dom.contains("<td class=\"n\">34</td><td class=\"n\">–</td>"), "no p of a census");
    assert!(!dom.contains("http://") || dom.contains("http://www.w3.org/2000/svg"), "no network");
}
