//! The stage-1 walk against an implementation that is not ours: a bare-metal guest executes AT
//! instructions over random tables on `qemu-system-aarch64`, prints each PAR_EL1, and [`probe`]
//! must say the same, and so must the AT instructions of our own CPU.
//!
//! Skipped, and said so, where `qemu-system-aarch64` is not installed.

mod qemu;
#[path = "support/random.rs"]
mod random;
mod virt;

use random::Random;
use seawall_machine::memory::Memory;
use seawall_machine::walk::{Access, AccessKind, FaultKind, Regime, probe};

const RAM: u64 = 0x4000_0000;
const IMAGE: u64 = RAM + 0x8_0000;
/// Offsets in the image: the level 1 table of the lower half, the records, and the random tables.
const LOWER_TABLE: usize = 0x1000;
const RECORDS: usize = 0x2000;
const TABLES: usize = 0x8_0000;
/// Random tables of 64 KiB, so that each granule's tables are aligned: two for each granule and
/// level.
const TABLE_COUNT: u64 = 24;
const TABLE_SIZE: u64 = 0x1_0000;
/// TCR_EL1 of the lower half: T0SZ 25, 4 KiB granule: its walk starts at level 1.
const LOWER_HALF: u64 = 0x19;
/// MAIR_EL1: the four Device types, non-cacheable, write-back, write-through.
const MAIR: u64 = 0xaa_ff_44_44_0c_08_04_00;

/// The guest. At RECORDS it finds the number of records, MAIR_EL1, and the records: TCR_EL1,
/// TTBR1_EL1, VA.
const CODE: [u32; 56] = [
    0xd2a12013, // mov x19, #0x9000000
    0x1000fff4, // adr x20, . + 0x1ffc (RECORDS)
    0x10007fc1, // adr x1, . + 0xff8 (LOWER_TABLE)
    0xd5182001, // msr ttbr0_el1, x1
    0xa8c10695, // ldp x21, x1, [x20], #16
    0xd518a201, // msr mair_el1, x1
    0xf9400281, // ldr x1, [x20]
    0xd5182041, // msr tcr_el1, x1
    0xd5033fdf, // isb
    0xd5381001, // mrs x1, sctlr_el1
    0xb2400021, // orr x1, x1, #1
    0xd5181001, // msr sctlr_el1, x1
    0xd5033fdf, // isb
    0xd500419f, // msr pan, #1
    0xa8c10a81, // next: ldp x1, x2, [x20], #16
    0xf8408696, // ldr x22, [x20], #8
    0xd5182041, // msr tcr_el1, x1
    0xd5182022, // msr ttbr1_el1, x2
    0xd5033fdf, // isb
    0xd508871f, // tlbi vmalle1
    0xd503379f, // dsb nsh
    0xd5033fdf, // isb
    0xd5087856, // at s1e0r, x22
    0x94000011, // bl report
    0xd5087876, // at s1e0w, x22
    0x9400000f, // bl report
    0xd5087816, // at s1e1r, x22
    0x9400000d, // bl report
    0xd5087836, // at s1e1w, x22
    0x9400000b, // bl report
    0xd5087916, // at s1e1rp, x22
    0x94000009, // bl report
    0xd5087936, // at s1e1wp, x22
    0x94000007, // bl report
    0xf10006b5, // subs x21, x21, #1
    0x54fffd61, // b.ne next
    0x52800100, // mov w0, #0x8
    0x72b08000, // movk w0, #0x8400, lsl #16 (SYSTEM_OFF)
    0xd4000002, // hvc #0
    0x14000000, // b .
    0xd5033fdf, // report: isb
    0xd5387400, // mrs x0, par_el1
    0x52800782, // mov w2, #60
    0x9ac22403, // digit: lsr x3, x0, x2
    0x12000c63, // and w3, w3, #0xf
    0x7100287f, // cmp w3, #10
    0x52800604, // mov w4, #'0'
    0x52800ae5, // mov w5, #'a' - 10
    0x1a853084, // csel w4, w4, w5, lo
    0x0b030084, // add w4, w4, w3
    0xb9000264, // str w4, [x19]
    0x71001042, // subs w2, w2, #4
    0x54fffee5, // b.pl digit
    0x52800144, // mov w4, #'\n'
    0xb9000264, // str w4, [x19]
    0xd65f03c0, // ret
];

/// What each record prints, in this order: AT S1E0R, S1E0W, S1E1R, S1E1W, S1E1RP, S1E1WP with
/// PSTATE.PAN set.
const ACCESSES: [Access; 6] = [
    Access { kind: AccessKind::AddressTranslationRead, privileged: false, pan: false },
    Access { kind: AccessKind::AddressTranslationWrite, privileged: false, pan: false },
    Access { kind: AccessKind::AddressTranslationRead, privileged: true, pan: false },
    Access { kind: AccessKind::AddressTranslationWrite, privileged: true, pan: false },
    Access { kind: AccessKind::AddressTranslationRead, privileged: true, pan: true },
    Access { kind: AccessKind::AddressTranslationWrite, privileged: true, pan: true },
];

struct Record {
    tcr: u64,
    ttbr1: u64,
    va: u64,
}

/// TG1's encodings of 4, 16 and 64 KiB, and log2 of those.
const GRANULES: [(u64, u64); 3] = [(0b10, 12), (0b01, 14), (0b11, 16)];

/// One of the two random tables for `granule` (an index into GRANULES) and `level`.
fn table(random: &mut Random, granule: u64, level: u64) -> u64 {
    IMAGE + TABLES as u64 + (granule * 8 + level * 2 + random.below(2)) * TABLE_SIZE
}

/// A descriptor for a table of `granule` and `level`: a leaf, a table of the next level, or
/// invalid. Blocks where the granule has none are left out: QEMU 7.2 takes them, which DDI 0487
/// (`AArch64.BlockDescSupported`) does not allow. `wide`: see [`record`].
fn descriptor(random: &mut Random, wide: bool, granule: u64, level: u64) -> u64 {
    let attributes = random.next() & 0xfff8_0000_0000_0ffc;
    // One leaf in eight without AF; one address in eight often too large for IPS.
    let leaf = attributes | u64::from(!random.one_in(8)) << 10;
    let output = random.next() & if random.one_in(8) { 0x0000_ffff_ffff_f000 } else { 0x0000_00ff_ffff_f000 };
    if random.one_in(16) {
        return random.next() & !1;
    }
    if level == 3 {
        return output | leaf | if random.one_in(16) { 1 } else { 3 };
    }
    let has_blocks = level == 2 || level == 1 && granule == 0;
    match random.below(4) {
        0 if has_blocks => output | leaf | 1,
        1 if !wide && random.one_in(4) => 1 << 47 | attributes | 3,
        // Few limits, or at the end of every walk nothing is allowed.
        _ if random.one_in(4) => table(random, granule, level + 1) | attributes | 3,
        _ => table(random, granule, level + 1) | attributes & 0x07ff_ffff_ffff_ffff | 3,
    }
}

/// One translation. With `wide` IPS is 48 bits; else it is less, and tables may lie beyond it:
/// those must never be read, there is no RAM.
fn record(random: &mut Random, wide: bool) -> Record {
    let granule = random.below(3);
    let (encoding, shift) = GRANULES[granule as usize];
    // T1SZ of 40 and more needs FEAT_TTST, which this QEMU CPU lacks.
    let size = 16 + random.below(24);
    let start = 3 - (63 - size - shift) / (shift - 3);
    let ips = if wide { 5 } else { random.below(5) };
    let mut tcr = LOWER_HALF | size << 16 | encoding << 30 | ips << 32;
    for (bit, one_in) in [(23, 16), (38, 2), (42, 4)] {
        tcr |= u64::from(random.one_in(one_in)) << bit;
    }
    let in_range = u64::MAX << (64 - size) | random.next();
    let va = match random.below(8) {
        0 => in_range ^ random.next() << 56,
        1 => random.next() | 1 << 55,
        _ => in_range,
    };
    Record { tcr, ttbr1: table(random, granule, start) | random.next() << 48, va }
}

/// The guest's image: code, the identity map of the lower half, records and tables.
fn image(random: &mut Random, wide: bool, records: &[Record]) -> Vec<u8> {
    let mut image: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.resize(LOWER_TABLE, 0);
    // 1 GiB of devices at 0, execute-never; 1 GiB of read-only RAM, which EL1 may execute.
    for word in [0x0060_0000_0000_0401_u64, 0x4000_0795] {
        image.extend(word.to_le_bytes());
    }
    image.resize(RECORDS, 0);
    for word in [records.len() as u64, MAIR] {
        image.extend(word.to_le_bytes());
    }
    for record in records {
        for word in [record.tcr, record.ttbr1, record.va] {
            image.extend(word.to_le_bytes());
        }
    }
    assert!(image.len() <= TABLES, "too many records");
    image.resize(TABLES, 0);
    for number in 0..TABLE_COUNT {
        for _ in 0..TABLE_SIZE / 8 {
            image.extend(descriptor(random, wide, number / 8, number % 8 / 2).to_le_bytes());
        }
    }
    image
}

/// The console of `image` on the board, whose CPU executes the AT instructions.
fn on_board(image: &[u8]) -> String {
    virt::console(image, 100_000_000)
}

/// What of QEMU's PAR_EL1 counts: not NS `[9]` and the RES1 bit `[11]`, and SH `[8:7]` only of cacheable
/// memory. Of Device and non-cacheable memory DDI 0487 wants SH = 0b10 (PAR_EL1, field SH), which
/// QEMU 7.2 does not do.
fn comparable(par: u64) -> u64 {
    let outer_always = par & 1 == 0 && (par >> 60 == 0 || par >> 56 == 0x44);
    par & if outer_always { !0xb80 } else { !0xa00 }
}

/// PAR_EL1 as AT leaves it (DDI 0487, PAR_EL1), without NS and the RES1 bit.
fn par(memory: &Memory, record: &Record, access: Access) -> u64 {
    let regime = Regime {
        sctlr: 1,
        tcr: record.tcr,
        ttbr0: IMAGE + LOWER_TABLE as u64,
        ttbr1: record.ttbr1,
        mair: MAIR,
        pa_bits: 48,
        stage2: None,
    };
    match probe(memory, &regime, record.va, access) {
        Ok(translation) => {
            u64::from(translation.attributes.mair) << 56
                | translation.pa & 0x0000_ffff_ffff_f000
                | u64::from(translation.attributes.shareability) << 7
        }
        Err(fault) => {
            assert_eq!(fault.kind, FaultKind::Stage1, "every table lies in RAM");
            u64::from(fault.status.bits()) << 1 | 1
        }
    }
}

#[test]
fn translations_and_faults_are_those_of_qemus_at_instructions() {
    let mut kinds = std::collections::BTreeMap::<String, u32>::new();
    for seed in 1..=4 {
        let (mut random, wide) = (Random(seed), seed % 2 == 0);
        let records: Vec<Record> = (0..1500).map(|_| record(&mut random, wide)).collect();
        let image = image(&mut random, wide, &records);
        let Some(on_qemu) = qemu::console(&image, &format!("walk_{seed}")) else {
            return qemu::skipped("translations_and_faults_are_those_of_qemus_at_instructions");
        };
        let on_board = on_board(&image);
        let mut memory = Memory::new(RAM, 128 << 20).expect("128 MiB");
        memory.store(IMAGE, &image).expect("fits");
        let (mut qemu_lines, mut board_lines) = (on_qemu.lines(), on_board.lines());
        for (number, record) in records.iter().enumerate() {
            let next = |lines: &mut std::str::Lines<'_>| {
                let line =
                    lines.next().unwrap_or_else(|| panic!("seed {seed}: ended before record {number}"));
                comparable(u64::from_str_radix(line.trim(), 16).expect("hex"))
            };
            for access in ACCESSES {
                let (qemu, cpu) = (next(&mut qemu_lines), next(&mut board_lines));
                let ours = comparable(par(&memory, record, access));
                let Record { tcr, ttbr1, va } = record;
                assert_eq!(
                    format!("walk {ours:#018x}, CPU {cpu:#018x}"),
                    format!("walk {qemu:#018x}, CPU {qemu:#018x}"),
                    "seed {seed} record {number}: tcr {tcr:#x} ttbr1 {ttbr1:#x} va {va:#x} {access:?}"
                );
                let kind =
                    if ours & 1 == 0 { "translated".to_owned() } else { format!("fault {:#x}", ours >> 1) };
                *kinds.entry(kind).or_default() += 1;
            }
        }
    }
    eprintln!("compared with qemu-system-aarch64: {kinds:?}");
    // The tables must have led everywhere, or nothing was compared.
    for expected in [
        "translated",
        "fault 0x4",
        "fault 0x5",
        "fault 0x7",
        "fault 0x9",
        "fault 0xe",
        "fault 0xf",
        "fault 0x1",
    ] {
        assert!(kinds.get(expected).is_some_and(|count| *count >= 20), "{expected}: {kinds:?}");
    }
}
