//! Input for the guest's console: a terminal, key by key, or any other standard input.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// Ctrl-a: the next key is a command for us.
const ESCAPE: u8 = 1;

/// Input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Input for the guest.
    Bytes(Vec<u8>),
    /// Ctrl-a x: the user wants to leave.
    Leave,
    /// The end of the input.
    Nothing,
}

/// The number of bytes in one read.
const CHUNK: usize = 4096;
/// The number of chunks that wait for the guest to take them.
const CHUNKS: usize = 16;

/// The source of input, or none.
pub(super) struct Keyboard {
    from: From,
    terminal: Option<RawTerminal>,
}

enum From {
    Nobody,
    /// Standard input is a file, which is read as the guest takes it, so that each run with it is the same.
    File,
    /// A thread reads standard input, which may have no end, no further than the guest takes it.
    Thread {
        typed: Receiver<Vec<u8>>,
        leaves: Arc<AtomicBool>,
    },
}

impl Keyboard {
    /// No input.
    pub(super) fn none() -> Self {
        Self { from: From::Nobody, terminal: None }
    }

    /// Input from standard input. `leave` is called when the user asks to leave, even if earlier input is not
    /// yet taken.
    pub(super) fn stdin(leave: impl Fn() + Send + 'static) -> Self {
        let terminal = RawTerminal::new();
        if fstat(io::stdin().as_fd()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file()) {
            return Self { from: From::File, terminal };
        }
        let (sender, typed) = mpsc::sync_channel(CHUNKS);
        let leaves = Arc::new(AtomicBool::new(false));
        let (is_terminal, sets_leaves) = (terminal.is_some(), leaves.clone());
        thread::spawn(
            move || if is_terminal { read_keys(&sender, &sets_leaves, &leave) } else { read(&sender) },
        );
        Self { from: From::Thread { typed, leaves }, terminal }
    }

    /// Returns true if more input may come.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.from, From::Nobody)
    }

    /// Returns true at a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Returns true if the user asked to leave, whatever other input there is.
    pub(super) fn wants_to_leave(&self) -> bool {
        matches!(&self.from, From::Thread { leaves, .. } if leaves.load(Ordering::Relaxed))
    }

    /// The input since the last call; `None` if there was none within `wait`.
    pub(super) fn typed(&mut self, wait: Duration) -> Option<Typed> {
        if self.wants_to_leave() {
            return Some(Typed::Leave);
        }
        let typed = match &self.from {
            From::Nobody => return None,
            From::File => chunk().ok_or(RecvTimeoutError::Disconnected),
            From::Thread { typed, .. } => typed.recv_timeout(wait),
        };
        match typed {
            Ok(bytes) => Some(Typed::Bytes(bytes)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) if self.wants_to_leave() => Some(Typed::Leave),
            Err(RecvTimeoutError::Disconnected) => {
                self.from = From::Nobody;
                Some(Typed::Nothing)
            }
        }
    }
}

/// The next chunk of standard input; `None` at its end.
fn chunk() -> Option<Vec<u8>> {
    let mut buffer = [0; CHUNK];
    let read = io::stdin().lock().read(&mut buffer).ok().filter(|read| *read > 0)?;
    buffer.get(..read).map(<[u8]>::to_vec)
}

/// Reads standard input to its end, as long as there is a receiver.
fn read(listener: &SyncSender<Vec<u8>>) {
    while let Some(bytes) = chunk() {
        if listener.send(bytes).is_err() {
            return;
        }
    }
}

/// Reads a terminal's keys until the user asks to leave. As with any terminal, keys that nobody takes are
/// lost.
fn read_keys(listener: &SyncSender<Vec<u8>>, leaves: &AtomicBool, leave: &dyn Fn()) {
    let mut keys = Keys::default();
    while let Some(bytes) = chunk() {
        let (bytes, wants_to_leave) = keys.take(&bytes);
        if !bytes.is_empty() {
            let _ = listener.try_send(bytes);
        }
        if wants_to_leave {
            leaves.store(true, Ordering::Relaxed);
            leave();
            return;
        }
    }
}

/// Keys of a terminal.
#[derive(Default)]
struct Keys {
    is_escaped: bool,
}

impl Keys {
    /// The guest's part of the keys, and true if the user asks to leave: ctrl-a x leaves, ctrl-a ctrl-a is
    /// one ctrl-a, ctrl-a before any other key is dropped with it.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let (mut rest, mut leaves) = (Vec::new(), false);
        for &byte in bytes {
            match (std::mem::take(&mut self.is_escaped), byte) {
                (false, ESCAPE) => self.is_escaped = true,
                (false, _) | (true, ESCAPE) => rest.push(byte),
                (true, b'x' | b'X') => leaves = true,
                (true, _) => {}
            }
        }
        (rest, leaves)
    }
}

/// The terminal's original state.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// Restores the terminal's original state, for a process that ends at once.
pub(super) fn restore_terminal() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
    }
}

/// A terminal that passes on each key unchanged, until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` if standard input is not a terminal.
    fn new() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // A bare-metal guest writes line feeds alone.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        let _ = BEFORE.set(before.clone());
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_leaves_and_ctrl_a_twice_is_one() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(keys.take(b"a\x01\x01b"), (b"a\x01b".to_vec(), false));
        assert_eq!(keys.take(b"\x01"), (vec![], false));
        assert_eq!(keys.take(b"x"), (vec![], true));
        assert_eq!(keys.take(b"\x01cx"), (b"x".to_vec(), false));
    }
}
