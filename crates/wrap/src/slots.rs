//! Where the memory of the process's VMs is: what `KVM_SET_USER_MEMORY_REGION` said last of each slot.
//!
//! A VMM changes slots now and then, and the library reads them when memory was bad: a table without a lock, whose readers
//! look again if an entry changed meanwhile.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use seawall::{AddressMap, MemoryRegion};

use crate::files::VmId;

/// Slots of all VMs. KVM/arm64 lets a VM have 32767; VMMs have some dozens.
pub(crate) const SLOTS: usize = 4096;

struct Slot {
    /// 0: free; else the VM's place, from 1 on, and the slot's number.
    key: AtomicU64,
    /// Odd while it is written.
    version: AtomicU32,
    guest: AtomicU64,
    host: AtomicU64,
    size: AtomicU64,
}

pub(crate) struct Slots([Slot; SLOTS]);

impl Slots {
    #[allow(clippy::large_stack_arrays, reason = "it is a static")]
    pub(crate) const fn new() -> Self {
        Self(
            [const {
                Slot {
                    key: AtomicU64::new(0),
                    version: AtomicU32::new(0),
                    guest: AtomicU64::new(0),
                    host: AtomicU64::new(0),
                    size: AtomicU64::new(0),
                }
            }; SLOTS],
        )
    }

    /// The VM has this memory in this slot, or none if its size is 0. False if there is no room for it.
    pub(crate) fn set(&self, vm: VmId, number: u32, region: MemoryRegion) -> bool {
        let key = key(vm, number);
        if let Some(slot) = self.0.iter().find(|slot| slot.key.load(Ordering::Relaxed) == key) {
            slot.write(key, region);
            return true;
        }
        if region.size == 0 {
            return true;
        }
        let take =
            |slot: &&Slot| slot.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let slot = self.0.iter().find(take);
        slot.map(|slot| slot.write(key, region)).is_some()
    }

    /// The VM is no more.
    pub(crate) fn forget(&self, vm: VmId) {
        let nothing = MemoryRegion { guest: 0, host: 0, size: 0 };
        for slot in self.0.iter().filter(|slot| is_of(slot.key.load(Ordering::Relaxed), vm)) {
            slot.write(0, nothing);
        }
    }

    /// Where the VM's memory is. Of regions that are in the way of each other, as of one memory at two addresses of the
    /// guest, one is left out.
    pub(crate) fn map(&self, vm: VmId) -> AddressMap {
        let mut regions: Vec<_> = self.0.iter().filter_map(|slot| slot.read(vm)).collect();
        loop {
            match AddressMap::new(regions.iter().copied()) {
                Ok(map) => return map,
                Err(bad) => regions.retain(|region| *region != bad.0),
            }
        }
    }
}

fn key(vm: VmId, number: u32) -> u64 {
    (u64::from(vm.place) + 1) << 32 | u64::from(number)
}

fn is_of(key: u64, vm: VmId) -> bool {
    key >> 32 == u64::from(vm.place) + 1
}

impl Slot {
    fn write(&self, key: u64, region: MemoryRegion) {
        let before = self.version.fetch_or(1, Ordering::Relaxed) | 1;
        fence(Ordering::Release);
        self.guest.store(region.guest, Ordering::Relaxed);
        self.host.store(region.host, Ordering::Relaxed);
        self.size.store(region.size, Ordering::Relaxed);
        self.key.store(if region.size == 0 { 0 } else { key }, Ordering::Relaxed);
        self.version.store(before.wrapping_add(1), Ordering::Release);
    }

    fn read(&self, vm: VmId) -> Option<MemoryRegion> {
        // A writer that was killed would be waited for in vain.
        for _ in 0..1000 {
            let version = self.version.load(Ordering::Acquire);
            let key = self.key.load(Ordering::Relaxed);
            let (guest, host) = (self.guest.load(Ordering::Relaxed), self.host.load(Ordering::Relaxed));
            let size = self.size.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if version & 1 == 0 && self.version.load(Ordering::Relaxed) == version {
                return (is_of(key, vm) && size > 0).then_some(MemoryRegion { guest, host, size });
            }
            std::thread::yield_now();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: VmId = VmId { place: 0, generation: 1 };
    const B: VmId = VmId { place: 1, generation: 1 };

    fn region(guest: u64, host: u64, size: u64) -> MemoryRegion {
        MemoryRegion { guest, host, size }
    }

    fn map<const N: usize>(regions: [MemoryRegion; N]) -> AddressMap {
        AddressMap::new(regions).unwrap()
    }

    #[test]
    fn a_slot_is_what_was_said_of_it_last() {
        static SLOTS: Slots = Slots::new();
        assert!(SLOTS.set(A, 0, region(0x4000_0000, 0x7000_0000, 0x1000)));
        assert!(SLOTS.set(A, 1, region(0x8000_0000, 0x9000_0000, 0x1000)));
        assert!(SLOTS.set(B, 0, region(0x4000_0000, 0x1000_0000, 0x1000)));
        assert!(SLOTS.set(A, 0, region(0x5000_0000, 0x7000_0000, 0x2000)));
        let expected = [region(0x5000_0000, 0x7000_0000, 0x2000), region(0x8000_0000, 0x9000_0000, 0x1000)];
        assert_eq!(SLOTS.map(A), map(expected));
        assert!(SLOTS.set(A, 1, region(0x8000_0000, 0, 0)) && SLOTS.set(A, 9, region(0, 0, 0)));
        assert_eq!(SLOTS.map(A), map([expected[0]]));
        SLOTS.forget(A);
        assert_eq!(SLOTS.map(A), AddressMap::default());
        assert_eq!(SLOTS.map(B), map([region(0x4000_0000, 0x1000_0000, 0x1000)]));
    }

    #[test]
    fn a_slot_too_many_is_refused_and_one_that_was_emptied_has_room() {
        static SLOTS: Slots = Slots::new();
        let of = |n: u64| region(n << 20, n << 24, 0x1000);
        assert!((0..4096).all(|n| SLOTS.set(A, n, of(n.into()))));
        assert!(!SLOTS.set(A, 4096, of(4096)));
        assert!(SLOTS.set(A, 17, region(0, 0, 0)) && SLOTS.set(A, 4096, of(4096)));
    }

    /// QEMU's pflash and others may show one memory at two places.
    #[test]
    fn one_memory_at_two_addresses_of_the_guest_is_known_by_one_of_them() {
        static SLOTS: Slots = Slots::new();
        assert!(SLOTS.set(A, 0, region(0, 0x7000_0000, 0x1000)));
        assert!(SLOTS.set(A, 1, region(0x10_0000, 0x7000_0000, 0x1000)));
        let map = SLOTS.map(A);
        assert!(map.guest(0x7000_0000).is_some());
        assert_eq!(map.host(0).is_some(), map.host(0x10_0000).is_none());
    }

    #[test]
    fn a_reader_sees_a_slot_whole_while_it_changes() {
        static SLOTS: Slots = Slots::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..20_000_u64 {
                    SLOTS.set(A, 0, region(n << 12, n << 13, n << 4));
                }
            });
            while !writer.is_finished() {
                let read = SLOTS.0[0].read(A);
                assert!(read.is_none_or(|r| r.host == r.guest * 2 && r.size == r.guest >> 8), "{read:x?}");
            }
        });
    }
}
