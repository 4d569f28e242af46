//! virtio devices over MMIO (virtio 1.2, 4.2). The queues are `virtio-queue`'s.
//!
//! What the host reads of guest memory it copies by itself and hands to no system call: a bad line there would
//! bring down the host's kernel, not only this program.

mod block;
mod console;
mod mmio;

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

pub use block::Block;
pub use console::VirtioConsole;
pub use mmio::VirtioMmio;

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
    fn process(&mut self, index: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> bool;
}
