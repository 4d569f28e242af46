//! Devices register by register: what they hold after reset and after writes, at every size of access; against literal
//! values of their manuals, and against QEMU's `virt`, where what differs on purpose is named.

#[path = "../../machine/tests/qemu/mod.rs"]
mod qemu;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, SoftwareMachine};

/// QEMU's machine that ours is.
const MACHINE: &str = "virt,gic-version=3,its=off";
const UART: u64 = 0x0900_0000;
const RTC: u64 = 0x0901_0000;
const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080a_0000;
const SGI: u64 = GICR + 0x1_0000;
const VIRTIO: u64 = 0x0a00_0000;

/// Writes X0 as 16 digits and a line's end; changes X4 to X7. X19 is the UART.
const HEX: [u32; 13] = [
    0x5280_0804, // hex: mov w4, #64
    0x5100_1084, // digit: sub w4, w4, #4
    0x9ac4_2405, // lsr x5, x0, x4
    0x1200_0ca5, // and w5, w5, #0xf
    0x1100_c0a6, // add w6, w5, #'0'
    0x1101_5ca7, // add w7, w5, #'a' - 10
    0x7100_28bf, // cmp w5, #10
    0x1a87_30c6, // csel w6, w6, w7, lo
    0xb900_0266, // str w6, [x19]
    0x35ff_ff04, // cbnz w4, digit
    0x5280_0146, // mov w6, #'\n'
    0xb900_0266, // str w6, [x19]
    0xd65f_03c0, // ret
];
/// mov x19, #0x9000000; b to what stands behind [`HEX`].
const START: [u32; 2] = [0xd2a1_2013, 0x1400_000e];
/// mov w0, #0x84000008 (SYSTEM_OFF); hvc #0
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

/// A call of [`HEX`] behind these words.
fn call_hex(words: &mut Vec<u32>) {
    let back = (START.len() as i32).wrapping_sub(words.len() as i32) as u32 & 0x03ff_ffff;
    words.push(0x9400_0000 | back);
}

/// Puts a constant into a register.
fn constant(words: &mut Vec<u32>, register: u32, value: u64) {
    for part in 0..4 {
        let bits = (value >> (16 * part) & 0xffff) as u32;
        // movz, movk
        let opcode = if part == 0 { 0xd280_0000 } else { 0xf280_0000 };
        words.push(opcode | (part as u32) << 21 | bits << 5 | register);
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// One access by a guest.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Of so many bytes: what it reads goes to the console.
    Read(u64, u32),
    Write(u64, u32, u64),
}

use Op::{Read, Write};

/// A bare-metal guest that makes these accesses, writes what it read, 16 digits a line, and powers off. With the MMU off
/// all of it is Device memory.
fn image(ops: &[Op]) -> Vec<u8> {
    let mut words = [&START[..], &HEX].concat();
    for op in ops {
        let (Read(address, size) | Write(address, size, _)) = *op;
        let size = size.trailing_zeros();
        constant(&mut words, 1, address);
        if let Write(_, _, value) = op {
            constant(&mut words, 0, *value);
            words.push(0x3900_0020 | size << 30); // str x0, [x1]
        } else {
            words.push(0x3940_0020 | size << 30); // ldr x0, [x1]
            call_hex(&mut words);
        }
    }
    words.extend(OFF);
    bytes(&words)
}

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Observer for Console {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend(bytes);
    }
}

/// What a guest writes on our machine.
fn console(image: Vec<u8>) -> String {
    let kernel = Kernel::Flat(image);
    let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
    let console = Console::default();
    let mut machine =
        SoftwareMachine::new(Config::new(128 << 20), &guest, Box::new(console.clone())).unwrap();
    let end = machine.run(Some(10_000_000)).unwrap();
    let cpu = machine.vm_mut().vcpu(0).unwrap();
    let registers = [Reg::ElrEl1, Reg::EsrEl1, Reg::FarEl1, Reg::X(1)].map(|reg| cpu.reg(reg).unwrap());
    assert_eq!(end, Some(End::PowerOff), "ELR, ESR, FAR, X1: {registers:x?}");
    let bytes = console.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// What a guest reads of our devices.
fn ours(ops: &[Op]) -> Vec<u64> {
    values(&console(image(ops)))
}

fn values(console: &str) -> Vec<u64> {
    // What the test itself writes to the UART is not a number.
    console
        .lines()
        .filter_map(|line| u64::from_str_radix(line.get(line.len().checked_sub(16)?..)?, 16).ok())
        .collect()
}

/// What a guest reads, each with what it must.
#[track_caller]
fn check(steps: &[(Op, Option<u64>)]) {
    let ops: Vec<Op> = steps.iter().map(|(op, _)| *op).collect();
    let expected: Vec<_> = steps
        .iter()
        .filter(|(op, _)| matches!(op, Read(..)))
        .map(|(op, value)| (*op, value.unwrap()))
        .collect();
    let got = ours(&ops);
    assert_eq!(got.len(), expected.len());
    let mut wrong = String::new();
    for ((op, expected), got) in expected.iter().zip(got) {
        if *expected != got {
            writeln!(wrong, "{op:x?}: expected {expected:#x}, got {got:#x}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A read and what it must give.
fn reads(address: u64, size: u32, value: u64) -> (Op, Option<u64>) {
    (Read(address, size), Some(value))
}

fn writes(address: u64, size: u32, value: u64) -> (Op, Option<u64>) {
    (Write(address, size, value), None)
}

/// DDI 0183, table 3-1: reset values, and which bits hold what is written.
#[test]
fn the_pl011s_registers_hold_what_the_manual_says() {
    let mut steps = Vec::new();
    for (offset, reset, written) in [
        (0x004, 0, 0),       // RSR: no errors; a write clears them
        (0x018, 0x90, 0x90), // FR: TXFE, RXFE
        (0x01c, 0, 0),       // reserved
        (0x020, 0, 0xff),    // ILPR
        (0x024, 0, 0xffff),  // IBRD
        (0x028, 0, 0x3f),    // FBRD
        (0x02c, 0, 0xff),    // LCR_H
        (0x034, 0x12, 0x3f), // IFLS
        (0x038, 0, 0x7ff),   // IMSC
        (0x03c, 0x20, 0x20), // RIS: TX, as this test has written to the UART
        (0x044, 0, 0),       // ICR: write-only
        (0x048, 0, 7),       // DMACR
        (0x04c, 0, 0),       // reserved
        (0x080, 0, 0),       // test registers
        (0xfdc, 0, 0),       // reserved
        (0xfe0, 0x11, 0x11), // PeriphID0 to 3, PCellID0 to 3
        (0xfe4, 0x10, 0x10),
        (0xfe8, 0x14, 0x14),
        (0xfec, 0, 0),
        (0xff0, 0x0d, 0x0d),
        (0xff4, 0xf0, 0xf0),
        (0xff8, 0x05, 0x05),
        (0xffc, 0xb1, 0xb1),
    ] {
        // The first number that is read sets TX in RIS.
        let reset = if offset == 0x03c { 0x20 } else { reset };
        steps.push(reads(UART + offset, 4, reset));
        if offset != 0x044 {
            steps.extend([writes(UART + offset, 4, 0xffff_ffff), reads(UART + offset, 4, written)]);
        }
    }
    // CR: TXE and RXE; bits 6 to 3 are reserved. Loopback is left off, or nothing of this would be seen.
    steps.extend([
        reads(UART + 0x30, 4, 0x300),
        writes(UART + 0x30, 4, 0xffff_ff7f),
        reads(UART + 0x30, 4, 0xff07),
    ]);
    // MIS is RIS under IMSC.
    steps.extend([writes(UART + 0x38, 4, 0x20), reads(UART + 0x40, 4, 0x20)]);
    check(&steps);
}

/// 4.2.2.2 of virtio 1.2: a driver reads 32 bits; here narrower accesses see the low bytes, a wider one the word.
#[test]
fn an_empty_transport_says_that_it_is_none_at_every_size_of_access() {
    let mut steps = Vec::new();
    for transport in [0, 1, 30, 31] {
        let base = VIRTIO + 0x200 * transport;
        for (offset, value) in [(0x000, 0x7472_6976), (0x004, 2), (0x008, 0), (0x00c, 0x4c41_5753)] {
            steps.extend([
                reads(base + offset, 4, value),
                reads(base + offset, 1, value & 0xff),
                reads(base + offset, 2, value & 0xffff),
            ]);
            // Nothing of it changes by a write.
            steps.extend([writes(base + offset, 4, 0xffff_ffff), reads(base + offset, 4, value)]);
        }
        steps.push(reads(base, 8, 0x7472_6976));
        for offset in [0x010, 0x034, 0x044, 0x060, 0x070, 0x0b0, 0x0fc, 0x100, 0x1fc] {
            steps.extend([writes(base + offset, 4, 1), reads(base + offset, 4, 0)]);
        }
    }
    check(&steps);
}

/// IHI 0069, 12.9 to 12.11.
#[test]
fn the_gics_registers_hold_what_the_manual_says() {
    check(&[
        // GICD_CTLR: DS and ARE for ever, the group enables.
        reads(GICD, 4, 0x50),
        writes(GICD, 4, 0xffff_ffff),
        reads(GICD, 4, 0x53),
        // TYPER, IIDR, TYPER2, STATUSR; PIDR2: GICv3.
        reads(GICD + 0x4, 4, 0x0378_0008),
        reads(GICD + 0x8, 4, 0x43b),
        reads(GICD + 0xc, 4, 0),
        reads(GICD + 0x10, 4, 0),
        reads(GICD + 0xffe8, 4, 0x3b),
        // Registers of interrupts 0 to 31 are the redistributors': RAZ/WI here with affinity routing.
        writes(GICD + 0x80, 4, 0xffff_ffff),
        reads(GICD + 0x80, 4, 0),
        reads(GICD + 0x100, 4, 0),
        reads(GICD + 0x400, 4, 0),
        reads(GICD + 0xc00, 4, 0),
        // SPIs: group, enable and disable, pending, active, priority (five bits), trigger.
        writes(GICD + 0x84, 4, 0xffff_ffff),
        reads(GICD + 0x84, 4, 0xffff_ffff),
        writes(GICD + 0x104, 4, 0xf0),
        writes(GICD + 0x184, 4, 0x30),
        reads(GICD + 0x104, 4, 0xc0),
        reads(GICD + 0x184, 4, 0xc0),
        writes(GICD + 0x204, 4, 0x5),
        writes(GICD + 0x284, 4, 0x1),
        // The UART's line (SPI 1) is low.
        reads(GICD + 0x204, 4, 0x4),
        writes(GICD + 0x304, 4, 0x9),
        writes(GICD + 0x384, 4, 0x1),
        reads(GICD + 0x384, 4, 0x8),
        writes(GICD + 0x420, 4, 0xffff_07ff),
        reads(GICD + 0x420, 4, 0xf8f8_00f8),
        reads(GICD + 0x423, 1, 0xf8),
        writes(GICD + 0x421, 1, 0xa0),
        reads(GICD + 0x420, 4, 0xf8f8_a0f8),
        writes(GICD + 0xc08, 4, 0xffff_ffff),
        reads(GICD + 0xc08, 4, 0xaaaa_aaaa),
        // With one Security state and affinity routing: ITARGETSR, IGRPMODR, NSACR, SGIR.
        writes(GICD + 0x820, 4, 0x0101_0101),
        reads(GICD + 0x820, 4, 0),
        writes(GICD + 0xd04, 4, 0xffff_ffff),
        reads(GICD + 0xd04, 4, 0),
        reads(GICD + 0xe08, 4, 0),
        reads(GICD + 0xf00, 4, 0),
        // GICD_IROUTER: the affinity, at both sizes; there is no 1 of N.
        writes(GICD + 0x6100, 8, u64::MAX),
        reads(GICD + 0x6100, 8, 0xff_00ff_ffff),
        reads(GICD + 0x6104, 4, 0xff),
        // Beyond 287.
        reads(GICD + 0x124, 4, 0),
        reads(GICD + 0x6900, 8, 0),
        // Sizes that a register does not have.
        reads(GICD + 0x4, 1, 0),
        reads(GICD + 0x4, 2, 0),
        reads(GICD + 0x8, 8, 0),
        // GICR: CTLR, IIDR, TYPER (the last), WAKER; PIDR2.
        reads(GICR, 4, 0),
        reads(GICR + 0x4, 4, 0x43b),
        reads(GICR + 0x8, 8, 0x10),
        reads(GICR + 0x8, 4, 0x10),
        reads(GICR + 0xc, 4, 0),
        reads(GICR + 0x14, 4, 6),
        writes(GICR + 0x14, 4, 0),
        reads(GICR + 0x14, 4, 0),
        reads(GICR + 0xffe8, 4, 0x3b),
        // There are no LPIs: PROPBASER, PENDBASER.
        writes(GICR + 0x70, 8, u64::MAX),
        reads(GICR + 0x70, 8, 0),
        // SGIs and PPIs; the SGIs' trigger is fixed.
        writes(SGI + 0x80, 4, 0xffff_0000),
        reads(SGI + 0x80, 4, 0xffff_0000),
        reads(SGI + 0xc00, 4, 0xaaaa_aaaa),
        writes(SGI + 0xc00, 4, 0),
        reads(SGI + 0xc00, 4, 0xaaaa_aaaa),
        reads(SGI + 0xc04, 4, 0),
        writes(SGI + 0x404, 1, 0x55),
        reads(SGI + 0x404, 4, 0x50),
    ]);
}

/// What both can be asked. Not among it, as it differs on purpose:
///
/// - virtio's Version (QEMU has the legacy interface unless told otherwise, ours is that of virtio 1) and VendorID
/// - GICD_TYPER.LPIS and GICR_TYPER.PLPIS where QEMU has an ITS
/// - reserved bits of the UART that are written as ones: QEMU keeps them
/// - UARTCR.LBE, which QEMU 7.2 does not have
fn compared() -> Vec<Op> {
    let mut ops = Vec::new();
    for size in [4, 1, 2] {
        ops.extend(
            (0..0x50).step_by(4).filter(|offset| *offset != 0).map(|offset| Read(UART + offset, size)),
        );
        ops.extend((0xfe0..0x1000).step_by(4).map(|offset| Read(UART + offset, size)));
        // But for DR, which is the time.
        ops.extend((4..0x24).step_by(4).map(|offset| Read(RTC + offset, size)));
        ops.extend((0xfe0..0x1000).step_by(4).map(|offset| Read(RTC + offset, size)));
        ops.extend([0, 8, 0x10, 0x34, 0x60, 0x70, 0x100].map(|offset| Read(VIRTIO + offset, size)));
        ops.extend([0, 8].map(|offset| Read(VIRTIO + 0x3e00 + offset, size)));
    }
    // What holds a value: UART, RTC (its match register is far off), GIC.
    for (address, value) in [
        (UART + 0x24, 0x1234),
        (UART + 0x28, 0x15),
        (UART + 0x2c, 0x70),
        (UART + 0x30, 0x301),
        (UART + 0x34, 0x1a),
        (UART + 0x38, 0x7f2),
        (RTC + 0x04, 0x1000),
        (RTC + 0x0c, 0),
        (RTC + 0x10, 1),
        (RTC + 0x14, 1),
        (RTC + 0x1c, 1),
        (RTC + 0xfe8, 0xff),
        (GICD, 3),
        (GICD + 0x84, 0xffff_ffff),
        (GICD + 0x104, 0xf0),
        (GICD + 0x420, 0xf8a0_1008),
        (GICD + 0xc08, 0xffff_ffff),
        (GICD + 0xc0c, 0x8888_8888),
        (GICD + 0x820, 0x0101_0101),
        (GICD + 0x8, 0xffff_ffff),
        (GICR + 0x14, 0),
        (SGI + 0x80, 0xffff_ffff),
        (SGI + 0x100, 0xf),
        (SGI + 0x404, 0x9080_7060),
        (SGI + 0xc00, 0),
    ] {
        ops.extend([Write(address, 4, value), Read(address, 4)]);
    }
    ops.extend([
        Read(GICD + 0x10, 4),
        Read(GICD + 0xffe8, 4),
        Read(GICD + 0x124, 4),
        Read(GICD + 0x80, 4),
        Read(GICR + 0xffe8, 4),
        // GICR_TYPER's affinity. The lower half says on QEMU that there are LPIs (bit 0), though `its=off`; there are none
        // here.
        Read(GICR + 0xc, 4),
        Write(GICD + 0x6100, 8, 0x1),
        Read(GICD + 0x6100, 8),
        Write(GICD + 0x422, 1, 0x50),
        Read(GICD + 0x420, 4),
        Read(GICD + 0x420, 1),
        // RIS and MIS, which say that this was written to the UART.
        Read(UART + 0x3c, 4),
        Read(UART + 0x40, 4),
        Write(UART + 0x44, 4, 0x7ff),
    ]);
    ops
}

#[test]
fn the_registers_read_as_qemus_do() {
    let ops = compared();
    let Some(qemu) = qemu::console_on(MACHINE, &image(&ops), "registers") else {
        return qemu::skipped("the_registers_read_as_qemus_do");
    };
    let (qemu, ours) = (values(&qemu), ours(&ops));
    let read: Vec<Op> = ops.iter().filter(|op| matches!(op, Read(..))).copied().collect();
    assert_eq!((qemu.len(), ours.len()), (read.len(), read.len()));
    let mut differs = String::new();
    for ((op, qemu), ours) in read.iter().zip(qemu).zip(ours) {
        if qemu != ours {
            writeln!(differs, "{op:x?}: QEMU {qemu:#x}, ours {ours:#x}").unwrap();
        }
    }
    assert_eq!(differs, "");
}

/// Takes an abort at each of these words, with X3 = 0x90000000 where there is nothing (at 0x20000000 QEMU has a window of
/// PCI, which answers with ones), and writes its ESR and FAR.
fn aborts(accesses: &[u32]) -> Vec<u8> {
    let mut words = [&START[..], &HEX].concat();
    constant(&mut words, 9, 0x4008_0800);
    words.extend([0xd518_c009, 0xd503_3fdf]); // msr vbar_el1, x9; isb
    constant(&mut words, 3, 0x9000_0000);
    words.extend(accesses);
    words.extend(OFF);
    words.resize((0x800 + 0x200) / 4, 0x1400_0000); // b .
    words.push(0xd538_5200); // mrs x0, esr_el1
    call_hex(&mut words);
    words.push(0xd538_6000); // mrs x0, far_el1
    call_hex(&mut words);
    // mrs x0, elr_el1; add x0, x0, #4; msr elr_el1, x0; eret
    words.extend([0xd538_4020, 0x9100_1000, 0xd518_4020, 0xd69f_03e0]);
    bytes(&words)
}

#[test]
fn nobody_answers_as_on_qemu() {
    // ldr w2, [x3]; str w2, [x3, #8]; ldp x4, x5, [x3]; stp x4, x5, [x3]; ldrb w2, [x3], #1; ldxr w2, [x3]
    let image = aborts(&[0xb940_0062, 0xb900_0862, 0xa940_1464, 0xa900_1464, 0x3840_1462, 0x885f_7c62]);
    let ours = console(image.clone());
    let (load, store) = (0x9600_0010, 0x9600_0050);
    let at = 0x9000_0000;
    assert_eq!(values(&ours), [load, at, store, at + 8, load, at, store, at, load, at, load, at]);
    match qemu::console_on(MACHINE, &image, "aborts") {
        Some(qemu) => assert_eq!(ours, qemu),
        None => qemu::skipped("nobody_answers_as_on_qemu"),
    }
}

/// Sets the RTC's match register a second ahead and waits for an interrupt: writes MIS, how far the counter is past the
/// match, RIS after RTCICR, and the interrupt's number, each as a character from '0' on.
const ALARM: [u32; 35] = [
    0xd2a1_2021, // mov x1, #0x9010000
    0xb940_0022, // ldr w2, [x1]
    0x1100_0442, // add w2, w2, #1
    0xb900_0422, // str w2, [x1, #4]
    0x5280_0023, // mov w3, #1
    0xb900_1023, // str w3, [x1, #0x10]
    0xd2a1_0004, // mov x4, #0x8000000
    0x5280_0065, // mov w5, #3
    0xb900_0085, // str w5, [x4]
    0x5280_0085, // mov w5, #4
    0xb900_8485, // str w5, [x4, #0x84]
    0xb901_0485, // str w5, [x4, #0x104]
    0xd280_1fe6, // mov x6, #0xff
    0xd518_4606, // msr icc_pmr_el1, x6
    0xd518_cce3, // msr icc_igrpen1_el1, x3
    0xd503_3fdf, // isb
    0xd503_207f, // wfi
    0xb940_1827, // ldr w7, [x1, #0x18]
    0xb940_0029, // ldr w9, [x1]
    0x4b02_0129, // sub w9, w9, w2
    0xd538_cc08, // mrs x8, icc_iar1_el1
    0xb900_1c23, // str w3, [x1, #0x1c]
    0xb940_142a, // ldr w10, [x1, #0x14]
    0xd2a1_200b, // mov x11, #0x9000000
    0x1100_c0e7, // add w7, w7, #'0'
    0xb900_0167, // str w7, [x11]
    0x1100_c129, // add w9, w9, #'0'
    0xb900_0169, // str w9, [x11]
    0x1100_c14a, // add w10, w10, #'0'
    0xb900_016a, // str w10, [x11]
    0x1100_c108, // add w8, w8, #'0'
    0xb900_0168, // str w8, [x11]
    OFF[0],
    OFF[1],
    OFF[2],
];

/// SPI 2 is INTID 34.
#[test]
fn the_rtcs_alarm_is_an_interrupt_as_on_qemu() {
    let ours = console(bytes(&ALARM));
    assert_eq!(ours, "100R");
    match qemu::console_on(MACHINE, &bytes(&ALARM), "alarm") {
        Some(qemu) => assert_eq!(ours, qemu),
        None => qemu::skipped("the_rtcs_alarm_is_an_interrupt_as_on_qemu"),
    }
}

#[test]
fn an_alarm_comes_at_the_same_time_however_a_run_is_cut() {
    let run = |slice: u64| {
        let kernel = Kernel::Flat(bytes(&ALARM));
        let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
        let console = Console::default();
        let mut machine =
            SoftwareMachine::new(Config::new(2 << 20), &guest, Box::new(console.clone())).unwrap();
        while machine.run(Some(slice)).unwrap().is_none() {
            assert!(machine.instructions() < 100);
        }
        let text = String::from_utf8(console.0.lock().unwrap().clone()).unwrap();
        (text, machine.time(), machine.instructions(), machine.state_hash())
    };
    let whole = run(1000);
    // The second, and what is executed after it.
    assert_eq!((whole.0.as_str(), whole.1, whole.2), ("100R", 1_000_000_018, 35));
    for slice in [1, 2, 17] {
        assert_eq!(run(slice), whole, "{slice} steps at a time");
    }
}
