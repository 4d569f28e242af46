//! The steps, cheap ones first.

use std::time::SystemTime;

use seawall_linux::{Fetch, Flavour};

use super::tools::{cargo_has, file_stems, nightly_has, on_path, root, works};
use super::{Call, Plan};

/// A step of CI.
pub(super) struct Step {
    /// For `--only` and the summary.
    pub(super) name: &'static str,
    /// For `--list` and the heading.
    pub(super) about: &'static str,
    /// What to run, or why nothing can be.
    pub(super) plan: fn() -> Plan,
}

/// All steps, in order.
pub(super) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "the code is formatted", plan: fmt },
    Step { name: "clippy", about: "no warning in any target", plan: clippy },
    Step { name: "tests", about: "unit and integration tests", plan: tests },
    Step { name: "doctests", about: "the examples in the documentation", plan: doctests },
    Step { name: "doc", about: "the documentation builds without a warning", plan: doc },
    Step { name: "deny", about: "licences, bans and sources of dependencies", plan: deny },
    Step { name: "advisories", about: "no dependency with a known vulnerability", plan: advisories },
    Step { name: "kernel-fit", about: "the kernel half can run inside a kernel", plan: kernel_fit },
    Step { name: "demo", about: "each policy's outcome is what it must be", plan: demo },
    Step { name: "diff-isa", about: "the CPU against qemu-aarch64, fixed seeds", plan: diff_isa },
    Step {
        name: "linux",
        about: "Debian's kernel on the machine: boots, recovers from bad memory",
        plan: linux,
    },
    Step { name: "lab", about: "real KVM in the lab: unit tests, conformance", plan: lab },
    Step { name: "lab-diff", about: "the model against the real kernel, a fixed seed", plan: lab_diff },
    Step {
        name: "lab-contain",
        about: "memory errors under Debian guests on real KVM, contained",
        plan: lab_contain,
    },
    Step { name: "selftests", about: "Linux's own selftests of external aborts", plan: lab_selftests },
    Step { name: "miri", about: "no undefined behaviour in arm and events", plan: miri },
    Step { name: "fuzz", about: "each fuzz target for some seconds", plan: fuzz },
];

fn fmt() -> Plan {
    Plan::Run(vec![Call::cargo(&["fmt", "--all", "--check"])])
}

fn clippy() -> Plan {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    Plan::Run(vec![Call::cargo(&arguments)])
}

fn tests() -> Plan {
    if cargo_has("nextest") {
        return Plan::Run(vec![Call::cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ])]);
    }
    let all_but_doc =
        ["test", "--workspace", "--locked", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"];
    Plan::RunInstead(vec![Call::cargo(&all_but_doc)], "by cargo test: cargo-nextest is missing".into())
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
    Plan::Run(vec![Call::cargo(&["xtask", "kernel-fit"])])
}

fn demo() -> Plan {
    Plan::Run(vec![Call::cargo(&["run", "--release", "--locked", "--", "demo", "--json"]).quietly()])
}

fn diff_isa() -> Plan {
    if !on_path("qemu-aarch64") {
        return Plan::Skip("qemu-aarch64 is missing (package qemu-user)".into());
    }
    Plan::Run(vec![Call::cargo(&["xtask", "diff-isa", "--ci"])])
}

fn linux() -> Plan {
    let Some(directory) = seawall_linux::cache_directory() else {
        return Plan::Skip("there is no home to keep Debian's packages in".into());
    };
    let other = other_flavour();
    for flavour in [Flavour::Cloud, other] {
        // Any other error is the tests' to tell.
        match (Fetch { flavour, ..Fetch::new(directory.clone()) }).guest(&|_| ()) {
            Err(error) if error.is_unavailable() => {
                println!("{error}");
                return Plan::Skip("Debian's packages cannot be had".into());
            }
            _ => {}
        }
    }
    let test = ["test", "--release", "--locked", "--package", "seawall-linux", "--test", "linux"];
    let call = Call::cargo(&[&test[..], &["--", "--ignored"]].concat());
    Plan::Run(vec![call.with(FLAVOUR, other.word())])
}

/// Names the kernel that the Linux tests boot beside the cloud kernel.
const FLAVOUR: &str = "SEAWALL_FLAVOUR";

/// Debian's kernels take turns, one a day, unless one is named. The step's command line shows which it is.
fn other_flavour() -> Flavour {
    let others = [Flavour::Generic, Flavour::Realtime, Flavour::Pages16K];
    let named = std::env::var(FLAVOUR).ok();
    if let Some(flavour) = others.into_iter().find(|flavour| named.as_deref() == Some(flavour.word())) {
        return flavour;
    }
    let today =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    others[today as usize % others.len()]
}

/// The first of them makes the lab.
fn lab() -> Plan {
    Plan::Run(vec![
        Call::cargo(&["xtask", "lab", "check"]).if_available(),
        Call::cargo(&["xtask", "lab", "tests"]).if_available(),
    ])
}

fn lab_diff() -> Plan {
    let arguments = ["xtask", "lab", "diff", "--seed", "1", "--sequences", "3000"];
    Plan::Run(vec![Call::cargo(&arguments).if_available()])
}

fn lab_contain() -> Plan {
    Plan::Run(vec![Call::cargo(&["xtask", "lab", "contain"]).if_available()])
}

fn lab_selftests() -> Plan {
    Plan::Run(vec![Call::cargo(&["xtask", "lab", "selftests"]).if_available()])
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

/// The folders with fuzz targets, and how long each target runs.
const FUZZED: [&str; 2] = ["crates/events/fuzz", "crates/machine/fuzz"];
const FUZZ_SECONDS: &str = "-max_total_time=10";
/// No line for each input that is new.
const FUZZ_QUIETLY: &str = "-verbosity=0";

fn fuzz() -> Plan {
    if !nightly_has("fuzz") {
        return Plan::Skip("the nightly toolchain, or cargo-fuzz, is missing".into());
    }
    let target_dir =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into).join("fuzz");
    let target_dir = target_dir.display().to_string();
    let mut calls = Vec::new();
    for folder in FUZZED {
        for target in file_stems(&root().join(folder).join("fuzz_targets")) {
            calls.push(Call::cargo(&[
                "+nightly",
                "fuzz",
                "run",
                "--fuzz-dir",
                folder,
                "--target-dir",
                &target_dir,
                &target,
                "--",
                FUZZ_SECONDS,
                FUZZ_QUIETLY,
                "-print_final_stats=1",
            ]));
        }
    }
    if calls.is_empty() { Plan::Skip("there is no fuzz target".into()) } else { Plan::Run(calls) }
}
