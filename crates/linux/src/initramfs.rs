//! The guest's file system: busybox, the workload, and the settings for init.

use seawall_guest::linux::{PROGRAMS, program};
use seawall_vmm::initramfs::Initramfs;

/// The first process; its head lists the words that it takes from the kernel's command line.
const INIT: &str = include_str!("init.sh");
/// The name of the static busybox, in the archive and in the cache.
pub(crate) const BUSYBOX: &str = "busybox";
/// Directories that are mount points, or expected.
const DIRECTORIES: [&str; 8] = ["bin", "dev", "lib", "proc", "root", "run", "sys", "tmp"];

/// The archive, uncompressed. `busybox` is a static program for AArch64; `modules` are names and contents of
/// kernel modules for init to load. The same inputs give the same bytes.
#[must_use]
pub fn build(busybox: &[u8], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Initramfs::default();
    for path in DIRECTORIES {
        archive = archive.directory(path);
    }
    archive = archive
        .character_device("dev/console", 5, 1)
        .program("init", INIT.as_bytes())
        .program(&format!("bin/{BUSYBOX}"), busybox);
    for name in PROGRAMS {
        archive = archive.program(&format!("bin/{name}"), &program(name).unwrap_or_default());
    }
    if !modules.is_empty() {
        archive = archive.directory("lib/modules");
    }
    for (name, content) in modules {
        archive = archive.file(&format!("lib/modules/{name}"), content);
    }
    archive.finish()
}
