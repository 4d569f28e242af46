//! An AArch64 ELF64: its PT_LOAD segments, at their physical addresses.

use object::LittleEndian;
use object::elf::{EM_AARCH64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use super::{Kernel, KernelError};

/// A part of an ELF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub address: u64,
    /// What the file has of it.
    pub bytes: Vec<u8>,
    /// Bytes of memory, at least as many as of the file; the rest is zero.
    pub size: u64,
}

pub(super) fn parse(file: &[u8]) -> Result<Kernel, KernelError> {
    let damaged = |error: object::Error| KernelError::DamagedElf(error.to_string());
    let (Some(&class), Some(&data), Some(machine)) = (file.get(4), file.get(5), file.get(18..20)) else {
        return Err(KernelError::DamagedElf(format!("{} bytes are no ELF header", file.len())));
    };
    let machine = machine.first_chunk().copied().map_or(0, u16::from_le_bytes);
    if (class, data, machine) != (2, 1, EM_AARCH64) {
        return Err(KernelError::WrongElf { class, data, machine });
    }
    let header = FileHeader64::<LittleEndian>::parse(file).map_err(damaged)?;
    let headers = header.program_headers(LittleEndian, file).map_err(damaged)?;
    let mut segments = Vec::new();
    for header in headers.iter().filter(|header| header.p_type(LittleEndian) == PT_LOAD) {
        let (address, size) = (header.p_paddr(LittleEndian), header.p_memsz(LittleEndian));
        if size == 0 {
            continue;
        }
        let bytes = header.data(LittleEndian, file).map_err(|()| {
            KernelError::DamagedElf(format!("the segment at {address:#x} is not wholly in the file"))
        })?;
        if bytes.len() as u64 > size || address.checked_add(size).is_none() {
            return Err(KernelError::DamagedElf(format!(
                "the segment at {address:#x} has {} bytes in the file and {size} in memory",
                bytes.len()
            )));
        }
        segments.push(Segment { address, bytes: bytes.to_vec(), size });
    }
    if segments.is_empty() {
        return Err(KernelError::NothingToLoad);
    }
    Ok(Kernel::Elf { entry: header.e_entry(LittleEndian), segments })
}
