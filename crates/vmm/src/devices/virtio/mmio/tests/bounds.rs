//! A driver's notice costs a bounded amount, whatever is in the queue.

use super::*;
use crate::devices::virtio::block::MAX_REQUEST;
use crate::devices::virtio::console::PORTION;

/// Where the guest's data lies, and how much of it.
const DATA: u64 = RAM + 0x1_0000;
const MIB: u64 = 1 << 20;

impl<D: Device> Driver<D> {
    /// With this much RAM, queue `index` started.
    fn with_ram(size: u64, index: u32, device: impl FnOnce() -> D) -> Self {
        let mut driver = Self::new(device);
        driver.memory = Memory::new(RAM, size).unwrap();
        driver.start(index);
        driver
    }

    /// Descriptor `number`: `length` bytes at `address`, with these flags, then `next`.
    fn describe(&mut self, table: u64, number: u16, address: u64, length: u32, flags: u16, next: u16) {
        let fields = [
            address.to_le_bytes().to_vec(),
            length.to_le_bytes().to_vec(),
            flags.to_le_bytes().to_vec(),
            next.to_le_bytes().to_vec(),
        ];
        self.memory.store(table + 16 * u64::from(number), &fields.concat()).unwrap();
    }

    /// Offers the chains that begin with these descriptors, and notifies the device, which does nothing yet.
    fn notify_of(&mut self, index: u32, heads: &[u16]) {
        for head in heads {
            let slot = AVAILABLE + 4 + 2 * u64::from(self.sent % 16);
            self.memory.store(slot, &head.to_le_bytes()).unwrap();
            self.sent += 1;
        }
        self.memory.store(AVAILABLE + 2, &self.sent.to_le_bytes()).unwrap();
        self.device.mmio_write(MmioAddress(0), QUEUE_NOTIFY, &index.to_le_bytes());
    }

    /// How many chains the device has given back.
    fn given_back(&self) -> u16 {
        self.word(USED + 2)
    }
}

/// Counts what it gets, and keeps nothing.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<u64>>);

impl io::Write for Counts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is collected first comes in one piece.
        assert!(bytes.len() <= 4096, "{} bytes at once", bytes.len());
        *self.0.lock().unwrap() += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what it gets.
struct Collects(Arc<Mutex<Vec<u8>>>);

impl io::Write for Collects {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Found by a hostile test: one chain of 64 descriptors over the same 62 MiB made 4.1 GB resident.
#[test]
fn of_a_console_chain_of_992_mib_64_kib_are_written_at_once() {
    let written = Counts::default();
    let mut driver = Driver::with_ram(64 * MIB, 1, || VirtioConsole::new(written.clone()));
    for n in 0..16 {
        driver.describe(DESCRIPTORS, n, DATA, 62 << 20, if n < 15 { NEXT } else { 0 }, n + 1);
    }
    driver.notify_of(1, &[0; 16]);
    for portion in 1..=992 * 16_u64 {
        assert!(driver.device.is_notified());
        assert_eq!(driver.given_back(), 0);
        driver.process();
        assert_eq!(*written.0.lock().unwrap(), portion * (64 << 10));
    }
    assert_eq!(PORTION, 64 << 10);
    driver.process();
    // The second chain has begun.
    assert_eq!((driver.given_back(), *written.0.lock().unwrap()), (1, 992 * MIB + PORTION));
    // A driver that resets the device has no chain in it any more.
    driver.start(1);
    driver.describe(DESCRIPTORS, 0, DATA, 100, 0, 0);
    driver.memory.store(AVAILABLE + 2, &[0; 2]).unwrap();
    driver.memory.store(USED + 2, &[0; 2]).unwrap();
    driver.sent = 0;
    driver.notify_of(1, &[0]);
    driver.process();
    assert_eq!((driver.given_back(), *written.0.lock().unwrap()), (1, 992 * MIB + PORTION + 100));
}

#[test]
fn a_console_write_of_more_than_a_portion_comes_whole_and_in_order() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let to = written.clone();
    let mut driver = Driver::with_ram(2 * MIB, 1, || VirtioConsole::new(Collects(to)));
    let data: Vec<u8> = (0..150_001_u32).map(|n| (n % 251) as u8).collect();
    driver.memory.store(DATA, &data).unwrap();
    // 1, 100,000 and 50,000 bytes, so that portions end within a descriptor.
    driver.describe(DESCRIPTORS, 0, DATA, 1, NEXT, 1);
    driver.describe(DESCRIPTORS, 1, DATA + 1, 100_000, NEXT, 2);
    driver.describe(DESCRIPTORS, 2, DATA + 100_001, 50_000, 0, 0);
    driver.notify_of(1, &[0]);
    for (given_back, length) in [(0, 65_536), (0, 131_072), (1, 150_001)] {
        driver.process();
        assert_eq!((driver.given_back(), written.lock().unwrap().len()), (given_back, length));
    }
    assert!(*written.lock().unwrap() == data);
    assert!(!driver.device.is_notified());
}

/// The driver takes what was typed in pieces of nothing.
#[test]
fn chains_without_room_for_what_is_typed_are_looked_at_a_thousand_descriptors_at_once() {
    let mut driver = Driver::with_ram(MIB, 0, || VirtioConsole::new(Counts::default()));
    // Each chain is the whole table.
    for n in 0..16 {
        driver.describe(DESCRIPTORS, n, DATA, 0, WRITE | if n < 15 { NEXT } else { 0 }, n + 1);
    }
    assert_eq!(driver.device.device().receive(b"typed"), 5);
    for _ in 0..4 {
        driver.notify_of(0, &[0; 16]);
        driver.process();
    }
    assert_eq!(driver.given_back(), 64);
    assert!(!driver.device.is_notified());
    assert_eq!(driver.send(0, &[Buffer::Writes(8)]), (5, b"typed\0\0\0".to_vec()));
}

#[test]
fn a_console_keeps_4096_bytes_for_a_guest_that_takes_none() {
    let mut driver = Driver::with_ram(MIB, 0, || VirtioConsole::new(Counts::default()));
    assert_eq!(driver.device.device().receive(&[b'y'; 4000]), 4000);
    assert_eq!(driver.device.device().receive(&[b'y'; 4000]), 96);
    assert_eq!(driver.device.device().receive(b"y"), 0);
}

/// A disk of so many bytes, all zero, without a file of that size.
fn sparse(size: u64) -> Disk {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    Disk::open(file.path(), Writes::InMemory).unwrap()
}

/// A request of so many descriptors over the same data: 0 is the header, the last one the status, both before [`DATA`].
fn describe_request(driver: &mut Driver<Block>, kind: u32, sector: u64, data: &[u32]) {
    let (header, status) = (DATA - 0x200, DATA - 0x100);
    driver.memory.store(header, &request(kind, sector)).unwrap();
    driver.memory.store(status, &[0xff]).unwrap();
    driver.describe(DESCRIPTORS, 0, header, 16, NEXT, 1);
    let flags = if kind == IN { WRITE | NEXT } else { NEXT };
    for (n, length) in (1..).zip(data) {
        driver.describe(DESCRIPTORS, n, DATA, *length, flags, n + 1);
    }
    driver.describe(DESCRIPTORS, data.len() as u16 + 1, status, 1, WRITE, 0);
}

fn status(driver: &Driver<Block>) -> u8 {
    driver.memory.read::<1>((DATA - 0x100 - RAM) as usize).unwrap()[0]
}

/// virtio 1.2, 5.2.4: `size_max` and `seg_max` behind `capacity`.
#[test]
fn the_configuration_space_says_how_long_a_request_may_be_and_a_longer_one_fails_untouched() {
    for kind in [IN, OUT] {
        let mut driver = Driver::with_ram(64 * MIB, 0, || Block::new(sparse(64 * MIB)));
        assert_eq!([driver.get(0x108), driver.get(0x10c)], [64 << 10, 64]);
        driver.set(DEVICE_FEATURES_SEL, 0);
        // VIRTIO_BLK_F_SIZE_MAX (1), VIRTIO_BLK_F_SEG_MAX (2).
        assert_eq!(driver.get(DEVICE_FEATURES) & 6, 6);
        assert_eq!(MAX_REQUEST, 4 << 20);
        for (data, expected) in [(&[4 << 20][..], 0), (&[2 << 20, 2 << 20, 512], 1), (&[60 << 20; 14], 1)] {
            describe_request(&mut driver, kind, 0, data);
            let touched = driver.memory.touched();
            driver.notify_of(0, &[0]);
            driver.process();
            assert_eq!(status(&driver), expected, "{kind} {data:?}");
            if expected == 1 {
                assert_eq!(driver.memory.touched(), touched, "{kind} {data:?}");
            }
        }
    }
}

/// Found by a hostile test: 256 chains were still in one notice after 25 s.
#[test]
fn sixteen_requests_take_as_many_portions_as_their_bytes_and_stand_in_the_queue_meanwhile() {
    let mut driver = Driver::with_ram(64 * MIB, 0, || Block::new(sparse(64 * MIB)));
    describe_request(&mut driver, IN, 0, &[1 << 20]);
    driver.notify_of(0, &[0; 16]);
    for portion in 1..=4 {
        driver.process();
        assert_eq!(driver.given_back(), 4 * portion);
    }
    // A reset of the device forgets the rest.
    driver.notify_of(0, &[0; 16]);
    driver.process();
    assert!(driver.device.is_notified());
    driver.set(STATUS, 0);
    assert!(!driver.device.is_notified());
}

/// virtio 1.2, 2.7.5.3.1: a table of descriptors (flag 4) was not offered, and no chain is longer than its queue.
#[test]
fn a_chain_of_more_descriptors_than_its_queue_has_comes_back_untouched() {
    let mut driver = Driver::with_ram(4 * MIB, 0, || Block::new(sparse(MIB)));
    let table = DATA + 0x1_0000;
    for n in 0..40_000 {
        driver.describe(table, n, DATA, 1, NEXT | WRITE, n + 1);
    }
    driver.describe(DESCRIPTORS, 0, table, 16 * 40_000, 4, 0);
    driver.notify_of(0, &[0; 16]);
    driver.process();
    assert_eq!(driver.given_back(), 16);
    assert_eq!((driver.word(USED + 8), driver.word(USED + 10)), (0, 0));
}

/// Found by a hostile test: 821 instructions grew the overlay of a sparse disk to 4 GB.
#[test]
fn a_disk_that_keeps_no_more_writes_says_so_to_the_driver_and_still_takes_those_over_what_it_has() {
    let mut disk = sparse(64 * MIB);
    disk.set_write_limit(8192);
    let mut driver = Driver::with_ram(4 * MIB, 0, || Block::new(disk));
    let mut write = |sector: u64, length: u32| {
        describe_request(&mut driver, OUT, sector, &[length]);
        driver.notify_of(0, &[0]);
        driver.process();
        status(&driver)
    };
    // Two clusters of eight sectors; a third one; over the first two; and a long one.
    assert_eq!([write(0, 4096), write(80, 512), write(160, 512)], [0, 0, 1]);
    assert_eq!([write(4, 1024), write(84, 1024), write(0, 1 << 20)], [0, 0, 1]);
}
