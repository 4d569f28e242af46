//! Puts a guest image into RAM: a flat binary, an arm64 Linux `Image`, or an AArch64 ELF.
//!
//! Where things go is what `qemu-system-aarch64 -M virt -kernel FILE` does (found out on 7.2):
//!
//! - a flat binary lies 512 KiB above the base of RAM, at 0x4008_0000, and is entered at its first byte;
//! - a Linux `Image` ("ARM\x64" at byte 56) lies at the offset that its header names, at least 2 MiB up;
//! - an ELF lies where its PT_LOAD segments' physical addresses say, and is entered at `e_entry`.
//!
//! All is checked before the first byte is written: after an error RAM is as it was.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{EM_AARCH64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::memory::{Memory, MemoryError};

/// Where a flat image goes, bytes above the base of RAM.
pub const FLAT_OFFSET: u64 = 0x8_0000;
/// Where a Linux `Image` goes at the lowest: its header's text offset below 4 KiB is moved up by
/// this.
const LINUX_SHIFT: u64 = 0x20_0000;

/// What kind of image it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Bytes as they are.
    Flat,
    /// An arm64 Linux `Image` (Linux, Documentation/arch/arm64/booting.rst).
    Linux,
    /// An AArch64 ELF64.
    Elf,
}

/// An image that lies in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it was.
    pub kind: ImageKind,
    /// Physical address of the first instruction.
    pub entry: u64,
    /// Physical addresses it takes, zeroed parts and, with several segments, the gaps between them
    /// included.
    pub range: Range<u64>,
}

/// Why an image cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is nothing in it.
    #[error("expected a guest image, got an empty file")]
    Empty,
    /// The image, or a segment of it, is not wholly in RAM.
    #[error("the image does not fit: {0}")]
    DoesNotFit(#[from] MemoryError),
    /// An ELF, but not one for this machine.
    #[error(
        "expected a 64-bit little-endian AArch64 ELF (class 2, data 1, machine 183), got class {class}, data {data}, machine {machine}"
    )]
    WrongElf {
        /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
        class: u8,
        /// `EI_DATA`: 1 is little-endian, 2 is big-endian.
        data: u8,
        /// `e_machine`: 183 is AArch64; 40 is 32-bit Arm, 62 is x86-64.
        machine: u16,
    },
    /// An ELF whose tables lead outside the file.
    #[error("expected a whole ELF file, got a damaged one: {0}")]
    DamagedElf(String),
    /// An ELF that loads nothing: an object file, for example.
    #[error(
        "expected an ELF with at least one PT_LOAD segment, got none (an object file that is not linked?)"
    )]
    NothingToLoad,
    /// The entry point is not in RAM.
    #[error("expected an entry point inside the image {start:#x}..{end:#x}, got {entry:#x}")]
    Entry {
        /// The entry point.
        entry: u64,
        /// First address of the image.
        start: u64,
        /// Address after the last one of the image.
        end: u64,
    },
    /// A load address was asked for, but the image has its own.
    #[error("expected a flat image for load address {address:#x}, got an ELF, which names its own addresses")]
    ElfHasAddresses {
        /// The address asked for.
        address: u64,
    },
}

/// Loads `image`, whatever it is. `address` (physical) is where a flat image goes instead of its
/// usual place.
///
/// # Errors
/// [`LoadError`]; RAM is as it was then.
pub fn load(memory: &mut Memory, image: &[u8], address: Option<u64>) -> Result<Loaded, LoadError> {
    match (image.starts_with(b"\x7fELF"), address) {
        (true, Some(address)) => Err(LoadError::ElfHasAddresses { address }),
        (true, None) => load_elf(memory, image),
        (false, Some(address)) => load_flat(memory, image, address),
        (false, None) => match LinuxHeader::parse(image) {
            Some(header) => load_linux(memory, image, &header),
            None => load_flat(memory, image, memory.base() + FLAT_OFFSET),
        },
    }
}

/// Loads `image` byte by byte at physical address `address`, and enters it there.
///
/// # Errors
/// [`LoadError::Empty`] and [`LoadError::DoesNotFit`].
pub fn load_flat(memory: &mut Memory, image: &[u8], address: u64) -> Result<Loaded, LoadError> {
    if image.is_empty() {
        return Err(LoadError::Empty);
    }
    memory.store(address, image)?;
    Ok(Loaded { kind: ImageKind::Flat, entry: address, range: address..address + image.len() as u64 })
}

/// The two fields of an `Image` header that say where it goes.
struct LinuxHeader {
    text_offset: u64,
    image_size: u64,
}

impl LinuxHeader {
    /// `None` if `image` is no `Image`, or one from before Linux 3.17, which does not tell its
    /// size.
    fn parse(image: &[u8]) -> Option<Self> {
        let word = |at: usize| image.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let header = Self { text_offset: word(8)?, image_size: word(16)? };
        (image.get(56..60)? == b"ARM\x64" && header.image_size != 0).then_some(header)
    }
}

fn load_linux(memory: &mut Memory, image: &[u8], header: &LinuxHeader) -> Result<Loaded, LoadError> {
    let shift = if header.text_offset < 0x1000 { LINUX_SHIFT } else { 0 };
    let address = memory.base().saturating_add(header.text_offset).saturating_add(shift);
    let size = header.image_size.max(image.len() as u64);
    memory.require(address, size)?;
    memory.store(address, image)?;
    Ok(Loaded { kind: ImageKind::Linux, entry: address, range: address..address + size })
}

/// Loads the PT_LOAD segments of an AArch64 ELF64 at their physical addresses, and zeroes what they
/// have beyond the file.
///
/// # Errors
/// [`LoadError`]; RAM is as it was then.
pub fn load_elf(memory: &mut Memory, image: &[u8]) -> Result<Loaded, LoadError> {
    if image.is_empty() {
        return Err(LoadError::Empty);
    }
    let identity = |at: usize| image.get(at).copied().unwrap_or(0);
    let (class, data) = (identity(4), identity(5));
    let machine = u16::from_le_bytes([identity(18), identity(19)]);
    let machine = if data == 2 { machine.swap_bytes() } else { machine };
    if (class, data, machine) != (2, 1, EM_AARCH64) {
        return Err(LoadError::WrongElf { class, data, machine });
    }

    let damaged = |error: object::Error| LoadError::DamagedElf(error.to_string());
    let header = FileHeader64::<LittleEndian>::parse(image).map_err(damaged)?;
    let mut segments = Vec::new();
    for program in header.program_headers(LittleEndian, image).map_err(damaged)? {
        let size = program.p_memsz(LittleEndian);
        if program.p_type(LittleEndian) != PT_LOAD || size == 0 {
            continue;
        }
        let bytes = program
            .data(LittleEndian, image)
            .map_err(|()| LoadError::DamagedElf("a segment lies outside the file".to_owned()))?;
        if bytes.len() as u64 > size {
            return Err(LoadError::DamagedElf(
                "a segment has more bytes in the file than in memory".to_owned(),
            ));
        }
        let address = program.p_paddr(LittleEndian);
        memory.require(address, size)?;
        segments.push((address, bytes, size));
    }
    let start = segments.iter().map(|(address, ..)| *address).min().ok_or(LoadError::NothingToLoad)?;
    let end =
        segments.iter().map(|(address, _, size)| address + size).max().ok_or(LoadError::NothingToLoad)?;
    let entry = header.e_entry.get(LittleEndian);
    if !(start..end).contains(&entry) {
        return Err(LoadError::Entry { entry, start, end });
    }
    for (address, bytes, size) in segments {
        memory.store(address, bytes)?;
        memory.zero(address + bytes.len() as u64, size - bytes.len() as u64)?;
    }
    Ok(Loaded { kind: ImageKind::Elf, entry, range: start..end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;

    fn memory() -> Memory {
        let mut memory = Memory::new(BASE, 0x100_0000).expect("16 MiB");
        memory.store(BASE, &vec![0xee; 0x100_0000]).expect("in RAM");
        memory
    }

    fn bytes(memory: &Memory, pa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.load(pa, &mut bytes).expect("in RAM");
        bytes
    }

    /// An ELF64 header for AArch64 with `segments` of (p_paddr, p_memsz, bytes in the file).
    fn elf(entry: u64, segments: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
        for word in [entry, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, segments.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
        let mut offset = 64 + 56 * segments.len() as u64;
        for (address, size, bytes) in segments {
            file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
            for word in [offset, 0xffff_0000_0000_0000 | address, *address, bytes.len() as u64, *size, 0x1000]
            {
                file.extend(word.to_le_bytes());
            }
            offset += bytes.len() as u64;
        }
        for (_, _, bytes) in segments {
            file.extend(*bytes);
        }
        file
    }

    #[track_caller]
    fn refused(image: &[u8], address: Option<u64>, message: &str) {
        let mut memory = memory();
        let error = load(&mut memory, image, address).expect_err("refused");
        assert_eq!(error.to_string(), message);
        assert!(memory.ram().iter().all(|byte| *byte == 0xee), "RAM is as it was");
    }

    #[test]
    fn a_flat_image_goes_512_kib_up_or_where_it_is_told() {
        let mut memory = memory();
        let loaded = load(&mut memory, b"code", None).expect("loads");
        let expected = Loaded { kind: ImageKind::Flat, entry: 0x4008_0000, range: 0x4008_0000..0x4008_0004 };
        assert_eq!(loaded, expected);
        assert_eq!(bytes(&memory, 0x4008_0000, 5), b"code\xee");
        let loaded = load(&mut memory, b"code", Some(0x4050_0000)).expect("loads");
        assert_eq!(loaded.entry, 0x4050_0000);
        assert_eq!(bytes(&memory, 0x4050_0000, 4), b"code");
    }

    #[test]
    fn a_linux_image_goes_where_its_header_says_and_takes_the_size_it_says() {
        let mut image = vec![0; 64];
        image[16..24].copy_from_slice(&0x12_3000_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        let loaded = load(&mut memory(), &image, None).expect("loads");
        let expected = Loaded { kind: ImageKind::Linux, entry: 0x4020_0000, range: 0x4020_0000..0x4032_3000 };
        assert_eq!(loaded, expected);
        image[8..16].copy_from_slice(&0x8_0000_u64.to_le_bytes());
        assert_eq!(load(&mut memory(), &image, None).expect("loads").entry, 0x4008_0000);
        image[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        refused(
            &image,
            None,
            "the image does not fit: expected a range inside RAM 0x40000000..0x41000000, got 0xffffffffffffffff..0xffffffffffffffff",
        );
    }

    #[test]
    fn a_linux_image_that_tells_no_size_is_flat_and_one_longer_than_it_tells_counts_whole() {
        let mut image = vec![0; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        assert_eq!(load(&mut memory(), &image, None).expect("loads").kind, ImageKind::Flat);
        image[16] = 1;
        assert_eq!(load(&mut memory(), &image, None).expect("loads").range, 0x4020_0000..0x4020_0040);
        image[20] = 1;
        refused(
            &image,
            None,
            "the image does not fit: expected a range inside RAM 0x40000000..0x41000000, got 0x40200000..0x140200001",
        );
    }

    #[test]
    fn a_segment_of_no_bytes_is_left_out() {
        let image = elf(BASE, &[(0, 0, b""), (BASE, 4, b"code")]);
        assert_eq!(load(&mut memory(), &image, None).expect("loads").range, BASE..BASE + 4);
    }

    #[test]
    fn elf_segments_go_to_their_physical_addresses_and_the_rest_is_zeroed() {
        let mut memory = memory();
        let image = elf(0x4000_1004, &[(0x4000_1000, 8, b"textcode"), (0x4020_0000, 16, b"data")]);
        let loaded = load(&mut memory, &image, None).expect("loads");
        let expected = Loaded { kind: ImageKind::Elf, entry: 0x4000_1004, range: 0x4000_1000..0x4020_0010 };
        assert_eq!(loaded, expected);
        assert_eq!(bytes(&memory, 0x4000_1000, 9), b"textcode\xee");
        assert_eq!(bytes(&memory, 0x4020_0000, 17), b"data\0\0\0\0\0\0\0\0\0\0\0\0\xee");
    }

    #[test]
    fn an_image_that_cannot_be_loaded_says_what_was_expected_and_what_came() {
        refused(b"", None, "expected a guest image, got an empty file");
        refused(b"", Some(BASE), "expected a guest image, got an empty file");
        refused(
            &vec![0; 0x100_0000],
            None,
            "the image does not fit: expected a range inside RAM 0x40000000..0x41000000, got 0x40080000..0x41080000",
        );
        refused(
            b"code",
            Some(0x40ff_fffd),
            "the image does not fit: expected a range inside RAM 0x40000000..0x41000000, got 0x40fffffd..0x41000001",
        );
        let two = elf(BASE, &[(BASE, 4, b"code"), (0x3fff_ffff, 2, b"x")]);
        refused(
            &two,
            None,
            "the image does not fit: expected a range inside RAM 0x40000000..0x41000000, got 0x3fffffff..0x40000001",
        );
        refused(
            &elf(BASE, &[(BASE, u64::MAX, b"code")]),
            None,
            "the image does not fit: expected a range inside RAM 0x40000000..0x41000000, got 0x40000000..0xffffffffffffffff",
        );
        refused(
            &elf(BASE + 4, &[(BASE, 4, b"code")]),
            None,
            "expected an entry point inside the image 0x40000000..0x40000004, got 0x40000004",
        );
        refused(
            &elf(BASE, &[(BASE, 4, b"code")]),
            Some(BASE),
            "expected a flat image for load address 0x40000000, got an ELF, which names its own addresses",
        );
    }

    #[test]
    fn an_elf_that_is_not_for_this_machine_says_what_it_is() {
        let good = elf(BASE, &[(BASE, 4, b"code")]);
        let with = |at: usize, value: u8| {
            let mut image = good.clone();
            image[at] = value;
            image
        };
        let wrong = |class, data, machine| {
            format!(
                "expected a 64-bit little-endian AArch64 ELF (class 2, data 1, machine 183), got class {class}, data {data}, machine {machine}"
            )
        };
        refused(&with(4, 1), None, &wrong(1, 1, 183));
        refused(&with(5, 2), None, &wrong(2, 2, 46848));
        refused(&with(18, 62), None, &wrong(2, 1, 62));
        refused(b"\x7fELF", None, &wrong(0, 0, 0));
        refused(
            &elf(BASE, &[]),
            None,
            "expected an ELF with at least one PT_LOAD segment, got none (an object file that is not linked?)",
        );
    }

    #[test]
    fn a_damaged_elf_is_refused_wherever_it_is_cut_or_changed() {
        let good = elf(BASE, &[(BASE, 4, b"code")]);
        for len in 4..good.len() {
            assert!(load(&mut memory(), &good[..len], None).is_err(), "cut to {len}");
        }
        refused(
            &good[..100],
            None,
            "expected a whole ELF file, got a damaged one: Invalid ELF program header size or alignment",
        );
        let mut longer_in_file = good.clone();
        longer_in_file[64 + 40] = 3;
        refused(
            &longer_in_file,
            None,
            "expected a whole ELF file, got a damaged one: a segment has more bytes in the file than in memory",
        );
    }
}
