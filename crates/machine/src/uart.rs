//! The PL011 UART (Arm DDI 0183): what a guest writes to UARTDR is a byte on the console, sent at
//! once; what the host types waits until the guest reads it, in a FIFO without end.
//!
//! Identification and reset values are those that QEMU's `virt` shows.

use std::collections::VecDeque;

/// Physical address of the UART, as on QEMU's `virt`.
pub const BASE: u64 = 0x0900_0000;
/// INTID of its interrupt: SPI 1.
pub const INTID: u32 = 33;
/// Bytes of its register window.
pub const SIZE: u64 = 0x1000;

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
const PCELL_ID3: u64 = 0xffc;

/// UARTFR: transmit FIFO empty, always; receive FIFO empty.
const FR_TXFE: u32 = 1 << 7;
const FR_RXFE: u32 = 1 << 4;
/// UARTRIS: the transmit interrupt; the receive interrupt, which is there as long as a byte waits.
const INT_TX: u32 = 1 << 5;
const INT_RX: u32 = 1 << 4;
/// UARTPeriphID0 to 3 and UARTPCellID0 to 3: PL011 r1p4.
const ID: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The UART: its registers, and what the guest sent that the host has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pl011 {
    sent: Vec<u8>,
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
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// The UART after reset.
    pub fn new() -> Self {
        Self {
            sent: Vec::new(),
            received: VecDeque::new(),
            interrupts: 0,
            mask: 0,
            low_power: 0,
            baud_integer: 0,
            baud_fraction: 0,
            line_control: 0,
            control: 0x300,
            fifo_level: 0x12,
            dma_control: 0,
        }
    }

    /// What the register at byte `offset` of the window reads; 0 where there is none. Bits `[1:0]` of
    /// the offset are ignored. A read of UARTDR takes the byte that waits longest.
    pub fn read(&mut self, offset: u64) -> u32 {
        match offset & !3 {
            DR => self.take_received(),
            FR => FR_TXFE | if self.received.is_empty() { FR_RXFE } else { 0 },
            ILPR => self.low_power,
            IBRD => self.baud_integer,
            FBRD => self.baud_fraction,
            LCR_H => self.line_control,
            CR => self.control,
            IFLS => self.fifo_level,
            IMSC => self.mask,
            RIS => self.interrupts,
            MIS => self.interrupts & self.mask,
            DMACR => self.dma_control,
            id @ PERIPH_ID0..=PCELL_ID3 => {
                ID.get(((id - PERIPH_ID0) / 4) as usize).map_or(0, |byte| u32::from(*byte))
            }
            _ => 0,
        }
    }

    /// Writes the register at byte `offset` of the window; ignored where there is none. Bits `[1:0]`
    /// of the offset are ignored. A byte written to UARTDR is sent whether or not UARTCR enables
    /// the UART, as QEMU does: early guest code often does not.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset & !3 {
            DR => {
                self.sent.push(value as u8);
                self.interrupts |= INT_TX;
            }
            ILPR => self.low_power = value & 0xff,
            IBRD => self.baud_integer = value & 0xffff,
            FBRD => self.baud_fraction = value & 0x3f,
            LCR_H => self.line_control = value & 0xff,
            CR => self.control = value & 0xffff,
            IFLS => self.fifo_level = value & 0x3f,
            IMSC => self.mask = value & 0x7ff,
            // The receive interrupt comes again while a byte waits.
            ICR => {
                self.interrupts &= !value;
                self.receive(&[]);
            }
            DMACR => self.dma_control = value & 0x7,
            _ => {}
        }
    }

    /// Whether the interrupt line (UARTINTR) is high: an interrupt that is not masked.
    pub fn interrupt(&self) -> bool {
        self.interrupts & self.mask != 0
    }

    fn take_received(&mut self) -> u32 {
        let byte = self.received.pop_front();
        if self.received.is_empty() {
            self.interrupts &= !INT_RX;
        }
        byte.map_or(0, u32::from)
    }

    /// Types `bytes`: the guest will receive them.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.received.extend(bytes);
        if !self.received.is_empty() {
            self.interrupts |= INT_RX;
        }
    }

    /// The bytes sent and not taken yet.
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Takes the bytes sent since the last call.
    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_to_dr_are_sent_in_order_and_taken_once() {
        let mut uart = Pl011::new();
        for byte in *b"hi\n" {
            assert_eq!(uart.read(0x18) & 0x20, 0, "never full");
            uart.write(0, u32::from(byte) | 0xffff_ff00);
        }
        assert_eq!(uart.sent(), b"hi\n");
        assert_eq!(uart.take_sent(), b"hi\n");
        assert_eq!(uart.take_sent(), b"");
    }

    #[test]
    fn what_is_typed_waits_until_it_is_read() {
        let mut uart = Pl011::new();
        uart.write(0x38, 0x10);
        uart.receive(b"ab");
        assert_eq!((uart.read(0x18), uart.read(0x3c), uart.interrupt()), (0x80, 0x10, true));
        uart.write(0x44, 0x7ff);
        assert!(uart.interrupt(), "a byte waits");
        assert_eq!((uart.read(0), uart.interrupt()), (0x61, true));
        assert_eq!((uart.read(0), uart.interrupt()), (0x62, false));
        assert_eq!((uart.read(0), uart.read(0x18)), (0, 0x90));
    }

    #[test]
    fn identification_is_that_of_pl011_r1p4() {
        let mut uart = Pl011::new();
        let id: Vec<u32> = (0xfe0..0x1000).step_by(4).map(|offset| uart.read(offset)).collect();
        assert_eq!(id, [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    }

    #[test]
    fn reset_values_are_those_of_qemus_virt() {
        let mut uart = Pl011::new();
        assert_eq!(
            (uart.read(0x18), uart.read(0x30), uart.read(0x34), uart.read(0x3c)),
            (0x90, 0x300, 0x12, 0)
        );
    }

    #[test]
    fn the_transmit_interrupt_follows_mask_and_clear() {
        let mut uart = Pl011::new();
        uart.write(0, 0x41);
        assert_eq!((uart.read(0x3c), uart.read(0x40), uart.interrupt()), (0x20, 0, false));
        uart.write(0x38, 0xffff_ffff);
        assert_eq!((uart.read(0x38), uart.read(0x40), uart.interrupt()), (0x7ff, 0x20, true));
        uart.write(0x44, 0x7df);
        assert!(uart.interrupt(), "another interrupt was cleared");
        uart.write(0x44, 0x20);
        assert_eq!((uart.read(0x3c), uart.interrupt()), (0, false));
    }

    #[test]
    fn any_byte_of_a_register_is_the_register() {
        let mut uart = Pl011::new();
        uart.write(3, 0x41);
        assert_eq!((uart.read(0x1b), uart.sent()), (0x90, &b"A"[..]));
    }

    #[test]
    fn registers_keep_the_bits_that_exist_and_holes_read_zero() {
        let mut uart = Pl011::new();
        for (offset, kept) in [
            (0x24, 0xffff),
            (0x28, 0x3f),
            (0x2c, 0xff),
            (0x30, 0xffff),
            (0x34, 0x3f),
            (0x48, 7),
            (0x20, 0xff),
        ] {
            uart.write(offset, u32::MAX);
            assert_eq!(uart.read(offset), kept, "{offset:#x}");
        }
        for offset in [0x18, 0x100, 0xfdc, 0xfe0, 0x1000, u64::MAX] {
            let before = uart.clone();
            uart.write(offset, u32::MAX);
            assert_eq!(uart, before, "{offset:#x}");
        }
        assert_eq!(
            (uart.read(0x100), uart.read(0xfdc), uart.read(0x1000), uart.read(u64::MAX)),
            (0, 0, 0, 0)
        );
    }
}
