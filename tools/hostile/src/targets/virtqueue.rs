//! Any bytes as a guest's virtqueue: descriptors, rings and buffers. The device does no more than the guest's
//! steps allow, and the same for every division of the run.

use std::sync::{Arc, Mutex};

use seawall_machine::StateHash;
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, SoftwareMachine};

/// Size of the guest's memory.
const MEMORY: u64 = 16 << 20;
const STEPS: u64 = 24_000;
/// The registers of the first virtio device, which has the last transport.
const DEVICE: u32 = 0x0a00_3e00;
/// Size of a disk in bytes, and the limit of the guest's kept writes to it.
const DISK: u64 = 64 << 20;
const WRITES: u64 = 1 << 20;
/// The number of the guest's notices, and of its device's turns, one each ten microseconds, in all of its
/// steps.
const PORTIONS: u64 = 3 + STEPS / 10_000;
/// Bytes of the console in one turn.
const PORTION: u64 = 64 << 10;

#[derive(Clone, Default)]
struct Counts(Arc<Mutex<u64>>);

impl Observer for Counts {
    fn console(&mut self, bytes: &[u8]) {
        *self.0.lock().expect("one thread") += bytes.len() as u64;
    }
}

/// Bytes of an input's head, and of each descriptor after it.
const HEAD: usize = 12;
const DESCRIPTOR: usize = 10;

/// A descriptor of a queue of this size; `how` selects the fields that get meaningful values.
fn descriptor(bytes: &[u8; DESCRIPTOR], size: u16) -> [u8; 16] {
    let &[how, a, b, c, l0, l1, l2, l3, flags, next] = bytes;
    let address = match how & 3 {
        // The request headers of a disk.
        0 => 0x4008_4000 + u64::from(a & 0x70),
        // RAM, sometimes the image itself.
        1 | 2 => 0x4008_0000 + (u64::from(u32::from_le_bytes([a, b, c, 0])) >> (how >> 5)),
        // RAM, and some addresses on either side.
        _ => 0x3ff0_0000 + u64::from(u32::from_le_bytes([a, b, c, 0])) * 2,
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let length = if how & 4 == 0 { length & 0xffff } else { length };
    let (flags, next) = (u16::from(flags), u16::from(next));
    let flags = if how & 8 == 0 { flags & 3 } else { flags | flags << 8 };
    let next = if how & 16 == 0 { next & (size - 1) } else { next | next << 8 };
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&address.to_le_bytes());
    descriptor[8..12].copy_from_slice(&length.to_le_bytes());
    descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
    descriptor[14..].copy_from_slice(&next.to_le_bytes());
    descriptor
}

/// A guest with a queue of these bytes: the device and queue; the number of chains that it offers; their
/// heads, eight of which are repeated; the kind of each of eight requests to a disk; then up to 64
/// [descriptors](descriptor).
fn guest(data: &[u8]) -> (Guest, bool) {
    // adr x0, . + 0x100; 1: ldp w1, w2, [x0], #8; cbz w1, 2f; str w2, [x1]; b 1b; 2: b .
    let words: [u32; 6] = [0x1000_0800, 0x28c1_0801, 0x3400_0061, 0xb900_0022, 0x17ff_fffd, 0x1400_0000];
    let mut image: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.resize(0x5000, 0);
    let (head, descriptors) = data.split_at(data.len().min(HEAD));
    let byte = |at: usize| head.get(at).copied().unwrap_or_default();
    let first = byte(0);
    let size = 1_u16 << (first >> 2 & 7);
    let is_sound = first & 32 == 0;
    let (has_disk, queue) = (first & 1 == 0, u32::from(first >> 1 & 1));
    let registers = [
        (0x070, 1),
        (0x070, 3),
        (0x024, 1),
        (0x020, 1),
        (0x070, 0xb),
        (0x030, queue),
        (0x038, size.into()),
        (0x080, 0x4008_1000),
        (0x090, 0x4008_2000),
        (0x0a0, 0x4008_3000),
        (0x044, 1),
        (0x070, 0xf),
        (0x050, queue),
        (0x050, u32::from(first >> 7)),
        (0x050, queue),
    ];
    for (n, (register, value)) in registers.into_iter().enumerate() {
        image[0x100 + 8 * n..][..4].copy_from_slice(&(DEVICE + register).to_le_bytes());
        image[0x104 + 8 * n..][..4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let descriptors = descriptors.chunks_exact(DESCRIPTOR).filter_map(<[u8]>::first_chunk);
    for (bytes, to) in descriptors.zip(image[0x1000..0x1400].chunks_exact_mut(16)) {
        to.copy_from_slice(&descriptor(bytes, size));
    }
    image[0x2002] = if is_sound { byte(1).min(size as u8) } else { byte(1) };
    for n in 0..64 {
        let head = byte(2 + n % 8);
        image[0x2004 + 2 * n] = if is_sound { head & (size - 1) as u8 } else { head };
    }
    for n in 0..8 {
        let kind = byte(10 + n % 2).rotate_left(n as u32);
        image[0x4000 + 16 * n] = kind & 7;
        image[0x4009 + 16 * n] = kind >> 3;
    }
    let kernel = Kernel::Flat(image);
    (Guest { kernel, address: None, initrd: None, command_line: String::new() }, has_disk)
}

/// Runs it in slices; returns its end, its state, and the size of its console output.
fn run(data: &[u8], slice: u64) -> (Option<End>, StateHash, u64) {
    let (guest, has_disk) = guest(data);
    let mut config = Config::new(MEMORY);
    config.virtio_console = !has_disk;
    if has_disk {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(DISK).expect("a sparse file");
        let mut disk = Disk::open(file.path(), Writes::InMemory).expect("whole sectors");
        disk.set_write_limit(WRITES);
        config.disks.push(disk);
    }
    let counts = Counts::default();
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(counts.clone())).expect("a machine");
    machine.type_in(b"typed");
    let mut end = None;
    while machine.instructions() < STEPS && end.is_none() {
        let left = STEPS - machine.instructions();
        end = machine.run(Some(slice.min(left))).expect("it runs");
    }
    let written = *counts.0.lock().expect("one thread");
    (end, machine.state_hash(), written)
}

/// See the module.
pub(super) fn body(data: &[u8]) {
    let whole = run(data, STEPS);
    assert!(whole.2 <= PORTIONS * PORTION, "{} bytes to the console", whole.2);
    assert_eq!(run(data, 7_777), whole, "in slices");
}

#[test]
fn a_sound_chain_reaches_the_device() {
    // The console's queue 1, of sixteen, and one chain of one descriptor.
    let mut data = [0; HEAD + DESCRIPTOR];
    (data[0], data[1]) = (1 | 1 << 1 | 4 << 2, 1);
    (data[HEAD], data[HEAD + 4]) = (1, 77);
    assert_eq!(run(&data, STEPS).2, 77);
}

/// type OUT to sector 0x100, 512 bytes, and the status after them.
#[test]
fn a_sound_request_reaches_the_disk() {
    let mut data = [0; HEAD + 3 * DESCRIPTOR];
    (data[0], data[1], data[10]) = (4 << 2, 1, 1 | 1 << 3);
    let descriptors =
        [[0, 0, 0, 0, 16, 0, 0, 0, 1, 1], [1, 0, 0, 1, 0, 2, 0, 0, 1, 2], [1, 0, 0, 2, 1, 0, 0, 0, 2, 0]];
    data[HEAD..].copy_from_slice(&descriptors.concat());
    let (guest, _) = guest(&data);
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(DISK).expect("a sparse file");
    let mut config = Config::new(MEMORY);
    config.disks.push(Disk::open(file.path(), Writes::InMemory).expect("whole sectors"));
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(())).expect("a machine");
    machine.vm_mut().memory_mut().store(0x400a_0000, &[0xff]).expect("in RAM");
    machine.run(Some(STEPS)).expect("it runs");
    let mut seen = [0; 4];
    machine.vm().memory().load(0x4008_3000, &mut seen).expect("in RAM");
    // The used ring has one chain.
    assert_eq!(seen, [0, 0, 1, 0]);
    let mut status = [0];
    machine.vm().memory().load(0x400a_0000, &mut status).expect("in RAM");
    assert_eq!(status, [0]);
}
