//! Debian's kernel on the software machine: how long it boots, and how much memory of the host's that takes.

use std::path::Path;
use std::process::Command;

use seawall_linux::{COMMAND_LINE, Fetch, Guest, cache_directory};

use super::cost::{self, Cost};
use super::peer::Qemu;
use super::{Measure, Promise, Times, Trial};

pub(crate) const BOOT: &str = "Debian's kernel to its initramfs";
pub(crate) const WORKLOAD: &str = "Debian's kernel with its workload, to its power-off";
pub(crate) const MEMORY: &str = "memory beside what Linux touched";

/// The first line of the initramfs.
const FIRST_LINE: &str = "seawall: init";
/// What the initramfs says after all of its processes.
const LAST_LINE: &str = "kernel: no complaint";

/// The guest of `seawall guest fetch debian`.
///
/// # Errors
/// Why this host cannot have it.
fn guest() -> Result<Guest, String> {
    let directory = cache_directory().ok_or("no home to keep a guest in")?;
    Fetch::new(directory).guest(&|_| ()).map_err(|error| error.to_string())
}

/// Seconds from the start of the process to the first line of the initramfs, on one CPU.
///
/// # Errors
/// Why it is not measured here.
pub(super) fn boot(qemus: &[Qemu]) -> Result<Trial<'_>, String> {
    let (guest, binary) = (guest()?, super::demo::build()?);
    if qemus.is_empty() {
        return Err("there is no QEMU to compare with".to_owned());
    }
    let peers = qemus.iter().map(|qemu| {
        let mut command = boots(qemu, &guest);
        let measure: Measure<'_> = Box::new(move || cost::to_line(&mut command, FIRST_LINE));
        (qemu.name.clone(), measure)
    });
    let peers = peers.collect();
    let ours = Box::new(move || cost::to_line(&mut seawall(&binary, &guest), FIRST_LINE));
    let promise = Promise::TimeOfPeers(Times { cpu: 1.5, wall: Some(1.0) });
    Ok(Trial { name: BOOT, unit: "s", promise, ours, peers })
}

/// Seconds that a whole run of the workload takes, and how many without translation.
///
/// # Errors
/// Why it is not measured here.
pub(super) fn workload() -> Result<Trial<'static>, String> {
    let (guest, binary) = (guest()?, super::demo::build()?);
    let measure = |interpreter: bool| {
        let mut command = seawall(&binary, &guest);
        command.args(interpreter.then_some("--interpreter"));
        move || {
            let process = cost::to_end(&mut command)?;
            let is_whole = process.status.success() && process.stdout.contains(LAST_LINE);
            is_whole.then_some(process.cost).ok_or_else(|| format!("it ended with {}", process.status))
        }
    };
    let (ours, interpreter) = (Box::new(measure(false)), Box::new(measure(true)));
    let promise = Promise::TimeOfPeers(Times::of_cpu_time(2.5));
    let peers: Vec<(String, Measure<'_>)> = vec![("the interpreter".to_owned(), interpreter)];
    Ok(Trial { name: WORKLOAD, unit: "s", promise, ours, peers })
}

fn seawall(binary: &Path, guest: &Guest) -> Command {
    let mut seawall = Command::new(binary);
    seawall.args(["run", "--backend", "machine", "--memory", "512M", "--kernel"]).arg(&guest.kernel);
    seawall.arg("--initrd").arg(&guest.initrd).args(["--append", COMMAND_LINE]);
    seawall
}

fn boots(qemu: &Qemu, guest: &Guest) -> Command {
    let mut command = qemu.tcg();
    command.args(["-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-m", "512M", "-no-reboot", "-kernel"]);
    command.arg(&guest.kernel).arg("-initrd").arg(&guest.initrd).args(["-append", COMMAND_LINE]);
    command
}

/// MiB of the host's memory that `seawall run` took at most, less what its guest wrote to, in a whole run of the
/// workload.
///
/// # Errors
/// Why it is not measured here.
pub(super) fn memory() -> Result<Trial<'static>, String> {
    let (guest, binary) = (guest()?, super::demo::build()?);
    let ours = Box::new(move || {
        let mebibytes = beside_the_guest(&binary, &guest)?;
        Ok(Cost { cpu: mebibytes, wall: mebibytes })
    });
    Ok(Trial { name: MEMORY, unit: "MiB", promise: Promise::AtMost(100.0), ours, peers: Vec::new() })
}

fn beside_the_guest(binary: &Path, guest: &Guest) -> Result<f64, String> {
    let (peak, report) = cost::peak_memory(seawall(binary, guest).arg("--json"), cost::RESIDENT)?;
    let report: serde_json::Value = serde_json::from_str(&report).map_err(|error| error.to_string())?;
    let touched =
        report["guest_memory_touched"].as_u64().ok_or("the report does not say what was touched")?;
    if report["outcome"] != "power-off" {
        return Err(format!("the guest ended with {}", report["outcome"]));
    }
    let beside = peak.checked_sub(touched).ok_or("the guest touched more than there was")?;
    Ok(f64::from((beside >> 10) as u32) / 1024.0)
}
