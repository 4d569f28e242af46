//! The demo's output for people.

use std::ops::Range;

use seawall::{Access, Action, Delivery, Outcome};
use seawall_arm::{Esr, FaultStatus};
use seawall_guest::{Checksum, KernelEnd, TaskState};

use super::POLICIES;
use super::scenario::{CODE_VICTIM, DATA_VICTIM, Run};
use crate::out::stderr;
use crate::style::{bad, dim, good, head};

const NAME: usize = 8;
const COLUMN: usize = 22;

/// The whole screen; no line wider than 80 columns.
pub(super) fn screen(runs: &[Run]) -> String {
    let mut lines = vec![
        "A guest runs four programs. Two lines of its memory go bad: one in the code of".into(),
        format!(
            "`{CODE_VICTIM}`, one in the data of `{DATA_VICTIM}`; both are used again. What survives is up to what"
        ),
        "the hypervisor injects.".into(),
        String::new(),
        row("", runs, |n, _| (POLICIES[n].1.to_string(), Tone::Head)),
        row("", runs, |n, _| (POLICIES[n].2.to_string(), Tone::Dim)),
    ];
    lines.extend(["web", "db", "batch", "log"].map(|name| row(name, runs, |_, run| task(run, name))));
    lines.push(row("kernel", runs, |_, run| match run.report.kernel {
        KernelEnd::Ok => ("ok".into(), Tone::Good),
        KernelEnd::Panic => ("PANIC".into(), Tone::Bad),
    }));
    lines.push(String::new());
    lines.push(row("survived", runs, |_, run| (format!("{} of 4", run.survivors()), Tone::Head)));
    lines.push(String::new());
    for access in [Access::Fetch, Access::Load] {
        lines.extend(errors(runs, access));
    }
    lines.push(
        dim("seawall demo --trace shows each step; seawall run takes a guest of your own.\n").to_string(),
    );
    lines.join("\n")
}

#[derive(Clone, Copy)]
enum Tone {
    Good,
    Bad,
    Head,
    Dim,
}

fn row(name: &str, runs: &[Run], cell: impl Fn(usize, &Run) -> (String, Tone)) -> String {
    let mut line = format!("  {name:NAME$}  ");
    for (n, run) in runs.iter().enumerate() {
        let (text, tone) = cell(n, run);
        let width = if n + 1 < runs.len() { COLUMN } else { 0 };
        let text = format!("{text:width$}");
        line += &match tone {
            Tone::Good => good(text).to_string(),
            Tone::Bad => bad(text).to_string(),
            Tone::Head => head(text).to_string(),
            Tone::Dim => dim(text).to_string(),
        };
    }
    line
}

fn task(run: &Run, name: &str) -> (String, Tone) {
    let Some(task) = run.report.task(name) else { return ("no report".into(), Tone::Bad) };
    let recovered = name == CODE_VICTIM && run.report.seas.iter().any(|sea| sea.clean.is_some());
    match (task.state, task.checksum) {
        (TaskState::Alive, Checksum::Ok) if recovered => ("✓ alive, reloaded".into(), Tone::Good),
        (TaskState::Alive, Checksum::Ok) => ("✓ alive".into(), Tone::Good),
        (TaskState::Alive, _) => ("✗ wrong results".into(), Tone::Bad),
        (TaskState::Killed, _) if name == DATA_VICTIM => ("✗ killed, data lost".into(), Tone::Bad),
        (TaskState::Killed, _) => ("✗ killed".into(), Tone::Bad),
        (TaskState::Lost, _) => ("✗ lost with kernel".into(), Tone::Bad),
    }
}

/// The error of one kind with its outcome under each policy, and an empty line after it.
fn errors(runs: &[Run], access: Access) -> Vec<String> {
    let of = |run: &Run| run.errors.iter().find(|outcome| outcome.error.access == access).copied();
    let Some(outcome) = runs.iter().find_map(of) else { return Vec::new() };
    let (what, abort, whose) = match access {
        Access::Fetch => ("fetch", "instruction abort", format!("{CODE_VICTIM}'s code")),
        _ => ("load", "data abort", format!("{DATA_VICTIM}'s data")),
    };
    let hex = |value: Option<u64>| value.map_or("unknown".into(), |value| format!("{value:#x}"));
    let Some(esr) = outcome.error.esr else { return Vec::new() };
    let mut lines = vec![
        format!(
            "{} from {whose}: gva {}, gpa {}",
            head(what),
            hex(outcome.error.gva),
            hex(outcome.error.gpa)
        ),
        format!("  {:NAME$}  {:#010x} {abort}, {}", "the exit", esr.bits(), status(esr)),
    ];
    for (n, run) in runs.iter().enumerate() {
        let became = match of(run) {
            Some(outcome) => delivered(run, &outcome),
            None => dim("the guest did not live to meet it").to_string(),
        };
        lines.push(format!("  {:NAME$}  {became}", POLICIES[n].1));
    }
    lines.push(String::new());
    lines
}

fn status(esr: Esr) -> FaultStatus {
    FaultStatus::from_bits(esr.bits() as u8 & 0x3f)
}

/// The injection, and the ESR and FAR that the guest's own handler reported.
fn delivered(run: &Run, outcome: &Outcome) -> String {
    let Action::Injected { injection, guest } = &outcome.action else {
        return "stopped".into();
    };
    let injected = format!("{:28}", injection.to_string());
    let Delivery::AtVector { esr, .. } = guest else {
        return format!("{injected}  {guest}");
    };
    let seen = run.saw().into_iter().find(|saw| saw.esr == esr.bits() && saw.far == far(outcome, esr.bits()));
    match seen {
        Some(saw) => {
            let far = saw.far.map_or(String::new(), |far| format!(" FAR {far:#x}"));
            format!("{injected}  guest saw ESR {:#010x}{far}", saw.esr)
        }
        None => format!("{injected}  {}", bad("the guest did not report it")),
    }
}

/// The FAR of an abort; an SError has none.
fn far(outcome: &Outcome, esr: u64) -> Option<u64> {
    let is_serror = esr >> 26 == 0x2f;
    if is_serror { None } else { outcome.error.gva }
}

pub(super) fn trace_head(policy: &str) {
    stderr(head(format!("--- policy {policy}")));
}

pub(super) fn trace_console(text: &str) {
    for line in text.lines() {
        stderr(format!("  guest    {line}"));
    }
}

pub(super) fn trace_poison(place: &Range<u64>, instructions: u64) {
    stderr(format!(
        "  memory   {:#x}..{:#x} goes bad after {instructions} instructions",
        place.start, place.end
    ));
}

pub(super) fn trace_error(outcome: &Outcome) {
    if let Some(esr) = outcome.error.esr {
        stderr(format!("  exit     KVM_EXIT_ARM_SEA {esr}"));
    }
    stderr(format!("  error    {}", outcome.error));
    if let Action::Injected { injection, guest } = &outcome.action {
        stderr(format!("  inject   {injection}"));
        stderr(format!("  state    {guest}"));
    }
}
