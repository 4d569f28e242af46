//! Runs of the command.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn seawall(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seawall")).args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: stdout {:?}, stderr {:?}", text(&output.stdout), text(&output.stderr))
    })
}

/// JSON, one value on each line.
pub(crate) fn lines_of_json(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A test's own file, removed with it.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("seawall-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    /// A flat image of instruction words.
    pub(crate) fn code(name: &str, words: &[u32]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self::new(name, &bytes)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// mov w0, #PSCI function; hvc #0
pub(crate) const MOV_W0_8: u32 = 0x5280_0100; // mov w0, #8
pub(crate) const MOV_W0_9: u32 = 0x5280_0120; // mov w0, #9
pub(crate) const MOVK_W0_8400: u32 = 0x72b0_8000; // movk w0, #0x8400, lsl #16
pub(crate) const HVC: u32 = 0xd400_0002; // hvc #0
pub(crate) const BRANCH_SELF: u32 = 0x1400_0000; // b .
pub(crate) const WFI: u32 = 0xd503_207f;
pub(crate) const NOP: u32 = 0xd503_201f;

/// Prints `hi` on the UART, then SYSTEM_OFF.
pub(crate) const HELLO: [u32; 8] = [
    0xd2a1_2001, // mov x1, #0x09000000
    0x5280_0d02, // mov w2, #'h'
    0xb900_0022, // str w2, [x1]
    0x5280_0d22, // mov w2, #'i'
    0xb900_0022, // str w2, [x1]
    MOV_W0_8,
    MOVK_W0_8400,
    HVC,
];

/// Loads from 0x40200000 with vectors at +0x800 whose EL1 synchronous one is `handler`.
pub(crate) fn loader(handler: u32) -> Vec<u32> {
    let mut words = vec![
        0x1000_4000, // adr x0, . + 0x800
        0xd518_c000, // msr vbar_el1, x0
        0xd2a8_0401, // mov x1, #0x40200000
        0xf940_0022, // ldr x2, [x1]
        MOV_W0_8,
        MOVK_W0_8400,
        HVC,
    ];
    words.resize(0x800 / 4 + 0x200 / 4, NOP);
    words.push(handler);
    words
}

/// A guest that writes `text` to the UART, and then runs `then`.
pub(crate) fn says(text: &str, then: &[u32]) -> Vec<u32> {
    let message = 6 + then.len() as u32;
    let mut words = vec![
        0xd2a1_2013,                      // mov x19, #0x09000000
        0x1000_0001 | (message - 1) << 5, // adr x1, message
        0x3840_1422,                      // next: ldrb w2, [x1], #1
        0x3400_0062,                      // cbz w2, then
        0x3900_0262,                      // strb w2, [x19]
        0x17ff_fffd,                      // b next
    ];
    words.extend(then);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((text.len() + 1).next_multiple_of(4), 0);
    words.extend(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())));
    words
}

pub(crate) const OFF: [u32; 3] = [MOV_W0_8, MOVK_W0_8400, HVC];
pub(crate) const RESET: [u32; 3] = [MOV_W0_9, MOVK_W0_8400, HVC];

/// An arm64 Linux Image (booting.rst) that is a branch over its header to `code`, and asks for `size` bytes
/// of memory.
pub(crate) fn image(size: u64, code: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(&0x1400_0010_u32.to_le_bytes());
    bytes[16..24].copy_from_slice(&size.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Exit code and the last line of stderr.
pub(crate) fn ends(args: &[&str]) -> (Option<i32>, String) {
    let output = seawall(&[&["run"], args].concat());
    let stderr = text(&output.stderr);
    (output.status.code(), stderr.lines().last().unwrap_or_default().to_owned())
}

pub(crate) fn error(code: i32, message: &str) -> (Option<i32>, String) {
    (Some(code), format!("error: {message}"))
}

/// Asks for a reset if its load aborts.
pub(crate) fn resetter(name: &str) -> File {
    let mut words = loader(MOV_W0_9);
    words.extend([MOVK_W0_8400, HVC]);
    File::code(name, &words)
}
