//! The devices. They know nothing of a backend: they are on a bus, drive [`InterruptLine`]s, and reach guest
//! memory by `vm-memory`.
//!
//! [`InterruptLine`]: crate::interrupt::InterruptLine

pub mod disk;
pub mod pl011;
pub mod rtc;
pub mod virtio;

/// Reads registers of 32 bits: an access of 64 bits is one to two of them, a narrower one to the low bytes of one.
fn read_words(offset: u64, data: &mut [u8], mut read: impl FnMut(u64) -> u32) {
    for (register, bytes) in (offset & !3..).step_by(4).zip(data.chunks_mut(4)) {
        bytes.iter_mut().zip(read(register).to_le_bytes()).for_each(|(to, from)| *to = from);
    }
}

/// Writes registers of 32 bits, as [`read_words`] reads them.
fn write_words(offset: u64, data: &[u8], mut write: impl FnMut(u64, u32)) {
    for (register, bytes) in (offset & !3..).step_by(4).zip(data.chunks(4)) {
        let mut value = [0; 4];
        value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        write(register, u32::from_le_bytes(value));
    }
}
