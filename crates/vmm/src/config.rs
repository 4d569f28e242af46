//! What a guest is, and what it runs on.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use seawall::apei::efi;
use seawall::ledger::{Keeper, Ledger};
use seawall::{Containment, Policy};
use vm_memory::GuestMemory;

use crate::board::Board;
use crate::console::Observer;
use crate::devices::disk::Disk;
use crate::devices::rtc::Clock;
use crate::fdt::{self, Platform};
use crate::firmware::Firmware;
use crate::interrupt::InterruptLine;
use crate::kernel::{self, Kernel};
use crate::load::{self, Placement};
use crate::marks::{self, Use};
use crate::ram::Ram;
use crate::server::SecondUart;
use crate::{Error, layout};

/// Linux's `COMMAND_LINE_SIZE` on arm64, less the NUL.
const MAX_COMMAND_LINE: usize = 2047;
/// RAM is a multiple of this, bytes.
const MEMORY_UNIT: u64 = 2 << 20;

/// What a guest runs on. Each field means the same on the software machine and on KVM.
pub struct Config {
    /// Bytes of RAM, from [`layout::RAM`] on.
    pub memory: u64,
    /// vCPUs.
    pub cpus: u32,
    /// What is done about memory errors: [`seawall::Rules`], or a policy of one's own.
    pub policy: Box<dyn Policy>,
    /// Decide and report, and do nothing: the first error ends the guest ([`End::DryRun`](crate::End::DryRun)).
    pub dry_run: bool,
    /// Where bad pages are entered. Those that are in it already are healed when the machine is made, or left out of the
    /// guest's memory map.
    pub ledger: Arc<Keeper>,
    /// New memory is put in the place of bad pages, when the machine is made and at each reset. Not where that cannot
    /// be: for instance with devices of the host's that work on the guest's memory (VFIO).
    pub heal: bool,
    /// The guest boots with ACPI instead of a device tree, and finds a record of each memory error
    /// ([`firmware`](crate::firmware)): it takes the page offline. For Linux.
    pub acpi: bool,
    /// The CPUs have EL2, and the guest starts there: it can be a hypervisor. Its memory goes bad from inside, by a register
    /// page; aborts of bad memory are its own, so policy and ledger have nothing to do. On the software machine.
    pub el2: bool,
    /// The host's end of the second UART of a machine with EL2: ttyAMA1 to Linux.
    pub second_uart: SecondUart,
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
    /// Where a flat binary goes and is entered, instead of its usual place.
    pub address: Option<u64>,
    /// Its initramfs, as it is.
    pub initrd: Option<Vec<u8>>,
    /// The kernel's command line.
    pub command_line: String,
}

impl Config {
    /// One vCPU, `memory` bytes of zeroed RAM, no disk; aborts are injected as they happened ([`seawall::Rules`]), bad
    /// pages are remembered without a file, and healed.
    pub fn new(memory: u64) -> Self {
        Self {
            memory,
            cpus: 1,
            policy: Box::new(seawall::Rules::default()),
            dry_run: false,
            ledger: Arc::new(Keeper::in_memory(Ledger::default())),
            heal: true,
            acpi: false,
            el2: false,
            second_uart: SecondUart::default(),
            virtio_console: false,
            disks: Vec::new(),
        }
    }

    /// The size of RAM, if it can be.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn checked_memory(&self) -> Result<u64, Error> {
        match self.memory {
            size if size != 0 && size % MEMORY_UNIT == 0 => Ok(size),
            size => Err(Error::Memory { size, reason: "it is not such a multiple".to_owned() }),
        }
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

    /// The board of this configuration. `line` gives the input of an SPI by its number, `clock` is what the RTC shows.
    /// `parts` hands the backend's own parts to the containment.
    ///
    /// # Errors
    /// What `line` fails with; [`Error::TooManyDevices`].
    pub fn board(
        self,
        mut line: impl FnMut(u32) -> Result<Arc<dyn InterruptLine>, Error>,
        clock: Box<dyn Clock>,
        observer: Box<dyn Observer>,
        parts: impl FnOnce(Containment) -> Containment,
    ) -> Result<Board, Error> {
        let containment = Containment::new(self.policy).with_dry_run(self.dry_run);
        let mut board = Board::new(&mut line, clock, observer, parts(containment), self.ledger)?;
        if self.acpi {
            board.set_acpi();
        }
        if self.el2 {
            board.set_el2();
        }
        if self.virtio_console {
            let line = line(board.next_spi())?;
            board.add_virtio_console(line)?;
        }
        // The last first: Linux names disks by the order of their transports, of which a later device has a lower one.
        for disk in self.disks.into_iter().rev() {
            let line = line(board.next_spi())?;
            board.add_disk(line, disk)?;
        }
        Ok(board)
    }
}

impl Guest {
    /// Reads a guest with `memory` bytes of RAM from files. No file is read that is bigger than that; of an ELF only what
    /// is loaded counts. A directory, a device or a FIFO is refused; `/dev/stdin` and `/dev/fd/N` may be pipes.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::TooBig`], [`Error::Kernel`]; [`Error::NoInitramfs`] if Linux could not take it.
    pub fn read(
        kernel: &Path,
        initrd: Option<&Path>,
        command_line: &str,
        memory: u64,
    ) -> Result<Self, Error> {
        let parsed = kernel::read(kernel, memory).map_err(|error| Error::reading("kernel", kernel, error))?;
        let parsed = Kernel::parse(parsed, memory)
            .map_err(|source| Error::Kernel { path: kernel.to_owned(), source })?;
        let initrd = initrd.map(|path| {
            let bytes = seawall_files::read(path, memory);
            let bytes = bytes.map_err(|error| Error::reading("initramfs", path, error))?;
            match marks::mistaken(&bytes, Use::Initramfs).filter(|_| matches!(parsed, Kernel::Linux(_))) {
                Some(what) => Err(Error::NoInitramfs { path: path.to_owned(), what }),
                None => Ok(bytes),
            }
        });
        let initrd = initrd.transpose()?;
        Ok(Self { kernel: parsed, address: None, initrd, command_line: command_line.to_owned() })
    }

    /// Puts the guest into `memory`, which has `size` bytes of RAM, with the device tree of a machine with this board.
    /// What is in the board's ledger is kept from it. `pmu`: its CPUs have a performance monitor.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Fdt`], [`Error::CommandLine`].
    pub fn load<M: GuestMemory>(
        &self,
        memory: &M,
        size: u64,
        cpus: u32,
        pmu: bool,
        board: &Board,
    ) -> Result<Placement, Error> {
        let mut command_line = self.command_line.clone();
        if board.has_acpi() {
            command_line = format!("{command_line} {}", efi::COMMAND_LINE);
        }
        let line = command_line.len();
        if matches!(self.kernel, Kernel::Linux(_)) && line > MAX_COMMAND_LINE {
            return Err(Error::CommandLine { size: line, limit: MAX_COMMAND_LINE });
        }
        let range = layout::RAM..layout::RAM.saturating_add(size);
        let bad = board.ledger().with(|ledger| ledger.overlapping(range.clone()).collect::<Vec<_>>());
        // The ledger may be of another guest, with smaller pages: a kernel uses no part of a page, and nothing of it may lie
        // in the rest.
        let page = self.kernel.page();
        let whole = |bad: Range<u64>| {
            bad.start / page * page..bad.end.checked_next_multiple_of(page).unwrap_or(bad.end)
        };
        let ram = Ram::without(range, bad.into_iter().map(|bad| whole(bad.range)));
        let el2 = board.has_el2();
        let platform = Platform { memory: &ram, cpus, command_line: &command_line, initrd: None, pmu, el2 };
        if !board.has_acpi() {
            return load::load(memory, &ram, self, |initrd| {
                Ok(fdt::flatten(&Platform { initrd, ..platform.clone() })?)
            });
        }
        let firmware = Firmware::new(&platform)?;
        let below = ram.up_to(firmware.range.start);
        let placement = load::load(memory, &below, self, |initrd| -> Result<_, Error> {
            Ok(fdt::flatten_stub(&Platform { initrd, ..platform.clone() }, &firmware.handover)?)
        })?;
        for (address, bytes) in firmware.parts() {
            load::write(memory, address, bytes)?;
        }
        board.set_records(memory, firmware.records).map_err(Error::Record)?;
        Ok(placement)
    }
}
