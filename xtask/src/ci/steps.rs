//! The steps, cheap ones first.

use std::process::Command;
use std::time::SystemTime;

use seawall_linux::{Fetch, Flavour};

use super::tools::{
    QEMU_SYSTEM, QEMU_USER, cargo_has, file_stems, lacking, nightly_has, nightly_has_source, root, works,
};
use super::{Call, Plan, msrv};
use crate::lab::cross;

/// A step of CI.
pub(super) struct Step {
    /// For `--only` and the summary.
    pub(super) name: &'static str,
    /// For `--list` and the heading.
    pub(super) about: &'static str,
    /// Beside which other steps it runs.
    pub(super) lane: Lane,
    /// It takes crates alone, and not long.
    pub(super) is_quick: bool,
    /// What to run, or why nothing can be.
    pub(super) plan: fn() -> Plan,
}

/// The steps of a lane run one after the other, beside those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Host,
    /// What takes the lab: the first of them makes it. No step in it may use the workspace's target folder, which the
    /// other lane's builds lock.
    Lab,
}

impl Step {
    const fn quick(name: &'static str, about: &'static str, plan: fn() -> Plan) -> Self {
        Self { name, about, lane: Lane::Host, is_quick: true, plan }
    }

    const fn host(name: &'static str, about: &'static str, plan: fn() -> Plan) -> Self {
        Self { is_quick: false, ..Self::quick(name, about, plan) }
    }

    const fn lab(name: &'static str, about: &'static str, plan: fn() -> Plan) -> Self {
        Self { lane: Lane::Lab, ..Self::host(name, about, plan) }
    }
}

/// The steps that may be skipped where `CI=true` demands everything, each with its reason. Any other skip fails.
pub(super) const MAY_SKIP: [(&str, &str); 7] = [
    ("aarch64", "it takes a compiler with that target's standard library; the lab makes one of its own"),
    ("deny", "cargo-deny is in no package of Debian, and takes five minutes to build"),
    ("advisories", "the same, and its database is not on every network"),
    (
        "kernel",
        "its first build takes ten minutes: it runs for a day after each change of what it is made of",
    ),
    ("miri", "it takes a nightly toolchain with miri and rust-src"),
    ("races", "it takes a nightly toolchain with rust-src, and an x86-64 host with Linux"),
    ("fuzz", "it takes a nightly toolchain and cargo-fuzz"),
];

/// All steps, in order.
pub(super) const STEPS: &[Step] = &[
    Step::quick("fmt", "the code is formatted", fmt),
    Step::host("clippy", "no warning in any target", clippy),
    Step::host("aarch64", "no warning in what is compiled for Arm hosts alone", aarch64),
    Step::quick("tests", "unit and integration tests", tests),
    Step::host(
        "translation",
        "the machine's tests with all code interpreted, and with all translated",
        translation,
    ),
    Step::quick("doctests", "the examples in the documentation", doctests),
    Step::quick("doc", "the documentation builds without a warning", doc),
    Step::host("features", "seawall without its default features, and with each alone", features),
    Step::host("packages", "each crate can be packaged", packages),
    Step::host("msrv", "all targets build with Debian 13's own Rust 1.85", msrv),
    Step::host("deny", "licences, bans and sources of dependencies", deny),
    Step::host("advisories", "no dependency with a known vulnerability", advisories),
    Step::quick("kernel-fit", "the kernel half can run inside a kernel", kernel_fit),
    Step::host("demo", "each policy's outcome is what it must be", demo),
    Step::host("diff-isa", "the CPU against qemu-aarch64, fixed seeds", diff_isa),
    Step::host("hostile", "two minutes of hostile bytes, fixed seeds, under a limit of memory", hostile),
    Step::host("linux", "Debian's kernel on the machine: boots, recovers from bad memory", linux),
    Step::host(
        "campaign",
        "campaigns: of Debian's guest, and on a Slurm and a HyperQueue that lose nodes",
        campaign,
    ),
    Step::lab("lab", "real KVM in the lab: conformance on both emulators, compared; unit tests", lab),
    Step::lab("lab-diff", "the model against the real kernel, a fixed seed", lab_diff),
    Step::lab("lab-contain", "memory errors under Debian guests on real KVM, contained", lab_contain),
    Step::lab("lab-wrap", "memory errors under Debian's QEMU as it is, by `seawall wrap`", lab_wrap),
    Step::lab("selftests", "Linux's own selftests of external aborts", lab_selftests),
    Step::lab("kernel", "Linux with the kernel half in it: built, and all suites on it", kernel),
    Step::host("miri", "no undefined behaviour in arm and events", miri),
    Step::host("races", "no data race in translations that machines share, by Thread Sanitizer", races),
    Step::host("fuzz", "each fuzz target for some seconds", fuzz),
];

fn fmt() -> Plan {
    Plan::Run(vec![Call::cargo(&["fmt", "--all", "--check"])])
}

fn clippy() -> Plan {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    Plan::Run(vec![Call::cargo(&arguments)])
}

/// The code that speaks to an Arm host's kernel, which the step `clippy` does not see: no linker is needed.
fn aarch64() -> Plan {
    if !cross::is_installed() {
        return Plan::Skip(format!("the standard library is missing: rustup target add {}", cross::TARGET));
    }
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--target",
        cross::TARGET,
        "--",
        "-D",
        "warnings",
    ];
    Plan::Run(vec![Call::cargo(&arguments)])
}

fn tests() -> Plan {
    let (call, note) = if cargo_has("nextest") {
        (Call::cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]), None)
    } else {
        let all_but_doc =
            ["test", "--workspace", "--locked", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"];
        (Call::cargo(&all_but_doc), Some("by cargo test: cargo-nextest is missing".to_owned()))
    };
    // Tests without their peer say so one by one, and pass.
    match (lacking(&[QEMU_SYSTEM, "cc"]), note) {
        (Some(lacking), _) => Plan::RunWithout(vec![call], lacking),
        (None, Some(note)) => Plan::RunInstead(vec![call], note),
        (None, None) => Plan::Run(vec![call]),
    }
}

/// The default, which the step `tests` has, translates what runs often.
fn translation() -> Plan {
    let tests = ["test", "--package", "seawall-machine", "--locked", "--lib", "--tests", "--no-fail-fast"];
    Plan::Run(["off", "first-use"].map(|mode| Call::cargo(&tests).with(TRANSLATION, mode)).to_vec())
}

/// How new machines run their guests' code: `off`, or `first-use`, which translates all.
const TRANSLATION: &str = "SEAWALL_TRANSLATION";

/// No feature of `seawall`, and each alone: the library, as the tests use all of them.
fn features() -> Plan {
    let of = |features: &str| {
        let library = ["clippy", "--package", "seawall", "--lib", "--locked", "--no-default-features"];
        Call::cargo(&[&library[..], &["--features", features, "--", "-D", "warnings"]].concat())
    };
    Plan::Run(["", "records", "ledger", "telemetry", "migration", "host", "serde"].map(of).to_vec())
}

/// What is in the packages, not whether it builds: that would build everything once more.
fn packages() -> Plan {
    let package = ["package", "--workspace", "--locked", "--no-verify", "--allow-dirty"];
    // Those with `publish = false`.
    let not = [
        "xtask",
        "seawall-anchor-edit",
        "seawall-capi",
        "seawall-diff-isa",
        "seawall-hostile",
        "seawall-kernel",
        "seawall-kernel-fit",
        "seawall-lab",
        "seawall-lab-small-vmm",
        "seawall-model",
        "seawall-preload",
    ];
    let exclude = not.iter().flat_map(|name| ["--exclude", name]);
    Plan::Run(vec![Call::cargo(&package.into_iter().chain(exclude).collect::<Vec<_>>())])
}

fn doctests() -> Plan {
    Plan::Run(vec![Call::cargo(&["test", "--workspace", "--locked", "--doc"])])
}

fn doc() -> Plan {
    let call = Call::cargo(&["doc", "--workspace", "--locked", "--no-deps"]);
    Plan::Run(vec![call.with("RUSTDOCFLAGS", "-D warnings")])
}

fn deny() -> Plan {
    if !cargo_has("deny") {
        return Plan::Skip("cargo-deny is missing".into());
    }
    Plan::Run(vec![Call::cargo(&["deny", "check", "licenses", "bans", "sources"])])
}

fn advisories() -> Plan {
    if !cargo_has("deny") {
        return Plan::Skip("cargo-deny is missing".into());
    }
    if !works("cargo", &["deny", "fetch", "db"]) {
        return Plan::Skip("the advisory database cannot be fetched".into());
    }
    Plan::Run(vec![Call::cargo(&["deny", "check", "--disable-fetch", "advisories"])])
}

fn kernel_fit() -> Plan {
    Plan::Run(vec![Call::cargo(&["run", "--locked", "--package", "seawall-kernel-fit"])])
}

fn demo() -> Plan {
    Plan::Run(vec![Call::cargo(&["run", "--release", "--locked", "--", "demo", "--json"]).quietly()])
}

fn msrv() -> Plan {
    match msrv::prepare() {
        Ok(toolchain) => Plan::Run(toolchain.check()),
        Err(error) if error.is_unavailable() => Plan::Skip(error.to_string()),
        Err(error) => Plan::Fail(error.to_string()),
    }
}

fn diff_isa() -> Plan {
    if let Some(lacking) = lacking(&[QEMU_USER]) {
        return Plan::Skip(lacking);
    }
    let call = || Call::cargo(&["run", "--locked", "--package", "seawall-diff-isa", "--", "--ci"]);
    Plan::Run(vec![call().with(TRANSLATION, "off"), call().with(TRANSLATION, "first-use")])
}

fn linux() -> Plan {
    let Some(directory) = seawall_linux::cache_directory() else {
        return Plan::Skip("there is no home to keep Debian's packages in".into());
    };
    let named = std::env::var(FLAVOUR).ok();
    // A word that is none is the tests' to refuse.
    let other = named.as_deref().map_or_else(|| Some(flavour_of_today()), Flavour::by_word);
    for flavour in [Some(Flavour::Cloud), other].into_iter().flatten() {
        // Any other error is the tests' to tell.
        match (Fetch { flavour, ..Fetch::new(directory.clone()) }).guest(&|_| ()) {
            Err(error) if error.is_unavailable() => {
                return Plan::Skip(format!("Debian's packages cannot be had: {error}"));
            }
            _ => {}
        }
    }
    let test = ["test", "--release", "--locked", "--package", "seawall-linux", "--test", "linux"];
    let call = Call::cargo(&[&test[..], &["--", "--ignored"]].concat());
    Plan::Run(vec![match other {
        Some(flavour) => call.with(FLAVOUR, flavour.word()),
        None => call,
    }])
}

/// The tests say themselves what they skip without Debian's packages.
fn campaign() -> Plan {
    let test = ["test", "--release", "--locked", "--package", "seawall-cli", "--test", "campaign"];
    Plan::Run(vec![Call::cargo(&[&test[..], &["--", "--ignored", "--nocapture"]].concat())])
}

/// Names the kernel that the Linux tests boot beside the cloud kernel; the step's command line shows which it is.
const FLAVOUR: &str = "SEAWALL_FLAVOUR";

/// Debian's other kernels take turns, a day each.
fn flavour_of_today() -> Flavour {
    const OTHERS: [Flavour; 3] = [Flavour::Generic, Flavour::Realtime, Flavour::Pages16K];
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let turn = since.as_secs() / 86_400 % OTHERS.len() as u64;
    OTHERS[turn as usize]
}

fn lab() -> Plan {
    Plan::Run(vec![
        Call::xtask(&["lab", "compare"]).if_available(),
        Call::xtask(&["lab", "tests"]).if_available(),
    ])
}

fn lab_diff() -> Plan {
    let arguments = ["lab", "diff", "--seed", "1", "--sequences", "20000"];
    Plan::Run(vec![Call::xtask(&arguments).if_available()])
}

fn lab_contain() -> Plan {
    Plan::Run(vec![Call::xtask(&["lab", "contain"]).if_available()])
}

fn lab_wrap() -> Plan {
    Plan::Run(vec![Call::xtask(&["lab", "wrap"]).if_available()])
}

fn lab_selftests() -> Plan {
    Plan::Run(vec![Call::xtask(&["lab", "selftests"]).if_available()])
}

/// What the kernel is made of, but for Linux.
const KERNEL_PARTS: [&str; 5] =
    ["kernel", "crates/arm", "crates/events", "xtask/src/kernel", "xtask/src/ci/steps.rs"];
/// So long after a change of them the step runs, seconds.
const KERNEL_IS_NEWS: u64 = 24 * 3600;

/// A first build takes ten minutes: it is worth them if there is anything new, or if it is there already.
fn kernel() -> Plan {
    let is_built = root().join("target/kernel/build").exists();
    let changed = committed(&KERNEL_PARTS).zip(committed(&[]));
    // Without git's word it is done.
    if !is_built && changed.is_some_and(|(change, head)| change + KERNEL_IS_NEWS < head) {
        return Plan::Skip("kernel, arm and events are as they were a day before this commit".into());
    }
    Plan::Run(vec![
        Call::xtask(&["kernel", "test"]).if_available(),
        Call::xtask(&["kernel", "bench"]).if_available(),
    ])
}

/// The time of the last commit that changed any of these, or of the last at all: seconds since 1970.
fn committed(paths: &[&str]) -> Option<u64> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct", "--"]).args(paths).current_dir(root());
    let output = git.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn miri() -> Plan {
    if !nightly_has("miri") {
        return Plan::Skip("the nightly toolchain, or its miri, is missing".into());
    }
    if !works("cargo", &["+nightly", "miri", "setup"]) {
        return Plan::Skip("miri's sysroot cannot be built (it takes nightly's rust-src)".into());
    }
    let call =
        Call::cargo(&["+nightly", "miri", "test", "--package", "seawall-arm", "--package", "seawall-events"]);
    // proptest reads the clock and the environment.
    Plan::Run(vec![call.with("MIRIFLAGS", "-Zmiri-disable-isolation")])
}

/// Machines of one snapshot on several threads, under Thread Sanitizer. It has to see the standard library's code, too, which is
/// built for it.
fn races() -> Plan {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Plan::Skip("there are no translations on this host".into());
    }
    if !nightly_has_source() {
        return Plan::Skip("the nightly toolchain, or its rust-src, is missing".into());
    }
    let call = Call::cargo(&[
        "+nightly",
        "test",
        "-Zbuild-std",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--locked",
        "--package",
        "seawall-machine",
        "--test",
        "translation",
        "several",
    ]);
    let target_dir = target_dir("tsan");
    Plan::Run(vec![call.with("RUSTFLAGS", "-Zsanitizer=thread").with("CARGO_TARGET_DIR", &target_dir)])
}

/// A folder beside those of cargo's profiles, for what is built in another way.
fn target_dir(name: &str) -> String {
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    target_dir.join(name).display().to_string()
}

/// The folder with the fuzz targets, and how long each target runs.
const FUZZED: &str = "tools/hostile/fuzz";
const FUZZ_SECONDS: &str = "-max_total_time=10";
/// No line for each input that is new.
const FUZZ_QUIETLY: &str = "-verbosity=0";
/// Nor for each function that is.
const FUZZ_WITHOUT_NAMES: &str = "-print_funcs=0";

fn fuzz() -> Plan {
    if !nightly_has("fuzz") {
        return Plan::Skip("the nightly toolchain, or cargo-fuzz, is missing".into());
    }
    let target_dir = target_dir("fuzz");
    let mut calls = Vec::new();
    for target in file_stems(&root().join(FUZZED).join("fuzz_targets")) {
        calls.push(Call::cargo(&[
            "+nightly",
            "fuzz",
            "run",
            "--fuzz-dir",
            FUZZED,
            "--target-dir",
            &target_dir,
            &target,
            "--",
            FUZZ_SECONDS,
            FUZZ_QUIETLY,
            FUZZ_WITHOUT_NAMES,
            "-print_final_stats=1",
        ]));
    }
    if calls.is_empty() { Plan::Skip("there is no fuzz target".into()) } else { Plan::Run(calls) }
}

/// Each target in a process of its own, with the limit that is the command's default. The tests' profile: it is built, and
/// checks overflow.
fn hostile() -> Plan {
    let targets = file_stems(&root().join(FUZZED).join("fuzz_targets")).len().max(1);
    let seconds = (HOSTILE_SECONDS / targets).to_string();
    let run = ["run", "--locked", "--package", "seawall-hostile", "--"];
    Plan::Run(vec![Call::cargo(&[&run[..], &["--seconds", &seconds, "--seed", "1"]].concat())])
}

/// Of all targets together.
const HOSTILE_SECONDS: usize = 120;
