//! The console device (virtio 1.2, 5.3), one port. A whole write of the guest's is one exit, where the UART needs
//! several for each byte.

use std::collections::VecDeque;
use std::io::{Read as _, Write};

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{Queue, QueueT};

use super::{BadQueue, Device, DeviceMemory, next_chain};

/// Bytes taken of the guest at once.
const CHUNK: usize = 4096;
/// Bytes that are typed and not yet delivered.
const MAX_TYPED: usize = 0x1_0000;

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

    /// Something is typed: how many bytes there was room for, of those that wait for the guest at most 64 KiB. Process
    /// queue [`Self::RECEIVE`] after it.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MAX_TYPED.saturating_sub(self.typed.len()));
        self.typed.extend(bytes.iter().take(taken));
        taken
    }

    /// What was typed and is not yet delivered, and what it writes to.
    pub(crate) fn parts(&mut self) -> (&mut VecDeque<u8>, &mut W) {
        (&mut self.typed, &mut self.output)
    }

    fn transmit<M: DeviceMemory>(&mut self, queue: &mut Queue, memory: &M) -> Result<bool, BadQueue> {
        let mut used = false;
        while let Some(chain) = next_chain(queue, memory)? {
            let head = chain.head_index();
            let mut buffer = [0; CHUNK];
            if let Ok(mut reader) = chain.reader(memory) {
                while let Some(chunk) =
                    reader.read(&mut buffer).ok().filter(|n| *n > 0).and_then(|n| buffer.get(..n))
                {
                    let _ = self.output.write_all(chunk);
                }
            }
            used |= queue.add_used(memory, head, 0).is_ok();
        }
        Ok(used)
    }

    fn deliver<M: DeviceMemory>(&mut self, queue: &mut Queue, memory: &M) -> Result<bool, BadQueue> {
        let mut used = false;
        while !self.typed.is_empty() {
            let Some(chain) = next_chain(queue, memory)? else { break };
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.writer(memory) {
                let room = writer.available_bytes().min(self.typed.len());
                let bytes: Vec<u8> = self.typed.drain(..room).collect();
                written = writer.write_all(&bytes).map_or(0, |()| room as u32);
            }
            used |= queue.add_used(memory, head, written).is_ok();
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

    fn process<M: DeviceMemory>(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<bool, BadQueue> {
        match index {
            Self::RECEIVE => self.deliver(queue, memory),
            _ => self.transmit(queue, memory),
        }
    }
}
