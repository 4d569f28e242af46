//! EL2 against an implementation that is not ours: a bare-metal guest sets up registers at EL2, returns to a snippet at
//! EL1, and prints what came of it, on `qemu-system-aarch64 -M virt,virtualization=on` and on the machine. Both must say
//! the same of stage 2, of trap syndromes, of list registers and of timers. A difference names seed and case.
//!
//! The cases leave out, because of QEMU 7.2: identification registers as such (another CPU), TIDCP, small tables (FEAT_TTST),
//! hardware's updates of stage 2, ICH_HCR_EL2.VGrp0DIE (it looks at the enable of group 1), EOIcount in EOI mode 1, and
//! MDCR_EL2.TPMCR.
//!
//! Skipped, and said so, where `qemu-system-aarch64` is not installed.

mod lists;
#[path = "../qemu/mod.rs"]
mod qemu;
#[path = "../support/random.rs"]
mod random;
mod stage2;
#[path = "../support/sysreg.rs"]
#[allow(dead_code)]
mod sysreg;
mod timers;
mod traps;
#[path = "../virt/mod.rs"]
mod virt;

use std::collections::BTreeMap;

use sysreg::{Name, mrs, msr};

/// Where a flat image lies; offsets in it: EL1's vectors, EL2's, the printer, stage 2 for the snippets, the snippets, the
/// random tables, the cases.
const IMAGE: u64 = 0x4008_0000;
const EL1_VECTORS: usize = 0x1000;
const EL2_VECTORS: usize = 0x1800;
const PRINT: usize = 0x2000;
const HANDLER: usize = 0x2080;
const IDENTITY: usize = 0x3000;
const SNIPPETS: usize = 0x1_0000;
const SNIPPET_SIZE: usize = 0x40;
const TABLES: usize = 0x8_0000;
const TABLE_SIZE: u64 = 0x1_0000;
const CASES: usize = 0x20_0000;

const ISB: u32 = 0xd503_3fdf;
const DSB: u32 = 0xd503_3f9f;
const ERET: u32 = 0xd69f_03e0;
const TLBI_ALLE1: u32 = 0xd50c_879f;
const RET: u32 = 0xd65f_03c0;
const SMC: u32 = 0xd400_0003;
/// DC ZVA, X0.
const DC_ZVA: u32 = 0xd50b_7420;

const HCR: Name = (3, 4, 1, 1, 0);
const MDCR: Name = (3, 4, 1, 1, 1);
const CPTR: Name = (3, 4, 1, 1, 2);
const VTTBR: Name = (3, 4, 2, 1, 0);
const VTCR: Name = (3, 4, 2, 1, 2);
const SPSR_EL2: Name = (3, 4, 4, 0, 0);
const ELR_EL2: Name = (3, 4, 4, 0, 1);
const ESR_EL2: Name = (3, 4, 5, 2, 0);
const FAR_EL2: Name = (3, 4, 6, 0, 0);
const HPFAR: Name = (3, 4, 6, 0, 4);
const VBAR_EL2: Name = (3, 4, 12, 0, 0);
const ICC_SRE_EL2: Name = (3, 4, 12, 9, 5);
const CNTVOFF: Name = (3, 4, 14, 0, 3);
const CNTHCTL: Name = (3, 4, 14, 1, 0);
const ICH_AP0R0: Name = (3, 4, 12, 8, 0);
const ICH_AP1R0: Name = (3, 4, 12, 9, 0);
const ICH_HCR: Name = (3, 4, 12, 11, 0);
const ICH_MISR: Name = (3, 4, 12, 11, 2);
const ICH_EISR: Name = (3, 4, 12, 11, 3);
const ICH_ELRSR: Name = (3, 4, 12, 11, 5);
const ICH_VMCR: Name = (3, 4, 12, 11, 7);
const SCTLR_EL12: Name = (3, 5, 1, 0, 0);
const CPACR_EL12: Name = (3, 5, 1, 0, 2);
const ESR_EL12: Name = (3, 5, 5, 2, 0);
const FAR_EL12: Name = (3, 5, 6, 0, 0);
const VBAR_EL12: Name = (3, 5, 12, 0, 0);
const PAR: Name = (3, 0, 7, 4, 0);

/// E2H, RW: what each HCR_EL2 here has.
const HCR_BASE: u64 = 1 << 34 | 1 << 31;
const VM: u64 = 1;
/// VTCR_EL2 of the identity map: T0SZ 32, level 1, 4 KiB, 40 bits.
const IDENTITY_VTCR: u64 = 1 << 31 | 2 << 16 | 1 << 6 | 32;
const SCTLR_RES1: u64 = 0x30d0_0800;
/// EL1h, DAIF.
const EL1H: u64 = 0x3c5;
/// Bytes that snippets may use: x0's value.
const DATA: u64 = IMAGE + 0x8000;

/// One case: registers of EL2 to set, then code at EL2 (`here`) or at EL1 (`snippet`, with X0), and what is printed.
#[derive(Default)]
struct Case {
    what: String,
    set: Vec<(Name, u64)>,
    x0: u64,
    here: Vec<u32>,
    snippet: Vec<u32>,
    /// How many of X0 to X3 are printed.
    general: u8,
    report: Vec<Name>,
}

/// MOVZ and MOVKs.
fn constant(code: &mut Vec<u32>, register: u32, value: u64) {
    for part in 0..4 {
        let bits = (value >> (16 * part)) as u32 & 0xffff;
        let op = if part == 0 { 0xd280_0000 } else { 0xf280_0000 };
        if part == 0 || bits != 0 {
            code.push(op | part << 21 | bits << 5 | register);
        }
    }
}

/// A branch from one word's offset in the image to another's.
fn branch(op: u32, from: usize, to: usize) -> u32 {
    op | ((to as i64 - from as i64) / 4) as u32 & 0x03ff_ffff
}

impl Case {
    /// The case's code, which lies at `at` in the image; its snippet is number `number`.
    fn code(&self, at: usize, number: usize) -> Vec<u32> {
        let mut code = Vec::new();
        for (name, value) in &self.set {
            constant(&mut code, 0, *value);
            code.push(msr(*name, 0));
        }
        constant(&mut code, 0, self.x0);
        let print = |code: &mut Vec<u32>| code.push(branch(0x9400_0000, at + 4 * code.len(), PRINT));
        if self.snippet.is_empty() {
            code.extend([TLBI_ALLE1, DSB, ISB]);
            // An exception goes on behind the code, too.
            code.push(0x1000_0000 | (self.here.len() as u32 + 1) << 5 | 0x19);
            code.extend(&self.here);
        } else {
            constant(&mut code, 1, IMAGE + (SNIPPETS + number * SNIPPET_SIZE) as u64);
            code.extend([msr(ELR_EL2, 1)]);
            constant(&mut code, 1, EL1H);
            code.push(msr(SPSR_EL2, 1));
            // x25: where the handler goes on. adr x25, . + 4 * distance
            code.extend([TLBI_ALLE1, DSB, ISB]);
            let distance = 5;
            code.push(0x1000_0000 | distance << 5 | 0x19);
            // x1 to x3 are 0.
            code.extend([0xd280_0001, 0xd280_0002, 0xd280_0003, ERET]);
            // The vector's number; X0 to X3 of the snippet are in x26 to x29.
            code.push(0xaa18_03e0);
            print(&mut code);
        }
        for n in 0..u32::from(self.general) {
            // mov x0, x26 + n
            code.push(0xaa00_03e0 | (26 + n) << 16);
            print(&mut code);
        }
        for name in &self.report {
            code.push(mrs(*name, 0));
            print(&mut code);
        }
        code
    }

    fn lines(&self) -> usize {
        usize::from(!self.snippet.is_empty()) + usize::from(self.general) + self.report.len()
    }
}

fn put(image: &mut Vec<u8>, at: usize, words: &[u32]) {
    image.resize(image.len().max(at + 4 * words.len()), 0);
    for (word, bytes) in words.iter().zip(image[at..].chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// The image of these cases, with random tables.
fn image(cases: &[Case], tables: &[u64]) -> Vec<u8> {
    let mut image = vec![0; CASES];
    let mut start = Vec::new();
    constant(&mut start, 0, HCR_BASE);
    start.extend([msr(HCR, 0), ISB]);
    for (name, value) in [
        (VBAR_EL2, IMAGE + EL2_VECTORS as u64),
        (VBAR_EL12, IMAGE + EL1_VECTORS as u64),
        (ICC_SRE_EL2, 0xf),
        (CPTR, 3 << 20),
    ] {
        constant(&mut start, 0, value);
        start.push(msr(name, 0));
    }
    constant(&mut start, 19, 0x0900_0000);
    start.push(ISB);
    start.push(branch(0x1400_0000, 4 * start.len(), CASES));
    put(&mut image, 0, &start);
    for vector in 0..16 {
        // EL1: hvc #0x100 + n. EL2: mov x24, #n; b handler.
        put(&mut image, EL1_VECTORS + 0x80 * vector, &[0xd400_2002 | (vector as u32) << 5]);
        let at = EL2_VECTORS + 0x80 * vector;
        let number = 0xd280_0018 | (vector as u32) << 5;
        put(&mut image, at, &[number, branch(0x1400_0000, at + 4, HANDLER)]);
    }
    // x0: 16 digits and a newline to the UART at x19.
    let print = [
        0x5280_0782,
        0x9ac2_2403,
        0x1200_0c63,
        0x7100_287f,
        0x5280_0604,
        0x5280_0ae5,
        0x1a85_3084,
        0x0b03_0084,
        0xb900_0264,
        0x7100_1042,
        0x54ff_fee5,
        0x5280_0144,
        0xb900_0264,
        RET,
    ];
    put(&mut image, PRINT, &print);
    // mov x26, x0; mov x27, x1; mov x28, x2; mov x29, x3; br x25
    put(&mut image, HANDLER, &[0xaa00_03fa, 0xaa01_03fb, 0xaa02_03fc, 0xaa03_03fd, 0xd61f_0320]);
    // 1 GiB blocks: nothing, RAM.
    let block = 0x4000_0000_u64 | 1 << 10 | 3 << 8 | 3 << 6 | 0xf << 2 | 1;
    put(&mut image, IDENTITY + 8, &[block as u32, (block >> 32) as u32]);
    for (number, descriptor) in tables.iter().enumerate() {
        put(&mut image, TABLES + 8 * number, &[*descriptor as u32, (descriptor >> 32) as u32]);
    }
    for (number, case) in cases.iter().enumerate() {
        assert!(4 * case.snippet.len() <= SNIPPET_SIZE);
        put(&mut image, SNIPPETS + number * SNIPPET_SIZE, &case.snippet);
        let at = image.len();
        put(&mut image, at, &case.code(at, number));
    }
    let mut end = Vec::new();
    constant(&mut end, 0, 0x8400_0008);
    end.push(SMC);
    let at = image.len();
    put(&mut image, at, &end);
    image
}

/// Plays the cases on both, and compares line by line; gives how often each first line came, or `None` without QEMU.
#[track_caller]
fn compare(test: &str, seed: u64, cases: &[Case], tables: &[u64]) -> Option<BTreeMap<String, u32>> {
    assert!(SNIPPETS + cases.len() * SNIPPET_SIZE <= TABLES, "too many cases");
    let image = image(cases, tables);
    let machine = "virt,virtualization=on,gic-version=3";
    let Some(theirs) = qemu::console_on(machine, &image, &format!("{test}_{seed}")) else {
        qemu::skipped(test);
        return None;
    };
    let ours = virt::console_at_el2(&image, 2_000_000_000);
    let (mut ours, mut theirs) = (ours.lines(), theirs.lines());
    let mut kinds = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        let (own, other): (Vec<&str>, Vec<&str>) = (0..case.lines())
            .map(|_| (ours.next().unwrap_or("nothing"), theirs.next().unwrap_or("nothing")))
            .unzip();
        assert_eq!(own, other, "seed {seed}, case {number}: {}", case.what);
        let kind = own.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!((ours.next(), theirs.next()), (None, None), "seed {seed}");
    Some(kinds)
}

/// Registers that each case at EL1 begins with.
fn base(hcr: u64) -> Vec<(Name, u64)> {
    vec![
        (HCR, HCR_BASE | VM | hcr),
        (VTCR, IDENTITY_VTCR),
        (VTTBR, IMAGE + IDENTITY as u64),
        (SCTLR_EL12, SCTLR_RES1),
        (CPACR_EL12, 3 << 20),
        (VBAR_EL12, IMAGE + EL1_VECTORS as u64),
        (ESR_EL12, 0),
        (FAR_EL12, 0),
    ]
}
