//! Where things lie, and what is said if they have no room.

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::kernel::{LinuxImage, Segment};
use crate::layout;

const MIB: u64 = 1 << 20;

fn memory(size: u64) -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(layout::RAM), size as usize)]).expect("memory")
}

fn linux(image_size: u64) -> Kernel {
    Kernel::Linux(LinuxImage { bytes: vec![0xa5; 0x1000], text_offset: 0, image_size })
}

fn guest(kernel: &Kernel, initrd: Option<&[u8]>) -> Guest {
    let initrd = initrd.map(<[u8]>::to_vec);
    Guest { kernel: kernel.clone(), address: None, initrd, command_line: String::new() }
}

fn ram(size: u64) -> Ram {
    Ram::new(layout::RAM..layout::RAM + size)
}

fn place(size: u64, kernel: &Kernel, initrd: Option<&[u8]>) -> Result<Placement, LoadError> {
    load(&memory(size), &ram(size), &guest(kernel, initrd), |_| Ok(vec![0xfd; 0x600]))
}

/// The rules were measured on QEMU 7.2 (crates/machine, board).
#[test]
fn linux_its_initramfs_and_its_tree_lie_where_qemu_puts_them() {
    let expected = Placement {
        entry: 0x4020_0000,
        kernel: 0x4020_0000..0x4280_0000,
        initrd: Some(0x4800_0000..0x4800_0003),
        fdt: 0x4820_0000..0x4820_0600,
    };
    assert_eq!(place(512 * MIB, &linux(0x260_0000), Some(b"abc")), Ok(expected));
}

#[test]
fn a_flat_binary_lies_512_kib_up_and_its_tree_at_the_middle_of_a_small_ram() {
    let flat = Kernel::Flat(vec![1; 0xd8]);
    let placement = place(32 * MIB, &flat, None).expect("it fits");
    assert_eq!((placement.entry, placement.fdt.start), (0x4008_0000, 0x4100_0000));
    assert_eq!(placement.initrd, None);
}

#[test]
fn what_was_loaded_is_in_memory() {
    let memory = memory(128 * MIB);
    let segments = vec![
        Segment { address: 0x4010_0000, in_file: 0..4, size: 0x1000 },
        Segment { address: 0x4030_0000, in_file: 4..8, size: 4 },
    ];
    let kernel = Kernel::Elf { entry: 0x4030_0000, file: vec![1, 1, 1, 1, 2, 2, 2, 2], segments };
    let mut told = None;
    let placement = load(&memory, &ram(128 * MIB), &guest(&kernel, Some(b"initrd")), |initrd| {
        told = initrd;
        Ok::<_, LoadError>(vec![3; 4])
    });
    let placement = placement.expect("it fits");
    assert_eq!(told, placement.initrd);
    let read = |at| memory.read_obj::<u32>(GuestAddress(at)).expect("in memory");
    assert_eq!([read(0x4010_0000), read(0x4030_0000)], [0x0101_0101, 0x0202_0202]);
    // Below the ELF.
    assert_eq!((placement.fdt.start, read(0x4000_0000)), (0x4000_0000, 0x0303_0303));
    assert_eq!(read(placement.initrd.expect("given").start), u32::from_le_bytes(*b"init"));
}

#[test]
fn too_little_memory_is_an_error_that_says_what_is_missing() {
    let refusal =
        |size, kernel: &Kernel, initrd| place(size, kernel, initrd).expect_err("no room").to_string();
    assert_eq!(
        refusal(16 * MIB, &linux(0x260_0000), None),
        "the kernel does not fit: it takes 0x40200000..0x42800000, RAM is 0x40000000..0x41000000; give the guest \
         more memory"
    );
    let big = vec![0; 17 << 20];
    assert_eq!(
        refusal(32 * MIB, &linux(0x100_0000), Some(&big)),
        "the initramfs does not fit: 17825792 bytes behind 0x41200000, RAM ends at 0x42000000; give the guest \
         more memory"
    );
    let fills = Kernel::Flat(vec![0; (2 << 20) - 0x8_0000]);
    assert_eq!(
        refusal(2 * MIB, &fills, None),
        "expected 1536 bytes of RAM 0x40000000..0x40200000 free for the device tree beside kernel and initramfs"
    );
    assert_eq!(refusal(32 * MIB, &linux(0x1000), Some(b"")), "expected an initramfs, got an empty file");
}

#[test]
fn a_tree_bigger_than_linux_takes_is_an_error() {
    let tree = |_| Ok::<_, LoadError>(vec![0; 0x20_0001]);
    let error =
        load(&memory(128 * MIB), &ram(128 * MIB), &guest(&linux(0x1000), None), tree).expect_err("too big");
    assert_eq!(error, LoadError::FdtTooBig { size: 0x20_0001, limit: 0x20_0000 });
}

#[test]
fn an_entry_outside_the_kernel_is_an_error() {
    let segments = vec![Segment { address: 0x4010_0000, in_file: 0..4, size: 4 }];
    let kernel = Kernel::Elf { entry: 0x4010_0004, file: vec![1; 4], segments };
    let expected = LoadError::Entry { entry: 0x4010_0004, kernel: 0x4010_0000..0x4010_0004 };
    assert_eq!(place(32 * MIB, &kernel, None), Err(expected));
}

#[test]
fn a_flat_binary_goes_where_it_is_wanted_and_nothing_else_does() {
    let at = |kernel: &Kernel, address| {
        let guest = Guest { address: Some(address), ..guest(kernel, None) };
        load(&memory(32 * MIB), &ram(32 * MIB), &guest, |_| Ok::<_, LoadError>(vec![0xfd; 0x600]))
    };
    let flat = Kernel::Flat(vec![1; 0xd8]);
    let placement = at(&flat, 0x4000_0000).expect("it fits");
    assert_eq!((placement.entry, placement.kernel), (0x4000_0000, 0x4000_0000..0x4000_00d8));
    let refusal = |kernel: &Kernel, address| at(kernel, address).expect_err("refused").to_string();
    assert_eq!(
        refusal(&flat, 0x1000),
        "expected a kernel that begins in RAM, 0x40000000..0x42000000, got one for 0x1000..0x10d8"
    );
    assert_eq!(
        refusal(&linux(0x1000), 0x4000_0000),
        "expected a flat binary to load at 0x40000000, got a kernel that says itself where it goes"
    );
}

#[test]
fn what_is_bad_is_gone_round() {
    let ram = Ram::without(
        layout::RAM..layout::RAM + (256 << 20),
        [0x4030_0000..0x4030_1000, 0x4800_2000..0x4800_3000, 0x4820_0000..0x4820_1000],
    );
    let (memory, kernel) = (memory(256 << 20), linux(0x20_0000));
    let guest = guest(&kernel, Some(&[1; 0x3000]));
    let placement =
        load::<_, LoadError>(&memory, &ram, &guest, |_| Ok(vec![1; 0x600])).expect("there is room");
    // At the next 2 MiB; behind the bad page; at the next 2 MiB but one.
    assert_eq!(placement.kernel, 0x4040_0000..0x4060_0000);
    assert_eq!(placement.entry, 0x4040_0000);
    assert_eq!(placement.initrd, Some(0x4800_3000..0x4800_6000));
    assert_eq!(placement.fdt, 0x4840_0000..0x4840_0600);
}

#[test]
fn a_flat_binary_whose_place_is_bad_is_an_error_that_says_so() {
    let ram = Ram::without(layout::RAM..layout::RAM + (16 << 20), Some(0x4008_0000..0x4008_1000));
    let guest = guest(&Kernel::Flat(vec![0; 64]), None);
    let error = load::<_, LoadError>(&memory(16 << 20), &ram, &guest, |_| Ok(vec![])).expect_err("it is bad");
    assert_eq!(
        error.to_string(),
        "the kernel must be at 0x40080000..0x40080040, and 0x40080000..0x40081000 is bad memory that could not be healed"
    );
}
