//! Snapshots as files.
//!
//! A file is [`MAGIC`], [`FORMAT_VERSION`] (32 bits), and sections; all numbers are little-endian. A section is
//!
//! | bytes | what |
//! |---|---|
//! | 1 | its kind: 0 end, 1 configuration, 2 state, 3 pages, 4 attachment |
//! | 4 | bytes of its payload |
//! | 4 | bytes that follow the checksum: the payload, packed by LZ4 |
//! | 32 | checksum: BLAKE3 of the section before's checksum (for the first, of magic and version), the nine bytes above, and the bytes that follow |
//!
//! in the order configuration, state, any number of pages, at most one attachment (bytes of whoever has devices around
//! the machine), end; and nothing behind. Configuration and state are
//! `postcard`'s encoding. Pages are the numbers of at most [`PAGES_PER_SECTION`] pages, 32 bits each, in rising order
//! throughout the file, then their bytes. Pages that are not there are zero.
//!
//! Nothing of a section is looked at before its checksum is right. What a file claims to hold is allocated only as far as
//! the bytes that are there can hold it, and as far as [`Limits`] and the machine's configuration allow: the state of so
//! many CPUs, poison of so much RAM, 64 pages a section.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use seawall_arm::ErrorState;
use seawall_events::{Abi, Layout};

use super::state::CpuState;
use super::{Inner, Snapshot, State};
use crate::el2;
use crate::gic;
use crate::memory::{Memory, MemoryError, PAGE_SIZE};
use crate::pages::Contents;
use crate::ram::ImageWriter;
use crate::vm::{Config, NoSyndrome, RAM_BASE, StorePolicy};

/// The first bytes of a snapshot. As with PNG's, a transfer that changes line ends or clears bit 7 shows.
const MAGIC: [u8; 8] = *b"\x89SWSN\r\n\x1a";
/// The version of the format of snapshot files, which changes with the machine's state.
pub const FORMAT_VERSION: u32 = 5;
/// Pages in a section.
const PAGES_PER_SECTION: usize = 64;
/// As many bytes at most does a section's payload have: the poison of 16 TiB fits.
const MAX_PAYLOAD: u32 = 1 << 30;
/// LZ4 packs at most so many bytes into one.
const MAX_RATIO: u64 = 255;
/// As many bytes at most does a configuration have.
const MAX_CONFIG: u64 = 256;
/// The state of a CPU has at most so many bytes, that of the interrupt controller and all else 64 KiB, and that of the
/// poison of a page 20.
const MAX_CPU: u64 = 16 << 10;
const MAX_SHARED: u64 = 64 << 10;
const MAX_POISON: u64 = 20;

/// So many bytes are looked at of a section that is not where it belongs, to say whether it is damaged.
const MISPLACED: (&str, u64) = ("a section that is not where it belongs", 1 << 20);

// Nothing that is packed takes twice the bytes that it has in memory; the rest is the interrupt controller's.
const _: () = assert!(2 * (size_of::<CpuState>() + size_of::<el2::Saved>()) as u64 <= MAX_CPU / 2);

/// How much is taken of a snapshot's file, which anybody may have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the machine's RAM.
    pub memory: u64,
    /// Bytes of what is attached: devices, and what was written to disks.
    pub attachment: u64,
}

impl Default for Limits {
    /// 4 GiB of RAM, 16 MiB attached: what a guest wrote to disks needs more.
    fn default() -> Self {
        Self { memory: 4 << 30, attachment: 16 << 20 }
    }
}

pub(super) const END: u8 = 0;
pub(super) const CONFIG: u8 = 1;
pub(super) const STATE: u8 = 2;
pub(super) const PAGES: u8 = 3;
pub(super) const ATTACHMENT: u8 = 4;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("a snapshot cannot be read or written")]
    Io(#[from] io::Error),
    /// It is some other file.
    #[error("expected a snapshot, which begins with {MAGIC:02x?}, got a file that begins with {0:02x?}")]
    Foreign(Vec<u8>),
    /// It was made by another release.
    #[error("expected a snapshot of format {FORMAT_VERSION}, got one of format {0}")]
    Version(u32),
    /// The file ends too early.
    #[error("expected {expected} more bytes of the snapshot at byte {at}, got {got}: it is cut off")]
    Truncated {
        /// Where in the file, bytes.
        at: u64,
        /// Bytes that were to come.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The file is not as it was written.
    #[error("the snapshot's section at byte {at} is damaged: its checksum is wrong")]
    Damaged {
        /// Where the section begins in the file, bytes.
        at: u64,
    },
    /// There is something behind the end.
    #[error("expected the snapshot to end at byte {at}, got more bytes")]
    Trailing {
        /// Where the snapshot ends in the file, bytes.
        at: u64,
    },
    /// More is in it than is taken.
    #[error(
        "expected at most {limit} bytes of {what} in the snapshot, got {got}; raise the limit if you trust the file"
    )]
    TooBig {
        /// Of what.
        what: &'static str,
        /// Bytes.
        got: u64,
        /// Bytes.
        limit: u64,
    },
    /// Checksums are right, but what is written there cannot be.
    #[error("the snapshot is not one of a machine: expected {expected}, got something else")]
    Inconsistent {
        /// What was to be there.
        expected: &'static str,
    },
    /// The checksums are right, but no machine can be in this state.
    #[error("the snapshot is not one of a machine, by {0}")]
    Impossible(&'static str),
    /// The host has no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

use SnapshotError::{Impossible, Inconsistent};

/// [`Config`] as bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedConfig {
    cpus: u32,
    memory_size: u64,
    /// 0: mainline's; 1: extended, as posted; 2: extended, trailing.
    abi: u8,
    ras: bool,
    sea_to_user: bool,
    /// 0: served; 1: an exit; 2: the run fails.
    no_syndrome: u8,
    /// 0: deferred; 1: aborts; 2: deferred, and the error persists.
    store_policy: u8,
    error_state: u8,
    el2: bool,
}

impl SavedConfig {
    pub(super) fn of(config: &Config) -> Self {
        let &Config { cpus, memory_size, abi, ras, sea_to_user, no_syndrome, store_policy, error_state, el2 } =
            config;
        Self {
            cpus: cpus as u32,
            memory_size,
            abi: match abi {
                Abi::Mainline => 0,
                Abi::Extended(Layout::Posted) => 1,
                Abi::Extended(Layout::Trailing) => 2,
            },
            ras,
            sea_to_user,
            no_syndrome: match no_syndrome {
                NoSyndrome::Serve => 0,
                NoSyndrome::Exit => 1,
                NoSyndrome::Fail => 2,
            },
            store_policy: match store_policy {
                StorePolicy::Defer => 0,
                StorePolicy::Abort => 1,
                StorePolicy::Persist => 2,
            },
            error_state: error_state.bits(),
            el2,
        }
    }

    fn config(&self) -> Result<Config, SnapshotError> {
        let &Self { cpus, memory_size, abi, ras, sea_to_user, no_syndrome, store_policy, error_state, el2 } =
            self;
        if !(1..=gic::MAX_CPUS).contains(&(cpus as usize)) {
            return Err(Impossible("its number of CPUs"));
        }
        if error_state > 3 {
            return Err(Impossible("its SET"));
        }
        Ok(Config {
            cpus: cpus as usize,
            memory_size,
            abi: match abi {
                0 => Abi::Mainline,
                1 => Abi::Extended(Layout::Posted),
                2 => Abi::Extended(Layout::Trailing),
                _ => return Err(Impossible("its ABI")),
            },
            ras,
            sea_to_user,
            no_syndrome: match no_syndrome {
                0 => NoSyndrome::Serve,
                1 => NoSyndrome::Exit,
                2 => NoSyndrome::Fail,
                _ => return Err(Impossible("what it does without a syndrome")),
            },
            store_policy: match store_policy {
                0 => StorePolicy::Defer,
                1 => StorePolicy::Abort,
                2 => StorePolicy::Persist,
                _ => return Err(Impossible("what a store to bad memory does")),
            },
            error_state: ErrorState::from_bits(error_state),
            el2,
        })
    }
}

impl Snapshot {
    /// Writes the snapshot as a file: only pages that are not zero, packed.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn save(&self, to: impl Write) -> Result<(), SnapshotError> {
        self.save_with(to, &[])
    }

    /// [`Snapshot::save`], and with it what somebody else must know to go on with the machine; at most 1 GiB.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn save_with(&self, to: impl Write, attachment: &[u8]) -> Result<(), SnapshotError> {
        let Inner { config, state, contents } = &*self.0;
        let mut to = Writer::new(to)?;
        to.section(CONFIG, &encode(&SavedConfig::of(config))?)?;
        to.section(STATE, &encode(state)?)?;
        let pages = contents.touched();
        for pages in pages.chunks(PAGES_PER_SECTION) {
            let numbers = pages.iter().flat_map(|page| page.to_le_bytes());
            let bytes = pages.iter().flat_map(|page| contents.page(*page).iter().copied());
            to.section(PAGES, &numbers.chain(bytes).collect::<Vec<u8>>())?;
        }
        if !attachment.is_empty() {
            to.section(ATTACHMENT, attachment)?;
        }
        to.section(END, &[])?;
        Ok(to.to.flush()?)
    }

    /// Reads a snapshot from a file, to its end, within the default [`Limits`].
    ///
    /// # Errors
    /// [`SnapshotError`]: nothing but a whole, undamaged snapshot of this format, and of a state that a
    /// machine can be in, is taken.
    pub fn load(from: impl Read) -> Result<Self, SnapshotError> {
        match Self::load_with(from, &Limits::default())? {
            (snapshot, attachment) if attachment.is_empty() => Ok(snapshot),
            _ => Err(Inconsistent { expected: "a machine without devices around it" }),
        }
    }

    /// [`Snapshot::load`], and what [`Snapshot::save_with`] put there.
    ///
    /// # Errors
    /// [`SnapshotError`]. What is attached is not looked at, but that it is undamaged.
    pub fn load_with(from: impl Read, limits: &Limits) -> Result<(Self, Vec<u8>), SnapshotError> {
        let mut from = Reader::new(from)?;
        let (CONFIG, config) =
            from.section(|kind| if kind == CONFIG { ("its configuration", MAX_CONFIG) } else { MISPLACED })?
        else {
            return Err(Inconsistent { expected: "its configuration" });
        };
        let config = decode::<SavedConfig>(&config, "its configuration")?.config()?;
        let size = config.memory_size;
        if size > limits.memory {
            return Err(SnapshotError::TooBig { what: "RAM", got: size, limit: limits.memory });
        }
        let most = MAX_SHARED + config.cpus as u64 * MAX_CPU + size / PAGE_SIZE * MAX_POISON;
        let (STATE, state) =
            from.section(|kind| if kind == STATE { ("its state", most) } else { MISPLACED })?
        else {
            return Err(Inconsistent { expected: "its state" });
        };
        let state: State = decode(&state, "its state")?;
        state.check(&config).map_err(Impossible)?;

        // Nothing of that size is allocated that the host would not give a machine.
        Memory::new(RAM_BASE, size)?;
        let kept = |error: io::Error| MemoryError::Snapshot { size, kind: error.kind() };
        let mut image = ImageWriter::new(size as usize).map_err(kept)?;
        let mut free = 0;
        let mut attachment = Vec::new();
        loop {
            let section = from.section(|kind| match kind {
                ATTACHMENT => ("what is attached", limits.attachment),
                PAGES => ("pages in a section", PAGES_PER_SECTION as u64 * (4 + PAGE_SIZE)),
                _ => MISPLACED,
            })?;
            match section {
                (ATTACHMENT, payload) if attachment.is_empty() => attachment = payload,
                (PAGES, payload) if attachment.is_empty() => {
                    put_pages(&mut image, &payload, &mut free, size / PAGE_SIZE)?;
                }
                (END, payload) if payload.is_empty() => break,
                _ => return Err(Inconsistent { expected: "its pages, or its end" }),
            }
        }
        from.end()?;
        let contents = Contents::of(size as usize, image.finish().map_err(kept)?);
        Ok((Self::new(config, state, Arc::new(contents)), attachment))
    }
}

/// Puts a section's pages into RAM. `free` is the first page that may come.
fn put_pages(
    image: &mut ImageWriter,
    payload: &[u8],
    free: &mut u64,
    ram_pages: u64,
) -> Result<(), SnapshotError> {
    const EXPECTED: SnapshotError = Inconsistent { expected: "whole pages inside RAM, in rising order" };
    const ENTRY: usize = 4 + PAGE_SIZE as usize;
    let count = payload.len() / ENTRY;
    if payload.len() % ENTRY != 0 || !(1..=PAGES_PER_SECTION).contains(&count) {
        return Err(EXPECTED);
    }
    let (numbers, bytes) = payload.split_at(4 * count);
    for (number, bytes) in numbers.chunks_exact(4).zip(bytes.chunks_exact(PAGE_SIZE as usize)) {
        let page = number.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
        if u64::from(page) < *free || u64::from(page) >= ram_pages {
            return Err(EXPECTED);
        }
        *free = u64::from(page) + 1;
        let size = ram_pages * PAGE_SIZE;
        image
            .put(page as usize, bytes)
            .map_err(|error| MemoryError::Snapshot { size, kind: error.kind() })?;
    }
    Ok(())
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, SnapshotError> {
    postcard::to_stdvec(value).map_err(|error| io::Error::other(error).into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8], expected: &'static str) -> Result<T, SnapshotError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Inconsistent { expected }),
    }
}

/// The checksum of what comes before the first section.
fn first_checksum(version: u32) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&MAGIC).update(&version.to_le_bytes());
    hasher.finalize()
}

/// A section's checksum.
fn checksum(before: &blake3::Hash, kind: u8, lens: [u32; 2], packed: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(&[kind]);
    hasher.update(lens.map(u32::to_le_bytes).as_flattened()).update(packed);
    hasher.finalize()
}

pub(super) struct Writer<W> {
    to: W,
    checksum: blake3::Hash,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut to: W) -> Result<Self, SnapshotError> {
        to.write_all(&MAGIC)?;
        to.write_all(&FORMAT_VERSION.to_le_bytes())?;
        Ok(Self { to, checksum: first_checksum(FORMAT_VERSION) })
    }

    pub(super) fn section(&mut self, kind: u8, payload: &[u8]) -> Result<(), SnapshotError> {
        let packed = lz4_flex::block::compress(payload);
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_PAYLOAD);
        let (Some(len), Some(packed_len)) = (len(payload), len(&packed)) else {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        };
        let lens = [len, packed_len];
        self.checksum = checksum(&self.checksum, kind, lens, &packed);
        self.to.write_all(&[kind])?;
        self.to.write_all(lens.map(u32::to_le_bytes).as_flattened())?;
        self.to.write_all(self.checksum.as_bytes())?;
        Ok(self.to.write_all(&packed)?)
    }
}

struct Reader<R> {
    from: R,
    /// Bytes read so far.
    at: u64,
    checksum: blake3::Hash,
}

impl<R: Read> Reader<R> {
    fn new(from: R) -> Result<Self, SnapshotError> {
        let mut reader = Self { from, at: 0, checksum: first_checksum(FORMAT_VERSION) };
        let magic = reader.some(MAGIC.len() as u64)?;
        if !MAGIC.starts_with(&magic) || magic.is_empty() {
            return Err(SnapshotError::Foreign(magic));
        }
        reader.all_of(MAGIC.len() as u64, magic)?;
        let version = u32::from_le_bytes(reader.array()?);
        if version != FORMAT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        Ok(reader)
    }

    /// The next section: its kind and payload. `most` says what a section of a kind holds, and how many bytes at most.
    fn section(
        &mut self,
        most: impl FnOnce(u8) -> (&'static str, u64),
    ) -> Result<(u8, Vec<u8>), SnapshotError> {
        let begin = self.at;
        let [kind] = self.array()?;
        let len = u32::from_le_bytes(self.array()?);
        let packed_len = u32::from_le_bytes(self.array()?);
        let expected: [u8; 32] = self.array()?;
        let damaged = SnapshotError::Damaged { at: begin };
        if len > MAX_PAYLOAD || packed_len > MAX_PAYLOAD {
            return Err(damaged);
        }
        let (what, limit) = most(kind);
        // What cannot be packed takes a little more than it is.
        if u64::from(len) > limit || u64::from(packed_len) > limit + limit / 128 + 64 {
            return Err(SnapshotError::TooBig { what, got: len.max(packed_len).into(), limit });
        }
        let packed = self.some(packed_len.into())?;
        let packed = self.all_of(packed_len.into(), packed)?;
        self.checksum = checksum(&self.checksum, kind, [len, packed_len], &packed);
        if self.checksum != expected {
            return Err(damaged);
        }
        let unpacked = (u64::from(len) <= MAX_RATIO * u64::from(packed_len))
            .then(|| lz4_flex::block::decompress(&packed, len as usize).ok())
            .flatten()
            .filter(|payload| payload.len() == len as usize);
        unpacked.map(|payload| (kind, payload)).ok_or(Inconsistent { expected: "a section packed by LZ4" })
    }

    /// There must be nothing more.
    fn end(&mut self) -> Result<(), SnapshotError> {
        let at = self.at;
        if self.some(1)?.is_empty() { Ok(()) } else { Err(SnapshotError::Trailing { at }) }
    }

    /// At most `len` bytes, allocated as they come.
    fn some(&mut self, len: u64) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::new();
        self.at += (&mut self.from).take(len).read_to_end(&mut bytes)? as u64;
        Ok(bytes)
    }

    /// They must be `len`.
    fn all_of(&self, len: u64, bytes: Vec<u8>) -> Result<Vec<u8>, SnapshotError> {
        let got = bytes.len() as u64;
        if got == len {
            Ok(bytes)
        } else {
            Err(SnapshotError::Truncated { at: self.at - got, expected: len, got })
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let bytes = self.some(N as u64)?;
        let bytes = self.all_of(N as u64, bytes)?;
        bytes.first_chunk().copied().ok_or(Inconsistent { expected: "a number" })
    }
}
