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

/// Run a guest of your own, Linux or bare metal, with poison where and when you say.
///
/// The guest is an arm64 Linux kernel, or a flat image or ELF for a machine like QEMU's `virt`. The machine has RAM from
/// 0x40000000, PL011 at 0x09000000, GICv3, generic timers, PSCI over HVC, PL031 and virtio-mmio disks; x0 holds the
/// address of its device tree. A flat image lies at 0x40080000, a Linux Image at 0x40200000; both are entered at EL1 with
/// the MMU off. docs/guests.md shows how to write one.
///
/// The guest's console is stdout. At a terminal you can type on it, and Ctrl-A X leaves.
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
    /// They are vda, vdb, ... to Linux. The guest's writes are kept in memory, the file stays as it is.
    #[arg(long, value_name = "FILE")]
    pub(super) disk: Vec<PathBuf>,
    /// How much is kept of the guest's writes to each disk; more are I/O errors to it.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, hide_short_help = true)]
    pub(super) disk_writes: u64,
    /// Kernel command line [default for Linux: console=ttyAMA0 panic=-1]
    #[arg(long, value_name = "TEXT")]
    pub(super) append: Option<String>,
    /// RAM, from 0x40000000, in steps of 2M.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse::size)]
    pub(super) memory: u64,
    /// CPUs.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(super) cpus: u32,
    /// A virtio console beside the UART: hvc0 to Linux.
    #[arg(long)]
    pub(super) virtio_console: bool,
    /// Boot Linux with ACPI, and write a record of each memory error.
    ///
    /// ACPI takes the place of the device tree. Linux finds a record of each error, takes the page offline, and tells the
    /// process the address.
    #[arg(long)]
    pub(super) acpi: bool,
    /// Where a flat image goes, and is entered [default: 0x40080000, as QEMU's virt]
    #[arg(long, value_name = "ADDR", value_parser = parse::number)]
    pub(super) load: Option<u64>,
    /// What the guest runs on.
    ///
    /// `auto` is KVM where there is KVM for Arm and no option needs the software machine, as --poison and --max-insns do.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(super) backend: Backend,
    /// Memory that goes bad; may be given again.
    ///
    /// LEN bytes (64 if not given) in whole lines of 64 go bad, at physical address ADDR or at the page that the guest
    /// calls NAME; after COUNT instructions (of the run, or since the page was named; at once if not given).
    #[arg(long, value_name = "ADDR|page:NAME[+LEN][@COUNT]", value_parser = parse::poison)]
    pub(super) poison: Vec<Poison>,
    /// Write a snapshot of the machine to FILE, and go on.
    ///
    /// It is taken after COUNT instructions, or when the guest wrote a line with TEXT in it; if neither is given, when the
    /// run ends.
    #[arg(long, value_name = "FILE[@COUNT|@TEXT]", value_parser = parse::keep)]
    pub(super) snapshot: Option<Keep>,
    /// Go on from a snapshot instead of a kernel.
    ///
    /// Memory, CPUs and devices are as they were; the same disks must be given again. Instructions are counted from the
    /// start of the run of which the snapshot was taken.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "kernel", "initrd", "append", "cpus",
        "virtio_console", "acpi", "load"])]
    pub(super) restore: Option<PathBuf>,
    /// The policy: the guest gets this for a memory error.
    ///
    /// `full` is the abort as it happened, `mainline` a data abort without an ESR, `serror` an SError.
    #[arg(long, default_value = "full", value_parser = ["full", "mainline", "serror"])]
    pub(super) policy: String,
    /// Another answer than the policy's to errors of one kind; may be given again.
    #[arg(long, value_name = "KIND=ANSWER")]
    pub(super) rule: Vec<Rule>,
    /// Decide and report, and do nothing: the first memory error ends the run.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Remember bad pages in FILE, over resets and runs.
    ///
    /// The file is made if it is not there; `seawall ledger FILE` shows it. Pages that it has are healed before the guest
    /// starts.
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,
    /// Start the guest again when it asks for a reset or panics, COUNT times at most.
    ///
    /// Bad pages are healed then.
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with = "restore")]
    pub(super) reboot: u32,
    /// Do not heal bad pages: the guest starts without them in its memory map.
    #[arg(long)]
    pub(super) no_heal: bool,
    /// Write what happens to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    /// How long the file of events may become; the last line says how many more there were.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, hide_short_help = true)]
    pub(super) events_limit: u64,
    /// How much of the guest's console is written to stdout; the rest is dropped.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, hide_short_help = true)]
    pub(super) console_limit: u64,
    /// Serve the run's numbers to Prometheus while it lasts.
    ///
    /// They are at http://ADDR:PORT/metrics. A port alone is one of 127.0.0.1; port 0 is one that is free, and is said on
    /// stderr. There is no password: everybody who reaches the address can read them.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse::listen)]
    metrics: Option<SocketAddr>,
    /// Write log lines of this level and above to stderr.
    ///
    /// error, warn, info, debug, trace, or by target as seawall=warn [default: RUST_LOG, else none]
    #[arg(long, value_name = "LEVEL", value_parser = parse::log)]
    pub(super) log: Option<Targets>,
    /// One JSON object on stdout at the end, with the console in it.
    ///
    /// Of a long run it has the first and the last: 1,000 errors and 1 MiB of the console each, and how many were left
    /// out.
    #[arg(long)]
    pub(super) json: bool,
    /// Type standard input on the guest's console, also if it is no terminal.
    ///
    /// A file is typed the same each time.
    #[arg(long)]
    stdin: bool,
    /// Give up after so many instructions [default: 10_000_000_000, or no limit at a terminal]
    #[arg(long, value_name = "COUNT", value_parser = parse::count)]
    pub(super) max_insns: Option<u64>,
    /// Give up after so many seconds of the host's time [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = parse::count)]
    pub(super) timeout: Option<u64>,
}

/// What a guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    Auto,
    Machine,
    Kvm,
}

impl Args {
    /// The table of the policy, which the command line knows to be one.
    pub(super) fn rules(&self) -> Rules {
        self.policy.parse().unwrap_or_default()
    }

    /// The kernel's file; empty if the run goes on from a snapshot.
    pub(super) fn kernel(&self) -> &Path {
        self.kernel.as_deref().or(self.file.as_deref()).unwrap_or(Path::new(""))
    }

    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }

    pub(super) fn has_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// The endpoint for Prometheus, if one is wanted, until it is dropped.
    pub(super) fn metrics(&self) -> Result<Option<Endpoint>, Failure> {
        self.metrics.map(Endpoint::new).transpose()
    }

    /// A person sees the guest's console, and types on it.
    pub(super) fn is_at_terminal(&self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// Somebody types: standard input if that was asked for, or a terminal on both ends. `leave` is called when it is the end that was typed.
    pub(super) fn keyboard(&self, leave: impl Fn() + Send + 'static) -> Keyboard {
        if self.stdin || self.is_at_terminal() { Keyboard::stdin(leave) } else { Keyboard::none() }
    }
}
