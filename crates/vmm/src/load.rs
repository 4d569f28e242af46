//! Puts a guest into its memory: kernel, initramfs and device tree, where QEMU's `virt` puts them.
//!
//! - a Linux `Image` lies at its text offset above the second 2 MiB of RAM, a flat binary 512 KiB up, an ELF
//!   where its segments say;
//! - the initramfs lies behind the kernel, and not below the middle of RAM or 128 MiB;
//! - the device tree lies behind the initramfs on a 2 MiB boundary, or where else it has room.
//!
//! What of RAM is bad and could not be healed is gone round, by the next place of the kind; a flat binary and an ELF
//! cannot.

use std::ops::Range;

use thiserror::Error;
use vm_memory::{Bytes as _, GuestAddress, GuestMemory, GuestMemoryError};

use crate::Guest;
use crate::kernel::Kernel;
use crate::ram::Ram;

/// Where a flat binary goes, bytes above the base of RAM.
const FLAT_OFFSET: u64 = 0x8_0000;
/// A Linux `Image` lies on such a boundary, plus its text offset.
const LINUX_ALIGN: u64 = 0x20_0000;
/// At most so far above the base of RAM QEMU looks for the initrd's place.
const KERNEL_ROOM: u64 = 128 << 20;
/// The device tree's alignment, and its greatest size (Linux, booting.rst).
const FDT_ALIGN: u64 = 0x20_0000;
/// Alignment of the initramfs, and of a device tree that is squeezed in.
const PAGE: u64 = 0x1000;

/// Where the parts of a guest are in its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Placement {
    /// The first instruction.
    pub entry: u64,
    /// The kernel, with what it zeroes for itself.
    pub kernel: Range<u64>,
    /// The initramfs.
    pub initrd: Option<Range<u64>>,
    /// The device tree: X0 at the entry.
    pub fdt: Range<u64>,
}

/// Why a guest does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The kernel is not wholly in RAM.
    #[error(
        "the kernel does not fit: it takes {:#x}..{:#x}, RAM is {:#x}..{:#x}; give the guest more memory",
        .kernel.start, .kernel.end, .ram.start, .ram.end
    )]
    Kernel {
        /// What it takes.
        kernel: Range<u64>,
        /// What there is.
        ram: Range<u64>,
    },
    /// The kernel cannot be elsewhere, and its place is bad.
    #[error(
        "the kernel must be at {:#x}..{:#x}, and {:#x}..{:#x} is bad memory that could not be healed", .kernel.start,
        .kernel.end, .bad.start, .bad.end
    )]
    BadMemory {
        /// What it takes.
        kernel: Range<u64>,
        /// What is bad.
        bad: Range<u64>,
    },
    /// A place was asked for, but the kernel has its own.
    #[error("expected a flat binary to load at {address:#x}, got a kernel that says itself where it goes")]
    HasAddress {
        /// The place.
        address: u64,
    },
    /// The kernel does not begin in RAM.
    #[error(
        "expected a kernel that begins in RAM, {:#x}..{:#x}, got one for {:#x}..{:#x}",
        .ram.start, .ram.end, .kernel.start, .kernel.end
    )]
    OutsideRam {
        /// What it takes.
        kernel: Range<u64>,
        /// What there is.
        ram: Range<u64>,
    },
    /// The entry point is not in the kernel.
    #[error("expected an entry point inside the kernel {:#x}..{:#x}, got {entry:#x}", .kernel.start, .kernel.end)]
    Entry {
        /// The entry point.
        entry: u64,
        /// What the kernel takes.
        kernel: Range<u64>,
    },
    /// The initramfs does not fit behind the kernel.
    #[error(
        "the initramfs does not fit: {size} bytes behind {start:#x}, RAM ends at {ram_end:#x}; give the guest more memory"
    )]
    Initrd {
        /// Bytes.
        size: u64,
        /// Where it would begin.
        start: u64,
        /// Where RAM ends.
        ram_end: u64,
    },
    /// There is nothing in the initramfs.
    #[error("expected an initramfs, got an empty file")]
    EmptyInitrd,
    /// The device tree is bigger than Linux takes.
    #[error(
        "expected a device tree of at most {limit} bytes, this one has {size}: is the command line that long?"
    )]
    FdtTooBig {
        /// Bytes.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// There is no room for the device tree.
    #[error("expected {size} bytes of RAM {:#x}..{:#x} free for the device tree beside kernel and initramfs", .ram.start, .ram.end)]
    NoRoomForFdt {
        /// Bytes.
        size: u64,
        /// RAM.
        ram: Range<u64>,
    },
    /// Guest memory that was there could not be written.
    #[error("guest memory at {address:#x} cannot be written: {reason}")]
    Memory {
        /// Guest physical address.
        address: u64,
        /// Why.
        reason: String,
    },
}

/// Puts a guest into `memory`, whose RAM is `ram`. What was there before is written over, and is gone where the kernel
/// wants zeroes. `tree` makes the device tree, once it is known where
/// the initramfs is.
///
/// # Errors
/// [`LoadError`], and what `tree` fails with.
pub fn load<M: GuestMemory, E: From<LoadError>>(
    memory: &M,
    ram: &Ram,
    guest: &Guest,
    tree: impl FnOnce(Option<Range<u64>>) -> Result<Vec<u8>, E>,
) -> Result<Placement, E> {
    let Guest { kernel, initrd, .. } = guest;
    let (entry, taken) = place_kernel(kernel, guest.address, ram)?;
    let initrd = initrd.as_deref();
    let initrd_place = initrd.map(|bytes| place_initrd(bytes, &taken, ram)).transpose()?;
    let tree = tree(initrd_place.clone())?;
    let fdt = place_fdt(tree.len() as u64, ram, kernel, &taken, initrd_place.as_ref())?;

    match kernel {
        Kernel::Linux(image) => write(memory, taken.start, &image.bytes)?,
        Kernel::Flat(bytes) => write(memory, taken.start, bytes)?,
        Kernel::Elf { file, segments, .. } => {
            for segment in segments {
                let bytes = file.get(segment.in_file.clone()).unwrap_or_default();
                write(memory, segment.address, bytes)?;
                let zeroes = segment.size.saturating_sub(bytes.len() as u64);
                zero(memory, segment.address + bytes.len() as u64, zeroes)?;
            }
        }
    }
    if let (Some(bytes), Some(place)) = (initrd, &initrd_place) {
        write(memory, place.start, bytes)?;
    }
    write(memory, fdt.start, &tree)?;
    Ok(Placement { entry, kernel: taken, initrd: initrd_place, fdt })
}

/// Zeroes guest memory.
fn zero<M: GuestMemory>(memory: &M, address: u64, size: u64) -> Result<(), LoadError> {
    const ZEROES: [u8; 0x1000] = [0; 0x1000];
    for done in (0..size).step_by(ZEROES.len()) {
        let count = (size - done).min(ZEROES.len() as u64) as usize;
        write(memory, address + done, ZEROES.get(..count).unwrap_or_default())?;
    }
    Ok(())
}

/// Puts bytes into guest memory.
pub(crate) fn write<M: GuestMemory>(memory: &M, address: u64, bytes: &[u8]) -> Result<(), LoadError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|error| failed(address, &error))
}

pub(crate) fn failed(address: u64, error: &GuestMemoryError) -> LoadError {
    LoadError::Memory { address, reason: error.to_string() }
}

/// Entry and memory of a kernel.
fn place_kernel(kernel: &Kernel, address: Option<u64>, usable: &Ram) -> Result<(u64, Range<u64>), LoadError> {
    let ram = usable.range();
    if let (Some(address), Kernel::Linux(_) | Kernel::Elf { .. }) = (address, kernel) {
        return Err(LoadError::HasAddress { address });
    }
    let (entry, taken) = match kernel {
        Kernel::Linux(image) => {
            let start = (ram.start + LINUX_ALIGN).saturating_add(image.text_offset);
            let taken = start..start.saturating_add(image.image_size);
            let good = usable.lowest(start, image.image_size, LINUX_ALIGN, image.text_offset % LINUX_ALIGN);
            let taken = good.unwrap_or(taken);
            (taken.start, taken)
        }
        Kernel::Flat(bytes) => {
            let start = address.unwrap_or(ram.start + FLAT_OFFSET);
            (start, start..start.saturating_add(bytes.len() as u64))
        }
        Kernel::Elf { entry, segments, .. } => {
            let start = segments.iter().map(|segment| segment.address).min().unwrap_or_default();
            let end = segments
                .iter()
                .map(|segment| segment.address.saturating_add(segment.size))
                .max()
                .unwrap_or_default();
            (*entry, start..end)
        }
    };
    if !ram.contains(&taken.start) {
        return Err(LoadError::OutsideRam { kernel: taken, ram });
    }
    if ram.end < taken.end {
        return Err(LoadError::Kernel { kernel: taken, ram });
    }
    if let Some(bad) = usable.bad_in(&taken) {
        return Err(LoadError::BadMemory { kernel: taken, bad });
    }
    if !taken.contains(&entry) {
        return Err(LoadError::Entry { entry, kernel: taken });
    }
    Ok((entry, taken))
}

/// Where QEMU's `virt` puts an initrd, and without one begins to look for the device tree's place.
fn behind_kernel(ram: &Range<u64>, kernel: &Range<u64>) -> u64 {
    (ram.start + (ram.end.saturating_sub(ram.start) / 2).min(KERNEL_ROOM))
        .max(kernel.end)
        .next_multiple_of(PAGE)
}

fn place_initrd(bytes: &[u8], kernel: &Range<u64>, ram: &Ram) -> Result<Range<u64>, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::EmptyInitrd);
    }
    let (start, size, ram_end) = (behind_kernel(&ram.range(), kernel), bytes.len() as u64, ram.range().end);
    ram.lowest(start, size, PAGE, 0).ok_or(LoadError::Initrd { size, start, ram_end })
}

/// The first place that is free: below an ELF, behind kernel and initramfs, or at the top of RAM.
fn place_fdt(
    size: u64,
    usable: &Ram,
    kernel: &Kernel,
    taken: &Range<u64>,
    initrd: Option<&Range<u64>>,
) -> Result<Range<u64>, LoadError> {
    if size > FDT_ALIGN {
        return Err(LoadError::FdtTooBig { size, limit: FDT_ALIGN });
    }
    let ram = usable.range();
    let below = matches!(kernel, Kernel::Elf { .. }).then_some(ram.start);
    let behind = initrd.map_or_else(|| behind_kernel(&ram, taken), |initrd| initrd.end);
    let behind = usable.lowest(behind, size, FDT_ALIGN, 0).map(|place| place.start);
    let top = usable.highest(size, PAGE).map(|place| place.start);
    let is_free = |place: &Range<u64>| {
        let overlaps = |other: &&Range<u64>| place.start < other.end && other.start < place.end;
        usable.has(place) && ![Some(taken), initrd].iter().flatten().any(overlaps)
    };
    let places = [below, behind, top].into_iter().flatten();
    let free = places.map(|start| start..start.saturating_add(size)).find(is_free);
    free.ok_or(LoadError::NoRoomForFdt { size, ram })
}

#[cfg(test)]
mod tests;
