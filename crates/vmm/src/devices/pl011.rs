//! The PL011 UART (Arm DDI 0183), as QEMU's `virt` has it at the same place: so that a flat image or a command
//! line that was made for that machine finds its console here, and `earlycon` is nothing but `earlycon`.
//! (`vm-superio` has a 16550, which would need other guests.)
//!
//! What the guest sends is out at once; the transmit FIFO is always empty. What comes in waits in a receive FIFO
//! of 16 bytes, or of one while FIFOs are disabled.
//!
//! On purpose it differs from the manual in this: it sends whatever UARTCR enables; both receive interrupts come with the
//! first byte, whatever level UARTIFLS asks for, as nobody types up to a level; there are no modem lines and no errors.

use std::collections::VecDeque;
use std::io::Write;

use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::{read_words, write_words};
use crate::interrupt::InterruptLine;

// Register offsets, bytes (DDI 0183, table 3-1).
const DR: u64 = 0x000;
const FR: u64 = 0x018;
const ILPR: u64 = 0x020;
const IBRD: u64 = 0x024;
const FBRD: u64 = 0x028;
const LCR_H: u64 = 0x02c;
const CR: u64 = 0x030;
const IFLS: u64 = 0x034;
const IMSC: u64 = 0x038;
const RIS: u64 = 0x03c;
const MIS: u64 = 0x040;
const ICR: u64 = 0x044;
const DMACR: u64 = 0x048;
const PERIPH_ID0: u64 = 0xfe0;

/// UARTFR: transmit FIFO empty; receive FIFO full, empty.
const FR_TXFE: u32 = 1 << 7;
const FR_RXFF: u32 = 1 << 6;
const FR_RXFE: u32 = 1 << 4;
/// UARTRIS: receive timeout, transmit, receive.
const INT_RT: u32 = 1 << 6;
const INT_TX: u32 = 1 << 5;
const INT_RX: u32 = 1 << 4;
/// All that UARTICR has.
const ALL_INTERRUPTS: u32 = 0x7ff;
/// UARTLCR_H: FIFOs are enabled.
const LCR_H_FEN: u32 = 1 << 4;
/// UARTCR: loopback; what can be written: bits 6 to 3 are reserved.
const CR_LBE: u32 = 1 << 7;
const CR_WRITABLE: u32 = 0xff87;
/// Bytes of the receive FIFO.
const FIFO: usize = 16;
/// UARTPeriphID0 to 3 and UARTPCellID0 to 3: revision 1, as QEMU's.
const ID: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The UART.
#[derive(Debug)]
pub struct Pl011<L, W> {
    line: L,
    output: W,
    registers: Registers,
}

/// What the guest wrote, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Registers {
    received: VecDeque<u8>,
    interrupts: u32,
    mask: u32,
    low_power: u32,
    baud_integer: u32,
    baud_fraction: u32,
    line_control: u32,
    control: u32,
    fifo_level: u32,
    dma_control: u32,
    /// The last access was a read of FR that showed an empty receive FIFO.
    saw_empty: bool,
    /// See [`Pl011::is_listened_to`].
    has_reader: bool,
}

impl Registers {
    /// True if this is a state that they can come to.
    pub(crate) fn is_sound(&self) -> bool {
        self.received.len() <= FIFO
    }

    fn after_reset() -> Self {
        Self {
            received: VecDeque::with_capacity(FIFO),
            interrupts: 0,
            mask: 0,
            low_power: 0,
            baud_integer: 0,
            baud_fraction: 0,
            line_control: 0,
            control: 0x300,
            fifo_level: 0x12,
            dma_control: 0,
            saw_empty: false,
            has_reader: false,
        }
    }
}

impl<L: InterruptLine, W: Write> Pl011<L, W> {
    /// What a snapshot holds of it, beside its output.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// It is again as it was. Its interrupt line is the caller's.
    pub(crate) fn set_registers(&mut self, registers: Registers) {
        self.registers = registers;
    }

    /// What it writes to.
    pub(crate) fn output(&mut self) -> &mut W {
        &mut self.output
    }

    /// The same, to look at.
    pub(crate) fn writes_to(&self) -> &W {
        &self.output
    }

    /// The UART after reset. What the guest sends goes to `output`; an error of that is the host's business
    /// and is not seen by the guest.
    pub fn new(line: L, output: W) -> Self {
        Self { line, output, registers: Registers::after_reset() }
    }

    /// As after reset.
    pub(crate) fn reset(&mut self) {
        self.registers = Registers::after_reset();
    }

    /// Gives the guest what somebody typed: how many bytes there was room for.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let room = self.depth().saturating_sub(self.registers.received.len());
        let taken = bytes.len().min(room);
        self.registers.received.extend(bytes.iter().take(taken));
        if taken > 0 {
            self.registers.interrupts |= INT_RX | INT_RT;
        }
        self.update();
        taken
    }

    /// Bytes that the receive FIFO holds.
    fn depth(&self) -> usize {
        if self.registers.line_control & LCR_H_FEN == 0 { 1 } else { FIFO }
    }

    /// True if Linux's driver takes what somebody types. It unmasks the receive interrupt long before that, and throws
    /// away what comes until it has seen the FIFO empty and unmasks the interrupt once more; when it stops it clears
    /// all interrupts (`amba-pl011.c`: `hwinit`, `enable_interrupts`, `disable_interrupts`).
    pub fn is_listened_to(&self) -> bool {
        self.registers.has_reader && self.registers.mask & (INT_RX | INT_RT) != 0
    }

    fn read(&mut self, register: u64) -> u32 {
        self.registers.saw_empty = register == FR && self.registers.received.is_empty();
        match register {
            DR => self.pop(),
            FR => {
                let full = if self.registers.received.len() >= self.depth() { FR_RXFF } else { 0 };
                let empty = if self.registers.received.is_empty() { FR_RXFE } else { 0 };
                FR_TXFE | full | empty
            }
            ILPR => self.registers.low_power,
            IBRD => self.registers.baud_integer,
            FBRD => self.registers.baud_fraction,
            LCR_H => self.registers.line_control,
            CR => self.registers.control,
            IFLS => self.registers.fifo_level,
            IMSC => self.registers.mask,
            RIS => self.registers.interrupts,
            MIS => self.registers.interrupts & self.registers.mask,
            DMACR => self.registers.dma_control,
            _ => {
                let number = register.checked_sub(PERIPH_ID0).map(|offset| (offset / 4) as usize);
                number.and_then(|number| ID.get(number)).copied().map_or(0, u32::from)
            }
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        match register {
            DR => {
                let _ = self.output.write_all(&[value as u8]);
                self.registers.interrupts |= INT_TX;
                if self.registers.control & CR_LBE != 0 {
                    self.receive(&[value as u8]);
                }
            }
            ILPR => self.registers.low_power = value & 0xff,
            IBRD => self.registers.baud_integer = value & 0xffff,
            FBRD => self.registers.baud_fraction = value & 0x3f,
            LCR_H => self.registers.line_control = value & 0xff,
            CR => self.registers.control = value & CR_WRITABLE,
            IFLS => self.registers.fifo_level = value & 0x3f,
            IMSC => {
                self.registers.mask = value & 0x7ff;
                self.registers.has_reader |= self.registers.saw_empty && value & INT_RX != 0;
            }
            ICR => {
                self.registers.interrupts &= !value;
                self.registers.has_reader &= value & ALL_INTERRUPTS != ALL_INTERRUPTS;
            }
            DMACR => self.registers.dma_control = value & 0x7,
            // UARTECR too: there are no errors to clear.
            _ => {}
        }
        self.registers.saw_empty = false;
        self.update();
    }

    fn pop(&mut self) -> u32 {
        let byte = self.registers.received.pop_front().map_or(0, u32::from);
        if self.registers.received.is_empty() {
            self.registers.interrupts &= !(INT_RX | INT_RT);
        }
        self.update();
        byte
    }

    fn update(&self) {
        self.line.set(self.registers.interrupts & self.registers.mask != 0);
    }
}

impl<L: InterruptLine, W: Write> MutDeviceMmio for Pl011<L, W> {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        read_words(offset, data, |register| self.read(register));
    }

    fn mmio_write(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        write_words(offset, data, |register, value| self.write(register, value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::interrupt::Probe;

    fn uart() -> (Pl011<Arc<Probe>, Vec<u8>>, Arc<Probe>) {
        let line = Arc::new(Probe::default());
        (Pl011::new(line.clone(), Vec::new()), line)
    }

    #[test]
    fn a_byte_written_to_the_data_register_is_out_at_once() {
        let (mut uart, _) = uart();
        uart.mmio_write(MmioAddress(0), 0, b"A");
        uart.mmio_write(MmioAddress(0), 0, &[b'B', 0, 0, 0]);
        assert_eq!(uart.output, b"AB");
        assert_eq!(uart.read(FR), FR_TXFE | FR_RXFE);
    }

    /// The accesses of Linux's driver, in its order.
    #[test]
    fn linux_listens_once_it_has_emptied_the_fifo_and_until_it_clears_all_interrupts() {
        let (mut uart, _) = uart();
        uart.write(ICR, 0x7d0);
        uart.read(IMSC);
        uart.write(IMSC, INT_RT | INT_RX); // pl011_hwinit
        assert!(!uart.is_listened_to());
        uart.write(LCR_H, 0x70);
        uart.receive(b"early");
        uart.write(CR, 0x301);
        uart.write(ICR, INT_RT | INT_RX);
        while uart.read(FR) & FR_RXFE == 0 {
            uart.read(DR);
        }
        uart.write(IMSC, INT_RT | INT_RX); // pl011_enable_interrupts
        assert!(uart.is_listened_to());
        uart.write(IMSC, INT_TX); // pl011_throttle_rx
        assert!(!uart.is_listened_to());
        uart.write(IMSC, INT_RT | INT_RX); // pl011_unthrottle_rx
        assert!(uart.is_listened_to());
        uart.write(IMSC, 0);
        uart.write(ICR, 0xffff); // pl011_disable_interrupts
        uart.write(IMSC, INT_RT | INT_RX); // and the next one's hwinit
        assert!(!uart.is_listened_to());
    }

    /// DDI 0183, 3.3.11: UARTMIS is UARTRIS under UARTIMSC.
    #[test]
    fn the_transmit_interrupt_is_high_once_it_is_unmasked_and_until_it_is_cleared() {
        let (mut uart, line) = uart();
        uart.write(DR, b'x'.into());
        assert!(!line.is_high());
        uart.write(IMSC, 0x20);
        assert!(line.is_high());
        assert_eq!(uart.read(MIS), 0x20);
        uart.write(ICR, 0x20);
        assert!(!line.is_high());
    }

    #[test]
    fn what_is_typed_waits_in_a_fifo_of_16_and_holds_the_line_until_it_is_read() {
        let (mut uart, line) = uart();
        uart.write(LCR_H, 0x70);
        uart.write(IMSC, 0x50);
        assert_eq!(uart.receive(&[b'y'; 40]), 16);
        assert!(line.is_high());
        assert_eq!(uart.read(FR), FR_TXFE | FR_RXFF);
        for _ in 0..15 {
            assert_eq!(uart.read(DR), u32::from(b'y'));
        }
        assert!(line.is_high());
        uart.read(DR);
        assert!(!line.is_high());
        assert_eq!(uart.read(FR), FR_TXFE | FR_RXFE);
    }

    /// DDI 0183, 3.3.7: with FEN clear the FIFOs are one byte deep, and RXFF says that it is there.
    #[test]
    fn without_fifos_one_byte_is_held() {
        let (mut uart, line) = uart();
        uart.write(IMSC, 0x10);
        assert_eq!(uart.receive(b"yz"), 1);
        assert_eq!((uart.read(FR), line.is_high()), (FR_TXFE | FR_RXFF, true));
        assert_eq!(uart.read(DR), u32::from(b'y'));
        assert_eq!((uart.read(FR), line.is_high()), (FR_TXFE | FR_RXFE, false));
    }

    /// DDI 0183, 3.3.8: LBE.
    #[test]
    fn in_loopback_what_is_sent_comes_back() {
        let (mut uart, _) = uart();
        uart.write(CR, 0x381);
        uart.write(DR, b'x'.into());
        assert_eq!((uart.read(FR) & FR_RXFE, uart.read(DR)), (0, u32::from(b'x')));
        uart.write(CR, 0x301);
        uart.write(DR, b'x'.into());
        assert_eq!(uart.read(FR) & FR_RXFE, FR_RXFE);
    }

    #[test]
    fn a_doubleword_reads_two_registers_and_a_byte_the_low_one_of_its_own() {
        let (mut uart, _) = uart();
        let mut data = [0xff; 8];
        uart.mmio_read(MmioAddress(0), 0xfe0, &mut data);
        assert_eq!(data, [0x11, 0, 0, 0, 0x10, 0, 0, 0]);
        uart.mmio_read(MmioAddress(0), 0xfe4, &mut data[..1]);
        assert_eq!(data[0], 0x10);
    }

    #[test]
    fn it_identifies_as_qemus_does() {
        let (mut uart, _) = uart();
        let id: Vec<u32> = (0..8).map(|n| uart.read(0xfe0 + 4 * n)).collect();
        assert_eq!(id, [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        assert_eq!(uart.read(0x1000), 0);
    }
}
