//! A VMM of other people's with a Debian guest, under `seawall wrap` or not: Debian's own QEMU, or alioth.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{self, OpenptFlags};
use seawall_lab::Transcript;
use seawall_lab::report::expect;

use crate::lines::{Lines, PATIENCE};
use crate::ram::{Ram, text};

/// The VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `qemu-system-aarch64`. The guest's memory is a file of ours.
    Qemu,
    /// A VMM from crates.io. The guest's memory is a memfd of its own.
    Alioth,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-aarch64",
            Self::Alioth => "alioth",
        }
    }
}

const KERNEL: &str = "/guest/vmlinuz";
const INITRD: &str = "/guest/initrd";

/// Bytes of a guest's memory.
pub(crate) const MEMORY: u64 = 256 << 20;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: Program,
    /// The options of `seawall wrap`; without any it is not there.
    pub(crate) wrap: Option<Vec<String>>,
    pub(crate) cpus: u32,
    /// For the guest's kernel.
    pub(crate) words: String,
    /// More options of the VMM's.
    pub(crate) options: Vec<String>,
}

impl Setup {
    pub(crate) fn new(wrap: Option<&[&str]>) -> Self {
        Self {
            program: Program::Qemu,
            wrap: wrap.map(|words| words.iter().map(ToString::to_string).collect()),
            cpus: 1,
            words: String::new(),
            options: Vec::new(),
        }
    }

    pub(crate) fn words(self, words: &str) -> Self {
        Self { words: words.to_owned(), ..self }
    }

    pub(crate) fn cpus(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    fn command(&self) -> Command {
        let program = self.program.name();
        let mut command = match &self.wrap {
            None => Command::new(program),
            Some(options) => {
                let mut command = Command::new("seawall");
                command.arg("wrap").args(options).arg("--").arg(program);
                command
            }
        };
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// For the guest's kernel.
    fn command_line(&self) -> String {
        format!("console=ttyAMA0 panic=-1 quiet cryptomgr.notests {}", self.words)
    }

    fn qemu(&self, ram: &Ram) -> Command {
        let backend =
            format!("memory-backend-file,id=ram,size={MEMORY},mem-path={},share=on", ram.path().display());
        let mut command = self.command();
        command
            .args([
                "-accel",
                "kvm",
                "-cpu",
                "host",
                "-M",
                "virt,gic-version=3,memory-backend=ram",
                "-object",
                &backend,
            ])
            .args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M,maxmem=2G,slots=4", MEMORY >> 20)])
            .args(["-nodefaults", "-nic", "none", "-display", "none", "-serial", "stdio"])
            .args(["-kernel", KERNEL, "-initrd", INITRD, "-append", &self.command_line()])
            .args(&self.options);
        command
    }

    fn alioth(&self) -> Command {
        let mut command = self.command();
        command
            .args(["boot", "--kernel", KERNEL, "--initramfs", INITRD, "--cmdline", &self.command_line()])
            .args(["--cpu", &format!("count={}", self.cpus)])
            .args(["--memory", &format!("size={}M,backend=memfd", MEMORY >> 20)])
            .args(&self.options);
        command
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<Vmm, String> {
        let (mut command, ram) = match self.program {
            Program::Qemu => {
                let ram = Ram::new(MEMORY)?;
                (self.qemu(&ram), Some(ram))
            }
            Program::Alioth => (self.alioth(), None),
        };
        // alioth wants a terminal. Nobody types.
        let (ours, stdin) = terminal()?;
        let mut child = command.stdin(stdin).spawn().map_err(text)?;
        let (console, notes) = (Lines::default(), Lines::default());
        if let Some(stdout) = child.stdout.take() {
            console.follow(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            notes.follow(stderr);
        }
        let name = self.program.name();
        let ram = ram.map_or_else(|| Ram::of_process(&mut child, "memfd:ram-low", MEMORY), Ok);
        let ram = ram.map_err(|error| format!("{name}: {error}: {:?}", notes.all()))?;
        Ok(Vmm { name, child, console, notes, ram, _terminal: ours })
    }
}

/// A terminal: the end of whoever sits before it, and the program's.
fn terminal() -> Result<(OwnedFd, OwnedFd), String> {
    let folder = Path::new("/dev/pts");
    if !folder.join("ptmx").exists() {
        fs::create_dir_all(folder).map_err(text)?;
        let status = Command::new("mount").args(["-t", "devpts", "devpts"]).arg(folder).status();
        expect("mount -t devpts", &status.map_err(text)?.success(), &true)?;
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = pty::openpt(flags).map_err(text)?;
    pty::unlockpt(&ours).map_err(text)?;
    let theirs = pty::ioctl_tiocgptpeer(&ours, flags).map_err(text)?;
    Ok((ours, theirs))
}

/// A VMM that is killed and waited for when it is let go.
pub(crate) struct Vmm {
    name: &'static str,
    child: Child,
    /// What the guest says.
    pub(crate) console: Lines,
    /// What the VMM says, and the library in it.
    pub(crate) notes: Lines,
    pub(crate) ram: Ram,
    /// The other end of its terminal.
    _terminal: OwnedFd,
}

impl Vmm {
    /// The address of the page that the guest calls so.
    pub(crate) fn page(&self, name: &str) -> Result<u64, String> {
        let line = self.console.wait(&format!("page {name} 0x"))?;
        let number = line.rsplit("0x").next().unwrap_or_default();
        u64::from_str_radix(number, 16).map_err(|error| format!("{line}: {error}"))
    }

    /// It goes bad as soon as the guest has named it.
    pub(crate) fn poison(&self, name: &str) -> Result<(), String> {
        self.ram.poison(self.page(name)?)
    }

    /// How it ended, when it did.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().map_err(text)? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} did not end", self.name))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(text)?;
        self.wait().map(drop)
    }

    /// For whoever has to find out why a scenario failed.
    pub(crate) fn tell(&self, said: &Transcript) {
        self.console.all().into_iter().for_each(|line| said.add(line));
        self.notes.all().into_iter().for_each(|line| said.add(format!("{}: {line}", self.name)));
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
