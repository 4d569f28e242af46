//! gzip, and EFI zboot images.

use std::io::Read;

use flate2::read::GzDecoder;
use seawall_files::ReadError;

use super::KernelError;
use crate::marks;

/// The kernel in a file, of at most `limit` bytes.
pub(super) fn unpack(file: Vec<u8>, limit: u64) -> Result<Vec<u8>, KernelError> {
    if file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg") {
        return zboot(&file, limit);
    }
    match marks::packing(&file) {
        Some("gzip") => gzip(&file, limit),
        Some("zstd") => zstd(&file, limit),
        Some(other) => Err(KernelError::Compression(other.to_owned())),
        None => Ok(file),
    }
}

/// Source: Linux, `drivers/firmware/efi/libstub/zboot-header.S`: payload offset at 8, payload size at 12,
/// name of the compression at 24.
fn zboot(file: &[u8], limit: u64) -> Result<Vec<u8>, KernelError> {
    let word = |at: usize| file.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let size = file.len() as u64;
    let (Some(start), Some(length), Some(name)) = (word(8), word(12), file.get(24..56)) else {
        return Err(KernelError::Truncated { got: size, expected: 56 });
    };
    let (start, end) = (u64::from(start), u64::from(start) + u64::from(length));
    let payload = file.get(start as usize..end as usize);
    let payload = payload.ok_or(KernelError::ZbootPayload { size, start, end })?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    match name {
        b"gzip" => gzip(payload, limit),
        // The kernel's build calls it by the tool's options.
        b"zstd" | b"zstd22" => zstd(payload, limit),
        other => Err(KernelError::Compression(String::from_utf8_lossy(other).into_owned())),
    }
}

fn gzip(packed: &[u8], limit: u64) -> Result<Vec<u8>, KernelError> {
    all(GzDecoder::new(packed), "gzip", limit)
}

/// The decoder keeps a window, of at most 100 MiB, beside what it unpacks to.
fn zstd(packed: &[u8], limit: u64) -> Result<Vec<u8>, KernelError> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(packed)
        .map_err(|error| KernelError::Damaged { by: "zstd", source: std::io::Error::other(error) })?;
    all(decoder, "zstd", limit)
}

fn all(unpacked: impl Read, by: &'static str, limit: u64) -> Result<Vec<u8>, KernelError> {
    seawall_files::read_within(unpacked, limit).map_err(|error| match error {
        ReadError::Io(source) => KernelError::Damaged { by, source },
        _ => KernelError::TooBig { limit },
    })
}
