//! Traps of EL2, and their syndromes.

use std::collections::BTreeMap;

use super::random::Random;
use super::sysreg::{mrs, msr};
use super::*;

/// What EL1 may execute: one instruction of each kind that a trap of EL2 names.
fn trapped_word(random: &mut Random) -> u32 {
    const READS: [Name; 22] = [
        (3, 0, 0, 0, 6),
        (3, 1, 0, 0, 7),
        (3, 1, 0, 0, 1),
        (3, 3, 0, 0, 1),
        (3, 0, 0, 4, 0),
        (3, 0, 0, 7, 1),
        (3, 0, 1, 0, 0),
        (3, 0, 2, 0, 0),
        (3, 0, 2, 0, 2),
        (3, 0, 10, 2, 0),
        (3, 0, 13, 0, 1),
        (3, 0, 1, 0, 1),
        (3, 0, 1, 0, 2),
        (3, 3, 14, 0, 1),
        (3, 3, 14, 2, 1),
        (3, 3, 9, 12, 0),
        (3, 3, 9, 13, 0),
        (2, 0, 0, 2, 2),
        (2, 0, 1, 1, 4),
        (2, 0, 1, 0, 0),
        (3, 0, 4, 6, 0),
        (3, 0, 12, 12, 4),
    ];
    const WRITES: [Name; 17] = [
        (3, 0, 2, 0, 1),
        (3, 0, 5, 2, 0),
        (3, 0, 6, 0, 0),
        (3, 0, 5, 1, 0),
        (3, 0, 10, 3, 0),
        (3, 0, 13, 0, 1),
        (3, 0, 1, 0, 1),
        (3, 2, 0, 0, 0),
        (3, 3, 14, 2, 2),
        (3, 3, 9, 14, 0),
        (2, 0, 1, 0, 4),
        (3, 0, 12, 11, 5),
        (3, 0, 12, 11, 1),
        (3, 0, 12, 12, 6),
        (3, 0, 12, 12, 7),
        (3, 0, 12, 8, 1),
        (3, 0, 12, 12, 1),
    ];
    const OTHERS: [u32; 16] = [
        0xd508_7640, // dc isw, x0
        0xd50b_7a20, // dc cvac, x0
        0xd50b_7e20, // dc civac, x0
        0xd50b_7b20, // dc cvau, x0
        0xd50b_7520, // ic ivau, x0
        0xd508_751f, // ic iallu
        DC_ZVA,
        0xd508_871f, // tlbi vmalle1
        0xd508_8320, // tlbi vae1is, x0
        0xd503_207f, // wfi
        0xd400_0003, // smc #0
        0xd400_0042, // hvc #2
        0x1e27_03e0, // fmov s0, wzr
        0xd51c_1100, // msr hcr_el2, x0: UNDEFINED
        0xd53c_5200, // mrs x0, esr_el2: UNDEFINED
        0xd400_0001, // svc #0
    ];
    match random.below(3) {
        0 => mrs(random.pick(&READS), 0),
        1 => msr(random.pick(&WRITES), 0),
        _ => random.pick(&OTHERS),
    }
}

fn trap_case(random: &mut Random) -> Case {
    // FMO, IMO, TID1 to TID3, TSC, TACR, TSW, TPC, TPU, TTLB, TVM, TDZ, TRVM; TWI always, as WFI would wait.
    let traps = 3 << 3 | 7 << 16 | 1 << 19 | 1 << 21 | 7 << 22 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 30;
    let sparse = |random: &mut Random, mask: u64| random.bits(mask) & random.next();
    let word = trapped_word(random);
    // QEMU 7.2 lets DC ZVA write Device memory, which it must not: trapped always.
    let hcr = sparse(random, traps) | 1 << 13 | u64::from(word == DC_ZVA) << 28;
    // QEMU 7.2 has no TPMCR.
    let mdcr = sparse(random, 1 << 6 | 7 << 9);
    let cptr = random.pick(&[3 << 20, 0, 1 << 20, 2 << 20]) | sparse(random, 1 << 31);
    let (cnthctl, ich) = (random.bits(3 << 10), sparse(random, 7 << 10 | 1 << 14));
    let cpacr = random.pick(&[3 << 20, 3 << 20, 1 << 20, 0]);
    let mut set = base(hcr);
    set.extend([(MDCR, mdcr), (CPTR, cptr), (CNTHCTL, cnthctl), (ICH_HCR, ich | 1), (CPACR_EL12, cpacr)]);
    Case {
        what: format!(
            "{word:#010x}, HCR_EL2 {hcr:#x} MDCR_EL2 {mdcr:#x} CPTR_EL2 {cptr:#x} CNTHCTL_EL2 {cnthctl:#x} ICH_HCR_EL2 {ich:#x} \
             CPACR_EL1 {cpacr:#x}"
        ),
        set,
        // PSCI_VERSION for SMC, an INTID, an address that DC may have.
        x0: if word == SMC { 0x8400_0000 } else { DATA },
        snippet: vec![word, 0xd400_0022],
        report: vec![ESR_EL2, ELR_EL2, ESR_EL12],
        ..Case::default()
    }
}

#[test]
fn traps_have_qemus_syndromes() {
    let mut classes = BTreeMap::<String, u32>::new();
    for seed in 1..=4 {
        let mut random = Random(seed);
        let cases: Vec<Case> = (0..1500).map(|_| trap_case(&mut random)).collect();
        let Some(found) = compare("el2_traps", seed, &cases, &[]) else { return };
        for (lines, count) in found {
            let esr = lines.split(' ').nth(1).and_then(|esr| u64::from_str_radix(esr, 16).ok()).unwrap_or(0);
            *classes.entry(format!("EC {:#04x}", esr >> 26)).or_default() += count;
        }
    }
    eprintln!("compared with qemu-system-aarch64, seeds 1 to 4: {classes:?}");
    for class in ["EC 0x01", "EC 0x07", "EC 0x16", "EC 0x17", "EC 0x18"] {
        assert!(classes.get(class).is_some_and(|count| *count >= 20), "{class}: {classes:?}");
    }
}
