//! What is typed on the guest's console: a terminal, key by key, or whatever standard input is.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// Ctrl-a: the next key is for us.
const ESCAPE: u8 = 1;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// For the guest.
    Bytes(Vec<u8>),
    /// Ctrl-a x: the user wants to leave.
    Leave,
    /// There will be nothing more.
    Nothing,
}

/// Somebody who types, or nobody.
pub(super) struct Keyboard {
    /// From the thread that reads; gone when there will be nothing more.
    typed: Option<Receiver<Typed>>,
    terminal: Option<RawTerminal>,
}

impl Keyboard {
    /// Nobody types.
    pub(super) fn none() -> Self {
        Self { typed: None, terminal: None }
    }

    /// Standard input types. A file's bytes are there before this comes back, so that a run with them is the same
    /// each time. `leave` is called when somebody wants to leave, whatever is typed before that and not yet taken.
    pub(super) fn stdin(leave: impl Fn() + Send + 'static) -> Self {
        let (sender, typed) = mpsc::channel();
        let terminal = RawTerminal::new();
        let is_terminal = terminal.is_some();
        if fstat(io::stdin().as_fd()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file()) {
            read(is_terminal, &sender, &leave);
        } else {
            thread::spawn(move || read(is_terminal, &sender, &leave));
        }
        Self { typed: Some(typed), terminal }
    }

    /// Whether somebody may still type.
    pub(super) fn is_open(&self) -> bool {
        self.typed.is_some()
    }

    /// Whether a person sits there.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// What was typed since the last time; `None` if nothing was, within so long.
    pub(super) fn typed(&mut self, wait: Duration) -> Option<Typed> {
        let typed = self.typed.as_ref()?.recv_timeout(wait);
        match typed {
            Ok(Typed::Nothing) | Err(RecvTimeoutError::Disconnected) => {
                self.typed = None;
                Some(Typed::Nothing)
            }
            Ok(typed) => Some(typed),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

/// Reads standard input to its end, for who listens.
fn read(is_terminal: bool, listener: &Sender<Typed>, leave: &dyn Fn()) {
    let (mut buffer, mut keys) = ([0; 4096], Keys::default());
    let mut stdin = io::stdin().lock();
    while let Ok(read @ 1..) = stdin.read(&mut buffer) {
        let bytes = buffer.get(..read).unwrap_or_default();
        let (bytes, leaves) = if is_terminal { keys.take(bytes) } else { (bytes.to_vec(), false) };
        let heard = listener.send(Typed::Bytes(bytes));
        if heard.is_err() || leaves && listener.send(Typed::Leave).is_err() {
            return;
        }
        if leaves {
            leave();
        }
    }
    // Nobody listens any more if the guest ended.
    let _ = listener.send(Typed::Nothing);
}

/// Keys of a terminal.
#[derive(Default)]
struct Keys {
    is_escaped: bool,
}

impl Keys {
    /// What of the keys is for the guest, and whether the user wants to leave: ctrl-a x leaves, ctrl-a ctrl-a is one
    /// ctrl-a, ctrl-a before any other key is dropped with it.
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

/// The terminal as it was.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// The terminal is as it was again: for a process that ends at once.
pub(super) fn restore_terminal() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
    }
}

/// A terminal that gives each key as it is, until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` if standard input is no terminal.
    fn new() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // What a bare-metal guest writes has line feeds alone.
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
