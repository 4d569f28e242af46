//! Rules of DDI 0224.

use super::*;
use crate::interrupt::Probe;

/// 2026-01-01 UTC, when the machine's time begins.
const START: u32 = 1_767_225_600;

struct Rtc {
    device: Pl031<Arc<Probe>>,
    line: Arc<Probe>,
    time: GuestClock,
}

impl Rtc {
    fn new() -> Self {
        let (line, time) = (Arc::new(Probe::default()), GuestClock::default());
        Self { device: Pl031::new(Box::new(time.clone()), line.clone()), line, time }
    }

    fn get(&mut self, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        self.device.mmio_read(MmioAddress(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.device.mmio_write(MmioAddress(0), offset, &value.to_le_bytes());
    }

    /// So many milliseconds after the start.
    fn at(&mut self, milliseconds: u64) -> &mut Self {
        self.time.set(milliseconds * 1_000_000);
        self
    }
}

/// 3.3.9 and 3.3.10; PeriphID2's revision is QEMU's.
#[test]
fn it_identifies_as_a_pl031() {
    let mut rtc = Rtc::new();
    let id: Vec<u32> = (0..8).map(|n| rtc.get(0xfe0 + 4 * n)).collect();
    assert_eq!(id, [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    assert_eq!(rtc.get(0x1000), 0);
}

#[test]
fn it_shows_the_guests_time_from_the_beginning_of_2026_and_what_the_guest_sets() {
    let mut rtc = Rtc::new();
    assert_eq!(rtc.get(0), START);
    assert_eq!(rtc.at(2_999).get(0), START + 2);
    rtc.set(8, 1000);
    assert_eq!((rtc.at(5_000).get(0), rtc.get(8)), (1003, 1000));
}

#[test]
fn the_wall_clock_is_after_2023() {
    let mut clock = Pl031::new(Box::new(WallClock), Arc::new(Probe::default()));
    let mut data = [0; 4];
    clock.mmio_read(MmioAddress(0), 0, &mut data);
    assert!(u32::from_le_bytes(data) > 1_700_000_000);
}

/// 3.3: after reset, and what writes leave; DR, RIS, MIS and the IDs are read-only, ICR write-only.
#[test]
fn the_registers_hold_what_the_manual_says() {
    for (offset, reset, written) in [
        (0x00, START, START),
        (0x04, 0, 0xdead_beef),
        // It sets the counter too.
        (0x08, 0, 0xdead_beef),
        // Started, and no write stops it.
        (0x0c, 1, 1),
        (0x10, 0, 1),
        (0x14, 0, 0),
        (0x18, 0, 0),
        (0x1c, 0, 0),
        (0x20, 0, 0),
        (0x80, 0, 0),
        (0xfe0, 0x31, 0x31),
        (0xffc, 0xb1, 0xb1),
    ] {
        let mut rtc = Rtc::new();
        assert_eq!(rtc.get(offset), reset, "{offset:#x}");
        rtc.set(offset, 0xdead_beef);
        assert_eq!(rtc.get(offset), written, "{offset:#x}");
        rtc.set(offset, 0);
        assert_eq!(rtc.get(0x0c), 1);
    }
}

/// 2.1: the interrupt comes when counter and match register are equal, RTCIMSC masks it, RTCICR clears it.
#[test]
fn the_match_register_raises_the_interrupt_at_its_second() {
    let mut rtc = Rtc::new();
    rtc.set(0x04, START + 2);
    assert_eq!(rtc.at(1_999).get(0x14), 0);
    assert_eq!((rtc.at(2_000).get(0x14), rtc.get(0x18)), (1, 0), "masked");
    assert!(!rtc.line.is_high());
    rtc.set(0x10, 1);
    assert_eq!((rtc.get(0x14), rtc.get(0x18), rtc.line.is_high()), (1, 1, true));
    rtc.set(0x1c, 1);
    assert_eq!((rtc.get(0x14), rtc.get(0x18), rtc.line.is_high()), (0, 0, false));
    assert_eq!(rtc.at(2_500).get(0x14), 0, "not again within the same second");
    assert_eq!(rtc.at(10_000).get(0x14), 0);
}

#[test]
fn nobody_needs_to_look_at_that_very_second() {
    let mut rtc = Rtc::new();
    rtc.set(0x10, 1);
    rtc.set(0x04, START + 2);
    rtc.at(7_000).device.update();
    assert!(rtc.line.is_high());
    assert_eq!(rtc.get(0x18), 1);
}

#[test]
fn a_match_register_or_a_counter_that_is_set_to_the_other_matches_at_once() {
    let mut rtc = Rtc::new();
    rtc.set(0x10, 1);
    rtc.set(0x04, START);
    assert!(rtc.line.is_high());
    rtc.set(0x1c, 1);
    rtc.set(0x04, 5);
    assert!(!rtc.line.is_high());
    rtc.set(0x08, 5);
    assert!(rtc.line.is_high());
}

/// The counter has 32 bits.
#[test]
fn a_match_in_the_past_comes_when_the_counter_has_gone_round() {
    let mut rtc = Rtc::new();
    rtc.set(0x10, 1);
    rtc.set(0x08, 0xffff_fffe);
    rtc.set(0x04, 1);
    assert_eq!(rtc.device.alarm(), Some(u64::from(START) + 3));
    assert_eq!((rtc.at(2_000).get(0), rtc.get(0x14)), (0, 0));
    assert_eq!((rtc.at(3_000).get(0), rtc.get(0x14)), (1, 1));
    rtc.set(0x1c, 0);
    assert_eq!((rtc.get(0x14), rtc.device.alarm()), (0, Some(u64::from(START) + 3 + (1 << 32))));
}

/// The host must come back only where somebody waits for the interrupt.
#[test]
fn there_is_an_alarm_only_while_the_interrupt_is_unmasked_and_to_come() {
    let mut rtc = Rtc::new();
    rtc.set(0x04, START + 9);
    assert_eq!(rtc.device.alarm(), None);
    rtc.set(0x10, 1);
    assert_eq!(rtc.device.alarm(), Some(u64::from(START) + 9));
    assert_eq!(rtc.at(5_500).device.alarm(), Some(u64::from(START) + 9));
    rtc.at(9_000).device.update();
    assert!(rtc.line.is_high());
    assert_eq!(rtc.device.alarm(), None);
}

#[test]
fn what_it_waits_for_goes_through_a_snapshot() {
    let mut rtc = Rtc::new();
    rtc.set(0x10, 1);
    rtc.set(0x04, START + 2);
    let registers = rtc.device.registers().clone();
    let mut other = Rtc::new();
    other.at(1_000).device.set_registers(registers);
    assert_eq!(other.device.alarm(), Some(u64::from(START) + 2));
    other.at(2_000).device.update();
    assert!(other.line.is_high());
}

/// The host's clock is set back behind the last comparison: the alarm is as far away as it was, not in the past.
#[test]
fn an_alarm_is_ahead_also_when_the_clock_goes_back() {
    let mut rtc = Rtc::new();
    rtc.at(100_000).set(0x04, START + 130);
    rtc.set(0x10, 1);
    assert_eq!(rtc.device.alarm(), Some(u64::from(START) + 130));
    assert_eq!(rtc.at(50_000).device.alarm(), Some(u64::from(START) + 130));
    rtc.device.update();
    assert_eq!(rtc.device.alarm(), Some(u64::from(START) + 130));
}
