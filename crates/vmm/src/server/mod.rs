//! What an Arm server with EL2 has around its CPUs beyond the board: a second UART, and the register that turns memory bad.
//!
//! The memory of such a machine goes bad from inside, by a register page where the lab's QEMU has one too. So what runs on
//! the one runs on the other.

mod einj;
mod poison;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_device::MutDeviceMmio as _;
use vm_device::bus::MmioAddress;

use seawall_events::MmioExit;
use seawall_machine::Vm;

use einj::Einj;
use poison::PoisonRegister;

use crate::devices::pl011::{self, Pl011};
use crate::interrupt::InterruptLine;
use crate::layout;

/// The guest asks for input by this byte: ASCII's ENQ.
const ENQUIRY: u8 = 0x05;

/// The host's end of a second UART.
#[derive(Default)]
pub struct SecondUart {
    /// Where its output goes: nowhere, if nobody asked for it.
    pub output: Option<Box<dyn Write + Send>>,
    /// Input typed on it once the guest asked for it by ENQ (0x05), which is no output: as fast as the guest takes it.
    pub input: Vec<u8>,
}

impl fmt::Debug for SecondUart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondUart").field("input", &self.input.len()).finish_non_exhaustive()
    }
}

/// The same, with how far it came.
struct Port {
    host: SecondUart,
    asked: bool,
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes == [ENQUIRY] {
            self.asked = true;
            return Ok(1);
        }
        self.host.output.as_mut().map_or(Ok(bytes.len()), |output| output.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.host.output.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Second UART, poison register, and the registers of EINJ.
pub(crate) struct Server {
    uart: Pl011<Arc<dyn InterruptLine>, Port>,
    /// Bytes of the input that the UART has taken.
    taken: u64,
    poison: PoisonRegister,
    einj: Einj,
}

/// Its part of a snapshot. Output and input are the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    uart: pl011::Registers,
    asked: bool,
    taken: u64,
    poison: PoisonRegister,
    einj: Einj,
}

impl State {
    /// The bad ranges: as many as 2^20, so they are encoded apart from the rest.
    pub(crate) fn ranges(&self) -> Vec<u8> {
        self.poison.ranges_as_bytes()
    }

    /// Puts the bad ranges where they belong, if these bytes are some.
    pub(crate) fn set_ranges(&mut self, bytes: &[u8]) -> Option<()> {
        self.poison.set_ranges(bytes)
    }

    /// True if this is a state that it can come to.
    pub(crate) fn is_sound(&self) -> bool {
        self.uart.is_sound() && self.poison.is_sound()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("poison", &self.poison).finish_non_exhaustive()
    }
}

impl Server {
    /// As after reset. `line` is the second UART's.
    pub(crate) fn new(line: Arc<dyn InterruptLine>, host: SecondUart) -> Self {
        let port = Port { host, asked: false };
        Self {
            uart: Pl011::new(line, port),
            taken: 0,
            poison: PoisonRegister::default(),
            einj: Einj::default(),
        }
    }

    /// After a reset of the machine: bad memory stays bad.
    pub(crate) fn reset(&mut self) {
        self.uart.reset();
        (self.uart.output().asked, self.taken) = (false, 0);
    }

    pub(crate) fn state(&self) -> State {
        let Self { uart, taken, poison, einj } = self;
        let asked = uart.writes_to().asked;
        let uart = uart.registers().clone();
        State { uart, asked, taken: *taken, poison: poison.clone(), einj: einj.clone() }
    }

    pub(crate) fn set_state(&mut self, state: &State) {
        let State { uart, asked, taken, poison, einj } = state;
        self.uart.set_registers(uart.clone());
        (self.uart.output().asked, self.taken) = (*asked, *taken);
        self.poison = poison.clone();
        self.einj = einj.clone();
    }

    /// Types the input, as far as the guest asked for it and the UART has room.
    pub(crate) fn give_input(&mut self) {
        let port = self.uart.output();
        if !port.asked || self.taken >= port.host.input.len() as u64 {
            return;
        }
        let input = std::mem::take(&mut port.host.input);
        let rest = input.get(self.taken as usize..).unwrap_or_default();
        self.taken += self.uart.receive(rest) as u64;
        self.uart.output().host.input = input;
    }

    /// Serves an access to the server's devices and gives the value of a load. `None`: the access is not theirs. EINJ is
    /// there with `acpi`.
    pub(crate) fn access(&mut self, mmio: &MmioExit, vm: &mut Vm, acpi: bool) -> Option<[u8; 8]> {
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
        if acpi && layout::EINJ.contains(&phys_addr) {
            let offset = phys_addr - layout::EINJ.start;
            let bytes = data.get_mut(..len as usize)?;
            if is_write {
                self.einj.write(offset, bytes, &mut self.poison, vm);
            } else {
                self.einj.read(offset, bytes);
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
