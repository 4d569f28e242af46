//! The board's state in a snapshot's file, behind valid checksums, with random changes. It is refused, or a
//! guest continues from it, the same each time.

use std::sync::OnceLock;

use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, Guest, Snapshot, SoftwareMachine};
use tempfile::NamedTempFile;

const MEMORY: u64 = 2 << 20;
const DISK: u64 = 1 << 16;

/// The file of a disk, and a snapshot of a guest with it: the machine, and the board's state.
struct Good {
    disk: NamedTempFile,
    machine: seawall_machine::Snapshot,
    devices: Vec<u8>,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let disk = NamedTempFile::new().expect("a file");
        disk.as_file().set_len(DISK).expect("a sparse file");
        // mov x1, #0x09000000; 1: str w1, [x1]; b 1b: it writes to the UART forever.
        let code = [0xd2a1_2001_u32, 0xb900_0021, 0x17ff_ffff];
        let code = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        let guest =
            Guest { kernel: Kernel::Flat(code), address: None, initrd: None, command_line: String::new() };
        let mut machine = SoftwareMachine::new(config(&disk), &guest, Box::new(())).expect("a machine");
        machine.type_in(&[b'y'; 100]);
        machine.run(Some(500)).expect("it runs");
        let mut file = Vec::new();
        machine.snapshot().expect("room").save(&mut file).expect("memory has room");
        let (machine, devices) =
            seawall_machine::Snapshot::load_with(&*file, &seawall_machine::SnapshotLimits::default())
                .expect("what was saved");
        Good { disk, machine, devices }
    })
}

fn config(disk: &NamedTempFile) -> Config {
    let mut config = Config::new(MEMORY);
    config.virtio_console = true;
    config.acpi = true;
    config.disks.push(Disk::open(disk.path(), Writes::InMemory).expect("whole sectors"));
    config
}

/// See the module.
pub(super) fn body(data: &[u8]) {
    let good = good();
    let mut devices = good.devices.clone();
    // Four bytes each: the kind of change, its place, and a byte.
    for change in data.chunks_exact(4).take(64) {
        let [how, high, low, value] = *change else { return };
        let at = usize::from(u16::from_be_bytes([high, low])) % (devices.len() + 1);
        match (how % 8, devices.get_mut(at)) {
            (0, _) => devices.truncate(at),
            (1, _) => devices.insert(at, value),
            // A longer list.
            (2, _) => devices.splice(at..at, vec![value; usize::from(how) << 6]).for_each(drop),
            (_, Some(byte)) => *byte = value,
            _ => {}
        }
    }
    let mut file = Vec::new();
    good.machine.save_with(&mut file, &devices).expect("memory has room");
    let Ok(snapshot) = Snapshot::load(&*file) else { return };
    let resume = || SoftwareMachine::resume(&snapshot, config(&good.disk), Box::new(()));
    let (Ok(mut one), Ok(mut other)) = (resume(), resume()) else { return };
    assert_eq!(one.state_hash(), other.state_hash());
    let ends =
        [&mut one, &mut other].map(|machine| machine.run(Some(1000)).map_err(|error| error.to_string()));
    assert_eq!(ends[0], ends[1]);
    assert_eq!(one.state_hash(), other.state_hash());
    let hash = one.state_hash();
    if let Ok(snapshot) = one.snapshot() {
        assert_eq!(one.state_hash(), hash);
        one.restore(&snapshot).expect("of its own");
        assert_eq!(one.state_hash(), hash);
    }
}

#[test]
fn as_it_was_it_goes_on() {
    let good = good();
    let mut file = Vec::new();
    good.machine.save_with(&mut file, &good.devices).expect("memory has room");
    let snapshot = Snapshot::load(&*file).expect("as it was");
    let mut machine =
        SoftwareMachine::resume(&snapshot, config(&good.disk), Box::new(())).expect("as it was");
    assert!(machine.run(Some(1000)).expect("it runs").is_none());
}
