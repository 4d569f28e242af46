//! Linux's own tests of external aborts, from Debian's `linux-source` of the kernel that is booted, unmodified; and ours of
//! the ioctl. They are linked dynamically, so that they run without and with libseawall_preload.so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

mod all;

use super::cache::Cached;
use super::error::{Error, Result};
use super::initramfs::Guest;
use super::machine::Machine;
use super::progress::{Step, indented};
use super::session::Ended;
use super::source::{Parts, Source};
use super::{Folders, Lab, UNAVAILABLE, einj, files, host, preload};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Instead of these, Linux's other selftests of KVM for arm64, as many as build; or those that are named
    #[arg(long, value_name = "NAME", num_args = 0..)]
    all: Option<Vec<String>>,
}

/// A test in the lab's /bin.
struct Test {
    name: &'static str,
    /// It has the firmware inject errors, by Linux's einj driver, or by a stand-in.
    injects: bool,
    /// How it is run, each time in a lab of its own.
    ways: &'static [Way],
}

/// Without or with the library.
struct Way {
    /// What to add to the test's name.
    about: &'static str,
    environment: &'static str,
}

const PLAIN: Way = Way { about: "", environment: "" };
const PRELOADED: Way =
    Way { about: " with libseawall_preload.so", environment: "LD_PRELOAD=/lib/libseawall_preload.so " };
const TRAILING: Way = Way {
    about: " with libseawall_preload.so, ext_abt_esr last",
    environment: "LD_PRELOAD=/lib/libseawall_preload.so SEAWALL_LAYOUT=trailing ",
};

/// Linux's, of tools/testing/selftests/kvm/arm64.
const OF_LINUX: [Test; 2] = [
    Test { name: "external_aborts", injects: false, ways: &[PLAIN, PRELOADED] },
    Test { name: "sea_to_user", injects: true, ways: &[PLAIN, PRELOADED] },
];
/// Ours: the proposal's rules, by raw ioctls.
const OURS: [Test; 1] =
    [Test { name: "seawall-lab-raw-ioctls", injects: false, ways: &[PLAIN, PRELOADED, TRAILING] }];
const PACKAGES: [&str; 4] = ["bison", "build-essential", "flex", "xz-utils"];
/// What the tests are built from.
const PARTS: [&str; 9] =
    ["Kbuild", "Kconfig", "Makefile", "arch/arm64", "arch/x86/include", "include", "scripts", "tools", "usr"];
/// kselftest.h: KSFT_SKIP.
const SKIPPED: i32 = 4;
/// Changed when this file builds otherwise.
const KEY: &str = "1";

/// How many came to what.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn code(&self) -> u8 {
        match self {
            Self { failed: 0, skipped: 0, .. } => 0,
            Self { failed: 0, .. } => UNAVAILABLE,
            _ => 1,
        }
    }

    fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs all. The last line is `N passed, N failed, N skipped`. The exit code is 1 if one failed, 77 if one was skipped.
pub(crate) fn run(lab: &Lab, machine: &Machine, timeout: Duration, options: &Options) -> Result<u8> {
    if let Some(names) = &options.all {
        return all::run(lab, machine, timeout, names);
    }
    some(lab, machine, timeout, &[&OF_LINUX, &OURS], &|_| true)
}

/// Linux's alone, without the library: what a kernel of another making must pass as well.
pub(crate) fn run_of_linux(lab: &Lab, machine: &Machine, timeout: Duration) -> Result<u8> {
    some(lab, machine, timeout, &[&OF_LINUX], &|way| way.environment.is_empty())
}

fn some(
    lab: &Lab,
    machine: &Machine,
    timeout: Duration,
    suites: &[&[Test]],
    wanted: &dyn Fn(&Way) -> bool,
) -> Result<u8> {
    let mut counts = Counts::default();
    let preload = preload::prepare(lab);
    let of_linux = preload.as_ref().map_err(Error::clone).and_then(|_| prepare(lab));
    let injecting = Injecting::prepare(lab, machine)?;
    for (tests, programs) in suites.iter().zip([&of_linux, &preload]) {
        for test in *tests {
            for way in test.ways.iter().filter(|way| wanted(way)) {
                let name = format!("{}{}", test.name, way.about);
                match (&preload, programs) {
                    (Ok(shared), Ok(own)) => {
                        let guests = shared.iter().chain(own).chain(&injecting.driver);
                        let guests: Vec<Guest> = guests.cloned().collect();
                        let (setup, machine) = injecting.of(test, machine);
                        let line = format!("{setup}{}/bin/{} 2>&1", way.environment, test.name);
                        one(lab, &machine, timeout, &name, &line, &guests, &mut counts)?;
                    }
                    (Err(error), _) | (_, Err(error)) if error.is_unavailable() => {
                        println!("skipped: {name}: {error}");
                        counts.skipped += 1;
                    }
                    (Err(error), _) | (_, Err(error)) => return Err(error.clone()),
                }
            }
        }
    }
    println!("{}", counts.line());
    Ok(counts.code())
}

/// How a lab injects errors for a test that was written for firmware that does.
struct Injecting {
    /// Linux's own, for a machine that has EINJ and a kernel that has the driver: Debian's. Without it there is a stand-in.
    driver: Option<Guest>,
}

impl Injecting {
    fn prepare(lab: &Lab, machine: &Machine) -> Result<Self> {
        let has_driver = !machine.is_qemu() && lab.boots_debian();
        Ok(Self { driver: has_driver.then(|| einj::prepare(lab)).transpose()? })
    }

    /// The shell's words before a test, and the machine for it.
    fn of(&self, test: &Test, machine: &Machine) -> (String, Machine) {
        match (test.injects, &self.driver) {
            (false, _) => (String::new(), machine.clone()),
            (true, None) => ("fake-einj && ".into(), machine.clone()),
            (true, Some(_)) => (format!("{} && ", einj::LOAD), Machine { acpi: true, ..machine.clone() }),
        }
    }
}

/// Boots the lab for one test: what it poisoned is gone with the machine.
fn one(
    lab: &Lab,
    machine: &Machine,
    timeout: Duration,
    name: &str,
    line: &str,
    guests: &[Guest],
    counts: &mut Counts,
) -> Result<()> {
    let mut output = Vec::new();
    let ended = lab.run(machine, &[], guests, &[line.to_owned()], timeout, &mut output)?;
    let output = String::from_utf8_lossy(&output);
    match &ended {
        Ended::Exited(0) => {
            println!("passed: {name}\n{}", verdicts(&output));
            counts.passed += 1;
        }
        Ended::Exited(SKIPPED) => {
            println!("skipped: {name}\n{}", indented(&output, 5));
            counts.skipped += 1;
        }
        Ended::Exited(code) => {
            println!("FAILED: {name}: exit code {code}\n{}", indented(&output, 60));
            counts.failed += 1;
        }
        Ended::TimedOut { console } | Ended::Lost { console } | Ended::NotBooted { console } => {
            let in_time = !matches!(ended, Ended::TimedOut { .. });
            let how = if in_time { "the lab went down" } else { "no end in its time" };
            println!("FAILED: {name}: {how}\n{}\n{}", indented(&output, 20), indented(console, 20));
            counts.failed += 1;
        }
    }
    Ok(())
}

/// What to show of a test that passed: the lines that are verdicts, or the end of an output that has none.
fn verdicts(output: &str) -> String {
    if let Some(summary) = output.lines().next_back().filter(|line| line.ends_with(" skipped")) {
        return indented(summary, 1);
    }
    let starts = ["ok ", "not ok ", "# Totals", "# kvm_run", "# From guest", "Bail out!", "shadow:"];
    let is_verdict = |line: &&str| starts.iter().any(|start| line.starts_with(start));
    let lines: Vec<&str> = output.lines().filter(is_verdict).collect();
    indented(&if lines.is_empty() { output.to_owned() } else { lines.join("\n") }, 20)
}

/// Linux's tests, built once per kernel.
fn prepare(lab: &Lab) -> Result<Vec<Guest>> {
    let (folders, release) = (&lab.folders, &lab.kernel.release);
    let tests = Cached::new(folders.target.join("selftests"), format!("{KEY} {release}"));
    folders.alone(|| tests.make(|folder| build(folder, lab)))?;
    let guest = |test: &Test| Guest { host: tests.folder.join(test.name), lab: format!("bin/{}", test.name) };
    Ok(OF_LINUX.iter().map(guest).collect())
}

fn build(folder: &Path, lab: &Lab) -> Result<()> {
    let linux = Linux::unpack(folder, lab)?;
    let step = Step::begin("Linux's selftests");
    let place = linux.selftests().join("arm64");
    let built: Vec<PathBuf> = OF_LINUX.iter().map(|test| place.join(test.name)).collect();
    let goals: Vec<String> = built.iter().map(|path| path.display().to_string()).collect();
    linux.make_selftests(&step, &goals)?;
    for path in &built {
        files::copy(path, &folder.join(path.file_name().unwrap_or_default()))?;
    }
    step.done("");
    linux.remove()
}

/// Linux's source, as far as its selftests take it, in a folder that is there while they are built.
struct Linux<'a> {
    folders: &'a Folders,
    source: PathBuf,
}

impl<'a> Linux<'a> {
    fn unpack(folder: &Path, lab: &'a Lab) -> Result<Self> {
        let folders = &lab.folders;
        host::need(&PACKAGES, "building Linux's selftests", &folders.logs.join("selftests-packages.log"))?;
        let step = Step::begin("source of Linux's selftests (160 MB)");
        let package = Source::of(&lab.kernel.release, &lab.apt)?;
        let source = folder.join("linux");
        package.unpack(&step, &lab.apt, folders, &Parts::These(&PARTS), &source)?;
        step.done(&package.package());
        Ok(Self { folders, source })
    }

    fn selftests(&self) -> PathBuf {
        self.source.join("tools/testing/selftests/kvm")
    }

    /// Makes goals of the selftests, and before that the headers that they include.
    fn make_selftests(&self, step: &Step, goals: &[String]) -> Result<()> {
        self.make(step, &self.source, &["headers".into()])?;
        self.make(step, &self.selftests(), goals)
    }

    fn make(&self, step: &Step, place: &Path, goals: &[String]) -> Result<()> {
        let mut make = Command::new("make");
        make.args(["-j2", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]).args(goals).current_dir(place);
        make.env_remove("MAKEFLAGS");
        step.run(&mut make, &self.folders.logs.join("selftests.log"))
    }

    fn remove(self) -> Result<()> {
        files::remove_folder(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_was_skipped_is_told_by_the_exit_code_unless_another_failed() {
        let code = |failed, skipped| Counts { passed: 4, failed, skipped }.code();
        assert_eq!((code(0, 0), code(0, 1), code(1, 1)), (0, 77, 1));
    }

    #[test]
    fn of_a_test_that_passed_its_verdicts_are_shown() {
        let output = "TAP version 13\n1..1\n# noise\nok 1 sea_to_user\n# Totals: pass:1 fail:0\n";
        assert_eq!(verdicts(output), "    ok 1 sea_to_user\n    # Totals: pass:1 fail:0");
        assert_eq!(
            verdicts("ok    one\n2 passed, 0 failed, 1 skipped\n"),
            "    2 passed, 0 failed, 1 skipped"
        );
        assert_eq!(verdicts("Random seed: 0x1\n"), "    Random seed: 0x1");
    }
}
