//! The smallest guest that takes input.

/// Echoes input from the PL011, waiting for each byte, until a `q`; then powers off. It runs from any
/// address.
pub const ECHO: [u32; 11] = [
    0xd2a1_2013, // mov x19, #0x09000000
    0xb940_1a61, // next: ldr w1, [x19, #0x18]
    0x3727_ffe1, // tbnz w1, #4, next
    0xb940_0262, // ldr w2, [x19]
    0xb900_0262, // str w2, [x19]
    0x7101_c45f, // cmp w2, #'q'
    0x54ff_ff61, // b.ne next
    0x5280_0100, // mov w0, #8
    0x72b0_8000, // movk w0, #0x8400, lsl #16 (SYSTEM_OFF)
    0xd400_0002, // hvc #0
    0x1400_0000, // b .
];
