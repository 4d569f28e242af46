//! The scenarios' files in the lab, which `cargo xtask lab contain` brings in.

use std::fs;
use std::path::{Path, PathBuf};

/// Debian's kernel for the guests.
pub(crate) const KERNEL: &str = "/guest/vmlinuz";
/// Its modules for a virtio disk with ext4, in the order of their names.
const MODULES: &str = "/guest/storage";
/// Static programs of the guests, which the lab has too.
const PROGRAMS: [&str; 2] = [BUSYBOX, "/bin/seawall-lab-victim"];
/// The static busybox.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// A file by its name in the guest: the last part of its path, and its content.
pub(crate) type Named = (String, Vec<u8>);

pub(crate) fn programs() -> Result<Vec<Named>, String> {
    PROGRAMS.iter().map(|path| named(Path::new(path))).collect()
}

pub(crate) fn modules() -> Result<Vec<Named>, String> {
    let entries = fs::read_dir(MODULES).map_err(|error| format!("{MODULES}: {error}"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| named(path)).collect()
}

fn named(path: &Path) -> Result<Named, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((name, bytes))
}
