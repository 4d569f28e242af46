//! The host uses all of its memory: processes write and read until little is left, and the kernel reads files.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use seawall_lab::Transcript;

use crate::linux::text;
use crate::report::expect;

/// The first argument of a process that uses memory; the second is the number of bytes.
const CHILD: &str = "--use-memory";
/// The bytes that are left to the rest of the host.
const LEFT: u64 = 96 << 20;
/// The number of rounds, because the kernel hands out the pages that it got back last.
const ROUNDS: usize = 3;
/// The time limit of a round, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// The words of a line, of which one is written and read.
const LINE: usize = 8;
/// The bytes of a file that are written at once.
const PIECE: usize = 1 << 20;
const FILE: &str = "/tmp/use-up";

/// The end of the processes that used memory.
pub(super) enum Met {
    /// None of them met a bad page; the used amount.
    Nothing(String),
    /// A process was killed by this signal.
    Signal(i32),
}

/// A number of /proc/meminfo, in bytes.
pub(super) fn meminfo(name: &str) -> Result<u64, String> {
    let all = fs::read_to_string("/proc/meminfo").map_err(text)?;
    let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| format!("expected {name} in /proc/meminfo"))
}

/// The available memory, less a reserve.
fn available() -> Result<u64, String> {
    Ok(meminfo("MemAvailable")?.saturating_sub(LEFT))
}

/// A process that writes a word of each line of its memory, and reads it back.
pub(super) fn child_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != CHILD {
        return None;
    }
    let words = arguments.next()?.parse::<usize>().ok()? / size_of::<usize>();
    let mut memory = vec![0_usize; words];
    for (n, word) in memory.iter_mut().enumerate().step_by(LINE) {
        *word = n | 1;
    }
    let memory = std::hint::black_box(memory);
    let right = memory.iter().enumerate().step_by(LINE).all(|(n, word)| *word == n | 1);
    Some(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Uses all memory by processes, then by files.
///
/// # Errors
/// A written value is not read back, or a process does not end.
pub(super) fn use_up(said: &Transcript) -> Result<Met, String> {
    let mut least = u64::MAX;
    for round in 1..=ROUNDS {
        fs::write("/proc/sys/vm/drop_caches", "3").map_err(text)?;
        let bytes = available()?;
        least = least.min(bytes);
        let status = use_memory(bytes)?;
        said.add(format!("round {round}: {} MiB: {status}", bytes >> 20));
        if let Some(signal) = status.signal() {
            return Ok(Met::Signal(signal));
        }
        expect("a process that read what it wrote", &status.code(), &Some(0))?;
    }
    let bytes = use_files()?;
    Ok(Met::Nothing(format!(
        "nobody met them in {ROUNDS} rounds of {} MiB by processes and {} MiB in files",
        least >> 20,
        bytes >> 20
    )))
}

fn use_memory(bytes: u64) -> Result<ExitStatus, String> {
    let program = std::env::current_exe().map_err(text)?;
    let mut child = Command::new(program).args([CHILD, &bytes.to_string()]).spawn().map_err(text)?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(text)? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill().and_then(|()| child.wait()).map_err(text)?;
            return Err(format!("expected {bytes} bytes to be used within {PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a file as large as memory allows, which the kernel reads.
fn use_files() -> Result<u64, String> {
    let pieces = available()? / 2 / PIECE as u64;
    let mut file = File::create(FILE).map_err(text)?;
    for piece in 0..pieces {
        file.write_all(&vec![piece as u8; PIECE]).map_err(text)?;
    }
    drop(file);
    let mut file = File::open(FILE).map_err(text)?;
    let mut bytes = vec![0; PIECE];
    for piece in 0..pieces {
        file.read_exact(&mut bytes).map_err(text)?;
        if bytes.iter().any(|byte| *byte != piece as u8) {
            return Err(format!("MiB {piece} of a file is not what was written"));
        }
    }
    fs::remove_file(FILE).map_err(text)?;
    Ok(pieces * PIECE as u64)
}
