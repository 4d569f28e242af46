//! What files are, and what is said of those that are nothing.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// An `Image` of `size` bytes of which the header says that they take `image_size` in memory.
fn image(size: usize, image_size: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; size];
    bytes[..16].fill(0);
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Linux, zboot-header.S.
fn zboot(compression: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    bytes[..8].copy_from_slice(b"MZ\0\0zimg");
    bytes[8..12].copy_from_slice(&0x1000_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[24..24 + compression.len()].copy_from_slice(compression);
    bytes.extend(payload);
    bytes
}

fn refusal(file: &[u8]) -> String {
    Kernel::parse(file.to_vec()).expect_err("no kernel").to_string()
}

#[test]
fn an_image_is_the_same_raw_gzipped_and_in_a_zboot_image() {
    let raw = image(0x1000, 0x8000);
    let expected = Kernel::Linux(LinuxImage { bytes: raw.clone(), text_offset: 0, image_size: 0x8000 });
    let files = [raw.clone(), gzip(&raw), zboot(b"gzip", &gzip(&raw)), zboot(b"zstd22", ZSTD_IMAGE)];
    for (n, file) in files.into_iter().enumerate() {
        match (n, Kernel::parse(file).expect("a kernel")) {
            // Made by zstd(1): 64 zero bytes with the magic at 56.
            (3, Kernel::Linux(image)) => assert_eq!((image.bytes.len(), image.image_size), (64, 64)),
            (_, kernel) => assert_eq!(kernel, expected, "file {n}"),
        }
    }
}

/// `head -c 56 /dev/zero | (cat; printf 'ARM\x64\0\0\0\0') | zstd --no-check`, its frame with one raw block.
const ZSTD_IMAGE: &[u8] = &{
    let mut frame = [0; 6 + 3 + 64];
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 64, 0x01, 0x02, 0x00];
    let mut n = 0;
    while n < head.len() {
        frame[n] = head[n];
        n += 1;
    }
    let magic = *b"ARM\x64";
    n = 0;
    while n < 4 {
        frame[9 + 56 + n] = magic[n];
        n += 1;
    }
    frame
};

/// Linux, booting.rst: before 3.17 `image_size` is 0, and the offset is 512 KiB whatever the header says.
#[test]
fn an_image_from_before_it_told_its_size_lies_at_512_kib() {
    match Kernel::parse(image(0x1000, 0)).expect("a kernel") {
        Kernel::Linux(image) => assert_eq!((image.text_offset, image.image_size), (0x8_0000, 0x1000)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_that_ends_before_its_last_section_is_refused() {
    let mut bytes = image(0x1000, 0x8000);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60..64].copy_from_slice(&0x40_u32.to_le_bytes());
    bytes[0x40..0x58].fill(0);
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x46..0x48].copy_from_slice(&1_u16.to_le_bytes());
    // One section behind an optional header of none: raw data 0x800..0x2000.
    bytes[0x58..0x80].fill(0);
    bytes[0x68..0x6c].copy_from_slice(&0x1800_u32.to_le_bytes());
    bytes[0x6c..0x70].copy_from_slice(&0x800_u32.to_le_bytes());
    assert_eq!(refusal(&bytes), "expected a whole Image, got 4096 bytes of at least 8192");
    bytes.resize(0x2000, 0);
    assert!(matches!(Kernel::parse(bytes), Ok(Kernel::Linux(_))));
}

#[test]
fn what_is_nothing_known_is_a_flat_binary() {
    let nop = 0xd503_201f_u32.to_le_bytes().to_vec();
    assert_eq!(Kernel::parse(nop.clone()).expect("flat"), Kernel::Flat(nop));
}

#[test]
fn kernels_of_other_machines_are_named() {
    let marked = |at: usize, mark: &[u8]| {
        let mut bytes = vec![0; 0x400];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        bytes
    };
    for (file, expected) in [
        (marked(0x202, b"HdrS"), "expected an arm64 kernel, got an x86 bzImage"),
        (marked(0x30, b"RISCV\0\0\0"), "expected an arm64 kernel, got a RISC-V Image"),
        (marked(0, b"MZ"), "expected an arm64 kernel, got an EFI program that is no arm64 Image"),
        (Vec::new(), "expected a kernel, got an empty file"),
    ] {
        assert_eq!(refusal(&file), expected);
    }
}

#[test]
fn a_packing_that_is_not_known_here_is_named() {
    let expected =
        "expected a raw Image, gzip, or an EFI zboot image packed by gzip or zstd; got one packed by ";
    assert_eq!(refusal(b"\xfd7zXZ\0\0\0"), format!("{expected}xz"));
    assert_eq!(refusal(&zboot(b"lzma", b"")), format!("{expected}lzma"));
}

#[test]
fn a_damaged_pack_is_refused() {
    let whole = gzip(&image(0x1000, 0x8000));
    let cut = refusal(&whole[..whole.len() / 2]);
    assert!(cut.starts_with("the kernel cannot be unpacked by gzip: "), "{cut}");
    let mut short = zboot(b"gzip", &whole);
    short.truncate(0x1010);
    let end = 0x1000 + whole.len();
    assert_eq!(
        refusal(&short),
        format!(
            "expected a payload inside the 4112 bytes of the EFI zboot image, its header says 0x1000..{end:#x}"
        )
    );
    assert!(refusal(b"MZ\0\0zimg").starts_with("expected a whole Image, got 8 bytes"));
}

/// An ELF64 header and one program header: PT_LOAD of `in_file` bytes at 0x78, `in_memory` at `address`.
fn elf(machine: u16, address: u64, in_file: u64, in_memory: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([address, 0x40, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    bytes.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    bytes.extend([0x78, 0, address, in_file, in_memory, 8].map(u64::to_le_bytes).concat());
    bytes.extend([0x11; 8]);
    bytes
}

#[test]
fn an_elf_is_its_segments_at_their_physical_addresses() {
    let expected = Kernel::Elf {
        entry: 0x4010_0000,
        segments: vec![Segment { address: 0x4010_0000, bytes: vec![0x11; 8], size: 16 }],
    };
    assert_eq!(Kernel::parse(elf(183, 0x4010_0000, 8, 16)).expect("an ELF"), expected);
}

#[test]
fn an_elf_that_cannot_be_loaded_is_refused() {
    assert!(refusal(&elf(62, 0x4010_0000, 8, 16)).ends_with("got class 2, data 1, machine 62"));
    let damaged = "expected a whole ELF file, got a damaged one: the segment at 0x40100000 ";
    assert_eq!(refusal(&elf(183, 0x4010_0000, 9, 16)), format!("{damaged}is not wholly in the file"));
    assert_eq!(
        refusal(&elf(183, 0x4010_0000, 8, 4)),
        format!("{damaged}has 8 bytes in the file and 4 in memory")
    );
    assert!(refusal(&elf(183, u64::MAX - 3, 8, 16)).contains("damaged"));
    assert!(refusal(&elf(183, 0x4010_0000, 0, 0)).starts_with("expected an ELF with at least one PT_LOAD"));
    assert!(refusal(b"\x7fELF").contains("4 bytes are no ELF header"));
}
