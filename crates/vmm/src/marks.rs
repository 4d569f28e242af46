//! Names a file by its first bytes: one table of marks, for kernels, initramfs and disks.
//!
//! A file without a known mark is taken as it is: a flat binary, or a raw disk.

use Kind::{
    Archive, Bundle, Cpio, Disk, DiskFormat, Firmware, Foreign, Kernel, OldCpio, Ours, Packed, Text, Tree,
};

/// The use that a file is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The guest's kernel.
    Kernel,
    /// Linux's initramfs.
    Initramfs,
    /// A disk's image, whose sectors are as they are.
    Disk,
}

/// The meaning of a mark for the use of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A kernel that is taken, if its header is right.
    Kernel,
    /// A kernel or a program of another machine.
    Foreign,
    /// A boot loader's or firmware's container of parts; how to list or extract them.
    Bundle(&'static str),
    Firmware,
    /// A device tree.
    Tree,
    /// An initramfs that Linux takes.
    Cpio,
    /// An initramfs in a format that Linux does not take.
    OldCpio,
    /// Files in a file, none of them to be booted as it is.
    Archive,
    /// A disk's sectors, with a file system or partitions on them.
    Disk,
    /// A disk in a format of its own; how it is made raw.
    DiskFormat(&'static str),
    /// Packed by a program that unpacks it.
    Packed,
    /// A file of Seawall's; what to do with it.
    Ours(&'static str),
    Text,
}

struct Mark {
    at: usize,
    bytes: &'static [u8],
    name: &'static str,
    kind: Kind,
}

const fn mark(at: usize, bytes: &'static [u8], name: &'static str, kind: Kind) -> Mark {
    Mark { at, bytes, name, kind }
}

const QEMU_IMG: &str = "convert it by `qemu-img convert -O raw`";
const DUMPIMAGE: &str = "`dumpimage -l` lists its parts, `dumpimage -p` takes one out";
const UNPACK_BOOTIMG: &str = "`unpack_bootimg` takes it apart";

/// The first that fits counts. Marks at the beginning come last where a mark further back says more.
const MARKS: &[Mark] = &[
    // Kernels. Linux, booting.rst (arm64, riscv, x86, arm); PE format; ELF's `e_ident`; Mach-O, `mach-o/loader.h`.
    mark(56, b"ARM\x64", "an arm64 Linux Image", Kernel),
    mark(4, b"zimg", "an EFI zboot image of a kernel", Kernel),
    mark(0, b"\x7fELF", "an ELF file", Kernel),
    mark(0x202, b"HdrS", "an x86 bzImage", Foreign),
    mark(0x24, b"\x18\x28\x6f\x01", "a 32-bit Arm zImage", Foreign),
    mark(0x30, b"RISCV\0\0\0", "a RISC-V Image", Foreign),
    mark(0, b"MZ", "an EFI program that is no arm64 Image", Foreign),
    mark(0, b"\xcf\xfa\xed\xfe", "a Mach-O program", Foreign),
    // Firmware. PI specification, volume 3, EFI_FIRMWARE_VOLUME_HEADER; TF-A, firmware image package.
    mark(0x28, b"_FVH", "UEFI firmware", Firmware),
    mark(0, b"\x01\0\x64\xaa\x78\x56\x34\x12", "a firmware image package (FIP)", Firmware),
    // What boot loaders take. U-Boot, `image.h`; Android, `bootimg.h`; devicetree specification, 5.2.
    mark(0, b"\x27\x05\x19\x56", "a U-Boot image (uImage)", Bundle(DUMPIMAGE)),
    mark(0, b"ANDROID!", "an Android boot image", Bundle(UNPACK_BOOTIMG)),
    mark(0, b"VNDRBOOT", "an Android vendor boot image", Bundle(UNPACK_BOOTIMG)),
    mark(0, b"\xd0\x0d\xfe\xed", "a device tree (DTB)", Tree),
    // Archives. Linux, initramfs buffer-format.rst; cpio(5), tar(5), ar(5), PKWARE's APPNOTE.
    mark(0, b"070701", "a cpio archive", Cpio),
    mark(0, b"070702", "a cpio archive", Cpio),
    mark(0, b"070707", "a cpio archive of the old format", OldCpio),
    mark(0, b"\xc7\x71", "a cpio archive of the old format", OldCpio),
    mark(257, b"ustar", "a tar archive", Archive),
    mark(0, b"!<arch>\n", "a Debian package or a static library", Archive),
    mark(0, b"\xed\xab\xee\xdb", "an RPM package", Archive),
    mark(0, b"PK\x03\x04", "zip", Packed),
    mark(0, b"7z\xbc\xaf\x27\x1c", "7z", Packed),
    // Packed. RFC 1952, RFC 8878, the formats' own descriptions. lzma has no mark but its usual properties.
    mark(0, b"\x1f\x8b\x08", "gzip", Packed),
    mark(0, b"\x28\xb5\x2f\xfd", "zstd", Packed),
    mark(0, b"\xfd7zXZ\0", "xz", Packed),
    mark(4, b"1AY&SY", "bzip2", Packed),
    mark(0, b"\x02\x21\x4c\x18", "lz4", Packed),
    mark(0, b"\x04\x22\x4d\x18", "lz4", Packed),
    mark(0, b"\x89LZO\0\x0d\x0a\x1a\x0a", "lzo", Packed),
    mark(0, b"\x5d\0\0\x80\0", "lzma", Packed),
    mark(0, b"\x5d\0\0\0\x02", "lzma", Packed),
    mark(0, b"\x5d\0\0\0\x04", "lzma", Packed),
    // Disks in a format of their own. QEMU, `docs/interop`; MS-VHDX; VMware's and VirtualBox's descriptions.
    mark(0, b"QFI\xfb", "a qcow2 image", DiskFormat(QEMU_IMG)),
    mark(0, b"QED\0", "a QED image", DiskFormat(QEMU_IMG)),
    mark(0, b"vhdxfile", "a VHDX image", DiskFormat(QEMU_IMG)),
    mark(0, b"conectix", "a VHD image", DiskFormat(QEMU_IMG)),
    mark(0, b"KDMV", "a VMDK image", DiskFormat(QEMU_IMG)),
    mark(0, b"COWD", "a VMDK image", DiskFormat(QEMU_IMG)),
    mark(0, b"# Disk DescriptorFile", "a VMDK descriptor", DiskFormat(QEMU_IMG)),
    mark(0x40, b"\x7f\x10\xda\xbe", "a VDI image", DiskFormat(QEMU_IMG)),
    mark(0, b"\x3a\xff\x26\xed", "an Android sparse image", DiskFormat("convert it by `simg2img`")),
    // Disks as they are. UEFI specification, 5.3.2; Linux, `magic.h`; ECMA-119.
    mark(0x200, b"EFI PART", "a partitioned disk", Disk),
    mark(0x8001, b"CD001", "a CD image", Disk),
    mark(0, b"hsqs", "a squashfs file system", Disk),
    mark(0, b"\xe2\xe1\xf5\xe0", "an EROFS file system", Disk),
    // Seawall's.
    mark(
        0,
        b"\x89SWSN\r\n\x1a",
        "a snapshot of Seawall's",
        Ours("go on from it by --restore, without a kernel"),
    ),
    mark(0, b"SEAWALL\0", "a ledger of Seawall's", Ours("it is for --ledger; seawall ledger shows it")),
];

/// How a packed file is packed, if it is.
pub(crate) fn packing(file: &[u8]) -> Option<&'static str> {
    known(file).filter(|(_, kind)| *kind == Packed).map(|(name, _)| name)
}

/// Name of the file, and what to do, if it cannot be what it is to be.
pub(crate) fn mistaken(file: &[u8], for_a: Use) -> Option<String> {
    let (name, kind) = known(file)?;
    let packed = format!("a file packed by {name}");
    let name = if kind == Packed { &packed } else { name };
    advice(kind, for_a).map(|advice| format!("{name}: {advice}"))
}

fn known(file: &[u8]) -> Option<(&'static str, Kind)> {
    let fits = |mark: &&Mark| file.get(mark.at..).is_some_and(|rest| rest.starts_with(mark.bytes));
    match MARKS.iter().find(fits) {
        Some(Mark { kind: Tree, .. }) if has_images(file) => {
            Some(("a U-Boot image (FIT)", Bundle(DUMPIMAGE)))
        }
        Some(mark) => Some((mark.name, mark.kind)),
        None if is_text(file) => Some(("text", Text)),
        None => None,
    }
}

/// Advice on a file of the wrong kind; none if the file is, or may be, of the right one.
#[allow(clippy::match_same_arms, reason = "the first that fits answers: their order is their meaning")]
fn advice(kind: Kind, for_a: Use) -> Option<&'static str> {
    let advice = match (kind, for_a) {
        (DiskFormat(how), Use::Disk) => how,
        (Packed, Use::Disk) => "unpack it first",
        // Anything else may be on a disk from its first sector on.
        (Kernel | Packed, Use::Kernel) | (Cpio | Packed | Disk, Use::Initramfs) | (_, Use::Disk) => {
            return None;
        }
        (Ours(what), _) => what,
        (Bundle(how), _) => how,
        (Firmware, Use::Kernel) => {
            "this machine enters a kernel without firmware; give the Image that it would start"
        }
        (Foreign, Use::Kernel) => "give one that was built for arm64",
        (Tree, Use::Kernel) => "the machine makes its own; give a kernel",
        (Cpio | OldCpio, Use::Kernel) => "give it as the initramfs, and a kernel",
        (Archive, Use::Kernel) => "give the kernel that is in it",
        (Disk | DiskFormat(_), Use::Kernel) => "give it as a disk, and a kernel",
        (Text, Use::Kernel) => "give an arm64 Image, an AArch64 ELF or a flat binary",
        (OldCpio, Use::Initramfs) => "Linux takes the one of `cpio -H newc`",
        (Kernel, Use::Initramfs) => "give it as the kernel",
        (DiskFormat(_), Use::Initramfs) => "give it as a disk, made raw",
        (Archive, Use::Initramfs) => "pack the files in it by `cpio -H newc`",
        (Firmware | Foreign | Tree | Text, Use::Initramfs) => "give a cpio archive, as it is or packed",
    };
    Some(advice)
}

/// A device tree that is a FIT: it has a node `images` (U-Boot, `doc/usage/fit/source_file_format.rst`).
fn has_images(tree: &[u8]) -> bool {
    // FDT_BEGIN_NODE, and the node's name with its padding.
    tree.chunks_exact(4)
        .collect::<Vec<_>>()
        .windows(3)
        .any(|words| words.concat() == *b"\0\0\0\x01images\0\0")
}

/// Nothing but letters, as far as one looks: no program is.
fn is_text(file: &[u8]) -> bool {
    const LOOK: usize = 0x1000;
    let head = file.get(..LOOK).unwrap_or(file);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // Cut off in the middle of a letter.
        Err(error) if error.error_len().is_none() && file.len() > LOOK => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let is_written = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    !text.is_empty() && text.chars().all(is_written)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this at its place, and nothing else.
    fn file(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x9000];
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    fn check(at: usize, bytes: &[u8], for_a: Use, expected: Option<&str>) {
        assert_eq!(
            mistaken(&file(at, bytes), for_a).as_deref(),
            expected,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }

    #[test]
    fn a_kernel_that_is_something_else_is_named_with_what_to_do() {
        let kernel = |at, bytes: &[u8], expected: &str| check(at, bytes, Use::Kernel, Some(expected));
        kernel(
            0x28,
            b"_FVH",
            "UEFI firmware: this machine enters a kernel without firmware; give the Image that it would start",
        );
        kernel(0, b"\xd0\x0d\xfe\xed", "a device tree (DTB): the machine makes its own; give a kernel");
        kernel(0, b"ANDROID!", "an Android boot image: `unpack_bootimg` takes it apart");
        for cpio in [b"070701", b"070702"] {
            kernel(0, cpio, "a cpio archive: give it as the initramfs, and a kernel");
        }
        let dumpimage = "`dumpimage -l` lists its parts, `dumpimage -p` takes one out";
        kernel(0, b"\x27\x05\x19\x56", &format!("a U-Boot image (uImage): {dumpimage}"));
        kernel(0, b"MZ", "an EFI program that is no arm64 Image: give one that was built for arm64");
        kernel(0x202, b"HdrS", "an x86 bzImage: give one that was built for arm64");
        kernel(0, b"QFI\xfb", "a qcow2 image: give it as a disk, and a kernel");
        kernel(0x8001, b"CD001", "a CD image: give it as a disk, and a kernel");
        kernel(257, b"ustar", "a tar archive: give the kernel that is in it");
        let mut fit = file(0, b"\xd0\x0d\xfe\xed");
        fit[0x48..0x54].copy_from_slice(b"\0\0\0\x01images\0\0");
        assert_eq!(mistaken(&fit, Use::Kernel), Some(format!("a U-Boot image (FIT): {dumpimage}")));
    }

    #[test]
    fn text_is_named_and_code_with_letters_in_it_is_not_text() {
        let text = Some("text: give an arm64 Image, an AArch64 ELF or a flat binary".to_owned());
        for written in
            ["#!/bin/sh\n", "caf\u{e9}\tau lait\r\n", "x", &"\u{e9}".repeat(0x900), &"a\u{e9}".repeat(0x900)]
        {
            assert_eq!(mistaken(written.as_bytes(), Use::Kernel), text, "{written}");
        }
        // nop; `nop` in letters; a letter that is cut off by the file's end.
        for other in [&b"\x1f\x20\x03\xd5"[..], b"nop\0", b"caf\xc3", b""] {
            assert_eq!(mistaken(other, Use::Kernel), None, "{other:?}");
        }
    }

    #[test]
    fn an_initramfs_may_be_what_linux_unpacks_or_mounts_and_nothing_else_that_is_known() {
        let initramfs = |at, bytes: &[u8], expected: Option<&str>| check(at, bytes, Use::Initramfs, expected);
        for fine in
            [&b"070701"[..], b"070702", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"hsqs", b"\x01"]
        {
            initramfs(0, fine, None);
        }
        initramfs(
            0,
            b"070707",
            Some("a cpio archive of the old format: Linux takes the one of `cpio -H newc`"),
        );
        initramfs(56, b"ARM\x64", Some("an arm64 Linux Image: give it as the kernel"));
        initramfs(0, b"\x7fELF", Some("an ELF file: give it as the kernel"));
        initramfs(
            0,
            b"\x27\x05\x19\x56",
            Some("a U-Boot image (uImage): `dumpimage -l` lists its parts, `dumpimage -p` takes one out"),
        );
    }

    #[test]
    fn a_disk_in_a_format_or_packed_is_named_and_all_else_is_raw() {
        let convert = "convert it by `qemu-img convert -O raw`";
        for (at, bytes, name) in [
            (0, &b"QFI\xfb"[..], "a qcow2 image"),
            (0, b"vhdxfile", "a VHDX image"),
            (0, b"KDMV", "a VMDK image"),
            (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
        ] {
            check(at, bytes, Use::Disk, Some(&format!("{name}: {convert}")));
        }
        for (bytes, name) in
            [(&b"\x1f\x8b\x08"[..], "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz")]
        {
            check(0, bytes, Use::Disk, Some(&format!("a file packed by {name}: unpack it first")));
        }
        for raw in [&b"070701"[..], b"text", b"MZ", b"\x7fELF", b"\xd0\x0d\xfe\xed"] {
            check(0, raw, Use::Disk, None);
        }
        check(257, b"ustar", Use::Disk, None);
        check(0x200, b"EFI PART", Use::Disk, None);
    }

    #[test]
    fn no_mark_is_hidden_behind_another() {
        for (n, mark) in MARKS.iter().enumerate() {
            let (name, _) = known(&file(mark.at, mark.bytes)).unwrap();
            assert_eq!(name, mark.name, "mark {n}");
        }
    }
}
