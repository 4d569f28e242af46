//! The EINJ table: how Linux's `einj` driver has the server turn a line of its memory bad.
//!
//! Source: ACPI 6.5, 18.6.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::layout;

/// Registers below [`layout::EINJ`], 64 bits each unless they are said to be others.
///
/// Read: the error types that can be injected.
pub(crate) const CAPABILITIES: u64 = 0x00;
/// Write: the error is injected.
pub(crate) const EXECUTE: u64 = 0x08;
/// Read: 1 while it is.
pub(crate) const BUSY: u64 = 0x10;
/// Read: what became of it.
pub(crate) const STATUS: u64 = 0x18;
/// Read: the physical address of the table of trigger actions.
pub(crate) const TRIGGER: u64 = 0x20;
/// Write: the error type, without an address.
pub(crate) const ERROR_TYPE: u64 = 0x28;
/// Write: an operation begins or ends.
pub(crate) const OPERATION: u64 = 0x30;
/// The table of trigger actions, 16 bytes: there are none.
pub(crate) const TRIGGER_TABLE: u64 = 0x40;
/// 18.6.4, SET_ERROR_TYPE_WITH_ADDRESS's data structure, 64 bytes.
pub(crate) const PARAMETERS: u64 = 0x80;

/// 18.6.5: the trigger table's header, its size and no entry behind it.
pub(crate) const NO_TRIGGER: [u32; 4] = [16, 0, 16, 0];

/// 18.6.1, injection actions; 18.6.2, instructions.
const BEGIN: u8 = 0;
const GET_TRIGGER_TABLE: u8 = 1;
const SET_ERROR_TYPE: u8 = 2;
const GET_ERROR_TYPE: u8 = 3;
const END: u8 = 4;
const EXECUTE_OPERATION: u8 = 5;
const CHECK_BUSY_STATUS: u8 = 6;
const GET_COMMAND_STATUS: u8 = 7;
const SET_ERROR_TYPE_WITH_ADDRESS: u8 = 8;

const READ_REGISTER: u8 = 0;
const READ_REGISTER_VALUE: u8 = 1;
const WRITE_REGISTER: u8 = 2;
const WRITE_REGISTER_VALUE: u8 = 3;

/// 18.6.2: what follows the table's header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Injection {
    header_size: U32,
    flags: [u8; 4],
    entries: U32,
}

/// 18.6.2: an instruction of an action.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    action: u8,
    instruction: u8,
    flags: u8,
    reserved: u8,
    /// Generic address structure: system memory, 64 bits from bit 0, accessed as a quadword.
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access_size: u8,
    address: U64,
    value: U64,
    mask: U64,
}

const _: () = assert!(size_of::<Injection>() == 12 && size_of::<Entry>() == 32);

/// Action, instruction, register and value.
const ENTRIES: [(u8, u8, u64, u64); 9] = [
    (BEGIN, WRITE_REGISTER_VALUE, OPERATION, 1),
    (GET_TRIGGER_TABLE, READ_REGISTER, TRIGGER, 0),
    (SET_ERROR_TYPE, WRITE_REGISTER, ERROR_TYPE, 0),
    (GET_ERROR_TYPE, READ_REGISTER, CAPABILITIES, 0),
    (END, WRITE_REGISTER_VALUE, OPERATION, 0),
    (EXECUTE_OPERATION, WRITE_REGISTER_VALUE, EXECUTE, 1),
    (CHECK_BUSY_STATUS, READ_REGISTER_VALUE, BUSY, 1),
    (GET_COMMAND_STATUS, READ_REGISTER, STATUS, 0),
    (SET_ERROR_TYPE_WITH_ADDRESS, WRITE_REGISTER, PARAMETERS, 0),
];

/// The body of an ACPI table behind its header, which has `header` bytes.
pub(super) fn body(header: usize) -> Vec<u8> {
    let entry = |(action, instruction, register, value): (u8, u8, u64, u64)| Entry {
        action,
        instruction,
        flags: 0,
        reserved: 0,
        space: 0,
        bit_width: 64,
        bit_offset: 0,
        access_size: 4,
        address: (layout::EINJ.start + register).into(),
        value: value.into(),
        mask: u64::MAX.into(),
    };
    let injection = Injection {
        header_size: ((header + size_of::<Injection>()) as u32).into(),
        flags: [0; 4],
        entries: (ENTRIES.len() as u32).into(),
    };
    let mut bytes = injection.as_bytes().to_vec();
    for of in ENTRIES {
        bytes.extend_from_slice(entry(of).as_bytes());
    }
    bytes
}
