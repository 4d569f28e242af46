//! The distributor: the SPIs, and which CPU each goes to.
//!
//! Source: Arm IHI 0069, 12.9; what is RAZ/WI in a system with one Security state is as QEMU's
//! `virt` has it.

use super::bank::{Bank, Register};

/// Banks of 32 SPIs: INTIDs 32 to 287, as on QEMU's `virt`.
const BANKS: usize = 8;

/// GICD_CTLR: the group enables.
const ENABLES: u32 = 3;
/// GICD_CTLR.DS and ARE: one Security state, affinity routing, for ever.
const CTLR_FIXED: u32 = 1 << 6 | 1 << 4;
/// GICD_TYPER: 288 INTIDs, 16 bits of INTID, affinity level 3, no 1 of N.
const TYPER: u32 = BANKS as u32 | 15 << 19 | 1 << 24 | 1 << 25;
/// GICD_IIDR and GICR_IIDR: Arm.
pub(super) const IIDR: u32 = 0x43b;
/// GICD_IROUTER: affinity. Bit 31, 1 of N, is not there.
const ROUTE: u64 = 0xff_00ff_ffff;

/// What the registers from 0xffd0 on read, PIDR4 first: a GICv3. `part` is PIDR0.
pub(super) fn identification(offset: u64, part: u32) -> u32 {
    const ID: [u32; 12] = [0x44, 0, 0, 0, 0, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
    match offset {
        0xffe0 => part,
        0xffd0..=0xfffc => ID.get((offset - 0xffd0) as usize / 4).copied().unwrap_or(0),
        _ => 0,
    }
}

/// The distributor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Distributor {
    enables: u32,
    banks: Vec<Bank>,
    /// Affinity of the CPU that each SPI goes to.
    routes: Vec<u64>,
}

impl Distributor {
    pub(super) fn new() -> Self {
        Self { enables: 0, banks: vec![Bank::shared(); BANKS], routes: vec![0; 32 * BANKS] }
    }

    /// Whether this is a state that a distributor can come to.
    pub(super) fn is_sound(&self) -> bool {
        self.enables & !ENABLES == 0
            && self.banks.len() == BANKS
            && self.banks.iter().all(|bank| bank.is_sound(&Bank::shared()))
            && self.routes.len() == 32 * BANKS
            && self.routes.iter().all(|route| route & !ROUTE == 0)
    }

    /// The groups enabled, bits 0 and 1.
    pub(super) fn groups(&self) -> u8 {
        self.enables as u8
    }

    /// The bank of an SPI.
    pub(super) fn bank_mut(&mut self, intid: u32) -> Option<&mut Bank> {
        self.banks.get_mut((intid as usize / 32).checked_sub(1)?)
    }

    /// The banks with the INTID that each begins at.
    pub(super) fn banks(&self) -> impl Iterator<Item = (u32, &Bank)> {
        (1..).map(|n| 32 * n).zip(&self.banks)
    }

    /// Affinity of the CPU that an SPI goes to.
    pub(super) fn route(&self, intid: u32) -> u64 {
        self.routes.get((intid as usize).wrapping_sub(32)).copied().unwrap_or(u64::MAX)
    }

    /// The SPI whose GICD_IROUTER is at `offset`, and whether that is its upper word.
    fn router(offset: u64) -> Option<(usize, bool)> {
        let spi = (offset.checked_sub(0x6100)? / 8) as usize;
        (spi < 32 * BANKS).then_some((spi, offset & 4 != 0))
    }

    /// The word at `offset`, a multiple of 4.
    pub(super) fn read(&self, offset: u64) -> u32 {
        if let Some((bank, register)) = Register::at(offset) {
            return bank.checked_sub(1).and_then(|n| self.banks.get(n)).map_or(0, |bank| bank.read(register));
        }
        if let Some((spi, is_high)) = Self::router(offset) {
            let route = self.routes.get(spi).copied().unwrap_or(0);
            return (if is_high { route >> 32 } else { route }) as u32;
        }
        match offset {
            0x0000 => self.enables | CTLR_FIXED,
            0x0004 => TYPER,
            0x0008 => IIDR,
            _ => identification(offset, 0x92),
        }
    }

    /// Writes the word at `offset`, a multiple of 4.
    pub(super) fn write(&mut self, offset: u64, value: u32) {
        if let Some((bank, register)) = Register::at(offset) {
            if let Some(bank) = bank.checked_sub(1).and_then(|n| self.banks.get_mut(n)) {
                bank.write(register, value);
            }
        } else if let Some((spi, is_high)) = Self::router(offset) {
            if let Some(route) = self.routes.get_mut(spi) {
                let (shift, kept) = if is_high { (32, 0xffff_ffff) } else { (0, 0xffff_ffff << 32) };
                *route = (*route & kept | u64::from(value) << shift) & ROUTE;
            }
        } else if offset == 0 {
            self.enables = value & ENABLES;
        }
    }

    /// Writes one priority.
    pub(super) fn write_byte(&mut self, offset: u64, value: u8) {
        if let Some((bank, Register::Priority(_))) = Register::at(offset & !3) {
            if let Some(bank) = bank.checked_sub(1).and_then(|n| self.banks.get_mut(n)) {
                bank.write_priority(offset as u8 & 31, value);
            }
        }
    }
}
