//! What an Arm server with EL2 has around its CPUs beyond the board: a second UART, and the register that turns memory bad.
//!
//! The memory of such a machine goes bad from inside, by a register page where the lab's QEMU has one too. So what runs on
//! the one runs on the other.

mod poison;

use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_device::MutDeviceMmio as _;
use vm_device::bus::MmioAddress;

use seawall_events::MmioExit;
use seawall_machine::Vm;

use poison::PoisonRegister;

use crate::devices::pl011::{self, Pl011};
use crate::interrupt::InterruptLine;
use crate::layout;

/// Where the second UART's output goes: nowhere, if nobody asked for it.
pub(crate) type Output = Option<Box<dyn Write + Send>>;

struct Port(Output);

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(bytes.len()), |output| output.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Second UART and poison register.
pub(crate) struct Server {
    uart: Pl011<Arc<dyn InterruptLine>, Port>,
    poison: PoisonRegister,
}

/// What a snapshot holds of it. Where the output goes is the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    uart: pl011::Registers,
    poison: PoisonRegister,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("poison", &self.poison).finish_non_exhaustive()
    }
}

impl Server {
    /// As after reset. `line` is the second UART's.
    pub(crate) fn new(line: Arc<dyn InterruptLine>, output: Output) -> Self {
        Self { uart: Pl011::new(line, Port(output)), poison: PoisonRegister::default() }
    }

    /// After a reset of the machine: bad memory stays bad.
    pub(crate) fn reset(&mut self) {
        self.uart.reset();
    }

    pub(crate) fn state(&self) -> State {
        State { uart: self.uart.registers().clone(), poison: self.poison.clone() }
    }

    pub(crate) fn set_state(&mut self, state: &State) {
        self.uart.set_registers(state.uart.clone());
        self.poison = state.poison.clone();
    }

    /// An access that is the server's: what a load reads. `None`: it is not.
    pub(crate) fn access(&mut self, mmio: &MmioExit, vm: &mut Vm) -> Option<[u8; 8]> {
        let MmioExit { phys_addr, mut data, len, is_write } = *mmio;
        if layout::SECOND_UART.contains(&phys_addr) {
            let offset = phys_addr - layout::SECOND_UART.start;
            let bytes = data.get_mut(..len as usize)?;
            if is_write {
                self.uart.mmio_write(MmioAddress(layout::SECOND_UART.start), offset, bytes);
            } else {
                self.uart.mmio_read(MmioAddress(layout::SECOND_UART.start), offset, bytes);
            }
            return Some(data);
        }
        // Of other sizes the register page knows nothing, as QEMU's does not.
        if !layout::POISON.contains(&phys_addr) || len != 8 || phys_addr % 8 != 0 {
            return None;
        }
        let offset = phys_addr - layout::POISON.start;
        if is_write {
            self.poison.write(offset, u64::from_le_bytes(data), vm);
            return Some(data);
        }
        Some(self.poison.read(offset).to_le_bytes())
    }
}
