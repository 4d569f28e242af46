//! Accesses that nobody answers, and devices that answer whatever the instruction, on the software machine.

use std::sync::{Arc, Mutex};

use seawall::telemetry::AccessReport;
use seawall::{StopReason, Unanswered, UnansweredOutcome};
use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, Snapshot, SoftwareMachine};

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    console: String,
    accesses: Vec<AccessReport>,
}

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().console.push_str(&String::from_utf8_lossy(bytes));
    }

    fn memory_error(&mut self, report: &seawall::telemetry::ErrorReport, _: &seawall::Outcome) {
        panic!("it is no memory error: {report}");
    }

    fn unanswered_access(&mut self, report: &AccessReport, _: &UnansweredOutcome) {
        self.0.lock().unwrap().accesses.push(report.clone());
    }

    /// After every byte.
    fn wants_pause(&mut self) -> bool {
        true
    }
}

const MEMORY: u64 = 2 << 20;
/// `movz x3, #0x0900, lsl #16`: the UART. `movz x0, #8; movk x0, #0x8400, lsl #16; hvc #0`: SYSTEM_OFF.
const UART: u32 = 0xd2a1_2003;
const OFF: [u32; 3] = [0xd280_0100, 0xf2b0_8000, 0xd400_0002];
/// `mov w2, #'A'`.
const A: u32 = 0x5280_0822;

fn machine(code: &[u32]) -> (SoftwareMachine, Watch) {
    let code = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let kernel = Kernel::Flat(code);
    let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
    let watch = Watch::default();
    (SoftwareMachine::new(Config::new(MEMORY), &guest, Box::new(watch.clone())).unwrap(), watch)
}

/// Runs to the end; gives it with the console and the accesses that nobody answered.
fn run(code: &[u32], steps: u64) -> (Option<End>, String, Vec<AccessReport>) {
    let (mut machine, watch) = machine(code);
    let end = to_end(&mut machine, steps);
    let seen = std::mem::take(&mut *watch.0.lock().unwrap());
    assert_eq!(machine.ledger().with(seawall::ledger::Ledger::pages), 0);
    (end, seen.console, seen.accesses)
}

fn to_end(machine: &mut SoftwareMachine, steps: u64) -> Option<End> {
    while machine.instructions() < steps {
        let end = machine.run(Some(steps - machine.instructions())).unwrap();
        if end.is_some() {
            return end;
        }
    }
    None
}

/// Post-index, pairs, exclusives, V registers: on hardware all of them reach the UART.
#[test]
fn a_device_answers_whatever_the_instruction() {
    for (name, words, console) in [
        ("str w2, [x3], #4", &[A, 0xb800_4462][..], "A"),
        ("ldxr w5, [x3]; stxr w4, w2, [x3]", &[A, 0x885f_7c65, 0x8804_7c62], "A"),
        // DR, and RSR beside it.
        ("stp w2, w2, [x3]", &[A, 0x2900_0862], "A"),
        (
            "fmov s0, w2; str s0, [x3]",
            &[0xd2a0_0600, 0xd518_1040, 0xd503_3fdf, A, 0x1e27_0040, 0xbd00_0060],
            "A",
        ),
        ("swp w2, w5, [x3]", &[A, 0xb822_8065], "A"),
        // The UART's identification, by a load of four registers: 11 10 14 00.
        (
            "ldr q0, [x6]; mov w2, v0.s[0]; add w2, w2, #'0'; str w2, [x3]",
            &[
                0xd2a0_0600,
                0xd518_1040,
                0xd503_3fdf,
                0x913f_8066,
                0x3dc0_00c0,
                0x0e04_3c02,
                0x1100_c042,
                0xb900_0062,
            ],
            "A",
        ),
    ] {
        let code: Vec<u32> = [UART].iter().chain(words).chain(&OFF).copied().collect();
        assert_eq!(run(&code, 1000), (Some(End::PowerOff), console.to_owned(), vec![]), "{name}");
    }
}

/// `mov x3, #0x20000000; ldr w2, [x3]` with vectors: the handler says so and powers off.
fn with_handler(access: &[u32], handler: &[u32]) -> Vec<u32> {
    // adr x9, .+0x800; msr vbar_el1, x9; isb; mov x3, #0x20000000
    let mut code = vec![0x1000_4009, 0xd518_c009, 0xd503_3fdf, 0xd2a4_0003];
    code.extend(access);
    // b .
    code.resize((0x800 + 0x200) / 4, 0x1400_0000);
    code.extend(handler);
    code
}

/// A load from 0x20000000: DFSC 0x10, FAR, ELR at the load.
#[test]
fn an_address_without_ram_or_device_is_an_external_abort() {
    for (name, word, esr, access, size) in [
        ("ldr w2, [x3]", 0xb940_0062, 0x9600_0010, "load", 4),
        ("str w2, [x3]", 0xb900_0062, 0x9600_0050, "store", 4),
        ("ldp x4, x5, [x3]", 0xa940_1464, 0x9600_0010, "load", 8),
        ("stp x4, x5, [x3]", 0xa900_1464, 0x9600_0050, "store", 8),
        ("ldadd w2, w4, [x3]", 0xb822_0064, 0x9600_0010, "load", 4),
        ("ldrb w2, [x3], #1", 0x3840_1462, 0x9600_0010, "load", 1),
    ] {
        let (mut machine, watch) = machine(&with_handler(&[word], &OFF));
        assert_eq!(to_end(&mut machine, 1000), Some(End::PowerOff), "{name}");
        let vcpu = machine.vm_mut().vcpu(0).unwrap();
        let registers = [Reg::EsrEl1, Reg::FarEl1, Reg::ElrEl1, Reg::X(3)].map(|reg| vcpu.reg(reg).unwrap());
        assert_eq!(registers, [esr, 0x2000_0000, 0x4008_0010, 0x2000_0000], "{name}");
        let seen = watch.0.lock().unwrap();
        let [report] = &*seen.accesses else { panic!("{name}: {:?}", seen.accesses) };
        assert_eq!(
            (
                &*report.reason,
                &*report.access,
                report.gpa.0,
                report.size,
                report.pc.0,
                report.exception_level
            ),
            ("no-device", access, 0x2000_0000, Some(size), 0x4008_0010, 1),
            "{name}"
        );
    }
}

/// `earlycon=pl011,0x09040000`, where `virt` has a UART only with TrustZone; a PCI window; beyond all.
#[test]
fn the_same_holds_for_other_addresses_and_for_a_redistributor_of_no_cpu() {
    // movz x3, #0x904, lsl #16; #0x1000; #0x80c: of the second CPU; movz x3, #0x1, lsl #32
    for (base, gpa) in [
        (0xd2a1_2083, 0x0904_0000),
        (0xd2a2_0003, 0x1000_0000),
        (0xd2a1_0183, 0x080c_0000),
        (0xd2c0_0023, 1 << 32),
    ] {
        let (end, _, accesses) = run(&with_handler(&[base, 0xb940_0062], &OFF), 1000);
        assert_eq!(end, Some(End::PowerOff));
        assert_eq!(accesses.iter().map(|report| report.gpa.0).collect::<Vec<_>>(), [gpa]);
    }
}

/// The host injects these without an exit, as KVM does: an instruction abort, and one on the walk.
#[test]
fn a_fetch_from_nowhere_and_a_table_that_is_nowhere_are_aborts_too() {
    // br x3
    let (mut machine, watch) = machine(&with_handler(&[0xd61f_0060], &OFF));
    assert_eq!(to_end(&mut machine, 1000), Some(End::PowerOff));
    let vcpu = machine.vm_mut().vcpu(0).unwrap();
    let registers = [Reg::EsrEl1, Reg::FarEl1, Reg::ElrEl1].map(|reg| vcpu.reg(reg).unwrap());
    assert_eq!(registers, [0x8600_0010, 0x2000_0000, 0x2000_0000]);
    assert!(watch.0.lock().unwrap().accesses.is_empty());
}

/// The handler returns to the access, for ever.
#[test]
fn a_guest_that_does_nothing_else_is_stopped_with_the_address() {
    // eret
    let (end, _, accesses) = run(&with_handler(&[0xb940_0062], &[0xd69f_03e0]), 1_000_000);
    let why = Unanswered::NoDevice;
    let stop = StopReason::Unanswered { pc: 0x4008_0010, gpa: 0x2000_0000, why, times: 4097 };
    assert_eq!(end, Some(End::Stopped(stop)));
    // What is told of is bounded; the last says how many were not.
    assert_eq!(accesses.len(), 17);
    let last = accesses.last().unwrap();
    assert_eq!((last.untold, &*last.decision, last.stop_reason.as_deref()), (4080, "stop", Some("storm")));
}

/// The handler says something before it returns.
#[test]
fn a_guest_that_does_something_else_is_not_stopped() {
    // movz x7, #0x900, lsl #16; mov w6, #'.'; str w6, [x7]; eret
    let handler = [0xd2a1_2007, 0x5280_05c6, 0xb900_00e6, 0xd69f_03e0];
    let (end, console, _) = run(&with_handler(&[0xb940_0062], &handler), 50_000);
    assert_eq!(end, None);
    assert!(console.len() > 5000, "{}", console.len());
}

/// A line that a store pair ends makes the run pause between its two accesses: a snapshot then goes on the same.
#[test]
fn a_snapshot_in_the_middle_of_an_instruction_goes_on_the_same() {
    // mov w2, #'\n'; stp w2, w2, [x3]; swp w2, w5, [x3]; stp w2, w2, [x3]
    let code = [UART, 0x5280_0142, 0x2900_0862, 0xb822_8065, 0x2900_0862, OFF[0], OFF[1], OFF[2]];
    let (mut first, watch) = machine(&code);
    let mut snapshots = Vec::new();
    let mut end = None;
    while end.is_none() {
        snapshots.push((first.snapshot().unwrap(), watch.0.lock().unwrap().console.len()));
        end = first.run(Some(1000)).unwrap();
    }
    let (expected, written) = (first.state_hash(), watch.0.lock().unwrap().console.clone());
    assert_eq!((end, written.as_str()), (Some(End::PowerOff), "\n\n\n"));
    // Before the first access, and after each of the two that each of the three makes.
    assert_eq!(snapshots.len(), 7);
    for (snapshot, so_far) in snapshots {
        let mut file = Vec::new();
        snapshot.save(&mut file).unwrap();
        let snapshot = Snapshot::load(&*file).unwrap();
        let watch = Watch::default();
        let mut machine =
            SoftwareMachine::resume(&snapshot, snapshot.config(), Box::new(watch.clone())).unwrap();
        assert_eq!(to_end(&mut machine, 1000), Some(End::PowerOff));
        assert_eq!(machine.state_hash(), expected);
        assert_eq!(watch.0.lock().unwrap().console, written[so_far..]);
    }
}
