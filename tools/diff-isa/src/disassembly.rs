//! Words to text, by the installed disassembler.

use std::collections::HashSet;
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

/// One line per word, or None if neither `aarch64-linux-gnu-objdump` nor `llvm-mc` can be run. Aliases are
/// avoided as far as the disassembler allows, so that the mnemonic is the encoding's own. The first word is
/// at `address`.
pub(super) fn disassemble(words: &[u32], address: u64) -> Option<Vec<String>> {
    objdump(words, address).or_else(|| llvm_mc(words))
}

/// The same, by GNU's disassembler alone.
pub(super) fn objdump(words: &[u32], address: u64) -> Option<Vec<String>> {
    let path =
        std::env::temp_dir().join(format!("seawall-disassembly-{}-{:p}.bin", std::process::id(), words));
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(&path, bytes).ok()?;
    let output = Command::new("aarch64-linux-gnu-objdump")
        .args(["-D", "-z", "-b", "binary", "-m", "aarch64", "-M", "no-aliases"])
        .arg(format!("--adjust-vma={address:#x}"))
        .arg(&path)
        .stderr(Stdio::null())
        .output();
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    // "   0:\t91000000 \tadd\tx0, x0, #0x0"
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t');
            let (offset, _, text) = (parts.next()?, parts.next()?, parts.next()?);
            offset.trim().ends_with(':').then(|| text.replace('\t', " "))
        })
        .collect();
    (lines.len() == words.len()).then_some(lines)
}

/// One run for all words, a line each. llvm-mc names words that it cannot decode on stderr by their line, and
/// leaves them out.
fn llvm_mc(words: &[u32]) -> Option<Vec<String>> {
    let mut input = tempfile::tempfile().ok()?;
    for word in words {
        let [a, b, c, d] = word.to_le_bytes();
        writeln!(input, "{a:#x} {b:#x} {c:#x} {d:#x}").ok()?;
    }
    input.rewind().ok()?;
    let output = Command::new("llvm-mc")
        .args(["-triple=aarch64", "-mattr=+v8.5a", "--disassemble", "-M", "no-aliases"])
        .stdin(Stdio::from(input))
        .output()
        .ok()?;
    let errors = String::from_utf8(output.stderr).ok()?;
    let undefined: HashSet<usize> = errors.lines().filter_map(undecoded).collect();
    let text = String::from_utf8(output.stdout).ok()?;
    let mut decoded = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('.'));
    let line = |number| {
        if undefined.contains(&number) {
            return Some("undefined".to_owned());
        }
        Some(decoded.next()?.replace('\t', " "))
    };
    let lines = (1..=words.len()).map(line).collect::<Option<Vec<String>>>()?;
    decoded.next().is_none().then_some(lines)
}

/// The line in `<stdin>:3:1: warning: invalid instruction encoding`.
fn undecoded(error: &str) -> Option<usize> {
    let (place, what) = error.split_once(": warning: ")?;
    let line = place.strip_prefix("<stdin>:")?.split(':').next()?;
    what.starts_with("invalid instruction encoding").then(|| line.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_instruction_does_not_shift_the_others() {
        // sub, which has aliases; not allocated; add
        let Some(lines) = llvm_mc(&[0x7156_141f, 0x1fff_ffff, 0x8b02_0020]) else {
            eprintln!("skipped: llvm-mc is not installed");
            return;
        };
        let mnemonics: Vec<_> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(mnemonics, ["subs", "undefined", "add"]);
    }
}
