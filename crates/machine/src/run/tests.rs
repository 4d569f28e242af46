use super::*;
use seawall_inject::Inject as _;

use crate::vm::{RAM_BASE, Vm};

/// A guest of these instructions at the start of RAM, where its vectors are too.
fn guest(code: &[u32]) -> Vm {
    let mut vm = Vm::new(Config { memory_size: 0x1_0000, ..Config::default() }).expect("64 KiB");
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    vm.memory_mut().store(RAM_BASE, &bytes).expect("in RAM");
    let mut vcpu = vm.vcpu(0).expect("it is there");
    for (reg, value) in [(Reg::Pc, RAM_BASE), (Reg::VbarEl1, RAM_BASE), (Reg::X(1), RAM_BASE + 0x8000)] {
        vcpu.set_reg(reg, value).expect("it is there");
    }
    vm
}

/// Between two looks at the kick: whatever the guest does, and however often it would go on.
#[test]
fn a_kick_is_looked_at_after_10_000_steps_at_most() {
    let codes: [&[u32]; 8] = [
        // b .
        &[0x1400_0000],
        // tlbi vmalle1is; b . - 4
        &[0xd508_831f, 0x17ff_ffff],
        // ic ialluis; isb; b . - 8
        &[0xd508_711f, 0xd503_3fdf, 0x17ff_fffe],
        // dc zva, x1; b . - 4
        &[0xd50b_7421, 0x17ff_ffff],
        // ldxr x2, [x1]; stxr w3, x2, [x1]; b . - 8
        &[0xc85f_7c22, 0xc803_7c22, 0x17ff_fffe],
        // ldp q0, q1, [x1]; stp q0, q1, [x1]; b . - 8
        &[0xad40_0420, 0xad00_0420, 0x17ff_fffe],
        // An exception at its own vector: UDF, at 0x200 too.
        &[0; 0x90],
        // svc #0, with the vector of EL1 in zeros.
        &[0xd400_0001],
    ];
    for code in codes {
        let mut vm = guest(code);
        let mut runner = vm.runner(0).expect("it is there");
        for _ in 0..100 {
            assert_eq!(runner.stretch(u64::MAX), 10_000, "{code:x?}");
            let (mut part, before) = (10_000, runner.cpu.steps);
            let stop = runner.run_stretch(&mut part).expect("no error of the host");
            assert_eq!(stop, None, "{code:x?}");
            assert_eq!(runner.cpu.steps - before, 10_000 - part, "{code:x?}");
            assert!(part <= 10_000, "{code:x?}");
        }
    }
}

/// No more than there is, and not past a timer's step.
#[test]
fn a_stretch_ends_at_the_budget_and_at_the_next_timer() {
    let mut vm = guest(&[0x1400_0000]);
    let runner = vm.runner(0).expect("it is there");
    assert_eq!(runner.stretch(7), 7);
    runner.cpu.deadline = runner.cpu.steps + 77;
    assert_eq!((runner.stretch(u64::MAX), runner.stretch(3)), (77, 3));
}
