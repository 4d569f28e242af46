//! A Debian guest under QEMU loses a page of a process's data, and a page of another's code.

use seawall_lab::Transcript;
use seawall_lab::report::{Verdict, expect};

use crate::qemu::{Qemu, Setup};

/// What Linux says of an SError that KVM makes of a memory error.
const PANIC: &str = "Kernel panic - not syncing: Asynchronous SError Interrupt";

/// Runs it, and keeps what was said.
fn run<T>(setup: &Setup, said: &Transcript, act: impl FnOnce(&mut Qemu) -> Result<T, String>) -> Result<T, String> {
    let mut qemu = setup.start()?;
    let done = act(&mut qemu);
    qemu.tell(said);
    done
}

/// Both processes end, and the guest goes on to its own end.
fn survives(qemu: &mut Qemu) -> Result<Vec<String>, String> {
    for name in ["anonymous", "code"] {
        qemu.poison(name)?;
    }
    let status = qemu.wait()?;
    expect("QEMU's exit code", &status.code(), &Some(0))?;
    for line in [
        "workload: anonymous ended: SIGBUS",
        "workload: code ended: SIGBUS",
        "workload: 3 of 5 live",
        "kernel: no complaint",
    ] {
        qemu.console.wait(line)?;
    }
    Ok(qemu.notes.with("seawall: vCPU"))
}

pub(super) fn wrapped(cpus: u32, said: &Transcript) -> Verdict {
    let setup = Setup { options: vec!["-no-reboot".into()], ..Setup::new(Some(&[])).cpus(cpus) };
    let errors = run(&setup, said, survives)?;
    expect("errors that were told of", &errors.len(), &2)?;
    Ok("data and code of two processes: 3 of 5 live, no complaint".to_owned())
}

fn panics(qemu: &mut Qemu) -> Result<Vec<String>, String> {
    qemu.poison("anonymous")?;
    qemu.console.wait(PANIC)?;
    qemu.wait()?;
    Ok(qemu.notes.with("seawall: "))
}

pub(super) fn bare(said: &Transcript) -> Verdict {
    let setup = Setup { options: vec!["-no-reboot".into()], ..Setup::new(None) };
    run(&setup, said, panics)?;
    Ok("the guest's kernel panics: Asynchronous SError Interrupt".to_owned())
}

pub(super) fn dry_run(said: &Transcript) -> Verdict {
    let setup = Setup { options: vec!["-no-reboot".into()], ..Setup::new(Some(&["--dry-run"])) };
    let notes = run(&setup, said, panics)?;
    let is_told = notes.iter().any(|note| note.contains("dry run: data abort, ISS 0x210 would have been injected"));
    expect("the dry run told of the abort", &is_told, &true)?;
    Ok("the guest's kernel panics as without, and the abort is told of".to_owned())
}
