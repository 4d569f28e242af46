//! An AArch64 ELF64: its PT_LOAD segments, at their physical addresses.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{EM_AARCH64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use super::{Kernel, KernelError};

/// A part of an ELF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub address: u64,
    /// What the file has of it: where it is in the file, bytes. Segments may share bytes.
    pub in_file: Range<usize>,
    /// Bytes of memory, at least as many as of the file; the rest is zero.
    pub size: u64,
}

/// Names of other machines, by ELF's `e_machine`.
const MACHINES: [(u16, &str); 10] = [
    (3, "x86"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "64-bit PowerPC"),
    (22, "S/390"),
    (40, "32-bit Arm"),
    (62, "x86-64"),
    (EM_AARCH64, "AArch64"),
    (243, "RISC-V"),
    (258, "LoongArch"),
];

pub(super) fn parse(file: Vec<u8>) -> Result<Kernel, KernelError> {
    let (entry, segments) = segments(&file)?;
    Ok(Kernel::Elf { entry, file, segments })
}

fn segments(file: &[u8]) -> Result<(u64, Vec<Segment>), KernelError> {
    let damaged = |error: object::Error| KernelError::DamagedElf(error.to_string());
    check_kind(file)?;
    let header = FileHeader64::<LittleEndian>::parse(file).map_err(damaged)?;
    let headers = header.program_headers(LittleEndian, file).map_err(damaged)?;
    let mut segments = Vec::new();
    for header in headers.iter().filter(|header| header.p_type(LittleEndian) == PT_LOAD) {
        let (address, size) = (header.p_paddr(LittleEndian), header.p_memsz(LittleEndian));
        if size == 0 {
            continue;
        }
        let (start, in_file) = header.file_range(LittleEndian);
        let place = start.checked_add(in_file).filter(|end| *end <= file.len() as u64);
        let place = place.map(|end| start as usize..end as usize).ok_or_else(|| {
            KernelError::DamagedElf(format!("the segment at {address:#x} is not wholly in the file"))
        })?;
        if in_file > size || address.checked_add(size).is_none() {
            return Err(KernelError::DamagedElf(format!(
                "the segment at {address:#x} has {in_file} bytes in the file and {size} in memory"
            )));
        }
        segments.push(Segment { address, in_file: place, size });
    }
    if segments.is_empty() {
        return Err(KernelError::NothingToLoad);
    }
    segments.sort_unstable_by_key(|segment| segment.address);
    let overlap = segments.windows(2).find_map(|pair| match pair {
        [one, next] if next.address - one.address < one.size => Some((one.address, next.address)),
        _ => None,
    });
    match overlap {
        Some((one, next)) => {
            Err(KernelError::DamagedElf(format!("the segments at {one:#x} and {next:#x} overlap")))
        }
        None => Ok((header.e_entry(LittleEndian), segments)),
    }
}

/// Whether it is for this machine.
fn check_kind(file: &[u8]) -> Result<(), KernelError> {
    let (Some(&class), Some(&data), Some(machine)) = (file.get(4), file.get(5), file.get(18..20)) else {
        return Err(KernelError::DamagedElf(format!("{} bytes are no ELF header", file.len())));
    };
    let machine = machine.first_chunk().copied().unwrap_or_default();
    let machine = if data == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    if (class, data, machine) == (2, 1, EM_AARCH64) {
        return Ok(());
    }
    let class = match class {
        1 => "a 32-bit".to_owned(),
        2 => "a 64-bit".to_owned(),
        other => format!("a (class {other})"),
    };
    let data = match data {
        1 => "little-endian".to_owned(),
        2 => "big-endian".to_owned(),
        other => format!("(data {other})"),
    };
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    let machine = known.map_or_else(|| format!("machine {machine}"), |(_, name)| (*name).to_owned());
    Err(KernelError::WrongElf(format!("{class} {data} one for {machine}")))
}
