//! Facts about the host from `/proc` and `/sys`.

use std::fs;
use std::path::Path;

/// Kernel, processor, privileges.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct System {
    /// The machine's architecture in the kernel's words, such as `aarch64`; the program's own if the kernel
    /// does not tell it.
    pub architecture: String,
    /// `linux`, or another.
    pub os: String,
    /// The kernel's release, such as `7.2.12-cloud-arm64`.
    pub kernel: Option<String>,
    /// Base page size, KiB.
    pub page_kib: Option<u64>,
    /// True if the process has CAP_SYS_ADMIN.
    pub is_admin: bool,
}

/// The host's handling of a bad page.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// `CONFIG_MEMORY_FAILURE`: bad pages are taken out of use, and `madvise(MADV_HWPOISON)` makes one.
    pub hwpoison: bool,
    /// Memory taken out of use as bad, KiB.
    pub bad_kib: u64,
    /// `vm.memory_failure_recovery`. If false, the host panics at the first bad page.
    pub recovers: Option<bool>,
    /// `vm.memory_failure_early_kill`: a process is warned (BUS_MCEERR_AO) before it touches a bad page.
    pub early_kill: Option<bool>,
    /// The pools of huge pages, smallest first.
    pub huge_pages: Vec<HugePages>,
    /// The mode of transparent huge pages: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
}

/// A pool of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// Size of a page, KiB.
    pub kib: u64,
    /// The number of pages.
    pub total: u64,
    /// The number of free pages.
    pub free: u64,
}

pub(super) fn system(root: &Path) -> System {
    let read = |path: &str| line(root, path);
    System {
        architecture: read("proc/sys/kernel/arch").unwrap_or_else(|| std::env::consts::ARCH.into()),
        os: std::env::consts::OS.into(),
        // A kernel without CONFIG_SYSCTL has it there alone.
        kernel: field(root, "proc/version", "Linux version "),
        page_kib: field(root, "proc/self/smaps", "KernelPageSize:").and_then(|kib| kib.parse().ok()),
        is_admin: is_admin(root),
    }
}

fn is_admin(root: &Path) -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let effective = field(root, "proc/self/status", "CapEff:");
    let bits = effective.and_then(|bits| u64::from_str_radix(&bits, 16).ok()).unwrap_or(0);
    bits & CAP_SYS_ADMIN != 0
}

pub(super) fn memory(root: &Path) -> Memory {
    let flag = |path: &str| line(root, path).map(|value| value != "0");
    // The field exists if CONFIG_MEMORY_FAILURE does.
    let bad = field(root, "proc/meminfo", "HardwareCorrupted:");
    Memory {
        hwpoison: bad.is_some(),
        bad_kib: bad.and_then(|kib| kib.parse().ok()).unwrap_or(0),
        recovers: flag("proc/sys/vm/memory_failure_recovery"),
        early_kill: flag("proc/sys/vm/memory_failure_early_kill"),
        huge_pages: huge_pages(root),
        transparent_huge_pages: line(root, "sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|modes| Some(modes.split_once('[')?.1.split_once(']')?.0.to_owned())),
    }
}

fn huge_pages(root: &Path) -> Vec<HugePages> {
    let pools = fs::read_dir(root.join("sys/kernel/mm/hugepages")).into_iter().flatten().flatten();
    let mut pools: Vec<HugePages> = pools
        .filter_map(|pool| {
            let name = pool.file_name();
            let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = |file| line(&pool.path(), file)?.parse().ok();
            Some(HugePages { kib, total: count("nr_hugepages")?, free: count("free_hugepages")? })
        })
        .collect();
    pools.sort_by_key(|pool| pool.kib);
    pools
}

/// The first line of a file.
fn line(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

/// The first word after a name at the beginning of a line.
fn field(root: &Path, path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.split_whitespace().next()?.to_owned())
}

#[cfg(test)]
pub(super) mod tree {
    //! A test's own file system.

    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(crate) struct Tree(PathBuf);

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("seawall-probe-{}-{number}", std::process::id()));
            let tree = Self(root);
            for (path, text) in files {
                tree.write(path, text.as_bytes());
            }
            tree
        }

        pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        pub(crate) fn root(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tree::Tree;
    use super::*;

    #[test]
    fn a_server_s_files_are_read() {
        let tree = Tree::new(&[
            ("proc/sys/kernel/arch", "aarch64\n"),
            ("proc/version", "Linux version 7.2.12+deb13-cloud-arm64 (a builder) #1 SMP\n"),
            ("proc/self/smaps", "aaaa-bbbb r-xp\nSize:  4 kB\nKernelPageSize:       64 kB\n"),
            ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
            ("proc/meminfo", "MemTotal: 1 kB\nHardwareCorrupted:     8 kB\n"),
            ("proc/sys/vm/memory_failure_recovery", "1\n"),
            ("proc/sys/vm/memory_failure_early_kill", "0\n"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "2\n"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "1\n"),
            ("sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages", "0\n"),
            ("sys/kernel/mm/hugepages/hugepages-64kB/free_hugepages", "0\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ]);
        let system = system(tree.root());
        assert_eq!(system.architecture, "aarch64");
        assert_eq!(system.kernel.as_deref(), Some("7.2.12+deb13-cloud-arm64"));
        assert_eq!(system.page_kib, Some(64));
        assert!(system.is_admin);
        let expected = Memory {
            hwpoison: true,
            bad_kib: 8,
            recovers: Some(true),
            early_kill: Some(false),
            huge_pages: vec![
                HugePages { kib: 64, total: 0, free: 0 },
                HugePages { kib: 1048576, total: 2, free: 1 },
            ],
            transparent_huge_pages: Some("madvise".into()),
        };
        assert_eq!(memory(tree.root()), expected);
    }

    #[test]
    fn what_is_not_there_is_left_open() {
        let tree = Tree::new(&[("proc/self/status", "CapEff:\t0000000000000000\n"), ("proc/meminfo", "x")]);
        let system = system(tree.root());
        assert_eq!(system.architecture, std::env::consts::ARCH);
        assert_eq!((system.kernel, system.page_kib, system.is_admin), (None, None, false));
        assert_eq!(memory(tree.root()), Memory::default());
    }
}
