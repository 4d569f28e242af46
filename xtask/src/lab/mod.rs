//! `cargo xtask lab`: an Arm server in software, with Debian's own kernel, working KVM and poisonable memory.
//!
//! Everything that it is made of is fetched or built once, in `target/lab`, and described in `lab/README.md`. Our own
//! programs are built each time.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal as _, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod answers;
pub(crate) mod apt;
pub(crate) mod binaries;
mod booted;
pub(crate) mod cache;
mod compare;
mod contain;
pub(crate) mod cross;
mod einj;
mod emulator;
pub(crate) mod error;
mod example;
pub(crate) mod files;
pub(crate) mod host;
pub(crate) mod initramfs;
mod kernel;
pub(crate) mod machine;
mod peer;
pub(crate) mod preload;
pub(crate) mod progress;
mod qemu;
pub(crate) mod selftests;
pub(crate) mod session;
pub(crate) mod source;
mod stranger;
mod stream;
mod wrap;

use rustix::fs::{FlockOperation, flock};

use apt::Apt;
use binaries::Built;
use cross::Toolchain;
use emulator::Emulator;
use error::{Error, Result};
use initramfs::{Guest, Task};
use kernel::Kernel;
use machine::{Images, Machine, Start};
use progress::indented;
use session::Ended;

use crate::kernel::Built as OwnKernel;

/// Exit codes beside the command's own; the first two as of `timeout(1)`.
const TIMED_OUT: u8 = 124;
const FAILED: u8 = 125;
/// As of automake's tests: skipped, as something cannot be had here.
const UNAVAILABLE: u8 = 77;

/// What to do in the lab.
#[derive(clap::Args)]
#[command(after_help = "Exit codes: the command's own; 124: it did not end in time; 125: the lab failed; \
                        77: what the lab is made of cannot be had here.")]
pub(crate) struct Options {
    #[command(flatten)]
    machine: Machine,
    /// The kernel of the lab's machine, whose KVM is tried
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    kernel: HostKernel,
    /// Seconds that the command may take, from its start
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
    /// Brings a file of the host in, into /bin unless told otherwise; may be given several times
    #[arg(long, value_name = "HOST[:LAB]")]
    file: Vec<String>,
    /// Brings in libseawall_preload.so, seawall-lab-raw-ioctls and the C library, for programs that are not static
    #[arg(long)]
    preload: bool,
    /// Builds an example of any crate and runs it, unless there is a command
    #[arg(long, value_name = "NAME")]
    example: Option<String>,
    /// A shell on the lab's console
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    #[command(subcommand)]
    run: Option<Run>,
    /// What to run, as root: a line for the shell, or a program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What is run often.
#[derive(clap::Subcommand)]
enum Run {
    /// The conformance suite on real KVM: `seawall check --backend kvm`
    #[command(disable_help_flag = true)]
    Check(Arguments),
    /// The model against the real kernel: random sequences on both
    #[command(disable_help_flag = true)]
    Diff(Arguments),
    /// What an injection costs: ioctls and time; with --peer, beside Debian's QEMU
    #[command(disable_help_flag = true)]
    Bench(Arguments),
    /// Memory errors under guests of real KVM, Debian's kernel and bare metal, contained: a line for each scenario
    #[command(disable_help_flag = true)]
    Contain(Arguments),
    /// Memory errors under Debian's QEMU and another VMM, as they are, by `seawall wrap`: a line for each scenario
    #[command(disable_help_flag = true)]
    Wrap(Arguments),
    /// The tests of the packages that speak to /dev/kvm
    #[command(disable_help_flag = true)]
    Tests(Arguments),
    /// The conformance suite on both emulators, one after the other: a line for each scenario that differs
    Compare,
    /// Linux's own selftests of external aborts, without and with libseawall_preload.so
    Selftests(selftests::Options),
}

#[derive(clap::Args)]
struct Arguments {
    /// For the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Where things are on the host.
pub(crate) struct Folders {
    /// Everything fetched or built. The same whatever CARGO_TARGET_DIR says, as it takes minutes to make.
    pub(crate) target: PathBuf,
    pub(crate) logs: PathBuf,
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

impl Folders {
    /// In a folder of its own.
    pub(crate) fn new(target: PathBuf) -> Result<Self> {
        let folders = Self { logs: target.join("logs"), target };
        files::create_folder(&folders.logs)?;
        Ok(folders)
    }

    /// The lab's.
    pub(crate) fn of_lab() -> Result<Self> {
        Self::new(root().join("target/lab"))
    }

    /// Makes something below `target`, alone: two processes never make the same thing at once.
    pub(crate) fn alone<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.target.join("lock");
        let file = File::create(&path).map_err(|error| Error::file(&path, &error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            eprintln!("lab: another process is making the lab: waiting for it");
            flock(&file, FlockOperation::LockExclusive).map_err(|error| Error::file(&path, &error.into()))?;
        }
        make()
    }
}

/// The kernel that the lab's machine boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum HostKernel {
    /// Debian's own, as it is
    #[default]
    Debian,
    /// One whose KVM has the kernel half: `cargo xtask kernel build`
    Seawall,
}

/// The same, ready.
struct Booted {
    image: PathBuf,
    /// As `uname -r` says it.
    release: String,
}

/// The lab, ready to boot.
pub(crate) struct Lab {
    pub(crate) folders: Folders,
    apt: Apt,
    emulator: Emulator,
    /// Debian's, and what comes with it: guests boot it in any case.
    kernel: Kernel,
    booted: Booted,
    pub(crate) toolchain: Toolchain,
}

impl Lab {
    /// Makes everything that is not there yet: minutes the first time, nothing later.
    ///
    /// # Errors
    /// A step failed, or what it takes cannot be had here ([`Error::is_unavailable`]).
    pub(crate) fn prepare(machine: &Machine, host_kernel: HostKernel) -> Result<Self> {
        let folders = Folders::of_lab()?;
        let apt = Apt::new(folders.target.join("apt"));
        let (emulator, kernel, toolchain, booted) = folders.alone(|| {
            let emulator = Emulator::prepare(machine, &folders, &apt)?;
            let kernel = kernel::prepare(&folders)?;
            let toolchain = cross::prepare(&folders, &apt)?;
            let booted = match host_kernel {
                HostKernel::Debian => Booted { image: kernel.image.clone(), release: kernel.release.clone() },
                HostKernel::Seawall => {
                    let OwnKernel { image, release, .. } = crate::kernel::prepare(&apt)?;
                    Booted { image, release }
                }
            };
            Ok((emulator, kernel, toolchain, booted))
        })?;
        Ok(Self { folders, apt, emulator, kernel, booted, toolchain })
    }

    /// Boots and runs a command; its stdout goes to `output` as it comes, its stderr to ours.
    pub(crate) fn run(
        &self,
        machine: &Machine,
        programs: &[Built],
        guests: &[Guest],
        arguments: &[String],
        timeout: Duration,
        output: &mut dyn Write,
    ) -> Result<Ended> {
        let terminal = stdout().is_terminal().then(terminal_size).flatten();
        let errors = &mut stderr().lock();
        if let Emulator::Machine(program) = &self.emulator {
            let initramfs = self.initramfs(programs, guests, &Task::FromPort)?;
            let made_of: [&Path; 3] = [program, &self.booted.image, &initramfs.0];
            let words = machine.description();
            let booted = booted::place(&self.folders.target.join("booted"), &made_of, &words)?;
            let task = Task::Command { arguments, word: WORD_OF_MACHINE, terminal };
            let input = self.scratch("input", task.by_port())?;
            let start = Start::Booted { snapshot: &booted, input: &input.0 };
            return machine.run(&self.images(&initramfs.0), start, WORD_OF_MACHINE, timeout, output, errors);
        }
        let word = word();
        let initramfs =
            self.initramfs(programs, guests, &Task::Command { arguments, word: &word, terminal })?;
        machine.run(&self.images(&initramfs.0), Start::PowerOn, &word, timeout, output, errors)
    }

    /// Boots and gives a shell on the terminal.
    pub(crate) fn shell(&self, machine: &Machine, programs: &[Built], guests: &[Guest]) -> Result<()> {
        let terminal = terminal_size().unwrap_or((24, 80));
        let initramfs = self.initramfs(programs, guests, &Task::Shell { terminal })?;
        machine.interact(&self.images(&initramfs.0))
    }

    /// If its kernel is Debian's, whose modules can be had.
    fn boots_debian(&self) -> bool {
        self.booted.release == self.kernel.release
    }

    fn images(&self, initramfs: &Path) -> Images {
        let (emulator, kernel) = (self.emulator.clone(), self.booted.image.clone());
        Images { emulator, kernel, initramfs: initramfs.to_owned() }
    }

    fn initramfs(&self, programs: &[Built], guests: &[Guest], task: &Task<'_>) -> Result<Scratch> {
        self.scratch("cpio", initramfs::build(&self.kernel.busybox, programs, guests, task)?)
    }

    /// A file of this run.
    fn scratch(&self, extension: &str, bytes: Vec<u8>) -> Result<Scratch> {
        let runs = self.folders.target.join("runs");
        files::create_folder(&runs)?;
        sweep(&runs)?;
        let path = runs.join(format!("{}.{extension}", std::process::id()));
        files::write(&path, bytes)?;
        Ok(Scratch(path))
    }
}

/// A file that is removed when it is not needed any more.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes what interrupted runs left: files named by a process that is gone.
fn sweep(runs: &Path) -> Result<()> {
    for path in files::list(runs)? {
        let process = path.file_stem().unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

/// The word of the marks on Seawall's machine, where each run is the same: in no program's output.
const WORD_OF_MACHINE: &str = "seawall-7f2c9e41d6b05a38";

/// The word of the marks: no other run's, nor in any program's output.
fn word() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("seawall-{:x}-{:x}", std::process::id(), time.as_nanos())
}

/// Rows and columns of the terminal, if it is one that knows.
fn terminal_size() -> Option<(u16, u16)> {
    let output = Command::new("stty").arg("size").stdin(Stdio::inherit()).output().ok()?;
    size(&String::from_utf8_lossy(&output.stdout))
}

/// What `stty size` says.
fn size(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok().filter(|&number| number > 0));
    Some((numbers.next()??, numbers.next()??))
}

/// Runs what was asked for.
pub(crate) fn run(options: &Options) -> ExitCode {
    ended(work(options))
}

/// The exit code of a task, and on stderr why it is none of its own.
pub(crate) fn ended(result: Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_unavailable() { UNAVAILABLE } else { FAILED })
        }
    }
}

fn work(options: &Options) -> Result<u8> {
    if let Some(code) = options.run.as_ref().and_then(answers::without_a_lab) {
        return Ok(code);
    }
    if let Some(snapshot) = &options.machine.restore {
        let program = binaries::build_for_host(&Folders::of_lab()?)?;
        let timeout = Duration::from_secs(options.timeout);
        let (output, errors) = (&mut stdout().lock(), &mut stderr().lock());
        let ended = options.machine.resume(program, snapshot, WORD_OF_MACHINE, timeout, output, errors)?;
        return Ok(code(&ended, options.timeout));
    }
    if let Some(Run::Compare) = options.run {
        return compare::run(&options.machine, Duration::from_secs(options.timeout));
    }
    let example = options.example.as_deref().map(example::find).transpose()?;
    let mut guests: Vec<Guest> = options.file.iter().map(|text| Guest::parse(text)).collect::<Result<_>>()?;
    let lab = Lab::prepare(&options.machine, options.kernel)?;
    let timeout = Duration::from_secs(options.timeout);
    if let Some(Run::Selftests(which)) = &options.run {
        return selftests::run(&lab, &options.machine, timeout, which);
    }
    let mut programs = match &options.run {
        Some(Run::Tests(_)) => binaries::build_tests(&lab.folders, &lab.toolchain)?,
        Some(Run::Bench(_)) => binaries::build_bench(&lab.folders, &lab.toolchain)?,
        _ => binaries::build(&lab.folders, &lab.toolchain)?,
    };
    if let Some(example) = &example {
        programs.extend(binaries::build_example(&lab.folders, &lab.toolchain, example)?);
    }
    if options.preload {
        guests.extend(preload::prepare(&lab)?);
    }
    let mut command = command(options, &programs);
    if let Some(Run::Bench(_)) = &options.run {
        guests.extend(peer::bring_in(&lab, &mut command)?);
    }
    if options.shell {
        return lab.shell(&options.machine, &programs, &guests).map(|()| 0);
    }
    if let Some(Run::Contain(arguments)) = &options.run {
        return contain::run(&lab, options, &arguments.arguments, &programs, guests);
    }
    if let Some(Run::Wrap(arguments)) = &options.run {
        return wrap::run(&lab, options, &arguments.arguments, &programs, guests);
    }
    eprintln!("lab: Linux {} on {}", lab.booted.release, options.machine.name());
    let ended = lab.run(&options.machine, &programs, &guests, &command, timeout, &mut stdout().lock())?;
    Ok(code(&ended, options.timeout))
}

/// What to run in the lab.
fn command(options: &Options, programs: &[Built]) -> Vec<String> {
    let with = |words: &[&str], arguments: &Arguments| {
        words.iter().map(|word| (*word).to_owned()).chain(arguments.arguments.iter().cloned()).collect()
    };
    match &options.run {
        Some(Run::Check(arguments)) => with(&["seawall", "check", "--backend", "kvm"], arguments),
        Some(Run::Diff(arguments)) => with(&["seawall-lab-diff"], arguments),
        Some(Run::Bench(arguments)) => with(&["seawall-lab-bench"], arguments),
        Some(Run::Tests(arguments)) => vec![all_tests(programs, &arguments.arguments)],
        Some(Run::Contain(_) | Run::Wrap(_) | Run::Selftests(_) | Run::Compare) | None => {
            match (&options.command[..], &options.example) {
                ([], Some(example)) => vec![example.clone()],
                ([], None) => vec![include_str!("../../../lab/about.sh").to_owned()],
                (command, _) => command.to_vec(),
            }
        }
    }
}

/// A line that runs all of these, also after one failed.
fn all_tests(programs: &[Built], arguments: &[String]) -> String {
    let mut line = String::from("failed=0\n");
    for program in programs {
        let name = &program.name;
        let _ = writeln!(line, "echo \"--- {name}\"; {name} {} || failed=1", arguments.join(" "));
    }
    line + "exit $failed"
}

/// The exit code of a run, with what there is to say about one that did not end by itself. Its console was seen already,
/// but for that of the boot.
fn code(ended: &Ended, timeout: u64) -> u8 {
    match ended {
        Ended::Exited(code) => u8::try_from(*code).unwrap_or(u8::MAX),
        Ended::TimedOut { .. } => {
            eprintln!("error: the command did not end within {timeout} s; see --timeout");
            TIMED_OUT
        }
        Ended::NotBooted { console } => {
            eprintln!("error: the lab did not boot; the end of its console:\n{}", indented(console, 25));
            FAILED
        }
        Ended::Lost { .. } => {
            eprintln!("error: the lab went down under the command; its last words are above");
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_the_commands_code_or_with_one_that_tells_the_labs_failure() {
        assert_eq!(code(&Ended::Exited(0), 1), 0);
        assert_eq!(code(&Ended::Exited(3), 1), 3);
        assert_eq!(code(&Ended::TimedOut { console: String::new() }, 1), 124);
        assert_eq!(code(&Ended::NotBooted { console: String::new() }, 1), 125);
        assert_eq!(code(&Ended::Lost { console: String::new() }, 1), 125);
    }

    #[test]
    fn tests_are_all_run_and_one_that_fails_fails_the_run() {
        let programs = ["a-test", "b-test"].map(|name| Built { name: name.into(), path: name.into() });
        assert_eq!(
            all_tests(&programs, &["--quiet".to_owned()]),
            "failed=0\n\
             echo \"--- a-test\"; a-test --quiet || failed=1\n\
             echo \"--- b-test\"; b-test --quiet || failed=1\n\
             exit $failed"
        );
    }

    #[test]
    fn a_terminal_without_a_size_has_none() {
        assert_eq!(size("24 80\n"), Some((24, 80)));
        assert_eq!(size("0 0\n"), None);
        assert_eq!(size(""), None);
    }

    #[test]
    fn files_of_processes_that_are_gone_are_swept() {
        let folder = std::env::temp_dir().join(format!("seawall-sweep-{}", std::process::id()));
        assert_eq!(files::create_folder(&folder), Ok(()));
        let (mine, gone) = (folder.join(format!("{}.cpio", std::process::id())), folder.join("4194999.cpio"));
        assert_eq!(files::write(&mine, ""), Ok(()));
        assert_eq!(files::write(&gone, ""), Ok(()));
        assert_eq!(sweep(&folder), Ok(()));
        assert_eq!((mine.exists(), gone.exists()), (true, false));
        assert_eq!(files::remove_folder(&folder), Ok(()));
    }
}
