//! Code that all programs share: system calls, lines on the console, and the address of a page.
//!
//! Subroutines (BL): `->text` appends the string at x0 to the line, `->decimal` and `->hexadecimal` the
//! number in x0, `->flush` ends and writes it. They change x0 to x8 and the flags. x20 is the size of a page
//! in bytes, x27 the line's first byte, x28 the next.

use crate::asm::{Asm, a64};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// System calls: Linux, include/uapi/asm-generic/unistd.h.
pub(super) mod call {
    pub(crate) const FTRUNCATE: u32 = 46;
    pub(crate) const OPENAT: u32 = 56;
    pub(crate) const WRITE: u32 = 64;
    pub(crate) const PREAD64: u32 = 67;
    pub(crate) const VMSPLICE: u32 = 75;
    pub(crate) const EXIT: u32 = 94;
    pub(crate) const NANOSLEEP: u32 = 101;
    pub(crate) const RT_SIGACTION: u32 = 134;
    pub(crate) const MMAP: u32 = 222;
}

/// Bytes of stack for a line; the lower 64 are for the structures of system calls.
const STACK: u32 = 256;
const LINE: u32 = 64;
const DIGIT: u32 = '0' as u32;
/// The offset from a number from 10 to 15 to its hexadecimal digit.
const LETTER: u32 = 'a' as u32 - 10;
const NEWLINE: u32 = '\n' as u32;
const SIGBUS: u32 = 7;
const SA_SIGINFO: u32 = 4;
/// In `siginfo_t`: offsets of `si_code` and `si_addr`.
const SI_CODE: u32 = 8;
const SI_ADDR: u32 = 16;

/// Types in the auxiliary vector: its end, and the page size in bytes. Linux, include/uapi/linux/auxvec.h.
const AT_NULL: u32 = 0;
const AT_PAGESZ: u32 = 6;

/// Exit codes; the module's documentation explains them.
pub(super) mod code {
    pub(crate) const WRONG: u32 = 1;
    pub(crate) const CANNOT_START: u32 = 2;
    pub(crate) const SIGBUS_HANDLED: u32 = 3;
}

/// Emits the entry: room for a line, x19 = rounds, x20 = bytes of a page, and a handler of SIGBUS if there is a second
/// argument.
///
/// The kernel leaves on the stack the number of arguments, their addresses, a zero, the environment's, a zero, and the
/// auxiliary vector, pairs of type and value: System V ABI, "Process Initialization".
pub(super) fn emit_entry(asm: &mut Asm) {
    a64!(asm
        ; ldr x9, [sp]
        ; ldr x1, [sp, #16]
        ; add x10, sp, #16
        ; add x10, x10, x9, lsl #3
        ; sub sp, sp, STACK
        ; add x27, sp, LINE
        ; mov x28, x27
        ; movz x19, #0
        ; cmp x9, #2
        ; b.lo ->cannot_start
        ; environment:
        ; ldr x11, [x10], #8
        ; cbnz x11, <environment
        ; auxiliary:
        ; ldp x11, x20, [x10], #16
        ; cmp x11, AT_NULL
        ; b.eq ->cannot_start
        ; cmp x11, AT_PAGESZ
        ; b.ne <auxiliary
        ; movz x3, #10
        ; digit:
        ; ldrb w2, [x1], #1
        ; cbz w2, >parsed
        ; sub w2, w2, DIGIT
        ; madd x19, x19, x3, x2
        ; b <digit
        ; parsed:
        ; cmp x9, #2
        ; b.ls >no_handler
        ; adr x0, ->sigbus
        ; movz x1, SA_SIGINFO
        ; stp x0, x1, [sp]
        ; stp xzr, xzr, [sp, #16]
        ; movz x0, SIGBUS
        ; mov x1, sp
        ; movz x2, #0
        ; movz x3, #8);
    asm.call(call::RT_SIGACTION);
    a64!(asm ; no_handler:);
}

/// Emits the subroutines, the handler of SIGBUS, and the two ends `->wrong` and `->cannot_start`.
pub(super) fn emit(asm: &mut Asm, name: &str) {
    a64!(asm ; ->text: ; next:
        ; ldrb w1, [x0], #1
        ; cbz w1, >done
        ; strb w1, [x28], #1
        ; b <next
        ; done: ; ret);

    // The digits go to the stack from the last to the first.
    a64!(asm
        ; ->decimal: ; movz x2, #10 ; b >number
        ; ->hexadecimal: ; movz x2, #16
        ; number: ; mov x5, sp ; sub sp, sp, #32
        ; next:
        ; udiv x3, x0, x2
        ; msub x4, x3, x2, x0
        ; add w6, w4, DIGIT
        ; add w7, w4, LETTER
        ; cmp w4, #10
        ; csel w4, w6, w7, lo
        ; strb w4, [x5, #-1]!
        ; mov x0, x3
        ; cbnz x0, <next
        ; add x3, sp, #32
        ; copy:
        ; ldrb w4, [x5], #1
        ; strb w4, [x28], #1
        ; cmp x5, x3
        ; b.lo <copy
        ; add sp, sp, #32
        ; ret);

    a64!(asm ; ->flush: ; movz w0, NEWLINE ; strb w0, [x28], #1 ; movz x0, #1 ; mov x1, x27 ; sub x2, x28, x27);
    asm.call(call::WRITE);
    a64!(asm ; mov x28, x27 ; ret);

    a64!(asm ; ->sigbus: ; mov x9, x1 ; mov x28, x27 ; ldrsw x10, [x9, SI_CODE] ; ldr x11, [x9, SI_ADDR]);
    asm.append(&format!("{name}: SIGBUS si_code="));
    a64!(asm ; mov x0, x10 ; bl ->decimal);
    asm.append(" si_addr=0x");
    a64!(asm ; mov x0, x11 ; bl ->hexadecimal ; bl ->flush);
    asm.exit(code::SIGBUS_HANDLED);

    a64!(asm ; ->wrong:);
    asm.append(&format!("{name}: wrong result"));
    a64!(asm ; bl ->flush);
    asm.exit(code::WRONG);

    a64!(asm ; ->cannot_start:);
    asm.append(&format!("{name}: cannot start"));
    a64!(asm ; bl ->flush);
    asm.exit(code::CANNOT_START);
}

impl Asm {
    /// Does a system call: arguments in x0 to x5, the result in x0. Changes x8.
    pub(super) fn call(&mut self, number: u32) {
        a64!(self ; movz x8, number ; svc #0);
    }

    /// Does a system call, and ends the program if Linux refuses it.
    pub(super) fn must_call(&mut self, number: u32) {
        self.call(number);
        a64!(self ; tbnz x0, #63, ->cannot_start);
    }

    /// Appends a text to the line. Changes x0, x1 and x30.
    pub(super) fn append(&mut self, text: &str) {
        self.text(0, text);
        a64!(self ; bl ->text);
    }

    /// Ends the process.
    pub(super) fn exit(&mut self, code: u32) {
        a64!(self ; movz x0, code);
        self.call(call::EXIT);
    }

    /// x0 = descriptor of a file, opened with the flags in include/uapi/asm-generic/fcntl.h, or created for root alone.
    pub(super) fn open(&mut self, path: &str, flags: u32) {
        const AT_FDCWD: u32 = 100;
        self.text(1, path);
        a64!(self ; movn x0, AT_FDCWD - 1 ; movz x2, flags ; movz x3, #0x180);
        self.must_call(call::OPENAT);
    }

    /// Prints the physical address of the page at the virtual address x22, which must be present: Linux,
    /// Documentation/admin-guide/mm/pagemap.rst.
    pub(super) fn name_page(&mut self, name: &str) {
        self.open("/proc/self/pagemap", 0);
        a64!(self ; mov x1, sp ; movz x2, #8 ; udiv x3, x22, x20 ; lsl x3, x3, #3);
        self.must_call(call::PREAD64);
        a64!(self ; ldr x9, [sp] ; ubfx x9, x9, #0, #55 ; cbz x9, ->cannot_start ; mul x9, x9, x20);
        self.append(&format!("seawall: page {name} 0x"));
        a64!(self ; mov x0, x9 ; bl ->hexadecimal ; bl ->flush);
    }
}
