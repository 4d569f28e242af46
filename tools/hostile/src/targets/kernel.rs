//! Kernel files of every kind, with random changes: each is refused, or is a kernel that loads or gives the
//! reason why it does not. Nothing is unpacked from a file that is bigger than the guest's memory.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::load::{LoadError, load};
use seawall_vmm::ram::Ram;
use seawall_vmm::{Guest, layout};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Size of the guest's RAM in bytes.
const MEMORY: u64 = 8 << 20;
/// The limit for files that are only unpacked: a fuzzer is slow at that.
const LITTLE: usize = 1 << 18;

/// See the module.
pub(super) fn body(data: &[u8]) {
    let Some((kind, changes)) = data.split_first() else { return };
    let (mut file, is_packed) = match kind % 8 {
        0 => (image(), false),
        1 => (gzip(&changed(image(), changes)), true),
        2 => (zboot(&gzip(&image())), false),
        3 => (elf(1), false),
        4 => (elf(40), false),
        5 => return unpacks_to_too_much(*kind),
        6 => (tree(), false),
        _ => (changes.to_vec(), false),
    };
    if !is_packed {
        file = changed(file, changes);
    }
    check(file);
}

fn unpacks_to_too_much(kind: u8) {
    let file = gzip(&vec![kind >> 4; LITTLE + 1 + usize::from(kind)]);
    assert!(Kernel::parse(file, LITTLE as u64).is_err());
}

fn check(file: Vec<u8>) {
    let size = file.len();
    let kernel = match Kernel::parse(file, MEMORY) {
        Ok(kernel) => kernel,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    match &kernel {
        Kernel::Linux(image) => assert!(image.bytes.len() <= size.max(MEMORY as usize)),
        Kernel::Flat(bytes) => assert!(bytes.len() <= size.max(MEMORY as usize)),
        Kernel::Elf { file, segments, .. } => {
            assert!(segments.iter().all(|segment| segment.in_file.end <= file.len()));
            assert!(segments.windows(2).all(|two| two[0].address + two[0].size <= two[1].address));
        }
    }
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(layout::RAM), MEMORY as usize)]).expect("8 MiB");
    let ram = Ram::new(layout::RAM..layout::RAM + MEMORY);
    let guest = Guest { kernel, address: None, initrd: Some(vec![1; 100]), command_line: String::new() };
    match load(&memory, &ram, &guest, |_| Ok::<_, LoadError>(vec![0xfd; 0x600])) {
        Ok(placement) => {
            assert!(placement.kernel.contains(&placement.entry));
            assert!(placement.kernel.start >= layout::RAM && placement.kernel.end <= layout::RAM + MEMORY);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Applies three bytes each: a place, and the new bytes. An odd place cuts off the rest.
fn changed(mut file: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3).take(16) {
        let at = usize::from(change[0]) << 4 | usize::from(change[1] >> 4);
        let length = file.len();
        if change[1] & 15 == 15 {
            file.truncate(at);
        } else if let Some(byte) = file.get_mut(at % length.max(1)) {
            *byte = change[2];
        }
    }
    file
}

/// Linux, booting.rst.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    bytes[..4].copy_from_slice(b"MZ\0\x14");
    bytes[16..24].copy_from_slice(&0x1_0000_u64.to_le_bytes());
    bytes[56..64].copy_from_slice(b"ARM\x64\x40\0\0\0");
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x46] = 1;
    bytes[0x68..0x70].copy_from_slice(b"\0\x04\0\0\0\x04\0\0");
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory has room");
    encoder.finish().expect("memory has room")
}

/// Linux, zboot-header.S.
fn zboot(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..8].copy_from_slice(b"MZ\0\0zimg");
    bytes[8..12].copy_from_slice(&64_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[24..28].copy_from_slice(b"gzip");
    bytes.extend_from_slice(payload);
    bytes
}

/// An ELF64 with this many segments of 16 bytes, which are the same bytes of the file.
fn elf(segments: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([2_u16, 183].map(u16::to_le_bytes).concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([layout::RAM, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, segments, 0, 0, 0].map(u16::to_le_bytes).concat());
    for n in 0..u64::from(segments) {
        bytes.extend([1_u32, 5].map(u32::to_le_bytes).concat());
        let place = 64 + 56 * u64::from(segments);
        bytes.extend([place, 0, layout::RAM + 0x100 * n, 16, 32, 8].map(u64::to_le_bytes).concat());
    }
    bytes.extend([0x11; 16]);
    bytes
}

/// A device tree with a node `images`.
fn tree() -> Vec<u8> {
    let mut bytes = vec![0; 0x80];
    bytes[..4].copy_from_slice(b"\xd0\x0d\xfe\xed");
    bytes[0x40..0x4c].copy_from_slice(b"\0\0\0\x01images\0\0");
    bytes
}
