//! The refusals of `seawall wrap` before anything runs.
#![cfg(unix)]

mod seawall;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use seawall::{File, seawall, text};

const AARCH64: u16 = 183;

/// An ELF file of headers alone: with an interpreter, or static. ELF-64 Object File Format, "ELF Header", "Program Header".
fn elf(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([3, 0]);
    bytes.extend(machine.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend([0; 8]);
    bytes.extend(64_u64.to_le_bytes());
    bytes.extend([0; 12]);
    for half in [64_u16, 56, 1, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let path = interpreter.map_or(Vec::new(), |path| [path.as_bytes(), b"\0"].concat());
    let size = path.len() as u64;
    bytes.extend(if interpreter.is_some() { 3_u32 } else { 1 }.to_le_bytes());
    bytes.extend([0; 4]);
    for word in [120, 0, 0, size, size, 1_u64] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(path);
    bytes
}

const GLIBC: Option<&str> = Some("/lib/ld-linux-aarch64.so.1");

/// A program: 0o755, or more.
fn program(name: &str, bytes: &[u8], mode: u32) -> File {
    let file = File::new(name, bytes);
    fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
    file
}

/// The exit code, and stderr.
fn wrap(arguments: &[&str]) -> (Option<i32>, String) {
    let output = seawall(&[&["wrap"], arguments].concat());
    (output.status.code(), text(&output.stderr))
}

#[test]
fn each_program_that_cannot_be_wrapped_is_refused_by_its_kind() {
    for (name, bytes, mode, code, part) in [
        (
            "static",
            elf(AARCH64, None),
            0o755,
            14,
            "it is statically linked: no library can be brought into it",
        ),
        (
            "script",
            b"#!/bin/sh\nexec qemu\n".to_vec(),
            0o755,
            15,
            "it is a script; wrap the VMM that it starts",
        ),
        ("text", b"no program".to_vec(), 0o755, 15, "it is no ELF program of 64 bits"),
        ("x86", elf(62, GLIBC), 0o755, 15, "expected a program for aarch64, got one of ELF machine 62"),
        ("musl", elf(AARCH64, Some("/lib/ld-musl-aarch64.so.1")), 0o755, 15, "expected that of glibc"),
        ("setuid", elf(AARCH64, GLIBC), 0o4755, 16, "it is setuid or setgid, or has file capabilities"),
    ] {
        let file = program(name, &bytes, mode);
        let (got, said) = wrap(&["--", file.path()]);
        assert_eq!(got, Some(code), "{name}: {said}");
        assert!(said.contains(part) && said.contains(file.path()), "{name}: {said}");
    }
}

#[test]
fn a_program_that_is_not_there_is_said_to_be_so() {
    assert_eq!(wrap(&["--", "seawall-no-such-vmm"]).0, Some(3));
    assert_eq!(wrap(&["--", "/no/such/vmm"]).0, Some(3));
    assert_eq!(wrap(&[]).0, Some(2));
}

#[test]
fn wrong_words_are_an_error_before_the_program_is_looked_at() {
    for option in [["--policy", "all"], ["--rule", "kernel=stop"], ["--sigbus", "qemu"], ["--log", "loud"]] {
        assert_eq!(wrap(&[&option[..], &["--", "x"]].concat()).0, Some(2), "{option:?}");
    }
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn a_host_of_another_architecture_is_told_what_there_is_for_it() {
    let file = program("good", &elf(AARCH64, GLIBC), 0o755);
    let (code, said) = wrap(&["--", file.path(), "-accel", "kvm"]);
    assert_eq!(code, Some(9));
    assert!(said.contains("`seawall run` has a software machine for any host"), "{said}");
}
