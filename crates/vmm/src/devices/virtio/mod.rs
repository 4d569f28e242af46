//! virtio devices over MMIO (virtio 1.2, 4.2). The queues are `virtio-queue`'s.
//!
//! What the host reads of guest memory it copies by itself and hands to no system call: a bad line there would
//! bring down the host's kernel, not only this program. On KVM the host's own load of such a line is a SIGBUS that
//! ends this program. On the software machine it is an error of the access: a request whose buffers are bad fails,
//! and a device whose queue is bad asks for a reset.

mod block;
mod console;
mod empty;
mod mmio;

use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{GuestMemory, GuestMemoryMmap};

pub use block::Block;
pub use console::VirtioConsole;
pub use empty::Empty;
pub(crate) use mmio::State;
pub use mmio::VirtioMmio;

/// Guest memory as a device reaches it.
pub trait DeviceMemory: GuestMemory {
    /// How many reads met bad memory and failed.
    fn bad_reads(&self) -> usize;
}

/// The process does not outlive a read of bad memory: a SIGBUS.
impl DeviceMemory for GuestMemoryMmap {
    fn bad_reads(&self) -> usize {
        0
    }
}

/// The rings or descriptors of a queue are in bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadQueue;

/// A kind of device, behind its transport.
pub trait Device: Send {
    /// Device ID (virtio 1.2, 5).
    fn id(&self) -> u32;

    /// Features beyond those of the transport, bit by bit.
    fn features(&self) -> u64;

    /// Greatest size of each queue; a power of two.
    fn queues(&self) -> &'static [u16];

    /// The configuration space.
    fn config(&self) -> &[u8];

    /// Does what is in queue `index`; true if a buffer was used.
    ///
    /// # Errors
    /// [`BadQueue`]: what is in the queue cannot be known.
    fn process<M: DeviceMemory>(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<bool, BadQueue>;
}

/// The next chain that the driver offers, all of whose descriptors can be read.
///
/// # Errors
/// [`BadQueue`].
fn next_chain<'a, M: DeviceMemory>(
    queue: &mut Queue,
    memory: &'a M,
) -> Result<Option<DescriptorChain<&'a M>>, BadQueue> {
    let before = memory.bad_reads();
    let chain = queue.pop_descriptor_chain(memory);
    // `virtio-queue` takes a descriptor that cannot be read for the chain's end.
    let _descriptors = chain.clone().map(Iterator::count);
    if memory.bad_reads() == before { Ok(chain) } else { Err(BadQueue) }
}
