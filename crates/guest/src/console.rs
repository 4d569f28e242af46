//! Output of the guests: characters, strings and numbers to the PL011.
//!
//! Subroutines (BL): `->puts` writes the string at x0, `->putc` the character in w0, `->puthex` x0 in w1 hex digits, `->putesr` x0
//! in 8 digits or in 16 if it has ISS2, `->putdec` x0 in decimal. They change x0 to x7 and the flags only.

use crate::asm::{Asm, a64};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// PL011 flag register, offset and the bit "transmit FIFO full" (PrimeCell UART TRM, 3.3.3).
const UARTFR: u32 = 0x18;
const TXFF: u32 = 5;
const DIGIT: u32 = '0' as u32;
/// The offset from a number from 10 to 15 to its hex digit.
const LETTER: u32 = 'a' as u32 - 10;

/// Emits the subroutines, for a UART whose registers are at the virtual address `uart`.
pub(crate) fn emit(asm: &mut Asm, uart: u64) {
    a64!(asm ; ->puts: ; mov x7, x0 ; mov x6, x30 ; next:
        ; ldrb w0, [x7], #1
        ; cbz w0, >done
        ; bl ->putc
        ; b <next
        ; done: ; ret x6);

    a64!(asm ; ->putc:);
    asm.constant(1, uart);
    a64!(asm ; full:
        ; ldr w2, [x1, UARTFR]
        ; tbnz w2, TXFF, <full
        ; str w0, [x1]
        ; ret);

    a64!(asm ; ->putesr:
        ; mov w1, #8
        ; mov w2, #16
        ; lsr x3, x0, #32
        ; cmp x3, #0
        ; csel w1, w1, w2, eq
        ; ->puthex: ; mov x3, x0 ; lsl w4, w1, #2 ; mov x6, x30 ; next:
        ; sub w4, w4, #4
        ; lsr x0, x3, x4
        ; and w0, w0, #0xf
        ; add w2, w0, LETTER
        ; add w5, w0, DIGIT
        ; cmp w0, #10
        ; csel w0, w5, w2, lo
        ; bl ->putc
        ; cbnz w4, <next
        ; ret x6);

    a64!(asm ; ->putdec: ; mov x5, x30 ; sub sp, sp, #32 ; add x7, sp, #31 ; strb wzr, [x7] ; mov x2, #10 ; next:
        ; udiv x3, x0, x2
        ; msub x4, x3, x2, x0
        ; add w4, w4, DIGIT
        ; strb w4, [x7, #-1]!
        ; mov x0, x3
        ; cbnz x0, <next
        ; mov x0, x7
        ; bl ->puts
        ; add sp, sp, #32
        ; ret x5);
}

impl Asm {
    /// Emits the subroutines that [`say`](Self::say) and its like call, for a PL011 whose registers are at
    /// the virtual address `uart`. Call it once in a program, at a point that no instruction falls into.
    pub fn console(&mut self, uart: u64) {
        emit(self, uart);
    }

    /// Writes `text` to the console. Changes x0 to x7 and x30.
    pub fn say(&mut self, text: &str) {
        self.text(0, text);
        a64!(self ; bl ->puts);
    }

    /// Writes `text` and the `digits` low hex digits of Xn (n from 8). Changes x0 to x7 and x30.
    pub fn say_hex(&mut self, text: &str, xn: u8, digits: u32) {
        self.say(text);
        a64!(self ; mov x0, X(xn) ; movz w1, digits ; bl ->puthex);
    }

    /// Writes `text` and the syndrome in Xn (n from 8): 8 hex digits, or 16 if it has an ISS2. Changes x0 to x7 and x30.
    pub fn say_esr(&mut self, text: &str, xn: u8) {
        self.say(text);
        a64!(self ; mov x0, X(xn) ; bl ->putesr);
    }

    /// Writes `text` and Xn (n from 8) in decimal. Changes x0 to x7 and x30, and needs 32 bytes of stack.
    pub fn say_dec(&mut self, text: &str, xn: u8) {
        self.say(text);
        a64!(self ; mov x0, X(xn) ; bl ->putdec);
    }
}
