//! Debian's kernel on the software machine: how long it boots, and how much memory of the host's that takes.

use super::{Figure, Promise, median, peer};
use seawall_linux::{COMMAND_LINE, Fetch, Guest, cache_directory};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BOOT: &str = "Debian's kernel to its initramfs";
pub(crate) const MEMORY: &str = "memory beside what Linux touched";

/// The first line of the initramfs.
const FIRST_LINE: &str = "seawall: init";
/// At most so many times as long as QEMU.
const TIMES_QEMU: f64 = 3.0;
/// Between two looks at how much memory a process has taken.
const LOOK: Duration = Duration::from_millis(20);

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
pub(crate) fn boot(repeat: u32) -> Result<Figure, String> {
    let guest = guest()?;
    let qemu = median(repeat, || first_line(qemu(&guest)))?;
    let value =
        super::demo::build().and_then(|binary| median(repeat, || first_line(seawall(&binary, &guest))));
    Ok(Figure {
        name: BOOT,
        unit: "s",
        value,
        promise: Promise::AtMost(TIMES_QEMU * qemu),
        peer: Some((peer::QEMU, Ok(qemu))),
    })
}

fn seawall(binary: &Path, guest: &Guest) -> Command {
    let mut seawall = Command::new(binary);
    seawall.args(["run", "--backend", "machine", "--memory", "512M", "--kernel"]).arg(&guest.kernel);
    seawall.arg("--initrd").arg(&guest.initrd).args(["--append", COMMAND_LINE]);
    seawall
}

fn qemu(guest: &Guest) -> Command {
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args([
        "-accel",
        "tcg",
        "-M",
        "virt,gic-version=3",
        "-cpu",
        "cortex-a72",
        "-m",
        "512M",
        "-nic",
        "none",
    ]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-kernel"]);
    qemu.arg(&guest.kernel).arg("-initrd").arg(&guest.initrd).args(["-append", COMMAND_LINE]);
    qemu
}

/// Seconds until the guest says it.
fn first_line(mut command: Command) -> Result<f64, String> {
    let start = Instant::now();
    let mut child = spawn(&mut command)?;
    let lines = BufReader::new(child.stdout.take().ok_or("no console")?).lines();
    let is_first = |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.contains(FIRST_LINE));
    let said = { lines }.any(|line| is_first(&line)).then(|| start.elapsed().as_secs_f64());
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    said.ok_or_else(|| format!("it did not say {FIRST_LINE:?}"))
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|error| format!("cannot start {name}: {error}"))
}

/// MiB of the host's memory that `seawall run` took at most, less what its guest wrote to, in a whole run of the
/// workload.
///
/// # Errors
/// Why it is not measured here.
pub(crate) fn memory() -> Result<Figure, String> {
    if !Path::new("/proc/self/status").exists() {
        return Err("no /proc here".to_owned());
    }
    let guest = guest()?;
    let value = super::demo::build().and_then(|binary| beside_the_guest(&binary, &guest));
    Ok(Figure { name: MEMORY, unit: "MiB", value, promise: Promise::AtMost(100.0), peer: None })
}

fn beside_the_guest(binary: &Path, guest: &Guest) -> Result<f64, String> {
    let mut child = spawn(seawall(binary, guest).arg("--json"))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        peak = std::fs::read_to_string(&status).ok().and_then(|text| high_water_mark(&text)).unwrap_or(peak);
        std::thread::sleep(LOOK);
    }
    let mut report = String::new();
    let mut stdout = child.stdout.take().ok_or("no report")?;
    stdout.read_to_string(&mut report).map_err(|error| error.to_string())?;
    let report: serde_json::Value = serde_json::from_str(&report).map_err(|error| error.to_string())?;
    let touched =
        report["guest_memory_touched"].as_u64().ok_or("the report does not say what was touched")?;
    if report["outcome"] != "power-off" {
        return Err(format!("the guest ended with {}", report["outcome"]));
    }
    let beside = (peak * 1024).checked_sub(touched).ok_or("the guest touched more than there was")?;
    Ok(f64::from((beside >> 10) as u32) / 1024.0)
}

/// VmHWM of `/proc/PID/status`, KiB.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_of_a_process_is_read_from_its_status() {
        let status = "Name:\tseawall\nVmPeak:\t  900000 kB\nVmHWM:\t  149716 kB\nVmRSS:\t   1000 kB\n";
        assert_eq!(super::high_water_mark(status), Some(149_716));
        // A process that has ended has none.
        assert_eq!(super::high_water_mark("Name:\tseawall\nState:\tZ (zombie)\n"), None);
    }
}
