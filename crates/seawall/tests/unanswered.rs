//! Unanswered accesses: the abort for them, the stop of a guest, and the reports.

mod guest;

use std::time::Duration;

use guest::{Guest, PC, VBAR, at, vcpu_at};
use seawall::telemetry::AccessReport;
use seawall::{
    Action, Containment, ContainmentState, Delivery, Injection, Now, Rules, StopReason, Unanswered,
    UnansweredAccess, UnansweredOutcome,
};
use seawall_arm::{Esr, ExceptionLevel, Target};
use seawall_events::{Abi, Layout, MmioExit, NisvExit, Reg, Registers as _, SeaExit};

const POSTED: Abi = Abi::Extended(Layout::Posted);
const GPA: u64 = 0x2000_0000;
const EL0: u64 = 0;
const EL1H: u64 = 5;

/// A vCPU in `pstate` at PC whose load or store stage 2 stopped at `0x50_0123`, with this syndrome.
fn guest(pstate: u64, abi: Abi) -> Guest {
    let vcpu = vcpu_at(pstate, 0x9386_0007, 0x50_0123);
    let exit = SeaExit { esr: Esr::from_bits(0), flags: 0, gva: 0, gpa: 0 };
    Guest { vcpu, abi, exit }
}

fn read() -> UnansweredAccess {
    let exit = MmioExit { phys_addr: GPA, data: [0; 8], len: 4, is_write: false };
    UnansweredAccess::mmio(&exit, Unanswered::NoDevice)
}

fn write() -> UnansweredAccess {
    let exit = MmioExit { phys_addr: GPA, data: [0; 8], len: 8, is_write: true };
    UnansweredAccess::mmio(&exit, Unanswered::PastDevice)
}

fn nisv(iss: u64) -> UnansweredAccess {
    UnansweredAccess::nisv(&NisvExit { esr_iss: iss, fault_ipa: 0x900_0000 }, Unanswered::NoSyndrome)
}

fn refuse(guest: &mut Guest, access: UnansweredAccess) -> UnansweredOutcome {
    Containment::new(Rules::FULL).refuse(guest, access, &at(Duration::ZERO)).unwrap()
}

/// `AArch64.AbortSyndrome`: DFSC 0b010000, WnR for a store; the kernel's FAR.
#[test]
fn the_guest_takes_an_external_data_abort_with_wnr_as_it_was() {
    for (access, pstate, vector, esr) in [
        (read(), EL0, 0x400, 0x9200_0010),
        (write(), EL0, 0x400, 0x9200_0050),
        (read(), EL1H, 0x200, 0x9600_0010),
        (write(), EL1H, 0x200, 0x9600_0050),
        // The exit gives WnR, CM and FnV, and the fault status of stage 2, which does not concern the guest.
        (nisv(0x07), EL0, 0x400, 0x9200_0010),
        (nisv(0x47), EL0, 0x400, 0x9200_0050),
        (nisv(0x0147), EL0, 0x400, 0x9200_0150),
        (nisv(0x0447), EL1H, 0x200, 0x9600_0450),
    ] {
        let outcome = refuse(&mut guest(pstate, POSTED), access);
        let Action::Injected { guest, .. } = outcome.action else { panic!("{outcome:?}") };
        let (pc, esr) = (VBAR + vector, Esr::from_bits(esr));
        assert_eq!(guest, Delivery::AtVector { target: Target::El1, pc, esr, far: 0x50_0123 });
    }
}

/// The policy is about memory errors, and so is the dry run.
#[test]
fn no_policy_and_no_dry_run_changes_it() {
    let mut containment = Containment::new(Rules::SERROR);
    containment.set_dry_run(true);
    let mut vcpu = guest(EL0, POSTED);
    let outcome = containment.refuse(&mut vcpu, read(), &at(Duration::ZERO)).unwrap();
    assert!(matches!(outcome.action, Action::Injected { .. }), "{outcome}");
    assert_eq!(vcpu.vcpu.reg(Reg::Pc), VBAR + 0x400);
}

/// A stock kernel cannot express WnR, and a host without RAS refuses each ISS.
#[test]
fn where_no_iss_can_be_given_none_is() {
    for (abi, ras) in [(Abi::Mainline, true), (POSTED, false)] {
        let mut containment = Containment::new(Rules::FULL);
        let mut vcpu = guest(EL0, abi);
        vcpu.vcpu.config.ras = ras;
        let outcome = containment.refuse(&mut vcpu, write(), &at(Duration::ZERO)).unwrap();
        let Action::Injected { injection, guest } = outcome.action else { panic!("{outcome}") };
        assert_eq!(injection, Injection::from(Injection::data_abort()));
        assert!(matches!(guest, Delivery::AtVector { esr, .. } if esr.bits() == 0x9200_0010), "{guest:?}");
    }
}

#[test]
fn the_texts_say_who_is_there_and_who_is_not() {
    for (access, text) in [
        (read(), "read of 4 bytes at gpa 0x20000000, where there is neither RAM nor a device"),
        (write(), "write to 8 bytes at gpa 0x20000000, past the end of the device there"),
        (
            nisv(0x47),
            "write to gpa 0x9000000, a device, by an instruction whose syndrome does not say what it does",
        ),
    ] {
        assert_eq!(access.to_string(), text);
    }
    assert_eq!(
        refuse(&mut guest(EL0, POSTED), read()).to_string(),
        "read of 4 bytes at gpa 0x20000000, where there is neither RAM nor a device, at EL0, PC 0x401040: data abort, \
         no ESR given; guest at vector 0xffff800010000c00, ESR 0x92000010, FAR 0x500123"
    );
}

/// Puts the guest back at the access.
fn retry(vcpu: &mut Guest, pstate: u64) {
    vcpu.vcpu.set_reg(Reg::Pc, PC);
    vcpu.vcpu.set_reg(Reg::Pstate, pstate);
}

/// Repeats the access until the guest is stopped; returns the count.
fn storm(containment: &mut Containment, pstate: u64, most: u32, step: Duration) -> Option<u32> {
    let mut vcpu = guest(pstate, POSTED);
    for times in 1..=most {
        retry(&mut vcpu, pstate);
        let outcome = containment.refuse(&mut vcpu, read(), &at(step * times)).unwrap();
        if let Action::Stop(reason) = outcome.action {
            let why = Unanswered::NoDevice;
            assert_eq!(reason, StopReason::Unanswered { pc: PC, gpa: GPA, why, times });
            assert_eq!((outcome.pc, outcome.level, reason.name()), (PC, ExceptionLevel::El1, "storm"));
            assert_eq!(
                reason.to_string(),
                "the guest's kernel made the same access 4097 times at PC 0x401040 and did nothing else: address \
                 0x20000000, where there is neither RAM nor a device. It does not handle the external abort (does its \
                 handler return to the access?)"
            );
            assert!(outcome.told.is_some());
            return Some(times);
        }
    }
    None
}

#[test]
fn a_kernel_that_does_nothing_else_is_stopped_and_the_text_names_the_address() {
    assert_eq!(storm(&mut Containment::new(Rules::FULL), EL1H, 5000, Duration::from_micros(1)), Some(4097));
    // The same in a thousand times the time: the guest does other things.
    assert_eq!(storm(&mut Containment::new(Rules::FULL), EL1H, 5000, Duration::from_millis(10)), None);
}

#[test]
fn a_process_is_its_kernels_to_stop() {
    assert_eq!(storm(&mut Containment::new(Rules::FULL), EL0, 20_000, Duration::from_micros(1)), None);
}

#[test]
fn a_kernel_that_does_something_else_in_between_goes_on() {
    let mut containment = Containment::new(Rules::FULL);
    for _ in 0..3 {
        assert_eq!(storm(&mut containment, EL1H, 4000, Duration::ZERO), None);
        containment.does_something_else();
    }
}

#[test]
fn two_cpus_that_do_nothing_else_are_noticed_as_well() {
    let mut containment = Containment::new(Rules::FULL);
    let mut vcpu = guest(EL1H, POSTED);
    let mut stopped = 0;
    for times in 0..10_000_u64 {
        retry(&mut vcpu, EL1H);
        vcpu.vcpu.set_reg(Reg::Pc, PC + 4 * (times % 2));
        let outcome = containment.refuse(&mut vcpu, read(), &at(Duration::ZERO)).unwrap();
        if matches!(outcome.action, Action::Stop(_)) {
            stopped = times;
            break;
        }
    }
    assert_eq!(stopped, 2 * 4096);
}

/// A guest can make any number of accesses.
#[test]
fn sixteen_in_ten_seconds_are_told_of_and_then_how_many_were_not() {
    let mut containment = Containment::new(Rules::FULL);
    let mut vcpu = guest(EL0, POSTED);
    let mut told = |n: u64| {
        retry(&mut vcpu, EL0);
        containment.refuse(&mut vcpu, read(), &at(Duration::from_millis(n))).unwrap().told
    };
    assert_eq!((0..16).map(&mut told).collect::<Vec<_>>(), [Some(0); 16]);
    assert_eq!((16..1000).find_map(&mut told), None);
    assert_eq!([told(10_000), told(10_001), told(10_002)], [None, Some(985), Some(0)]);
}

#[test]
fn what_is_remembered_goes_through_a_snapshot() {
    let mut containment = Containment::new(Rules::FULL);
    assert_eq!(storm(&mut containment, EL1H, 4000, Duration::ZERO), None);
    let state: ContainmentState = containment.state();
    let mut other = Containment::new(Rules::FULL);
    other.set_state(&state);
    assert_eq!(other.state(), state);
    let mut vcpu = guest(EL1H, POSTED);
    let mut left = 0;
    while let Action::Injected { .. } = other.refuse(&mut vcpu, read(), &at(Duration::ZERO)).unwrap().action {
        retry(&mut vcpu, EL1H);
        left += 1;
    }
    assert_eq!(left, 96);
}

#[test]
fn a_report_is_a_line_of_json() {
    let outcome = refuse(&mut guest(EL0, POSTED), write());
    let report = AccessReport::new(&outcome, &Now { vcpu: 2, ..at(Duration::from_secs(1)) });
    let line = r#"{"schema":1,"time":"1970-01-01T00:00:00.000000Z","guest_time_ns":1000000000,"vcpu":2,"reason":"past-device","access":"store","gpa":"0x20000000","size":8,"exception_level":0,"pc":"0x401040","decision":"data-abort","decision_text":"data abort, ISS 0x40","guest":"at-vector","guest_esr":"0x92000050","guest_far":"0x500123","untold":0,"stop_reason":null,"exit_to_injection_ns":null}"#;
    assert_eq!(report.to_json(), line);
    assert_eq!(AccessReport::from_json(line).unwrap(), report);
    let short = r#"{"schema":1,"vcpu":0,"reason":"no-syndrome","access":"load","gpa":"0x9000000","exception_level":1,
        "pc":"0x40080000","decision":"stop","decision_text":"","guest":"stopped","more":1}"#;
    assert_eq!(AccessReport::from_json(short).unwrap().size, None);
}
