//! A run of Debian's kernel as a guest, from its first instruction to its end.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use seawall::{Action, Delivery, Outcome, Recorded};
use seawall_lab_machine::PoisonRegister;
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::initramfs::Initramfs;
use seawall_vmm::{Config, End, Guest, KvmMachine};

use crate::files;
use crate::report::{Sigbus, expect, recovered};
use crate::watch::{Road, Seen, Watch};

/// The time limit of a run, after which it counts as hung: most take ten seconds, and a minute on a busy
/// host.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);
/// Size of a guest's memory in bytes.
pub(crate) const MEMORY: u64 = 256 << 20;
/// Size of its disk in bytes.
const DISK: u64 = 16 << 20;

/// The configuration of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linux {
    pub(crate) cpus: u32,
    /// ACPI with our HEST, otherwise a device tree.
    pub(crate) acpi: bool,
    pub(crate) policy: &'static str,
    /// An empty disk, and the modules for it in /modules.
    pub(crate) disk: bool,
    pub(crate) road: Road,
    pub(crate) hold: Duration,
    /// The time for the guest to read a record before the next is written; `None` for the usual second.
    pub(crate) patience: Option<Duration>,
    /// More words for the kernel's command line.
    pub(crate) words: &'static str,
    /// The script of init; before it, everything is mounted, and after it, the kernel's messages are printed.
    pub(crate) script: &'static str,
}

impl Linux {
    /// One vCPU, ACPI, aborts as they happened, memory bad at once.
    pub(crate) const DEFAULT: Self = Self {
        cpus: 1,
        acpi: true,
        policy: "full",
        disk: false,
        road: Road::Register(1),
        hold: Duration::ZERO,
        patience: None,
        words: "",
        script: "",
    };
}

/// The part before a scenario's own script.
const PROLOGUE: &str = "#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t tmpfs tmp /tmp
busybox --install -s /bin
";
/// The part after it: the kernel's messages, and no more, because each character is an exit; and that it
/// lives. If nothing told the kernel which page is bad, no new process may get that page; the scripts take
/// care of that.
const EPILOGUE: &str = "
dmesg | grep -E 'recovery action|WARNING|BUG|Oops|Internal error|Unable to handle|stall|lockup'
grep HardwareCorrupted /proc/meminfo
echo \"init: the guest lives, and $(echo seawall | sha256sum | cut -c -8) is right\"
poweroff -f
";
/// The content of the last line: the hash is that of `sha256sum` on another machine.
const LIVES: &str = "init: the guest lives, and f3500d84 is right";
/// The messages of a kernel whose memory is damaged.
const TROUBLE: [&str; 7] =
    ["WARNING", "BUG", "Oops", "Internal error", "Unable to handle", "stall", "lockup"];
/// Kernel messages must not mix with the processes' lines: the kernel prints nothing until it is asked, or
/// panics.
const COMMAND_LINE: &str = "console=ttyAMA0 panic=-1 quiet loglevel=1 cryptomgr.notests";

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) end: End,
    pub(crate) seen: Seen,
    /// The time from the last poisoning to the guest's end.
    pub(crate) after: Option<Duration>,
}

impl Linux {
    /// Runs the guest.
    ///
    /// # Errors
    /// The failure on the host's side, with the guest's output.
    pub(crate) fn run(&self) -> Result<Run, (String, Vec<String>)> {
        let watch = Watch::new(self.road, self.hold);
        let done = self.run_watched(&watch);
        // The guest's memory must be good when it goes back to the host.
        if let Ok(mut register) = PoisonRegister::open() {
            register.heal_all();
        }
        let seen = watch.take();
        match (done, &seen.failure) {
            (Ok((end, at)), None) => {
                Ok(Run { end, after: seen.since.map(|since| at.saturating_duration_since(since)), seen })
            }
            (Ok(_), Some(failure)) => Err((failure.clone(), seen.lines)),
            (Err(error), _) => Err((error, seen.lines)),
        }
    }

    fn run_watched(&self, watch: &Watch) -> Result<(End, Instant), String> {
        let guest = self.guest()?;
        let mut config = Config::new(MEMORY);
        config.cpus = self.cpus;
        config.acpi = self.acpi;
        config.policy = Box::new(self.policy.parse::<seawall::Rules>().map_err(|error| error.to_string())?);
        if self.disk {
            let path = Path::new("/tmp/disk");
            File::create(path).and_then(|file| file.set_len(DISK)).map_err(text)?;
            config.disks.push(Disk::open(path, Writes::InMemory).map_err(text)?);
        }
        let mut machine = KvmMachine::new(config, &guest, Box::new(watch.clone())).map_err(text)?;
        if let Some(patience) = self.patience {
            machine.set_patience(patience);
        }
        watch.set_memory(machine.memory());
        let end = machine.run(Some(LIMIT)).map_err(text)?;
        Ok((end, Instant::now()))
    }

    /// The guest's kernel with init's script.
    pub(crate) fn guest(&self) -> Result<Guest, String> {
        let command_line = format!("{COMMAND_LINE} {}", self.words);
        let mut guest = Guest::read(Path::new(files::KERNEL), None, &command_line, MEMORY).map_err(text)?;
        guest.initrd = Some(self.initramfs()?);
        Ok(guest)
    }

    fn initramfs(&self) -> Result<Vec<u8>, String> {
        let mut archive = ["bin", "dev", "disk", "modules", "proc", "tmp"]
            .iter()
            .fold(Initramfs::default(), |archive, folder| archive.directory(folder))
            .character_device("dev/console", 5, 1)
            .program("init", format!("{PROLOGUE}{}{EPILOGUE}", self.script).as_bytes());
        for (name, program) in files::programs()? {
            archive = archive.program(&format!("bin/{name}"), &program);
        }
        if self.disk {
            for (name, module) in files::modules()? {
                archive = archive.file(&format!("modules/{name}"), &module);
            }
        }
        Ok(archive.link("bin/sh", "busybox").finish())
    }
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Run {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.seen.lines.iter().any(|seen| seen == line)
    }

    /// The first line with this beginning.
    pub(crate) fn line(&self, start: &str) -> Result<&str, String> {
        let line = self.seen.lines.iter().find(|line| line.starts_with(start));
        line.map(String::as_str).ok_or_else(|| format!("expected a line {start:?}..., got none"))
    }

    /// The processes' reports of their SIGBUS.
    pub(crate) fn sigbus(&self) -> Vec<Sigbus> {
        self.seen.lines.iter().filter_map(|line| Sigbus::parse(line)).collect()
    }

    /// The only SIGBUS of the run.
    pub(crate) fn only_sigbus(&self) -> Result<Sigbus, String> {
        match &self.sigbus()[..] {
            [sigbus] => Ok(sigbus.clone()),
            all => Err(format!("expected one SIGBUS, got {all:x?}")),
        }
    }

    /// Checks that the guest went on to its own end, that its kernel reported no trouble, and that
    /// `corrupted` kB are offline.
    pub(crate) fn expect_alive(&self, corrupted: u64) -> Result<(), String> {
        expect("the guest's end", &self.end, &End::PowerOff)?;
        if let Some(line) = self.seen.lines.iter().find(|line| TROUBLE.iter().any(|word| line.contains(word)))
        {
            return Err(format!("the guest's kernel complains: {line}"));
        }
        if !self.has(LIVES) {
            return Err(format!("expected the line {LIVES:?}"));
        }
        let words = self.line("HardwareCorrupted:")?.split_whitespace().nth(1).unwrap_or_default();
        expect("HardwareCorrupted, kB", &words.to_owned(), &corrupted.to_string())
    }

    /// Checks that Linux took exactly the bad pages offline, and gave each of them this name.
    pub(crate) fn expect_offline(&self, what: &str) -> Result<(), String> {
        let bad: Vec<(u64, &str)> = self.seen.bad.iter().map(|(gpa, _)| (*gpa, what)).collect();
        self.expect_each_offline(&bad)
    }

    /// Checks that Linux took exactly these pages offline, and gave each of them this name.
    pub(crate) fn expect_each_offline(&self, bad: &[(u64, &str)]) -> Result<(), String> {
        let mut expected: Vec<(u64, &str)> = bad.iter().map(|(gpa, what)| (gpa >> 12, *what)).collect();
        let mut offline: Vec<(u64, &str)> =
            self.seen.lines.iter().filter_map(|line| recovered(line)).collect();
        expected.sort_unstable();
        offline.sort_unstable();
        expect("frames taken offline", &offline, &expected)
    }

    /// The console's lines, and the outcome of each error.
    pub(crate) fn transcript(&self) -> Vec<String> {
        let outcomes = self.seen.outcomes.iter().map(|(cpu, outcome)| format!("vcpu {cpu}: {outcome}"));
        self.seen.lines.iter().cloned().chain(outcomes).collect()
    }

    /// Checks that each error was on a page that was made bad, had this exit's ESR if it came from an exit,
    /// was injected as an abort, and was recorded as expected.
    pub(crate) fn expect_outcomes(
        &self,
        count: usize,
        esr: Option<u64>,
        is_recorded: bool,
    ) -> Result<(), String> {
        expect("errors met", &self.seen.outcomes.len(), &count)?;
        self.seen.outcomes.iter().try_for_each(|(_, outcome)| self.expect_outcome(outcome, esr, is_recorded))
    }

    pub(crate) fn expect_outcome(
        &self,
        outcome: &Outcome,
        esr: Option<u64>,
        is_recorded: bool,
    ) -> Result<(), String> {
        let failed = |why: &str| Err(format!("{why}: {outcome}"));
        if outcome.error.esr.map(seawall_arm::Esr::bits) != esr {
            return failed("expected another ESR of the exit");
        }
        let page = outcome.error.gpa.map(|gpa| gpa & !0xfff);
        if !self.seen.bad.iter().any(|(gpa, _)| Some(gpa & !0xfff) == page) {
            return failed("nobody made that page bad");
        }
        if !matches!(outcome.action, Action::Injected { guest: Delivery::AtVector { .. }, .. }) {
            return failed("expected an abort that the guest takes");
        }
        if matches!(outcome.recorded, Recorded::AtSource(_)) != is_recorded {
            return failed(if is_recorded { "expected a record" } else { "expected no record" });
        }
        Ok(())
    }
}
