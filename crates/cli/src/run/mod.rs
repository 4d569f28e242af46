//! `seawall run`: the user's own guest, on the software machine or on KVM.

mod args;
mod deadline;
mod ending;
mod exits;
mod keep;
mod kept;
mod keyboard;
mod kvm;
mod machine;
mod metrics;
mod output;
mod poison;
mod signals;
mod software;
mod watched;
mod why;

use std::fs::File;
use std::sync::Arc;

use seawall::ledger::{Keeper, Ledger};
use seawall::{Rule, Rules};
use seawall_kvm::Kvm;
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::kernel::{Kernel, KernelError};
use seawall_vmm::load::LoadError;
use seawall_vmm::{Config, Error, Guest, SoftwareMachine, Translation, layout};

use crate::parse::Place;
use crate::watch::Watch;
use crate::{Failure, exit};
pub(crate) use args::Args;
use args::Backend;
use deadline::Deadline;
use machine::needs_software;
use output::{Limits, Output, When};
use watched::Run;
use why::Decider;

/// The default command line for Linux: its console, and a reset right after a panic.
const LINUX_COMMAND_LINE: &str = "console=ttyAMA0 panic=-1";
/// The first line at a terminal.
const HOW_TO_LEAVE: &str = "Ctrl-A X leaves the guest; every other key goes to it";
/// The default limit of instructions for a guest without a terminal.
const MAX_INSNS: u64 = 10_000_000_000;
/// The largest input of the second UART, bytes.
const MAX_INPUT: u64 = 1 << 30;

pub(crate) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    metrics::log(args.log.clone());
    let deadline = Deadline::new(args.time_limit()).map_err(|error| {
        Failure::new(exit::UNAVAILABLE, format!("--timeout: the host has no thread for it: {error}"))
    })?;
    let on_kvm = on_kvm(args)?;
    let output = || {
        let decider = Decider::new(&args.policy, &args.rule);
        let limits = Limits { console: args.console_limit, events: args.events_limit };
        let mut output = Output::new(args.json, quiet, args.events.as_deref(), limits, decider)?;
        if args.is_at_terminal() {
            output.note(HOW_TO_LEAVE);
        }
        Ok::<_, Failure>(output)
    };
    let watch = Watch::default();
    if let Some(path) = &args.restore {
        let snapshot = keep::load(path, args.memory, !args.disk.is_empty())?;
        let mut config = snapshot.config();
        check_poison(args, config.memory)?;
        add_policy_and_disks(args, &mut config)?;
        let mut output = output()?;
        let mut machine = SoftwareMachine::resume(&snapshot, config, Box::new(watch.clone()))?;
        choose_translation(args, &mut machine, &mut output);
        return Run::new(args, Box::new(machine), watch, output, &deadline)?.run(None);
    }
    // A file is read as far as it fits, so check the size first.
    Config::new(args.memory).checked_memory()?;
    check_poison(args, args.memory)?;
    let guest = guest(args)?;
    let config = config(args)?;
    let mut output = output()?;
    if args.file.is_some() {
        output.note(format_args!("{} is taken for {}", args.kernel().display(), what(&guest)));
    }
    let bad = config.ledger.with(Ledger::pages);
    let machine = if on_kvm {
        kvm::machine(config, &guest, &watch)?
    } else {
        let mut machine = SoftwareMachine::new(config, &guest, Box::new(watch.clone()))?;
        choose_translation(args, &mut machine, &mut output);
        Box::new(machine)
    };
    let left = machine.ledger().with(Ledger::pages);
    output.starts(When::default(), None, bad - left, left);
    // The guest's memory has its files now; keep them only for a restart.
    let guest = (args.reboot > 0).then_some(guest);
    Run::new(args, machine, watch, output, &deadline)?.run(guest.as_ref())
}

/// Chooses how the guest's code is executed. Says so if all of it is interpreted though nobody asked for that.
fn choose_translation(args: &Args, machine: &mut SoftwareMachine, output: &mut Output) {
    if args.interpreter {
        machine.set_translation(Translation::Off);
    } else if !Translation::is_available() {
        output.note("there is no translator for this host, or it executes no code that a program makes: all is interpreted");
    }
}

/// Returns true if the guest runs on KVM.
fn on_kvm(args: &Args) -> Result<bool, Failure> {
    let needs_machine = [
        ("--el2", "the CPUs have EL2", args.el2),
        ("--poison", "memory goes bad at will", !args.poison.is_empty()),
        ("--max-insns", "instructions are counted", args.max_insns.is_some()),
        ("--snapshot", "a run can be gone back to", !args.snapshot.is_empty()),
        ("--restore", "a run can be gone back to", args.restore.is_some()),
        ("--interpreter", "all is interpreted", args.interpreter),
    ];
    let needs_machine = needs_machine.iter().find(|(.., is_asked)| *is_asked);
    match (args.backend, needs_machine) {
        (Backend::Machine, _) | (Backend::Auto, Some(_)) => Ok(false),
        (Backend::Auto, None) => Ok(Kvm::open().is_ok()),
        (Backend::Kvm, Some((option, what, _))) => Err(needs_software(option, what)),
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
    let kernel = args.kernel();
    let mut guest = Guest::read(kernel, args.initrd.as_deref(), "", args.memory)?;
    if let (Kernel::Flat(_), Some(initrd)) = (&guest.kernel, &args.initrd) {
        let message = format!(
            "--initrd {}: expected a Linux kernel or an ELF to go with it, got {}, which has no mark of either and would \
             run as a flat image; give the kernel, or leave --initrd out",
            initrd.display(),
            kernel.display()
        );
        return Err(Failure::new(exit::USAGE, message));
    }
    let is_linux = matches!(guest.kernel, Kernel::Linux(_));
    let default = if is_linux { LINUX_COMMAND_LINE } else { "" };
    guest.command_line = args.append.clone().unwrap_or_else(|| default.to_owned());
    guest.address = args.load;
    Ok(guest)
}

/// A guest's kernel, for people.
fn what(guest: &Guest) -> String {
    match &guest.kernel {
        Kernel::Linux(_) => "an arm64 Linux kernel (--kernel)".into(),
        Kernel::Elf { entry, .. } => format!("an AArch64 ELF, entered at {entry:#x} (--kernel)"),
        Kernel::Flat(bytes) => format!(
            "a flat image of {} bytes, as it has no mark of anything else (--kernel; --load ADDR is where it goes)",
            bytes.len()
        ),
    }
}

fn config(args: &Args) -> Result<Config, Failure> {
    let mut config = Config::new(args.memory);
    config.cpus = args.cpus;
    config.virtio_console = args.virtio_console;
    config.acpi = args.acpi;
    config.el2 = args.el2;
    add_policy_and_disks(args, &mut config)?;
    Ok(config)
}

/// The host's parts of a machine, which no snapshot holds.
fn add_policy_and_disks(args: &Args, config: &mut Config) -> Result<(), Failure> {
    let with = |rules: Rules, rule: &Rule| rules.with(rule.kind, rule.answer);
    config.policy = Box::new(args.rule.iter().fold(args.rules(), with));
    config.dry_run = args.dry_run;
    config.heal = !args.no_heal;
    if let Some(path) = &args.ledger {
        let keeper = Keeper::open(path).map_err(|error| {
            Failure::new(exit::FILE, format!("--ledger: {error}; move it away to start with an empty one"))
        })?;
        config.ledger = Arc::new(keeper);
    }
    if let Some(path) = &args.second_uart {
        let file = File::create(path).map_err(|error| {
            Failure::new(exit::FILE, format!("--second-uart {}: {error}", path.display()))
        })?;
        config.second_uart.output = Some(Box::new(file));
    }
    if let Some(path) = &args.second_input {
        config.second_uart.input = seawall_files::read(path, MAX_INPUT).map_err(|error| {
            Failure::new(exit::FILE, format!("--second-input {}: {error}", path.display()))
        })?;
    }
    for path in &args.disk {
        let mut disk = Disk::open(path, Writes::InMemory)
            .map_err(|error| Failure::new(exit::FILE, format!("--disk {}: {error}", path.display())))?;
        disk.set_write_limit(args.disk_writes);
        config.disks.push(disk);
    }
    Ok(())
}

/// The exit code of a VMM's error for the shell.
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
