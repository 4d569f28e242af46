//! The PL031 real-time clock (Arm DDI 0224). What it shows is a [`Clock`]'s: on the software machine that is the machine's
//! own time (`vm-superio`'s PL031 shows the host's and no other, and has no interrupt).
//!
//! It is found running, as firmware leaves it and as QEMU's does; that cannot be undone (3.3.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::{read_words, write_words};
use crate::interrupt::InterruptLine;

// Register offsets, bytes (DDI 0224, table 3-1).
const DR: u64 = 0x000;
const MR: u64 = 0x004;
const LR: u64 = 0x008;
const CR: u64 = 0x00c;
const IMSC: u64 = 0x010;
const RIS: u64 = 0x014;
const MIS: u64 = 0x018;
const ICR: u64 = 0x01c;
const PERIPH_ID0: u64 = 0xfe0;
/// RTCPeriphID0 to 3 and RTCPCellID0 to 3: revision 1, as QEMU's.
const ID: [u8; 8] = [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

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

    /// When it shows so many seconds since 1970: nanoseconds since the epoch.
    pub fn nanoseconds_at(seconds: u64) -> u64 {
        seconds.saturating_sub(Self::EPOCH).saturating_mul(1_000_000_000)
    }

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
pub struct Pl031<L> {
    clock: Box<dyn Clock>,
    line: L,
    registers: Registers,
}

/// The registers that the guest writes, and the values that it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Registers {
    /// What the guest's setting of the time is ahead of the clock, seconds.
    ahead: u32,
    load: u32,
    match_: u32,
    mask: bool,
    /// RTCRIS.
    interrupt: bool,
    /// The counter when it was last compared with the match register.
    compared: u32,
}

impl<L: InterruptLine> Pl031<L> {
    /// A clock that shows this time.
    pub fn new(clock: Box<dyn Clock>, line: L) -> Self {
        let compared = clock.seconds() as u32;
        Self { clock, line, registers: Registers { compared, ..Registers::default() } }
    }

    /// What a snapshot holds of it.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// It is again as it was. Its interrupt line is the caller's.
    pub(crate) fn set_registers(&mut self, registers: Registers) {
        self.registers = registers;
    }

    /// When the line goes high if the guest does nothing: seconds of the [`Clock`]. It is to be
    /// [brought up to date](Self::update) then.
    pub fn alarm(&self) -> Option<u64> {
        let Registers { mask, interrupt, match_, compared, .. } = self.registers;
        if !mask || interrupt {
            return None;
        }
        // Since it was last compared, the counter has gone on with the clock.
        let now = self.clock.seconds();
        let since = self.counter().wrapping_sub(compared);
        let distance = match match_.wrapping_sub(compared) {
            0 => 1 << 32,
            distance => u64::from(distance),
        };
        // It is less than none if the host's clock went back.
        let compared_at = now.saturating_add_signed(-i64::from(since as i32));
        Some(compared_at.saturating_add(distance))
    }

    /// Compares the counter with the match register: the interrupt comes if it was reached since the last time.
    pub fn update(&mut self) {
        let counter = self.counter();
        let Registers { match_, compared, .. } = self.registers;
        let since = counter.wrapping_sub(compared);
        if since > u32::MAX / 2 {
            // The host's clock went back.
            return;
        }
        // The last value that it had then does not count again.
        self.registers.interrupt |= match_.wrapping_sub(compared).wrapping_sub(1) < since;
        self.registers.compared = counter;
        self.drive();
    }

    /// The guest set counter or match register: if they are equal, they match (DDI 0224, 2.1).
    fn set(&mut self) {
        let counter = self.counter();
        self.registers.interrupt |= self.registers.match_ == counter;
        self.registers.compared = counter;
    }

    fn counter(&self) -> u32 {
        (self.clock.seconds() as u32).wrapping_add(self.registers.ahead)
    }

    fn drive(&self) {
        self.line.set(self.registers.interrupt && self.registers.mask);
    }

    fn read(&self, register: u64) -> u32 {
        let Registers { load, match_, mask, interrupt, .. } = self.registers;
        match register {
            DR => self.counter(),
            MR => match_,
            LR => load,
            CR => 1,
            IMSC => mask.into(),
            RIS => interrupt.into(),
            MIS => (interrupt && mask).into(),
            _ => {
                let number = register.checked_sub(PERIPH_ID0).map(|offset| (offset / 4) as usize);
                number.and_then(|number| ID.get(number)).copied().map_or(0, u32::from)
            }
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        match register {
            MR => {
                self.registers.match_ = value;
                self.set();
            }
            LR => {
                self.registers.load = value;
                self.registers.ahead = value.wrapping_sub(self.clock.seconds() as u32);
                self.set();
            }
            IMSC => self.registers.mask = value & 1 != 0,
            // Any value clears it (2.1); table 3-9 has bit 0, which is what drivers write.
            ICR => self.registers.interrupt = false,
            _ => {}
        }
        self.drive();
    }
}

impl<L: InterruptLine> MutDeviceMmio for Pl031<L> {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.update();
        read_words(offset, data, |register| self.read(register));
    }

    fn mmio_write(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.update();
        write_words(offset, data, |register, value| self.write(register, value));
    }
}

#[cfg(test)]
mod tests;
