//! Reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use crate::kind;

/// The initial capacity in bytes.
const FIRST: usize = 0x1_0000;

/// The reason why a file is not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The host's error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a regular file.
    #[error("expected a file, got {0}{advice}", advice = advice(.0))]
    Kind(&'static str),
    /// It has more bytes than the limit.
    #[error("expected at most {limit} bytes, got {}", size(*.got, *.limit))]
    TooBig {
        /// Its size in bytes, if known.
        got: Option<u64>,
        /// The limit in bytes.
        limit: u64,
    },
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Io(error) => return error,
            ReadError::Kind(_) => io::ErrorKind::InvalidInput,
            ReadError::TooBig { .. } => io::ErrorKind::FileTooLarge,
        };
        Self::new(kind, error)
    }
}

fn advice(kind: &str) -> &'static str {
    if kind == "a FIFO" { "; a pipe is read as /dev/stdin or /dev/fd/N" } else { "" }
}

fn size(got: Option<u64>, limit: u64) -> String {
    got.map_or_else(|| format!("more than {limit}"), |got| got.to_string())
}

/// Opens a regular file, or the pipe behind `/dev/stdin`, `/dev/fd/N` or `/proc/self/fd/N`.
///
/// # Errors
/// [`ReadError::Io`], [`ReadError::Kind`].
pub fn open(path: &Path) -> Result<File, ReadError> {
    let is_asked_for = ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
        || path == Path::new("/dev/stdin");
    let takes = |kind: fs::FileType| kind.is_file() || is_asked_for && is_pipe(kind);
    let check = |found: fs::FileType| if takes(found) { Ok(()) } else { Err(ReadError::Kind(kind(found))) };
    // Opening a device has effects, and opening a FIFO waits for its other end.
    check(fs::metadata(path)?.file_type())?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    if !is_asked_for {
        use std::os::unix::fs::OpenOptionsExt as _;
        // The path may lead to another file by now: do not wait for that one either.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Opens a regular file, which has a size and allows reads at any offset.
///
/// # Errors
/// [`ReadError::Io`], [`ReadError::Kind`].
pub fn open_regular(path: &Path) -> Result<File, ReadError> {
    let file = open(path)?;
    let found = file.metadata()?.file_type();
    if found.is_file() { Ok(file) } else { Err(ReadError::Kind(kind(found))) }
}

/// All of a file ([`open`]) of at most `limit` bytes. A file that is too big is refused before it is read, if
/// it states its size.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Err(ReadError::TooBig { got: Some(size), limit });
    }
    read_within(file, limit)
}

/// All of a stream of at most `limit` bytes.
///
/// # Errors
/// [`ReadError::TooBig`]; [`ReadError::Io`], also if the host has no memory for it.
pub fn read_within(mut from: impl Read, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    // One more byte is too many.
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    loop {
        let room = bytes.len().max(FIRST).min(most - bytes.len());
        bytes.try_reserve_exact(room).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        let came = from.by_ref().take(room as u64).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(ReadError::TooBig { got: None, limit });
        }
        if came < room {
            return Ok(bytes);
        }
    }
}

#[cfg(unix)]
fn is_pipe(kind: fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    kind.is_fifo()
}

#[cfg(not(unix))]
fn is_pipe(_: fs::FileType) -> bool {
    false
}
