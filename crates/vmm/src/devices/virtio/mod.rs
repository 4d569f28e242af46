//! virtio devices over MMIO (virtio 1.2, 4.2). The queues are `virtio-queue`'s.
//!
//! What the host reads of guest memory it copies by itself and hands to no system call: a bad line there would
//! bring down the host's kernel, not only this program. On KVM the host's own load of such a line is a SIGBUS that
//! ends this program. On the software machine it is an error of the access: a request whose buffers are bad fails,
//! and a device whose queue is bad asks for a reset.

pub(crate) mod block;
mod chain;
pub(crate) mod console;
mod empty;
mod mmio;

use virtio_queue::Queue;
use vm_memory::{GuestMemory, GuestMemoryMmap};

pub use block::Block;
pub use chain::Work;
pub(crate) use chain::{Chain, next_chain};
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

    /// How many bytes it moves for one notice of its driver's.
    fn bytes_at_once(&self) -> u64;

    /// Does what is in queue `index`, until all of it is done or `work` is [over](Work::is_over); true if a buffer was
    /// used.
    ///
    /// # Errors
    /// [`BadQueue`]: what is in the queue cannot be known.
    fn process<M: DeviceMemory>(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &M,
        work: &mut Work,
    ) -> Result<bool, BadQueue>;
}
