//! The memory layout, the same in the `qemu-aarch64` process and in the machine's EL0.

/// Code: driver and sequences, read-only and executable. Up to `DATA`.
pub(super) const CODE: u64 = 0x4100_0000;
/// Data: readable and writable, up to `END`.
pub(super) const DATA: u64 = 0x4108_0000;
/// Two words: address of the record of the running sequence, address of the next sequence's prologue.
pub(super) const RUNNING: u64 = DATA;
/// The structures for sigaltstack and `rt_sigaction`.
pub(super) const SIGNAL_ARGUMENTS: u64 = DATA + 0x100;
/// The signal stack. Base registers, and so SP, never come that far from `MIDDLE`: a fault with SP in it
/// would not switch to it.
pub(super) const SIGNAL_STACK: u64 = MIDDLE + 0x1_0000;
/// Bytes of the signal stack.
pub(super) const SIGNAL_STACK_SIZE: u64 = 0x4000;
/// A page boundary in the middle of the buffer.
pub(super) const MIDDLE: u64 = DATA + 0x8000;
/// The buffer that sequences access, and that is compared.
pub(super) const BUFFER: u64 = MIDDLE - BUFFER_SIZE / 2;
/// Bytes of the buffer.
pub(super) const BUFFER_SIZE: u64 = 512;
/// One record per sequence: initial state in, final state out. 32 KiB and more above `MIDDLE`, out of reach of any immediate offset.
pub(super) const RECORDS: u64 = DATA + 0x2_0000;
/// The end of data. Nothing is mapped from here to `UNMAPPED` and one page beyond.
pub(super) const END: u64 = 0x4120_0000;
/// An address at which nothing is mapped.
pub(super) const UNMAPPED: u64 = 0x4200_0000;

/// Offsets in a record, in bytes.
pub(super) mod record {
    /// SP.
    pub(in super::super) const SP: u64 = 31 * 8;
    /// NZCV.
    pub(in super::super) const NZCV: u64 = 32 * 8;
    /// Fault: signal number in a process, `ESR_EL1` in the machine; 0 if none.
    pub(in super::super) const FAULT: u64 = 33 * 8;
    /// Fault: PC.
    pub(in super::super) const FAULT_PC: u64 = 34 * 8;
    /// Fault: address.
    pub(in super::super) const FAULT_ADDRESS: u64 = 35 * 8;
    /// Initial TPIDR_EL0.
    pub(in super::super) const TPIDR: u64 = 36 * 8;
    /// FPCR.
    pub(in super::super) const FPCR: u64 = 37 * 8;
    /// FPSR.
    pub(in super::super) const FPSR: u64 = 38 * 8;
    /// V0 to V31.
    pub(in super::super) const V: u64 = 40 * 8;
    /// The buffer.
    pub(in super::super) const BUFFER: u64 = V + 32 * 16;
    /// Bytes of a record.
    pub(in super::super) const SIZE: u64 = BUFFER + super::BUFFER_SIZE;
}

/// The greatest number of sequences that fit in one image.
pub(super) const CAPACITY: usize = ((END - RECORDS) / record::SIZE) as usize;
