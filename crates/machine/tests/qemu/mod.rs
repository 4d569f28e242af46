//! The same image on `qemu-system-aarch64`, where it is installed.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What `image` (flat or ELF) writes to the console of QEMU's `virt` with 128 MiB before it powers
/// off; `None` if QEMU is not installed. `name` names the files in the target directory.
pub(crate) fn console(image: &[u8], name: &str) -> Option<String> {
    console_on("virt", image, name)
}

/// The same on this machine (`-M`).
pub(crate) fn console_on(machine: &str, image: &[u8], name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("bin");
    let console = path.with_extension("console");
    std::fs::write(&path, image).expect("a writable target directory");
    let child = Command::new("qemu-system-aarch64")
        .args(["-M", machine, "-cpu", "neoverse-n1", "-m", "128M", "-nic", "none", "-display", "none"])
        .args(["-monitor", "none", "-serial", &format!("file:{}", console.display()), "-kernel"])
        .arg(&path)
        .stdin(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("qemu-system-aarch64: {error}"),
    };
    for _ in 0..600 {
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "qemu-system-aarch64: {status}");
            return Some(std::fs::read_to_string(console).expect("ASCII"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("a child");
    panic!("the guest did not stop in 60 s: {}", path.display());
}

/// Says on stderr that `test` was not done.
pub(crate) fn skipped(test: &str) {
    eprintln!("skipped: {test}: qemu-system-aarch64 is not installed");
}
