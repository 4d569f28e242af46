//! A guest that starts anew after its memory went bad, on the software machine; the lab does the same on KVM.
#![allow(clippy::single_range_in_vec_init, reason = "one range is a list of one")]

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use seawall::Outcome;
use seawall::ledger::{Cause, Keeper, Ledger};
use seawall::telemetry::ErrorReport;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, SoftwareMachine};

/// The page that the guest loads from.
const PAGE: Range<u64> = 0x4020_0000..0x4020_1000;
const STEPS: Option<u64> = Some(10_000);

/// Loads from [`PAGE`] and powers off; asks for a reset if that aborts.
fn guest() -> Guest {
    const NOP: u32 = 0xd503_201f;
    let mut words = vec![
        0x1000_4000, // adr x0, . + 0x800
        0xd518_c000, // msr vbar_el1, x0
        0xd2a8_0401, // mov x1, #0x40200000
        0xf940_0022, // ldr x2, [x1]
        0x5280_0100, // mov w0, #8
        0x72b0_8000, // movk w0, #0x8400, lsl #16: SYSTEM_OFF
        0xd400_0002, // hvc #0
    ];
    words.resize(0x800 / 4 + 0x200 / 4, NOP);
    words.extend([0x5280_0120, 0x72b0_8000, 0xd400_0002]); // SYSTEM_RESET
    let code = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    Guest { kernel: Kernel::Flat(code), address: None, initrd: None, command_line: String::new() }
}

#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<Outcome>>>);

impl Observer for Errors {
    fn memory_error(&mut self, _: &ErrorReport, outcome: &Outcome) {
        self.0.lock().unwrap().push(*outcome);
    }
}

fn machine(config: impl FnOnce(&mut Config)) -> (SoftwareMachine, Errors) {
    let mut with = Config::new(64 << 20);
    config(&mut with);
    let errors = Errors::default();
    (SoftwareMachine::new(with, &guest(), Box::new(errors.clone())).unwrap(), errors)
}

fn bad(machine: &SoftwareMachine) -> Vec<(Range<u64>, Cause)> {
    machine.ledger().with(|ledger| ledger.ranges().map(|bad| (bad.range, bad.cause)).collect())
}

/// The device tree's memory: address and size of each part.
fn memory_map(machine: &SoftwareMachine) -> Vec<(u64, u64)> {
    let fdt = machine.placement().fdt.clone();
    let mut bytes = vec![0; (fdt.end - fdt.start) as usize];
    machine.vm().memory().load(fdt.start, &mut bytes).unwrap();
    let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    // device_type = "memory\0" and its padding, then the property `reg`: token, length, name.
    let at = bytes.windows(8).position(|window| window == b"memory\0\0").unwrap() + 8;
    let length = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    (at + 12..at + 12 + length).step_by(16).map(|at| (long(at), long(at + 8))).collect()
}

#[test]
fn a_reset_heals_what_the_guest_met_and_it_does_not_meet_it_again() {
    let (mut machine, errors) = machine(|_| ());
    machine.poison(0x4020_0000..0x4020_0040).unwrap();
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::Reset));
    assert_eq!(bad(&machine), [(PAGE, Cause::Consumed)]);
    machine.vm_mut().memory_mut().store(0x4030_0000, b"left there").unwrap();
    machine.reset(&guest()).unwrap();
    assert_eq!(bad(&machine), []);
    assert_eq!(machine.vm().memory().poisoned_lines(), 0);
    let mut other = [0; 10];
    machine.vm().memory().load(0x4030_0000, &mut other).unwrap();
    assert_eq!(&other, b"left there", "a reset clears no memory");
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::PowerOff));
    assert_eq!(errors.0.lock().unwrap().len(), 1);
}

#[test]
fn what_nobody_met_is_not_healed() {
    let (mut machine, _) = machine(|_| ());
    machine.poison(0x4020_0000..0x4020_0040).unwrap();
    machine.poison(0x4100_0000..0x4100_0040).unwrap();
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::Reset));
    machine.reset(&guest()).unwrap();
    assert_eq!(machine.vm().memory().poisoned_ranges(), [0x4100_0000..0x4100_0040]);
}

#[test]
fn what_cannot_be_healed_is_left_out_of_the_next_boots_memory_map() {
    let (mut machine, errors) = machine(|config| config.heal = false);
    assert_eq!(memory_map(&machine), [(0x4000_0000, 0x400_0000)]);
    machine.poison(0x4020_0000..0x4020_0040).unwrap();
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::Reset));
    machine.reset(&guest()).unwrap();
    assert_eq!(memory_map(&machine), [(0x4000_0000, 0x20_0000), (0x4020_1000, 0x3df_f000)]);
    // This guest does not look at the map.
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::Reset));
    assert_eq!(errors.0.lock().unwrap().len(), 2);
}

/// Linux, Documentation/arch/arm64/booting.rst: bits 1 and 2 of the header's flags, at offset 24, are the size of pages.
#[test]
fn of_a_kernel_with_larger_pages_a_page_of_its_own_is_left_out() {
    for (flags, bad) in [
        (0, 0x4020_d000..0x4020_e000),
        (1 << 1, 0x4020_d000..0x4020_e000),
        (2 << 1, 0x4020_c000..0x4021_0000),
        (3 << 1, 0x4020_0000..0x4021_0000),
    ] {
        let mut image = vec![0; 64];
        image[24] = flags;
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let kernel = Kernel::parse(image, 0x400_0000).unwrap();
        let linux = Guest { kernel, ..guest() };
        let mut config = Config::new(0x400_0000);
        config.heal = false;
        config.ledger.insert(0x4020_d040..0x4020_d080, Cause::Consumed, SystemTime::UNIX_EPOCH);
        let machine = SoftwareMachine::new(config, &linux, Box::new(Errors::default())).unwrap();
        let expected = [(0x4000_0000, bad.start - 0x4000_0000), (bad.end, 0x4400_0000 - bad.end)];
        assert_eq!(memory_map(&machine), expected, "flags {flags:#x}");
    }
}

#[test]
fn the_ledger_of_a_vmm_that_is_gone_says_what_its_successor_heals_or_leaves_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let open = || Arc::new(Keeper::open(&path).unwrap());
    let (mut first, _) = machine(|config| config.ledger = open());
    first.poison(0x4020_0000..0x4020_0040).unwrap();
    assert_eq!(first.run(STEPS).unwrap(), Some(End::Reset));
    first.ledger().flush().unwrap();
    drop(first);
    // Memory that is pinned comes to the next VMM as it is.
    let (mut pinned, _) = machine(|config| (config.ledger, config.heal) = (open(), false));
    assert_eq!(memory_map(&pinned).len(), 2);
    assert_eq!(pinned.run(STEPS).unwrap(), Some(End::Reset), "it is bad still");
    drop(pinned);
    let (mut healed, _) = machine(|config| config.ledger = open());
    assert_eq!(memory_map(&healed).len(), 1);
    assert_eq!(healed.run(STEPS).unwrap(), Some(End::PowerOff));
    drop(healed);
    assert_eq!(Ledger::load(&path).unwrap(), Some(Ledger::default()));
}

#[test]
fn a_machine_that_was_reset_runs_as_a_new_one_does() {
    let (mut machine, _) = machine(|_| ());
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::PowerOff));
    let steps = machine.instructions();
    machine.reset(&guest()).unwrap();
    assert_eq!(machine.run(STEPS).unwrap(), Some(End::PowerOff));
    assert_eq!(machine.instructions(), 2 * steps);
}
