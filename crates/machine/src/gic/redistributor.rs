//! A redistributor: the SGIs and PPIs of one CPU.
//!
//! Source: Arm IHI 0069, 12.10 and 12.11. There are no LPIs.

use super::bank::{Bank, Register};
use super::distributor::{IIDR, identification};

/// Bytes of a redistributor: the frames RD_base and SGI_base.
pub(super) const SIZE: u64 = 0x2_0000;
/// Where SGI_base begins.
const SGI_BASE: u64 = 0x1_0000;

/// GICR_TYPER: the last redistributor of the region.
const LAST: u64 = 1 << 4;
/// GICR_TYPER: where the CPU's number and affinity begin.
const NUMBER_SHIFT: u32 = 8;
const AFFINITY_SHIFT: u32 = 32;
/// GICR_WAKER: ChildrenAsleep and ProcessorSleep.
const CHILDREN_ASLEEP: u32 = 1 << 2;
const PROCESSOR_SLEEP: u32 = 1 << 1;

/// The redistributor of one CPU.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Redistributor {
    typer: u64,
    asleep: bool,
    pub(super) bank: Bank,
}

impl Redistributor {
    /// For CPU `number`; `affinity` is Aff3:Aff2:Aff1:Aff0.
    pub(super) fn new(number: u64, affinity: u32, is_last: bool) -> Self {
        let typer =
            u64::from(affinity) << AFFINITY_SHIFT | number << NUMBER_SHIFT | if is_last { LAST } else { 0 };
        Self { typer, asleep: true, bank: Bank::private() }
    }

    /// Whether this is a state that the redistributor made as `new` can come to.
    pub(super) fn is_sound(&self, new: &Self) -> bool {
        self.typer == new.typer && self.bank.is_sound(&new.bank)
    }

    /// The word at `offset`, a multiple of 4.
    pub(super) fn read(&self, offset: u64) -> u32 {
        if let Some(offset) = offset.checked_sub(SGI_BASE) {
            return match Register::at(offset) {
                Some((0, register)) => self.bank.read(register),
                _ => 0,
            };
        }
        match offset {
            0x0004 => IIDR,
            0x0008 => self.typer as u32,
            0x000c => (self.typer >> 32) as u32,
            0x0014 if self.asleep => CHILDREN_ASLEEP | PROCESSOR_SLEEP,
            _ => identification(offset, 0x93),
        }
    }

    /// Writes the word at `offset`, a multiple of 4.
    pub(super) fn write(&mut self, offset: u64, value: u32) {
        if let Some(offset) = offset.checked_sub(SGI_BASE) {
            if let Some((0, register)) = Register::at(offset) {
                self.bank.write(register, value);
            }
        } else if offset == 0x0014 {
            self.asleep = value & PROCESSOR_SLEEP != 0;
        }
    }

    /// Writes one priority.
    pub(super) fn write_byte(&mut self, offset: u64, value: u8) {
        let register = offset.checked_sub(SGI_BASE).and_then(|offset| Register::at(offset & !3));
        if let Some((0, Register::Priority(_))) = register {
            self.bank.write_priority(offset as u8 & 31, value);
        }
    }
}
