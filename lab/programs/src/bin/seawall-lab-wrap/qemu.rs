//! Debian's own QEMU with a Debian guest, under `seawall wrap` or not.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use seawall_lab::Transcript;

use crate::lines::{Lines, PATIENCE};
use crate::ram::{Ram, text};

const PROGRAM: &str = "qemu-system-aarch64";
/// Bytes of a guest's memory.
pub(crate) const MEMORY: u64 = 256 << 20;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The options of `seawall wrap`; without any it is not there.
    pub(crate) wrap: Option<Vec<String>>,
    pub(crate) cpus: u32,
    /// For the guest's kernel.
    pub(crate) words: String,
    /// More options of QEMU's.
    pub(crate) options: Vec<String>,
}

impl Setup {
    pub(crate) fn new(wrap: Option<&[&str]>) -> Self {
        Self {
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

    fn command(&self, ram: &Ram) -> Command {
        let mut command = match &self.wrap {
            None => Command::new(PROGRAM),
            Some(options) => {
                let mut command = Command::new("seawall");
                command.arg("wrap").args(options).arg("--").arg(PROGRAM);
                command
            }
        };
        let backend =
            format!("memory-backend-file,id=ram,size={MEMORY},mem-path={},share=on", ram.path().display());
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
            .args(["-kernel", "/guest/vmlinuz", "-initrd", "/guest/initrd", "-append"])
            .arg(format!("console=ttyAMA0 panic=-1 quiet cryptomgr.notests {}", self.words))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<Qemu, String> {
        let ram = Ram::new(MEMORY)?;
        let mut child = self.command(&ram).spawn().map_err(text)?;
        let (console, notes) = (Lines::default(), Lines::default());
        if let Some(stdout) = child.stdout.take() {
            console.follow(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            notes.follow(stderr);
        }
        Ok(Qemu { child, console, notes, ram })
    }
}

/// A QEMU that is killed and waited for when it is let go.
pub(crate) struct Qemu {
    child: Child,
    /// What the guest says.
    pub(crate) console: Lines,
    /// What QEMU says, and the library in it.
    pub(crate) notes: Lines,
    pub(crate) ram: Ram,
}

impl Qemu {
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
        Err("QEMU did not end".to_owned())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(text)?;
        self.wait().map(drop)
    }

    /// For whoever has to find out why a scenario failed.
    pub(crate) fn tell(&self, said: &Transcript) {
        self.console.all().into_iter().for_each(|line| said.add(line));
        self.notes.all().into_iter().for_each(|line| said.add(format!("QEMU: {line}")));
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
