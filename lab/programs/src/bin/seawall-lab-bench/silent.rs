//! A vCPU that answers at once like a stock kernel, without any system call, so that only our own code
//! remains.

use std::cell::Cell;

use seawall_events::Reg;
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_inject::{Errno, KvmVcpu};

use crate::guest::{BAD_LINE, LOAD, PSTATE, VECTORS};

/// The kernel's own data abort at EL1.
const ABORT: u64 = 0x9600_0010;

/// A vCPU at its load of bad memory, and then at its handler.
pub(crate) struct Silent {
    is_at_handler: Cell<bool>,
    esr: Cell<u64>,
}

impl Silent {
    pub(crate) fn at_the_load() -> Self {
        Self { is_at_handler: Cell::new(false), esr: Cell::new(0) }
    }
}

impl KvmVcpu for Silent {
    fn set_vcpu_events(&self, _: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        self.is_at_handler.set(true);
        self.esr.set(ABORT);
        Ok(())
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let answers = [
            (Reg::Pc, if self.is_at_handler.get() { VECTORS + 0x200 } else { LOAD }),
            (Reg::Pstate, PSTATE),
            (Reg::ElrEl1, LOAD),
            (Reg::VbarEl1, VECTORS),
            (Reg::EsrEl1, self.esr.get()),
            (Reg::FarEl1, BAD_LINE),
        ];
        let answer = answers.into_iter().find(|(reg, _)| one_reg_id(*reg) == Some(id));
        answer.map(|(_, value)| value).ok_or(Errno::ENOENT)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        if one_reg_id(Reg::EsrEl1) == Some(id) {
            self.esr.set(value);
        }
        Ok(())
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        Ok([0; VCPU_EVENTS_SIZE])
    }
}
