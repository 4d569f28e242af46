//! The block device (virtio 1.2, 5.2). A request is one of at most [`MAX_REQUEST`] bytes, which the configuration space
//! says; a longer one fails.

use std::io::{self, Read as _, Write as _};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Queue, QueueT, Reader, Writer};
use vm_memory::Bytes as _;
use vm_memory::bitmap::BitmapSlice;

use super::{BadQueue, Chain, Device, DeviceMemory, Work, next_chain};
use crate::devices::disk::{Disk, SECTOR, Writes};

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;
/// `size_max`, bytes of a segment, and `seg_max`, segments of a request.
const SIZE_MAX: u32 = 64 << 10;
const SEG_MAX: u32 = 64;
/// Bytes of a request, less its header and status. Those of one request are moved for one notice, too.
pub(crate) const MAX_REQUEST: u64 = SIZE_MAX as u64 * SEG_MAX as u64;
/// Bytes of a request's header: type, reserved, sector.
const HEADER: u64 = 16;

/// A block device.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    /// `capacity`, sectors; `size_max`; `seg_max`.
    config: [u8; 16],
}

impl Block {
    /// A device with this disk.
    pub fn new(disk: Disk) -> Self {
        let mut config = [0; 16];
        let capacity = (disk.size() / SECTOR).to_le_bytes();
        let fields = capacity.into_iter().chain(SIZE_MAX.to_le_bytes()).chain(SEG_MAX.to_le_bytes());
        config.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        Self { disk, config }
    }

    /// The disk.
    pub(crate) fn disk(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// Does a request: how many bytes of the chain were written, if it is a request.
    fn request<M: DeviceMemory>(&mut self, chain: &Chain<'_, M>, memory: &M) -> Option<u32> {
        if chain.is_too_long {
            return None;
        }
        if chain.readable > HEADER + MAX_REQUEST || chain.writable > MAX_REQUEST + 1 {
            // Nothing of it is looked at but where its status goes.
            memory.write_obj(VIRTIO_BLK_S_IOERR as u8, chain.last_writable?).ok()?;
            return Some(1);
        }
        let chain = chain.descriptors();
        let reader = chain.clone().reader(memory);
        let mut writer = chain.writer(memory).ok()?;
        // The last byte that the device may write is the status.
        let mut status = writer.split_at(writer.available_bytes().checked_sub(1)?).ok()?;
        // What cannot be read is bad, or not there.
        let reader = reader.map_err(|_| io::ErrorKind::InvalidData.into());
        let done = match reader.and_then(|mut reader| self.transfer(&mut reader, &mut writer)) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        status.write_all(&[done as u8]).ok()?;
        Some((writer.bytes_written() + 1) as u32)
    }

    fn transfer<B: BitmapSlice>(
        &mut self,
        reader: &mut Reader<'_, B>,
        writer: &mut Writer<'_, B>,
    ) -> io::Result<()> {
        let (mut kind, mut reserved, mut sector) = ([0; 4], [0; 4], [0; 8]);
        reader.read_exact(&mut kind)?;
        reader.read_exact(&mut reserved)?;
        reader.read_exact(&mut sector)?;
        let sector = u64::from_le_bytes(sector);
        let offset = sector.checked_mul(SECTOR).ok_or(io::ErrorKind::InvalidInput)?;
        match u32::from_le_bytes(kind) {
            VIRTIO_BLK_T_IN => self.read(offset, writer),
            VIRTIO_BLK_T_OUT => self.write(offset, reader),
            // What was written is as safe as it will be.
            VIRTIO_BLK_T_FLUSH => Ok(()),
            VIRTIO_BLK_T_GET_ID => {
                let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
                id.iter_mut().zip(b"seawall").for_each(|(to, from)| *to = *from);
                writer.write_all(&id)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn read<B: BitmapSlice>(&self, mut offset: u64, writer: &mut Writer<'_, B>) -> io::Result<()> {
        let mut left = whole_sectors(writer.available_bytes())?;
        self.disk.check(offset, left)?;
        let mut buffer = vec![0; left.min(CHUNK)];
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            self.disk.read(offset, chunk)?;
            writer.write_all(chunk)?;
            left -= chunk.len();
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    fn write<B: BitmapSlice>(&mut self, mut offset: u64, reader: &mut Reader<'_, B>) -> io::Result<()> {
        let mut left = whole_sectors(reader.available_bytes())?;
        self.disk.check(offset, left)?;
        let mut buffer = vec![0; left.min(CHUNK)];
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            reader.read_exact(chunk)?;
            self.disk.write(offset, chunk)?;
            left -= chunk.len();
            offset += chunk.len() as u64;
        }
        Ok(())
    }
}

fn whole_sectors(bytes: usize) -> io::Result<usize> {
    if bytes as u64 % SECTOR == 0 { Ok(bytes) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

impl Device for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let read_only = u64::from(self.disk.writes() == Writes::Refused) << VIRTIO_BLK_F_RO;
        read_only | 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_SEG_MAX
    }

    fn queues(&self) -> &'static [u16] {
        &[256]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn bytes_at_once(&self) -> u64 {
        MAX_REQUEST
    }

    fn process<M: DeviceMemory>(
        &mut self,
        _index: usize,
        queue: &mut Queue,
        memory: &M,
        work: &mut Work,
    ) -> Result<bool, BadQueue> {
        let mut used = false;
        while let Some(chain) = next_chain(queue, memory, work)? {
            let head = chain.head();
            // What is no request goes back untouched.
            let written = self.request(&chain, memory).unwrap_or(0);
            work.moved(chain.readable.max(chain.writable));
            used |= queue.add_used(memory, head, written).is_ok();
        }
        Ok(used)
    }
}
