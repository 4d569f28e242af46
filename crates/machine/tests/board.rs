//! An image for QEMU's `virt` on this machine, with `seawall-vmm`'s board around it: it says the same on QEMU.

mod qemu;
mod virt;

/// Writes "hello, fdt ", the first word of what X0 points to, and powers off.
const HELLO: [u32; 27] = [
    0xd2a12013, // mov x19, #0x9000000
    0xb9400014, // ldr w20, [x0]
    0x100002c1, // adr x1, message
    0x38401422, // next: ldrb w2, [x1], #1
    0x340000a2, // cbz w2, fdt
    0xb9401a63, // full: ldr w3, [x19, #0x18]
    0x372fffe3, // tbnz w3, #5, full
    0x39000262, // strb w2, [x19]
    0x17fffffb, // b next
    0x5ac00a94, // fdt: rev w20, w20
    0x52800404, // mov w4, #32
    0x51001084, // digit: sub w4, w4, #4
    0x1ac42685, // lsr w5, w20, w4
    0x12000ca5, // and w5, w5, #0xf
    0x1100c0a6, // add w6, w5, #'0'
    0x11015ca7, // add w7, w5, #'a' - 10
    0x710028bf, // cmp w5, #10
    0x1a8730c6, // csel w6, w6, w7, lo
    0xb9000266, // str w6, [x19]
    0x35ffff04, // cbnz w4, digit
    0x52800100, // mov w0, #0x8
    0x72b08000, // movk w0, #0x8400, lsl #16 (SYSTEM_OFF)
    0xd4000002, // hvc #0
    0x14000000, // b .
    0x6c6c6568, // message: "hell"
    0x66202c6f, // "o, f"
    0x00207464, // "dt \0"
];

/// Writes what registers of the UART read, each by a load of 4, 1, 2 and 8 bytes, and powers off.
/// All are aligned: with the MMU off data is Device memory.
const UART_DUMP: [u32; 41] = [
    0xd2a12013, // mov x19, #0x9000000
    0x10000434, // adr x20, list
    0x52800f08, // mov w8, #'x'
    0xb9000268, // str w8, [x19]
    0x78402695, // next: ldrh w21, [x20], #2
    0x713ffebf, // cmp w21, #0xfff
    0x54000160, // b.eq off
    0x8b150276, // add x22, x19, x21
    0xb94002c0, // ldr w0, [x22]
    0x9400000c, // bl hex
    0x394002c0, // ldrb w0, [x22]
    0x9400000a, // bl hex
    0x794002c0, // ldrh w0, [x22]
    0x94000008, // bl hex
    0xf94002c0, // ldr x0, [x22]
    0x94000006, // bl hex
    0x17fffff4, // b next
    0x52800100, // off: mov w0, #0x8
    0x72b08000, // movk w0, #0x8400, lsl #16 (SYSTEM_OFF)
    0xd4000002, // hvc #0
    0x14000000, // b .
    0x52800804, // hex: mov w4, #64
    0x51001084, // digit: sub w4, w4, #4
    0x9ac42405, // lsr x5, x0, x4
    0x12000ca5, // and w5, w5, #0xf
    0x1100c0a6, // add w6, w5, #'0'
    0x11015ca7, // add w7, w5, #'a' - 10
    0x710028bf, // cmp w5, #10
    0x1a8730c6, // csel w6, w6, w7, lo
    0xb9000266, // str w6, [x19]
    0x35ffff04, // cbnz w4, digit
    0x52800146, // mov w6, #'\n'
    0xb9000266, // str w6, [x19]
    0xd65f03c0, // ret
    0x00200018, // list: FR, ILPR
    0x00300028, // FBRD, CR
    0x00400038, // IMSC, MIS
    0x01000048, // DMACR, none
    0x0fe80fe0, // PeriphID0, PeriphID2
    0x0ff80ff0, // PCellID0, PCellID2
    0x00000fff, // end
];

fn bytes(code: &[u32]) -> Vec<u8> {
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Runs a flat image to its power-off; gives its console.
#[track_caller]
fn console(code: &[u32]) -> String {
    virt::console(&bytes(code), 1_000_000)
}

#[test]
fn a_flat_image_finds_its_device_tree_in_x0() {
    assert_eq!(console(&HELLO), "hello, fdt d00dfeed");
}

#[test]
fn a_flat_image_says_the_same_on_qemu() {
    match qemu::console(&bytes(&HELLO), "hello") {
        Some(qemu) => assert_eq!(console(&HELLO), qemu),
        None => qemu::skipped("a_flat_image_says_the_same_on_qemu"),
    }
}

#[test]
fn the_uarts_registers_read_the_same_on_qemu_at_every_access_size() {
    match qemu::console(&bytes(&UART_DUMP), "uart_dump") {
        Some(qemu) => assert_eq!(console(&UART_DUMP), qemu),
        None => qemu::skipped("the_uarts_registers_read_the_same_on_qemu_at_every_access_size"),
    }
}

#[test]
fn a_doubleword_load_reads_two_registers_of_the_uart() {
    let console = console(&UART_DUMP);
    assert_eq!(console.lines().nth(35), Some("0000001000000011"), "PeriphID0 and 1");
}

/// An ELF that runs `code` from 0x4040_0000.
fn elf(code: &[u32]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type EXEC, e_machine AArch64, e_version; e_entry, e_phoff; e_shoff; one program header of 56 bytes.
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    for word in [0x4040_0000_u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // p_type LOAD, p_flags RWX; p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let size = code.len() as u64 * 4;
    for word in [120_u64, 0x4040_0000, 0x4040_0000, size, size, 8] {
        file.extend(word.to_le_bytes());
    }
    file.extend(bytes(code));
    file
}

#[test]
fn an_elf_finds_the_device_tree_at_the_base_of_ram_as_on_qemu() {
    // mov x0, #0x40000000: QEMU gives an ELF no X0.
    let mut code = vec![0xd2a80000];
    code.extend(HELLO);
    let image = elf(&code);
    let console = virt::console(&image, 1_000_000);
    assert_eq!(console, "hello, fdt d00dfeed");
    match qemu::console(&image, "hello_elf") {
        Some(qemu) => assert_eq!(console, qemu),
        None => qemu::skipped("an_elf_finds_the_device_tree_at_the_base_of_ram_as_on_qemu"),
    }
}
