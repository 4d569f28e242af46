//! One side: the image as a static ELF under `qemu-aarch64`, which runs it as a Linux process.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::case::Outcome;
use crate::generate::Cpu;
use crate::image::{self, FaultCode, Image};
use crate::layout;

/// The program, and our own file name for images.
pub(super) struct Qemu {
    program: PathBuf,
    elf: PathBuf,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.elf);
    }
}

impl Qemu {
    /// Finds `qemu-aarch64` on the PATH; None if it is missing.
    pub(super) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let program =
            std::env::split_paths(&path).map(|dir| dir.join("qemu-aarch64")).find(|p| p.is_file())?;
        let elf = std::env::temp_dir().join(format!("seawall-diff-isa-{}.elf", std::process::id()));
        Some(Self { program, elf })
    }

    /// "qemu-aarch64 version …", in its own words.
    pub(super) fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("qemu-aarch64").to_owned()
    }

    /// Runs an image to its end.
    pub(super) fn run(&self, image: &Image, cpu: Cpu) -> Result<Vec<Outcome>, String> {
        write_elf(&self.elf, image).map_err(|e| format!("cannot write {}: {e}", self.elf.display()))?;
        let mut child = Command::new(&self.program)
            .args(["-cpu", cpu.option()])
            .arg(&self.elf)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.program.display()))?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            match child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err("qemu-aarch64 did not end within 60 s".into());
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let records = stdout.join().unwrap_or_default();
        if !status.success() || records.len() != image.records.len() {
            let stderr = stderr.join().unwrap_or_default();
            return Err(format!(
                "qemu-aarch64 ended with {status} and {} of {} bytes: {}",
                records.len(),
                image.records.len(),
                String::from_utf8_lossy(&stderr).trim()
            ));
        }
        Ok(image::outcomes(&records, FaultCode::Signal))
    }
}

/// Reads a pipe to its end on a thread, so that the child never waits for us.
fn drain<R: std::io::Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// A static ELF64 executable for AArch64: header, two program headers, code, data (ELF for the Arm 64-bit Architecture, ELFCLASS64).
fn write_elf(path: &Path, image: &Image) -> std::io::Result<()> {
    const PAGE: u64 = 0x1000;
    const HEADERS: u64 = 64 + 2 * 56;
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    let code_size = image.code.len() as u64;
    let code_at = PAGE;
    let data_at = code_at + code_size.next_multiple_of(PAGE);
    // The records are a whole number of pages above the start of data, which itself is zero and has no bytes
    // in the file.
    let records_offset = layout::RECORDS - layout::DATA;
    let records_size = image.records.len() as u64;

    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    half(&mut elf, &[2, 183]); // ET_EXEC, EM_AARCH64
    word(&mut elf, &[1]);
    double(&mut elf, &[image.entry, 64, 0]); // entry, program headers, no section headers
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 2, 64, 0, 0]);
    for (flags, at, address, in_file, in_memory) in [
        (READ_EXECUTE, code_at, layout::CODE, code_size, code_size),
        (READ_WRITE, data_at, layout::DATA, records_offset + records_size, layout::END - layout::DATA),
    ] {
        word(&mut elf, &[1, flags]); // PT_LOAD
        double(&mut elf, &[at, address, address, in_file, in_memory, PAGE]);
    }
    debug_assert_eq!(elf.len() as u64, HEADERS);
    elf.resize(code_at as usize, 0);
    elf.extend_from_slice(&image.code);
    elf.resize((data_at + records_offset) as usize, 0);
    elf.extend_from_slice(&image.records);

    let mut file = std::fs::File::create(path)?;
    make_executable(&file)?;
    file.write_all(&elf)
}

fn half(elf: &mut Vec<u8>, values: &[u16]) {
    elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn word(elf: &mut Vec<u8>, values: &[u32]) {
    elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn double(elf: &mut Vec<u8>, values: &[u64]) {
    elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

#[cfg(unix)]
fn make_executable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}
