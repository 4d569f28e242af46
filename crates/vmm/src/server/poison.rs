//! The poison register of the lab: ranges of RAM go bad, and are repaired, while the guest runs. `lab/README.md` has its
//! registers.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use seawall_machine::Vm;

/// Register offsets, bytes. Each is 64 bits wide.
const POISON: u64 = 0x00;
const SIZE: u64 = 0x08;
const REPAIR: u64 = 0x10;
const STATUS: u64 = 0x18;
/// The least range: a line.
const LINE: u64 = 64;
/// As many ranges at most.
const MOST: usize = 1 << 20;

/// What became of the last write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    #[default]
    Done = 0,
    NoSuchSize = 1,
    NotRam = 2,
    BadAlready = 3,
    NoRange = 4,
    Full = 5,
}

/// The register page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PoisonRegister {
    /// Size of the next range, bytes.
    size: u64,
    status: Status,
    /// The bad ranges: where each begins, and its size. In a snapshot: [`PoisonRegister::ranges_as_bytes`].
    #[serde(skip)]
    ranges: BTreeMap<u64, u64>,
}

/// Bytes of a range in a snapshot: where it begins, and the logarithm of its size.
const RANGE_BYTES: usize = 9;

impl Default for PoisonRegister {
    fn default() -> Self {
        Self { size: LINE, status: Status::Done, ranges: BTreeMap::new() }
    }
}

impl PoisonRegister {
    /// The bad ranges, in rising order, [`RANGE_BYTES`] each.
    pub(super) fn ranges_as_bytes(&self) -> Vec<u8> {
        let entry = |(start, size): (&u64, &u64)| {
            start.to_le_bytes().into_iter().chain([size.trailing_zeros() as u8])
        };
        self.ranges.iter().flat_map(entry).collect()
    }

    /// The ranges of [`Self::ranges_as_bytes`]; `None` if these bytes are others.
    pub(super) fn set_ranges(&mut self, bytes: &[u8]) -> Option<()> {
        let entries = bytes.chunks_exact(RANGE_BYTES);
        if !entries.remainder().is_empty() || entries.len() > MOST {
            return None;
        }
        let mut ranges = BTreeMap::new();
        for entry in entries {
            let (start, size) = entry.split_first_chunk()?;
            let start = u64::from_le_bytes(*start);
            let size = 1_u64.checked_shl(u32::from(*size.first()?)).filter(|size| *size >= LINE)?;
            let is_next = ranges.last_key_value().is_none_or(|(last, _)| *last < start);
            if !is_next || start % size != 0 || start.checked_add(size).is_none() {
                return None;
            }
            ranges.insert(start, size);
        }
        self.ranges = ranges;
        Some(())
    }

    /// True if these are registers that it can come to.
    pub(super) fn is_sound(&self) -> bool {
        self.size >= LINE && self.size.is_power_of_two()
    }

    /// A load from the register at this offset.
    pub(super) fn read(&self, offset: u64) -> u64 {
        match offset {
            POISON => self.ranges.len() as u64,
            SIZE => self.size,
            STATUS => self.status as u64,
            _ => 0,
        }
    }

    /// A store to the register at this offset.
    pub(super) fn write(&mut self, offset: u64, value: u64, vm: &mut Vm) {
        self.status = match offset {
            POISON => self.poison(value, vm),
            SIZE => self.set_size(value),
            REPAIR if value == 0 => self.repair_all(vm),
            REPAIR => self.repair(value, vm),
            _ => return,
        };
    }

    fn set_size(&mut self, size: u64) -> Status {
        if size < LINE || !size.is_power_of_two() {
            return Status::NoSuchSize;
        }
        self.size = size;
        Status::Done
    }

    /// A line goes bad, whatever size was set.
    pub(super) fn poison_line(&mut self, address: u64, vm: &mut Vm) -> Status {
        self.poison_range(address, LINE, vm)
    }

    fn poison(&mut self, address: u64, vm: &mut Vm) -> Status {
        self.poison_range(address, self.size, vm)
    }

    fn poison_range(&mut self, address: u64, size: u64, vm: &mut Vm) -> Status {
        let start = address & !(size - 1);
        let ram = vm.memory().range();
        let Some(range) = end(start, size).filter(|range| ram.start <= range.start && range.end <= ram.end)
        else {
            return Status::NotRam;
        };
        if self.ranges.contains_key(&start) {
            return Status::BadAlready;
        }
        if self.ranges.len() == MOST {
            return Status::Full;
        }
        if vm.poison(range).is_err() {
            return Status::NotRam;
        }
        self.ranges.insert(start, size);
        Status::Done
    }

    /// Lines that another range covers stay bad.
    fn repair(&mut self, start: u64, vm: &mut Vm) -> Status {
        let Some(range) = self.ranges.remove(&start).and_then(|size| end(start, size)) else {
            return Status::NoRange;
        };
        let healed = vm.heal(range.clone()).is_ok();
        let others = self.ranges.iter().filter_map(|(start, size)| end(*start, *size));
        let overlapping: Vec<_> =
            others.filter(|other| other.start < range.end && range.start < other.end).collect();
        let is_done = healed && overlapping.into_iter().all(|other| vm.poison(other).is_ok());
        if is_done { Status::Done } else { Status::NotRam }
    }

    fn repair_all(&mut self, vm: &mut Vm) -> Status {
        self.ranges.clear();
        let ram = vm.memory().range();
        if vm.heal(ram).is_ok() { Status::Done } else { Status::NotRam }
    }
}

fn end(start: u64, size: u64) -> Option<Range<u64>> {
    Some(start..start.checked_add(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_machine::Config;

    const RAM: u64 = 0x4000_0000;

    fn vm() -> Vm {
        Vm::new(Config { memory_size: 2 << 20, el2: true, ..Config::default() }).expect("2 MiB")
    }

    /// lab/README.md, "The poison register": an address, and what the status is then.
    #[test]
    fn each_write_says_what_became_of_it() {
        let (mut vm, mut register) = (vm(), PoisonRegister::default());
        let mut write = |offset, value| {
            register.write(offset, value, &mut vm);
            (register.read(STATUS), register.read(POISON))
        };
        assert_eq!(write(POISON, RAM + 0x1008), (0, 1));
        assert_eq!(write(POISON, RAM + 0x1000), (3, 1), "it begins there already");
        assert_eq!(write(POISON, RAM - 1), (2, 1));
        assert_eq!(write(POISON, u64::MAX), (2, 1));
        assert_eq!(write(SIZE, 96), (1, 1));
        assert_eq!(write(SIZE, 4096), (0, 1));
        assert_eq!(write(REPAIR, RAM + 0x40), (4, 1));
        assert_eq!(write(POISON, RAM + 0x2fff), (0, 2));
        assert_eq!(write(REPAIR, 0), (0, 0));
    }

    #[test]
    fn a_repair_leaves_what_another_range_covers() {
        let (mut vm, mut register) = (vm(), PoisonRegister::default());
        register.write(POISON, RAM + 0x1040, &mut vm);
        register.write(SIZE, 4096, &mut vm);
        register.write(POISON, RAM + 0x1000, &mut vm);
        assert_eq!(vm.memory().poisoned_lines(), 64);
        register.write(REPAIR, RAM + 0x1000, &mut vm);
        assert_eq!((vm.memory().poisoned_lines(), register.read(POISON)), (1, 1));
        assert!(vm.memory().poisoned(RAM + 0x1040, 64));
    }
}
