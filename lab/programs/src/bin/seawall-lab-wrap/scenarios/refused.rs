//! What cannot be wrapped is refused before it runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use seawall_lab::Transcript;
use seawall_lab::report::{Verdict, expect};

use crate::ram::text;

const SMALL: &str = "/bin/seawall-lab-small-vmm";

/// The exit code, and what was said.
fn wrap(
    words: &[&str],
    variables: &[(&str, &str)],
    said: &Transcript,
) -> Result<(Option<i32>, String), String> {
    let output = Command::new("seawall").arg("wrap").args(words).envs(variables.iter().copied()).output();
    let output = output.map_err(text)?;
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    said.add(format!("{words:?}: {}: {all}", output.status));
    Ok((output.status.code(), all))
}

pub(super) fn run(said: &Transcript) -> Verdict {
    let folder = tempfile::tempdir().map_err(text)?;
    let make = |name: &str, content: &[u8], mode: u32| -> Result<String, String> {
        let path = folder.path().join(name);
        fs::write(&path, content).map_err(text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(text)?;
        Ok(path.display().to_string())
    };
    let small = fs::read(SMALL).map_err(text)?;
    let mut foreign = small.clone();
    // e_machine: x86-64.
    foreign.get_mut(18..20).ok_or("expected an ELF file")?.copy_from_slice(&[62, 0]);
    let script = make("script", b"#!/bin/sh\nexec qemu-system-aarch64\n", 0o755)?;
    let foreign = make("foreign", &foreign, 0o755)?;
    let setuid = make("setuid", &small, 0o4755)?;
    let nothing = make("nothing.so", b"nothing", 0o755)?;
    for (words, code, part) in [
        (
            vec!["--", "/bin/busybox", "true"],
            14,
            "it is statically linked: no library can be brought into it",
        ),
        (vec!["--", &script], 15, "it is a script; wrap the VMM that it starts"),
        (vec!["--", &foreign], 15, "expected a program for aarch64, got one of ELF machine 62"),
        (vec!["--", &setuid], 16, "it is setuid or setgid, or has file capabilities"),
        (vec!["--library", &nothing, "--", SMALL], 17, "cannot be brought into"),
        (vec!["--library", "/nowhere.so", "--", SMALL], 17, "--library /nowhere.so"),
        (vec!["--", "no-such-vmm"], 3, "no such program in PATH"),
        (vec!["--events", "/no/such/folder", "--", SMALL], 3, "SEAWALL_EVENTS: /no/such/folder"),
        (vec!["--ledger", &script, "--", SMALL], 3, "SEAWALL_LEDGER"),
        (vec!["--check", "--", SMALL], 0, "can be wrapped on this host"),
        (vec!["--env", "--dry-run", "--", SMALL], 0, "SEAWALL_DRY_RUN=1"),
    ] {
        let (got, all) = wrap(&words, &[], said)?;
        expect(&format!("{words:?}: the exit code"), &got, &Some(code))?;
        expect(&format!("{words:?}: {part:?}"), &all.contains(part), &true)?;
    }
    // The library alone, where another program set the variables.
    let output = Command::new(SMALL)
        .envs([
            ("LD_PRELOAD", "/lib/libseawall_preload.so"),
            ("SEAWALL", "contain"),
            ("SEAWALL_SIGBUS", "qemu"),
        ])
        .output()
        .map_err(text)?;
    expect("the exit code of a wrong variable", &output.status.code(), &Some(2))?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    expect("its words", &words.contains("SEAWALL_SIGBUS: expected contain or vmm, got `qemu`"), &true)?;
    Ok("eight kinds of programs, libraries and files, each by its name and exit code".to_owned())
}
