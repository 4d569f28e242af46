//! An initramfs with one program of our own as `/init`, which needs no floating point.

/// Forks four processes, numbers 4 to 1. Each marks its stack with [`MARK`] and its number, computes, and loads the mark
/// all the while; says on which CPU it ended, and exits with 42 if the result is right. The first process then sleeps
/// 10 ms, says how many were right, and powers off.
const INIT: [u32; 90] = [
    0xd10103ff, // _start: sub sp, sp, #0x40
    0xd2800093, // mov x19, #0x4
    0xd2800220, // fork: mov x0, #0x11 (SIGCHLD)
    0xd2800001, // mov x1, #0x0
    0xd2800002, // mov x2, #0x0
    0xd2800003, // mov x3, #0x0
    0xd2800004, // mov x4, #0x0
    0xd2801b88, // mov x8, #0xdc (clone)
    0xd4000001, // svc #0x0
    0xb40004a0, // cbz x0, child
    0xf1000673, // subs x19, x19, #0x1
    0x54fffee1, // b.ne fork
    0xd2800093, // mov x19, #0x4
    0x52800614, // mov w20, #0x30
    0x92800000, // wait: mov x0, #0xffffffffffffffff
    0x910003e1, // mov x1, sp
    0xd2800002, // mov x2, #0x0
    0xd2800003, // mov x3, #0x0
    0xd2802088, // mov x8, #0x104 (wait4)
    0xd4000001, // svc #0x0
    0xb94003e1, // ldr w1, [sp]
    0x52854002, // mov w2, #0x2a00 (exit status 42)
    0x6b02003f, // cmp w1, w2
    0x1a941694, // cinc w20, w20, eq
    0xf1000673, // subs x19, x19, #0x1
    0x54fffea1, // b.ne wait
    0xa9007fff, // stp xzr, xzr, [sp]
    0xd292d000, // mov x0, #0x9680
    0xf2a01300, // movk x0, #0x98, lsl #16
    0xf90007e0, // str x0, [sp, #8]
    0x910003e0, // mov x0, sp
    0xd2800001, // mov x1, #0x0
    0xd2800ca8, // mov x8, #0x65 (nanosleep)
    0xd4000001, // svc #0x0
    0x10000815, // adr x21, report
    0xd2800416, // mov x22, #0x20
    0x94000028, // bl say
    0xd29bd5a0, // mov x0, #0xdead
    0xf2bfdc20, // movk x0, #0xfee1, lsl #16
    0xd2832d21, // mov x1, #0x1969
    0xf2a50241, // movk x1, #0x2812, lsl #16
    0xd29fdb82, // mov x2, #0xfedc
    0xf2a86422, // movk x2, #0x4321, lsl #16
    0xd28011c8, // mov x8, #0x8e (reboot)
    0xd4000001, // svc #0x0
    0x14000000, // b .
    0x5800058d, // child: ldr x13, MARK
    0xaa1301ad, // orr x13, x13, x19
    0xf90013ed, // str x13, [sp, #32]
    0xd2800029, // mov x9, #0x1
    0x5800054a, // ldr x10, FACTOR
    0x5800056b, // ldr x11, ADDEND
    0xd288480c, // mov x12, #0x4240
    0xf2a001ec, // movk x12, #0xf, lsl #16
    0xf94013ed, // next: ldr x13, [sp, #32]
    0x9b0a2d29, // madd x9, x9, x10, x11
    0xf100058c, // subs x12, x12, #0x1
    0x54ffffa1, // b.ne next
    0x580004ca, // ldr x10, RESULT
    0xeb0a013f, // cmp x9, x10
    0x540001a1, // b.ne wrong
    0x910003e0, // mov x0, sp
    0xd2800001, // mov x1, #0x0
    0xd2800002, // mov x2, #0x0
    0xd2801508, // mov x8, #0xa8 (getcpu)
    0xd4000001, // svc #0x0
    0xb94003f4, // ldr w20, [sp]
    0x1100c294, // add w20, w20, #0x30
    0x100004d5, // adr x21, place
    0xd28002b6, // mov x22, #0x15
    0x94000006, // bl say
    0xd2800540, // mov x0, #0x2a
    0x14000002, // b exit
    0xd2800020, // wrong: mov x0, #0x1
    0xd2800ba8, // exit: mov x8, #0x5d (exit)
    0xd4000001, // svc #0x0
    0x910003e1, // say: mov x1, sp
    0xaa1603e3, // mov x3, x22
    0x384016a4, // copy: ldrb w4, [x21], #1
    0x38001424, // strb w4, [x1], #1
    0xf1000463, // subs x3, x3, #0x1
    0x54ffffa1, // b.ne copy
    0x390003f4, // strb w20, [sp]
    0xd2800020, // mov x0, #0x1
    0x910003e1, // mov x1, sp
    0xaa1603e2, // mov x2, x22
    0xd2800808, // mov x8, #0x40 (write)
    0xd4000001, // svc #0x0
    0xd65f03c0, // ret
    0x00000000, // to a multiple of 8
];

/// What the processes' stacks are marked with, less the process's number in the low bits.
pub(crate) const MARK: u64 = 0x5ea3_a11a_11ce_5000;
/// What the program reads behind its code: the mark, a linear congruential generator's factor and addend, and its value
/// after a million rounds from 1.
const CONSTANTS: [u64; 4] =
    [MARK, 6_364_136_223_846_793_005, 1_442_695_040_888_963_407, 0xce8e_efe9_9cd3_cc41];
/// What it says; the first byte is replaced.
const REPORT: &[u8; 32] = b"0 of 4 processes are right     \n";
const PLACE: &[u8; 24] = b"0: a process is done\n\0\0\0";

/// Where the file is mapped, whole.
const BASE: u64 = 0x40_0000;
/// Bytes of an ELF header and one program header.
const HEADERS: u64 = 120;

/// The program as a static ELF.
fn elf() -> Vec<u8> {
    let mut code: Vec<u8> = INIT.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(CONSTANTS.iter().flat_map(|constant| constant.to_le_bytes()));
    code.extend(REPORT);
    code.extend(PLACE);
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // EXEC, AArch64, version 1; entry, program headers, no sections; one program header of 56 bytes.
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    file.extend([BASE + HEADERS, 64, 0].iter().flat_map(|word: &u64| word.to_le_bytes()));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // LOAD, readable and executable: the whole file.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    file.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|word: &u64| word.to_le_bytes()));
    file.extend(code);
    file
}

/// One member of a cpio archive in the format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn member(archive: &mut Vec<u8>, name: &str, mode: u32, device: [u32; 2], data: &[u8]) {
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    let [major, minor] = device;
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
    let fields = [0, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(data);
    pad(archive);
}

/// The archive: `/dev/console` and `/init`.
pub(crate) fn archive() -> Vec<u8> {
    let mut archive = Vec::new();
    member(&mut archive, "dev", 0o040_755, [0, 0], &[]);
    member(&mut archive, "dev/console", 0o020_600, [5, 1], &[]);
    member(&mut archive, "init", 0o100_755, [0, 0], &elf());
    member(&mut archive, "TRAILER!!!", 0, [0, 0], &[]);
    archive
}
