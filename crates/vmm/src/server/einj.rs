//! The registers behind the EINJ table ([`crate::firmware::einj`]): an injection turns a line bad, as the poison register does.

use serde::{Deserialize, Serialize};

use seawall_machine::Vm;

use super::poison::{PoisonRegister, Status};
use crate::firmware::einj::{CAPABILITIES, EXECUTE, NO_TRIGGER, PARAMETERS, STATUS, TRIGGER, TRIGGER_TABLE};
use crate::layout;

/// ACPI 6.5, 18.6.4, error types: uncorrectable memory errors, not fatal and fatal.
const MEMORY_UNCORRECTABLE: u32 = 1 << 4 | 1 << 5;
/// Flags of SET_ERROR_TYPE_WITH_ADDRESS: address and mask are valid.
const ADDRESS_IS_VALID: u32 = 1 << 1;
/// 18.6.1, command status.
const SUCCESS: u64 = 0;
const UNKNOWN_FAILURE: u64 = 1;
const INVALID_ACCESS: u64 = 2;
/// Bytes of the parameters that are kept.
const PARAMETERS_END: u64 = PARAMETERS + 64;

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Einj {
    status: u64,
    /// Type and vendor extension, flags and APIC ID, address, mask, and what follows.
    parameters: [u64; 8],
}

impl Einj {
    /// A load of up to eight bytes from this offset.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            *byte = (self.word(at & !7) >> (at % 8 * 8)) as u8;
        }
    }

    fn word(&self, offset: u64) -> u64 {
        let [header_size, revision, size, entries] = NO_TRIGGER.map(u64::from);
        match offset {
            CAPABILITIES => MEMORY_UNCORRECTABLE.into(),
            STATUS => self.status,
            TRIGGER => layout::EINJ.start + TRIGGER_TABLE,
            TRIGGER_TABLE => header_size | revision << 32,
            _ if offset == TRIGGER_TABLE + 8 => size | entries << 32,
            PARAMETERS..PARAMETERS_END => {
                self.parameters.get(((offset - PARAMETERS) / 8) as usize).copied().unwrap_or_default()
            }
            // It is busy never.
            _ => 0,
        }
    }

    /// A store of up to eight bytes to this offset.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], poison: &mut PoisonRegister, vm: &mut Vm) {
        if offset == EXECUTE {
            self.status = self.inject(poison, vm);
            return;
        }
        for (at, byte) in (offset..).zip(bytes).filter(|(at, _)| (PARAMETERS..PARAMETERS_END).contains(at)) {
            if let Some(word) = self.parameters.get_mut(((at - PARAMETERS) / 8) as usize) {
                let shift = at % 8 * 8;
                *word = *word & !(0xff << shift) | u64::from(*byte) << shift;
            }
        }
    }

    fn inject(&self, poison: &mut PoisonRegister, vm: &mut Vm) -> u64 {
        let [kind, flags, address, mask, ..] = self.parameters;
        let is_known = kind as u32 & MEMORY_UNCORRECTABLE == kind as u32 && kind as u32 != 0;
        if !is_known || flags as u32 & ADDRESS_IS_VALID == 0 {
            return INVALID_ACCESS;
        }
        match poison.poison_line(address & mask, vm) {
            Status::Done | Status::BadAlready => SUCCESS,
            Status::NotRam => INVALID_ACCESS,
            _ => UNKNOWN_FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_machine::Config;

    const RAM: u64 = 0x4000_0000;

    /// As Linux's driver does it: parameters by 32 and 64 bits, execute, status.
    fn injected(kind: u32, flags: u32, address: u64, mask: u64) -> (u64, u64) {
        let config = Config { memory_size: 2 << 20, el2: true, ..Config::default() };
        let mut vm = Vm::new(config).expect("2 MiB");
        let (mut einj, mut poison) = (Einj::default(), PoisonRegister::default());
        let writes: [(u64, &[u8]); 5] = [
            (0x80, &kind.to_le_bytes()),
            (0x88, &flags.to_le_bytes()),
            (0x90, &address.to_le_bytes()),
            (0x98, &mask.to_le_bytes()),
            (0x08, &1_u64.to_le_bytes()),
        ];
        for (offset, bytes) in writes {
            einj.write(offset, bytes, &mut poison, &mut vm);
        }
        let mut status = [0; 8];
        einj.read(0x18, &mut status);
        (u64::from_le_bytes(status), vm.memory().poisoned_lines())
    }

    /// ACPI 6.5, 18.6.1, command status: 0 success, 2 invalid access.
    #[test]
    fn an_uncorrectable_memory_error_with_an_address_turns_a_line_bad() {
        assert_eq!(injected(0x10, 2, RAM + 0x1234, u64::MAX), (0, 1));
        assert_eq!(injected(0x20, 2, RAM + 0x1234, !0xfff), (0, 1));
        assert_eq!(injected(0x10, 0, RAM, u64::MAX), (2, 0), "no address");
        assert_eq!(injected(0x08, 2, RAM, u64::MAX), (2, 0), "a correctable error");
        assert_eq!(injected(0, 2, RAM, u64::MAX), (2, 0), "no type");
        assert_eq!(injected(0x10, 2, RAM - 64, u64::MAX), (2, 0), "no RAM");
    }

    /// 18.6.5: the header's size, the revision, the table's size, and the number of entries.
    #[test]
    fn the_trigger_table_has_no_entries() {
        let einj = Einj::default();
        let words = [0x40, 0x44, 0x48, 0x4c].map(|offset| {
            let mut bytes = [0; 4];
            einj.read(offset, &mut bytes);
            u32::from_le_bytes(bytes)
        });
        assert_eq!(words, [16, 0, 16, 0]);
        let mut address = [0; 8];
        einj.read(0x20, &mut address);
        assert_eq!(u64::from_le_bytes(address), 0x0b01_0040);
    }
}
