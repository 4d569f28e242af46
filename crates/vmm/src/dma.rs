//! The software machine's RAM as a device reaches it: in place, with its bad lines.

use std::cell::RefCell;
use std::iter::FusedIterator;
use std::ops::Range;

use seawall_machine::memory::{Memory, PoisonedLines};
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions, VolatileMemoryError,
    VolatileSlice,
};

use crate::devices::virtio::DeviceMemory;

/// RAM, for as long as devices work on it.
///
/// A read that touches a poisoned line fails as a whole. A write does not: as with the CPU's stores the line stays
/// bad, and who loads from it takes the abort.
pub(crate) struct Dma<'a> {
    ram: VolatileSlice<'a>,
    base: u64,
    poisoned: PoisonedLines<'a>,
    /// What was asked for to be written, physical addresses.
    written: RefCell<Vec<Range<u64>>>,
    /// Where reads met bad memory, physical addresses.
    bad: RefCell<Vec<u64>>,
    /// What was read, physical addresses, if a trace is on.
    read: Option<RefCell<Vec<Range<u64>>>>,
}

impl Dma<'_> {
    /// Does `work` with RAM, then tells the machine what was written. Gives the addresses of reads that met bad
    /// memory, too.
    pub(crate) fn with<T>(memory: &mut Memory, work: impl FnOnce(&Dma<'_>) -> T) -> (T, Vec<u64>) {
        let base = memory.base();
        let read = memory.is_traced().then(RefCell::default);
        let (ram, poisoned) = memory.dma();
        let (written, bad) = (RefCell::default(), RefCell::default());
        let dma = Dma { ram: VolatileSlice::from(ram), base, poisoned, written, bad, read };
        let done = work(&dma);
        let Dma { written, bad, read, .. } = dma;
        for range in written.into_inner() {
            memory.host_wrote(range);
        }
        for range in read.into_iter().flat_map(RefCell::into_inner) {
            memory.device_read(range.start, range.end - range.start);
        }
        (done, bad.into_inner())
    }

    fn slice(
        &self,
        address: u64,
        count: usize,
        access: Permissions,
    ) -> Result<VolatileSlice<'_>, GuestMemoryError> {
        let outside = GuestMemoryError::InvalidGuestAddress(GuestAddress(address));
        let Some(offset) = address.checked_sub(self.base) else { return Err(outside) };
        let slice = self.ram.subslice(offset as usize, count).map_err(|_| outside)?;
        if access.allow(Permissions::Read) && self.poisoned.touch(address, count as u64) {
            self.bad.borrow_mut().push(address);
            let bad = VolatileMemoryError::OutOfBounds { addr: offset as usize };
            return Err(bad.into());
        }
        if let Some(read) = self.read.as_ref().filter(|_| access.allow(Permissions::Read)) {
            read.borrow_mut().push(address..address + count as u64);
        }
        if access.has_write() {
            self.written.borrow_mut().push(address..address + count as u64);
        }
        Ok(slice)
    }
}

impl DeviceMemory for Dma<'_> {
    fn bad_reads(&self) -> usize {
        self.bad.borrow().len()
    }
}

impl GuestMemory for Dma<'_> {
    /// There is none of that kind.
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, count: usize, _access: Permissions) -> bool {
        let offset = address.0.checked_sub(self.base);
        offset.is_some_and(|offset| self.ram.subslice(offset as usize, count).is_ok())
    }

    fn get_slices(
        &self,
        address: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'_, ()>, GuestMemoryError> {
        let slice = (count > 0).then(|| self.slice(address.0, count, access)).transpose()?;
        Ok(Whole(slice))
    }
}

/// RAM is in one piece.
struct Whole<'a>(Option<VolatileSlice<'a>>);

impl<'a> Iterator for Whole<'a> {
    type Item = Result<VolatileSlice<'a>, GuestMemoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl FusedIterator for Whole<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Whole<'a> {}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes as _;

    use super::*;

    const RAM: u64 = 0x4000_0000;

    #[test]
    fn a_device_reads_and_writes_the_machines_own_ram() {
        let mut memory = Memory::new(RAM, 0x4000).unwrap();
        memory.store(RAM + 0x100, b"before").unwrap();
        memory.set_has_code(0x1000);
        let (read, bad) = Dma::with(&mut memory, |dma| {
            let mut read = [0; 6];
            dma.read_slice(&mut read, GuestAddress(RAM + 0x100)).unwrap();
            dma.write_slice(b"after", GuestAddress(RAM + 0xffe)).unwrap();
            read
        });
        assert_eq!((&read, bad), (b"before", vec![]));
        assert_eq!(memory.read::<5>(0xffe), Some(*b"after"));
        assert_eq!(memory.take_stale_code(), [1]);
    }

    #[test]
    fn a_read_of_a_bad_line_fails_as_a_whole_and_a_write_leaves_it_bad() {
        let mut memory = Memory::new(RAM, 0x4000).unwrap();
        memory.poison(RAM + 0x1040..RAM + 0x1080).unwrap();
        let (reads, bad) = Dma::with(&mut memory, |dma| {
            let read = |at| dma.read_slice(&mut [0; 8], GuestAddress(at)).is_ok();
            let reads = [RAM + 0x1038, RAM + 0x1039, RAM + 0x1078, RAM + 0x1080].map(read);
            dma.write_slice(&[7; 64], GuestAddress(RAM + 0x1040)).unwrap();
            assert_eq!(dma.bad_reads(), 2);
            reads
        });
        assert_eq!(reads, [true, false, false, true]);
        assert_eq!(bad, [RAM + 0x1039, RAM + 0x1078]);
        assert!(memory.poisoned(RAM + 0x1040, 1));
        assert_eq!(memory.read::<1>(0x1040), Some([7]));
    }

    #[test]
    fn nothing_is_outside_ram() {
        let mut memory = Memory::new(RAM, 0x1000).unwrap();
        Dma::with(&mut memory, |dma| {
            for at in [0, RAM - 1, RAM + 0xff9, RAM + 0x1000, u64::MAX] {
                assert!(dma.write_slice(&[1; 8], GuestAddress(at)).is_err(), "{at:#x}");
                assert!(!dma.check_range(GuestAddress(at), 8, Permissions::Write), "{at:#x}");
            }
            assert!(dma.check_range(GuestAddress(RAM), 0x1000, Permissions::Read));
        });
    }
}
