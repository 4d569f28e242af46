//! Linux's own tests of external aborts, from Debian's `linux-source` of the kernel that is booted, unmodified. They are
//! linked dynamically, so that they run without and with libseawall_preload.so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::apt::{Apt, Candidate};
use super::cache::Cached;
use super::error::{Error, Result};
use super::initramfs::Guest;
use super::machine::{Ended, Machine};
use super::progress::{Step, indented};
use super::{Folders, Lab, binaries, files, host};

/// A test of tools/testing/selftests/kvm/arm64.
struct Test {
    name: &'static str,
    /// Run before it, in the lab.
    setup: &'static str,
}

const TESTS: [Test; 2] = [
    Test { name: "external_aborts", setup: "" },
    // It was written for firmware that injects errors.
    Test { name: "sea_to_user", setup: "fake-einj && " },
];
const PACKAGES: [&str; 6] =
    ["bison", "build-essential", "flex", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "xz-utils"];
/// What the tests are built from.
const PARTS: [&str; 9] =
    ["Kbuild", "Kconfig", "Makefile", "arch/arm64", "arch/x86/include", "include", "scripts", "tools", "usr"];
/// kselftest.h: KSFT_SKIP.
const SKIPPED: i32 = 4;
/// Of Debian 13, for the tests and the library.
const LIBRARY_PACKAGES: [&str; 2] = ["libc6:arm64", "libgcc-s1:arm64"];
const LOADER: &str = "ld-linux-aarch64.so.1";
const LIBRARIES: [&str; 5] = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2"];
const MULTIARCH: &str = "usr/lib/aarch64-linux-gnu";
const PRELOAD: &str = "lib/libseawall_preload.so";
/// Changed when this file builds otherwise.
const KEY: &str = "1";

/// How many came to what.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs all, without and with the library. The last line is `N passed, N failed, N skipped`.
pub(crate) fn run(lab: &Lab, machine: &Machine, timeout: Duration) -> Result<u8> {
    let mut counts = Counts::default();
    match prepare(&lab.folders, &lab.apt, &lab.kernel.release) {
        Ok(guests) => {
            for test in &TESTS {
                one(lab, machine, timeout, test, &guests, None, &mut counts)?;
            }
            match binaries::build_preload(&lab.folders, &lab.toolchain)? {
                Some(library) => {
                    for test in &TESTS {
                        one(lab, machine, timeout, test, &guests, Some(&library), &mut counts)?;
                    }
                }
                None => skip_all(", preloaded", "the workspace has no seawall-preload", &mut counts),
            }
        }
        Err(error) if error.is_unavailable() => {
            skip_all("", &error.to_string(), &mut counts);
            skip_all(", preloaded", &error.to_string(), &mut counts);
        }
        Err(error) => return Err(error),
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(u8::from(counts.failed > 0))
}

fn skip_all(how: &str, reason: &str, counts: &mut Counts) {
    for test in &TESTS {
        println!("skipped: {}{how}: {reason}", test.name);
        counts.skipped += 1;
    }
}

/// Boots the lab for one test: what it poisoned is gone with the machine.
fn one(
    lab: &Lab,
    machine: &Machine,
    timeout: Duration,
    test: &Test,
    guests: &[Guest],
    library: Option<&Path>,
    counts: &mut Counts,
) -> Result<()> {
    let mut guests = guests.to_vec();
    let mut preload = "";
    let mut name = test.name.to_owned();
    if let Some(library) = library {
        guests.push(Guest { host: library.to_owned(), lab: PRELOAD.into() });
        preload = "LD_PRELOAD=/lib/libseawall_preload.so ";
        name += ", preloaded";
    }
    let line = format!("{}{preload}/bin/{} 2>&1", test.setup, test.name);
    let mut output = Vec::new();
    let ended = lab.run(machine, &[], &guests, &[line], timeout, &mut output)?;
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
            println!("FAILED: {name}: exit code {code}\n{}", indented(&output, 40));
            counts.failed += 1;
        }
        Ended::TimedOut { console } | Ended::Lost { console } | Ended::NotBooted { console } => {
            let how = if matches!(ended, Ended::TimedOut { .. }) {
                "no end in its time"
            } else {
                "the lab went down"
            };
            println!("FAILED: {name}: {how}\n{}\n{}", indented(&output, 20), indented(console, 20));
            counts.failed += 1;
        }
    }
    Ok(())
}

/// The lines of a test's output that are verdicts (KTAP), or all of a short output that has none.
fn verdicts(output: &str) -> String {
    let is_verdict = |line: &&str| {
        let line = line.trim_start();
        ["ok ", "not ok ", "# Totals", "Bail out!"].iter().any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = output.lines().filter(is_verdict).collect();
    indented(&if lines.is_empty() { output.to_owned() } else { lines.join("\n") }, 20)
}

/// The tests, the C library and its loader, to be brought into the lab.
fn prepare(folders: &Folders, apt: &Apt, release: &str) -> Result<Vec<Guest>> {
    let libc = Cached::new(folders.target.join("libc"), KEY);
    libc.make(|folder| {
        let step = Step::begin("the C library for arm64");
        LIBRARY_PACKAGES.iter().try_for_each(|package| apt.unpack(&step, package, folder))?;
        step.done("");
        Ok(())
    })?;
    host::need(&PACKAGES, "building Linux's selftests", &folders.logs.join("selftests-packages.log"))?;
    let tests = Cached::new(folders.target.join("selftests"), format!("{KEY} {release}"));
    tests.make(|folder| build(folder, folders, apt, release))?;

    let programs = TESTS.iter().map(|test| (tests.folder.join(test.name), format!("bin/{}", test.name)));
    let multiarch = libc.folder.join(MULTIARCH);
    let libraries = LIBRARIES.iter().map(|name| (multiarch.join(name), format!("lib/{name}")));
    let loader = std::iter::once((multiarch.join(LOADER), format!("lib/{LOADER}")));
    Ok(programs.chain(libraries).chain(loader).map(|(host, lab)| Guest { host, lab }).collect())
}

fn build(folder: &Path, folders: &Folders, apt: &Apt, release: &str) -> Result<()> {
    let step = Step::begin("source of Linux's selftests (160 MB)");
    let (name, package) = source_package(release, apt)?;
    let unpacked = folder.join("package");
    apt.unpack(&step, &package, &unpacked)?;
    let source = folder.join("linux");
    files::create_folder(&source)?;
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(unpacked.join("usr/src").join(format!("{name}.tar.xz")));
    tar.arg("-C").arg(&source).arg("--strip-components=1");
    tar.args(PARTS.iter().map(|part| format!("{name}/{part}")));
    step.run(&mut tar, &folders.logs.join("selftests-unpack.log"))?;
    files::remove_folder(&unpacked)?;
    step.done(&package);

    let step = Step::begin("Linux's selftests");
    let make = |place: &Path, goals: &[String]| {
        let mut make = Command::new("make");
        make.args(["-j2", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]).args(goals).current_dir(place);
        make.env_remove("MAKEFLAGS");
        step.run(&mut make, &folders.logs.join("selftests.log"))
    };
    make(&source, &["headers".into()])?;
    let place = source.join("tools/testing/selftests/kvm");
    let built: Vec<PathBuf> = TESTS.iter().map(|test| place.join("arm64").join(test.name)).collect();
    let goals: Vec<String> = built.iter().map(|path| path.display().to_string()).collect();
    make(&place, &goals)?;
    for path in &built {
        files::copy(path, &folder.join(path.file_name().unwrap_or_default()))?;
    }
    step.done("");
    files::remove_folder(&source)
}

/// The package with the source of a kernel: its name, and as apt wants it, of the very version if it is there.
fn source_package(release: &str, apt: &Apt) -> Result<(String, String)> {
    let mut numbers = release.split('.');
    let series = format!("{}.{}", numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let name = format!("linux-source-{series}");
    let candidates = apt.versions(&name)?;
    let version = closest(&candidates, release).ok_or_else(|| {
        Error::unavailable(format!("no package {name} on the mirror"))
            .advise("remove target/lab/kernel, so that a kernel is taken whose source is there")
    })?;
    Ok((name.clone(), format!("{name}={version}")))
}

/// The candidate of a kernel's version (7.2.12 of `7.2.12+deb13-cloud-arm64`), else apt's first.
fn closest<'a>(candidates: &'a [Candidate], release: &str) -> Option<&'a str> {
    let version = release.split('+').next().unwrap_or_default();
    let of_kernel = |candidate: &&Candidate| {
        candidate.version.strip_prefix(version).is_some_and(|rest| rest.starts_with(['-', '~']))
    };
    candidates.iter().find(of_kernel).or(candidates.first()).map(|candidate| candidate.version.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_that_of_the_kernel_if_it_is_still_there() {
        let candidates = ["7.2.12-1~bpo13+1", "7.2.1-1~bpo13+1"]
            .map(|version| Candidate { package: "linux-source-7.2".into(), version: version.into() });
        assert_eq!(closest(&candidates, "7.2.1+deb13-cloud-arm64"), Some("7.2.1-1~bpo13+1"));
        assert_eq!(closest(&candidates, "7.2.9+deb13-cloud-arm64"), Some("7.2.12-1~bpo13+1"));
        assert_eq!(closest(&[], "7.2.9+deb13-cloud-arm64"), None);
    }

    #[test]
    fn verdicts_are_the_lines_of_ktap() {
        let output = "TAP version 13\n1..1\n# noise\nok 1 sea_to_user\n# Totals: pass:1 fail:0\n";
        assert_eq!(verdicts(output), "    ok 1 sea_to_user\n    # Totals: pass:1 fail:0");
        assert_eq!(verdicts("Random seed: 0x1\n"), "    Random seed: 0x1");
    }
}
