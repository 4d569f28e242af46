//! `cargo xtask kernel test`: all that the project has to say of a kernel, on ours, and that the objects in it are fit for one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::error::Result;
use crate::lab::initramfs::Guest;
use crate::lab::machine::{Ended, Machine};
use crate::lab::progress::indented;
use crate::lab::{HostKernel, Lab, binaries, preload, selftests};

use super::{build, folders};

/// What is run on a boot of its own. It passes if it exits with 0; its last line is shown.
struct Row {
    name: &'static str,
    cpu: &'static str,
    /// Words for the kernel's command line.
    words: &'static str,
    /// A line for the shell.
    line: &'static str,
}

const N2: &str = "neoverse-n2";
const MAX: &str = "max";
const CHECK: &str = "seawall check --backend kvm";
/// Of pKVM neither kernel says in GET that an SError was taken, and neither maps what the host has no memory behind.
const CHECK_OF_PKVM: &str =
    "seawall check --backend kvm abort:: errno:: esr:: get:: mainline:: mmio:: sigbus:: walk::";
/// The programs give mainline's ABI to C, which Rust is beside; then there are counts, and no mismatch in them.
const NO_MISMATCH: &str = "cat /sys/kernel/debug/seawall/difference; \
                           awk '{ all += $3; bad += $5 } END { printf \"%d calls compared, %d mismatches\\n\", all, bad; \
                           exit bad > 0 || all < LEAST }' /sys/kernel/debug/seawall/counts";

const fn row(name: &'static str, cpu: &'static str, words: &'static str, line: &'static str) -> Row {
    Row { name, cpu, words, line }
}

const ROWS: [Row; 15] = [
    row("probe says native", N2, "", "seawall probe --json | grep -q native-posted && echo native-posted"),
    row("conformance, as posted", N2, "", CHECK),
    row("conformance, ext_abt_esr last", N2, "kvm.seawall_abi=trailing", CHECK),
    row("conformance, mainline's ABI", N2, "kvm.seawall_abi=mainline", CHECK),
    row("conformance, as posted, with AArch32 and nested guests", MAX, "", CHECK),
    row("conformance, ext_abt_esr last, the same guests", MAX, "kvm.seawall_abi=trailing", CHECK),
    row("conformance, as posted, nVHE", N2, "kvm-arm.mode=nvhe", CHECK),
    row("conformance, as posted, pKVM", N2, "kvm-arm.mode=protected", CHECK_OF_PKVM),
    row("raw ioctls, as posted, pKVM", N2, "kvm-arm.mode=protected", "seawall-lab-raw-ioctls native-posted"),
    row("raw ioctls, as posted", N2, "", "seawall-lab-raw-ioctls native-posted"),
    row(
        "raw ioctls, ext_abt_esr last",
        N2,
        "kvm.seawall_abi=trailing",
        "seawall-lab-raw-ioctls native-trailing",
    ),
    row(
        "raw ioctls, as posted, with AArch32 and nested guests",
        MAX,
        "",
        "seawall-lab-raw-ioctls native-posted",
    ),
    row("raw ioctls, mainline's ABI", MAX, "kvm.seawall_abi=mainline", "seawall-lab-raw-ioctls"),
    row("shadow: conformance", MAX, "kvm.seawall=shadow", CHECK),
    row(
        "shadow: the model's random sequences",
        N2,
        "kvm.seawall=shadow",
        "seawall-lab-diff --seed 1 --sequences 3000",
    ),
];
/// The rows whose line [`NO_MISMATCH`] follows.
const SHADOW: &str = "kvm.seawall=shadow";
/// That so many calls were compared says that any were.
const LEAST: &str = "100";
const LIMIT: Duration = Duration::from_secs(900);

/// How many came to what.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    fn add(&mut self, name: &str, result: std::result::Result<String, String>) {
        match result {
            Ok(last) => {
                self.passed += 1;
                println!("passed: {name}: {last}");
            }
            Err(output) => {
                self.failed += 1;
                println!("FAILED: {name}\n{output}");
            }
        }
    }
}

/// Runs all. The last line is `N passed, N failed`; 1 if one failed.
pub(super) fn run(only: &str) -> Result<u8> {
    let lab = Lab::prepare(&Machine::default(), HostKernel::Seawall)?;
    let mut programs = binaries::build(&lab.folders, &lab.toolchain)?;
    programs.retain(|program| program.name != "seawall-lab-victim");
    let guests = preload::prepare(&lab)?;
    let mut counts = Counts::default();
    if "the objects are fit for a kernel".contains(only) {
        let folders = folders()?;
        counts.add("the objects are fit for a kernel", fit(&build::objects(&folders), &folders.target));
    }
    for row in ROWS.iter().filter(|row| row.name.contains(only)) {
        counts.add(row.name, one(&lab, row, &programs, &guests)?);
    }
    if "Linux's own selftests, unmodified".contains(only) {
        let code = selftests::run_of_linux(&lab, &Machine::default(), LIMIT)?;
        let result = if code == 0 { Ok("see above".to_owned()) } else { Err("    see above".to_owned()) };
        counts.add("Linux's own selftests, unmodified", result);
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(u8::from(counts.failed > 0))
}

/// The last line of its output, or the end of it.
fn one(
    lab: &Lab,
    row: &Row,
    programs: &[binaries::Built],
    guests: &[Guest],
) -> Result<std::result::Result<String, String>> {
    let machine = Machine { cpu: row.cpu.into(), append: row.words.into(), ..Machine::default() };
    let mut line = row.line.to_owned();
    if row.words == SHADOW {
        line = format!("{line} && {}", NO_MISMATCH.replace("LEAST", LEAST));
    }
    let mut output = Vec::new();
    let ended = lab.run(&machine, programs, guests, &[line], LIMIT, &mut output)?;
    let output = String::from_utf8_lossy(&output);
    Ok(match ended {
        Ended::Exited(0) => Ok(output.lines().next_back().unwrap_or_default().to_owned()),
        other => {
            let told: Vec<&str> = output.lines().filter(|line| !is_good(line)).collect();
            Err(format!("{}\n    {other:?}", indented(&told.join("\n"), 40)))
        }
    })
}

/// A line about a scenario that passed, or was not run.
fn is_good(line: &str) -> bool {
    matches!(line.split_whitespace().next(), Some("pass" | "skip" | "ok"))
}

/// `cargo xtask kernel-fit` of what kbuild made; in a target folder of its own, as CI locks the workspace's.
fn fit(objects: &[PathBuf], target: &Path) -> std::result::Result<String, String> {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo
        .args(["run", "--quiet", "--locked", "--package", "seawall-kernel-fit", "--target-dir"])
        .arg(target.join("cargo"))
        .arg("--")
        .args(objects)
        .current_dir(crate::lab::root());
    let output = cargo.output().map_err(|error| format!("    cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if output.status.success() {
        Ok("see above".into())
    } else {
        Err(format!("{}\n{}", indented(&text, 30), indented(&String::from_utf8_lossy(&output.stderr), 10)))
    }
}
