//! `seawall run`: a bare-metal guest of the user's own.

use std::fmt::Display;
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use seawall::{Action, Outcome, Policy, builtin};
use seawall_arm::ExceptionClass;
use seawall_events::{Abi, Layout};
use seawall_machine::board::Board;
use seawall_machine::{Config, RAM_BASE};
use serde_json::{Value, json};

use crate::parse::{self, Poison};
use crate::session::{End, Pause, Session};
use crate::style::dim;
use crate::{Failure, exit, out};

/// Instructions between two looks at the console.
const SLICE: u64 = 5_000_000;

/// Runs a flat image or an ELF on the software machine: what QEMU's `virt` has, as far as a bare-metal
/// guest sees it. RAM from 0x40000000, PL011 at 0x09000000, PSCI over HVC, FDT address in x0; entered at
/// EL1 with the MMU off. The guest's console is stdout.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seawall run --machine guest.elf
  seawall run --machine guest.bin --load 0x40080000 --poison 0x40210000@100000 --policy full
  seawall run --machine guest.bin --poison 0x40210000+4K --policy serror --json")]
pub(crate) struct Args {
    /// Flat image or AArch64 ELF.
    #[arg(long, value_name = "FILE")]
    machine: PathBuf,
    /// Where a flat image goes, and is entered [default: 0x40080000, as QEMU's virt]
    #[arg(long, value_name = "ADDR", value_parser = parse::number)]
    load: Option<u64>,
    /// RAM, from 0x40000000.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse::size)]
    memory: u64,
    /// Memory that goes bad: LEN bytes (64 if not given) at physical address ADDR, in whole lines of 64,
    /// after COUNT instructions (at the start if not given). May be given again.
    #[arg(long, value_name = "ADDR[+LEN][@COUNT]", value_parser = parse::poison)]
    poison: Vec<Poison>,
    /// What the guest gets for it: the abort as it happened, a data abort without an ESR, or an SError.
    #[arg(long, default_value = "full", value_parser = ["full", "mainline", "serror"])]
    policy: String,
    /// Give up after so many instructions.
    #[arg(long, value_name = "COUNT", default_value = "10000000000", value_parser = parse::number)]
    max_insns: u64,
    /// One JSON object on stdout at the end, the console in it.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<u8, Failure> {
    let policy = builtin(&args.policy).ok_or_else(|| {
        Failure::new(exit::USAGE, format!("expected full, mainline or serror, got `{}`", args.policy))
    })?;
    let mut session = Session::new(load(args)?, policy, args.poison.clone());
    let mut output = Output::new(args.json);
    let end = loop {
        let pause = session
            .run(SLICE, args.max_insns)
            .map_err(|error| Failure::new(exit::UNSUPPORTED, error.to_string()))?;
        output.console(&session.console(), session.instructions())?;
        match pause {
            Pause::Slice => {}
            Pause::Error(outcome) => output.error(outcome),
            Pause::End(end) => break end,
        }
    };
    output.end(&mut session, policy, &end)?;
    Ok(exit_code(&end))
}

fn load(args: &Args) -> Result<Board, Failure> {
    let path = args.machine.display();
    let image = fs::read(&args.machine)
        .map_err(|error| Failure::new(exit::FILE, format!("cannot read {path}: {error}")))?;
    let ram = RAM_BASE..RAM_BASE.saturating_add(args.memory);
    for poison in &args.poison {
        let range = &poison.range;
        if range.start < ram.start || range.end > ram.end {
            let message = format!(
                "--poison {:#x}..{:#x}: expected a range in RAM, {:#x}..{:#x}; give --memory more, or another ADDR",
                range.start, range.end, ram.start, ram.end
            );
            return Err(Failure::new(exit::RANGE, message));
        }
    }
    let abi = if args.policy == "full" { Abi::Extended(Layout::Posted) } else { Abi::Mainline };
    let config = Config { memory_size: args.memory, abi, ..Config::default() };
    let mut board = Board::new(config)
        .map_err(|error| Failure::new(exit::RANGE, format!("--memory {:#x}: {error}", args.memory)))?;
    board
        .load(&image, args.load)
        .map_err(|error| Failure::new(exit::FILE, format!("cannot load {path}: {error}")))?;
    Ok(board)
}

fn exit_code(end: &End) -> u8 {
    match end {
        End::PowerOff => 0,
        End::Reset => exit::RESET,
        End::Limit | End::Idle | End::BadVector { .. } => exit::HUNG,
        End::Storm(_) => exit::STORM,
        End::NoDevice(_) | End::NoSyndrome(_) | End::Event(_) => exit::UNSUPPORTED,
    }
}

/// Why it ended, and what to do about it.
fn explain(end: &End, pc: u64, instructions: u64) -> String {
    match end {
        End::PowerOff => format!("the guest powered off after {instructions} instructions"),
        End::Reset => format!("the guest asked for a reset after {instructions} instructions"),
        End::Limit => format!(
            "the guest did not end in {instructions} instructions (PC {pc:#x}): raise --max-insns, or see why \
             it hangs"
        ),
        End::Idle => format!(
            "the guest waits for an interrupt at PC {pc:#x}, and nothing will raise one: end it with PSCI \
             SYSTEM_OFF"
        ),
        End::Storm(reason) => format!("{reason}"),
        End::BadVector { pc, esr } => format!(
            "the guest took an exception at its own vector {pc:#x}, and does so for ever: ESR_EL1 {esr}. Set \
             VBAR_EL1 to vectors that it can execute"
        ),
        End::NoDevice(mmio) => format!(
            "the guest {} {} bytes at {:#x} (PC {pc:#x}), where this machine has neither RAM nor a device",
            if mmio.is_write { "wrote" } else { "read" },
            mmio.len,
            mmio.phys_addr
        ),
        End::NoSyndrome(nisv) => format!(
            "the guest accessed {:#x} (PC {pc:#x}) by an instruction without a valid syndrome, where this \
             machine has neither RAM nor a device",
            nisv.fault_ipa
        ),
        End::Event(event) => format!("the guest asked for {event:?} by PSCI, which this machine does not do"),
    }
}

/// Where the console and the errors go.
struct Output {
    json: bool,
    console: Vec<u8>,
    /// The guest's console stands in the middle of a line.
    is_mid_line: bool,
    errors: Vec<Outcome>,
    progress: Option<ProgressBar>,
    started: Instant,
}

impl Output {
    fn new(json: bool) -> Self {
        let console = Vec::new();
        Self {
            json,
            console,
            is_mid_line: false,
            errors: Vec::new(),
            progress: None,
            started: Instant::now(),
        }
    }

    fn console(&mut self, bytes: &[u8], instructions: u64) -> Result<(), Failure> {
        if self.json {
            self.console.extend_from_slice(bytes);
        } else if let Some(last) = bytes.last() {
            self.is_mid_line = *last != b'\n';
            match &self.progress {
                Some(bar) => bar.suspend(|| out::stdout_bytes(bytes))?,
                None => out::stdout_bytes(bytes)?,
            }
        }
        self.progress(instructions);
        Ok(())
    }

    /// A line of our own, on stderr; not behind half a line of the guest's.
    fn note(&mut self, text: impl Display) {
        let line_break = if std::mem::take(&mut self.is_mid_line) { "\n" } else { "" };
        let write = || out::stderr(format!("{line_break}{}", dim(format!("seawall: {text}"))));
        match &self.progress {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Over two seconds, and only for a person.
    fn progress(&mut self, instructions: u64) {
        if self.progress.is_none() {
            if self.started.elapsed() < Duration::from_secs(2) || !std::io::stderr().is_terminal() {
                return;
            }
            self.progress = Some(ProgressBar::new_spinner());
        }
        if let Some(bar) = &self.progress {
            bar.set_message(format!("{} million instructions", instructions / 1_000_000));
            bar.tick();
        }
    }

    fn error(&mut self, outcome: Outcome) {
        if !self.json {
            self.note(outcome);
        }
        self.errors.push(outcome);
    }

    fn end(mut self, session: &mut Session<'_>, policy: &dyn Policy, end: &End) -> Result<(), Failure> {
        if let Some(bar) = &self.progress {
            bar.finish_and_clear();
        }
        let instructions = session.instructions();
        let pc = session.pc().map_err(|error| Failure::new(exit::UNSUPPORTED, error.to_string()))?;
        let text = explain(end, pc, instructions);
        let to_come = session.poison_to_come();
        if !self.json {
            self.note(text);
            if to_come > 0 {
                self.note(format!(
                    "{to_come} of the --poison ranges did not go bad: the guest ended before their @COUNT"
                ));
            }
            return Ok(());
        }
        let undefined = session.board().vm().undefined().count();
        let report = json!({
            "policy": policy.name(),
            "outcome": name(end),
            "text": text,
            "pc": format!("{pc:#x}"),
            "instructions": instructions,
            "undefined_instructions": undefined,
            "poison_to_come": to_come,
            "errors": self.errors.iter().map(outcome_json).collect::<Vec<_>>(),
            "console": String::from_utf8_lossy(&self.console),
        });
        out::stdout(&format!("{report}\n"))
    }
}

fn name(end: &End) -> &'static str {
    match end {
        End::PowerOff => "power-off",
        End::Reset => "reset",
        End::Limit => "instruction-limit",
        End::Idle => "idle",
        End::Storm(_) => "storm",
        End::BadVector { .. } => "bad-vector",
        End::NoDevice(_) => "no-device",
        End::NoSyndrome(_) => "no-syndrome",
        End::Event(_) => "system-event",
    }
}

/// An error and what was done about it. Addresses and syndromes are hexadecimal strings: JSON numbers
/// lose bits past 2^53.
pub(crate) fn outcome_json(outcome: &Outcome) -> Value {
    let error = &outcome.error;
    let hex = |value: u64| format!("{value:#x}");
    let (injected, guest) = match &outcome.action {
        Action::Stop(_) => (None, None),
        Action::Injected { injection, guest } => (Some(injection.to_string()), Some(guest)),
    };
    let (state, esr, far) = match guest {
        Some(seawall::GuestState::AtVector { esr, far, .. }) => {
            // An SError does not set FAR: what it holds is of an earlier abort.
            let far = (esr.ec() != ExceptionClass::SERROR).then(|| hex(*far));
            ("at-vector", Some(hex(esr.bits())), far)
        }
        Some(seawall::GuestState::SErrorPending) => ("serror-pending", None, None),
        Some(seawall::GuestState::NotDelivered) => ("not-delivered", None, None),
        None => ("stopped", None, None),
    };
    json!({
        "access": format!("{:?}", error.access).to_lowercase(),
        "exit_esr": hex(error.esr.bits()),
        "gva": error.gva.map(hex),
        "gpa": error.gpa.map(hex),
        "walk_level": error.walk_level,
        "exception_level": error.level as u8,
        "pc": hex(error.pc),
        "injected": injected,
        "guest": state,
        "guest_esr": esr,
        "guest_far": far,
    })
}
