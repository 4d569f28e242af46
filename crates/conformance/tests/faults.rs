//! The suite on backends with a fault: it must find and name the fault, as no more than a line in the report.

use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use seawall_conformance::{
    Backend, Capability, Entry, Error, Interrupt, LIMIT, Machine, Setup, TestVm, Verdict, run, scenarios,
};
use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit, Inject, Vcpu, VcpuTraits};

/// The fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The given ESR is lost.
    NoEsr,
    /// A data abort for every request, as from VMMs on a stock kernel.
    DataAbortsOnly,
    /// FAR is the page, as in SIGBUS.
    FarOfThePage,
    /// A refused request is carried out as far as possible, and 0 is returned.
    NeverRefuses,
    /// The instruction of a dropped access retires.
    SkipsTheInstruction,
    /// GET does not report a pending SError.
    ForgetsSErrors,
    /// Injecting panics.
    Panics,
    /// The guest never exits; the backend can be interrupted.
    Hangs,
    /// The guest never exits, and neither does the call return.
    HangsForGood,
    /// No poison.
    HasNoPoison,
}

struct Faulty(Fault);

struct FaultyVm {
    vm: Box<dyn TestVm>,
    fault: Fault,
    interrupt: Arc<Interrupt>,
}

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn offers(&self, capability: Capability) -> Result<(), String> {
        match (self.0, capability) {
            (Fault::HasNoPoison, Capability::Poison) => Err("all its memory is good".into()),
            _ => Machine.offers(capability),
        }
    }

    fn create(&self, setup: &Setup, interrupt: Arc<Interrupt>) -> Result<Box<dyn TestVm>, Error> {
        let vm = Machine.create(setup, Arc::clone(&interrupt))?;
        Ok(Box::new(FaultyVm { vm, fault: self.0, interrupt }))
    }

    fn kick(&self, _thread: &JoinHandle<()>) {}
}

impl Inject for FaultyVm {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        self.vm.traits()
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        self.vm.reg(reg)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        self.vm.set_reg(reg, value)
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        let mut events = *events;
        let asked = events.ext_dabt_pending || events.ext_iabt_pending;
        let pc = self.vm.reg(Reg::Pc)?;
        match self.fault {
            Fault::NoEsr => events.ext_abt_has_esr = false,
            Fault::DataAbortsOnly if events.ext_iabt_pending => {
                (events.ext_dabt_pending, events.ext_iabt_pending) = (true, false);
            }
            Fault::Panics => panic!("a fault of the backend"),
            _ => {}
        }
        let set = self.vm.inject(&events);
        if self.fault == Fault::NeverRefuses && set.is_err() {
            return Ok(Delivery::NotDelivered);
        }
        if self.fault == Fault::FarOfThePage && asked && set.is_ok() {
            let far = self.vm.reg(Reg::FarEl1)?;
            self.vm.set_reg(Reg::FarEl1, far & !0xfff)?;
        }
        if self.fault == Fault::SkipsTheInstruction && asked && set.is_ok() {
            self.vm.set_reg(Reg::ElrEl1, pc + 4)?;
        }
        set
    }
}

impl Vcpu for FaultyVm {
    fn run(&mut self) -> Result<Exit, Error> {
        match self.fault {
            Fault::Hangs => {
                while !self.interrupt.is_wanted() {
                    sleep(Duration::from_millis(1));
                }
                Ok(Exit::Intr)
            }
            Fault::HangsForGood => loop {
                sleep(Duration::from_secs(1));
            },
            _ => self.vm.run(),
        }
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        self.vm.answer_mmio(data);
    }
}

impl TestVm for FaultyVm {
    fn events(&self) -> Result<VcpuEvents, Error> {
        let events = self.vm.events()?;
        let forgets = self.fault == Fault::ForgetsSErrors;
        Ok(VcpuEvents { serror_pending: events.serror_pending && !forgets, ..events })
    }

    fn set_events_bytes(&mut self, bytes: &[u8; 64]) -> Result<Delivery, Error> {
        match self.vm.set_events_bytes(bytes) {
            Err(_) if self.fault == Fault::NeverRefuses => Ok(Delivery::NotDelivered),
            set => set,
        }
    }

    fn set_events_unreadable(&mut self) -> Result<(), Error> {
        self.vm.set_events_unreadable()
    }

    fn events_bytes(&mut self) -> Result<[u8; 64], Error> {
        self.vm.events_bytes()
    }

    fn run_at_once(&mut self) -> Result<Exit, Error> {
        self.vm.run_at_once()
    }

    fn run_for_a_while(&mut self) -> Result<Exit, Error> {
        self.vm.run_for_a_while()
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.vm.read(gpa, bytes)
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        self.vm.write(gpa, bytes)
    }

    fn poison(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.poison(gpa)
    }

    fn heal(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.heal(gpa)
    }

    fn hwpoison(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.hwpoison(gpa)
    }

    fn remap(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.remap(gpa)
    }

    fn host_address(&self, gpa: u64) -> Result<u64, Error> {
        self.vm.host_address(gpa)
    }
}

fn entry(fault: Fault, name: &str, limit: Duration) -> Entry {
    let backend: Arc<dyn Backend> = Arc::new(Faulty(fault));
    let scenario = scenarios().find(|scenario| scenario.to_string() == name).expect("a scenario's name");
    run(&backend, &scenario, limit)
}

/// The mismatches, as lines.
fn found(fault: Fault, name: &str) -> Vec<String> {
    match entry(fault, name, LIMIT).verdict {
        Verdict::Failed { mismatches, .. } => mismatches
            .iter()
            .map(|wrong| format!("{}{}: {} {}", wrong.case, wrong.field, wrong.expected, wrong.got))
            .collect(),
        other => panic!("expected a failure of {name}, got {other:?}"),
    }
}

/// The names of the failing scenarios.
fn failures(fault: Fault) -> Vec<String> {
    let backend: Arc<dyn Backend> = Arc::new(Faulty(fault));
    let failed = |entry: &Entry| matches!(entry.verdict, Verdict::Failed { .. });
    scenarios()
        .map(|scenario| run(&backend, &scenario, LIMIT))
        .filter(failed)
        .map(|entry| format!("{}::{}", entry.group, entry.name))
        .collect()
}

#[test]
fn a_lost_esr_is_found_by_every_scenario_that_gives_one() {
    let lines = found(Fault::NoEsr, "esr::measured_values_come_out_as_measured");
    assert_eq!(lines[0], "ISS 0x1c0c700ESR: 0x97c0c710 0x96000010");
    assert_eq!(lines[1], "ISS 0x1c0c700ESR, by the guest's handler: 0x97c0c710 0x96000010");
    let failures = failures(Fault::NoEsr);
    assert_eq!(failures.iter().filter(|name| name.starts_with("esr::")).count(), 6, "{failures:?}");
    assert!(failures.iter().any(|name| name == "sea::a_fetch_at_el0"), "{failures:?}");
    assert!(!failures.iter().any(|name| name.starts_with("serror::")), "{failures:?}");
}

#[test]
fn a_data_abort_in_the_place_of_an_instruction_abort_is_found() {
    let lines = found(Fault::DataAbortsOnly, "abort::an_instruction_abort_at_el1");
    assert_eq!(lines, ["ESR: 0x86000010 0x96000010", "ESR, by the guest's handler: 0x86000010 0x96000010"]);
    found(Fault::DataAbortsOnly, "sea::a_fetch_at_el1");
}

#[test]
fn a_far_of_the_page_is_found() {
    let lines = found(Fault::FarOfThePage, "abort::a_data_abort_at_el0");
    assert_eq!(lines, ["FAR: 0xa001008 0xa001000", "FAR, by the guest's handler: 0xa001008 0xa001000"]);
    found(Fault::FarOfThePage, "sea::a_load_with_the_mmu_off");
}

#[test]
fn a_refusal_that_is_none_is_found_for_each_rule() {
    let failures = failures(Fault::NeverRefuses);
    for name in [
        "errno::mainline_einval_for_each_reserved_word",
        "errno::mainline_einval_for_each_pad_byte",
        "errno::extended_einval_for_each_reserved_word",
        "errno::extended_einval_for_each_pad_byte",
        "errno::extended_einval_for_both_aborts_at_once",
        "errno::extended_einval_for_an_abort_esr_outside_the_iss",
        "errno::extended_einval_for_an_serror_esr_outside_the_iss_even_if_none_is_pending",
        "errno::mainline_einval_for_an_serror_esr_outside_the_iss",
        "errno::extended_einval_for_either_esr_without_ras_even_with_nothing_pending",
        "errno::mainline_einval_for_an_serror_esr_without_ras_only_if_one_is_pending",
        "mainline::a_data_abort_is_delivered_before_the_serror_is_refused",
        "mainline::the_refused_serror_is_not_pending",
    ] {
        assert!(failures.iter().any(|failure| failure == name), "{name}");
    }
    assert_eq!(failures.len(), 12, "{failures:?}");
}

#[test]
fn an_instruction_that_retires_is_found() {
    let lines = found(Fault::SkipsTheInstruction, "mmio::an_abort_drops_the_waiting_load");
    assert_eq!(lines[0], "ELR: 0x40080000 0x40080004");
    let lines = found(Fault::SkipsTheInstruction, "abort::a_data_abort_at_el0");
    assert_eq!(lines[0], "ELR: 0x40080000 0x40080004");
}

#[test]
fn an_serror_that_get_does_not_tell_of_is_found() {
    found(Fault::ForgetsSErrors, "serror::masked_it_stays_pending_and_changes_nothing");
    found(Fault::ForgetsSErrors, "both::the_abort_is_taken_and_the_serror_stays_pending");
}

fn stopped(fault: Fault, limit: Duration) -> String {
    match entry(fault, "abort::a_data_abort_at_el1", limit).verdict {
        Verdict::Failed { stopped: Some(why), .. } => why,
        other => panic!("expected it to be stopped, got {other:?}"),
    }
}

#[test]
fn a_panic_is_a_failure_with_its_message() {
    assert_eq!(stopped(Fault::Panics, LIMIT), "panicked: a fault of the backend");
}

#[test]
fn a_guest_that_never_exits_is_ended_at_the_limit() {
    // It gets the same time again to return, which a busy host needs.
    let why = stopped(Fault::Hangs, Duration::from_secs(3));
    assert_eq!(why, "the guest hung: no exit, PC is 0x40080000 (after 3s)");
}

#[test]
fn a_call_that_never_returns_is_given_up() {
    let why = stopped(Fault::HangsForGood, Duration::from_millis(50));
    assert_eq!(why, "it does not come back, 100ms");
}

#[test]
fn what_is_missing_is_skipped_with_the_reason() {
    let verdict = entry(Fault::HasNoPoison, "sea::a_load_at_el0", LIMIT).verdict;
    assert_eq!(verdict, Verdict::Skipped { reason: "all its memory is good".into() });
}

#[test]
fn names_are_unique() {
    let mut names: Vec<String> = scenarios().map(|scenario| scenario.to_string()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
