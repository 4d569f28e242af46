//! The source's process: watches the guest, pauses it, and sends it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use seawall::migration::{Sent, hand_over};
use seawall_kvm::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use seawall_lab_machine::{PoisonRegister, physical_address};
use seawall_vmm::{End, KvmMachine, Observer};

use super::destination::ASKED;
use super::text;
use crate::Transcript;

/// The time limit of each wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Passes on the lines of the console, and turns memory bad as soon as a line asks for it.
pub(super) struct Watch {
    say: mpsc::Sender<String>,
    transcript: Transcript,
    /// The page that a line names.
    wants: fn(&str) -> Option<u64>,
    memory: Memory,
}

/// The guest's memory, once there is a guest.
pub(super) type Memory = Arc<Mutex<Option<GuestMemoryMmap>>>;

impl Watch {
    pub(super) fn new(
        wants: fn(&str) -> Option<u64>,
        transcript: &Transcript,
    ) -> (Box<Self>, mpsc::Receiver<String>, Memory) {
        let (say, seen) = mpsc::channel();
        let memory = Memory::default();
        let transcript = transcript.clone();
        (Box::new(Self { say, transcript, wants, memory: memory.clone() }), seen, memory)
    }

    fn tell(&self, line: String) {
        self.transcript.add(&line);
        let _ = self.say.send(line);
    }
}

impl Observer for Watch {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(page) = (self.wants)(line) {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let done = memory.as_ref().ok_or("no memory".to_owned()).and_then(|memory| poison(memory, page));
            if let Err(error) = done {
                self.tell(format!("{page:#x} could not be made bad: {error}"));
            }
        }
        self.tell(line.to_owned());
    }
}

/// Turns a line of guest memory bad without the knowledge of the host's kernel. Its page must have been
/// touched.
pub(super) fn poison(memory: &GuestMemoryMmap, gpa: u64) -> Result<(), String> {
    let host = memory.get_host_address(GuestAddress(gpa)).map_err(text)?;
    let physical = physical_address(host as u64).map_err(text)?;
    PoisonRegister::open().and_then(|mut register| register.poison(physical, 64)).map_err(text)
}

/// The source of a migration.
pub(super) struct Source {
    pub(super) machine: KvmMachine,
    pub(super) seen: mpsc::Receiver<String>,
    pub(super) lines: Vec<String>,
    pub(super) transcript: Transcript,
}

impl Source {
    /// Types `typed`, then runs the guest until its console has the `wanted` line. The guest stands still
    /// then; its ledger has the bad pages that it met.
    pub(super) fn run_until(
        &mut self,
        typed: &str,
        wanted: &str,
        mut is_wanted: impl FnMut(&str) -> bool,
    ) -> Result<String, String> {
        let (pauser, keyboard) = (self.machine.pauser(), self.machine.keyboard());
        let Self { machine, seen, lines, .. } = self;
        thread::scope(|scope| {
            let run = scope.spawn(|| machine.run_for(Some(PATIENCE)));
            keyboard.type_in(typed.as_bytes());
            let until = Instant::now() + PATIENCE;
            let found = loop {
                match seen.recv_timeout(Duration::from_millis(100)) {
                    Ok(line) => {
                        lines.push(line.clone());
                        if is_wanted(&line) {
                            break Some(line);
                        }
                    }
                    Err(_) if run.is_finished() || Instant::now() > until => break None,
                    Err(_) => {}
                }
            };
            pauser.pause();
            match (run.join().map_err(|_| "the run panicked".to_owned())?, found) {
                (Ok(None), Some(line)) => Ok(line),
                (Ok(Some(end)), _) => Err(format!("the guest {end}, before {wanted}")),
                (Err(error), _) => Err(error.to_string()),
                (Ok(None), None) => Err(format!("the guest does not say {wanted} within {PATIENCE:?}")),
            }
        })
    }

    /// Sends the guest to a receiver that stops after this many bytes: the migration must fail, and the guest
    /// stays here.
    pub(super) fn send_to_nobody(&mut self, after: u64) -> Result<String, String> {
        let (here, there) = UnixStream::pair().map_err(text)?;
        let reader = thread::spawn(move || std::io::copy(&mut (&there).take(after), &mut std::io::sink()));
        let sent = self.machine.send(&here, SystemTime::now());
        let read = reader.join().map_err(|_| "the reader panicked")?.map_err(text)?;
        match sent {
            Err(error) if read == after => Ok(error.to_string()),
            Err(error) => Err(format!("after {read} bytes: {error}")),
            Ok(_) => Err("expected a transfer to nobody to fail".to_owned()),
        }
    }

    /// Sends the guest to another process, and gives it away. Returns the time for which it stood still,
    /// until that process has taken it.
    pub(super) fn send(&mut self) -> Result<(Destination, Sent, Duration), String> {
        let start = Instant::now();
        let (destination, link) = Destination::start(&self.transcript)?;
        let sent = self.machine.send(&link, SystemTime::now()).map_err(text)?;
        hand_over(&link, &sent.checksum).map_err(text)?;
        Ok((destination, sent, start.elapsed()))
    }
}

/// The other process.
pub(super) struct Destination {
    child: Child,
    typed: ChildStdin,
    said: mpsc::Receiver<String>,
    pub(super) lines: Vec<String>,
    socket: PathBuf,
}

impl Destination {
    fn start(transcript: &Transcript) -> Result<(Self, UnixStream), String> {
        let socket = std::env::temp_dir().join(format!("seawall-lab-contain-{}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(text)?;
        let program = std::env::current_exe().map_err(text)?;
        let mut child = Command::new(program)
            .env(ASKED, &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let typed = child.stdin.take().ok_or("no standard input")?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let (say, said) = mpsc::channel();
        let transcript = transcript.clone();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                transcript.add(format!("destination: {line}"));
                let _ = say.send(line);
            }
        });
        let (link, _) = listener.accept().map_err(text)?;
        for timeout in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            timeout(&link, Some(PATIENCE)).map_err(text)?;
        }
        Ok((Self { child, typed, said, lines: Vec::new(), socket }, link))
    }

    /// Types this, and waits for the `wanted` line.
    pub(super) fn wait_for(
        &mut self,
        typed: &str,
        wanted: &str,
        mut is_wanted: impl FnMut(&str) -> bool,
    ) -> Result<String, String> {
        self.typed.write_all(typed.as_bytes()).and_then(|()| self.typed.flush()).map_err(text)?;
        loop {
            let Ok(line) = self.said.recv_timeout(PATIENCE) else {
                let end = self.child.try_wait();
                return Err(format!("the destination does not say {wanted} ({end:?})"));
            };
            self.lines.push(line.clone());
            if is_wanted(&line) {
                return Ok(line);
            }
        }
    }

    /// Types this, and waits for its end, which must be a success.
    pub(super) fn end(&mut self, typed: &str, expected: &End) -> Result<(), String> {
        let end = self.wait_for(typed, "how it ended", |line| line.starts_with(super::destination::END))?;
        super::expect(
            "the guest's end",
            end.as_str(),
            format!("{}{expected}", super::destination::END).as_str(),
        )?;
        let status = self.child.wait().map_err(text)?;
        super::expect("the destination's end", &status.code(), &Some(0))
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Heals all bad lines when dropped, so that the guest's memory goes back to the host good.
pub(super) struct Healed;

impl Drop for Healed {
    fn drop(&mut self) {
        if let Ok(mut register) = PoisonRegister::open() {
            register.heal_all();
        }
    }
}
