//! A guest's memory as a file, seen from outside of its VMM.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use seawall_kvm::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use seawall_lab_machine::{PoisonRegister, physical_address};
use tempfile::NamedTempFile;
use vm_memory::{Bytes as _, FileOffset};

use crate::lines::PATIENCE;

/// Where RAM begins in QEMU's `virt`.
pub(crate) const BASE: u64 = 0x4000_0000;

/// The lab's memory is good again when it is let go.
pub(crate) struct Healing;

/// A view of the guest's memory.
pub(crate) struct Ram {
    // Before the file goes back to the host.
    _healing: Healing,
    /// If it is a file of ours.
    _file: Option<NamedTempFile>,
    path: PathBuf,
    view: GuestMemoryMmap,
}

impl Ram {
    /// A file of so many bytes, for a VMM.
    pub(crate) fn new(size: u64) -> Result<Self, String> {
        let file = NamedTempFile::new_in("/dev/shm").map_err(text)?;
        file.as_file().set_len(size).map_err(text)?;
        let path = file.path().to_owned();
        Ok(Self { _healing: Healing, view: view(file.as_file(), size)?, path, _file: Some(file) })
    }

    /// A file of the VMM's own, by its name, as soon as the VMM has made it.
    pub(crate) fn of_process(vmm: &mut Child, name: &str, size: u64) -> Result<Self, String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = vmm.try_wait().map_err(text)? {
                return Err(format!("ended before it had a file {name:?}: {status}"));
            }
            if let Some(path) = descriptor(vmm.id(), name).map_err(text)? {
                let file = File::options().read(true).write(true).open(&path).map_err(text)?;
                if file.metadata().map_err(text)?.len() == size {
                    return Ok(Self { _healing: Healing, view: view(&file, size)?, path, _file: None });
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("expected a file {name:?} of {size} bytes"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
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

fn view(file: &File, size: u64) -> Result<GuestMemoryMmap, String> {
    let offset = FileOffset::new(file.try_clone().map_err(text)?, 0);
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(BASE), size as usize, Some(offset))]).map_err(text)
}

/// Where a process has an open file whose name has this in it.
fn descriptor(process: u32, name: &str) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = entry?.path();
        // It may be closed again.
        if fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains(name)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
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
