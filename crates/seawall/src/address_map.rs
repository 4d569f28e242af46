//! The guest's memory in its VMM's address space.

use std::ops::Range;

use thiserror::Error;

/// A run of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryRegion {
    /// Guest physical address.
    pub guest: u64,
    /// The address of the same byte in the VMM's address space.
    pub host: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A region that an address map cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected regions that hold something, end below 2^64 and do not overlap, got {0:x?}")]
pub struct BadRegion(pub MemoryRegion);

/// A translation between guest physical and host virtual addresses. A lookup takes time in the logarithm of
/// the number of regions.
///
/// ```
/// use seawall::{AddressMap, MemoryRegion};
///
/// let map = AddressMap::new([
///     MemoryRegion { guest: 0x4000_0000, host: 0x7f00_0000_0000, size: 1 << 30 },
///     MemoryRegion { guest: 0x1_0000_0000, host: 0x7e00_0000_0000, size: 1 << 30 },
/// ])?;
/// assert_eq!(map.guest(0x7e00_0000_1000), Some(0x1_0000_1000));
/// assert_eq!(map.host(0x4000_0fff), Some(0x7f00_0000_0fff));
/// assert_eq!(map.guest(0x7d00_0000_0000), None);
/// # Ok::<(), seawall::BadRegion>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    by_guest: Vec<MemoryRegion>,
    by_host: Vec<MemoryRegion>,
}

impl AddressMap {
    /// A map of these regions, in any order.
    ///
    /// # Errors
    /// [`BadRegion`]: a region that is empty, goes beyond the end of an address space, or overlaps another
    /// one in either.
    pub fn new(regions: impl IntoIterator<Item = MemoryRegion>) -> Result<Self, BadRegion> {
        let by_guest: Vec<MemoryRegion> = regions.into_iter().collect();
        let by_host = by_guest.clone();
        Ok(Self {
            by_guest: sorted(by_guest, |region| region.guest)?,
            by_host: sorted(by_host, |region| region.host)?,
        })
    }

    /// The guest physical address of a byte in the VMM.
    pub fn guest(&self, host: u64) -> Option<u64> {
        let region = find(&self.by_host, host, |region| region.host)?;
        Some(region.guest + (host - region.host))
    }

    /// The VMM's address of a byte of the guest.
    pub fn host(&self, guest: u64) -> Option<u64> {
        let region = find(&self.by_guest, guest, |region| region.guest)?;
        Some(region.host + (guest - region.guest))
    }

    /// The guest physical ranges behind a range of the VMM: several if regions meet in it, none if there is
    /// no guest memory.
    pub fn guest_ranges(&self, host: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        overlaps(&self.by_host, host, |region| (region.host, region.guest))
    }

    /// The VMM's ranges for a guest physical range, with the same exceptions.
    pub fn host_ranges(&self, guest: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        overlaps(&self.by_guest, guest, |region| (region.guest, region.host))
    }
}

/// The parts of `range` that lie in regions, in the other address space. `sides`: the start of a region in
/// this address space and in the other.
fn overlaps(
    regions: &[MemoryRegion],
    range: Range<u64>,
    sides: impl Fn(&MemoryRegion) -> (u64, u64),
) -> impl Iterator<Item = Range<u64>> {
    let first = regions.partition_point(|region| sides(region).0 + region.size <= range.start);
    let regions = regions.get(first..).unwrap_or_default().iter();
    let sided = regions.map(move |region| (sides(region), region.size));
    sided.take_while(move |((here, _), _)| *here < range.end).map(move |((here, there), size)| {
        let start = range.start.max(here) - here;
        let end = range.end.min(here + size) - here;
        there + start..there + end
    })
}

fn sorted(
    mut regions: Vec<MemoryRegion>,
    key: impl Fn(&MemoryRegion) -> u64,
) -> Result<Vec<MemoryRegion>, BadRegion> {
    regions.sort_unstable_by_key(&key);
    let mut end = 0;
    for region in &regions {
        let start = key(region);
        let next = start.checked_add(region.size).ok_or(BadRegion(*region))?;
        if region.size == 0 || start < end {
            return Err(BadRegion(*region));
        }
        end = next;
    }
    Ok(regions)
}

fn find(regions: &[MemoryRegion], address: u64, key: impl Fn(&MemoryRegion) -> u64) -> Option<&MemoryRegion> {
    let at = regions.partition_point(|region| key(region) <= address).checked_sub(1)?;
    regions.get(at).filter(|region| address - key(region) < region.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guest: u64, host: u64, size: u64) -> MemoryRegion {
        MemoryRegion { guest, host, size }
    }

    #[test]
    fn a_range_over_two_regions_is_two_ranges_of_the_guest() {
        let map = AddressMap::new([region(0x1000, 0x9000, 0x1000), region(0x8000, 0xa000, 0x2000)]).unwrap();
        let ranges: Vec<_> = map.guest_ranges(0x9800..0xa800).collect();
        assert_eq!(ranges, [0x1800..0x2000, 0x8000..0x8800]);
        assert_eq!(map.guest_ranges(0..0x9000).count(), 0);
        assert_eq!(map.guest_ranges(0xc000..0xd000).count(), 0);
    }

    #[test]
    fn the_ends_of_regions_are_exact() {
        let map = AddressMap::new([region(0x1000, 0x9000, 0x1000)]).unwrap();
        assert_eq!((map.guest(0x9000), map.guest(0x9fff)), (Some(0x1000), Some(0x1fff)));
        assert_eq!((map.guest(0x8fff), map.guest(0xa000)), (None, None));
        assert_eq!((map.host(0xfff), map.host(0x1000), map.host(0x2000)), (None, Some(0x9000), None));
        assert_eq!(AddressMap::default().guest(0), None);
    }

    #[test]
    fn regions_that_overlap_in_either_space_are_refused() {
        for (first, second) in [
            (region(0, 0x9000, 0x1000), region(0xfff, 0x1_0000, 0x1000)),
            (region(0, 0x9000, 0x1000), region(0x5000, 0x9fff, 0x1000)),
            (region(0, 0x9000, 0x1000), region(0x5000, 0x1_0000, 0)),
            (region(0, 0x9000, 0x1000), region(u64::MAX, 0x1_0000, 2)),
        ] {
            assert_eq!(AddressMap::new([first, second]), Err(BadRegion(second)), "{first:x?} {second:x?}");
        }
    }

    #[test]
    fn each_of_many_regions_is_found() {
        let map = AddressMap::new((0..10_000).map(|n| region(n << 21, (20_000 - n) << 22, 1 << 21))).unwrap();
        for n in 0..10_000 {
            assert_eq!(map.guest(((20_000 - n) << 22) + 5), Some((n << 21) + 5));
            assert_eq!(map.host((n << 21) + 5), Some(((20_000 - n) << 22) + 5));
        }
    }
}
