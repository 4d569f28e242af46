//! A guest whose devices have more to do than they do at once: the work goes on while the guest runs, at the same
//! steps however the run is cut, and from a snapshot.

use std::sync::{Arc, Mutex};

use seawall_machine::{Kicker, StateHash};
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, Snapshot, SoftwareMachine};

const MEMORY: u64 = 128 << 20;
/// Where a flat image lies.
const IMAGE: u64 = 0x4008_0000;
/// Its parts: the script, the virtqueue, the data that all descriptors share.
const SCRIPT: usize = 0x100;
const DESCRIPTORS: usize = 0x1000;
const AVAILABLE: usize = 0x2000;
const USED: usize = 0x3000;
const HEADER: usize = 0x4000;
const STATUS: usize = 0x4100;
const DATA: u64 = 0x4100_0000;
/// The first virtio device's registers: the last transport's.
const DEVICE: u32 = 0x0a00_3e00;

/// adr x0, SCRIPT; 1: ldp w1, w2, [x0], #8; cbz w1, 2f; str w2, [x1]; b 1b; 2: `end`
const RUN: [u32; 5] = [0x1000_0800, 0x28c1_0801, 0x3400_0061, 0xb900_0022, 0x17ff_fffd];
/// wfi; b . - 4
const WAIT: [u32; 2] = [0xd503_207f, 0x17ff_ffff];
const SPIN: [u32; 1] = [0x1400_0000];

/// A guest that starts queue `index` of the first device, whose chains (of descriptors: address, length, flags) are in
/// it 64 times, notifies it, and then does `end`.
fn guest(index: u32, chain: &[(u64, u32, u16)], end: &[u32]) -> Guest {
    let mut image = vec![0; 0x5000];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    for (n, word) in RUN.iter().chain(end).enumerate() {
        put(4 * n, &word.to_le_bytes());
    }
    let address = |at: usize| (IMAGE as u32) + at as u32;
    // virtio 1.2, 3.1.1 and 4.2.2.
    let script = [
        (0x070, 1),
        (0x070, 3),
        (0x024, 1),
        (0x020, 1),
        (0x070, 0xb),
        (0x030, index),
        (0x038, 64),
        (0x080, address(DESCRIPTORS)),
        (0x090, address(AVAILABLE)),
        (0x0a0, address(USED)),
        (0x044, 1),
        (0x070, 0xf),
        (0x050, index),
    ];
    for (n, (register, value)) in script.into_iter().enumerate() {
        put(SCRIPT + 8 * n, &(DEVICE + register).to_le_bytes());
        put(SCRIPT + 8 * n + 4, &u32::to_le_bytes(value));
    }
    for (n, (at, length, flags)) in chain.iter().enumerate() {
        let next = u16::from(n + 1 < chain.len());
        put(DESCRIPTORS + 16 * n, &at.to_le_bytes());
        put(DESCRIPTORS + 16 * n + 8, &length.to_le_bytes());
        put(DESCRIPTORS + 16 * n + 12, &(flags | next).to_le_bytes());
        put(DESCRIPTORS + 16 * n + 14, &(n as u16 + 1).to_le_bytes());
    }
    put(AVAILABLE + 2, &64_u16.to_le_bytes());
    Guest { kernel: Kernel::Flat(image), address: None, initrd: None, command_line: String::new() }
}

/// 64 writes of 1 MiB each to sector 0.
fn writer(end: &[u32]) -> (Guest, Config) {
    let at = |part: usize| IMAGE + part as u64;
    let mut guest = guest(0, &[(at(HEADER), 16, 0), (DATA, 1 << 20, 0), (at(STATUS), 1, 2)], end);
    if let Kernel::Flat(image) = &mut guest.kernel {
        image[HEADER] = 1;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let mut config = Config::new(MEMORY);
    config.disks.push(Disk::open(file.path(), Writes::InMemory).unwrap());
    (guest, config)
}

/// How many chains the device has given back.
fn given_back(machine: &SoftwareMachine) -> u16 {
    let mut bytes = [0; 2];
    machine.vm().memory().load(IMAGE + USED as u64 + 2, &mut bytes).unwrap();
    u16::from_le_bytes(bytes)
}

/// Its end, its state and its time after `steps`, in runs of at most `slice`.
fn run(machine: &mut SoftwareMachine, steps: u64, slice: u64) -> (Option<End>, StateHash, u64) {
    let mut left = steps;
    let mut end = None;
    while left > 0 && end.is_none() {
        let before = machine.instructions();
        end = machine.run(Some(slice.min(left))).unwrap();
        left -= machine.instructions() - before;
    }
    (end, machine.state_hash(), machine.time())
}

#[test]
fn work_that_is_too_much_for_a_notice_goes_on_at_the_same_steps_however_the_run_is_cut() {
    let (guest, config) = writer(&SPIN);
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(())).unwrap();
    // Four requests of 1 MiB at the notice, and at each ten thousandth step from then on.
    assert_eq!(machine.run(Some(1000)).unwrap(), None);
    assert_eq!(given_back(&machine), 4);
    let whole = run(&mut machine, 79_000, 100_000);
    assert_eq!(given_back(&machine), 32);
    let after = run(&mut machine, 120_000, 1_000_000);
    assert_eq!(given_back(&machine), 64);
    for slice in [10_000, 9_999, 777, 10_067] {
        let (_, config) = writer(&SPIN);
        let mut machine = SoftwareMachine::new(config, &guest, Box::new(())).unwrap();
        assert_eq!(run(&mut machine, 80_000, slice), whole, "{slice}");
        assert_eq!(run(&mut machine, 120_000, slice), after, "{slice}");
    }
}

#[test]
fn a_snapshot_has_the_work_that_is_still_to_do() {
    let (guest, config) = writer(&SPIN);
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(())).unwrap();
    machine.run(Some(35_000)).unwrap();
    let snapshot = machine.snapshot().unwrap();
    let after = run(&mut machine, 50_000, 50_000);
    assert_eq!(given_back(&machine), 36);
    machine.restore(&snapshot).unwrap();
    assert_eq!(given_back(&machine), 16);
    assert_eq!(run(&mut machine, 50_000, 50_000), after);
    let mut file = Vec::new();
    snapshot.save(&mut file).unwrap();
    let snapshot = Snapshot::load(&*file).unwrap();
    let (_, config) = writer(&SPIN);
    let mut other = SoftwareMachine::resume(&snapshot, config, Box::new(())).unwrap();
    assert_eq!(run(&mut other, 50_000, 50_000), after);
}

/// The guest waits for the device's interrupt, which it has not enabled: it is idle when all is done, not before.
#[test]
fn a_guest_that_waits_for_its_device_is_idle_only_when_that_is_done() {
    let (guest, config) = writer(&WAIT);
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(())).unwrap();
    let (end, _, time) = run(&mut machine, 1_000_000, 1_000_000);
    assert_eq!(end, Some(End::Idle));
    assert_eq!(given_back(&machine), 64);
    // Sixteen rests of ten microseconds: the last portion does not know that it is the last.
    assert!((160_000..161_000).contains(&time), "{time}");
}

#[derive(Clone, Default)]
struct Counts(Arc<Mutex<usize>>);

impl Observer for Counts {
    fn console(&mut self, bytes: &[u8]) {
        *self.0.lock().unwrap() += bytes.len();
    }
}

/// Found by a hostile test: 64 chains of 64 descriptors over the same 62 MiB ended in SIGABRT.
#[test]
fn chains_of_4_gb_to_the_console_cost_64_kib_of_it_in_ten_microseconds_of_the_guests_time() {
    let guest = guest(1, &[(DATA, 62 << 20, 0); 64], &SPIN);
    let mut config = Config::new(MEMORY);
    config.virtio_console = true;
    let counts = Counts::default();
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(counts.clone())).unwrap();
    assert_eq!(machine.run(Some(1000)).unwrap(), None);
    assert_eq!((*counts.0.lock().unwrap(), given_back(&machine)), (64 << 10, 0));
    machine.run(Some(700_000)).unwrap();
    assert_eq!((*counts.0.lock().unwrap(), given_back(&machine)), (71 * (64 << 10), 0));
}

/// A write of 100,000 bytes takes two portions.
#[test]
fn a_snapshot_has_how_much_of_a_console_write_is_done() {
    let guest = guest(1, &[(DATA, 100_000, 0)], &SPIN);
    let config = || {
        let mut config = Config::new(MEMORY);
        config.virtio_console = true;
        config
    };
    let counts = Counts::default();
    let mut machine = SoftwareMachine::new(config(), &guest, Box::new(counts.clone())).unwrap();
    machine.run(Some(1000)).unwrap();
    assert_eq!((*counts.0.lock().unwrap(), given_back(&machine)), (65_536, 0));
    let mut file = Vec::new();
    machine.snapshot().unwrap().save(&mut file).unwrap();
    let counts = Counts::default();
    let snapshot = Snapshot::load(&*file).unwrap();
    let mut other = SoftwareMachine::resume(&snapshot, config(), Box::new(counts.clone())).unwrap();
    other.run(Some(10_000)).unwrap();
    // The rest of the first write, and the beginning of the second.
    assert_eq!((*counts.0.lock().unwrap(), given_back(&other)), (65_536, 1));
    machine.run(Some(10_000)).unwrap();
    assert_eq!(other.state_hash(), machine.state_hash());
}

/// Kicks the machine as soon as it hears something, as `--timeout` may at any moment.
#[derive(Clone, Default)]
struct Kicks(Arc<Mutex<(usize, Option<Kicker>)>>);

impl Observer for Kicks {
    fn console(&mut self, bytes: &[u8]) {
        let (count, kicker) = &mut *self.0.lock().unwrap();
        *count += bytes.len();
        kicker.as_ref().unwrap().kick();
    }
}

/// A guest that never comes to an end, with devices that always have something to do.
#[test]
fn a_kick_in_a_portion_of_a_devices_work_is_seen_before_the_next_portion_and_the_next_step() {
    // mov x1, #0x0a000000; 1: str w2, [x1, #0x3e50], the notice; b 1b
    let guest = guest(1, &[(DATA, 62 << 20, 0); 64], &[0xd2a1_4001, 0xb93e_5022, 0x17ff_ffff]);
    let mut config = Config::new(MEMORY);
    config.virtio_console = true;
    let kicks = Kicks::default();
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(kicks.clone())).unwrap();
    let kicker = machine.kicker();
    kicks.0.lock().unwrap().1 = Some(kicker.clone());
    kicker.kick();
    assert_eq!(machine.run(None).unwrap(), None);
    assert_eq!(machine.instructions(), 0);
    let mut before = 0;
    for portion in 1..=100 {
        assert_eq!(machine.run(None).unwrap(), None);
        assert_eq!(kicks.0.lock().unwrap().0, portion * (64 << 10));
        // Ten microseconds, less what the notice is away from the turn's beginning.
        assert!(machine.instructions() - before <= 10_000, "{portion}");
        before = machine.instructions();
    }
}
