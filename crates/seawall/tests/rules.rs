//! The operator's table: the kind of an error, and the effect of each answer; virtual EL2, hosts without RAS,
//! dry runs, and hosts that can repair memory themselves.

mod guest;

use std::time::{Duration, SystemTime};

use guest::{Guest, Met, PC, VBAR, vcpu_at};
use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall::{
    Action, Answer, Containment, ErrorKind, Injection, Iss, MemoryError, Nested, Policy, Recorded, Response,
    Rule, Rules, StopReason, Verdict,
};
use seawall_arm::{Esr, Pstate};
use seawall_events::{Abi, Layout, Reg, Registers, SeaExit};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

const POSTED: Abi = Abi::Extended(Layout::Posted);
const NOW: Duration = Duration::ZERO;
const EL0: u64 = 0;
const EL1H: u64 = 5;
const EL2H: u64 = 9;
/// `HCR_EL2`.
const VM: u64 = 1;
const TGE: u64 = 1 << 27;
const TEA: u64 = 1 << 37;
/// `HCRX_EL2`.
const TMEA: u64 = 1 << 19;

fn exit(esr: u64) -> SeaExit {
    SeaExit::from_hardware(Esr::from_bits(esr), 0x50_0123, Some(0x4021_0000), true)
}

fn error(esr: u64, pstate: u64) -> MemoryError {
    MemoryError::from_sea(&exit(esr), PC, Pstate::from_bits(pstate))
}

fn guest(esr: u64, pstate: u64) -> Guest {
    Guest { vcpu: vcpu_at(pstate, esr, 0x50_0123), abi: POSTED, exit: exit(esr) }
}

#[test]
fn an_error_is_of_the_first_kind_that_fits() {
    for (esr, pstate, kind) in [
        (0x9200_0210, EL0, ErrorKind::UserData),
        (0x9200_0250, EL0, ErrorKind::UserData),
        (0x8200_0210, EL0, ErrorKind::UserFetch),
        (0x9200_0210, EL1H, ErrorKind::KernelData),
        (0x8200_0210, EL1H, ErrorKind::KernelFetch),
        // At virtual EL2 the guest hypervisor is the kernel.
        (0x8200_0210, EL2H, ErrorKind::KernelFetch),
        // FnV.
        (0x9200_0610, EL0, ErrorKind::NoAddress),
        (0x8200_0610, EL1H, ErrorKind::NoAddress),
        // On a walk, level 1; also for a fetch, and with FnV.
        (0x9200_0215, EL0, ErrorKind::Walk),
        (0x8200_0215, EL1H, ErrorKind::Walk),
        (0x9200_0615, EL0, ErrorKind::Walk),
    ] {
        assert_eq!(ErrorKind::of(&error(esr, pstate)), kind, "{esr:#x} {pstate}");
    }
}

#[test]
fn sigbus_tells_the_page_but_not_a_fetch_from_a_load() {
    for (pstate, kind) in [(EL0, ErrorKind::UserData), (EL1H, ErrorKind::KernelData)] {
        assert_eq!(
            ErrorKind::of(&MemoryError::from_sigbus(0x4021_0000..0x4021_1000, PC, Pstate::from_bits(pstate))),
            kind
        );
    }
}

#[test]
fn by_default_all_but_what_a_guest_hypervisor_takes_is_replayed() {
    let answers = ErrorKind::ALL.map(|kind| (kind.name(), Rules::default().answer(kind).name()));
    assert_eq!(
        answers,
        [
            ("nested", "stop"),
            ("walk", "replay"),
            ("no-address", "replay"),
            ("kernel-fetch", "replay"),
            ("kernel-data", "replay"),
            ("user-fetch", "replay"),
            ("user-data", "replay"),
        ]
    );
}

#[test]
fn each_answer_is_what_it_says() {
    let error = error(0x8200_0210, EL0);
    let replay = Injection::instruction_abort().iss(Iss::new(0x210).unwrap());
    for (answer, response) in [
        (Answer::Replay, replay.into()),
        (Answer::DataAbort, Injection::data_abort().into()),
        (Answer::SError, Injection::serror().into()),
        (Answer::Stop, Response::Stop(StopReason::Policy(ErrorKind::UserFetch))),
        (Answer::HostFirst, Response::HostFirst(replay.into())),
    ] {
        let rules = Rules::default().with(ErrorKind::UserFetch, answer);
        assert_eq!(rules.decide(&error), response, "{answer:?}");
        assert_eq!(Rules::default().decide(&error), replay.into(), "the default is another table");
    }
}

/// One rule at a time: errors of other kinds get the old answer.
#[test]
fn a_rule_is_for_errors_of_its_kind_alone() {
    for kind in ErrorKind::ALL {
        let rules = Rules::default().with(kind, Answer::SError);
        for (esr, pstate) in [
            (0x9200_0210, EL0),
            (0x8200_0210, EL0),
            (0x9200_0210, EL1H),
            (0x8200_0210, EL1H),
            (0x9200_0610, EL0),
        ] {
            let error = error(esr, pstate);
            let is_serror = rules.decide(&error) == Injection::serror().into();
            assert_eq!(is_serror, ErrorKind::of(&error) == kind, "{kind} {esr:#x}");
        }
    }
}

#[test]
fn a_privileged_fetch_can_be_made_to_stop_the_guest_with_the_reason() {
    let mut guest = guest(0x8200_0210, EL1H);
    let exit = guest.exit;
    let rules = Rules::default().with(ErrorKind::KernelFetch, Answer::Stop);
    let outcome = guest::handle(&mut Containment::new(rules), &mut guest, &exit, NOW).unwrap();
    assert_eq!(outcome.action, Action::Stop(StopReason::Policy(ErrorKind::KernelFetch)));
    assert!(
        outcome
            .to_string()
            .ends_with("stopped: the policy stops a guest at this kind of error: kernel-fetch")
    );
    assert_eq!(guest.vcpu.reg(Reg::Pc), PC, "nothing was injected");
}

#[test]
fn rules_are_read_as_people_write_them() {
    assert_eq!("walk=serror".parse(), Ok(Rule { kind: ErrorKind::Walk, answer: Answer::SError }));
    for bad in ["walk", "walk=", "=stop", "walks=stop", "walk=die", ""] {
        let message = bad.parse::<Rule>().unwrap_err().to_string();
        assert!(
            message.starts_with("expected KIND=ANSWER, KIND one of nested, walk, no-address"),
            "{message}"
        );
        assert!(message.ends_with(&format!("got `{bad}`")), "{message}");
    }
}

#[test]
fn tables_go_by_name_and_rules_change_them() {
    for (text, expected) in [
        ("rules", Rules::DEFAULT),
        ("serror", Rules::SERROR),
        ("mainline", Rules::MAINLINE),
        ("full", Rules::FULL),
    ] {
        let rules: Rules = text.parse().unwrap();
        assert_eq!((rules, rules.name()), (expected, text));
    }
    let changed =
        Rules::DEFAULT.with(ErrorKind::UserData, Answer::HostFirst).with(ErrorKind::Walk, Answer::Stop);
    assert_eq!("user-data=host-first,walk=stop".parse(), Ok(changed));
    assert_eq!(changed.name(), "rules");
    let changed = "full,nested=stop".parse::<Rules>().unwrap();
    assert_eq!(changed, Rules::DEFAULT, "which is how they differ");
    for (bad, message) in [
        (
            "none",
            "expected a policy (`rules`, `serror`, `mainline`, `full`) or rules such as `kernel-fetch=stop`, got `none`",
        ),
        (
            "",
            "expected a policy (`rules`, `serror`, `mainline`, `full`) or rules such as `kernel-fetch=stop`, got ``",
        ),
    ] {
        assert_eq!(bad.parse::<Rules>().unwrap_err().to_string(), message);
    }
    let message = "full,walk=die".parse::<Rules>().unwrap_err().to_string();
    assert!(message.ends_with("got `walk=die`"), "{message}");
}

/// DDI 0487: TEA and TMEA route an external abort to EL2, TGE makes EL0 the hypervisor's own.
#[test]
fn of_a_vcpu_with_el2_the_hypervisors_registers_say_whose_an_abort_is() {
    for (pstate, hcr_el2, hcrx_el2, nested) in [
        (EL0, VM, 0, Some(Nested::Guest)),
        (EL1H, VM, 0, Some(Nested::Guest)),
        (EL1H, VM | TEA, 0, Some(Nested::Hypervisor)),
        (EL0, VM, TMEA, Some(Nested::Hypervisor)),
        (EL2H, VM | TEA, 0, None),
        (EL0, TGE | TEA, 0, None),
    ] {
        let error = error(0x9200_0210, pstate).with_el2(hcr_el2, hcrx_el2);
        assert_eq!(error.nested, nested, "{pstate} {hcr_el2:#x} {hcrx_el2:#x}");
        // HCR_EL2.VM: the address belongs to the nested guest, and is not a page of the VM.
        assert_eq!(error.gpa, if nested.is_some() { None } else { Some(0x4021_0000) });
    }
    let flat = error(0x9200_0210, EL1H).with_el2(0, 0);
    assert_eq!((flat.nested, flat.gpa), (Some(Nested::Guest), Some(0x4021_0000)), "stage 2 is off");
    let sigbus = MemoryError::from_sigbus(0x4021_0000..0x4021_1000, PC, Pstate::from_bits(EL1H));
    let sigbus = sigbus.with_el2(VM | TEA, 0);
    assert_eq!(sigbus.gpa, Some(0x4021_0000), "SIGBUS names the VM's own page");
}

#[test]
fn a_nested_guest_whose_hypervisor_takes_aborts_is_stopped_before_the_kernel_is_asked() {
    let mut guest = guest(0x9200_0210, EL1H);
    guest.vcpu.config.el2 = true;
    guest.vcpu.set_reg(Reg::HcrEl2, VM | TEA);
    let exit = guest.exit;
    let mut containment = Containment::new(Rules::default());
    let before = guest.vcpu.clone();
    let outcome = guest::handle(&mut containment, &mut guest, &exit, NOW).unwrap();
    assert_eq!(outcome.action, Action::Stop(StopReason::Nested));
    assert_eq!(guest.vcpu, before);
    // On a kernel that can do it another rule applies: the hypervisor takes it at EL2.
    let mut containment = Containment::new(Rules::default().with(ErrorKind::Nested, Answer::Replay));
    guest::handle(&mut containment, &mut guest, &exit, NOW).unwrap();
    assert_eq!(guest.vcpu.reg(Reg::EsrEl2), 0x9200_0210);
}

/// The proposal: without RAS, `has_esr` gives EINVAL.
#[test]
fn on_a_host_without_ras_the_abort_comes_without_an_iss() {
    let mut guest = guest(0x8200_0210, EL0);
    guest.vcpu.config.ras = false;
    let exit = guest.exit;
    guest::handle(&mut Containment::new(Rules::default()), &mut guest, &exit, NOW).unwrap();
    assert_eq!(guest.vcpu.reg(Reg::EsrEl1), 0x8200_0010);
    assert_eq!(guest.vcpu.reg(Reg::Pc), VBAR + 0x400);
}

#[test]
fn without_an_address_the_guest_is_told_not_to_trust_the_far() {
    let mut guest = guest(0x9200_0610, EL0);
    let exit = guest.exit;
    guest::handle(&mut Containment::new(Rules::default()), &mut guest, &exit, NOW).unwrap();
    assert_eq!(guest.vcpu.reg(Reg::EsrEl1), 0x9200_0610, "FnV, bit 10");
}

/// A containment with one source of records, in its own memory.
fn with_records(rules: Rules) -> (Containment, GuestMemoryMmap) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let mut ghes = Ghes::new(GhesRegion { base: 0, sea: 1, polled: 0, poll_interval: 0 });
    ghes.reset(&memory).unwrap();
    let mut containment = Containment::new(rules);
    containment.set_records(Some(ghes));
    (containment, memory)
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut guest = guest(0x8200_0210, EL0);
    let (mut containment, memory) = with_records(Rules::default());
    containment.set_dry_run(true);
    let (vcpu, exit) = (guest.vcpu.clone(), guest.exit);
    let mut decision = guest::decide(&mut containment, &guest, &Met::Sea(exit), NOW).unwrap();
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
    let outcome = containment.inject(&mut guest, decision).unwrap();
    let expected = Injection::instruction_abort().iss(Iss::new(0x210).unwrap()).into();
    assert_eq!((outcome.action, outcome.recorded), (Action::DryRun(expected), Recorded::No));
    assert!(outcome.to_string().ends_with("dry run: instruction abort, ISS 0x210 would have been injected"));
    assert_eq!(guest.vcpu, vcpu);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(16)).unwrap(), 0, "no record");
    // A reason to stop still stops the guest: there is no other answer to a storm.
    let mut actions =
        (0..20).map(|_| guest::handle(&mut containment, &mut guest, &exit, NOW).unwrap().action);
    assert!(actions.any(|action| matches!(action, Action::Stop(StopReason::Storm { times: 17, .. }))));
}

#[test]
fn a_host_that_can_help_itself_goes_first_and_the_guest_is_told_where_it_cannot() {
    let mut guest = guest(0x9200_0210, EL0);
    let (mut containment, memory) =
        with_records(Rules::default().with(ErrorKind::UserData, Answer::HostFirst));
    let (before, source) = (guest.vcpu.clone(), Met::Sea(guest.exit));
    let mut decision = guest::decide(&mut containment, &guest, &source, NOW).unwrap();
    let replay = Injection::data_abort().iss(Iss::new(0x210).unwrap()).into();
    assert_eq!(decision.verdict, Verdict::HostFirst(replay));
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(decision.recorded, Recorded::No, "nobody is to be told yet");
    assert_eq!(containment.repaired(decision).action, Action::Repaired);
    assert_eq!(guest.vcpu, before);

    let decision = guest::decide(&mut containment, &guest, &source, NOW).unwrap();
    let mut decision = decision.guest_first();
    assert_eq!(decision.verdict, Verdict::Inject(replay));
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(decision.recorded, Recorded::AtSource(0));
    containment.inject(&mut guest, decision).unwrap();
    assert_eq!(guest.vcpu.reg(Reg::EsrEl1), 0x9200_0210);
}
