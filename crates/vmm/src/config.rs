//! What a guest is, and what it runs on.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use seawall::Policy;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::board::Board;
use crate::console::Observer;
use crate::devices::disk::Disk;
use crate::devices::virtio::{Block, VirtioMmio};
use crate::fdt::{self, Platform};
use crate::interrupt::InterruptLine;
use crate::kernel::Kernel;
use crate::load::{self, Placement};
use crate::{Error, layout};

/// Linux's `COMMAND_LINE_SIZE` on arm64, less the NUL.
const MAX_COMMAND_LINE: usize = 2047;
/// RAM is a multiple of this, bytes.
const MEMORY_UNIT: u64 = 2 << 20;

/// What a guest runs on.
pub struct Config {
    /// Its memory; clones are the same memory.
    pub memory: GuestMemoryMmap,
    /// vCPUs.
    pub cpus: u32,
    /// What is done about memory errors.
    pub policy: Box<dyn Policy + Send>,
    /// A virtio console beside the UART: `hvc0` to Linux.
    pub virtio_console: bool,
    /// virtio block devices: `vda`, `vdb`, ... to Linux.
    pub disks: Vec<Disk>,
}

/// What a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its kernel.
    pub kernel: Kernel,
    /// Its initramfs, as it is.
    pub initrd: Option<Vec<u8>>,
    /// The kernel's command line.
    pub command_line: String,
}

impl Config {
    /// One vCPU, `memory` bytes of zeroed RAM, no disk; aborts are injected as they happened
    /// ([`seawall::Full`]).
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new(memory: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Memory { size: memory, reason };
        if memory == 0 || memory % MEMORY_UNIT != 0 {
            return Err(failed("it is not such a multiple".to_owned()));
        }
        let size = usize::try_from(memory).map_err(|error| failed(error.to_string()))?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(layout::RAM), size)]);
        let memory = memory.map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            memory,
            cpus: 1,
            policy: Box::new(seawall::Full),
            virtio_console: false,
            disks: Vec::new(),
        })
    }

    /// The number of vCPUs, if it can be.
    ///
    /// # Errors
    /// [`Error::Cpus`].
    pub fn checked_cpus(&self) -> Result<u32, Error> {
        match self.cpus {
            1..=layout::MAX_CPUS => Ok(self.cpus),
            got => Err(Error::Cpus { got }),
        }
    }

    /// The board of this configuration. `line` gives the input of an SPI by its number.
    ///
    /// # Errors
    /// What `line` fails with; [`Error::TooManyDevices`].
    pub fn board(
        self,
        mut line: impl FnMut(u32) -> Result<Arc<dyn InterruptLine>, Error>,
        observer: Box<dyn Observer>,
    ) -> Result<Board, Error> {
        let mut board = Board::new(&mut line, observer, self.policy)?;
        if self.virtio_console {
            board.add_virtio_console(line(layout::VIRTIO_SPI)?, self.memory.clone())?;
        }
        for disk in self.disks {
            let line = line(layout::VIRTIO_SPI + board.virtio())?;
            board.add_virtio(VirtioMmio::new(Block::new(disk), line, self.memory.clone()))?;
        }
        Ok(board)
    }
}

impl Guest {
    /// Reads a guest from files.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Kernel`].
    pub fn read(kernel: &Path, initrd: Option<&Path>, command_line: &str) -> Result<Self, Error> {
        let read = |what, path: &Path| {
            fs::read(path).map_err(|source| Error::Read { what, path: path.to_owned(), source })
        };
        let parsed = Kernel::parse(read("kernel", kernel)?);
        Ok(Self {
            kernel: parsed.map_err(|source| Error::Kernel { path: kernel.to_owned(), source })?,
            initrd: initrd.map(|path| read("initramfs", path)).transpose()?,
            command_line: command_line.to_owned(),
        })
    }

    /// Puts the guest into `memory`, with the device tree of a machine with this board.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Fdt`], [`Error::CommandLine`].
    pub fn load<M: GuestMemoryBackend>(
        &self,
        memory: &M,
        cpus: u32,
        board: &Board,
    ) -> Result<Placement, Error> {
        let size = self.command_line.len();
        if matches!(self.kernel, Kernel::Linux(_)) && size > MAX_COMMAND_LINE {
            return Err(Error::CommandLine { size, limit: MAX_COMMAND_LINE });
        }
        load::load(memory, &self.kernel, self.initrd.as_deref(), |initrd| {
            let memory = memory.last_addr().0 + 1 - layout::RAM;
            let virtio = board.virtio();
            Ok(fdt::flatten(&Platform { memory, cpus, command_line: &self.command_line, initrd, virtio })?)
        })
    }
}
