#![forbid(unsafe_code)]
//! Linux guests to try memory errors on: Debian's own kernel, and an initramfs that reports the cost of bad
//! memory.
//!
//! - [`Fetch`]: kernel, kernel modules and busybox from Debian's packages, by their names, through the host's
//!   apt and its mirror, without root, checked by hash, cached
//! - [`by_hand`]: the same from files
//! - [`initramfs`]: busybox and the processes of [`seawall_guest::linux`]; the guest's command line selects
//!   the workload
//! - [`apt`]: a private apt, for further packages
//!
//! The crate needs no root, no cross compiler, and no tools but apt and dpkg. Linux's side is in `init.sh`:
//!
//! | `seawall.workload=` | the guest's work before it powers off |
//! |---|---|
//! | `workload` (the default) | five processes report that they live, and name the pages that they need |
//! | `services` | the five, a database, a web server with its client, a compressor: on a disk, see [`services`] |
//! | `sixteen` | sixteen processes with memory of their own report how much of it is bad at the end |
//! | `vectors` | names the kernel's exception vectors, which the guest needs, and sleeps |
//! | `stress` | tools on known data, each result compared; the kernel tests its ciphers |
//! | `shell` | a shell on the console |
//!
//! ```no_run
//! use seawall_linux::{Fetch, cache_directory};
//!
//! # fn main() -> Result<(), seawall_linux::Error> {
//! let directory = cache_directory().unwrap_or_else(|| "guests".into());
//! let guest = Fetch::new(directory).guest(&|_| ())?;
//! println!("{} with {}", guest.kernel.display(), guest.initrd.display());
//! # Ok(())
//! # }
//! ```

pub mod apt;
mod cache;
mod debian;
mod error;
mod files;
pub mod initramfs;
mod modules;
pub mod process;
pub mod services;

use std::path::PathBuf;

pub use debian::{Fetch, Flavour, by_hand};
pub use error::{Error, Result};
pub use modules::ModuleError;

/// The kernel command line for the initramfs, without its own words: the console, and a reset at a panic.
pub const COMMAND_LINE: &str = "console=ttyAMA0 panic=-1 quiet";

/// A guest, ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// An arm64 Linux kernel, as Debian ships it.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The static busybox.
    pub busybox: PathBuf,
    /// The kernel's modules for a virtio disk with ext4, in loading order; none if the guest was made by
    /// hand. The initramfs does not need them.
    pub storage: Vec<PathBuf>,
    /// The release as `uname -r` prints it; empty if it is not known.
    pub release: String,
    /// The packages' files, with their versions; none if the guest was made by hand.
    pub packages: Vec<String>,
}

/// The default directory for guests: `$XDG_CACHE_HOME/seawall/guests`, or below `~/.cache` (XDG Base
/// Directory Specification). `None` if there is no home.
pub fn cache_directory() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(cache?.join("seawall/guests"))
}
