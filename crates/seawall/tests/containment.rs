//! Containment from a SEA exit to the guest's view, over a vCPU that consists of the kernel half alone.

mod guest;

use std::time::Duration;

use guest::{Guest, PC, VBAR, vcpu_at};
use seawall::{
    Access, Action, ContainError, Containment, Delivery, Injection, Iss, MemoryError, Rules, StopReason,
    StormGuard,
};
use seawall_arm::{Esr, ExceptionLevel, Pstate, Target};
use seawall_events::kernel::{SeaPolicy, handle_guest_sea};
use seawall_events::{Abi, Layout, Refusal, Reg, Registers, SeaExit};

/// The time, for tests in which it does not matter.
const NOW: Duration = Duration::ZERO;
const PERIOD: Duration = Duration::from_secs(10);

/// A guest in `pstate` whose access at PC the hardware answered with `esr`.
fn guest(esr: u64, pstate: u64, abi: Abi) -> Guest {
    let mut vcpu = vcpu_at(pstate, esr, 0x50_0123);
    let exit = handle_guest_sea(&mut vcpu, SeaPolicy { to_user: true, guest_has_ras: true }).unwrap();
    Guest { vcpu, abi, exit }
}

const POSTED: Abi = Abi::Extended(Layout::Posted);

/// Handles the error once; returns the injection and the guest's position.
fn handle(policy: Rules, guest: &mut Guest) -> (Injection, Delivery) {
    let exit = guest.exit;
    let outcome = guest::handle(&mut Containment::new(policy), guest, &exit, NOW).unwrap();
    match outcome.action {
        Action::Injected { injection, guest } => (injection, guest),
        other => panic!("{other:?}"),
    }
}

#[test]
fn full_replays_a_fetch_as_an_instruction_abort_with_its_iss() {
    let (_, state) = handle(Rules::FULL, &mut guest(0x8200_0210, 0, POSTED));
    let expected = Delivery::AtVector {
        target: Target::El1,
        pc: VBAR + 0x400,
        esr: Esr::from_bits(0x8200_0210),
        far: 0x50_0123,
    };
    assert_eq!(state, expected);
}

#[test]
fn full_replays_each_bit_that_the_exit_gives() {
    for (hardware, pstate, seen) in [
        (0x9200_0210, 0, 0x9200_0210), // EA
        (0x9200_0610, 0, 0x9200_0610), // FnV
        (0x9200_0250, 0, 0x9200_0250), // WnR
        (0x9200_0310, 0, 0x9200_0310), // CM
        (0x9200_1a10, 0, 0x9200_1a10), // SET
        (0x9200_0217, 0, 0x9200_0217), // a walk at level 3
        (0x9200_0213, 5, 0x9600_0213), // level -1, from EL1
        (0x9200_0218, 5, 0x9600_0218), // ECC
        (0x8200_1e10, 5, 0x8600_1e10), // a fetch of EL1: SET, FnV, EA
        (0x8200_0215, 0, 0x8200_0215), // a fetch, walk at level 1
    ] {
        let (_, state) = handle(Rules::FULL, &mut guest(hardware, pstate, POSTED));
        let Delivery::AtVector { esr, .. } = state else { panic!("{state:?}") };
        assert_eq!(esr.bits(), seen, "{hardware:#x}");
    }
}

#[test]
fn full_works_in_the_other_layout_too() {
    let (_, state) = handle(Rules::FULL, &mut guest(0x8200_0210, 0, Abi::Extended(Layout::Trailing)));
    assert!(matches!(state, Delivery::AtVector { esr, .. } if esr.bits() == 0x8200_0210));
}

#[test]
fn mainline_makes_a_data_abort_of_everything_and_gives_no_esr() {
    for hardware in [0x8200_0210, 0x9200_0650] {
        let (injection, state) = handle(Rules::MAINLINE, &mut guest(hardware, 0, Abi::Mainline));
        assert_eq!(injection, Injection::data_abort().into());
        assert!(matches!(state, Delivery::AtVector { esr, .. } if esr.bits() == 0x9200_0010));
    }
}

#[test]
fn serror_is_what_kvm_does_by_itself() {
    let (injection, state) = handle(Rules::SERROR, &mut guest(0x9200_0210, 0, Abi::Mainline));
    assert_eq!(injection, Injection::serror().into());
    assert!(matches!(state, Delivery::AtVector { esr, pc, .. }
        if esr.bits() == 0xbf00_0000 && pc == VBAR + 0x580));
}

#[test]
fn a_masked_serror_is_reported_as_pending() {
    let (_, state) = handle(Rules::SERROR, &mut guest(0x9200_0210, 0x3c5, Abi::Mainline));
    assert_eq!(state, Delivery::SErrorPending);
}

#[test]
fn what_the_kernel_did_not_deliver_is_reported() {
    let mut guest = guest(0x9200_0210, 5, POSTED);
    guest.vcpu.last_fault.esr = Esr::from_bits(0x9200_0087); // S1PTW, and no walk finds the descriptor
    let (_, state) = handle(Rules::FULL, &mut guest);
    assert_eq!(state, Delivery::NotDelivered);
}

#[test]
fn a_vector_that_is_itself_bad_is_still_a_delivery() {
    // The fetch at the vector aborts: PC does not change in the injection.
    let mut guest = guest(0x8200_0210, 0x3c5, POSTED);
    guest.vcpu.set_reg(Reg::Pc, VBAR + 0x200);
    for _ in 0..2 {
        let (_, state) = handle(Rules::FULL, &mut guest);
        assert!(matches!(state, Delivery::AtVector { pc, .. } if pc == VBAR + 0x200), "{state:?}");
    }
}

#[test]
fn a_decision_that_the_abi_cannot_say_is_an_error_and_leaves_the_guest() {
    let mut guest = guest(0x8200_0210, 0, Abi::Mainline);
    let (before, exit) = (guest.vcpu.clone(), guest.exit);
    let error = guest::handle(&mut Containment::new(Rules::FULL), &mut guest, &exit, NOW).unwrap_err();
    assert!(matches!(error, ContainError::NotInAbi { policy: "full", refusal: Refusal::NotInMainline, .. }));
    assert!(error.to_string().contains("choose the policy `mainline`"), "{error}");
    assert_eq!(guest.vcpu, before);
}

#[test]
fn aarch32_aborts_are_read_back_from_their_own_registers() {
    for (hardware, fsr, pc) in [(0x9200_0210, 0x08, 0x1010), (0x8200_0210, 0x08, 0x100c)] {
        let mut guest = guest(hardware, 0x10, POSTED);
        guest.vcpu.config.el1_aarch32 = true;
        guest.vcpu.set_reg(Reg::VbarEl1, 0x1000);
        // IFAR in [63:32], DFAR in [31:0]: the abort changes one of them.
        guest.vcpu.set_reg(Reg::FarEl1, 0x1111_1111_2222_2222);
        let (_, state) = handle(Rules::FULL, &mut guest);
        let expected =
            Delivery::AtVector { target: Target::El1, pc, esr: Esr::from_bits(fsr), far: 0x50_0123 };
        assert_eq!(state, expected);
    }
}

#[test]
fn a_storm_at_one_pc_is_stopped_with_the_reason() {
    let mut guest = guest(0x9200_0210, 0x3c5, POSTED);
    let mut containment = Containment::new(Rules::FULL).with_storm_guard(StormGuard::new(3, PERIOD));
    let mut actions = Vec::new();
    for _ in 0..4 {
        guest.vcpu.set_reg(Reg::Pc, PC); // the guest returns to the access
        let exit = guest.exit;
        actions.push(guest::handle(&mut containment, &mut guest, &exit, NOW).unwrap().action);
    }
    assert!(actions[..3].iter().all(|action| matches!(action, Action::Injected { .. })));
    let reason = StopReason::Storm { pc: PC, gva: Some(0x50_0123), times: 4 };
    assert_eq!(actions[3], Action::Stop(reason));
    assert!(reason.to_string().contains("4 times at PC 0x401040, address 0x500123"), "{reason}");
    assert_eq!(guest.vcpu.reg(Reg::Pc), PC, "nothing was injected");
}

#[test]
fn a_storm_of_two_in_turn_is_a_storm_and_one_pc_over_many_addresses_or_pages_is_not() {
    let error = |pc, gva, gpa| MemoryError {
        gpa: Some(gpa),
        named: Some(gpa),
        size: 4096,
        gva: Some(gva),
        access: Access::Load,
        walk_level: None,
        level: ExceptionLevel::El0,
        pc,
        esr: Some(Esr::from_bits(0x9200_0210)),
        nested: None,
    };
    let mut guard = StormGuard::new(8, PERIOD);
    let turns = (0..100)
        .take_while(|n| guard.note(&error(0x1000 + 8 * (n % 2), 0x5000, 0x8000), NOW).is_ok())
        .count();
    assert_eq!(turns, 16);
    let mut guard = StormGuard::new(8, PERIOD);
    assert!((0..1000).all(|n| guard.note(&error(0x1000, 0x5000 + 64 * n, 0x8000), NOW).is_ok()));
    // Each page to which the guest moves the text goes bad in turn: the guest still goes on.
    let mut guard = StormGuard::new(8, PERIOD);
    assert!((0..1000).all(|n| guard.note(&error(0x1000, 0x1000, 0x8000 + 0x1000 * n), NOW).is_ok()));
}

#[test]
fn a_service_that_meets_the_same_bad_page_at_each_restart_is_no_storm() {
    let error = MemoryError {
        gpa: Some(0x8000),
        named: Some(0x8000),
        size: 4096,
        gva: Some(0x5000),
        access: Access::Load,
        walk_level: None,
        level: ExceptionLevel::El0,
        pc: 0x1000,
        esr: Some(Esr::from_bits(0x9200_0210)),
        nested: None,
    };
    // systemd's default: five starts in ten seconds.
    let mut guard = StormGuard::default();
    assert!((0..1000).all(|n| guard.note(&error, Duration::from_secs(2 * n)).is_ok()));
    // Sixteen in ten seconds are allowed, seventeen are not.
    let mut guard = StormGuard::default();
    let times = (0..100).take_while(|n| guard.note(&error, Duration::from_millis(600 * n)).is_ok()).count();
    assert_eq!(times, 16);
}

/// Line number `n` of bad memory, loaded by one instruction.
fn line(n: u64) -> MemoryError {
    MemoryError {
        gpa: Some(0x4000_0000 + 64 * n),
        named: Some(0x4000_0000 + 64 * n),
        size: 64,
        gva: Some(64 * n),
        access: Access::Load,
        walk_level: None,
        level: ExceptionLevel::El1,
        pc: 0x1000,
        esr: Some(Esr::from_bits(0x9600_0210)),
        nested: None,
    }
}

/// Found by a hostile test: 780,000 errors in four seconds, none of them often enough for a storm.
#[test]
fn a_thousand_bad_lines_read_in_turn_are_a_flood() {
    let mut guard = StormGuard::default();
    let (mut taken, reason) = (0, StopReason::Flood { errors: 16_384, within: Duration::from_secs(10) });
    let error = loop {
        match guard.note(&line(taken % 1024), Duration::from_micros(5 * taken)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, reason);
    // 16,384, plus those for which there was time meanwhile.
    assert!((16_384..16_600).contains(&taken), "{taken}");
    assert_eq!(error.name(), "flood");
    let text = "the guest took more than 16384 memory errors within 10 s: it does not keep away from what it was told \
                is bad";
    assert_eq!(error.to_string(), text);
}

#[test]
fn ten_thousand_pages_at_once_and_a_thousand_a_second_for_an_hour_are_no_flood() {
    let mut guard = StormGuard::default();
    assert!((0..10_000).all(|n| guard.note(&line(64 * n), NOW).is_ok()));
    let mut guard = StormGuard::default();
    assert!((0..3_600_000).all(|n| guard.note(&line(64 * n), Duration::from_millis(n)).is_ok()));
}

/// 65 were held and 64 kept: a machine that went back to a snapshot had another state hash.
#[test]
fn what_a_containment_remembers_is_the_same_in_and_out_of_a_snapshot() {
    let mut guest = guest(0x9200_0210, 0x3c5, POSTED);
    let mut containment = Containment::new(Rules::FULL);
    for n in 0..100 {
        guest.vcpu.set_reg(Reg::Pc, PC + 4 * n);
        let exit = guest.exit;
        guest::handle(&mut containment, &mut guest, &exit, NOW).unwrap();
        let state = containment.state();
        let mut other = Containment::new(Rules::FULL);
        other.set_state(&state);
        assert_eq!(other.state(), state, "{n}");
    }
}

#[test]
fn memory_error_says_what_the_exit_says() {
    let of = |esr, pstate| {
        let exit = SeaExit::from_hardware(Esr::from_bits(esr), 0x50_0123, Some(0x4021_0000), true);
        MemoryError::from_sea(&exit, PC, Pstate::from_bits(pstate))
    };
    let load = of(0x9200_0210, 0);
    assert_eq!((load.access, load.gva, load.gpa), (Access::Load, Some(0x50_0123), Some(0x4021_0000)));
    assert_eq!((load.level, load.walk_level, load.pc), (ExceptionLevel::El0, None, PC));
    assert_eq!(load.to_string(), "load at EL0, PC 0x401040: gva 0x500123, gpa 0x40210000");
    assert_eq!(of(0x9200_0250, 5).access, Access::Store);
    assert_eq!(of(0x9200_0310, 5).access, Access::Maintenance);
    let walk = of(0x8200_0215, 5);
    assert_eq!((walk.access, walk.walk_level, walk.gpa), (Access::Fetch, Some(1), None));
    assert_eq!(walk.to_string(), "fetch at EL1, PC 0x401040: gva 0x500123, on the table walk at level 1");
    // For 0x18 KVM gives a gpa with FnV too, from a meaningless FAR.
    for esr in [0x9200_0610, 0x9200_0618] {
        let unknown = of(esr, 0);
        assert_eq!((unknown.gva, unknown.gpa), (None, None));
    }
}

#[test]
fn an_iss_has_25_bits() {
    assert_eq!(Iss::new(0x01ff_ffff).map(Iss::bits), Some(0x01ff_ffff));
    assert_eq!(Iss::new(0x0200_0000), None);
    assert_eq!(Iss::of(Esr::from_bits(0x9200_0210)).bits(), 0x210);
}

#[test]
fn an_abort_and_an_serror_go_in_one_call() {
    let injection = Injection::data_abort()
        .iss(Iss::new(0x200).unwrap())
        .and_serror(Injection::serror().iss(Iss::new(0x11).unwrap()));
    let events = injection.events();
    assert!(events.ext_dabt_pending && !events.ext_iabt_pending && events.serror_pending);
    assert_eq!((events.ext_abt_esr, events.serror_esr), (0x200, 0x11));
    assert_eq!(injection.to_string(), "data abort, ISS 0x200 and SError, ISS 0x11");
}

#[test]
fn an_outcome_names_a_far_only_where_the_exception_has_one() {
    let (_, abort) = handle(Rules::FULL, &mut guest(0x9200_0210, 0, POSTED));
    assert_eq!(abort.to_string(), "guest at vector 0xffff800010000c00, ESR 0x92000210, FAR 0x500123");
    let (_, serror) = handle(Rules::SERROR, &mut guest(0x9200_0210, 0, POSTED));
    assert_eq!(serror.to_string(), "guest at vector 0xffff800010000d80, ESR 0xbf000000");
}
