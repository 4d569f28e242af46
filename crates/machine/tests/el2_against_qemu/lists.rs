//! List registers, and the interface of EL1 to them.

use super::random::Random;
use super::sysreg::{mrs, msr};
use super::*;

/// A list register: state, HW, group, priority, pINTID or EOI, one of a few vINTIDs.
fn list_register(random: &mut Random) -> u64 {
    let hw = random.below(4) == 0;
    let middle = if hw { (32 + random.below(16)) << 32 } else { random.bits(1) << 41 };
    random.below(4) << 62
        | u64::from(hw) << 61
        | random.bits(1) << 60
        | random.bits(0xf8) << 48
        | middle
        | random.pick(&[5, 27, 40, 41, 100, 1021])
}

/// What EL1 does with its interface: X0 is an INTID at first, or what it acknowledged.
fn interface_word(random: &mut Random) -> u32 {
    const READS: [Name; 13] = [
        (3, 0, 12, 12, 0),
        (3, 0, 12, 12, 0),
        (3, 0, 12, 12, 0),
        (3, 0, 12, 8, 0),
        (3, 0, 12, 12, 2),
        (3, 0, 12, 8, 2),
        (3, 0, 12, 11, 3),
        (3, 0, 4, 6, 0),
        (3, 0, 12, 12, 3),
        (3, 0, 12, 8, 3),
        (3, 0, 12, 12, 6),
        (3, 0, 12, 12, 7),
        (3, 0, 12, 1, 0),
    ];
    const WRITES: [Name; 5] =
        [(3, 0, 12, 12, 1), (3, 0, 12, 12, 1), (3, 0, 12, 8, 1), (3, 0, 12, 11, 1), (3, 0, 12, 12, 1)];
    if random.below(2) == 0 {
        mrs(random.pick(&READS), random.below(3) as u32)
    } else {
        msr(random.pick(&WRITES), 0)
    }
}

fn list_case(random: &mut Random) -> Case {
    let list: Vec<u64> = (0..4).map(|_| list_register(random)).collect();
    // No EOIcount at first; En nearly always.
    let ich = random.bits(0xde) | u64::from(random.below(8) != 0) | random.below(3) << 27;
    // VENG0, VENG1, VCBPR, VEOIM, VBPR1, VBPR0, VPMR.
    let vmcr = random.bits(1 << 4 | 1 << 9 | 7 << 18 | 7 << 21)
        | random.bits(3)
        | 1 << 1
        | random.pick(&[0xf8, 0xf0, 0x80]) << 24;
    let active = random.pick(&[0, 0, 1 << 20, 1 << 4 | 1 << 9]);
    let words: Vec<u32> = (0..6).map(|_| interface_word(random)).collect();
    let mut set = base(3 << 3);
    set.extend([
        (MDCR, 0),
        (CPTR, 3 << 20),
        (ICH_HCR, 0),
        (ICH_VMCR, vmcr),
        (ICH_AP0R0, 0),
        (ICH_AP1R0, active),
    ]);
    set.extend((0..).zip(&list).map(|(n, value)| ((3, 4, 12, 12, n), *value)));
    set.push((ICH_HCR, ich));
    let x0 = list[0] & 0xffff;
    Case {
        what: format!(
            "{words:08x?}, X0 {x0}, ICH_HCR_EL2 {ich:#x} ICH_VMCR_EL2 {vmcr:#x} AP1R0 {active:#x} {list:x?}"
        ),
        set,
        x0,
        snippet: words.into_iter().chain([0xd400_0022]).collect(),
        general: 3,
        // QEMU 7.2 counts (EOIcount) in EOI mode 1 what EOIR does not deactivate.
        report: if vmcr & 1 << 9 == 0 { &[ICH_HCR, ICH_MISR][..] } else { &[] }
            .iter()
            .copied()
            .chain([ICH_VMCR, ICH_EISR, ICH_ELRSR, ICH_AP0R0, ICH_AP1R0])
            .chain((0..4).map(|n| (3, 4, 12, 12, n)))
            .collect(),
        ..Case::default()
    }
}

#[test]
fn list_registers_do_as_qemus_do() {
    for seed in 1..=2 {
        let mut random = Random(seed);
        let cases: Vec<Case> = (0..1500).map(|_| list_case(&mut random)).collect();
        if compare("el2_list", seed, &cases, &[]).is_none() {
            return;
        }
    }
    eprintln!("compared with qemu-system-aarch64, seeds 1 and 2: 3000 cases of list registers");
}
