//! A run of the lab, from power-on or a snapshot to power-off, as it is seen through its two ports.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::stream::{State, Stream};

/// From power-on to the command. A free host takes 3 to 6 s.
const BOOT_TIME: Duration = Duration::from_secs(180);
/// From the command's end to power-off.
const STOP_TIME: Duration = Duration::from_secs(20);
/// How much of the console is kept to be shown if the lab is lost.
const CONSOLE_KEPT: usize = 8192;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The command ended with this code.
    Exited(i32),
    /// The command did not end within its time.
    TimedOut { console: String },
    /// The lab never came to the command.
    NotBooted { console: String },
    /// The lab went down under the command.
    Lost { console: String },
}

/// Runs an emulator to its end.
pub(crate) fn follow(
    mut command: Command,
    session: Session,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| Error::failed(format!("the emulator: {error}")))?;
    let mut emulator = Running { child };
    let events = emulator.events();
    session.follow(&events, output, errors)
}

/// An emulator that is killed and waited for when it is let go.
struct Running {
    child: Child,
}

/// What comes from it.
enum Event {
    Port(Vec<u8>),
    Console(Vec<u8>),
}

impl Running {
    /// Both its pipes in one channel, which is closed when both are.
    fn events(&mut self) -> Receiver<Event> {
        let (sender, receiver) = channel();
        if let Some(port) = self.child.stdout.take() {
            pump(port, sender.clone(), Event::Port);
        }
        if let Some(console) = self.child.stderr.take() {
            pump(console, sender, Event::Console);
        }
        receiver
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pump(mut from: impl Read + Send + 'static, to: Sender<Event>, event: fn(Vec<u8>) -> Event) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.send(event(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// A run as it is seen through its two ports.
pub(crate) struct Session {
    stream: Stream,
    console: VecDeque<u8>,
    start: Instant,
    timeout: Duration,
}

impl Session {
    pub(crate) fn new(stream: Stream, timeout: Duration) -> Self {
        Self { stream, console: VecDeque::new(), start: Instant::now(), timeout }
    }

    fn follow(
        mut self,
        events: &Receiver<Event>,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> Result<Ended> {
        let runs_already = self.stream.state() == State::Running;
        let mut deadline = self.start + if runs_already { self.timeout } else { BOOT_TIME };
        loop {
            let before = self.stream.state();
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Port(bytes)) => forward(output, &self.stream.take(&bytes))?,
                Ok(Event::Console(bytes)) => {
                    self.keep(&bytes);
                    // Before the command it is of no interest, and after it there is only the kernel's farewell.
                    if before == State::Running {
                        forward(errors, &bytes)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(self.ended(true)),
                Err(RecvTimeoutError::Disconnected) => return Ok(self.ended(false)),
            }
            deadline = match (before, self.stream.state()) {
                (State::Booting, State::Running) => Instant::now() + self.timeout,
                (State::Booting | State::Running, State::Ended(_)) => Instant::now() + STOP_TIME,
                _ => deadline,
            };
        }
    }

    /// What it came to, when nothing comes any more, or its time is over.
    fn ended(self, time_is_over: bool) -> Ended {
        let console = String::from_utf8_lossy(&Vec::from(self.console)).into_owned();
        match self.stream.state() {
            State::Ended(code) => Ended::Exited(code),
            State::Running if time_is_over => Ended::TimedOut { console },
            State::Running => Ended::Lost { console },
            State::Booting => Ended::NotBooted { console },
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.console.extend(bytes);
        let excess = self.console.len().saturating_sub(CONSOLE_KEPT);
        self.console.drain(..excess);
    }
}

fn forward(to: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    written.map_err(|error| Error::failed(format!("the output cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run with these events comes to, with the command's output and errors.
    fn check(events: Vec<Event>, open: bool) -> (Ended, String, String) {
        let (sender, receiver) = channel();
        for event in events {
            assert!(sender.send(event).is_ok());
        }
        let held = open.then_some(sender);
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let session = Session::new(Stream::new("w"), Duration::from_millis(50));
        let ended = session.follow(&receiver, &mut output, &mut errors).unwrap_or(Ended::Exited(-1));
        drop(held);
        let text = |bytes| String::from_utf8(bytes).unwrap_or_default();
        (ended, text(output), text(errors))
    }

    fn port(text: &str) -> Event {
        Event::Port(text.into())
    }

    fn console(text: &str) -> Event {
        Event::Console(text.into())
    }

    #[test]
    fn a_run_gives_output_errors_and_code_apart() {
        let events = vec![
            console("EFI stub\n"),
            port("w-begin\nout"),
            console("complaint\n"),
            port("put\nw-end 7\n"),
            console("Power down\n"),
        ];
        let (ended, output, errors) = check(events, false);
        assert_eq!(ended, Ended::Exited(7));
        assert_eq!(output, "output\n");
        assert_eq!(errors, "complaint\n");
    }

    #[test]
    fn a_lab_that_goes_down_is_lost_and_its_console_is_kept() {
        let (ended, ..) = check(vec![console("Kernel panic\n")], false);
        assert_eq!(ended, Ended::NotBooted { console: "Kernel panic\n".into() });
        let (ended, output, _) = check(vec![port("w-begin\nhalf"), console("Oops\n")], false);
        assert_eq!((ended, output.as_str()), (Ended::Lost { console: "Oops\n".into() }, "half"));
    }

    #[test]
    fn a_command_that_does_not_end_in_its_time_is_timed_out() {
        let (ended, output, _) = check(vec![port("w-begin\nstill here\n")], true);
        assert_eq!((ended, output.as_str()), (Ended::TimedOut { console: String::new() }, "still here\n"));
    }

    #[test]
    fn the_end_of_the_console_is_kept() {
        let mut session = Session::new(Stream::new("w"), Duration::ZERO);
        session.keep(&[b'a'; 5000]);
        session.keep(&[b'b'; 5000]);
        assert_eq!(session.console.len(), 8192);
        assert_eq!((session.console.front(), session.console.back()), (Some(&b'a'), Some(&b'b')));
    }
}
