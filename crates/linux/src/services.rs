//! A guest with its root on a disk, for campaigns: Debian's own sqlite3 and bzip2 with their shared libraries, busybox's web
//! server, and the five processes of the usual workload.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use seawall_guest::linux::{PROGRAMS, program};

use crate::apt::Apt;
use crate::cache::{self, State};
use crate::error::{Error, Result};
use crate::process::{self, Note};
use crate::{Fetch, Guest, files, initramfs};

/// Real programs, dynamically linked.
const PROGRAMS_OF_DEBIAN: [&str; 2] = ["sqlite3", "bzip2"];
const SUITE: &str = "trixie";
/// Bytes of the disk.
const DISK: u64 = 48 << 20;
/// Of all files on it, seconds since 1970.
const TIME: &str = "1700000000";
/// Changed when this file makes something else of the packages.
const VERSION: &str = "1";
/// Folders of a package that no program needs to run.
const LEFT_OUT: [&str; 4] = ["usr/share", "usr/include", "etc", "usr/lib/aarch64-linux-gnu/gconv"];

/// The kernel command line of this guest, but for the number of rounds.
pub const COMMAND_LINE: &str = "console=ttyAMA0 panic=-1 quiet seawall.root=disk seawall.workload=services";

/// The guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Its kernel, and what else there is of it.
    pub guest: Guest,
    /// The initramfs, which goes on with the root on the disk.
    pub initrd: PathBuf,
    /// The disk, an ext4.
    pub disk: PathBuf,
}

/// The guest: fetched, or what was fetched before. Its disk is made by the host's `mke2fs`, the same bytes each time.
///
/// # Errors
/// As [`Fetch::guest`]; [`Error::Unavailable`] without mke2fs.
pub fn services(fetch: &Fetch, note: Note<'_>) -> Result<Services> {
    let guest = fetch.guest(note)?;
    let folder = fetch.directory.join(format!("services-{VERSION}"));
    cache::alone(&fetch.directory, note, || {
        if !matches!(cache::check(&folder)?, State::Good) {
            cache::make(&folder, |new| unpack(new, &fetch.directory.join("apt"), note))?;
        }
        let initrd = fetch.directory.join(format!("initrd-services-{}.cpio", guest.release));
        let storage = guest.storage.iter().map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, files::read(path)?))
        });
        let storage = storage.collect::<Result<Vec<_>>>()?;
        files::replace(&initrd, initramfs::build_with_disk(&files::read(&guest.busybox)?, &storage))?;
        let disk = fetch.directory.join("services.ext4");
        make_disk(&folder, &guest.busybox, &disk, &fetch.directory, note)?;
        Ok(Services { guest: guest.clone(), initrd, disk })
    })
}

/// The packages' programs and libraries.
fn unpack(new: &Path, folder: &Path, note: Note<'_>) -> Result<()> {
    let apt = Apt::new(folder.to_owned(), &[SUITE]);
    let root = new.join("root");
    for package in PROGRAMS_OF_DEBIAN {
        let wanted = |name: &str| name == package || name.starts_with("lib") || name.starts_with("zlib");
        apt.unpack_with_dependencies(&format!("{package}:arm64"), &["debconf"], &wanted, &root, note)?;
    }
    for name in LEFT_OUT {
        files::remove_folder(&root.join(name))?;
    }
    files::remove_folder(folder)
}

/// The disk, of the unpacked packages, busybox, init, the workload's programs and what its services serve.
fn make_disk(unpacked: &Path, busybox: &Path, disk: &Path, near: &Path, note: Note<'_>) -> Result<()> {
    let stage = near.join(format!("services.new-{}", std::process::id()));
    files::remove_folder(&stage)?;
    let root = stage.join("root");
    files::create_folder(&stage)?;
    let log = near.join("mke2fs.log");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(unpacked.join("root")).arg(&root);
    process::run(&mut copy, &log, note)?;
    for name in ["bin", "dev", "proc", "root", "run", "sys", "tmp", "var", "srv"] {
        let folder = root.join(if name == "bin" { "usr/bin" } else { name });
        files::create_folder(&folder)?;
    }
    for (link, to) in [("bin", "usr/bin"), ("lib", "usr/lib")] {
        let link = root.join(link);
        if !link.exists() {
            std::os::unix::fs::symlink(to, &link).map_err(|error| Error::file(&link, error))?;
        }
    }
    let program_of = |name: &str| program(name).unwrap_or_default();
    let mut programs = vec![("init", initramfs::INIT.as_bytes().to_vec())];
    let paths: Vec<String> = PROGRAMS.iter().map(|name| format!("usr/bin/{name}")).collect();
    programs.extend(paths.iter().zip(PROGRAMS).map(|(path, name)| (path.as_str(), program_of(name))));
    programs.push(("usr/bin/busybox", files::read(busybox)?));
    for (path, bytes) in programs {
        let path = root.join(path);
        files::write(&path, bytes)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).map_err(|error| Error::file(&path, error))?;
    }
    files::write(&root.join("srv/numbers"), numbers())?;
    let image = stage.join("disk");
    let mut make = Command::new("mke2fs");
    // The same bytes each time: no time of now, no random names.
    make.env("PATH", path_of_root())
        .env("SOURCE_DATE_EPOCH", TIME)
        .env("E2FSPROGS_FAKE_TIME", TIME)
        .args(["-q", "-t", "ext4", "-b", "4096", "-m", "0", "-U", "5ea5ea11-0000-4000-8000-000000000001"])
        .args(["-E", "hash_seed=5ea5ea11-0000-4000-8000-000000000002,root_owner=0:0"])
        .arg("-d")
        .arg(&root)
        .arg(&image)
        .arg(format!("{}k", DISK >> 10));
    let made = process::run(&mut make, &log, note).and_then(|()| set_times(&root, &image, &log, note));
    if made.is_ok() {
        std::fs::rename(&image, disk).map_err(|error| Error::file(disk, error))?;
    }
    files::remove_folder(&stage)?;
    made
}

fn path_of_root() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Gives all files of an image the same times: mke2fs copies those of the host's files, and nobody can choose a file's ctime.
fn set_times(root: &Path, image: &Path, log: &Path, note: Note<'_>) -> Result<()> {
    // Inode 2 is the root, 11 lost+found, and the files follow.
    let last = 11 + entries(root)?;
    let mut commands = String::new();
    for inode in [2].into_iter().chain(11..=last) {
        for field in ["atime", "ctime", "mtime", "crtime"] {
            let _ = writeln!(commands, "sif <{inode}> {field} @{TIME}\nsif <{inode}> {field}_extra 0");
        }
    }
    let list = image.with_extension("times");
    files::write(&list, commands)?;
    let mut set = Command::new("debugfs");
    set.env("PATH", path_of_root()).env("E2FSPROGS_FAKE_TIME", TIME).arg("-w").arg("-f").arg(list).arg(image);
    process::run(&mut set, log, note)
}

/// How many files and folders there are below this one.
fn entries(folder: &Path) -> Result<usize> {
    let failed = |error| Error::file(folder, error);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        count += 1;
        if entry.file_type().map_err(failed)?.is_dir() {
            count += entries(&entry.path())?;
        }
    }
    Ok(count)
}

/// Lehmer's generator: 5000 numbers, as the workload `stress` makes them.
fn numbers() -> String {
    let next = |x: &u64| Some(x * 16807 % 2_147_483_647);
    let numbers = std::iter::successors(Some(16807), next).take(5000);
    numbers.fold(String::new(), |text, number| text + &number.to_string() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file's ctime is the host's time of now.
    #[test]
    fn images_of_the_same_files_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let made = ["one", "other"].map(|name| {
            let root = folder.path().join(name);
            std::fs::create_dir_all(root.join("bin")).unwrap();
            std::fs::write(root.join("bin/a"), "a").unwrap();
            let image = folder.path().join(format!("{name}.ext4"));
            let make = Command::new("mke2fs")
                .env("PATH", path_of_root())
                .env("E2FSPROGS_FAKE_TIME", TIME)
                .args(["-q", "-t", "ext4", "-U", "5ea5ea11-0000-4000-8000-000000000001"])
                .args(["-E", "hash_seed=5ea5ea11-0000-4000-8000-000000000002,root_owner=0:0", "-d"])
                .args([&root, &image])
                .arg("1M")
                .output();
            if make.is_err() {
                println!("skipped: there is no mke2fs here");
                return Vec::new();
            }
            std::thread::sleep(std::time::Duration::from_millis(1100));
            set_times(&root, &image, &folder.path().join("log"), &|_| ()).unwrap();
            std::fs::read(&image).unwrap()
        });
        assert!(made[0] == made[1]);
    }

    /// The first numbers of the minimal standard generator (Park and Miller, CACM 31(10), 1988): seed 1.
    #[test]
    fn the_numbers_are_those_that_the_guest_knows_the_sum_of() {
        let numbers = numbers();
        assert!(numbers.starts_with("16807\n282475249\n1622650073\n984943658\n"));
        let sum: u64 = numbers.lines().filter_map(|line| line.parse::<u64>().ok()).sum();
        assert_eq!((numbers.lines().count(), sum), (5000, 5_363_477_410_055));
    }
}
