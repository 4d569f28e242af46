//! The command, run.
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

/// JSON, a value on a line.
pub(crate) fn lines_of_json(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A file of the test's own, gone with it.
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
