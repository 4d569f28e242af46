//! A kernel's file: no more of it than the guest has memory, and of an ELF what is loaded.

use std::io::{self, Read};
use std::path::Path;

use seawall_files::{ReadError, open, read_within};

/// Bytes of an ELF64 header, and of one of its program headers.
const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;

/// The bytes of a file that has at most `limit`. An ELF may have more, as debug information: it is read to the end of its
/// last segment.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut file = open(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    read_to(&mut file, &mut bytes, ELF_HEADER)?;
    let Some(table) = program_headers(&bytes) else {
        if size > limit {
            return Err(ReadError::TooBig { got: Some(size), limit });
        }
        let rest = read_within(file, limit.saturating_sub(bytes.len() as u64));
        let rest = rest.map_err(|error| match error {
            ReadError::TooBig { .. } => ReadError::TooBig { got: None, limit },
            other => other,
        })?;
        bytes.extend_from_slice(&rest);
        return Ok(bytes);
    };
    let within =
        |end: u64| if end > limit { Err(ReadError::TooBig { got: Some(end), limit }) } else { Ok(end) };
    read_to(&mut file, &mut bytes, within(table.end)?)?;
    let segments = bytes.get(table.start as usize..).unwrap_or_default().chunks_exact(PROGRAM_HEADER);
    let end = segments.filter_map(segment_end).max().unwrap_or(0);
    read_to(&mut file, &mut bytes, within(end)?)?;
    Ok(bytes)
}

/// Reads on until there are so many bytes, or the file ends.
fn read_to(file: impl Read, bytes: &mut Vec<u8>, end: u64) -> io::Result<()> {
    let more = end.saturating_sub(bytes.len() as u64);
    bytes
        .try_reserve_exact(more as usize)
        .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
    file.take(more).read_to_end(bytes).map(drop)
}

/// Where the program headers of a little-endian ELF64 are, unless they are counted elsewhere.
fn program_headers(head: &[u8]) -> Option<std::ops::Range<u64>> {
    let half = |at: usize| head.get(at..)?.first_chunk().copied().map(u16::from_le_bytes);
    if !head.starts_with(b"\x7fELF\x02\x01") || usize::from(half(54)?) != PROGRAM_HEADER {
        return None;
    }
    let start = head.get(32..)?.first_chunk().copied().map(u64::from_le_bytes)?;
    let count = half(56).filter(|count| *count != u16::MAX)?;
    Some(start..start.checked_add(u64::from(count) * PROGRAM_HEADER as u64)?)
}

/// Where in the file a segment ends that is loaded.
fn segment_end(header: &[u8]) -> Option<u64> {
    let word = |at: usize| header.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let is_loaded = header.first_chunk().copied().map(u32::from_le_bytes) == Some(PT_LOAD);
    is_loaded.then(|| Some(word(8)?.saturating_add(word(32)?)))?
}
