//! What QEMU does beside running a guest goes on as without `seawall wrap`.

use seawall_lab::Transcript;
use seawall_lab::report::{Verdict, expect};

use super::live::run;
use crate::monitor::Monitor;
use crate::ram::text;
use crate::vmm::{MEMORY, Setup, Vmm};

/// Poisons what the guest named after this many lines of its console.
fn poison_after(qemu: &Vmm, first: usize) -> Result<(), String> {
    for name in ["anonymous", "code"] {
        let (_, line) = qemu.console.wait_from(first, &format!("page {name} 0x"))?;
        let number = line.rsplit("0x").next().unwrap_or_default();
        qemu.ram.poison(u64::from_str_radix(number, 16).map_err(text)?)?;
    }
    Ok(())
}

pub(super) fn reset(said: &Transcript) -> Verdict {
    let folder = tempfile::tempdir().map_err(text)?;
    let socket = folder.path().join("qmp");
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let options =
        ["-qmp", &monitor, "-device", "pcie-root-port,id=root0", "-snapshot"].map(str::to_owned).to_vec();
    run(&Setup { options, ..Setup::new(Some(&[])).cpus(4).words("seawall.rounds=1000") }, said, |qemu| {
        qemu.page("code")?;
        let mut monitor = Monitor::connect(&socket)?;
        let backend = r#"{"qom-type":"memory-backend-ram","id":"more","size":134217728}"#;
        monitor.execute("object-add", backend)?;
        let device = r#"{"driver":"virtio-mem-pci","id":"plugged","memdev":"more","bus":"root0"}"#;
        monitor.execute("device_add", device)?;
        let seen = qemu.console.all().len();
        monitor.execute("system_reset", "{}")?;
        poison_after(qemu, seen)?;
        qemu.console.wait_from(seen, "workload: anonymous ended: SIGBUS")?;
        qemu.console.wait_from(seen, "workload: code ended: SIGBUS")?;
        monitor.execute("quit", "{}")?;
        expect("QEMU's exit code", &qemu.wait()?.code(), &Some(0))
    })?;
    Ok("4 vCPUs, a device of memory plugged, a reset: both processes died after it, and the others went on"
        .to_owned())
}

pub(super) fn migrate(said: &Transcript) -> Verdict {
    let folder = tempfile::tempdir_in("/dev/shm").map_err(text)?;
    let (socket, file) = (folder.path().join("qmp"), folder.path().join("guest"));
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let uri = format!("file:{}", file.display());
    let words = "seawall.rounds=1000";
    let options = |more: &[&str]| -> Vec<String> {
        ["-no-reboot", "-qmp", &monitor].iter().chain(more).map(ToString::to_string).collect()
    };
    let pages = run(&Setup { options: options(&[]), ..Setup::new(Some(&[])).words(words) }, said, |qemu| {
        let pages = [qemu.page("anonymous")?, qemu.page("code")?];
        qemu.console.wait("witness: alive")?;
        let mut monitor = Monitor::connect(&socket)?;
        monitor.execute("migrate", &format!(r#"{{"uri":"{uri}"}}"#))?;
        monitor.wait_for("STOP")?;
        monitor.until("query-migrate", "{}", r#""status":"completed""#)?;
        monitor.execute("quit", "{}")?;
        expect("QEMU's exit code", &qemu.wait()?.code(), &Some(0))?;
        Ok(pages)
    })?;
    run(
        &Setup { options: options(&["-incoming", &uri]), ..Setup::new(Some(&[])).words(words) },
        said,
        |qemu| {
            qemu.console.wait("witness: alive")?;
            pages.iter().try_for_each(|page| qemu.ram.poison(*page))?;
            let ended = |name: &str| qemu.console.wait_from(0, &format!("workload: {name} ended: SIGBUS"));
            let last = ended("anonymous")?.0.max(ended("code")?.0);
            qemu.console.wait_from(last, "witness: alive")?;
            qemu.kill()
        },
    )?;
    let size = MEMORY >> 20;
    Ok(format!("{size} MiB to a file and back in another QEMU: both processes died, and the others went on"))
}

/// The witness says how often it looked: that number goes back.
fn looks(line: &str) -> Result<u64, String> {
    line.rsplit(' ').next().unwrap_or_default().parse().map_err(|error| format!("{line}: {error}"))
}

pub(super) fn savevm(said: &Transcript) -> Verdict {
    let folder = tempfile::tempdir_in("/dev/shm").map_err(text)?;
    let (socket, disk) = (folder.path().join("qmp"), folder.path().join("disk").display().to_string());
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let options = ["-no-reboot", "-qmp", &monitor].map(str::to_owned).to_vec();
    let alive = "witness: alive ";
    run(&Setup { options, ..Setup::new(Some(&[])).words("seawall.rounds=1000") }, said, |qemu| {
        qemu.page("code")?;
        qemu.console.wait(alive)?;
        let mut monitor = Monitor::connect(&socket)?;
        let file = format!(r#""driver":"file","filename":"{disk}""#);
        monitor.job("blockdev-create", &format!(r#""options":{{{file},"size":0}}"#))?;
        monitor.execute("blockdev-add", &format!(r#"{{{file},"node-name":"file"}}"#))?;
        let format = r#""driver":"qcow2","file":"file""#;
        monitor.job("blockdev-create", &format!(r#""options":{{{format},"size":1048576}}"#))?;
        monitor.execute("blockdev-add", &format!(r#"{{{format},"node-name":"disk"}}"#))?;
        let snapshot = r#""tag":"saved","vmstate":"disk","devices":["disk"]"#;
        monitor.job("snapshot-save", snapshot)?;
        let (first, _) = qemu.console.wait_from(qemu.console.all().len(), alive)?;
        let (mut seen, mut line) = qemu.console.wait_from(first + 1, alive)?;
        monitor.job("snapshot-load", snapshot)?;
        let before = looks(&line)?;
        (seen, line) = qemu.console.wait_from(seen + 1, alive)?;
        while looks(&line)? > before {
            (seen, line) = qemu.console.wait_from(seen + 1, alive)?;
        }
        for name in ["anonymous", "code"] {
            qemu.poison(name)?;
            (seen, _) = qemu.console.wait_from(seen, &format!("workload: {name} ended: SIGBUS"))?;
        }
        qemu.console.wait_from(seen, alive)?;
        qemu.kill()
    })?;
    Ok("saved, run on, loaded: the guest was back where it was; then both processes died, and the others went on"
        .to_owned())
}

pub(super) fn killed(said: &Transcript) -> Verdict {
    let folder = tempfile::tempdir().map_err(text)?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ledger, metrics) = (path("ledger"), path("metrics"));
    let wrap = ["--ledger", &ledger, "--metrics", &metrics];
    let setup = Setup::new(Some(&wrap)).words("seawall.rounds=1000");
    let page = run(&setup, said, |qemu| {
        qemu.poison("anonymous")?;
        qemu.console.wait("workload: anonymous ended: SIGBUS")?;
        qemu.kill()?;
        qemu.page("anonymous")
    })?;
    let listed = std::process::Command::new("seawall").args(["ledger", &ledger]).output().map_err(text)?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    said.add(listed.clone());
    let is_listed = listed.contains(&format!("{:#x}", page & !0xfff));
    expect("the ledger lists the page", &is_listed, &true)?;
    let numbers = std::fs::read_to_string(&metrics).map_err(text)?;
    let errors = numbers.lines().filter(|line| line.starts_with("seawall_errors_total{"));
    let errors: Vec<_> = errors.filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect();
    expect("seawall_errors_total", &errors, &vec!["1".to_owned()])?;
    run(&Setup::new(Some(&wrap)), said, |qemu| {
        qemu.page("code")?;
        qemu.kill()
    })?;
    Ok("the ledger lists the page, the metrics one error, and the next QEMU starts".to_owned())
}
