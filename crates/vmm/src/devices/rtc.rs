//! The PL031 real-time clock (Arm DDI 0224). It has no alarm. What it shows is a [`Clock`]'s: on the software machine
//! that is the machine's own time (`vm-superio`'s PL031 shows the host's and no other).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::{read_words, write_words};

// Register offsets, bytes (DDI 0224, table 3-1).
const DR: u64 = 0x000;
const MR: u64 = 0x004;
const LR: u64 = 0x008;
const CR: u64 = 0x00c;
const IMSC: u64 = 0x010;
const PERIPH_ID0: u64 = 0xfe0;
/// RTCPeriphID0 to 3 and RTCPCellID0 to 3.
const ID: [u8; 8] = [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// What time it is.
pub trait Clock: Send {
    /// Seconds since 1970-01-01 UTC.
    fn seconds(&self) -> u64;
}

/// The host's time.
#[derive(Clone, Copy, Debug)]
pub struct WallClock;

impl Clock for WallClock {
    fn seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// Time that somebody sets, nanoseconds since [`GuestClock::EPOCH`]. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct GuestClock(Arc<AtomicU64>);

impl GuestClock {
    /// When a machine with a time of its own begins: 2026-01-01 UTC, seconds since 1970.
    pub const EPOCH: u64 = 1_767_225_600;

    /// It is so many nanoseconds after the epoch.
    pub fn set(&self, nanoseconds: u64) {
        self.0.store(nanoseconds, Ordering::Relaxed);
    }
}

impl GuestClock {
    /// What time it is.
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.load(Ordering::Relaxed)) + Duration::from_secs(Self::EPOCH)
    }
}

impl Clock for GuestClock {
    fn seconds(&self) -> u64 {
        Self::EPOCH + self.0.load(Ordering::Relaxed) / 1_000_000_000
    }
}

/// The real-time clock.
pub struct Pl031 {
    clock: Box<dyn Clock>,
    registers: Registers,
}

/// What the guest wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Registers {
    /// What the guest's setting of the time is ahead of the clock, seconds.
    ahead: u32,
    load: u32,
    match_: u32,
    mask: u32,
}

impl Pl031 {
    /// A clock that shows this time.
    pub fn new(clock: Box<dyn Clock>) -> Self {
        Self { clock, registers: Registers::default() }
    }

    /// What a snapshot holds of it.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// It is again as it was.
    pub(crate) fn set_registers(&mut self, registers: Registers) {
        self.registers = registers;
    }

    fn read(&self, register: u64) -> u32 {
        match register {
            DR => (self.clock.seconds() as u32).wrapping_add(self.registers.ahead),
            MR => self.registers.match_,
            LR => self.registers.load,
            // It is on, and cannot be turned off.
            CR => 1,
            IMSC => self.registers.mask,
            _ => {
                let number = register.checked_sub(PERIPH_ID0).map(|offset| (offset / 4) as usize);
                number.and_then(|number| ID.get(number)).copied().map_or(0, u32::from)
            }
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        match register {
            MR => self.registers.match_ = value,
            LR => {
                self.registers.load = value;
                self.registers.ahead = value.wrapping_sub(self.clock.seconds() as u32);
            }
            IMSC => self.registers.mask = value & 1,
            _ => {}
        }
    }
}

impl MutDeviceMmio for Pl031 {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        read_words(offset, data, |register| self.read(register));
    }

    fn mmio_write(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        write_words(offset, data, |register, value| self.write(register, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(clock: &mut Pl031, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        clock.mmio_read(MmioAddress(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// DDI 0224, 3.4.1 and 3.4.2: peripheral identification 0x00041031, PrimeCell identification 0xb105f00d.
    #[test]
    fn it_identifies_as_a_pl031() {
        let mut clock = Pl031::new(Box::new(GuestClock::default()));
        let id: Vec<u32> = (0..8).map(|n| word(&mut clock, 0xfe0 + 4 * n)).collect();
        assert_eq!(id, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        assert_eq!(word(&mut clock, 0xffc + 4), 0);
    }

    #[test]
    fn it_shows_the_guests_time_from_the_beginning_of_2026_and_what_the_guest_sets() {
        let time = GuestClock::default();
        let mut clock = Pl031::new(Box::new(time.clone()));
        assert_eq!(word(&mut clock, 0), 1_767_225_600);
        time.set(2_999_999_999);
        assert_eq!(word(&mut clock, 0), 1_767_225_602);
        clock.mmio_write(MmioAddress(0), 8, &1000_u32.to_le_bytes());
        time.set(5_000_000_000);
        assert_eq!((word(&mut clock, 0), word(&mut clock, 8)), (1003, 1000));
    }

    #[test]
    fn the_wall_clock_is_after_2023() {
        assert!(word(&mut Pl031::new(Box::new(WallClock)), 0) > 1_700_000_000);
    }
}
