//! `seawall probe`: the features of this host.

use seawall_events::Layout;
use seawall_kvm::probe::{
    Absent, CAPABILITIES, Device, Extended, Firmware, Injection, Kind, Memory, Report, Seen, System, Way,
    probe,
};
use serde_json::{Map, Value, json};

use crate::style::{bad, good, head};
use crate::{Failure, out};

/// Show the features of this host: its KVM, injections, errors, memory; with advice.
///
/// The report covers the host's KVM and its capabilities, the way that each kind of injection takes, whether a VMM sees
/// errors, and how to make an error for a test. It ends with advice. The command changes nothing. As root it sees
/// more.
#[derive(clap::Args)]
#[command(after_help = JSON_HELP)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const JSON_HELP: &str = "\
Examples:
  seawall probe
  cargo xtask lab -- seawall probe             in the lab
  seawall probe --json | jq .injection.instruction_abort_esr.way

The fields of --json. They stay as they are; later versions may add more. null: not known, or not available.
  architecture, program, os, kernel   the machine's, this program's; strings
  page_kib, admin                     base page size; CAP_SYS_ADMIN
  kvm.state          arm64 | other-architecture | not-kvm | not-opened | absent | not-linux
  kvm.why            a sentence if it is not arm64
  kvm.capabilities   name: answer of KVM_CHECK_EXTENSION, 0 for none; null if it is not arm64
  kvm.extended_abi   native-posted | native-trailing | assisted
  injection.KIND     KIND: data_abort, data_abort_esr, instruction_abort,
                     instruction_abort_esr, serror, serror_esr
    .way, .why       native | assisted | none; why none
  errors.seen        exit | sigbus-or-exit | sigbus-or-serror | serror | no-kvm
  errors.hest, .firmware_claims_sea, .einj     APEI, booleans
  memory.hwpoison, .bad_kib, .recovers, .early_kill, .transparent_huge_pages
  memory.huge_pages  a list of kib, total, free
  lab.poison_register, .bad_ranges, .why
  advice             a list of sentences

The exit code is 0 whatever the host offers.";

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    let mut report = probe();
    let register = poison_register();
    if register.is_ok() && matches!(report.device, Device::Arm64 { .. }) {
        report
            .advice
            .push("Memory can be made bad here: `seawall check --backend kvm sea::` does it.".to_owned());
    }
    let text = if args.json { format!("{}\n", json(&report, &register)) } else { screen(&report, &register) };
    out::stdout(&text)?;
    Ok(0)
}

/// The number of ranges in the lab's poison register, or the reason why it is missing.
type Register = Result<u64, String>;

#[cfg(target_os = "linux")]
fn poison_register() -> Register {
    let register = seawall_lab_machine::PoisonRegister::open();
    register.map(|register| register.count()).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn poison_register() -> Register {
    Err("not on the lab's machine".into())
}

fn json(report: &Report, register: &Register) -> Value {
    let Report { system, firmware, memory, .. } = report;
    let injection: Map<String, Value> =
        report.injections.iter().map(|injection| (key(injection.kind).into(), way_json(injection))).collect();
    let huge_pages: Vec<Value> = memory
        .huge_pages
        .iter()
        .map(|pool| json!({ "kib": pool.kib, "total": pool.total, "free": pool.free }))
        .collect();
    json!({
        "architecture": system.architecture,
        "program": std::env::consts::ARCH,
        "os": system.os,
        "kernel": system.kernel,
        "page_kib": system.page_kib,
        "admin": system.is_admin,
        "kvm": kvm_json(&report.device),
        "injection": injection,
        "errors": {
            "seen": seen_key(report.seen),
            "hest": firmware.hest,
            "firmware_claims_sea": firmware.claims_sea,
            "einj": firmware.einj,
        },
        "memory": {
            "hwpoison": memory.hwpoison,
            "bad_kib": memory.bad_kib,
            "recovers": memory.recovers,
            "early_kill": memory.early_kill,
            "huge_pages": huge_pages,
            "transparent_huge_pages": memory.transparent_huge_pages,
        },
        "lab": {
            "poison_register": register.is_ok(),
            "bad_ranges": register.as_ref().ok(),
            "why": register.as_ref().err(),
        },
        "advice": report.advice,
    })
}

fn kvm_json(device: &Device) -> Value {
    let state = match device {
        Device::Arm64 { .. } => "arm64",
        Device::OtherArchitecture => "other-architecture",
        Device::NotKvm(_) => "not-kvm",
        Device::NotOpened(_) => "not-opened",
        Device::Absent(_) => "absent",
        Device::NotLinux => "not-linux",
    };
    let Device::Arm64 { capabilities, extended } = device else {
        let why = what_device(device);
        return json!({ "state": state, "why": why, "capabilities": null, "extended_abi": null });
    };
    let answers: Map<String, Value> = CAPABILITIES
        .iter()
        .zip(capabilities)
        .map(|((_, name, _), answer)| ((*name).into(), (*answer).into()))
        .collect();
    let extended = match extended {
        Extended::Native(Layout::Posted) => Some("native-posted"),
        Extended::Native(Layout::Trailing) => Some("native-trailing"),
        Extended::Assisted => Some("assisted"),
        Extended::Unknown(_) => None,
    };
    json!({ "state": state, "why": null, "capabilities": answers, "extended_abi": extended })
}

fn way_json(injection: &Injection) -> Value {
    let (way, why) = match &injection.way {
        Way::Native => ("native", None),
        Way::Assisted => ("assisted", None),
        Way::Not(why) => ("none", Some(why)),
    };
    json!({ "way": way, "why": why })
}

/// The kind's name in the JSON, and its name for people.
fn names(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::DataAbort => ("data_abort", "data abort"),
        Kind::DataAbortEsr => ("data_abort_esr", "  with an ESR"),
        Kind::InstructionAbort => ("instruction_abort", "instruction abort"),
        Kind::InstructionAbortEsr => ("instruction_abort_esr", "  with an ESR"),
        Kind::SError => ("serror", "SError"),
        Kind::SErrorEsr => ("serror_esr", "  with an ESR"),
    }
}

fn key(kind: Kind) -> &'static str {
    names(kind).0
}

fn seen_key(seen: Seen) -> &'static str {
    match seen {
        Seen::Exit => "exit",
        Seen::SigbusOrExit => "sigbus-or-exit",
        Seen::SigbusOrSError => "sigbus-or-serror",
        Seen::SError => "serror",
        Seen::NoKvm => "no-kvm",
    }
}

/// The kind of `/dev/kvm`, in words.
fn what_device(device: &Device) -> String {
    match device {
        Device::Arm64 { .. } => "KVM/arm64".into(),
        Device::OtherArchitecture => "KVM of another architecture".into(),
        Device::NotKvm(errno) => {
            format!("it opens, and does not answer as KVM (an emulator of user space?): {errno}")
        }
        Device::NotOpened(errno) => format!("it cannot be opened: {errno}"),
        Device::Absent(Absent::NotInThisFileSystem) => "the kernel has it, this file system has not".into(),
        Device::Absent(Absent::SwitchedOff) => "switched off: kvm-arm.mode=none".into(),
        Device::Absent(Absent::NotStarted) => "not there: the kernel has KVM and did not start it".into(),
        Device::Absent(Absent::NotInKernel) => "not there: no KVM in this kernel".into(),
        Device::NotLinux => "not there: not Linux".into(),
    }
}

/// The table, at most 80 columns.
fn screen(report: &Report, register: &Register) -> String {
    let mut screen = Screen(String::new());
    host(&mut screen, &report.system);
    kvm(&mut screen, &report.device);
    screen.head("injection");
    if report.seen == Seen::NoKvm {
        screen.row("of any kind", Tone::Bad, "no: no KVM/arm64 here");
    } else {
        for Injection { kind, way } in &report.injections {
            match way {
                Way::Native => screen.row(names(*kind).1, Tone::Good, "native"),
                Way::Assisted => screen.row(names(*kind).1, Tone::Good, "assisted"),
                Way::Not(why) => screen.row(names(*kind).1, Tone::Bad, &format!("no: {why}")),
            }
        }
    }
    errors(&mut screen, report.seen, report.firmware);
    memory(&mut screen, &report.memory);
    match register {
        Ok(bad) => screen.row("poison register", Tone::Good, &format!("yes; bad ranges: {bad}")),
        Err(why) => screen.row("poison register", Tone::Plain, &format!("no: {why}")),
    }
    screen.head("advice");
    for sentence in &report.advice {
        screen.lines("  - ", "    ", Tone::Plain, sentence);
    }
    screen.0
}

#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Bad,
}

struct Screen(String);

impl Screen {
    fn head(&mut self, name: &str) {
        self.0 += if self.0.is_empty() { "" } else { "\n" };
        self.0 += &head(name).to_string();
        self.0 += "\n";
    }

    fn row(&mut self, name: &str, tone: Tone, value: &str) {
        self.lines(&format!("  {name:<18}"), &" ".repeat(20), tone, value);
    }

    /// A text in lines of at most 80 columns: the first after `first`, the others after `rest`.
    fn lines(&mut self, first: &str, rest: &str, tone: Tone, text: &str) {
        const COLUMNS: usize = 80;
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let length = lines.last().map_or(0, |line| line.chars().count());
            match lines.last_mut() {
                Some(line) if length == 0 => *line += word,
                Some(line) if rest.len() + length + 1 + word.chars().count() <= COLUMNS => {
                    *line += " ";
                    *line += word;
                }
                _ => lines.push(word.into()),
            }
        }
        for (n, line) in lines.iter().enumerate() {
            self.0 += if n == 0 { first } else { rest };
            self.0 += &match tone {
                Tone::Plain => line.clone(),
                Tone::Good => good(line).to_string(),
                Tone::Bad => bad(line).to_string(),
            };
            self.0 += "\n";
        }
    }
}

fn host(screen: &mut Screen, system: &System) {
    screen.head("host");
    let program = std::env::consts::ARCH;
    let note =
        if system.architecture == program { String::new() } else { format!(" (this program: {program})") };
    screen.row("architecture", Tone::Plain, &format!("{}{note}", system.architecture));
    screen.row("kernel", Tone::Plain, &format!("{} {}", system.os, system.kernel.as_deref().unwrap_or("?")));
    let pages = system.page_kib.map_or_else(|| "?".into(), |kib| format!("{kib} KiB"));
    screen.row("pages", Tone::Plain, &pages);
    screen.row("CAP_SYS_ADMIN", Tone::Plain, if system.is_admin { "yes" } else { "no" });
}

fn kvm(screen: &mut Screen, device: &Device) {
    screen.head("KVM");
    let Device::Arm64 { capabilities, extended } = device else {
        screen.row("/dev/kvm", Tone::Bad, &what_device(device));
        return;
    };
    screen.row("/dev/kvm", Tone::Good, &what_device(device));
    match extended {
        Extended::Native(Layout::Posted) => screen.row("extended ABI", Tone::Good, "native, as posted"),
        Extended::Native(Layout::Trailing) => {
            screen.row("extended ABI", Tone::Good, "native, ext_abt_esr last");
        }
        Extended::Assisted => screen.row("extended ABI", Tone::Good, "assisted"),
        Extended::Unknown(why) => screen.row("extended ABI", Tone::Bad, &format!("unknown: {why}")),
    }
    for ((number, name, what), answer) in CAPABILITIES.iter().zip(capabilities) {
        let name = name.trim_start_matches("KVM_CAP_").trim_start_matches("ARM_");
        screen.row(name, Tone::Plain, &format!("{answer:<2} {what} ({number})"));
    }
}

fn errors(screen: &mut Screen, seen: Seen, firmware: Firmware) {
    screen.head("errors");
    let (tone, text) = match seen {
        Seen::Exit => (Tone::Good, "as KVM_EXIT_ARM_SEA"),
        Seen::SigbusOrExit => (Tone::Good, "as SIGBUS or as KVM_EXIT_ARM_SEA"),
        Seen::SigbusOrSError => (Tone::Bad, "as SIGBUS, or not: the guest takes an SError"),
        Seen::SError => (Tone::Bad, "not: the guest takes an SError"),
        Seen::NoKvm => (Tone::Plain, "no KVM/arm64 here"),
    };
    screen.row("a VMM sees them", tone, text);
    let firmware_first = match (firmware.hest, firmware.claims_sea) {
        (false, _) => "no table of error sources (HEST)",
        (true, Some(true)) => "claims SEAs before KVM (HEST)",
        (true, Some(false)) => "has error sources (HEST), none in use for SEAs",
        (true, None) => "has error sources; HEST may not be read",
    };
    screen.row("firmware", Tone::Plain, firmware_first);
    screen.row("EINJ", Tone::Plain, if firmware.einj { "yes" } else { "no" });
}

fn memory(screen: &mut Screen, memory: &Memory) {
    screen.head("memory");
    let (tone, text) = match (memory.hwpoison, memory.recovers) {
        (false, _) => (Tone::Bad, "no: the kernel has no CONFIG_MEMORY_FAILURE".into()),
        (true, Some(false)) => (Tone::Bad, "yes, but the host panics: vm.memory_failure_recovery = 0".into()),
        (true, _) => (Tone::Good, format!("yes; {} KiB are out of use as bad", memory.bad_kib)),
    };
    screen.row("MADV_HWPOISON", tone, &text);
    if let Some(early_kill) = memory.early_kill {
        let whom = if early_kill { "to every process" } else { "to those that ask for it" };
        screen.row("early warning", Tone::Plain, whom);
    }
    let pools: Vec<String> = memory
        .huge_pages
        .iter()
        .map(|pool| format!("{}: {} of {} free", size(pool.kib), pool.free, pool.total))
        .collect();
    let pools = if pools.is_empty() { "none".into() } else { pools.join(", ") };
    screen.row("huge pages", Tone::Plain, &pools);
    if let Some(mode) = &memory.transparent_huge_pages {
        screen.row("  transparent", Tone::Plain, mode);
    }
}

fn size(kib: u64) -> String {
    match kib {
        kib if kib >= 1 << 20 => format!("{} GiB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{} MiB", kib >> 10),
        kib => format!("{kib} KiB"),
    }
}
