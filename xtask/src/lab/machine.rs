//! The lab's machine: the command line of what it runs on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::emulator::Emulator;
use super::error::{Error, Result};
use super::session::{Ended, Session, follow};
use super::stream::Stream;

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

/// The options that ask for QEMU.
const OF_QEMU: [&str; 2] = ["qemu", "cpu"];
/// QEMU's CPU where none is asked for.
const CPU: &str = "neoverse-n2";

/// What machine to boot.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Machine {
    /// On QEMU with the lab's changes, which is built from source once: ten minutes
    #[arg(long)]
    pub(crate) qemu: bool,
    /// On QEMU, with this CPU: neoverse-n2; or max, with which KVM has AArch32 guests and nested ones; with QEMU's options, if
    /// any
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// Seawall's machine has ACPI instead of a device tree, and an EINJ table by which Linux's einj driver turns memory bad
    #[arg(long, conflicts_with_all = OF_QEMU)]
    pub(crate) acpi: bool,
    /// Writes a snapshot of Seawall's machine, and goes on: after so many instructions, when the lab's console has a line with
    /// this text, or when it ends; may be given several times
    #[arg(long, conflicts_with_all = OF_QEMU, value_name = "FILE[@COUNT|@TEXT]")]
    pub(crate) snapshot: Vec<String>,
    /// Goes on from a snapshot of a running command, as often as you like: to the bit as it went on then
    #[arg(long, conflicts_with_all = OF_QEMU, value_name = "FILE")]
    pub(crate) restore: Option<PathBuf>,
    /// Writes each exit of the KVM inside to FILE: reason, ESR, FAR, HPFAR, PC, instructions; as JSON if it ends in .json
    #[arg(long, conflicts_with_all = OF_QEMU, value_name = "FILE")]
    pub(crate) trace_exits: Option<PathBuf>,
    /// Seawall's machine executes all code by its interpreter, and translates none
    #[arg(long, conflicts_with_all = OF_QEMU)]
    pub(crate) interpreter: bool,
    /// Number of CPUs; by default one, which is fastest, and two for contain, wrap and selftests --all
    #[arg(long, value_name = "N")]
    pub(crate) smp: Option<u32>,
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

/// What the command line gives where nothing is asked for.
impl Default for Machine {
    fn default() -> Self {
        Self {
            qemu: false,
            cpu: None,
            acpi: false,
            snapshot: Vec::new(),
            restore: None,
            trace_exits: None,
            interpreter: false,
            smp: None,
            memory: HUGE_PAGE_FROM_MIB,
            append: String::new(),
            counts_instructions: false,
        }
    }
}

impl Machine {
    /// What the lab runs on, for people.
    pub(crate) fn name(&self) -> &str {
        if self.is_qemu() { self.qemu_cpu() } else { "Seawall's machine" }
    }

    /// If it is QEMU: asked for by its name, or by that of a CPU that it has.
    pub(crate) fn is_qemu(&self) -> bool {
        self.qemu || self.cpu.is_some()
    }

    fn cpus(&self) -> u32 {
        self.smp.unwrap_or(1)
    }

    /// With so many CPUs, unless the number was asked for.
    pub(crate) fn or_cpus(&self, cpus: u32) -> Self {
        Self { smp: self.smp.or(Some(cpus)), ..self.clone() }
    }

    fn qemu_cpu(&self) -> &str {
        self.cpu.as_deref().unwrap_or(CPU)
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
                    .arg(&images.initramfs)
                    .args(self.interpreter.then_some("--interpreter"));
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
            .chain(["--cpus".into(), self.cpus().to_string(), "--memory".into(), memory])
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
            .arg(snapshot)
            .args(self.interpreter.then_some("--interpreter"));
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
            .args(["-smp", &self.cpus().to_string(), "-m", &self.memory.to_string()])
            .args(["-nodefaults", "-nographic", "-monitor", "none", "-no-reboot"]);
    }

    /// The CPU as QEMU is told, with what our patch adds to it.
    fn cpu_model(&self) -> String {
        let cpu = self.qemu_cpu();
        let options = if cpu == CPU_WITH_ALL { CPU_WITH_ALL_OPTIONS } else { "" };
        format!("{cpu}{options},lab-double-fault2=on")
    }

    /// The kernel's command line. `seawall.lab` tells programs where they are.
    fn kernel_words(&self) -> String {
        let mut words = String::from(
            "console=ttyAMA0 quiet loglevel=1 panic=-1 oops=panic cryptomgr.notests iomem=relaxed seawall.lab",
        );
        if self.memory >= HUGE_PAGE_FROM_MIB {
            words += " hugepagesz=1G hugepages=1";
        }
        if self.qemu_cpu().starts_with(CPU_WITH_ALL) {
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

/// Whether a program is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder: PathBuf| Path::new(&folder).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn machine(cpu: &str, memory: u32, append: &str) -> Machine {
        Machine { cpu: Some(cpu.into()), memory, append: append.into(), smp: Some(2), ..Machine::default() }
    }

    fn words(cpu: &str, memory: u32, append: &str) -> String {
        machine(cpu, memory, append).kernel_words()
    }

    #[test]
    fn every_cpu_has_ease_and_max_no_lpa2_unless_options_are_given() {
        assert_eq!(machine("neoverse-n2", 1, "").cpu_model(), "neoverse-n2,lab-double-fault2=on");
        assert_eq!(machine("max", 1, "").cpu_model(), "max,lpa2=off,lab-double-fault2=on");
        assert_eq!(machine("max,sve=off", 1, "").cpu_model(), "max,sve=off,lab-double-fault2=on");
    }

    /// As the command line is read: whether it is QEMU, and how many CPUs; `None` if it is refused.
    fn read(line: &str) -> Option<(bool, u32)> {
        let command = Machine::augment_args(clap::Command::new("lab").no_binary_name(true));
        let matches = command.try_get_matches_from(line.split_whitespace()).ok()?;
        let machine = Machine::from_arg_matches(&matches).ok()?;
        Some((machine.is_qemu(), machine.or_cpus(2).cpus()))
    }

    #[test]
    fn it_is_ours_unless_qemu_or_a_cpu_of_qemus_is_asked_for() {
        assert_eq!(read(""), Some((false, 2)));
        assert_eq!(read("--smp 1 --acpi --interpreter"), Some((false, 1)));
        assert_eq!(read("--qemu"), Some((true, 2)));
        assert_eq!(read("--cpu max --smp 4"), Some((true, 4)));
    }

    #[test]
    fn qemu_is_refused_what_seawalls_machine_alone_has() {
        for option in ["--acpi", "--interpreter", "--restore f", "--snapshot f", "--trace-exits f"] {
            assert_eq!(read(&format!("--qemu {option}")), None, "{option}");
            assert_eq!(read(&format!("--cpu max {option}")), None, "{option}");
        }
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
