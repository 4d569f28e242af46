//! The four timers.

use super::random::Random;
use super::*;

/// The four timers, long past or far ahead, by the registers that name them at EL2.
fn timer_case(random: &mut Random) -> Case {
    // CTL and CVAL of CNTHP, CNTHV, CNTP_EL02, CNTV_EL02.
    let timers: [(u32, u32); 4] = [(4, 2), (4, 3), (5, 2), (5, 3)];
    let mut set = vec![(HCR, HCR_BASE), (CNTVOFF, random.pick(&[0, 1 << 40, 1 << 63]))];
    for (op1, crm) in timers {
        set.push(((3, op1, 14, crm, 2), random.pick(&[0, 1, 1 << 50, 3 << 62])));
        set.push(((3, op1, 14, crm, 1), random.below(4)));
    }
    Case {
        what: format!("{set:x?}"),
        set,
        here: vec![ISB],
        report: timers
            .into_iter()
            .flat_map(|(op1, crm)| [(3, op1, 14, crm, 1), (3, op1, 14, crm, 2)])
            .collect(),
        ..Case::default()
    }
}

#[test]
fn timers_fire_as_qemus_do() {
    let mut random = Random(1);
    let cases: Vec<Case> = (0..500).map(|_| timer_case(&mut random)).collect();
    if compare("el2_timers", 1, &cases, &[]).is_some() {
        eprintln!("compared with qemu-system-aarch64, seed 1: 500 cases of four timers");
    }
}
