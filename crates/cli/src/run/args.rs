//! The options of `seawall run`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use seawall::{Rule, Rules};
use tracing_subscriber::filter::Targets;

use super::keyboard::Keyboard;
use super::metrics::Endpoint;
use crate::parse::{self, Keep, Poison};
use crate::{Failure, help};

/// Run a guest of your own, Linux or bare metal, and turn its memory bad where and when you choose.
///
/// The guest is an arm64 Linux kernel, or a flat image or ELF for a machine like QEMU's `virt`. The machine has RAM from
/// 0x40000000, PL011 at 0x09000000, GICv3, generic timers, PSCI over HVC, PL031 and virtio-mmio disks. x0 holds the
/// address of the device tree. A flat image lies at 0x40080000, a Linux Image at 0x40200000. The guest starts at EL1
/// with the MMU off. docs/guests.md shows how to write a guest.
///
/// The guest's console is stdout. At a terminal you can type to the guest, and Ctrl-A X leaves.
#[derive(clap::Args)]
#[command(after_help = help::RUN, after_long_help = help::run())]
pub(crate) struct Args {
    /// The same as --kernel FILE.
    #[arg(value_name = "FILE", conflicts_with = "kernel")]
    pub(super) file: Option<PathBuf>,
    /// arm64 Linux Image, AArch64 ELF, or flat image.
    ///
    /// An Image may be raw, gzip, or EFI zboot as Debian's vmlinuz. A file without a known mark is a flat image.
    #[arg(long, value_name = "FILE", alias = "machine", required_unless_present_any = ["restore", "file"])]
    kernel: Option<PathBuf>,
    /// Initramfs for Linux.
    #[arg(long, value_name = "FILE")]
    pub(super) initrd: Option<PathBuf>,
    /// Disk image, raw; may be given again.
    ///
    /// Linux calls the disks vda, vdb, ... The guest's writes are kept in memory, and the file does not change.
    #[arg(long, value_name = "FILE")]
    pub(super) disk: Vec<PathBuf>,
    /// Limit of the guest's writes kept for each disk; writes beyond it are I/O errors.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, hide_short_help = true)]
    pub(super) disk_writes: u64,
    /// Kernel command line [default for Linux: console=ttyAMA0 panic=-1]
    #[arg(long, value_name = "TEXT")]
    pub(super) append: Option<String>,
    /// Size of the RAM, which begins at 0x40000000; in steps of 2M.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse::size)]
    pub(super) memory: u64,
    /// Number of CPUs.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(super) cpus: u32,
    /// Add a virtio console beside the UART: hvc0 in Linux.
    #[arg(long)]
    pub(super) virtio_console: bool,
    /// Boot Linux with ACPI, and write a record of each memory error.
    ///
    /// ACPI takes the place of the device tree. Linux finds a record of each error, takes the page offline, and tells the
    /// process the address.
    #[arg(long)]
    pub(super) acpi: bool,
    /// Start the guest at EL2: it can be a hypervisor, as Linux with its own KVM.
    ///
    /// The CPUs have EL2 with VHE, the machine has a second UART, and a register page at 0x0b000000 by which the guest turns
    /// its memory bad (lab/README.md). PSCI is over SMC. The guest takes each abort itself, as a server does: no policy is
    /// asked.
    #[arg(long)]
    pub(super) el2: bool,
    /// File that the second UART of a machine with EL2 writes to: ttyAMA1 in Linux.
    #[arg(long, value_name = "FILE")]
    pub(super) second_uart: Option<PathBuf>,
    /// File that is typed on the second UART of a machine with EL2.
    ///
    /// The guest asks for it by ENQ (0x05) on that UART, and gets it as fast as it takes it: the same way in each run.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(super) second_input: Option<PathBuf>,
    /// Write each exit of a guest of this guest to FILE: the ones of KVM in a Linux at EL2.
    ///
    /// An exit is an exception that EL2 takes from EL1 or EL0 below it, and ends with the return there. It has the count of
    /// instructions, which --snapshot FILE@COUNT takes; the instructions of the inner guest before it, and of EL2 and its user
    /// space until the return; ESR, FAR, HPFAR and PC. A file whose name ends in .json gets one JSON object a line; any
    /// other file a table.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(super) trace_exits: Option<PathBuf>,
    /// Load address and entry point of a flat image [default: 0x40080000, as QEMU's virt]
    #[arg(long, value_name = "ADDR", value_parser = parse::number)]
    pub(super) load: Option<u64>,
    /// Backend that runs the guest.
    ///
    /// `auto` is KVM if this host has KVM for Arm and no option needs the software machine. --el2, --poison, --max-insns,
    /// --snapshot and --restore need it.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(super) backend: Backend,
    /// Memory that goes bad; may be given again.
    ///
    /// LEN bytes (64 if not given) in whole lines of 64 go bad, at physical address ADDR or at the page that the guest
    /// calls NAME. They go bad after COUNT instructions, counted from the start of the run or from the naming of the page;
    /// without COUNT they go bad at once.
    #[arg(long, value_name = "ADDR|page:NAME[+LEN][@COUNT]", value_parser = parse::poison)]
    pub(super) poison: Vec<Poison>,
    /// Write a snapshot of the machine to FILE, and go on; may be given again.
    ///
    /// The snapshot is taken after COUNT instructions, or when the guest writes a line that contains TEXT. Without either it
    /// is taken when the run ends.
    #[arg(long, value_name = "FILE[@COUNT|@TEXT]", value_parser = parse::keep)]
    pub(super) snapshot: Vec<Keep>,
    /// Continue from a snapshot instead of booting a kernel.
    ///
    /// Memory, CPUs and devices are as they were. Give the same disks again. The count of instructions continues from the
    /// run that wrote the snapshot.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "kernel", "initrd", "append", "cpus",
        "virtio_console", "acpi", "el2", "load"])]
    pub(super) restore: Option<PathBuf>,
    /// Policy: the exception that the guest gets for a memory error.
    ///
    /// `full` is the abort as it happened, `mainline` a data abort without an ESR, `serror` an SError.
    #[arg(long, default_value = "full", value_parser = ["full", "mainline", "serror"])]
    pub(super) policy: String,
    /// Answer errors of one kind differently from the policy; may be given again.
    #[arg(long, value_name = "KIND=ANSWER")]
    pub(super) rule: Vec<Rule>,
    /// Decide and report, but change nothing: the first memory error ends the run.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Remember bad pages in FILE, over resets and runs.
    ///
    /// The command creates the file if there is none; `seawall ledger FILE` shows it. Pages in the file are healed before
    /// the guest starts.
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,
    /// Start the guest again when it asks for a reset or panics, COUNT times at most.
    ///
    /// Each restart heals bad pages.
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with = "restore")]
    pub(super) reboot: u32,
    /// Do not heal bad pages: leave them out of the guest's memory map.
    #[arg(long)]
    pub(super) no_heal: bool,
    /// Write events to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    /// Limit of the file of events; its last line gives the number of events left out.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, hide_short_help = true)]
    pub(super) events_limit: u64,
    /// Limit of the guest's console on stdout; the rest is dropped.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, hide_short_help = true)]
    pub(super) console_limit: u64,
    /// Serve the run's numbers to Prometheus while it lasts.
    ///
    /// The numbers are at http://ADDR:PORT/metrics. A port alone is a port of 127.0.0.1. With port 0 the command takes a free
    /// port and prints it on stderr. There is no password: everybody who reaches the address can read the numbers.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse::listen)]
    metrics: Option<SocketAddr>,
    /// Write log lines of this level and above to stderr.
    ///
    /// Levels: error, warn, info, debug, trace, or by target as seawall=warn [default: RUST_LOG, else none]
    #[arg(long, value_name = "LEVEL", value_parser = parse::log)]
    pub(super) log: Option<Targets>,
    /// Print one JSON object on stdout at the end, with the console in it.
    ///
    /// For a long run it has the first and the last 1,000 errors, the first and the last MiB of the console, and the numbers
    /// left out.
    #[arg(long)]
    pub(super) json: bool,
    /// Type standard input on the guest's console, even if it is not a terminal.
    ///
    /// A file is typed the same way in each run.
    #[arg(long)]
    stdin: bool,
    /// Let the software machine interpret all instructions.
    ///
    /// On x86-64 Linux what runs often is translated to the host's instructions, which is several times faster and makes
    /// no other difference: console, instructions and snapshots are the same to the bit.
    #[arg(long)]
    pub(super) interpreter: bool,
    /// End the run after COUNT instructions [default: 10_000_000_000, or no limit at a terminal]
    #[arg(long, value_name = "COUNT", value_parser = parse::count)]
    pub(super) max_insns: Option<u64>,
    /// End the run after SECONDS of the host's time [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = parse::count)]
    pub(super) timeout: Option<u64>,
}

/// The backend of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    Auto,
    Machine,
    Kvm,
}

impl Args {
    /// The table of the policy, whose name the command line has checked.
    pub(super) fn rules(&self) -> Rules {
        self.policy.parse().unwrap_or_default()
    }

    /// The kernel's file; empty if the run continues from a snapshot.
    pub(super) fn kernel(&self) -> &Path {
        self.kernel.as_deref().or(self.file.as_deref()).unwrap_or(Path::new(""))
    }

    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }

    pub(super) fn has_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// The endpoint for Prometheus, if requested, until it is dropped.
    pub(super) fn metrics(&self) -> Result<Option<Endpoint>, Failure> {
        self.metrics.map(Endpoint::new).transpose()
    }

    /// Returns true if a person sees the guest's console and types on it.
    pub(super) fn is_at_terminal(&self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// The source of input: standard input if it was requested, or a terminal on both ends. `leave` is called
    /// when the user asks to leave.
    pub(super) fn keyboard(&self, leave: impl Fn() + Send + 'static) -> Keyboard {
        if self.stdin || self.is_at_terminal() { Keyboard::stdin(leave) } else { Keyboard::none() }
    }
}
