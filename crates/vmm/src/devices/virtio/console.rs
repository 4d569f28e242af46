//! The console device (virtio 1.2, 5.3), one port. A whole write of the guest's is one exit, where the UART needs
//! several for each byte. A write is as long as the guest likes; [`PORTION`] of it are done at once, sixteen times what
//! Linux gives it.

use std::collections::VecDeque;
use std::io::Write;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes as _, GuestAddress};

use super::{BadQueue, Chain, Device, DeviceMemory, Work, next_chain};

/// Bytes taken of the guest at once.
const CHUNK: usize = 4096;
/// Bytes that are written for one notice: the rest of a chain follows.
pub(crate) const PORTION: u64 = 64 << 10;
/// Bytes that wait for the guest to take them.
const TYPED: usize = 4096;

/// A console.
#[derive(Debug)]
pub struct VirtioConsole<W> {
    output: W,
    typed: VecDeque<u8>,
}

impl<W: Write + Send> VirtioConsole<W> {
    /// Number of the queue by which the guest gets what is typed.
    pub const RECEIVE: usize = 0;

    /// A console that writes to `output`; its errors are not the guest's.
    pub fn new(output: W) -> Self {
        Self { output, typed: VecDeque::new() }
    }

    /// Something is typed: process queue [`Self::RECEIVE`] after it. Gives how many bytes there was room for.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(TYPED.saturating_sub(self.typed.len()));
        self.typed.extend(bytes.iter().take(taken));
        taken
    }

    /// What was typed and is not yet delivered, and what it writes to.
    pub(crate) fn parts(&mut self) -> (&mut VecDeque<u8>, &mut W) {
        (&mut self.typed, &mut self.output)
    }

    /// Writes what the guest does, from where the last notice's work ended, and gives whether that is all of it. It ends
    /// where memory cannot be read.
    fn write<M: DeviceMemory>(&mut self, chain: &Chain<'_, M>, memory: &M, work: &mut Work) -> bool {
        let mut buffer = [0; CHUNK];
        let mut done_before = std::mem::take(&mut work.done);
        let mut done = done_before;
        for descriptor in chain.descriptors().readable() {
            let length = u64::from(descriptor.len());
            let skipped = done_before.min(length);
            done_before -= skipped;
            let (mut at, mut left) = (descriptor.addr().0.saturating_add(skipped), length - skipped);
            while left > 0 {
                let count = left.min(CHUNK as u64).min(work.bytes_left());
                if count == 0 {
                    work.done = done;
                    return false;
                }
                let Some(chunk) = buffer.get_mut(..count as usize) else { return true };
                if memory.read_slice(chunk, GuestAddress(at)).is_err() {
                    return true;
                }
                let _ = self.output.write_all(chunk);
                work.moved(count);
                (left, done, at) = (left - count, done + count, at.saturating_add(count));
            }
        }
        true
    }

    /// Gives the guest what was typed, as far as there is room: how many bytes.
    fn give<M: DeviceMemory>(&mut self, chain: &Chain<'_, M>, memory: &M) -> u32 {
        let mut given = 0;
        for descriptor in chain.descriptors().writable() {
            let bytes = &*self.typed.make_contiguous();
            let room = bytes.len().min(descriptor.len() as usize);
            let Some(bytes) = bytes.get(..room).filter(|bytes| !bytes.is_empty()) else { continue };
            if memory.write_slice(bytes, descriptor.addr()).is_err() {
                break;
            }
            self.typed.drain(..room);
            given += room as u32;
        }
        given
    }

    fn transmit<M: DeviceMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        work: &mut Work,
    ) -> Result<bool, BadQueue> {
        let mut used = false;
        while let Some(chain) = next_chain(queue, memory, work)? {
            if !chain.is_too_long && !self.write(&chain, memory, work) {
                // It is the first again, as nothing tells the driver of it yet.
                queue.set_next_avail(queue.next_avail().wrapping_sub(1));
                break;
            }
            used |= queue.add_used(memory, chain.head(), 0).is_ok();
        }
        Ok(used)
    }

    fn deliver<M: DeviceMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        work: &mut Work,
    ) -> Result<bool, BadQueue> {
        let mut used = false;
        while !self.typed.is_empty() {
            let Some(chain) = next_chain(queue, memory, work)? else { break };
            let given = if chain.is_too_long { 0 } else { self.give(&chain, memory) };
            used |= queue.add_used(memory, chain.head(), given).is_ok();
        }
        Ok(used)
    }
}

impl<W: Write + Send> Device for VirtioConsole<W> {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &'static [u16] {
        &[64, 64]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn bytes_at_once(&self) -> u64 {
        PORTION
    }

    fn process<M: DeviceMemory>(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &M,
        work: &mut Work,
    ) -> Result<bool, BadQueue> {
        match index {
            Self::RECEIVE => self.deliver(queue, memory, work),
            _ => self.transmit(queue, memory, work),
        }
    }
}
