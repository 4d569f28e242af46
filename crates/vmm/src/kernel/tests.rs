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

/// Bytes of the guest's RAM.
const MEMORY: u64 = 1 << 20;

fn parse(file: Vec<u8>) -> Result<Kernel, KernelError> {
    Kernel::parse(file, MEMORY)
}

fn refusal(file: &[u8]) -> String {
    parse(file.to_vec()).expect_err("no kernel").to_string()
}

#[test]
fn an_image_is_the_same_raw_gzipped_and_in_a_zboot_image() {
    let raw = image(0x1000, 0x8000);
    let expected = Kernel::Linux(LinuxImage { bytes: raw.clone(), text_offset: 0, image_size: 0x8000 });
    let files = [raw.clone(), gzip(&raw), zboot(b"gzip", &gzip(&raw)), zboot(b"zstd22", ZSTD_IMAGE)];
    for (n, file) in files.into_iter().enumerate() {
        match (n, parse(file).expect("a kernel")) {
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
    match parse(image(0x1000, 0)).expect("a kernel") {
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
    assert!(matches!(parse(bytes), Ok(Kernel::Linux(_))));
}

#[test]
fn what_is_nothing_known_is_a_flat_binary() {
    let nop = 0xd503_201f_u32.to_le_bytes().to_vec();
    assert_eq!(parse(nop.clone()).expect("flat"), Kernel::Flat(nop));
}

/// Each of them by its mark: `marks::tests`.
#[test]
fn what_is_known_and_no_kernel_is_named() {
    let mut bzimage = vec![0; 0x400];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    for (file, expected) in [
        (&bzimage[..], "expected an arm64 kernel, got an x86 bzImage: give one that was built for arm64"),
        (
            b"#!/bin/sh\nexec qemu-system-aarch64\n",
            "expected an arm64 kernel, got text: give an arm64 Image, an AArch64 ELF or a flat binary",
        ),
        (b"", "expected a kernel, got an empty file"),
    ] {
        assert_eq!(refusal(file), expected);
        if !file.is_empty() {
            assert_eq!(refusal(&gzip(file)), expected, "packed");
        }
    }
}

#[test]
fn no_kernel_unpacks_to_more_than_the_guest_has_memory() {
    let expected = "expected a kernel of at most 1048576 bytes, which is the guest's memory, the file unpacks to more; \
                    give the guest more memory";
    let bomb = gzip(&vec![0; MEMORY as usize + 1]);
    assert!(bomb.len() < 0x2000);
    for file in [bomb.clone(), zboot(b"gzip", &bomb), zboot(b"zstd", ZSTD_BOMB)] {
        assert_eq!(refusal(&file), expected);
    }
    assert_eq!(parse(gzip(&vec![0; MEMORY as usize])).expect("flat"), Kernel::Flat(vec![0; MEMORY as usize]));
}

/// RFC 8878: a frame without a content size, a window of 8 MiB, and 80 blocks of 128 KiB of zeros (RLE), ten bytes' worth
/// of blocks for a megabyte.
const ZSTD_BOMB: &[u8] = &{
    const BLOCKS: usize = 80;
    let mut frame = [0; 6 + 4 * BLOCKS];
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68];
    let mut n = 0;
    while n < head.len() {
        frame[n] = head[n];
        n += 1;
    }
    n = 0;
    while n < BLOCKS {
        // Size 0x20000, type 1 (RLE), the last one marked.
        let header = 0x2_0000 << 3 | 1 << 1 | (n == BLOCKS - 1) as u32;
        frame[6 + 4 * n] = header as u8;
        frame[6 + 4 * n + 1] = (header >> 8) as u8;
        frame[6 + 4 * n + 2] = (header >> 16) as u8;
        n += 1;
    }
    frame
};

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
    let file = elf(183, 0x4010_0000, 8, 16);
    let expected = Kernel::Elf {
        entry: 0x4010_0000,
        file: file.clone(),
        segments: vec![Segment { address: 0x4010_0000, in_file: 0x78..0x80, size: 16 }],
    };
    assert_eq!(parse(file).expect("an ELF"), expected);
}

#[test]
fn an_elf_that_cannot_be_loaded_is_refused() {
    let other = |place: usize, byte: u8| {
        let mut file = elf(183, 0x4010_0000, 8, 16);
        file[place] = byte;
        refusal(&file)
    };
    let message = |what: &str| {
        format!(
            "expected a 64-bit little-endian ELF for AArch64, got {what}: give one that was built for arm64"
        )
    };
    assert_eq!(other(18, 62), message("a 64-bit little-endian one for x86-64"));
    assert_eq!(other(4, 1), message("a 32-bit little-endian one for AArch64"));
    // e_machine is big-endian then: 0xb700.
    assert_eq!(other(5, 2), message("a 64-bit big-endian one for machine 46848"));
    assert_eq!(other(18, 99), message("a 64-bit little-endian one for machine 99"));
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

/// An ELF of so many segments, each of the 8 bytes at the file's end, `step` bytes apart in memory.
fn elf_of_many(count: u16, step: u64) -> Vec<u8> {
    let mut file = elf(183, 0x4010_0000, 8, 8);
    file.truncate(64);
    file[56..58].copy_from_slice(&count.to_le_bytes());
    let shared = 64 + 56 * u64::from(count);
    for n in 0..u64::from(count) {
        let address = 0x4010_0000 + n * step;
        file.extend([1_u32, 5].map(u32::to_le_bytes).concat());
        file.extend([shared, 0, address, 8, 8, 8].map(u64::to_le_bytes).concat());
    }
    file.extend([0x11; 8]);
    file
}

#[test]
fn segments_share_the_bytes_that_they_share_in_the_file() {
    match parse(elf_of_many(3, 8)).expect("an ELF") {
        Kernel::Elf { segments, .. } => {
            let places: Vec<_> =
                segments.into_iter().map(|segment| (segment.address, segment.in_file)).collect();
            let shared = 64 + 3 * 56..64 + 3 * 56 + 8;
            assert_eq!(
                places,
                [0x4010_0000, 0x4010_0008, 0x4010_0010].map(|address| (address, shared.clone()))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn segments_that_overlap_in_memory_are_refused() {
    let damaged =
        "expected a whole ELF file, got a damaged one: the segments at 0x40100000 and 0x40100007 overlap";
    assert_eq!(refusal(&elf_of_many(2, 7)), damaged);
    assert!(refusal(&elf_of_many(2, 0)).ends_with("the segments at 0x40100000 and 0x40100000 overlap"));
}

#[test]
fn a_file_is_read_as_far_as_the_guest_has_memory_and_an_elf_as_far_as_its_segments_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kernel");
    let mut file = elf_of_many(3, 8);
    let whole = file.clone();
    file.resize(0x1_0000, 0xdb);
    std::fs::write(&path, &file).expect("room");
    // Debug information is not read.
    assert_eq!(read(&path, 240).expect("it fits"), whole);
    assert_eq!(read(&path, 239).expect_err("too big").to_string(), "expected at most 239 bytes, got 240");
    // A flat binary: all of it counts.
    file[0] = 0;
    std::fs::write(&path, &file).expect("room");
    assert_eq!(read(&path, 0x1_0000).expect("it fits"), file);
    assert_eq!(
        read(&path, 0xffff).expect_err("too big").to_string(),
        "expected at most 65535 bytes, got 65536"
    );
}
