//! A driver, as Linux's is, against the devices: by registers, and by queues in the software machine's memory.

mod bounds;

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use seawall_machine::memory::Memory;

use super::*;
use crate::devices::disk::{Disk, Writes};
use crate::devices::virtio::{Block, VirtioConsole};
use crate::dma::Dma;
use crate::interrupt::Probe;

const RAM: u64 = 0x4000_0000;
const DESCRIPTORS: u64 = RAM;
const AVAILABLE: u64 = RAM + 0x1000;
const USED: u64 = RAM + 0x2000;
const BUFFERS: u64 = RAM + 0x1_0000;
/// Descriptor flags: there is a next one, the device writes.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Status bits: ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK.
const READY: u32 = 0xf;

/// What the driver hands over in one chain.
enum Buffer<'a> {
    Reads(&'a [u8]),
    Writes(u32),
}

struct Driver<D> {
    device: VirtioMmio<D, Arc<Probe>>,
    line: Arc<Probe>,
    memory: Memory,
    sent: u16,
}

impl<D: Device> Driver<D> {
    fn new(device: impl FnOnce() -> D) -> Self {
        let memory = Memory::new(RAM, 1 << 20).unwrap();
        let line = Arc::new(Probe::default());
        let device = VirtioMmio::new(device(), line.clone());
        Self { device, line, memory, sent: 0 }
    }

    fn get(&mut self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.device.mmio_read(MmioAddress(0), register, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, register: u64, value: u32) {
        self.device.mmio_write(MmioAddress(0), register, &value.to_le_bytes());
        self.process();
    }

    /// Where the device met bad memory.
    fn process(&mut self) -> Vec<u64> {
        Dma::with(&mut self.memory, |memory| self.device.process(memory)).1
    }

    fn word(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.load(at, &mut bytes).unwrap();
        u16::from_le_bytes(bytes)
    }

    /// virtio 1.2, 3.1.1 and 4.2.3.2, with queue `index`.
    fn start(&mut self, index: u32) {
        for (register, value) in [(STATUS, 0), (STATUS, 1), (STATUS, 3)] {
            self.set(register, value);
        }
        for half in [0, 1] {
            self.set(DEVICE_FEATURES_SEL, half);
            let offered = self.get(DEVICE_FEATURES);
            self.set(DRIVER_FEATURES_SEL, half);
            self.set(DRIVER_FEATURES, offered);
        }
        self.set(STATUS, 0xb);
        assert_eq!(self.get(STATUS), 0xb);
        let queue = [
            (QUEUE_SEL, index),
            (QUEUE_NUM, 16),
            (QUEUE_DESC_LOW, DESCRIPTORS as u32),
            (QUEUE_DRIVER_LOW, AVAILABLE as u32),
            (QUEUE_DEVICE_LOW, USED as u32),
            (QUEUE_READY, 1),
            (STATUS, READY),
        ];
        for (register, value) in queue {
            self.set(register, value);
        }
    }

    /// Sends one chain, and gives what the device wrote: its length by the used ring, and the bytes.
    fn send(&mut self, index: u32, buffers: &[Buffer<'_>]) -> (u32, Vec<u8>) {
        self.offer(buffers);
        self.set(QUEUE_NOTIFY, index);
        self.used(buffers)
    }

    fn offer(&mut self, buffers: &[Buffer<'_>]) {
        let mut address = BUFFERS;
        for (n, buffer) in buffers.iter().enumerate() {
            let next = if n + 1 < buffers.len() { NEXT } else { 0 };
            let (length, flags) = match buffer {
                Buffer::Reads(bytes) => {
                    self.memory.store(address, bytes).unwrap();
                    (bytes.len() as u32, next)
                }
                Buffer::Writes(length) => (*length, next | WRITE),
            };
            let at = DESCRIPTORS + 16 * n as u64;
            let fields = [
                address.to_le_bytes().to_vec(),
                length.to_le_bytes().to_vec(),
                flags.to_le_bytes().to_vec(),
                (n as u16 + 1).to_le_bytes().to_vec(),
            ];
            self.memory.store(at, &fields.concat()).unwrap();
            address += u64::from(length);
        }
        let slot = AVAILABLE + 4 + 2 * u64::from(self.sent % 16);
        self.memory.store(slot, &[0; 2]).unwrap();
        self.sent += 1;
        self.memory.store(AVAILABLE + 2, &self.sent.to_le_bytes()).unwrap();
    }

    fn used(&mut self, buffers: &[Buffer<'_>]) -> (u32, Vec<u8>) {
        assert_eq!(self.word(USED + 2), self.sent);
        let slot = USED + 4 + 8 * u64::from((self.sent - 1) % 16);
        let length = u32::from(self.word(slot + 4)) | u32::from(self.word(slot + 6)) << 16;
        let read: u64 =
            buffers.iter().map(|b| if let Buffer::Reads(b) = b { b.len() as u64 } else { 0 }).sum();
        let writes =
            buffers.iter().map(|b| if let Buffer::Writes(length) = b { *length } else { 0 }).sum::<u32>();
        let mut bytes = vec![0; writes as usize];
        self.memory.load(BUFFERS + read, &mut bytes).unwrap();
        (length, bytes)
    }
}

/// A disk of eight sectors that hold their numbers.
fn block(name: &str, writes: Writes) -> Driver<Block> {
    let path = std::env::temp_dir().join(format!("seawall-virtio-{}-{name}", std::process::id()));
    fs::write(&path, (0..8).flat_map(|n| [n; 512]).collect::<Vec<u8>>()).unwrap();
    let disk = Disk::open(&path, writes).unwrap();
    fs::remove_file(&path).unwrap();
    let mut driver = Driver::new(|| Block::new(disk));
    driver.start(0);
    driver
}

/// virtio 1.2, 5.2.6.
fn request(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

#[test]
fn the_registers_say_that_it_is_a_virtio_1_block_device_of_eight_sectors() {
    let mut driver = block("registers", Writes::Refused);
    let registers = [MAGIC_VALUE, VERSION, DEVICE_ID, QUEUE_NUM_MAX].map(|register| driver.get(register));
    assert_eq!(registers, [0x7472_6976, 2, 2, 256]);
    assert_eq!([driver.get(0x100), driver.get(0x104), driver.get(0x110)], [8, 0, 0]);
    driver.set(DEVICE_FEATURES_SEL, 0);
    // VIRTIO_BLK_F_SIZE_MAX (1), VIRTIO_BLK_F_SEG_MAX (2), VIRTIO_BLK_F_RO (5), VIRTIO_BLK_F_FLUSH (9).
    assert_eq!(driver.get(DEVICE_FEATURES), 0x226);
    driver.set(DEVICE_FEATURES_SEL, 1);
    assert_eq!(driver.get(DEVICE_FEATURES), 1);
    driver.set(QUEUE_SEL, 1);
    assert_eq!(driver.get(QUEUE_NUM_MAX), 0);
}

#[test]
fn a_read_gives_the_sectors_and_an_interrupt_until_it_is_acknowledged() {
    let mut driver = block("read", Writes::Refused);
    let header = request(IN, 3);
    let (length, bytes) = driver.send(0, &[Buffer::Reads(&header), Buffer::Writes(1024), Buffer::Writes(1)]);
    assert_eq!(length, 1025);
    assert_eq!((bytes[0], bytes[512], bytes[1024]), (3, 4, 0));
    assert!(driver.line.is_high());
    assert_eq!(driver.get(INTERRUPT_STATUS), 1);
    driver.set(INTERRUPT_ACK, 1);
    assert!(!driver.line.is_high());
}

#[test]
fn a_write_is_read_back() {
    let mut driver = block("write", Writes::InMemory);
    let header = request(OUT, 1);
    let data = [0xaa; 512];
    let wrote = driver.send(0, &[Buffer::Reads(&header), Buffer::Reads(&data), Buffer::Writes(1)]);
    assert_eq!(wrote, (1, vec![0]));
    let header = request(IN, 1);
    let (_, bytes) = driver.send(0, &[Buffer::Reads(&header), Buffer::Writes(512), Buffer::Writes(1)]);
    assert_eq!((bytes[0], bytes[511], bytes[512]), (0xaa, 0xaa, 0));
    let flush = request(FLUSH, 0);
    assert_eq!(driver.send(0, &[Buffer::Reads(&flush), Buffer::Writes(1)]), (1, vec![0]));
}

#[test]
fn a_disk_that_goes_back_has_its_sectors_and_its_queue_as_they_were() {
    fn write(driver: &mut Driver<Block>, byte: u8) {
        let header = request(OUT, 1);
        let sector = [byte; 512];
        let buffers = [Buffer::Reads(&header), Buffer::Reads(&sector), Buffer::Writes(1)];
        assert_eq!(driver.send(0, &buffers), (1, vec![0]));
    }
    fn read(driver: &mut Driver<Block>) -> u8 {
        let header = request(IN, 1);
        driver.send(0, &[Buffer::Reads(&header), Buffer::Writes(512), Buffer::Writes(1)]).1[0]
    }
    let mut driver = block("back", Writes::InMemory);
    write(&mut driver, 0xaa);
    let (transport, written) = (driver.device.state(), driver.device.device().disk().written().cloned());
    let sent = driver.sent;
    let mut ram = vec![0; 1 << 20];
    driver.memory.load(RAM, &mut ram).unwrap();

    write(&mut driver, 0xbb);
    driver.set(INTERRUPT_ACK, 1);
    driver.set(STATUS, 0);
    for _ in 0..2 {
        driver.memory.store(RAM, &ram).unwrap();
        driver.sent = sent;
        assert!(driver.device.can_be(&transport));
        driver.device.set_state(&transport);
        driver.device.device().disk().set_written(written.clone());
        assert_eq!((driver.get(STATUS), driver.get(INTERRUPT_STATUS)), (READY, 1));
        assert_eq!(read(&mut driver), 0xaa);
        write(&mut driver, 0xcc);
        assert_eq!(read(&mut driver), 0xcc);
    }
}

#[test]
fn a_queue_of_more_descriptors_than_the_device_has_is_no_state_of_it() {
    let driver = block("no-state", Writes::Refused);
    let mut state = driver.device.state();
    state.queues[0].size = 512;
    assert!(!driver.device.can_be(&state));
    state.queues.clear();
    assert!(!driver.device.can_be(&state));
}

/// virtio 1.2, 5.2.6: IOERR is 1, UNSUPP is 2.
#[test]
fn what_cannot_be_done_has_its_status() {
    let mut driver = block("status", Writes::Refused);
    let mut status = |header: &[u8], data: Buffer<'_>| {
        let (_, bytes) = driver.send(0, &[Buffer::Reads(header), data, Buffer::Writes(1)]);
        *bytes.last().unwrap()
    };
    assert_eq!(status(&request(IN, 8), Buffer::Writes(512)), 1);
    assert_eq!(status(&request(IN, u64::MAX), Buffer::Writes(512)), 1);
    assert_eq!(status(&request(IN, 0), Buffer::Writes(100)), 1);
    assert_eq!(status(&request(OUT, 0), Buffer::Reads(&[0; 512])), 1);
    assert_eq!(status(&request(77, 0), Buffer::Writes(512)), 2);
    assert_eq!(status(&[1, 2, 3], Buffer::Writes(512)), 1);
    assert_eq!(status(&request(GET_ID, 0), Buffer::Writes(20)), 0);
}

/// A guest writes to its disk from memory that has gone bad: IOERR (virtio 1.2, 5.2.6), and the disk is as it was.
#[test]
fn a_write_out_of_bad_memory_fails_and_the_disk_keeps_what_it_had() {
    let mut driver = block("bad", Writes::InMemory);
    let header = request(OUT, 1);
    let data = [0xaa; 512];
    let buffers = [Buffer::Reads(&header), Buffer::Reads(&data), Buffer::Writes(1)];
    driver.offer(&buffers);
    let at = BUFFERS + 16 + 0x100;
    driver.memory.poison(at..at + 1).unwrap();
    driver.device.mmio_write(MmioAddress(0), QUEUE_NOTIFY, &[0; 4]);
    assert_eq!(driver.process(), [BUFFERS + 16]);
    assert_eq!(driver.used(&buffers), (1, vec![1]));
    assert!(driver.line.is_high());
    driver.memory.heal(at..at + 1).unwrap();
    let (_, bytes) =
        driver.send(0, &[Buffer::Reads(&request(IN, 1)), Buffer::Writes(512), Buffer::Writes(1)]);
    assert_eq!((bytes[0], bytes[511], bytes[512]), (1, 1, 0));
}

/// virtio 1.2, 2.1.1: DEVICE_NEEDS_RESET is 64; 4.2.2: bit 1 of InterruptStatus is a change of configuration.
#[test]
fn a_device_whose_queue_is_in_bad_memory_asks_for_a_reset_and_goes_on_after_it() {
    for bad in [AVAILABLE + 2, AVAILABLE + 4, DESCRIPTORS, DESCRIPTORS + 16] {
        let mut driver = block(&format!("queue-{bad:x}"), Writes::Refused);
        let header = request(IN, 3);
        let buffers = [Buffer::Reads(&header), Buffer::Writes(512), Buffer::Writes(1)];
        driver.offer(&buffers);
        driver.memory.poison(bad..bad + 1).unwrap();
        driver.device.mmio_write(MmioAddress(0), QUEUE_NOTIFY, &[0; 4]);
        assert!(!driver.process().is_empty(), "{bad:#x}");
        assert_eq!((driver.get(STATUS), driver.get(INTERRUPT_STATUS) & 2), (0x4f, 2), "{bad:#x}");
        assert!(driver.line.is_high());
        // Nothing was given to the driver as done, and nothing is until it resets the device.
        driver.memory.heal(bad..bad + 1).unwrap();
        driver.set(QUEUE_NOTIFY, 0);
        assert_eq!(driver.word(USED + 2), 0, "{bad:#x}");
        driver.start(0);
        driver.set(QUEUE_NOTIFY, 0);
        let (length, bytes) = driver.used(&buffers);
        assert_eq!((length, bytes[0], bytes[512]), (513, 3, 0), "{bad:#x}");
    }
}

#[test]
fn what_is_read_into_a_bad_line_is_there_and_the_line_stays_bad() {
    let mut driver = block("into", Writes::Refused);
    driver.memory.poison(BUFFERS + 0x40..BUFFERS + 0x80).unwrap();
    let header = request(IN, 3);
    let (length, _) = driver.send(0, &[Buffer::Reads(&header), Buffer::Writes(512), Buffer::Writes(1)]);
    assert_eq!(length, 513);
    assert_eq!(driver.memory.read::<1>((BUFFERS + 0x40 - RAM) as usize), Some([3]));
    assert!(driver.memory.poisoned(BUFFERS + 0x40, 64));
}

#[test]
fn a_chain_that_is_no_request_comes_back_untouched() {
    let mut driver = block("chain", Writes::Refused);
    assert_eq!(driver.send(0, &[Buffer::Reads(&request(IN, 0))]), (0, vec![]));
}

#[test]
fn nothing_is_done_before_the_driver_is_ready_nor_with_a_queue_that_is_not_in_memory() {
    let mut driver = block("ready", Writes::Refused);
    driver.set(STATUS, 0);
    assert_eq!((driver.get(STATUS), driver.get(QUEUE_READY)), (0, 0));
    driver.offer(&[Buffer::Reads(&request(IN, 0)), Buffer::Writes(513)]);
    driver.set(QUEUE_NOTIFY, 0);
    driver.set(QUEUE_NOTIFY, 7);
    driver.start(0);
    driver.set(QUEUE_DESC_HIGH, 0xffff_ffff);
    driver.set(QUEUE_NOTIFY, 0);
    assert!(!driver.line.is_high());
    assert_eq!(driver.word(USED + 2), 0);
}

/// virtio 1.2, 2.2.2 and 3.1.1: the device does not keep FEATURES_OK.
#[test]
fn a_driver_that_wants_what_was_not_offered_is_told() {
    let mut driver = block("features", Writes::Refused);
    driver.set(STATUS, 0);
    driver.set(DRIVER_FEATURES_SEL, 0);
    driver.set(DRIVER_FEATURES, 1);
    driver.set(STATUS, 0xb);
    assert_eq!(driver.get(STATUS), 3);
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_console_says_what_the_guest_writes_whole() {
    let said = Said::default();
    let mut driver = Driver::new(|| VirtioConsole::new(said.clone()));
    driver.start(1);
    driver.send(1, &[Buffer::Reads(b"hello "), Buffer::Reads(b"world\n")]);
    assert_eq!(*said.0.lock().unwrap(), b"hello world\n");
    assert!(driver.line.is_high());
}

#[test]
fn a_console_gives_the_guest_what_is_typed_as_far_as_its_buffers_reach() {
    let mut driver = Driver::new(|| VirtioConsole::new(Said::default()));
    driver.start(0);
    driver.device.device().receive(b"typed");
    // There is no buffer yet.
    driver.device.notify(VirtioConsole::<Said>::RECEIVE);
    driver.process();
    assert!(!driver.line.is_high());
    assert_eq!(driver.send(0, &[Buffer::Writes(3)]), (3, b"typ".to_vec()));
    assert_eq!(driver.send(0, &[Buffer::Writes(3)]), (2, b"edp".to_vec()));
}
