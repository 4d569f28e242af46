//! Debug and PMU against an implementation that is not ours: a bare-metal guest sets up registers, returns to a
//! snippet at EL0 or EL1, and prints ESR, ELR, SPSR and FAR of the exception that ends it, on
//! `qemu-system-aarch64` and on the board. Both must say the same.
//!
//! QEMU 7.2 has neither breakpoints that compare contexts without being linked, nor claim tags: those are in
//! `tests/debug.rs` alone.
//!
//! Skipped, and said so, where `qemu-system-aarch64` is not installed.

mod qemu;
#[path = "support/sysreg.rs"]
#[allow(dead_code)]
mod sysreg;
mod virt;

use sysreg::{
    CONTEXTIDR, MDCCSR, MDSCR, Name, OSLAR, OSLSR, PMCCFILTR, PMCCNTR, PMCEID0, PMCNTENCLR, PMCNTENSET, PMCR,
    PMINTENCLR, PMINTENSET, PMOVSCLR, PMOVSSET, PMSELR, PMSWINC, PMUSERENR, PMXEVCNTR, PMXEVTYPER, dbgbcr,
    dbgbvr, dbgwcr, dbgwvr, mrs, msr,
};

/// Where a flat image lies.
const IMAGE: u64 = 0x4008_0000;
/// Offsets: the vectors, the handler, the scenarios' code, their snippets, data.
const VECTORS: usize = 0x800;
const HANDLER: usize = 0x1000;
const SCENARIOS: usize = 0x2000;
const SNIPPETS: usize = 0x4_0000;
const SNIPPET_SIZE: usize = 0x40;
const DATA: u64 = IMAGE + 0x8_0000;

const NOP: u32 = 0xd503_201f;
const ISB: u32 = 0xd503_3fdf;
const ERET: u32 = 0xd69f_03e0;
const SVC: u32 = 0xd400_0001;
/// `brk #1`: how a snippet ends that nothing stops.
const END: u32 = 0xd420_0020;
const LDR: u32 = 0xf940_0020; // ldr x0, [x1]
const STR: u32 = 0xf900_0020; // str x0, [x1]

const ESR: Name = (3, 0, 5, 2, 0);
const FAR: Name = (3, 0, 6, 0, 0);
const ELR: Name = (3, 0, 4, 0, 1);
const SPSR: Name = (3, 0, 4, 0, 0);
const VBAR: Name = (3, 0, 12, 0, 0);

/// PSTATE: EL0; EL1h with D clear; EL1h with D set; SS.
const EL0: u64 = 0x3c0;
const EL1: u64 = 0x1c5;
const EL1_MASKED: u64 = 0x3c5;
const SS: u64 = 1 << 21;

/// MDSCR_EL1.
const STEP: u64 = 1;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;

/// One exception: registers to set before, the PSTATE to return to, and what is executed there with X1 given.
struct Scenario {
    registers: Vec<(Name, u64)>,
    pstate: u64,
    x1: u64,
    snippet: Vec<u32>,
}

/// MOVZ and MOVK of all 64 bits.
fn load_constant(rd: u32, value: u64) -> [u32; 4] {
    [0, 1, 2, 3].map(|part| {
        let base = if part == 0 { 0xd280_0000 } else { 0xf280_0000 };
        base | part << 21 | ((value >> (16 * part) & 0xffff) as u32) << 5 | rd
    })
}

/// B or BL from one offset to another.
fn branch(link: bool, from: usize, to: usize) -> u32 {
    let offset = (to as i64 - from as i64) / 4;
    0x1400_0000 | u32::from(link) << 31 | offset as u32 & 0x03ff_ffff
}

/// The image's words by offset.
struct Assembly {
    words: Vec<u32>,
}

impl Assembly {
    fn at(&mut self, offset: usize, words: &[u32]) -> usize {
        let end = offset / 4 + words.len();
        if self.words.len() < end {
            self.words.resize(end, 0);
        }
        self.words[offset / 4..end].copy_from_slice(words);
        offset + 4 * words.len()
    }
}

/// The routine that prints X0 in hexadecimal and a space.
const PRINT: [u32; 14] = [
    0xd2a1_2013, // mov x19, #0x9000000
    0x5280_0782, // mov w2, #60
    0x9ac2_2403, // digit: lsr x3, x0, x2
    0x1200_0c63, // and w3, w3, #0xf
    0x7100_287f, // cmp w3, #10
    0x5280_0604, // mov w4, #'0'
    0x5280_0ae5, // mov w5, #'a' - 10
    0x1a85_3084, // csel w4, w4, w5, lo
    0x0b03_0084, // add w4, w4, w3
    0xb900_0264, // str w4, [x19]
    0x7100_1042, // subs w2, w2, #4
    0x54ff_fee5, // b.pl digit
    0xd65f_03c0, // ret
    NOP,
];

/// MOV w4, #c; STR w4, [x19].
fn character(c: u8) -> [u32; 2] {
    [0x5280_0004 | u32::from(c) << 5, 0xb900_0264]
}

fn image(scenarios: &[Scenario]) -> Vec<u8> {
    let mut code = Assembly { words: Vec::new() };
    let print = HANDLER + 0x100;
    code.at(print, &PRINT);
    for vector in 0..16 {
        let offset = VECTORS + 0x80 * vector;
        code.at(offset, &[branch(false, offset, HANDLER)]);
    }
    // The handler: debug off, then what the exception left, and on to X28.
    let mut at = code.at(HANDLER, &[msr(MDSCR, 31), ISB]);
    for register in [ESR, ELR, SPSR, FAR] {
        at = code.at(at, &[mrs(register, 0), branch(true, at + 4, print)]);
        at = code.at(at, &character(b' '));
    }
    at = code.at(at, &character(b'\n'));
    code.at(at, &[0xd61f_0380]); // br x28

    // Entry: over to the first scenario, with the vectors set.
    code.at(0, &[branch(false, 0, SCENARIOS)]);
    let mut at = code.at(SCENARIOS, &load_constant(3, IMAGE + VECTORS as u64));
    at = code.at(at, &[msr(VBAR, 3), msr(OSLAR, 31), ISB]);
    for (number, scenario) in scenarios.iter().enumerate() {
        let snippet = SNIPPETS + number * SNIPPET_SIZE;
        code.at(snippet, &scenario.snippet);
        code.at(snippet + 4 * scenario.snippet.len(), &[END]);
        let before = [
            (FAR, 0),
            (ELR, IMAGE + snippet as u64),
            (SPSR, scenario.pstate),
            (CONTEXTIDR, 0),
            (PMUSERENR, 0),
        ];
        let off = [dbgbcr(0), dbgbcr(1), dbgwcr(0), dbgwcr(1)].map(|name| (name, 0));
        for (name, value) in before.into_iter().chain(off).chain(scenario.registers.iter().copied()) {
            at = code.at(at, &load_constant(3, value));
            at = code.at(at, &[msr(name, 3)]);
        }
        at = code.at(at, &load_constant(1, scenario.x1));
        // adr x28, . + 12
        at = code.at(at, &[0x1000_007c, ISB, ERET]);
    }
    // PSCI SYSTEM_OFF.
    code.at(at, &[0x5280_0100, 0x72b0_8000, 0xd400_0002, 0x1400_0000]);
    assert!(at < SNIPPETS, "too many scenarios");
    assert!(SNIPPETS + scenarios.len() * SNIPPET_SIZE < 0x8_0000, "too many snippets");
    code.at((DATA - IMAGE) as usize, &[0; 0x400]);
    code.words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn on_board(image: &[u8]) -> String {
    virt::console(image, 10_000_000)
}

/// Runs the scenarios on both; each must end the same. Gives the ESRs.
fn compare(name: &str, scenarios: &[Scenario]) -> Option<Vec<u64>> {
    let image = image(scenarios);
    let Some(on_qemu) = qemu::console(&image, name) else {
        qemu::skipped(name);
        return None;
    };
    let on_board = on_board(&image);
    for (number, (board, qemu)) in on_board.lines().zip(on_qemu.lines()).enumerate() {
        let Scenario { registers, pstate, x1, snippet } = &scenarios[number];
        assert_eq!(board, qemu, "scenario {number}: {registers:x?} {pstate:#x} {x1:#x} {snippet:x?}");
    }
    assert_eq!((on_board.lines().count(), on_qemu.lines().count()), (scenarios.len(), scenarios.len()));
    let esr = |line: &str| u64::from_str_radix(&line[..16], 16).expect("hex");
    Some(on_board.lines().map(esr).collect())
}

/// How often each exception class came up.
fn classes(esrs: &[u64]) -> std::collections::BTreeMap<u64, usize> {
    let mut classes = std::collections::BTreeMap::new();
    for esr in esrs {
        *classes.entry(esr >> 26).or_default() += 1;
    }
    classes
}

#[test]
fn software_step_is_qemus() {
    let mut scenarios = Vec::new();
    for mdscr in [0, STEP, STEP | KDE, KDE] {
        for pstate in [EL0, EL1, EL1_MASKED] {
            for ss in [0, SS] {
                // nop; ldxr x0, [x1]; b . + 8; svc; str; cbz x1, . + 8; an undefined word; brk.
                for word in [NOP, 0xc85f_7c20, 0x1400_0002, SVC, STR, 0xb400_0041, 0x0000_0001, 0xd420_0560] {
                    scenarios.push(Scenario {
                        registers: vec![(MDSCR, mdscr)],
                        pstate: pstate | ss,
                        x1: DATA,
                        snippet: vec![word, NOP, NOP],
                    });
                }
            }
        }
    }
    let Some(esrs) = compare("software_step_is_qemus", &scenarios) else { return };
    let classes = classes(&esrs);
    for class in [0x32, 0x33] {
        assert!(classes.get(&class).is_some_and(|count| *count >= 8), "{class:#x}: {classes:?}");
    }
}

#[test]
fn breakpoints_are_qemus() {
    let mut scenarios = Vec::new();
    for mdscr in [MDE, MDE | KDE, KDE] {
        for pstate in [EL0, EL1, EL1_MASKED] {
            for control in [1, 1 | 1 << 1, 1 | 2 << 1, 1 | 3 << 1, 3 << 1] {
                for (other, ssc) in [(0, 0), (0, 1), (control, 0), (control, 1)] {
                    let here = IMAGE + (SNIPPETS + scenarios.len() * SNIPPET_SIZE) as u64;
                    // BAS = 0b1111: QEMU's CPU has AArch32.
                    scenarios.push(Scenario {
                        registers: vec![
                            (dbgbvr(1), here + 4),
                            (dbgbcr(1), other | 0x1e0 | ssc << 14),
                            (dbgbvr(0), here + 8),
                            (dbgbcr(0), control | 0x1e0 | ssc << 14),
                            (MDSCR, mdscr),
                        ],
                        pstate,
                        x1: DATA,
                        snippet: vec![NOP, NOP, NOP],
                    });
                }
            }
        }
    }
    let Some(esrs) = compare("breakpoints_are_qemus", &scenarios) else { return };
    let classes = classes(&esrs);
    for class in [0x30, 0x31] {
        assert!(classes.get(&class).is_some_and(|count| *count >= 8), "{class:#x}: {classes:?}");
    }
}

#[test]
fn watchpoints_are_qemus() {
    let mut scenarios = Vec::new();
    for pstate in [EL0, EL1] {
        for access in [LDR, STR] {
            for (lsc, bas, mask) in [
                (1, 0xff, 0),
                (2, 0xff, 0),
                (3, 0xff, 0),
                (3, 0x01, 0),
                (3, 0x80, 0),
                (3, 0x3c, 0),
                (3, 0xff, 5),
                (3, 0xff, 8),
            ] {
                for levels in [1, 2, 3] {
                    for offset in [0, 8, 0x18, 0x40, 0xf8, 0x100] {
                        scenarios.push(Scenario {
                            registers: vec![
                                (dbgwvr(0), DATA),
                                (dbgwcr(0), 1 | levels << 1 | lsc << 3 | bas << 5 | mask << 24),
                                (MDSCR, MDE | KDE),
                            ],
                            pstate,
                            x1: DATA + offset,
                            snippet: vec![access],
                        });
                    }
                }
            }
        }
    }
    for (name, part) in
        ["watchpoints_are_qemus_1", "watchpoints_are_qemus_2"].iter().zip(scenarios.chunks(288))
    {
        let Some(esrs) = compare(name, part) else { return };
        let classes = classes(&esrs);
        let class = if part[0].pstate == EL0 { 0x34 } else { 0x35 };
        assert!(classes.get(&class).is_some_and(|count| *count >= 20), "{class:#x}: {classes:?}");
    }
}

#[test]
fn registers_read_back_and_are_trapped_as_on_qemu() {
    let mut scenarios = Vec::new();
    // Written at EL1, read back, and the bits that both CPUs have put where the handler shows them: FAR. QEMU's has
    // event counters too.
    let cycle = 1 << 31;
    for (written, read, mask) in [
        (PMCNTENSET, PMCNTENSET, cycle),
        (PMCNTENSET, PMCNTENCLR, cycle),
        (PMCNTENCLR, PMCNTENSET, cycle),
        (PMINTENSET, PMINTENCLR, cycle),
        (PMINTENCLR, PMINTENSET, cycle),
        (PMOVSSET, PMOVSCLR, cycle),
        (PMOVSCLR, PMOVSSET, cycle),
        (PMSELR, PMSELR, u64::MAX),
        (PMUSERENR, PMUSERENR, u64::MAX),
        (PMCCFILTR, PMCCFILTR, 0xc000_0000),
        (PMCEID0, PMCEID0, 1 << 0x11),
        (MDSCR, MDSCR, 0xb000),
        (OSLAR, OSLSR, 0xb),
        (dbgbvr(0), dbgbvr(0), 0x0000_ffff_ffff_fffc),
        (dbgwvr(1), dbgwvr(1), 0x0000_ffff_ffff_fffc),
        (dbgwcr(1), dbgwcr(1), 0x1f1f_ffff & !1),
    ] {
        let is_written = !matches!(written, PMCEID0);
        let [a, b, c, d] = load_constant(3, mask);
        scenarios.push(Scenario {
            registers: vec![(MDSCR, 0)],
            pstate: EL1_MASKED,
            x1: u64::MAX,
            snippet: vec![
                if is_written { msr(written, 1) } else { NOP },
                mrs(read, 0),
                a,
                b,
                c,
                d,
                0x8a03_0000, // and x0, x0, x3
                msr(FAR, 0),
                // The OS lock open again, or nothing would be stopped at any more.
                msr(OSLAR, 31),
                msr(dbgwcr(1), 31),
                msr(MDSCR, 31),
            ],
        });
    }
    // What EL0 may do.
    for user in 0..16 {
        for register in [
            PMCR, PMCNTENSET, PMCNTENCLR, PMOVSCLR, PMOVSSET, PMSWINC, PMSELR, PMCEID0, PMCCNTR, PMXEVTYPER,
            PMXEVCNTR, PMCCFILTR, PMUSERENR, PMINTENSET, MDCCSR, MDSCR,
        ] {
            for word in [msr(register, 31), mrs(register, 31)] {
                scenarios.push(Scenario {
                    registers: vec![(PMSELR, 31), (PMUSERENR, user)],
                    pstate: EL0,
                    x1: 0,
                    snippet: vec![word],
                });
            }
        }
    }
    for (number, part) in scenarios.chunks(270).enumerate() {
        let name = format!("registers_read_back_and_are_trapped_as_on_qemu_{number}");
        if compare(&name, part).is_none() {
            return;
        }
    }
}
