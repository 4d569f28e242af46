//! The output of the guest's console, the errors and the end: stdout, stderr, a file of events.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use seawall::telemetry::{AccessReport, ErrorReport};
use seawall::{Action, Outcome, UnansweredOutcome};
use serde::Serialize;
use serde_json::{Value, json};

use super::kept::FirstAndLast;
use super::why::Decider;
use crate::style::{bad, dim};
use crate::{Failure, exit, out};

/// The time of a guest's silence after which a person may wonder.
const QUIET: Duration = Duration::from_secs(2);

/// The time of an event, by the guest's own clock: that of the software machine, or its running time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct When {
    pub(super) time: Duration,
    /// The count on the software machine.
    pub(super) instructions: Option<u64>,
}

/// A line of the file of events.
#[derive(Serialize)]
struct Event<T> {
    #[serde(rename = "event")]
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_time_ns: Option<u64>,
    instructions: Option<u64>,
    #[serde(flatten)]
    fields: T,
}

impl<T> Event<T> {
    fn new(name: &'static str, when: When, fields: T) -> Self {
        Self {
            name,
            guest_time_ns: Some(when.time.as_nanos() as u64),
            instructions: when.instructions,
            fields,
        }
    }
}

/// The conditions under which a person is shown that the guest still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShowsProgress {
    Never,
    /// The guest's console is visible: until it shows something.
    UntilFirstByte,
    /// The guest's console is not visible, but stderr is.
    WhenSilent,
}

/// The number of first and of last errors in the report, and of bytes of the console.
const ERRORS: usize = 1000;
const CONSOLE: usize = 1 << 20;

/// The limits of output in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The limit of the guest's console.
    pub(super) console: u64,
    /// The limit of the file of events.
    pub(super) events: u64,
}

/// The file of events.
struct Events {
    file: File,
    /// The number of bytes left.
    left: u64,
    left_out: u64,
}

impl Events {
    /// Writes a line if there is room; returns true if it is the first without room.
    fn write(&mut self, line: &str) -> (io::Result<()>, bool) {
        let size = line.len() as u64 + 1;
        if self.left_out == 0 && size <= self.left || self.left == u64::MAX {
            self.left -= size;
            return (out::watched(|| writeln!(self.file, "{line}")), false);
        }
        self.left_out += 1;
        (Ok(()), self.left_out == 1)
    }
}

#[derive(Serialize)]
struct End<'a> {
    outcome: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_left_out: Option<u64>,
}

/// The destinations of output.
pub(super) struct Output {
    json: bool,
    events: Option<Events>,
    /// The kept part of the console, only with `json`.
    console: FirstAndLast<u8>,
    /// The number of bytes left for the guest's console, and its limit.
    console_left: u64,
    limits: Limits,
    /// True if the guest's console is in the middle of a line.
    is_mid_line: bool,
    errors: FirstAndLast<ErrorReport>,
    unanswered: FirstAndLast<AccessReport>,
    device_errors: u64,
    progress: Option<ProgressBar>,
    shows_progress: ShowsProgress,
    /// True if only errors are printed.
    quiet: bool,
    decider: Decider,
    last_seen: Instant,
    /// The first failure that could not be reported.
    failure: Option<Failure>,
}

impl Output {
    /// # Errors
    /// [`exit::FILE`] if the file of events cannot be made.
    pub(super) fn new(
        json: bool,
        quiet: bool,
        events: Option<&Path>,
        limits: Limits,
        decider: Decider,
    ) -> Result<Self, Failure> {
        let create = |path: &Path| {
            let failed = |error| {
                Failure::new(exit::FILE, format!("--events: cannot write {}: {error}", path.display()))
            };
            let file = File::create(path).map_err(failed)?;
            Ok::<_, Failure>(Events { file, left: limits.events, left_out: 0 })
        };
        let shows_progress = match (!quiet && io::stderr().is_terminal(), !json && io::stdout().is_terminal())
        {
            (false, _) => ShowsProgress::Never,
            (true, true) => ShowsProgress::UntilFirstByte,
            (true, false) => ShowsProgress::WhenSilent,
        };
        Ok(Self {
            json,
            events: events.map(create).transpose()?,
            console: FirstAndLast::new(CONSOLE),
            console_left: limits.console,
            limits,
            is_mid_line: false,
            errors: FirstAndLast::new(ERRORS),
            unanswered: FirstAndLast::new(ERRORS),
            device_errors: 0,
            progress: None,
            shows_progress,
            quiet,
            decider,
            last_seen: Instant::now(),
            failure: None,
        })
    }

    /// Writes the guest's output.
    pub(super) fn console(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        if self.json {
            for byte in bytes {
                self.console.push(*byte);
            }
            return;
        }
        let bytes = match self.console_left {
            0 => return,
            left if left < bytes.len() as u64 => {
                self.console_left = 0;
                bytes.get(..left as usize).unwrap_or(bytes)
            }
            left => {
                self.console_left = left - bytes.len() as u64;
                bytes
            }
        };
        self.is_mid_line = *last != b'\n' || self.console_left == 0;
        self.last_seen = Instant::now();
        if self.shows_progress == ShowsProgress::UntilFirstByte {
            self.shows_progress = ShowsProgress::Never;
            self.end_progress();
        }
        let written = match &self.progress {
            Some(bar) => bar.suspend(|| out::stdout_bytes(bytes)),
            None => out::stdout_bytes(bytes),
        };
        self.keep(written);
        if self.console_left == 0 {
            let limit = self.limits.console;
            self.note(format_args!(
                "the rest of the console is dropped: the limit is {limit} bytes (--console-limit)"
            ));
        }
    }

    /// Writes our own line to stderr, and never after an unfinished line of the guest.
    pub(super) fn note(&mut self, text: impl Display) {
        if !self.json && !self.quiet {
            self.line(dim(format!("seawall: {text}")));
        }
    }

    /// Writes an error to stderr.
    pub(super) fn error(&mut self, text: impl Display) {
        self.line(format!("{}: {text}", bad("error")));
    }

    fn line(&mut self, text: impl Display) {
        let line_break = if std::mem::take(&mut self.is_mid_line) { "\n" } else { "" };
        let write = || out::stderr(format!("{line_break}{text}"));
        match &self.progress {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Tells a person that the guest still runs, after a long silence.
    pub(super) fn progress(&mut self, when: When) {
        if self.shows_progress == ShowsProgress::Never || self.last_seen.elapsed() < QUIET {
            return;
        }
        let bar = self.progress.get_or_insert_with(ProgressBar::new_spinner);
        bar.set_message(match when.instructions {
            Some(instructions) => format!("{} million instructions", instructions / 1_000_000),
            None => format!("{} s", when.time.as_secs()),
        });
        bar.tick();
    }

    fn end_progress(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
    }

    /// Reports a handled memory error.
    pub(super) fn memory_error(&mut self, when: When, report: &ErrorReport, outcome: &Outcome) {
        self.note(outcome);
        let explain = |stop| self.decider.explain(report.vcpu, &outcome.error, stop);
        match &outcome.action {
            Action::Stop(reason) => self.note(explain(Some(reason))),
            Action::DryRun(_) => self.note(explain(None)),
            _ => {}
        }
        // The report contains the time.
        self.event(&Event {
            name: "memory-error",
            guest_time_ns: None,
            instructions: when.instructions,
            fields: report,
        });
        if self.json {
            self.errors.push(report.clone());
        }
    }

    /// Reports an unanswered access.
    pub(super) fn unanswered(&mut self, when: When, report: &AccessReport, outcome: &UnansweredOutcome) {
        self.note(outcome);
        self.event(&Event {
            name: "unanswered-access",
            guest_time_ns: None,
            instructions: when.instructions,
            fields: report,
        });
        if self.json {
            self.unanswered.push(report.clone());
        }
    }

    /// Reports that a device met bad memory.
    pub(super) fn device_error(&mut self, when: When, address: u64) {
        self.note(format!("a device was to read bad memory at gpa {address:#x}: it told its driver so"));
        self.event(&Event::new("device-error", when, json!({ "gpa": hex(address) })));
        self.device_errors += 1;
    }

    /// Reports that memory went bad.
    pub(super) fn poisoned(&mut self, when: When, range: &Range<u64>, page: Option<&str>) {
        let fields =
            json!({ "gpa": hex(range.start), "bytes": range.end.saturating_sub(range.start), "page": page });
        self.event(&Event::new("poison", when, fields));
        if let Some(page) = page {
            self.note(format!("page {page}, {:#x}..{:#x}, is bad now", range.start, range.end));
        }
    }

    /// Reports the start of the guest, or a restart with its reason, with the number of healed bad pages and
    /// of those left out of its memory.
    pub(super) fn starts(&mut self, when: When, reboot: Option<&str>, healed: u64, left_out: u64) {
        let pages = |count| format!("{count} bad {}", if count == 1 { "page" } else { "pages" });
        let counts = format!("{} healed, {left_out} left out of the guest's memory", pages(healed));
        let event = match reboot {
            Some(reason) => {
                self.note(format_args!("the guest starts again ({reason}): {counts}"));
                Event::new(
                    "reboot",
                    when,
                    json!({ "reason": reason, "healed": healed, "left_out": left_out }),
                )
            }
            None if (healed, left_out) == (0, 0) => return,
            None => {
                self.note(format_args!("of the ledger, before the guest starts: {counts}"));
                Event::new("heal", when, json!({ "healed": healed, "left_out": left_out }))
            }
        };
        self.event(&event);
    }

    /// Reports the end of the run.
    pub(super) fn end(&mut self, when: When, outcome: &str, text: &str) {
        self.end_progress();
        let left_out = self.events.as_ref().map_or(0, |events| events.left_out);
        if let Some(events) = &mut self.events {
            // There is always room for the end.
            events.left = u64::MAX;
        }
        let left_out = (left_out != 0).then_some(left_out);
        self.event(&Event::new("end", when, End { outcome, text, events_left_out: left_out }));
    }

    /// Prints the end of the run, with this exit code.
    pub(super) fn say_end(&mut self, code: u8, text: &str) {
        if self.quiet && !self.json && code != 0 {
            self.error(text);
        } else {
            self.note(text);
        }
    }

    /// Prints one JSON object on stdout, if requested: `report`, with the output seen here.
    ///
    /// # Errors
    /// The first failed write since the beginning.
    pub(super) fn finish(&mut self, mut report: Value) -> Result<(), Failure> {
        if self.json {
            put(&mut report, "errors", &mut self.errors);
            put(&mut report, "unanswered_accesses", &mut self.unanswered);
            report["device_errors"] = self.device_errors.into();
            let console = std::mem::replace(&mut self.console, FirstAndLast::new(0));
            let left_out = console.left_out();
            report["console_left_out"] = left_out.into();
            let (mut text, last) = console.into_parts();
            if left_out != 0 {
                text.extend(format!("\n[{left_out} bytes left out]\n").into_bytes());
            }
            text.extend(last);
            report["console"] = String::from_utf8_lossy(&text).into();
            self.keep(out::stdout(&format!("{report}\n")));
        }
        self.check()
    }

    /// # Errors
    /// The first failed write: there is no use in going on.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn event(&mut self, event: &Event<impl Serialize>) {
        let Some(events) = &mut self.events else { return };
        let (written, is_full) = match serde_json::to_string(event) {
            Ok(line) => events.write(&line),
            Err(error) => (Err(error.into()), false),
        };
        let failed = |error| Failure::new(exit::FILE, format!("--events: cannot write it: {error}"));
        self.keep(written.map_err(failed));
        if is_full {
            let limit = self.limits.events;
            self.note(format_args!(
                "--events: no more is written but the end: the limit is {limit} bytes (--events-limit)"
            ));
        }
    }

    fn keep(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.failure.get_or_insert(failure);
        }
    }
}

/// Adds the kept part of a list, and its size: `name`, `name_count` and `name_left_out`.
fn put<T: Serialize>(report: &mut Value, name: &str, list: &mut FirstAndLast<T>) {
    let list = std::mem::replace(list, FirstAndLast::new(0));
    report[format!("{name}_count")] = list.count().into();
    report[format!("{name}_left_out")] = list.left_out().into();
    let (first, last) = list.into_parts();
    report[name] = first.into_iter().chain(last).map(|item| json!(item)).collect();
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}
