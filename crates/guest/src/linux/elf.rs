//! The ELF file around a program: System V ABI, "Object Files" and "Program Loading", and "ELF for the Arm
//! 64-bit Architecture" (IHI 0056).

use super::{MAX_PAGE, TEXT};

/// Size in bytes of the ELF header and of one program header.
pub(super) const HEADERS: u64 = 64 + 56;
/// The address of the file's start: the start of a page for every page size.
const BASE: u64 = 0x40_0000;

/// A static executable. `text` begins at its entry; with the headers it has [`TEXT`] bytes, which are mapped
/// readable and executable. `rest` is at [`MAX_PAGE`] in the file, in a page of its own on any kernel, and
/// not mapped.
pub(super) fn executable(text: &[u8], rest: &[u8]) -> Vec<u8> {
    // 64 bits, little-endian, version 1.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // EXEC, AArch64, version 1.
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    // Entry, offset of the program headers, no section headers.
    file.extend(words([BASE + HEADERS, 64, 0]));
    // No flags; sizes of the header, of a program header, their number; no sections.
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // LOAD, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    // Offset, virtual and physical address, size in the file and in memory, alignment.
    file.extend(words([0, BASE, BASE, TEXT, TEXT, MAX_PAGE]));
    file.extend(text);
    if !rest.is_empty() {
        file.resize(MAX_PAGE as usize, 0);
        file.extend(rest);
    }
    file
}

fn words<const N: usize>(words: [u64; N]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u64::to_le_bytes)
}
