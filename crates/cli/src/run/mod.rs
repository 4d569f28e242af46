//! `seawall run`: a guest of the user's own, on the software machine or on KVM.

mod ending;
mod keep;
mod keyboard;
mod kvm;
mod machine;
mod metrics;
mod output;
mod poison;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use seawall::ledger::Keeper;
use seawall::{Rule, Rules};
use seawall_events::{Abi, Layout};
use seawall_kvm::Kvm;
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::kernel::{Kernel, KernelError};
use seawall_vmm::load::LoadError;
use seawall_vmm::{Config, Error, Guest, layout, policy};

use tracing_subscriber::filter::Targets;

use crate::parse::{self, Keep, Place, Poison};
use crate::{Failure, exit};
use keyboard::Keyboard;
use metrics::Endpoint;
use output::Output;

/// What Linux is told if the user says nothing: where its console is, and to come back from a panic at once.
const LINUX_COMMAND_LINE: &str = "console=ttyAMA0 panic=-1";
/// Instructions that a guest gets without a terminal, if the user says nothing.
const MAX_INSNS: u64 = 10_000_000_000;

/// Runs a guest: an arm64 Linux kernel, or a flat image or ELF for a machine like QEMU's `virt`.
///
/// The machine has RAM from 0x40000000, PL011 at 0x09000000, GICv3, generic timers, PSCI over HVC, PL031 and
/// virtio-mmio disks; x0 holds the address of its device tree. A flat image lies at 0x40080000, a Linux Image at
/// 0x40200000; both are entered at EL1 with the MMU off. The guest's console is stdout; with a terminal one can type on
/// it (ctrl-a x leaves).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seawall run --kernel vmlinuz --initrd initrd.gz --cpus 4 --memory 512M
  seawall run --kernel vmlinuz --initrd initrd.gz --poison page:heap --events events.jsonl
  seawall run --kernel vmlinuz --initrd initrd.gz --poison page:heap --metrics 9184
  seawall run --kernel guest.elf
  seawall run --kernel guest.bin --load 0x40080000 --poison 0x40210000@100000 --policy full
  seawall run --kernel guest.bin --poison 0x40210000+4K --policy serror --json
  seawall run --kernel vmlinuz --initrd initrd.gz --snapshot booted.snap@'Run /init'
  seawall run --restore booted.snap --poison page:heap --policy serror

A guest names a page by a line on its console: `seawall: page NAME 0xADDRESS`, guest physical.

--events writes one JSON object a line: `event` (poison, memory-error, device-error, end), `guest_time_ns` (the
machine's own time), `instructions`, and what belongs to the event; addresses and syndromes are hexadecimal strings.
docs/telemetry.md has the fields of a memory error, and the numbers of --metrics.

Kinds of errors for --rule, the first that fits: nested (the guest's hypervisor takes it), walk (bad page tables),
no-address, kernel-fetch, kernel-data, user-fetch, user-data. Answers: replay, data-abort, serror, stop.

Exit codes: 0 power-off, 8 reset, 10 kernel panic, 6 stopped (a storm of aborts, or a rule), 12 a dry run met bad memory,
5 hung (a limit reached, or idle for ever), 7 not supported, 3 bad file, 11 too little memory, 4 bad range or size, 9
backend not available, 2 wrong usage.")]
pub(crate) struct Args {
    /// arm64 Linux Image (raw, gzip, EFI zboot as Debian's vmlinuz), AArch64 ELF, or flat image.
    #[arg(long, value_name = "FILE", alias = "machine", required_unless_present = "restore")]
    kernel: Option<PathBuf>,
    /// Initramfs for Linux.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Disk image, raw: vda, vdb, ... to Linux. What the guest writes is kept in memory, the file stays as it is.
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// Kernel command line [default for Linux: console=ttyAMA0 panic=-1]
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// RAM, from 0x40000000, in steps of 2M. With --restore: as much RAM a snapshot may have, if that is more than 4G.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse::size)]
    memory: u64,
    /// CPUs.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    cpus: u32,
    /// A virtio console beside the UART: hvc0 to Linux.
    #[arg(long)]
    virtio_console: bool,
    /// Linux boots with ACPI instead of a device tree, finds a record of each memory error, and takes the page offline.
    #[arg(long)]
    acpi: bool,
    /// Where a flat image goes, and is entered [default: 0x40080000, as QEMU's virt]
    #[arg(long, value_name = "ADDR", value_parser = parse::number)]
    load: Option<u64>,
    /// What the guest runs on. `auto`: KVM where there is KVM for Arm and nothing is asked for that only the software
    /// machine does, as --poison and --max-insns.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
    /// Memory that goes bad: LEN bytes (64 if not given) in whole lines of 64, at physical address ADDR or at the page
    /// that the guest names so; after COUNT instructions (of the run, or since the page was named; at once if not
    /// given). May be given again.
    #[arg(long, value_name = "ADDR|page:NAME[+LEN][@COUNT]", value_parser = parse::poison)]
    poison: Vec<Poison>,
    /// Write a snapshot of the machine to FILE after COUNT instructions, or when the guest wrote a line with TEXT in it
    /// (or, if neither is given, when the run ends), and go on.
    #[arg(long, value_name = "FILE[@COUNT|@TEXT]", value_parser = parse::keep)]
    snapshot: Option<Keep>,
    /// Go on from a snapshot instead of a kernel. Memory, CPUs and devices are as they were; the same disks must be
    /// given again. Instructions are counted from the start of the run that was snapshot.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "append", "cpus",
        "virtio_console", "acpi", "load"])]
    restore: Option<PathBuf>,
    /// What the guest gets for it: the abort as it happened, a data abort without an ESR, or an SError.
    #[arg(long, default_value = "full", value_parser = ["full", "mainline", "serror"])]
    policy: String,
    /// What the guest gets for errors of one kind, instead of the abort as it happened. May be given again.
    #[arg(long, value_name = "KIND=ANSWER")]
    rule: Vec<Rule>,
    /// Decide and report, and do nothing: the first memory error ends the run.
    #[arg(long)]
    dry_run: bool,
    /// Remember bad pages in FILE, over resets and runs. It is made if it is not there.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Start the guest anew when it asks for a reset or panics, COUNT times at most. Bad pages are healed then.
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with = "restore")]
    reboot: u32,
    /// Do not heal bad pages, as if they could not be replaced: the guest starts without them in its memory map.
    #[arg(long)]
    no_heal: bool,
    /// Write what happens to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Serve the run's numbers to Prometheus while it lasts, at http://ADDR:PORT/metrics. A port alone is that of
    /// 127.0.0.1; port 0 is one that is free, and is said on stderr. There is no password: who reaches the address reads
    /// them.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse::listen)]
    metrics: Option<SocketAddr>,
    /// Write log lines of this level and above to stderr: error, warn, info, debug, trace, or by target as
    /// seawall=warn [default: RUST_LOG, else none]
    #[arg(long, value_name = "LEVEL", value_parser = parse::log)]
    log: Option<Targets>,
    /// One JSON object on stdout at the end, the console in it.
    #[arg(long)]
    json: bool,
    /// Type standard input on the guest's console, also if it is no terminal. A file is typed the same each time.
    #[arg(long)]
    stdin: bool,
    /// Give up after so many instructions [default: 10000000000, or no limit at a terminal]
    #[arg(long, value_name = "COUNT", value_parser = parse::number)]
    max_insns: Option<u64>,
    /// Give up after so many seconds of the host's time [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = parse::number)]
    timeout: Option<u64>,
}

/// What a guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    Auto,
    Machine,
    Kvm,
}

impl Args {
    fn time_limit(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }

    /// The endpoint for Prometheus, if one is wanted, until it is dropped. `refresh` is called before each answer.
    fn metrics(&self, refresh: impl FnMut() + Send + 'static) -> Result<Option<Endpoint>, Failure> {
        self.metrics.map(|address| Endpoint::new(address, refresh)).transpose()
    }

    /// Somebody types: standard input if that was asked for, or a terminal on both ends.
    fn keyboard(&self) -> Keyboard {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if self.stdin || is_terminal && !self.json { Keyboard::stdin() } else { Keyboard::none() }
    }
}

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    metrics::log(args.log.clone());
    let on_kvm = on_kvm(args)?;
    if let Some(path) = &args.restore {
        let snapshot = keep::load(path, args.memory, !args.disk.is_empty())?;
        let mut config = snapshot.config();
        check_poison(args, config.memory)?;
        add_policy_and_disks(args, &mut config)?;
        let output = Output::new(args.json, args.events.as_deref())?;
        return machine::resume(args, &snapshot, config, output);
    }
    check_poison(args, args.memory)?;
    let guest = guest(args)?;
    let config = config(args)?;
    let output = Output::new(args.json, args.events.as_deref())?;
    if on_kvm { kvm::run(args, config, &guest, output) } else { machine::run(args, config, guest, output) }
}

/// Whether the guest runs on KVM.
fn on_kvm(args: &Args) -> Result<bool, Failure> {
    let needs_machine = [
        ("--poison", "memory goes bad at will", !args.poison.is_empty()),
        ("--max-insns", "instructions are counted", args.max_insns.is_some()),
        ("--snapshot", "a run can be gone back to", args.snapshot.is_some()),
        ("--restore", "a run can be gone back to", args.restore.is_some()),
    ];
    let needs_machine = needs_machine.iter().find(|(.., is_asked)| *is_asked);
    match (args.backend, needs_machine) {
        (Backend::Machine, _) | (Backend::Auto, Some(_)) => Ok(false),
        (Backend::Auto, None) => Ok(Kvm::open().is_ok()),
        (Backend::Kvm, Some((option, what, _))) => {
            let message = format!(
                "--backend kvm and {option}: only on the software machine {what}; leave one of them out"
            );
            Err(Failure::new(exit::USAGE, message))
        }
        (Backend::Kvm, None) => match Kvm::open() {
            Ok(_) => Ok(true),
            Err(error) => Err(Failure::new(
                exit::UNAVAILABLE,
                format!("--backend kvm: {error}; --backend machine runs the guest on any host"),
            )),
        },
    }
}

fn check_poison(args: &Args, memory: u64) -> Result<(), Failure> {
    for poison in &args.poison {
        if let Place::Address(start) = poison.place {
            let end = start.saturating_add(poison.len);
            let (ram_start, ram_end) = (layout::RAM, layout::RAM.saturating_add(memory));
            if start < ram_start || end > ram_end {
                let message = format!(
                    "--poison {start:#x}..{end:#x}: expected a range in RAM, {ram_start:#x}..{ram_end:#x}; give \
                     --memory more, or another ADDR"
                );
                return Err(Failure::new(exit::RANGE, message));
            }
        }
    }
    Ok(())
}

fn guest(args: &Args) -> Result<Guest, Failure> {
    let kernel = args.kernel.as_deref().unwrap_or(Path::new(""));
    let mut guest = Guest::read(kernel, args.initrd.as_deref(), "", args.memory)?;
    let is_linux = matches!(guest.kernel, Kernel::Linux(_));
    let default = if is_linux { LINUX_COMMAND_LINE } else { "" };
    guest.command_line = args.append.clone().unwrap_or_else(|| default.to_owned());
    guest.address = args.load;
    Ok(guest)
}

fn config(args: &Args) -> Result<Config, Failure> {
    let mut config = Config::new(args.memory);
    config.cpus = args.cpus;
    config.virtio_console = args.virtio_console;
    config.acpi = args.acpi;
    // Mainline's struct is what there is today; the whole abort needs the extended one.
    config.abi = if args.policy == "full" { Abi::Extended(Layout::Posted) } else { Abi::Mainline };
    add_policy_and_disks(args, &mut config)?;
    Ok(config)
}

/// What is the host's of a machine, and no snapshot holds.
fn add_policy_and_disks(args: &Args, config: &mut Config) -> Result<(), Failure> {
    config.policy = policy(&args.policy).ok_or_else(|| {
        Failure::new(exit::USAGE, format!("expected full, mainline or serror, got `{}`", args.policy))
    })?;
    if !args.rule.is_empty() {
        if args.policy != "full" {
            let message = format!("--rule and --policy {}: that has one answer for all errors", args.policy);
            return Err(Failure::new(exit::USAGE, message));
        }
        let with = |rules: Rules, rule: &Rule| rules.with(rule.kind, rule.answer);
        config.policy = Box::new(args.rule.iter().fold(Rules::default(), with));
    }
    config.dry_run = args.dry_run;
    config.heal = !args.no_heal;
    if let Some(path) = &args.ledger {
        let keeper = Keeper::open(path).map_err(|error| {
            Failure::new(exit::FILE, format!("--ledger: {error}; move it away to begin anew"))
        })?;
        config.ledger = Arc::new(keeper);
    }
    for path in &args.disk {
        let disk = Disk::open(path, Writes::InMemory)
            .map_err(|error| Failure::new(exit::FILE, format!("--disk {}: {error}", path.display())))?;
        config.disks.push(disk);
    }
    Ok(())
}

/// What an error of the VMM is to the shell.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, advice) = match &error {
            Error::Load(
                LoadError::Kernel { .. } | LoadError::Initrd { .. } | LoadError::NoRoomForFdt { .. },
            )
            | Error::TooBig { .. }
            | Error::Kernel { source: KernelError::TooBig { .. }, .. } => {
                (exit::TOO_LITTLE_MEMORY, " (--memory SIZE)")
            }
            Error::Load(LoadError::HasAddress { .. }) => (exit::USAGE, " (--load)"),
            Error::Load(LoadError::OutsideRam { .. }) | Error::Memory { .. } => (exit::RANGE, ""),
            Error::Machine(seawall_machine::Error::Memory(_)) => (exit::RANGE, " (--memory SIZE)"),
            Error::Read { .. } | Error::Kernel { .. } | Error::NoInitramfs { .. } | Error::Load(_) => {
                (exit::FILE, "")
            }
            Error::Fdt(_) | Error::CommandLine { .. } => (exit::USAGE, " (--append)"),
            Error::Cpus { .. } => (exit::USAGE, " (--cpus)"),
            Error::TooManyDevices(_) | Error::OtherMachine { .. } => (exit::USAGE, " (--disk)"),
            Error::Kvm(_) => (exit::UNAVAILABLE, ""),
            _ => (exit::UNSUPPORTED, ""),
        };
        Failure::new(code, format!("{error}{advice}"))
    }
}

impl From<seawall_machine::Error> for Failure {
    fn from(error: seawall_machine::Error) -> Self {
        Error::from(error).into()
    }
}
