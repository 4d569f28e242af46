//! A Debian guest under QEMU loses a page of a process's data, and a page of another's code.

use seawall_lab::Transcript;
use seawall_lab::report::{Verdict, expect};

use crate::vmm::{Program, Setup, Vmm};

/// What Linux says of an SError that KVM makes of a memory error.
const PANIC: &str = "Kernel panic - not syncing: Asynchronous SError Interrupt";
/// The pages that go bad.
const PAGES: [&str; 2] = ["anonymous", "code"];

/// Runs it, and keeps what was said.
pub(super) fn run<T>(
    setup: &Setup,
    said: &Transcript,
    act: impl FnOnce(&mut Vmm) -> Result<T, String>,
) -> Result<T, String> {
    let mut vmm = setup.start()?;
    let done = act(&mut vmm);
    vmm.tell(said);
    done
}

/// Both processes end, and the guest goes on to its own end.
pub(super) fn ends_well(vmm: &mut Vmm) -> Result<(), String> {
    for line in ["workload: 3 of 5 live", "kernel: no complaint"] {
        vmm.console.wait(line)?;
    }
    for name in PAGES {
        vmm.console.wait(&format!("workload: {name} ended: SIGBUS"))?;
    }
    let status = vmm.wait()?;
    expect("QEMU's exit code", &status.code(), &Some(0))
}

fn survives(vmm: &mut Vmm) -> Result<(), String> {
    PAGES.iter().try_for_each(|name| vmm.poison(name))?;
    ends_well(vmm)?;
    expect("errors that were told of", &vmm.notes.with("seawall: vCPU").len(), &2)
}

fn no_reboot(wrap: Option<&[&str]>) -> Setup {
    Setup { options: vec!["-no-reboot".into()], ..Setup::new(wrap) }
}

pub(super) fn wrapped(cpus: u32, said: &Transcript) -> Verdict {
    run(&no_reboot(Some(&[])).cpus(cpus), said, survives)?;
    Ok("data and code of two processes: 3 of 5 live, no complaint".to_owned())
}

fn panics(vmm: &mut Vmm) -> Result<Vec<String>, String> {
    vmm.poison("anonymous")?;
    vmm.console.wait(PANIC)?;
    vmm.wait()?;
    Ok(vmm.notes.with("seawall: "))
}

pub(super) fn bare(said: &Transcript) -> Verdict {
    run(&no_reboot(None), said, panics)?;
    Ok("the guest's kernel panics: Asynchronous SError Interrupt".to_owned())
}

pub(super) fn dry_run(said: &Transcript) -> Verdict {
    let events = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let path = events.path().display().to_string();
    let notes = run(&no_reboot(Some(&["--dry-run", "--events", &path])), said, panics)?;
    let is_told =
        notes.iter().any(|note| note.contains("dry run: data abort, ISS 0x210 would have been injected"));
    expect("the dry run told of the abort", &is_told, &true)?;
    let events = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let names: Vec<&str> = events.lines().filter_map(|line| line.split('"').nth(3)).collect();
    expect("events", &names, &vec!["wrapped", "memory-error"])?;
    Ok("the guest's kernel panics as without, and the abort is told of, with an event".to_owned())
}

pub(super) fn sigbus(said: &Transcript) -> Verdict {
    run(&no_reboot(Some(&[])), said, |qemu| {
        PAGES.iter().try_for_each(|name| qemu.ram.tell_host(qemu.page(name)?))?;
        ends_well(qemu)?;
        let own = qemu.notes.with("Hardware memory error");
        expect("QEMU's own words", &own, &Vec::new())
    })?;
    Ok("MADV_HWPOISON under data and code: 3 of 5 live, no complaint; QEMU saw nothing".to_owned())
}

pub(super) fn own_handler(said: &Transcript) -> Verdict {
    run(&no_reboot(Some(&["--sigbus", "vmm"])), said, |qemu| {
        qemu.poison("anonymous")?;
        qemu.notes.wait("the host was told that gpa")?;
        qemu.notes.wait("Hardware memory error")?;
        let status = qemu.wait()?;
        expect("QEMU's exit code", &status.code(), &Some(1))
    })?;
    Ok("the SEA became a SIGBUS, and QEMU ended itself: Hardware memory error".to_owned())
}

pub(super) fn sandbox(said: &Transcript) -> Verdict {
    let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    let options = ["-no-reboot", "-sandbox", sandbox].map(str::to_owned).to_vec();
    run(&Setup { options, ..Setup::new(Some(&[])) }, said, survives)?;
    Ok("under libvirt's -sandbox: 3 of 5 live, no complaint".to_owned())
}

/// With mitigations of Spectre on this CPU other tables would stand before these vectors.
const VECTORS: &str = "seawall.workload=vectors mitigations=off";

/// What QEMU says of a `KVM_RUN` that fails: EHWPOISON. It then pauses the guest.
const STOPPED: &str = "error: kvm run failed Memory page has hardware error";

/// The first error is an SEA, of which the host is told; the others come by SIGBUS.
pub(super) fn storm(said: &Transcript) -> Verdict {
    run(&no_reboot(Some(&[])).words(VECTORS), said, |qemu| {
        qemu.console.wait("seawall: vectors")?;
        ["of-exceptions", "of-interrupts"].iter().try_for_each(|name| qemu.poison(name))?;
        qemu.notes.wait("stopped: the guest took the same abort 17 times")?;
        qemu.notes.wait("the guest must not run on")?;
        qemu.notes.wait(STOPPED).map(drop)
    })?;
    Ok("stopped with the reason after 17 times; QEMU: kvm run failed, and the guest is paused".to_owned())
}

pub(super) fn stop(said: &Transcript) -> Verdict {
    run(&no_reboot(Some(&["--rule", "kernel-fetch=stop"])).words(VECTORS), said, |qemu| {
        qemu.console.wait("seawall: vectors")?;
        qemu.poison("of-interrupts")?;
        qemu.notes.wait("the policy stops a guest at this kind of error: kernel-fetch")?;
        qemu.notes.wait(STOPPED)?;
        expect("errors that were told of", &qemu.notes.with("seawall: vCPU").len(), &1)
    })?;
    Ok("stopped by the rule at the first error; QEMU: kvm run failed, and the guest is paused".to_owned())
}

/// A memfd of the VMM's is the guest's memory, and the VMM ends at an exit that it does not know.
fn alioth(wrap: Option<&[&str]>) -> Setup {
    Setup { program: Program::Alioth, ..Setup::new(wrap) }
}

pub(super) fn stranger_bare(said: &Transcript) -> Verdict {
    run(&alioth(None), said, |vmm| {
        vmm.poison("anonymous")?;
        vmm.console.wait(PANIC).map(drop)
    })?;
    Ok("the guest's kernel panics: Asynchronous SError Interrupt".to_owned())
}

pub(super) fn stranger(said: &Transcript) -> Verdict {
    run(&alioth(Some(&[])).cpus(2), said, survives)?;
    Ok("data and code of two processes: 3 of 5 live, no complaint".to_owned())
}
