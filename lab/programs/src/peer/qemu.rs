//! Debian's unchanged QEMU as a VMM for the same guest: with `ras=on` it writes a record and injects an abort
//! when its vCPU's thread gets SIGBUS.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap};
use tempfile::NamedTempFile;

use super::conductor::{Conductor, memory};
use super::image::{ERRORS, EXCHANGE, RAM_SIZE, command, image};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// fw_cfg's DMA address register in `virt`, big-endian. Source: QEMU, docs/specs/fw_cfg.rst.
const DMA_REGISTER: u64 = 0x0902_0000 + 16;
/// The key of the directory of files.
const DIRECTORY: u16 = 0x19;
/// The bytes of the directory that are read: a count and entries.
const DIRECTORY_SIZE: usize = 4 + 64 * ENTRY_SIZE;
/// An entry: size, key, two unused bytes, name; numbers are big-endian.
const ENTRY_SIZE: usize = 64;
/// Bits of the control word, whose upper half is the key.
const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;
/// The file in which QEMU expects the address of the error sources. Source: QEMU,
/// docs/specs/acpi_hest_ghes.rst.
const ADDRESS_FILE: &[u8] = b"etc/hardware_errors_addr";
/// The transferred data, after the access's four words.
const BUFFER: u64 = EXCHANGE + 0x100;

/// A QEMU that is killed and waited for when it is let go.
pub struct Qemu {
    child: Child,
    /// The guest's RAM, seen from here.
    memory: GuestMemoryMmap,
    ram: NamedTempFile,
    _firmware: NamedTempFile,
}

/// As it says it: `QEMU emulator version 10.0.13 (Debian …)`.
///
/// # Errors
/// It cannot be started, or says something else.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    let number = line.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    Ok(format!("QEMU {}", number.ok_or_else(|| format!("expected QEMU's version, got {line:?}"))?))
}

impl Qemu {
    /// Starts it, by this command without arguments of QEMU's; the guest waits for commands.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, pages: u64) -> Result<Self> {
        let ram = NamedTempFile::new_in("/dev/shm")?;
        ram.as_file().set_len(RAM_SIZE as u64)?;
        let memory = memory(ram.as_file(), None)?;
        Conductor::prepare(&memory, pages)?;
        let mut firmware = NamedTempFile::new()?;
        firmware.write_all(&image()?)?;
        let backend =
            format!("memory-backend-file,id=ram,size={RAM_SIZE},mem-path={},share=on", ram.path().display());
        command
            .args(["-accel", "kvm", "-M", "virt,gic-version=3,ras=on,memory-backend=ram", "-cpu", "host"])
            .args(["-smp", "1", "-m", &format!("{}M", RAM_SIZE >> 20), "-object", &backend])
            .args(["-nodefaults", "-nic", "none", "-display", "none", "-monitor", "none", "-no-reboot"])
            .arg("-bios")
            .arg(firmware.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        Ok(Self { child, memory, ram, _firmware: firmware })
    }

    /// RAM of the guest.
    pub fn file(&self) -> &File {
        self.ram.as_file()
    }

    /// Speaks to its guest.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn conduct<T>(&mut self, act: impl FnOnce(&mut Conductor<'_>) -> Result<T>) -> Result<T> {
        let Self { child, memory, .. } = self;
        let mut is_alive = || match child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("QEMU ended early: {status}; its last words are above").into()),
        };
        act(&mut Conductor::new(memory, &mut is_alive))
    }

    /// Does what firmware does for a guest: tells QEMU where the sources of errors are.
    ///
    /// # Errors
    /// The guest or QEMU does not do it.
    pub fn tell_sources(&mut self) -> Result<()> {
        let memory = self.memory.clone();
        self.conduct(|guest| {
            access(guest, &memory, control(DIRECTORY, READ), DIRECTORY_SIZE)?;
            let mut directory = vec![0; DIRECTORY_SIZE];
            memory.read_slice(&mut directory, GuestAddress(BUFFER))?;
            let key = key(&directory, ADDRESS_FILE).ok_or("expected etc/hardware_errors_addr in fw_cfg")?;
            memory.write_obj(ERRORS.to_le(), GuestAddress(BUFFER))?;
            access(guest, &memory, control(key, WRITE), size_of::<u64>())
        })
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn control(key: u16, act: u32) -> u32 {
    u32::from(key) << 16 | SELECT | act
}

/// Does one transfer between fw_cfg and the buffer: the guest's store to the register starts it, and ends
/// with it.
fn access(guest: &mut Conductor<'_>, memory: &GuestMemoryMmap, control: u32, length: usize) -> Result<()> {
    let words = [control.to_be(), (length as u32).to_be()];
    memory.write_obj(words, GuestAddress(EXCHANGE))?;
    memory.write_obj(BUFFER.to_be(), GuestAddress(EXCHANGE + 8))?;
    guest.command(command::STORE, [DMA_REGISTER, EXCHANGE.to_be()])?;
    match u32::from_be(memory.read_obj(GuestAddress(EXCHANGE))?) {
        0 => Ok(()),
        left => {
            Err(format!("expected fw_cfg to take control {control:#x}, got {left:#x} (error: {ERROR})")
                .into())
        }
    }
}

/// The key of a file in the directory.
fn key(directory: &[u8], file: &[u8]) -> Option<u16> {
    let (count, entries) = directory.split_first_chunk()?;
    let count = u32::from_be_bytes(*count) as usize;
    entries.chunks_exact(ENTRY_SIZE).take(count).find_map(|entry| {
        let name = entry.get(8..)?.split(|byte| *byte == 0).next()?;
        (name == file).then(|| entry.get(4..6)?.first_chunk().map(|key| u16::from_be_bytes(*key)))?
    })
}
