//! The conductor: it gives the guest commands from outside, through RAM that is a file, under either VMM.

use std::error::Error;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use seawall::apei::cper::RECORD_SIZE;
use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall_arm::{Esr, ExceptionClass};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

use super::image::{ERRORS, MAILBOX, PAGE, PAGES, RAM, RAM_SIZE, RESULTS, command, mailbox, result};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The time limit of a guest for one command, and for its start.
const PATIENCE: Duration = Duration::from_secs(120);
/// The time between the host's checks, which leaves the guest the CPU.
const PAUSE: Duration = Duration::from_millis(20);

/// Offset of the physical address in a record: block header, entry header, validation and status of the
/// section. Source: ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.5.
const RECORD_ADDRESS: usize = 20 + 72 + 16;

/// RAM of a guest as a file, mapped: with memory for firmware a VMM's own, else a view from outside.
///
/// # Errors
/// It cannot be mapped.
pub fn memory(file: &File, firmware: Option<usize>) -> Result<GuestMemoryMmap> {
    let ram = (GuestAddress(RAM), RAM_SIZE, Some(FileOffset::new(file.try_clone()?, 0)));
    let firmware = firmware.map(|size| (GuestAddress(super::image::FIRMWARE), size, None));
    let ranges: Vec<_> = firmware.into_iter().chain([ram]).collect();
    Ok(GuestMemoryMmap::from_ranges_with_files(ranges)?)
}

/// One source of errors, where QEMU expects it: with a single source both agree on the place of the block's
/// address and of the read-ack register.
pub const SOURCES: GhesRegion = GhesRegion { base: ERRORS, sea: 1, polled: 0, poll_interval: 0 };

/// What a guest found on its way through some pages.
pub struct Ways {
    /// From before the load to the handler's first instruction.
    pub times: Vec<Duration>,
}

/// The view from outside.
pub struct Conductor<'a> {
    memory: &'a GuestMemoryMmap,
    /// Fails if the VMM has ended.
    is_alive: &'a mut dyn FnMut() -> Result<()>,
}

impl<'a> Conductor<'a> {
    /// `is_alive` fails if the VMM is gone.
    pub fn new(memory: &'a GuestMemoryMmap, is_alive: &'a mut dyn FnMut() -> Result<()>) -> Self {
        Self { memory, is_alive }
    }

    /// Before the VMM starts: data in the pages, and a source that is free.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn prepare(memory: &GuestMemoryMmap, pages: u64) -> Result<()> {
        for page in 0..pages {
            memory.write_obj(page, GuestAddress(PAGES + page * PAGE))?;
        }
        Ghes::new(SOURCES).reset(memory)?;
        Ok(())
    }

    /// Has the guest carry out a command.
    ///
    /// # Errors
    /// It does not, or the VMM is gone.
    pub fn command(&mut self, command: u64, arguments: [u64; 2]) -> Result<()> {
        let word = |offset| GuestAddress(MAILBOX + offset);
        self.memory.write_obj(arguments, word(mailbox::ARGUMENTS))?;
        self.memory.write_obj(0_u64, word(mailbox::DONE))?;
        self.memory.store(command, word(mailbox::COMMAND), Ordering::Release)?;
        let start = Instant::now();
        while self.memory.load::<u64>(word(mailbox::DONE), Ordering::Acquire)? == 0 {
            (self.is_alive)()?;
            if start.elapsed() > PATIENCE {
                return Err(format!("expected the guest to do command {command} in {PATIENCE:?}").into());
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Has the guest power itself off; does not wait for it.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn power_off(&mut self) -> Result<()> {
        Ok(self.memory.store(command::OFF, GuestAddress(MAILBOX + mailbox::COMMAND), Ordering::Release)?)
    }

    /// Has the guest load from pages that are good: then they are in its stage 2.
    ///
    /// # Errors
    /// One of them is not.
    pub fn touch(&mut self, pages: u64) -> Result<()> {
        self.command(command::LOAD, [PAGES, pages])?;
        for page in 0..pages {
            let found = self.result(page)?;
            if found.in_handler != 0 {
                return Err(format!("expected a load from good memory, got {found:x?}").into());
            }
        }
        Ok(())
    }

    /// Has the guest load from pages that are bad, and looks whether each gave an abort with a record.
    ///
    /// # Errors
    /// One did not.
    pub fn consume(&mut self, pages: u64) -> Result<Ways> {
        let ways = self.abort(pages)?;
        self.check_record(PAGES + (pages - 1) * PAGE)?;
        Ok(ways)
    }

    /// Has the guest load from pages that are bad, and looks whether each gave an abort.
    ///
    /// # Errors
    /// One did not.
    pub fn abort(&mut self, pages: u64) -> Result<Ways> {
        self.command(command::LOAD, [PAGES, pages])?;
        let frequency: u64 = self.memory.read_obj(GuestAddress(MAILBOX + mailbox::FREQUENCY))?;
        let mut times = Vec::new();
        for page in 0..pages {
            let found = self.result(page)?;
            let esr = Esr::from_bits(found.esr);
            // FSC: synchronous external abort, not on a walk.
            let is_abort = esr.ec() == ExceptionClass::DATA_ABORT_SAME && esr.iss() & 0x3f == 0x10;
            if !is_abort || found.in_handler <= found.before || frequency == 0 {
                return Err(format!("expected an external abort of page {page}, got {found:x?}").into());
            }
            let ticks = found.in_handler - found.before;
            times.push(Duration::from_nanos(ticks.saturating_mul(1_000_000_000) / frequency));
        }
        Ok(Ways { times })
    }

    /// The last record: the source has one block.
    ///
    /// # Errors
    /// It is not of the page at this address.
    pub fn check_record(&self, expected: u64) -> Result<()> {
        let block: u64 = self.memory.read_obj(GuestAddress(ERRORS))?;
        let mut record = [0; RECORD_SIZE];
        self.memory.read_slice(&mut record, GuestAddress(block))?;
        let address = record.get(RECORD_ADDRESS..).and_then(|bytes| bytes.first_chunk());
        match address.map(|bytes| u64::from_le_bytes(*bytes)) {
            Some(address) if address & !(PAGE - 1) == expected => Ok(()),
            other => Err(format!("expected a record of {expected:#x}, got {other:x?}").into()),
        }
    }

    fn result(&self, page: u64) -> Result<Found> {
        let word = |offset| self.memory.read_obj(GuestAddress(RESULTS + page * result::SIZE + offset));
        Ok(Found {
            before: word(result::BEFORE)?,
            in_handler: word(result::IN_HANDLER)?,
            esr: word(result::ESR)?,
        })
    }
}

/// An entry of the guest's results.
#[derive(Debug)]
struct Found {
    before: u64,
    in_handler: u64,
    esr: u64,
}
