//! `seawall guest fetch`, as far as it goes without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A test's own directory, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seawall-guest-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An arm64 Image as far as its header (Documentation/arch/arm64/booting.rst).
fn image() -> Vec<u8> {
    let mut image = vec![0; 64];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image
}

/// Without any program in the path, apt included.
fn fetch(directory: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(["guest", "fetch", "debian", "--dir", directory]).args(arguments);
    command.env("PATH", "/nonexistent").env_remove("SEAWALL_DEBIAN_MIRROR").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_kernel_and_a_busybox_by_hand_make_a_guest_without_any_tool() {
    let folder = Folder::new("by-hand");
    let (kernel, busybox) = (folder.file("Image", &image()), folder.file("busybox", b"\x7fELF"));
    let given = ["--kernel", kernel.as_str(), "--busybox", busybox.as_str()];
    let output = fetch(&folder.path("cache"), &[&given[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let initrd = folder.path("cache/initrd-by-hand.cpio");
    assert_eq!(report["kernel"], kernel);
    assert_eq!(report["initrd"], initrd);
    assert_eq!(report["append"], "console=ttyAMA0 panic=-1 quiet");
    let archive = fs::read(Path::new(&initrd)).unwrap();
    for file in
        ["init", "bin/busybox", "bin/code", "bin/anonymous", "bin/shared-a", "bin/shared-b", "bin/witness"]
    {
        let name = [file.as_bytes(), b"\0"].concat();
        assert!(archive.windows(name.len()).any(|bytes| bytes == name), "{file}");
    }

    let output = fetch(&folder.path("cache"), &given);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(&format!("  seawall run --kernel {kernel} \\\n    --initrd {initrd} \\\n")),
        "{text}"
    );
}

#[test]
fn without_apt_it_says_what_to_do_and_exits_with_9() {
    let folder = Folder::new("no-apt");
    let output = fetch(&folder.path("cache"), &[]);
    assert_eq!(output.status.code(), Some(9));
    let text = stderr(&output);
    assert!(
        text.contains(
            "error: no guest: cannot run apt-get: No such file or directory (os error 2)\n  what to do: fetch on a \
             Debian host, or give an arm64 kernel and a static arm64 busybox yourself (--kernel FILE --busybox FILE)"
        ),
        "{text}"
    );
}

#[test]
fn a_file_that_is_no_kernel_or_not_there_is_refused_with_3() {
    let folder = Folder::new("no-kernel");
    let (flat, missing) = (folder.file("flat", b"\0no kernel"), folder.path("missing"));
    let busybox = folder.file("busybox", b"\x7fELF");
    for (kernel, expected) in [
        (&flat, "expected an arm64 Linux kernel, got another program"),
        (&missing, "No such file or directory (os error 2)"),
    ] {
        let output = fetch(&folder.path("cache"), &["--kernel", kernel, "--busybox", &busybox]);
        assert_eq!(output.status.code(), Some(3));
        assert!(
            stderr(&output).contains(&format!("error: no guest: {kernel}: {expected}")),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_kernel_without_a_busybox_or_another_distribution_is_wrong_usage() {
    let folder = Folder::new("usage");
    assert_eq!(fetch(&folder.path("cache"), &["--kernel", "Image"]).status.code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    let output = command.args(["guest", "fetch", "gentoo"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("[possible values: debian]"), "{}", stderr(&output));
}
