//! What a kernel file is: an arm64 Linux `Image`, raw, gzipped, or as an EFI zboot image; an AArch64 ELF; or
//! a flat binary.

mod elf;
mod read;
mod unpack;

use thiserror::Error;

use crate::marks::{self, Use};

pub use elf::Segment;
pub(crate) use read::read;

/// A kernel, unpacked, and not yet in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// An arm64 Linux `Image`.
    Linux(LinuxImage),
    /// An AArch64 ELF.
    Elf {
        /// Guest physical address of its first instruction.
        entry: u64,
        /// The file, as far as its segments go.
        file: Vec<u8>,
        /// Its segments and their addresses; no two overlap in memory.
        segments: Vec<Segment>,
    },
    /// Bytes as they are, entered at the first.
    Flat(Vec<u8>),
}

/// An arm64 Linux `Image`.
///
/// Source: Linux, Documentation/arch/arm64/booting.rst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxImage {
    /// The file.
    pub bytes: Vec<u8>,
    /// Offset from a 2 MiB boundary.
    pub text_offset: u64,
    /// Bytes of memory that it takes, what follows the file in memory included.
    pub image_size: u64,
}

/// Why a file is no kernel for this machine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There is nothing in it.
    #[error("expected a kernel, got an empty file")]
    Empty,
    /// It is something else: what it is, and what to do.
    #[error("expected an arm64 kernel, got {0}")]
    Foreign(String),
    /// An arm64 Linux `Image` that ends early.
    #[error("expected a whole Image, got {got} bytes of at least {expected}")]
    Truncated {
        /// Bytes that there are.
        got: u64,
        /// Bytes that there must be.
        expected: u64,
    },
    /// It is packed in a way that is not known here.
    #[error(
        "expected a raw Image, gzip, or an EFI zboot image packed by gzip or zstd; got one packed by {0}"
    )]
    Compression(String),
    /// What is packed is damaged.
    #[error("the kernel cannot be unpacked by {by}: {source}")]
    Damaged {
        /// The compression.
        by: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// An EFI zboot image whose payload is not in the file.
    #[error(
        "expected a payload inside the {size} bytes of the EFI zboot image, its header says {start:#x}..{end:#x}"
    )]
    ZbootPayload {
        /// Bytes of the file.
        size: u64,
        /// Where the payload would begin.
        start: u64,
        /// Where it would end.
        end: u64,
    },
    /// It unpacks to more than the guest has memory.
    #[error(
        "expected a kernel of at most {limit} bytes, which is the guest's memory, the file unpacks to more; give the \
         guest more memory"
    )]
    TooBig {
        /// Bytes.
        limit: u64,
    },
    /// An ELF, but not one for this machine: what it is.
    #[error("expected a 64-bit little-endian ELF for AArch64, got {0}: give one that was built for arm64")]
    WrongElf(String),
    /// An ELF whose tables lead outside the file, or whose segments overlap or wrap.
    #[error("expected a whole ELF file, got a damaged one: {0}")]
    DamagedElf(String),
    /// An ELF that loads nothing.
    #[error(
        "expected an ELF with at least one PT_LOAD segment, got none (an object file that is not linked?)"
    )]
    NothingToLoad,
}

impl Kernel {
    /// Looks at a file and unpacks it, for a guest with `memory` bytes of RAM: to no more than that. What has no known
    /// mark is a flat binary, as for QEMU.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn parse(file: Vec<u8>, memory: u64) -> Result<Self, KernelError> {
        let bytes = unpack::unpack(file, memory)?;
        if bytes.is_empty() {
            return Err(KernelError::Empty);
        }
        if bytes.starts_with(b"\x7fELF") {
            return elf::parse(bytes);
        }
        if bytes.get(56..60) == Some(b"ARM\x64") {
            return LinuxImage::parse(bytes).map(Self::Linux);
        }
        match marks::mistaken(&bytes, Use::Kernel) {
            Some(what) => Err(KernelError::Foreign(what)),
            None => Ok(Self::Flat(bytes)),
        }
    }
}

impl Kernel {
    /// Bytes of the pages that it will use, as far as its file says: else 4096.
    pub fn page(&self) -> u64 {
        match self {
            Self::Linux(image) => image.page(),
            Self::Elf { .. } | Self::Flat(_) => 0x1000,
        }
    }
}

impl LinuxImage {
    /// Bits `[2:1]` of the header's flags: 0 says nothing, 1 is 4 KiB, 2 16 KiB, 3 64 KiB.
    fn page(&self) -> u64 {
        match self.bytes.get(24).map_or(0, |flags| flags >> 1 & 3) {
            2 => 0x4000,
            3 => 0x1_0000,
            _ => 0x1000,
        }
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, KernelError> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let (Some(text_offset), Some(image_size)) = (word(8), word(16)) else {
            return Err(KernelError::Truncated { got: bytes.len() as u64, expected: 64 });
        };
        let expected = pe_end(&bytes).unwrap_or(64);
        let got = bytes.len() as u64;
        if got < expected {
            return Err(KernelError::Truncated { got, expected });
        }
        // Before Linux 3.17 the header did not tell its size, and the offset was always 512 KiB.
        let (text_offset, image_size) =
            if image_size == 0 { (0x8_0000, got) } else { (text_offset, image_size) };
        Ok(Self { bytes, text_offset, image_size: image_size.max(got) })
    }
}

/// Where the file of an `Image` that is an EFI program too must end, by its section table.
///
/// Source: PE format; the sections' `PointerToRawData` and `SizeOfRawData`.
fn pe_end(bytes: &[u8]) -> Option<u64> {
    let u16_at = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes);
    let u32_at = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    if !bytes.starts_with(b"MZ") {
        return None;
    }
    let pe = u32_at(60)? as usize;
    if bytes.get(pe..)?.get(..4)? != b"PE\0\0" {
        return None;
    }
    let (sections, optional) = (u16_at(pe + 6)?, u16_at(pe + 20)?);
    let table = pe + 24 + usize::from(optional);
    let ends = (0..usize::from(sections)).filter_map(|n| {
        let section = table + n * 40;
        Some(u64::from(u32_at(section + 20)?) + u64::from(u32_at(section + 16)?))
    });
    ends.max()
}

#[cfg(test)]
mod tests;
