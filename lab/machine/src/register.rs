//! The register that turns physical memory bad.
//!
//! Reads and fetches of a bad range answer with a synchronous external abort, writes to it are dropped.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use vm_memory::mmap::MmapRegion;
use vm_memory::{GuestAddress, GuestRegionMmap};

use crate::Error;

/// Physical address of the register's page.
const BASE: libc::off_t = 0x0b00_0000;
/// Bytes mapped.
const PAGE: usize = 0x1000;
/// 64-bit word of the page that takes a physical address to turn bad, and reads as the number of bad ranges.
const POISON: usize = 0;
/// Word with the size of a bad range in bytes, a power of two.
const SIZE: usize = 1;
/// Word that takes a physical address to heal; 0: all.
const HEAL: usize = 2;

/// The poison register, reached through `/dev/mem`.
#[derive(Debug)]
pub struct PoisonRegister {
    page: *mut u64,
}

// SAFETY: the page is device memory that any thread may access; the methods that write take `&mut`.
unsafe impl Send for PoisonRegister {}

impl PoisonRegister {
    /// Maps the register.
    ///
    /// # Errors
    /// [`Error`] if this is not the lab's machine, or not root.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { page: map(BASE)? })
    }

    /// Turns `size` bytes (a power of two) at a physical address bad.
    ///
    /// # Errors
    /// [`Error`] if the machine refused it.
    pub fn poison(&mut self, physical: u64, size: u64) -> Result<(), Error> {
        if !size.is_power_of_two() {
            return Err(Error(format!(
                "the poison register: expected a size that is a power of two, got {size}"
            )));
        }
        let before = self.count();
        self.write(SIZE, size);
        self.write(POISON, physical);
        if self.count() != before + 1 {
            return Err(Error(format!(
                "the poison register did not take {physical:#x}: {before} ranges are bad already"
            )));
        }
        Ok(())
    }

    /// Heals the range that begins at this physical address.
    pub fn heal(&mut self, physical: u64) {
        self.write(HEAL, physical);
    }

    /// Heals all ranges.
    pub fn heal_all(&mut self) {
        self.write(HEAL, 0);
    }

    /// The number of bad ranges.
    pub fn count(&self) -> u64 {
        // SAFETY: the mapping is live, and word 0 is in it.
        unsafe { self.page.add(POISON).read_volatile() }
    }

    fn write(&mut self, word: usize, value: u64) {
        // SAFETY: the mapping is live, and words 0 to 2 are in it.
        unsafe { self.page.add(word).write_volatile(value) }
    }
}

impl Drop for PoisonRegister {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and not used any more.
        unsafe { libc::munmap(self.page.cast(), PAGE) };
    }
}

/// Guest memory of one page at `gpa` with nothing behind it in the lab's machine: each access to it is a
/// synchronous external abort. It is mapped once for the process.
///
/// # Errors
/// [`Error`] if this is not the lab's machine, or not root.
pub fn hole(gpa: u64) -> Result<GuestRegionMmap, Error> {
    /// The page behind the register.
    const HOLE: libc::off_t = BASE + PAGE as libc::off_t;
    static MAPPED: Mutex<Option<usize>> = Mutex::new(None);
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let address = match *mapped {
        Some(address) => address,
        None => *mapped.insert(map(HOLE)? as usize),
    };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page was mapped with this access, and stays for as long as the process.
    let region = unsafe { MmapRegion::build_raw(address as *mut u8, PAGE, access, libc::MAP_SHARED) };
    let region = region.map_err(|error| Error(format!("cannot use {HOLE:#x}: {error}")))?;
    GuestRegionMmap::new(region, GuestAddress(gpa))
        .ok_or_else(|| Error(format!("expected a page of guest memory at {gpa:#x}: it overflows")))
}

/// Returns true in the lab. The lab's machine passes no device to the guest's tree; the kernel command line
/// identifies it.
pub fn is_lab() -> bool {
    std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("seawall.lab"))
}

/// Maps a page of physical addresses without memory in the lab's machine.
fn map(physical: libc::off_t) -> Result<*mut u64, Error> {
    if !is_lab() {
        return Err(Error("not on the lab's machine (no seawall.lab in /proc/cmdline)".into()));
    }
    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem");
    let memory = memory.map_err(|error| Error(format!("cannot open /dev/mem: {error}; expected root")))?;
    // SAFETY: a new mapping of a page that is not memory, which nothing else in this process uses.
    let page = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), PAGE, access, libc::MAP_SHARED, memory.as_raw_fd(), physical)
    };
    if page == libc::MAP_FAILED {
        return Err(Error(format!("cannot map {physical:#x}: {}", std::io::Error::last_os_error())));
    }
    Ok(page.cast())
}

/// The physical address behind an address of this process, by `/proc/self/pagemap`.
///
/// # Errors
/// [`Error`] if the page is not present, or not root.
pub fn physical_address(virtual_address: u64) -> Result<u64, Error> {
    const PRESENT: u64 = 1 << 63;
    const PFN: u64 = (1 << 55) - 1;
    // SAFETY: sysconf only reads.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let failed = |error: std::io::Error| Error(format!("cannot read /proc/self/pagemap: {error}"));
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").map_err(failed)?;
    pagemap.read_exact_at(&mut entry, virtual_address / page * 8).map_err(failed)?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 || entry & PFN == 0 {
        let advice = "touch it first, and be root";
        return Err(Error(format!("no physical page is known behind {virtual_address:#x}: {advice}")));
    }
    Ok((entry & PFN) * page + virtual_address % page)
}
