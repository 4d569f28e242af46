//! The host kernel's knowledge of a bad page.

use std::fmt;
use std::ops::Range;

/// The host's side of a bad page. After a SEA exit the host's kernel does not know that the page is bad, and
/// gives it to the next owner when the VMM ends or remaps the memory.
pub trait Host: Send {
    /// Tells the host's kernel that this range of the VMM's memory is bad: virtual addresses of this process.
    fn tell(&mut self, bad: Range<u64>) -> HostKnows;

    /// Replaces this guest memory by a copy of its content, if there is one that is known to be current,
    /// after telling the host's kernel of the old page. Returns false if there is none: then the guest is
    /// told.
    fn repair(&mut self, _guest: Range<u64>) -> bool {
        false
    }
}

/// The host kernel's knowledge of a bad page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostKnows {
    /// It knows the page, and gives it to nobody.
    Told,
    /// It does not know the page, but the page stays with this process as long as the process lives.
    Kept,
    /// It does not know the page, and gives it to the next owner.
    Unknown,
}

impl HostKnows {
    /// The name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Kept => "kept",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for HostKnows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Told => "the host knows of it",
            Self::Kept => "the host does not know of it: the page is kept while this process lives",
            Self::Unknown => "the host does not know of it, and will give the page to somebody else",
        })
    }
}

/// A Linux host: it calls `MADV_HWPOISON` if this process may, and otherwise keeps the page
/// ([`seawall_host::tell`]).
#[cfg(all(feature = "host", target_os = "linux"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxHost;

#[cfg(all(feature = "host", target_os = "linux"))]
impl Host for LinuxHost {
    fn tell(&mut self, bad: Range<u64>) -> HostKnows {
        match seawall_host::tell(bad) {
            seawall_host::HostKnows::Told => HostKnows::Told,
            seawall_host::HostKnows::Kept => HostKnows::Kept,
            seawall_host::HostKnows::Unknown => HostKnows::Unknown,
        }
    }
}

#[cfg(all(feature = "host", target_os = "linux"))]
impl From<seawall_host::sigbus::Signal> for crate::Source {
    fn from(signal: seawall_host::sigbus::Signal) -> Self {
        let seawall_host::sigbus::Signal { address, lsb, action_required } = signal;
        Self::Sigbus(crate::SigbusExit { address, lsb, action_required })
    }
}
