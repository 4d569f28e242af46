//! The VMM's loader, device tree and board around the software machine: the demo's guest, its console on the PL011,
//! its bad memory contained. What drives `/dev/kvm` drives it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use seawall::{Action, Outcome};
use seawall_events::{Reg, Vcpu as _};
use seawall_guest::{KernelEnd, Place, READY, Report, TaskState, demo};
use seawall_machine::{Config as MachineConfig, Vm};
use seawall_vmm::interrupt::{InterruptLine, Probe};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, Placement, policy};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

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
    errors: Vec<Outcome>,
}

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().console.push_str(&String::from_utf8_lossy(bytes));
    }

    fn line(&mut self, line: &str) {
        self.0.lock().unwrap().is_ready |= line.starts_with(READY);
    }

    fn memory_error(&mut self, _: u32, outcome: &Outcome) {
        self.0.lock().unwrap().errors.push(*outcome);
    }
}

/// Runs the demo's guest; when it is ready a line of web's code and one of db's data go bad.
fn run(policy_name: &str) -> (End, Seen) {
    let image = demo();
    let mut config = Config::new(MEMORY).unwrap();
    config.policy = policy(policy_name).unwrap();
    let memory = config.memory.clone();
    let guest =
        Guest { kernel: Kernel::Flat(image.bytes.clone()), initrd: None, command_line: String::new() };
    let watch = Watch::default();
    let line = |_| Ok(Arc::new(Probe::default()) as Arc<dyn InterruptLine>);
    let board = config.board(line, Box::new(watch.clone())).unwrap();
    let placement = guest.load(&memory, 1, &board).unwrap();
    assert_eq!(placement.entry, image.entry);

    let mut vm = Vm::new(MachineConfig { memory_size: MEMORY, ..MachineConfig::default() }).unwrap();
    copy(&memory, &placement, &mut vm);
    let mut vcpu = vm.vcpu(0).unwrap();
    vcpu.set_reg(Reg::Pc, placement.entry).unwrap();
    vcpu.set_reg(Reg::X(0), placement.fdt.start).unwrap();
    vcpu.set_budget(Some(BUDGET));
    let [web, db, ..] = image.layout.tasks;
    let places = [web.work_line, Place { len: 64, ..db.data }];
    let mut to_come = Some(places);
    loop {
        let exit = vcpu.run().unwrap();
        let now = Duration::from_nanos(vcpu.instructions());
        if let Some(end) = board.serve(0, &mut vcpu, &exit, now).unwrap() {
            let seen = std::mem::take(&mut *watch.0.lock().unwrap());
            return (end, seen);
        }
        if let Some(places) = to_come.take_if(|_| watch.0.lock().unwrap().is_ready) {
            for place in places {
                vcpu.vm_mut().poison(place.pa..place.pa + place.len).unwrap();
            }
        }
    }
}

/// The machine has RAM of its own.
fn copy(memory: &GuestMemoryMmap, placement: &Placement, vm: &mut Vm) {
    for part in [&placement.kernel, &placement.fdt] {
        let mut bytes = vec![0; (part.end - part.start) as usize];
        memory.read_slice(&mut bytes, GuestAddress(part.start)).unwrap();
        vm.memory_mut().store(part.start, &bytes).unwrap();
    }
}

#[test]
fn full_containment_costs_one_task_and_the_guest_powers_itself_off() {
    let (end, seen) = run("full");
    assert_eq!(end, End::PowerOff);
    let report = Report::parse(&seen.console).unwrap();
    let states: Vec<_> = report.tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Alive, TaskState::Killed, TaskState::Alive, TaskState::Alive]);
    assert_eq!(report.kernel, KernelEnd::Ok);
    let what: Vec<_> = seen.errors.iter().map(|outcome| outcome.error.esr.bits()).collect();
    assert_eq!(what, [0x8200_0210, 0x9200_0210]);
    assert!(seen.errors.iter().all(|outcome| matches!(outcome.action, Action::Injected { .. })));
}

#[test]
fn serror_costs_the_kernel() {
    let (end, seen) = run("serror");
    assert_eq!(end, End::PowerOff);
    assert_eq!(Report::parse(&seen.console).unwrap().kernel, KernelEnd::Panic);
}
