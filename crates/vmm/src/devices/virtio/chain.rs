//! What a driver offers in a queue, and how much of it a device does at once.

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestAddress;

use super::{BadQueue, DeviceMemory};

/// Descriptors that a device looks at for one notice.
const DESCRIPTORS_AT_ONCE: usize = 1024;

/// The work that one notice still allows a device. The queue stays notified if there is more to do.
#[derive(Debug)]
pub struct Work {
    descriptors: usize,
    bytes: u64,
    /// Bytes of the queue's first chain that were done at notices before, by a device that does chains in parts.
    pub(crate) done: u64,
}

impl Work {
    /// So many bytes, and 1,024 descriptors; so many bytes of the first chain are done.
    pub(crate) fn new(bytes: u64, done: u64) -> Self {
        Self { descriptors: DESCRIPTORS_AT_ONCE, bytes, done }
    }

    /// Bytes that may still be moved.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes
    }

    /// True if the rest has to wait.
    pub(crate) fn is_over(&self) -> bool {
        self.descriptors == 0 || self.bytes == 0
    }

    /// So many bytes are moved. The last chain may have more than were left.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A chain of descriptors, all of which can be read.
#[derive(Debug)]
pub(crate) struct Chain<'a, M> {
    descriptors: DescriptorChain<&'a M>,
    /// Bytes that the device may read, and that it may write.
    pub(crate) readable: u64,
    pub(crate) writable: u64,
    /// The last byte that it may write.
    pub(crate) last_writable: Option<GuestAddress>,
    /// It has more descriptors than its queue, which none may (virtio 1.2, 2.7.5.3.1): only a table of a kind that was
    /// not offered can hold so many.
    pub(crate) is_too_long: bool,
}

impl<'a, M: DeviceMemory> Chain<'a, M> {
    /// The descriptor that it begins with.
    pub(crate) fn head(&self) -> u16 {
        self.descriptors.head_index()
    }

    /// Its descriptors, one after the other.
    pub(crate) fn descriptors(&self) -> DescriptorChain<&'a M> {
        self.descriptors.clone()
    }
}

/// The next chain that the driver offers; none either if `work` is over.
///
/// # Errors
/// [`BadQueue`].
pub(crate) fn next_chain<'a, M: DeviceMemory>(
    queue: &mut Queue,
    memory: &'a M,
    work: &mut Work,
) -> Result<Option<Chain<'a, M>>, BadQueue> {
    if work.is_over() {
        return Ok(None);
    }
    let before = memory.bad_reads();
    let most = usize::from(queue.size());
    let chain = queue.pop_descriptor_chain(memory).map(|chain| {
        let mut count = 0;
        let (mut readable, mut writable, mut last_writable) = (0, 0, None);
        for descriptor in chain.clone().take(most + 1) {
            count += 1;
            let length = u64::from(descriptor.len());
            if descriptor.is_write_only() {
                writable += length;
                last_writable = last_byte(&descriptor).or(last_writable);
            } else {
                readable += length;
            }
        }
        work.descriptors = work.descriptors.saturating_sub(count.max(1));
        Chain { descriptors: chain, readable, writable, last_writable, is_too_long: count > most }
    });
    // `virtio-queue` takes a descriptor that cannot be read for the chain's end.
    if memory.bad_reads() == before { Ok(chain) } else { Err(BadQueue) }
}

fn last_byte(descriptor: &Descriptor) -> Option<GuestAddress> {
    let offset = u64::from(descriptor.len()).checked_sub(1)?;
    descriptor.addr().0.checked_add(offset).map(GuestAddress)
}
