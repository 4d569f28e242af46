use seawall_arm::Reg;
use seawall_inject::Inject as _;

use super::*;
use crate::vm::{Config, RAM_BASE};

const CODE: u64 = RAM_BASE;
const DATA: u64 = RAM_BASE + 0x1000;

/// A machine at this code, with x1 at the data.
fn machine(code: &[u32]) -> Vm {
    let mut vm = Vm::new(Config { memory_size: 1 << 20, ..Config::default() }).unwrap();
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    vm.memory_mut().store(CODE, &bytes).unwrap();
    let mut vcpu = vm.vcpu(0).unwrap();
    vcpu.set_reg(Reg::Pc, CODE).unwrap();
    vcpu.set_reg(Reg::X(1), DATA).unwrap();
    vm
}

fn run(vm: &mut Vm, steps: u64) {
    vm.set_budget(Some(steps));
    vm.run().unwrap();
}

fn consumed(time: u64, pc: u64, consumer: Consumer) -> Fate {
    Fate::Consumed(FirstUse { time, pc, el: 1, consumer })
}

/// ldr x0, [x1]; str x0, [x1, #64]; ldr x0, [x1, #8]; ldr x0, [x1, #64]; nop
const LOADS: [u32; 5] = [0xf940_0020, 0xf900_2020, 0xf940_0420, 0xf940_2020, 0xd503_201f];

#[test]
fn the_first_load_and_fetch_of_each_line_is_recorded_with_its_step_and_pc() {
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Line);
    run(&mut vm, 5);
    let fates: Vec<_> = vm.end_trace().unwrap().fates().collect();
    assert_eq!(
        fates,
        [
            (CODE, consumed(0, CODE, Consumer::Fetch)),
            (DATA, consumed(0, CODE, Consumer::Load)),
            (DATA + 64, consumed(3, CODE + 12, Consumer::Load)),
        ]
    );
}

#[test]
fn a_trace_of_pages_has_the_first_use_of_each_and_lets_the_page_go() {
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Page);
    run(&mut vm, 5);
    assert!(!vm.memory().page_has_poison((DATA - RAM_BASE) as usize));
    let fates: Vec<_> = vm.end_trace().unwrap().fates().collect();
    assert_eq!(
        fates,
        [(CODE, consumed(0, CODE, Consumer::Fetch)), (DATA, consumed(0, CODE, Consumer::Load))]
    );
}

#[test]
fn a_trace_of_pages_keeps_the_lines_that_dc_zva_overwrote_first() {
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Page);
    vm.memory_mut().clean_line(DATA + 64).unwrap();
    run(&mut vm, 1);
    vm.memory_mut().clean_line(DATA + 128).unwrap();
    let fates: Vec<_> = vm.end_trace().unwrap().fates().skip(1).collect();
    assert_eq!(
        fates,
        [(DATA, consumed(0, CODE, Consumer::Load)), (DATA + 64, Fate::Overwritten { time: 0 })]
    );
}

#[test]
fn a_trace_changes_nothing_that_the_guest_can_see() {
    let (mut plain, mut traced) = (machine(&LOADS), machine(&LOADS));
    traced.begin_trace(Grain::Line);
    for _ in 0..5 {
        run(&mut plain, 1);
        run(&mut traced, 1);
        assert_eq!(plain.state_hash(), traced.state_hash());
    }
}

#[test]
fn poison_is_met_at_the_step_and_pc_that_a_trace_recorded() {
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Line);
    run(&mut vm, 5);
    let trace = vm.end_trace().unwrap();
    for (line, fate) in trace.fates() {
        let Fate::Consumed(first) = fate else { panic!("{fate:?}") };
        let mut vm = machine(&LOADS);
        vm.poison(line..line + 64).unwrap();
        vm.set_budget(Some(5));
        let (_, exit) = vm.run().unwrap();
        assert!(matches!(exit, seawall_inject::Exit::Sea(_)), "{line:#x}: {exit:?}");
        assert_eq!((vm.time(), vm.vcpu(0).unwrap().reg(Reg::Pc).unwrap()), (first.time, first.pc));
    }
}

/// dc zva, x1; ldr x0, [x1]. DDI 0487, DC ZVA: the whole block is overwritten.
#[test]
fn a_line_that_dc_zva_overwrites_before_it_is_consumed_is_recorded_as_that() {
    // MMU off is Device memory, for which DC ZVA faults: so one by the host's hand.
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Line);
    vm.memory_mut().clean_line(DATA).unwrap();
    run(&mut vm, 1);
    let trace = vm.end_trace().unwrap();
    let fate = trace.fates().find(|(line, _)| *line == DATA).unwrap().1;
    assert_eq!(fate, Fate::Overwritten { time: 0 });
}

#[test]
fn a_device_that_reads_consumes() {
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Line);
    run(&mut vm, 1);
    vm.memory_mut().device_read(DATA + 0x80, 65);
    let trace = vm.end_trace().unwrap();
    let device: Vec<u64> = trace
        .fates()
        .filter(|(_, fate)| matches!(fate, Fate::Consumed(FirstUse { consumer: Consumer::Device, .. })))
        .map(|(line, _)| line)
        .collect();
    assert_eq!(device, [DATA + 0x80, DATA + 0xc0]);
}

#[test]
fn real_poison_is_met_while_a_trace_is_on() {
    let mut vm = machine(&LOADS);
    vm.begin_trace(Grain::Line);
    vm.poison(DATA..DATA + 64).unwrap();
    vm.set_budget(Some(5));
    assert!(matches!(vm.run().unwrap().1, seawall_inject::Exit::Sea(_)));
    assert_eq!(vm.time(), 0);
}
