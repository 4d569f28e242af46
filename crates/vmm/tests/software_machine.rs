//! The VMM's loader, device tree and board around the software machine: the demo's guest, its console on the PL011,
//! its bad memory contained. What drives `/dev/kvm` drives it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use seawall::telemetry::ErrorReport;
use seawall::{Action, Outcome};
use seawall_guest::{ECHO, KernelEnd, Place, READY, Report, TaskState, demo};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, SoftwareMachine};

/// As much as the machine has by default.
const MEMORY: u64 = 128 << 20;
/// More steps than the guest needs.
const BUDGET: u64 = 50_000_000;

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    console: String,
    is_ready: bool,
    wants_pause: bool,
    errors: Vec<Outcome>,
    reports: Vec<ErrorReport>,
}

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().console.push_str(&String::from_utf8_lossy(bytes));
    }

    fn line(&mut self, line: &str) {
        let seen = &mut *self.0.lock().unwrap();
        seen.wants_pause = line.starts_with(READY);
        seen.is_ready |= seen.wants_pause;
    }

    fn wants_pause(&mut self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap().wants_pause)
    }

    fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
        let seen = &mut *self.0.lock().unwrap();
        seen.errors.push(*outcome);
        seen.reports.push(report.clone());
    }
}

/// Runs the demo's guest; when it is ready a line of web's code and one of db's data go bad.
fn run(policy_name: &str) -> (End, Seen) {
    let image = demo();
    let mut config = Config::new(MEMORY);
    config.policy = Box::new(policy_name.parse::<seawall::Rules>().unwrap());
    let kernel = Kernel::Flat(image.bytes.clone());
    let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
    let watch = Watch::default();
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(watch.clone())).unwrap();
    assert_eq!(machine.placement().entry, image.entry);
    assert_eq!(machine.run(Some(BUDGET)).unwrap(), None);
    assert!(watch.0.lock().unwrap().is_ready);
    let [web, db, ..] = image.layout.tasks;
    for place in [web.work_line, Place { len: 64, ..db.data }] {
        machine.poison(place.pa..place.pa + place.len).unwrap();
    }
    let end = machine.run(Some(BUDGET)).unwrap().expect("the guest ends");
    let seen = std::mem::take(&mut *watch.0.lock().unwrap());
    (end, seen)
}

#[test]
fn full_containment_costs_one_task_and_the_guest_powers_itself_off() {
    let (end, seen) = run("full");
    assert_eq!(end, End::PowerOff);
    let report = Report::parse(&seen.console).unwrap();
    let states: Vec<_> = report.tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Alive, TaskState::Killed, TaskState::Alive, TaskState::Alive]);
    assert_eq!(report.kernel, KernelEnd::Ok);
    let what: Vec<_> = seen.errors.iter().map(|outcome| outcome.error.esr.unwrap().bits()).collect();
    assert_eq!(what, [0x8200_0210, 0x9200_0210]);
    assert!(seen.errors.iter().all(|outcome| matches!(outcome.action, Action::Injected { .. })));
}

#[test]
fn serror_costs_the_kernel() {
    let (end, seen) = run("serror");
    assert_eq!(end, End::PowerOff);
    assert_eq!(Report::parse(&seen.console).unwrap().kernel, KernelEnd::Panic);
}

#[test]
fn a_run_is_the_same_to_the_byte_and_the_step() {
    let ((_, first), (_, second)) = (run("full"), run("full"));
    assert_eq!((first.console, first.errors), (second.console, second.errors));
    assert_eq!(first.reports, second.reports);
}

#[test]
fn a_report_has_the_machine_s_time_and_nothing_of_the_host_s() {
    let (_, seen) = run("full");
    assert_eq!(seen.reports.len(), 2);
    for report in seen.reports {
        let since = Duration::from_nanos(report.guest_time_ns.unwrap());
        // 2026-01-01 UTC.
        assert_eq!(report.time, Some(UNIX_EPOCH + Duration::from_secs(1_767_225_600) + since));
        assert!(since > Duration::ZERO && since < Duration::from_secs(1));
        assert_eq!((report.vcpu, report.exit_to_injection_ns), (0, None));
    }
}

#[test]
fn what_is_typed_gets_to_the_guest_as_fast_as_it_takes_it() {
    let code = ECHO.iter().flat_map(|word| word.to_le_bytes()).collect();
    let guest =
        Guest { kernel: Kernel::Flat(code), address: None, initrd: None, command_line: String::new() };
    let watch = Watch::default();
    let mut machine = SoftwareMachine::new(Config::new(2 << 20), &guest, Box::new(watch.clone())).unwrap();
    machine.type_in(b"more than the sixteen bytes that a FIFO holds, q");
    assert_eq!(machine.run(Some(10_000)).unwrap(), Some(End::PowerOff));
    assert_eq!(watch.0.lock().unwrap().console, "more than the sixteen bytes that a FIFO holds, q");
}
