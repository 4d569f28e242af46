//! A guest's memory as a file, seen from outside of its VMM.

use std::path::Path;

use seawall_kvm::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use seawall_lab_machine::{PoisonRegister, physical_address};
use tempfile::NamedTempFile;
use vm_memory::{Bytes as _, FileOffset};

/// Where RAM begins in QEMU's `virt`.
pub(crate) const BASE: u64 = 0x4000_0000;

/// The lab's memory is good again when it is let go.
pub(crate) struct Healing;

/// The file, and a view of it.
pub(crate) struct Ram {
    // Before the file goes back to the host.
    _healing: Healing,
    file: NamedTempFile,
    view: GuestMemoryMmap,
}

impl Ram {
    pub(crate) fn new(size: u64) -> Result<Self, String> {
        let file = NamedTempFile::new_in("/dev/shm").map_err(text)?;
        file.as_file().set_len(size).map_err(text)?;
        let offset = FileOffset::new(file.as_file().try_clone().map_err(text)?, 0);
        let view =
            GuestMemoryMmap::from_ranges_with_files([(GuestAddress(BASE), size as usize, Some(offset))]);
        Ok(Self { _healing: Healing, file, view: view.map_err(text)? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// A line of this guest memory goes bad, and the host does not know. The page must be in use.
    pub(crate) fn poison(&self, gpa: u64) -> Result<(), String> {
        let mut register = PoisonRegister::open().map_err(text)?;
        let line = gpa & !63;
        let physical = physical_address(self.host(line)?).map_err(text)?;
        register.poison(physical, 64).map_err(text)
    }

    /// The host knows that this page is bad.
    pub(crate) fn tell_host(&self, gpa: u64) -> Result<(), String> {
        let host = self.host(gpa)?;
        seawall_host::hwpoison(host..host + 1).map_err(text)
    }

    /// The address here of a byte there, with its page mapped.
    fn host(&self, gpa: u64) -> Result<u64, String> {
        // Reads the page, which must be good still.
        let _: u8 = self.view.read_obj(GuestAddress(gpa)).map_err(text)?;
        Ok(self.view.get_host_address(GuestAddress(gpa)).map_err(text)? as u64)
    }
}

impl Drop for Healing {
    fn drop(&mut self) {
        if let Ok(mut register) = PoisonRegister::open() {
            register.heal_all();
        }
    }
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
