//! gzip, and EFI zboot images.

use std::io::Read;

use flate2::read::GzDecoder;

use super::KernelError;

/// No kernel is bigger, bytes: a file that unpacks to more is a mistake or an attack.
const LIMIT: u64 = 1 << 30;
/// Known by their first bytes, and not unpacked here.
const OTHERS: [(&[u8], &str); 5] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x89LZO", "lzo"),
    (b"\x5d\0\0", "lzma"),
];

/// The kernel in a file.
pub(super) fn unpack(file: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    if file.starts_with(b"\x1f\x8b") {
        return gzip(&file);
    }
    if file.starts_with(b"\x28\xb5\x2f\xfd") {
        return zstd(&file);
    }
    if file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg") {
        return zboot(&file);
    }
    match OTHERS.iter().find(|(mark, _)| file.starts_with(mark)) {
        Some((_, name)) => Err(KernelError::Compression((*name).to_owned())),
        None => Ok(file),
    }
}

/// Source: Linux, `drivers/firmware/efi/libstub/zboot-header.S`: payload offset at 8, payload size at 12,
/// name of the compression at 24.
fn zboot(file: &[u8]) -> Result<Vec<u8>, KernelError> {
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
        b"gzip" => gzip(payload),
        // The kernel's build calls it by the tool's options.
        b"zstd" | b"zstd22" => zstd(payload),
        other => Err(KernelError::Compression(String::from_utf8_lossy(other).into_owned())),
    }
}

fn gzip(packed: &[u8]) -> Result<Vec<u8>, KernelError> {
    all(GzDecoder::new(packed), "gzip")
}

fn zstd(packed: &[u8]) -> Result<Vec<u8>, KernelError> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(packed)
        .map_err(|error| KernelError::Damaged { by: "zstd", source: std::io::Error::other(error) })?;
    all(decoder, "zstd")
}

fn all(unpacked: impl Read, by: &'static str) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    let read = unpacked.take(LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|source| KernelError::Damaged { by, source })?;
    if bytes.len() as u64 > LIMIT {
        return Err(KernelError::TooBig { limit: LIMIT });
    }
    Ok(bytes)
}
