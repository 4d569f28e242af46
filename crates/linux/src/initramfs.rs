//! The guest's file system: busybox, the workload, and the settings for init.

use seawall_guest::linux::{PROGRAMS, program};
use seawall_vmm::initramfs::Initramfs;

/// The first process; its head lists the words that it takes from the kernel's command line.
pub(crate) const INIT: &str = include_str!("init.sh");
/// The name of the static busybox, in the archive and in the cache.
pub(crate) const BUSYBOX: &str = "busybox";
/// Directories that are mount points, or expected.
const DIRECTORIES: [&str; 8] = ["bin", "dev", "lib", "proc", "root", "run", "sys", "tmp"];

/// The archive, uncompressed. `busybox` is a static program for AArch64; `modules` are names and contents of
/// kernel modules for init to load. The same inputs give the same bytes.
#[must_use]
pub fn build(busybox: &[u8], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = with_busybox(busybox);
    for name in PROGRAMS {
        archive = archive.program(&format!("bin/{name}"), &program(name).unwrap_or_default());
    }
    with_modules(archive, "lib/modules", modules).finish()
}

/// An archive whose init goes on with the root on a disk; `storage` are the modules that it takes.
#[must_use]
pub(crate) fn build_with_disk(busybox: &[u8], storage: &[(String, Vec<u8>)]) -> Vec<u8> {
    with_modules(with_busybox(busybox), "lib/storage", storage).finish()
}

fn with_busybox(busybox: &[u8]) -> Initramfs {
    let archive = DIRECTORIES.iter().fold(Initramfs::default(), |archive, path| archive.directory(path));
    archive
        .character_device("dev/console", 5, 1)
        .program("init", INIT.as_bytes())
        .program(&format!("bin/{BUSYBOX}"), busybox)
}

fn with_modules(archive: Initramfs, folder: &str, modules: &[(String, Vec<u8>)]) -> Initramfs {
    let archive = if modules.is_empty() { archive } else { archive.directory(folder) };
    modules
        .iter()
        .fold(archive, |archive, (name, content)| archive.file(&format!("{folder}/{name}"), content))
}
