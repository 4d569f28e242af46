//! Snapshots of a guest with its devices: what goes on after one goes on the same after a restore, in another
//! machine, and in one from a file.

use std::sync::{Arc, Mutex};

use seawall::Outcome;
use seawall::telemetry::ErrorReport;
use seawall_guest::{ECHO, Place, READY, demo};
use seawall_machine::StateHash;
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, Snapshot, SoftwareMachine};

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<(String, Vec<Outcome>)>>);

impl Observer for Watch {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().0.push_str(&String::from_utf8_lossy(bytes));
    }

    fn memory_error(&mut self, _: &ErrorReport, outcome: &Outcome) {
        self.0.lock().unwrap().1.push(*outcome);
    }
}

impl Watch {
    fn take(&self) -> (String, Vec<Outcome>) {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn flat(code: Vec<u8>) -> Guest {
    Guest { kernel: Kernel::Flat(code), address: None, initrd: None, command_line: String::new() }
}

fn machine(config: Config, guest: &Guest) -> (SoftwareMachine, Watch) {
    let watch = Watch::default();
    (SoftwareMachine::new(config, guest, Box::new(watch.clone())).unwrap(), watch)
}

fn through_a_file(snapshot: &Snapshot) -> Snapshot {
    let mut file = Vec::new();
    snapshot.save(&mut file).unwrap();
    Snapshot::load(&*file).unwrap()
}

/// What a run of so many steps comes to.
fn run(
    machine: &mut SoftwareMachine,
    watch: &Watch,
    steps: u64,
) -> (Option<End>, String, Vec<Outcome>, StateHash) {
    watch.take();
    let end = machine.run(Some(steps)).unwrap();
    let (console, errors) = watch.take();
    (end, console, errors, machine.state_hash())
}

#[test]
fn the_demo_guest_with_bad_memory_ends_the_same_from_a_snapshot_at_any_step() {
    let image = demo();
    let guest = flat(image.bytes.clone());
    let [web, db, ..] = image.layout.tasks;
    for first in [1, 3000, 60_000, 200_000, 300_000] {
        let (mut vm, watch) = machine(Config::new(32 << 20), &guest);
        vm.run(Some(first)).unwrap();
        for place in [web.work_line, Place { len: 64, ..db.data }] {
            vm.poison(place.pa..place.pa + place.len).unwrap();
        }
        let hash = vm.state_hash();
        let snapshot = vm.snapshot().unwrap();
        assert_eq!(vm.state_hash(), hash, "{first}");
        let expected = run(&mut vm, &watch, 50_000_000);
        assert_eq!(expected.0, Some(End::PowerOff));

        vm.restore(&snapshot).unwrap();
        assert_eq!(vm.state_hash(), hash, "{first}");
        assert_eq!(run(&mut vm, &watch, 50_000_000), expected, "{first}");
        for snapshot in [&snapshot, &through_a_file(&snapshot)] {
            let watch = Watch::default();
            let mut other =
                SoftwareMachine::resume(snapshot, snapshot.config(), Box::new(watch.clone())).unwrap();
            assert_eq!(other.placement(), vm.placement());
            assert_eq!(run(&mut other, &watch, 50_000_000), expected, "{first}");
        }
    }
}

#[test]
fn another_policy_from_the_same_snapshot_has_another_end() {
    let image = demo();
    let (mut vm, _) = machine(Config::new(32 << 20), &flat(image.bytes.clone()));
    let watch = Watch::default();
    while !watch.0.lock().unwrap().0.contains(READY) {
        let snapshot = vm.snapshot().unwrap();
        vm = SoftwareMachine::resume(&snapshot, snapshot.config(), Box::new(watch.clone())).unwrap();
        vm.run(Some(10_000)).unwrap();
    }
    let [web, ..] = image.layout.tasks;
    vm.poison(web.work_line.pa..web.work_line.pa + 64).unwrap();
    let snapshot = vm.snapshot().unwrap();
    let console = |name: &str| {
        let watch = Watch::default();
        let mut config = snapshot.config();
        config.policy = Box::new(name.parse::<seawall::Rules>().unwrap());
        let mut vm = SoftwareMachine::resume(&snapshot, config, Box::new(watch.clone())).unwrap();
        assert_eq!(vm.run(Some(50_000_000)).unwrap(), Some(End::PowerOff));
        watch.take().0
    };
    assert!(console("serror").contains("panic"));
    assert!(!console("full").contains("panic"));
}

#[test]
fn what_was_typed_and_not_yet_taken_is_part_of_the_snapshot() {
    let guest = flat(ECHO.iter().flat_map(|word| word.to_le_bytes()).collect());
    let (mut vm, watch) = machine(Config::new(2 << 20), &guest);
    vm.type_in(b"more than the sixteen bytes that a FIFO holds, q");
    vm.run(Some(60)).unwrap();
    let (told, _) = watch.take();
    assert!((1..20).contains(&told.len()), "{told}");
    let snapshot = through_a_file(&vm.snapshot().unwrap());
    let (end, rest, ..) = run(&mut vm, &watch, 10_000);
    assert_eq!(end, Some(End::PowerOff));
    assert_eq!(told.clone() + &rest, "more than the sixteen bytes that a FIFO holds, q");
    let mut other = SoftwareMachine::resume(&snapshot, snapshot.config(), Box::new(watch.clone())).unwrap();
    assert_eq!(run(&mut other, &watch, 10_000).1, rest);
}

fn image(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("seawall-vmm-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_machine_with_other_devices_is_refused() {
    let path = image("other-devices", &[0; 1024]);
    let disk = |writes| Disk::open(&path, writes).unwrap();
    let guest = flat(ECHO.iter().flat_map(|word| word.to_le_bytes()).collect());
    let mut config = Config::new(2 << 20);
    config.disks = vec![disk(Writes::InMemory)];
    config.virtio_console = true;
    let (mut vm, _) = machine(config, &guest);
    let snapshot = vm.snapshot().unwrap();
    let refusal = |disks: Vec<Disk>, console: bool, memory: u64| {
        let config = Config { disks, virtio_console: console, ..Config::new(memory) };
        SoftwareMachine::resume(&snapshot, config, Box::new(())).map(drop).map_err(|e| e.to_string())
    };
    let expected = "the snapshot is of a machine with a virtio console, disks of 1024 bytes, this one has ";
    assert_eq!(refusal(vec![disk(Writes::InMemory)], true, 2 << 20), Ok(()));
    for (disks, console, got) in [
        (vec![], true, "a virtio console, no disk"),
        (vec![disk(Writes::Refused)], true, "a virtio console, disks of 1024 bytes read-only"),
        (vec![disk(Writes::InMemory)], false, "no virtio console, disks of 1024 bytes"),
    ] {
        assert_eq!(refusal(disks, console, 2 << 20), Err(format!("{expected}{got}")));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        refusal(vec![], true, 4 << 20).unwrap_err(),
        "the snapshot is of a machine with 1 vCPUs and 2097152 bytes of RAM, this one has 1 vCPUs and 4194304 bytes"
    );
}

#[test]
fn a_file_without_devices_is_no_snapshot_of_a_guest_of_the_vmm() {
    let (mut vm, _) = machine(Config::new(2 << 20), &flat(vec![0; 64]));
    let mut file = Vec::new();
    vm.snapshot().unwrap().machine().save(&mut file).unwrap();
    let error = Snapshot::load(&*file).unwrap_err().to_string();
    assert_eq!(
        error,
        "the snapshot is not one of a guest of this VMM: expected its devices, got something else"
    );
}
