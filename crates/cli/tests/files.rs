//! `seawall run` with invalid files: the message names each, and the cost is bounded.

mod seawall;

use std::fs;
use std::process::{Command, Output, Stdio};

use seawall::{File, HELLO, seawall, text};

/// A file with this mark at its place, and zeros before and after it.
fn marked(at: usize, mark: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    bytes[at..at + mark.len()].copy_from_slice(mark);
    bytes
}

/// Exit code and stderr, which must be one line.
fn fails(args: &[&str]) -> (Option<i32>, String) {
    said(&seawall(&[&["run"], args].concat()))
}

fn said(output: &Output) -> (Option<i32>, String) {
    let stderr = text(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (output.status.code(), stderr.trim_end().to_owned())
}

fn error(code: i32, message: &str) -> (Option<i32>, String) {
    (Some(code), format!("error: {message}"))
}

#[test]
fn a_kernel_that_is_something_else_is_named_with_what_to_give_instead() {
    for (at, mark, what) in [
        (
            0x28,
            &b"_FVH"[..],
            "UEFI firmware: this machine enters a kernel without firmware; give the Image that it would start",
        ),
        (0, b"\xd0\x0d\xfe\xed", "a device tree (DTB): the machine makes its own; give a kernel"),
        (0, b"ANDROID!", "an Android boot image: `unpack_bootimg` takes it apart"),
        (0, b"070701", "a cpio archive: give it as the initramfs, and a kernel"),
        (0, b"MZ", "an EFI program that is no arm64 Image: give one that was built for arm64"),
        (0, b"QFI\xfb", "a qcow2 image: give it as a disk, and a kernel"),
        (0, b"SEAWALL\0", "a ledger of Seawall's: it is for --ledger; seawall ledger shows it"),
    ] {
        let file = File::new("named-kernel", &marked(at, mark));
        let message = format!("{}: expected an arm64 kernel, got {what}", file.path());
        assert_eq!(fails(&["--kernel", file.path()]), error(3, &message));
    }
    let script = File::new("script", b"#!/bin/sh\nexec qemu-system-aarch64 \"$@\"\n");
    let message = "expected an arm64 kernel, got text: give an arm64 Image, an AArch64 ELF or a flat binary";
    assert_eq!(fails(&["--kernel", script.path()]), error(3, &format!("{}: {message}", script.path())));
}

#[test]
fn a_disk_in_a_format_is_named_and_a_raw_one_is_taken() {
    let kernel = File::code("disks", &HELLO);
    for (at, mark, name) in [
        (0, &b"QFI\xfb"[..], "a qcow2 image: convert it by `qemu-img convert -O raw`"),
        (0, b"vhdxfile", "a VHDX image: convert it by `qemu-img convert -O raw`"),
        (0, b"KDMV", "a VMDK image: convert it by `qemu-img convert -O raw`"),
        (0x40, b"\x7f\x10\xda\xbe", "a VDI image: convert it by `qemu-img convert -O raw`"),
        (0, b"\x1f\x8b\x08", "a file packed by gzip: unpack it first"),
    ] {
        let disk = File::new("named-disk", &marked(at, mark));
        let message = format!("--disk {}: expected a raw image, got {name}", disk.path());
        assert_eq!(fails(&["--kernel", kernel.path(), "--disk", disk.path()]), error(3, &message));
    }
    let disk = File::new("raw-disk", &marked(0, b"anything"));
    let output = seawall(&["run", "--kernel", kernel.path(), "--disk", disk.path()]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "hi"));
}

#[test]
fn linux_is_given_no_initramfs_that_it_cannot_unpack() {
    let mut image = marked(56, b"ARM\x64");
    image[..4].copy_from_slice(&0x1400_0010_u32.to_le_bytes());
    let kernel = File::new("linux", &image);
    let initrd = File::new("uinitrd", &marked(0, b"\x27\x05\x19\x56"));
    let message = format!(
        "{}: expected an initramfs, got a U-Boot image (uImage): `dumpimage -l` lists its parts, `dumpimage -p` takes one \
         out",
        initrd.path()
    );
    assert_eq!(fails(&["--kernel", kernel.path(), "--initrd", initrd.path()]), error(3, &message));
    let message =
        format!("{}: expected an initramfs, got an arm64 Linux Image: give it as the kernel", kernel.path());
    assert_eq!(fails(&["--kernel", kernel.path(), "--initrd", kernel.path()]), error(3, &message));
}

/// A FIFO without a writer, removed with this.
struct Fifo(String);

impl Fifo {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seawall-{}-{name}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path.to_str().unwrap().to_owned())
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn what_is_no_file_is_refused_by_its_kind_whatever_it_is_given_for() {
    let (kernel, fifo) = (File::code("kinds", &HELLO), Fifo::new("fifo"));
    let folder = std::env::temp_dir();
    let folder = folder.to_str().unwrap();
    for (path, kind) in [
        (folder, "a directory"),
        ("/dev/zero", "a character device"),
        (&fifo.0, "a FIFO; a pipe is read as /dev/stdin or /dev/fd/N"),
    ] {
        let refused = format!("expected a file, got {kind}");
        let message = format!("cannot read the kernel {path}: {refused}");
        assert_eq!(fails(&["--kernel", path]), error(3, &message));
        let message = format!("cannot read the initramfs {path}: {refused}");
        assert_eq!(fails(&["--kernel", kernel.path(), "--initrd", path]), error(3, &message));
        let message = format!("--disk {path}: cannot open it: {refused}");
        assert_eq!(fails(&["--kernel", kernel.path(), "--disk", path]), error(3, &message));
        let message = format!("--restore {path}: {refused}");
        assert_eq!(fails(&["--restore", path]), error(3, &message));
        let message = format!(
            "--ledger: cannot read the ledger {path}: {refused}; move it away to start with an empty one"
        );
        assert_eq!(fails(&["--kernel", kernel.path(), "--ledger", path]), error(3, &message));
    }
}

#[test]
fn a_kernel_may_come_by_a_pipe() {
    let kernel = File::code("piped", &HELLO);
    let mut source = Command::new("cat").arg(kernel.path()).stdout(Stdio::piped()).spawn().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["run", "--kernel", "/dev/stdin"])
        .stdin(source.stdout.take().unwrap())
        .output()
        .unwrap();
    source.wait().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "hi"));
}

/// Runs the command with this many MiB of address space in total, and 2 MiB of guest memory by default.
fn within(mib: u64, args: &[&str]) -> Output {
    let limit = format!("--as={}", mib << 20);
    Command::new("prlimit")
        .args([&limit, "--", env!("CARGO_BIN_EXE_seawall"), "run"])
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn a_file_bigger_than_the_guests_memory_is_not_read() {
    let path = std::env::temp_dir().join(format!("seawall-{}-sparse", std::process::id()));
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let name = path.to_str().unwrap();
    let kernel = File::code("small", &HELLO);
    let refused = |what| {
        format!(
            "the {what} {name} does not fit: it has 1099511627776 bytes, the guest's memory 2097152; give the guest more \
             memory (--memory SIZE)"
        )
    };
    let as_kernel = within(300, &["--kernel", name, "--memory", "2M"]);
    let as_initrd = within(300, &["--kernel", kernel.path(), "--initrd", name, "--memory", "2M"]);
    let as_ledger = within(300, &["--kernel", kernel.path(), "--ledger", name, "--memory", "2M"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(said(&as_kernel), error(11, &refused("kernel")));
    assert_eq!(said(&as_initrd), error(11, &refused("initramfs")));
    let message = format!(
        "--ledger: cannot read the ledger {name}: expected at most 268435456 bytes, got 1099511627776; move it away to \
         start with an empty one"
    );
    assert_eq!(said(&as_ledger), error(3, &message));
}

#[test]
fn a_stream_without_an_end_is_given_up_at_the_guests_memory() {
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let output = Command::new("prlimit")
        .args([
            "--as=314572800",
            "--",
            env!("CARGO_BIN_EXE_seawall"),
            "run",
            "--kernel",
            "/dev/stdin",
            "--memory",
            "2M",
        ])
        .stdin(yes.stdout.take().unwrap())
        .output()
        .unwrap();
    yes.wait().unwrap();
    let message = "the kernel /dev/stdin does not fit: it has more bytes, the guest's memory 2097152; give the guest more \
                   memory (--memory SIZE)";
    assert_eq!(said(&output), error(11, message));
}

/// 60,000 headers over the same 3.3 MB: an allocation of each would be 200 GB.
#[test]
fn an_elf_whose_segments_are_all_the_same_bytes_costs_its_size() {
    const COUNT: u16 = 60_000;
    let table = 64 + 56 * u64::from(COUNT);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2_u16, 183].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    file.extend([0x4000_0000_u64, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, COUNT, 0, 0, 0].map(u16::to_le_bytes).concat());
    let elf = |step: u64| {
        let mut file = file.clone();
        for n in 0..u64::from(COUNT) {
            file.extend([1_u32, 5].map(u32::to_le_bytes).concat());
            file.extend([0, 0, 0x4000_0000 + n * step, table, table, 8].map(u64::to_le_bytes).concat());
        }
        assert_eq!(file.len() as u64, table);
        file
    };
    let overlapping = File::new("elf-overlap", &elf(0x1000));
    let message =
        "expected a whole ELF file, got a damaged one: the segments at 0x40000000 and 0x40001000 overlap";
    let output = within(300, &["--kernel", overlapping.path(), "--memory", "64M"]);
    assert_eq!(said(&output), error(3, &format!("{}: {message}", overlapping.path())));
    let apart = File::new("elf-apart", &elf(0x40_0000));
    let output = within(300, &["--kernel", apart.path(), "--memory", "64M"]);
    let (code, words) = said(&output);
    assert_eq!(code, Some(11), "{words}");
    assert!(words.starts_with("error: the kernel does not fit: it takes 0x40000000.."), "{words}");
}

/// 600 MiB of zeros.
#[test]
fn a_kernel_that_unpacks_without_an_end_is_given_up_at_the_guests_memory() {
    let bomb =
        Command::new("sh").args(["-c", "head -c 629145600 /dev/zero | gzip -1"]).output().unwrap().stdout;
    let file = File::new("bomb.gz", &bomb);
    let output = within(300, &["--kernel", file.path(), "--memory", "64M"]);
    let message = "expected a kernel of at most 67108864 bytes, which is the guest's memory, the file unpacks to more; give \
                   the guest more memory (--memory SIZE)";
    assert_eq!(said(&output), error(11, &format!("{}: {message}", file.path())));
}

#[test]
fn standard_input_without_an_end_is_read_as_far_as_the_guest_takes_it() {
    let run = |name: &str, words: &[u32]| {
        let kernel = File::code(name, words);
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        let output = Command::new("prlimit")
            .args(["--as=314572800", "--", env!("CARGO_BIN_EXE_seawall"), "run", "--memory", "2M", "--stdin"])
            .args(["--kernel", kernel.path(), "--max-insns", "500000000"])
            .stdin(yes.stdout.take().unwrap())
            .output()
            .unwrap();
        yes.wait().unwrap();
        said(&output)
    };
    let (code, words) = run("deaf", &[seawall::BRANCH_SELF]);
    assert_eq!(code, Some(5));
    assert!(words.contains("the guest did not end in 500000000 instructions"), "{words}");
    let (code, words) = run("asleep", &[seawall::WFI, 0x17ff_ffff]); // b . - 4
    assert_eq!(code, Some(5));
    assert!(words.contains("the guest waits for an interrupt"), "{words}");
}

#[test]
fn snapshots_and_events_follow_a_link_which_stays() {
    let folder = std::env::temp_dir().join(format!("seawall-{}-linked", std::process::id()));
    fs::create_dir_all(folder.join("far")).unwrap();
    let kernel = File::code("links", &HELLO);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for name in ["snapshot", "events"] {
        std::os::unix::fs::symlink(format!("far/{name}"), path(name)).unwrap();
    }
    let args =
        ["run", "--kernel", kernel.path(), "--snapshot", &path("snapshot"), "--events", &path("events")];
    assert_eq!(seawall(&args).status.code(), Some(0));
    for name in ["snapshot", "events"] {
        assert!(fs::symlink_metadata(path(name)).unwrap().is_symlink(), "{name}");
        assert!(fs::metadata(path(&format!("far/{name}"))).unwrap().len() > 0, "{name}");
    }
    let restored = seawall(&["run", "--restore", &path("snapshot")]);
    assert_eq!(restored.status.code(), Some(5), "it powered off: {}", text(&restored.stderr));
    fs::remove_dir_all(folder).unwrap();
}
