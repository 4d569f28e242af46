//! The board: a [`Vm`] with what QEMU's `virt` has around it, so far a PL011, and a device tree
//! that says so, and of CPUs, GICv3, timers and PSCI.
//!
//! [`Board::load`] leaves the machine where `qemu-system-aarch64 -M virt -kernel IMAGE` leaves its
//! own: EL1h, MMU off, PC at the entry, X0 = address of the device tree. Found out on QEMU 7.2:
//!
//! | image | lies at | device tree at | X0 on QEMU |
//! |---|---|---|---|
//! | flat | 0x4008_0000 | RAM base + min(RAM / 2, 128 MiB), or the image's end if that is higher, up to a 2 MiB boundary | device tree |
//! | Linux `Image` | 0x4020_0000 (text offset 0) | the same; with an initrd it lies there, and the tree behind it | device tree |
//! | ELF | its physical addresses | RAM base, if it fits below the image; else there is none | 0 |
//!
//! An image for `-device loader` on QEMU must stay clear of the first MiB of RAM: QEMU's own device
//! tree is there, and takes all of it.
//!
//! This machine differs in two things: X0 points to the tree for an ELF too, and where QEMU has no
//! room for a tree it lies at the top of RAM.

use std::ops::Range;

use seawall_events::{Exit, MmioExit, Reg, Vcpu as _};

use crate::fdt::{self, FdtError, Platform};
use crate::loader::{self, ImageKind, LoadError, Loaded};
use crate::memory::{Memory, MemoryError, PAGE_SIZE};
use crate::uart::{self, Pl011};
use crate::vcpu::Vcpu;
use crate::vm::{Config, Error, Vm};

/// Half of RAM, but at most so many bytes of it, is left free for a kernel before its initrd and
/// device tree.
const KERNEL_ROOM: u64 = 128 << 20;
/// The device tree begins at a multiple of this where it lies behind the image: it may be mapped by
/// one block.
const FDT_ALIGN: u64 = 2 << 20;

/// What a guest is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guest<'a> {
    /// A flat binary, an arm64 Linux `Image`, or an AArch64 ELF.
    pub image: &'a [u8],
    /// Physical address of a flat image, instead of its usual place.
    pub address: Option<u64>,
    /// The kernel command line.
    pub bootargs: Option<&'a str>,
    /// An initial RAM disk.
    pub initrd: Option<&'a [u8]>,
}

/// Where a guest lies, all in physical addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The image.
    pub image: Loaded,
    /// The initial RAM disk.
    pub initrd: Option<Range<u64>>,
    /// The device tree, whose address is in X0.
    pub fdt: Range<u64>,
}

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The image cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The initial RAM disk does not fit behind the image.
    #[error("the initrd does not fit: {0}")]
    Initrd(#[source] MemoryError),
    /// The device tree cannot be written.
    #[error(transparent)]
    Fdt(#[from] FdtError),
    /// There is no room for the device tree.
    #[error(
        "expected {size:#x} bytes of RAM {ram_start:#x}..{ram_end:#x} free for the device tree, but the image takes {start:#x}..{end:#x}"
    )]
    NoRoomForFdt {
        /// Bytes of the tree.
        size: u64,
        /// Base of RAM.
        ram_start: u64,
        /// End of RAM.
        ram_end: u64,
        /// First address of the image.
        start: u64,
        /// Address after the image and its initrd.
        end: u64,
    },
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] Error),
}

/// A virtual machine with its devices.
#[derive(Debug)]
pub struct Board {
    vm: Vm,
    uart: Pl011,
    /// The CPU that the last run ended on.
    current: usize,
}

impl Board {
    /// A board with zeroed RAM and nothing loaded.
    ///
    /// # Errors
    /// [`Error::Memory`] if RAM of this size cannot be made.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { vm: Vm::new(config)?, uart: Pl011::new(), current: 0 })
    }

    /// Loads an image as it is, and starts the first CPU at its entry: [`Board::start`] without command
    /// line and initrd.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn load(&mut self, image: &[u8], address: Option<u64>) -> Result<Placement, BoardError> {
        self.start(&Guest { image, address, ..Guest::default() })
    }

    /// Loads a guest with its device tree, resets CPUs and devices, and sets PC and X0 of the first
    /// CPU; the others are off. RAM that nothing is loaded to stays as it is.
    ///
    /// # Errors
    /// [`BoardError`]. The CPUs are as they were then, RAM may hold a part of the guest.
    pub fn start(&mut self, guest: &Guest<'_>) -> Result<Placement, BoardError> {
        let cpus = self.vm.cpu_count() as u32;
        let memory = self.vm.memory_mut();
        let image = loader::load(memory, guest.image, guest.address)?;
        let initrd = guest.initrd.map(|bytes| load_initrd(memory, &image, bytes)).transpose()?;
        let tree = fdt::flatten(&Platform {
            memory: memory.range(),
            cpus,
            bootargs: guest.bootargs.map(str::to_owned),
            initrd: initrd.clone(),
        })?;
        let end = initrd.as_ref().map_or(image.range.end, |initrd| initrd.end.max(image.range.end));
        let place =
            fdt_place(memory.range(), &image, initrd.as_ref(), tree.len() as u64).ok_or_else(|| {
                let Range { start: ram_start, end: ram_end } = memory.range();
                BoardError::NoRoomForFdt {
                    size: tree.len() as u64,
                    ram_start,
                    ram_end,
                    start: image.range.start,
                    end,
                }
            })?;
        memory.store(place.start, &tree).map_err(Error::Memory)?;

        self.uart = Pl011::new();
        self.current = 0;
        self.vm.reset();
        let mut cpu = self.vm.vcpu(0)?;
        cpu.set_reg(Reg::Pc, image.entry)?;
        cpu.set_reg(Reg::X(0), place.start)?;
        Ok(Placement { image, initrd, fdt: place })
    }

    /// Runs the guest on all its CPUs until one of them needs its host, which [`Board::vcpu`] then is:
    /// the UART is served on the way, every other exit comes back, [`Exit::Mmio`] of addresses where
    /// the board has nothing included. A guest may write to its console for ever: who has no other
    /// end gives a budget.
    ///
    /// # Errors
    /// As the machine's `run`.
    pub fn run(&mut self) -> Result<Exit, Error> {
        loop {
            let (cpu, exit) = self.vm.run()?;
            self.current = cpu;
            match exit {
                Exit::Mmio(mmio) if is_uart(&mmio) => self.serve_uart(&mmio)?,
                other => return Ok(other),
            }
        }
    }

    /// The CPU that the last run ended on; before any, the first.
    ///
    /// # Errors
    /// None: the board has that CPU.
    pub fn vcpu(&mut self) -> Result<Vcpu<'_>, Error> {
        self.vm.vcpu(self.current)
    }

    /// The machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// The machine, for instance to poison its memory.
    pub fn vm_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// The UART.
    pub fn uart(&self) -> &Pl011 {
        &self.uart
    }

    /// Takes what the guest wrote to its console since the last call.
    pub fn take_console(&mut self) -> Vec<u8> {
        self.uart.take_sent()
    }

    /// Types `bytes` on the console: the guest receives them.
    ///
    /// # Errors
    /// None: the UART's interrupt line is there.
    pub fn type_in(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.uart.receive(bytes);
        self.vm.set_irq_line(uart::INTID, self.uart.interrupt())
    }

    /// How many steps all CPUs together may do from now on, over all runs: see [`Vm::set_budget`].
    pub fn set_budget(&mut self, budget: Option<u64>) {
        self.vm.set_budget(budget);
    }

    /// Steps that all CPUs did: see [`Vm::instructions`].
    pub fn instructions(&self) -> u64 {
        self.vm.instructions()
    }

    /// Does one access to the UART, in words of 32 bits as its bus has them.
    fn serve_uart(&mut self, mmio: &MmioExit) -> Result<(), Error> {
        let offset = mmio.phys_addr - uart::BASE;
        let words = [offset, offset.wrapping_add(4)].into_iter().take(mmio.len.div_ceil(4) as usize);
        let mut data = mmio.data;
        for (word, bytes) in words.zip(data.chunks_exact_mut(4)) {
            if mmio.is_write {
                let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
                self.uart.write(word, value);
            } else {
                bytes.copy_from_slice(&self.uart.read(word).to_le_bytes());
            }
        }
        if !mmio.is_write {
            self.vcpu()?.answer_mmio(data);
        }
        self.vm.set_irq_line(uart::INTID, self.uart.interrupt())
    }
}

fn is_uart(mmio: &MmioExit) -> bool {
    mmio.phys_addr.checked_sub(uart::BASE).is_some_and(|offset| offset < uart::SIZE)
}

/// Where QEMU's `virt` puts an initrd, and without one begins to look for the device tree's place.
fn behind_kernel(ram: &Range<u64>, image: &Loaded) -> u64 {
    (ram.start + ((ram.end - ram.start) / 2).min(KERNEL_ROOM))
        .max(image.range.end)
        .next_multiple_of(PAGE_SIZE)
}

fn load_initrd(memory: &mut Memory, image: &Loaded, bytes: &[u8]) -> Result<Range<u64>, BoardError> {
    let start = behind_kernel(&memory.range(), image);
    memory.store(start, bytes).map_err(BoardError::Initrd)?;
    Ok(start..start + bytes.len() as u64)
}

/// The first place that is free: below an ELF, behind image and initrd, or at the top of RAM.
fn fdt_place(ram: Range<u64>, image: &Loaded, initrd: Option<&Range<u64>>, size: u64) -> Option<Range<u64>> {
    let below = (image.kind == ImageKind::Elf).then_some(ram.start);
    let behind =
        initrd.map_or_else(|| behind_kernel(&ram, image), |initrd| initrd.end).next_multiple_of(FDT_ALIGN);
    let top = ram.end.checked_sub(size).map(|start| start & !(PAGE_SIZE - 1));
    let taken = [Some(&image.range), initrd];
    let is_free = |place: &Range<u64>| {
        let overlaps = |other: &&Range<u64>| place.start < other.end && other.start < place.end;
        ram.start <= place.start && place.end <= ram.end && !taken.iter().flatten().any(overlaps)
    };
    [below, Some(behind), top]
        .into_iter()
        .flatten()
        .map(|start| start..start.saturating_add(size))
        .find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kind: ImageKind, range: Range<u64>) -> Loaded {
        Loaded { kind, entry: range.start, range }
    }

    /// Where a tree of 0x600 bytes goes on a board with `mib` MiB of RAM.
    fn place(mib: u64, image: &Loaded, initrd: Option<&Range<u64>>) -> Option<u64> {
        let ram = 0x4000_0000..0x4000_0000 + (mib << 20);
        fdt_place(ram, image, initrd, 0x600).map(|place| place.start)
    }

    /// Measured on qemu-system-aarch64 7.2, X0 at the entry of a flat image.
    #[test]
    fn the_tree_lies_where_qemu_puts_it_for_a_flat_image() {
        let small = image(ImageKind::Flat, 0x4008_0000..0x4008_00d8);
        for (mib, expected) in [
            (8, 0x4040_0000),
            (16, 0x4080_0000),
            (30, 0x4100_0000),
            (32, 0x4100_0000),
            (128, 0x4400_0000),
            (512, 0x4800_0000),
            (1024, 0x4800_0000),
        ] {
            assert_eq!(place(mib, &small, None), Some(expected), "{mib} MiB");
        }
        let big = image(ImageKind::Flat, 0x4008_0000..0x4148_0000);
        assert_eq!(place(32, &big, None), Some(0x4160_0000));
        assert_eq!(place(64, &big, None), Some(0x4200_0000));
    }

    #[test]
    fn the_tree_lies_at_the_base_of_ram_below_an_elf() {
        assert_eq!(place(128, &image(ImageKind::Elf, 0x4040_0000..0x4040_1000), None), Some(0x4000_0000));
        assert_eq!(place(128, &image(ImageKind::Elf, 0x4000_0600..0x4040_1000), None), Some(0x4000_0000));
        assert_eq!(place(128, &image(ImageKind::Elf, 0x4000_05ff..0x4040_1000), None), Some(0x4400_0000));
    }

    #[test]
    fn the_tree_lies_behind_the_initrd() {
        let kernel = image(ImageKind::Linux, 0x4020_0000..0x4200_0000);
        assert_eq!(place(128, &kernel, Some(&(0x4400_0000..0x4420_0001))), Some(0x4440_0000));
    }

    #[test]
    fn the_tree_lies_at_the_top_of_a_small_ram_and_never_over_the_guest() {
        assert_eq!(place(1, &image(ImageKind::Flat, 0x4008_0000..0x4008_1000), None), Some(0x400f_f000));
        assert_eq!(place(1, &image(ImageKind::Flat, 0x4008_0000..0x400f_f001), None), None);
        assert_eq!(place(1, &image(ImageKind::Flat, 0x4000_0000..0x4010_0000), None), None);
    }
}
