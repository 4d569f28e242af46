//! Words to text, by whichever disassembler is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// One line per word, or None if neither `aarch64-linux-gnu-objdump` nor `llvm-mc` can be run. Aliases are not used,
/// so that the mnemonic is the encoding's own. The first word is at `address`.
pub(super) fn disassemble(words: &[u32], address: u64) -> Option<Vec<String>> {
    objdump(words, address).or_else(|| llvm_mc(words))
}

fn objdump(words: &[u32], address: u64) -> Option<Vec<String>> {
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

fn llvm_mc(words: &[u32]) -> Option<Vec<String>> {
    words.iter().map(|&word| llvm_mc_word(word)).collect()
}

fn llvm_mc_word(word: u32) -> Option<String> {
    let mut child = Command::new("llvm-mc")
        .args(["-triple=aarch64", "-mattr=+v8.5a", "--disassemble"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let [a, b, c, d] = word.to_le_bytes();
    writeln!(child.stdin.take()?, "{a:#x} {b:#x} {c:#x} {d:#x}").ok()?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('.'));
    Some(line.unwrap_or("undefined").replace('\t', " "))
}
