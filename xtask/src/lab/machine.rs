//! The lab's machine: the command line of what it runs on, and a run from power-on to power-off.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::emulator::Emulator;
use super::error::{Error, Result};
use super::stream::{State, Stream};

/// How much memory the kernel's selftests want, with their one huge page of 1 GiB.
const HUGE_PAGE_FROM_MIB: u32 = 3072;
/// Has every feature that QEMU knows, AArch32 at EL1 and nested virtualization among them.
const CPU_WITH_ALL: &str = "max";
/// With 52 bits of physical address KVM's nested guests take ten times as long.
const CPU_WITH_ALL_OPTIONS: &str = ",lpa2=off";
/// How QEMU's CPUs run: on a thread each, or one after the other, by their clock.
const PARALLEL: &[&str] = &["-accel", "tcg,thread=multi"];
const INSTRUCTIONS: &[&str] = &["-accel", "tcg,thread=single", "-icount", "shift=0"];
/// The line of the console on which the lab is booted (`init.sh`).
const BOOTED: &str = "seawall.lab: booted";
/// Instructions that no run comes to.
const NO_END: &str = "1_000_000_000_000_000";
/// From power-on to the command. A free host takes 3 to 6 s.
const BOOT_TIME: Duration = Duration::from_secs(180);
/// From the command's end to power-off.
const STOP_TIME: Duration = Duration::from_secs(20);
/// How much of the console is kept to be shown if the lab is lost.
const CONSOLE_KEPT: usize = 8192;

/// What machine to boot.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Machine {
    /// The CPU: neoverse-n2; or max, with which KVM has AArch32 guests and nested ones; with QEMU's options, if any
    #[arg(long, default_value = "neoverse-n2", value_name = "MODEL")]
    pub(crate) cpu: String,
    /// On Seawall's own machine instead of QEMU: no QEMU is built, and each run is the same; without AArch32, nested
    /// virtualization and SVE
    #[arg(long = "machine", conflicts_with = "cpu")]
    pub(crate) ours: bool,
    /// Seawall's machine has ACPI instead of a device tree, and an EINJ table by which Linux's einj driver turns memory bad
    #[arg(long, requires = "ours")]
    pub(crate) acpi: bool,
    /// Writes a snapshot of Seawall's machine, and goes on: after so many instructions, when the lab's console has a line with
    /// this text, or when it ends; may be given several times
    #[arg(long, requires = "ours", value_name = "FILE[@COUNT|@TEXT]")]
    pub(crate) snapshot: Vec<String>,
    /// Goes on from a snapshot of a running command, as often as you like: to the bit as it went on then
    #[arg(long, requires = "ours", value_name = "FILE")]
    pub(crate) restore: Option<PathBuf>,
    /// Writes each exit of the KVM inside to FILE: reason, ESR, FAR, HPFAR, PC, instructions; as JSON if it ends in .json
    #[arg(long, requires = "ours", value_name = "FILE")]
    pub(crate) trace_exits: Option<PathBuf>,
    /// Number of CPUs; one is fastest
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) smp: u32,
    /// Memory in MiB; from 3072 on there is a huge page of 1 GiB
    #[arg(long, default_value_t = 3072, value_name = "MIB")]
    pub(crate) memory: u32,
    /// Words to add to the kernel's command line
    #[arg(long, default_value = "", value_name = "WORDS")]
    pub(crate) append: String,
    /// A nanosecond of the machine's time is an instruction: slow, and every figure the same each time
    #[arg(skip)]
    pub(crate) counts_instructions: bool,
}

/// What it boots from.
pub(crate) struct Images {
    pub(crate) emulator: Emulator,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

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

/// What the command line gives where nothing is asked for.
impl Default for Machine {
    fn default() -> Self {
        Self {
            cpu: "neoverse-n2".into(),
            ours: false,
            acpi: false,
            snapshot: Vec::new(),
            restore: None,
            trace_exits: None,
            smp: 1,
            memory: HUGE_PAGE_FROM_MIB,
            append: String::new(),
            counts_instructions: false,
        }
    }
}

impl Machine {
    /// What the lab runs on, for people.
    pub(crate) fn name(&self) -> &str {
        if self.ours { "Seawall's machine" } else { &self.cpu }
    }

    /// Adds what machine it is and what it boots, but for the serial ports: the first is the console, the second the command's.
    fn describe(&self, command: &mut Command, images: &Images) {
        match &images.emulator {
            Emulator::Qemu(_) => self.describe_to_qemu(command),
            Emulator::Machine(_) => {
                command
                    .args(self.description())
                    .arg("--kernel")
                    .arg(&images.kernel)
                    .arg("--initrd")
                    .arg(&images.initramfs);
                return;
            }
        }
        command
            .arg("-kernel")
            .arg(&images.kernel)
            .arg("-initrd")
            .arg(&images.initramfs)
            .args(["-append", &self.kernel_words()]);
    }

    /// Seawall's machine, but for the files that it boots.
    pub(crate) fn description(&self) -> Vec<String> {
        let memory = format!("{}M", self.memory);
        let words = ["run", "--el2", "--backend", "machine", "--max-insns", NO_END];
        let words = words.into_iter().map(str::to_owned);
        words
            .chain(["--cpus".into(), self.smp.to_string(), "--memory".into(), memory])
            .chain(["--append".into(), self.kernel_words()])
            .chain(self.acpi.then(|| "--acpi".into()))
            .collect()
    }

    /// A run of Seawall's machine from a snapshot.
    fn describe_restored(&self, command: &mut Command, snapshot: &Path) {
        command
            .args(["run", "--backend", "machine", "--max-insns", NO_END])
            .args(["--memory", &format!("{}M", self.memory)])
            .arg("--restore")
            .arg(snapshot);
    }

    /// The command's port of Seawall's machine, and what is to be kept of its run.
    fn describe_port(&self, command: &mut Command) {
        command.args(["--second-uart", "/dev/fd/3"]);
        for snapshot in &self.snapshot {
            command.args(["--snapshot", snapshot]);
        }
        if let Some(path) = &self.trace_exits {
            command.arg("--trace-exits").arg(path);
        }
    }

    fn describe_to_qemu(&self, command: &mut Command) {
        command
            .args(["-machine", "virt,virtualization=on,gic-version=3"])
            .args(if self.counts_instructions { INSTRUCTIONS } else { PARALLEL })
            .args(["-cpu", &self.cpu_model()])
            .args(["-smp", &self.smp.to_string(), "-m", &self.memory.to_string()])
            .args(["-nodefaults", "-nographic", "-monitor", "none", "-no-reboot"]);
    }

    /// The CPU as QEMU is told, with what our patch adds to it.
    fn cpu_model(&self) -> String {
        let options = if self.cpu == CPU_WITH_ALL { CPU_WITH_ALL_OPTIONS } else { "" };
        format!("{}{options},lab-double-fault2=on", self.cpu)
    }

    /// The kernel's command line. `seawall.lab` tells programs where they are.
    fn kernel_words(&self) -> String {
        let mut words = String::from(
            "console=ttyAMA0 quiet loglevel=1 panic=-1 oops=panic cryptomgr.notests iomem=relaxed seawall.lab",
        );
        if self.memory >= HUGE_PAGE_FROM_MIB {
            words += " hugepagesz=1G hugepages=1";
        }
        if !self.ours && self.cpu.starts_with(CPU_WITH_ALL) {
            words += " kvm-arm.mode=nested";
        }
        if !self.append.is_empty() {
            words.push(' ');
            words += &self.append;
        }
        words
    }

    /// Boots, with the terminal as the console, until it is powered off.
    pub(crate) fn interact(&self, images: &Images) -> Result<()> {
        let mut command = images.emulator.on_terminal();
        self.describe(&mut command, images);
        if let Emulator::Qemu(_) = images.emulator {
            command.args(["-chardev", "stdio,id=console,signal=off,mux=on", "-serial", "chardev:console"]);
        }
        let status = command.status().map_err(|error| Error::failed(format!("the emulator: {error}")))?;
        if status.success() { Ok(()) } else { Err(Error::failed(format!("the emulator: {status}"))) }
    }

    /// Runs a command. What it writes to stdout goes to `output`, what it writes to stderr and the kernel's last words to
    /// `errors`, both as they come. `word` is that of the marks.
    pub(crate) fn run(
        &self,
        images: &Images,
        start: Start<'_>,
        word: &str,
        timeout: Duration,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> Result<Ended> {
        let mut command = images.emulator.command(on_path("setpriv"));
        match start {
            Start::PowerOn => {
                self.describe(&mut command, images);
                // The emulator's own messages come with the console.
                command.args(["-serial", "file:/dev/stderr", "-serial", "stdio"]);
            }
            Start::Booted { snapshot, input } => {
                if snapshot.exists() {
                    self.describe_restored(&mut command, snapshot);
                } else {
                    self.describe(&mut command, images);
                    command.args(["--snapshot", &format!("{}@{BOOTED}", snapshot.display())]);
                }
                self.describe_port(&mut command);
                command.arg("--second-input").arg(input);
            }
        }
        follow(command, Session::new(Stream::new(word), timeout), output, errors)
    }

    /// Goes on from a snapshot of a running command: as [`Machine::run`].
    pub(crate) fn resume(
        &self,
        program: PathBuf,
        snapshot: &Path,
        word: &str,
        timeout: Duration,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> Result<Ended> {
        let mut command = Emulator::Machine(program).command(on_path("setpriv"));
        self.describe_restored(&mut command, snapshot);
        self.describe_port(&mut command);
        follow(command, Session::new(Stream::running(word), timeout), output, errors)
    }
}

/// Where a run begins.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// The machine is turned on; the command is in the initramfs.
    PowerOn,
    /// The lab is booted and asks for its command, which is in `input`. If there is no such snapshot yet it is turned on, and
    /// the snapshot is written in passing.
    Booted { snapshot: &'a Path, input: &'a Path },
}

/// Runs an emulator to its end.
fn follow(
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
struct Session {
    stream: Stream,
    console: VecDeque<u8>,
    start: Instant,
    timeout: Duration,
}

impl Session {
    fn new(stream: Stream, timeout: Duration) -> Self {
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

/// Whether a program is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder: PathBuf| Path::new(&folder).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpu: &str, memory: u32, append: &str) -> Machine {
        Machine { cpu: cpu.into(), memory, append: append.into(), smp: 2, ..Machine::default() }
    }

    fn words(cpu: &str, memory: u32, append: &str) -> String {
        machine(cpu, memory, append).kernel_words()
    }

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

    #[test]
    fn every_cpu_has_ease_and_max_no_lpa2_unless_options_are_given() {
        assert_eq!(machine("neoverse-n2", 1, "").cpu_model(), "neoverse-n2,lab-double-fault2=on");
        assert_eq!(machine("max", 1, "").cpu_model(), "max,lpa2=off,lab-double-fault2=on");
        assert_eq!(machine("max,sve=off", 1, "").cpu_model(), "max,sve=off,lab-double-fault2=on");
    }

    #[test]
    fn a_small_machine_has_no_huge_page() {
        assert!(words("neoverse-n2", 3072, "").ends_with(" seawall.lab hugepagesz=1G hugepages=1"));
        assert!(words("neoverse-n2", 2048, "").ends_with(" seawall.lab"));
    }

    #[test]
    fn kvm_is_nested_where_the_cpu_can_and_words_of_the_caller_come_last() {
        assert!(words("max", 2048, "").ends_with(" seawall.lab kvm-arm.mode=nested"));
        assert!(words("max,sve=off", 2048, "").ends_with(" seawall.lab kvm-arm.mode=nested"));
        assert!(words("max", 2048, "kvm-arm.mode=vhe").ends_with(" kvm-arm.mode=nested kvm-arm.mode=vhe"));
    }
}
