//! `cargo xtask kernel test`: all that the project has to say of a kernel, on ours, and that the objects in it are fit for one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::OWN;
use crate::lab::error::Result;
use crate::lab::initramfs::Guest;
use crate::lab::machine::Machine;
use crate::lab::progress::indented;
use crate::lab::session::Ended;
use crate::lab::{HostKernel, Lab, binaries, preload, selftests};

use super::{build, folders};

/// What is run on a boot of its own. It passes if it exits with 0; its last line is shown.
struct Row {
    name: &'static str,
    /// QEMU's CPU, where Seawall's machine is none: it has AArch64 alone, and E2H.
    cpu: Option<&'static str>,
    /// Words for the kernel's command line.
    words: &'static str,
    /// A line for the shell.
    line: &'static str,
}

/// Seawall's machine, unless QEMU is asked for.
const ANY: Option<&str> = None;
const N2: Option<&str> = Some("neoverse-n2");
const MAX: Option<&str> = Some("max");
const CHECK: &str = "seawall check --backend kvm";
/// Of pKVM neither kernel says in GET that an SError was taken, and neither maps what the host has no memory behind.
const CHECK_OF_PKVM: &str =
    "seawall check --backend kvm abort:: errno:: esr:: get:: mainline:: mmio:: sigbus:: walk::";
const fn row(name: &'static str, cpu: Option<&'static str>, words: &'static str, line: &'static str) -> Row {
    Row { name, cpu, words, line }
}

const ROWS: [Row; 16] = [
    row("probe says native", ANY, "", "seawall probe --json | grep -q native-posted && echo native-posted"),
    row("conformance, as posted", ANY, "", CHECK),
    row("conformance, ext_abt_esr last", ANY, "kvm.seawall_abi=trailing", CHECK),
    row("conformance, mainline's ABI", ANY, "kvm.seawall_abi=mainline", CHECK),
    row("conformance, as posted, with AArch32 and nested guests", MAX, "", CHECK),
    row("conformance, ext_abt_esr last, the same guests", MAX, "kvm.seawall_abi=trailing", CHECK),
    row("conformance, as posted, nVHE", N2, "kvm-arm.mode=nvhe", CHECK),
    row("conformance, as posted, pKVM", N2, "kvm-arm.mode=protected", CHECK_OF_PKVM),
    row("conformance, as posted, pKVM by hVHE", ANY, "kvm-arm.mode=protected", CHECK_OF_PKVM),
    row("raw ioctls, as posted, pKVM", N2, "kvm-arm.mode=protected", "seawall-lab-raw-ioctls native-posted"),
    row("raw ioctls, as posted", ANY, "", "seawall-lab-raw-ioctls native-posted"),
    row(
        "raw ioctls, ext_abt_esr last",
        ANY,
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
    row("shadow: conformance", MAX, SHADOW, CHECK),
    row("shadow: the model's random sequences", ANY, SHADOW, "seawall-lab-diff --seed 1 --sequences 3000"),
];
/// C acts, by mainline's ABI, and Rust is beside it. The lab fails the command if they differ, and says how many calls it was.
const SHADOW: &str = "kvm.seawall=shadow";
/// So many compared calls say that any were.
const LEAST: u32 = 100;
/// Subcommands of `cargo xtask lab --kernel seawall`, each with its own labs. They pass if they exit with 0.
const SUBCOMMANDS: [(&str, &[&str]); 3] = [
    ("memory errors under Debian guests", &["contain", "data", "code"]),
    ("shadow: Debian guests that migrate", &["--append", SHADOW, "contain", "migrate", "migrate-linux"]),
    ("shadow: Debian's QEMU migrates a Debian guest", &["--append", SHADOW, "wrap", "qemu-migrate"]),
];
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
pub(super) fn run(only: &str, qemu: bool) -> Result<u8> {
    let default = Machine { qemu, ..Machine::default() };
    let lab = Lab::prepare(&default, HostKernel::Seawall)?;
    let mut programs = binaries::build(&lab.folders, &lab.toolchain)?;
    programs.retain(|program| program.name != "seawall-lab-victim");
    let guests = preload::prepare(&lab)?;
    let mut counts = Counts::default();
    if "the objects are fit for a kernel".contains(only) {
        let folders = folders()?;
        counts.add("the objects are fit for a kernel", fit(&build::objects(&folders), &folders.target));
    }
    let rows = || ROWS.iter().filter(|row| row.name.contains(only));
    let on_qemu = || Lab::prepare(&Machine { qemu: true, ..Machine::default() }, HostKernel::Seawall);
    let on_qemu = rows().any(|row| row.cpu.is_some()).then(on_qemu).transpose()?;
    for row in rows() {
        let lab = on_qemu.as_ref().filter(|_| row.cpu.is_some()).unwrap_or(&lab);
        counts.add(row.name, one(lab, &default, row, &programs, &guests)?);
    }
    for (name, words) in
        [("Linux's own selftests, unmodified", ""), ("shadow: Linux's own selftests, unmodified", SHADOW)]
    {
        if name.contains(only) {
            let machine = Machine { append: words.into(), ..default.clone() };
            let code = selftests::run_of_linux(&lab, &machine, LIMIT)?;
            let result = if code == 0 { Ok("see above".to_owned()) } else { Err("    see above".to_owned()) };
            counts.add(name, result);
        }
    }
    for (name, arguments) in SUBCOMMANDS.into_iter().filter(|(name, _)| name.contains(only)) {
        counts.add(name, subcommand(qemu, arguments));
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(u8::from(counts.failed > 0))
}

/// The last line of its output, or the end of it.
fn one(
    lab: &Lab,
    default: &Machine,
    row: &Row,
    programs: &[binaries::Built],
    guests: &[Guest],
) -> Result<std::result::Result<String, String>> {
    let machine = Machine { cpu: row.cpu.map(Into::into), append: row.words.into(), ..default.clone() };
    let mut output = Vec::new();
    let ended = lab.run(&machine, programs, guests, &[row.line.to_owned()], LIMIT, &mut output)?;
    let output = String::from_utf8_lossy(&output);
    let last = output.lines().next_back().unwrap_or_default();
    Ok(match ended {
        Ended::Exited(0) if row.words == SHADOW && compared(last) < LEAST => {
            Err(format!("    expected {LEAST} compared calls at least: {last}"))
        }
        Ended::Exited(0) => Ok(last.to_owned()),
        other => {
            let told: Vec<&str> = output.lines().filter(|line| !is_good(line)).collect();
            Err(format!("{}\n    {other:?}", indented(&told.join("\n"), 40)))
        }
    })
}

/// The calls in a line `shadow: ...; N calls compared, N mismatches`.
fn compared(line: &str) -> u32 {
    let number = line.split("; ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// By this same program. Its lines are shown as they come.
fn subcommand(qemu: bool, arguments: &[&str]) -> std::result::Result<String, String> {
    let text = |error: std::io::Error| format!("    cargo xtask lab: {error}");
    let lab = ["lab", "--kernel", "seawall"];
    let status = Command::new(OWN).args(lab).args(qemu.then_some("--qemu")).args(arguments).status();
    match status.map_err(text)? {
        status if status.success() => Ok("see above".to_owned()),
        status => Err(format!("    {status}")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_in_shadow_mode_says_how_many_calls_were_compared() {
        assert_eq!(compared("shadow: set 212 get 60 sea_exit 20; 292 calls compared, 0 mismatches"), 292);
        assert_eq!(compared("3000 sequences, no difference"), 0);
    }
}
