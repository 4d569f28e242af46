//! Who is told: stderr, a file of events, numbers for Prometheus, a ledger.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use seawall::ledger::{Keeper, Ledger};
use seawall::telemetry::{BUCKETS, EXIT_TO_INJECTION, ErrorReport, Facades, Sink, describe};
use serde::Serialize;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Settings;

/// A file that was asked for cannot be had, or a word means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A file.
    #[error("{variable}: {}: {problem}", path.display())]
    File {
        /// The variable of the environment that names it.
        variable: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// `SEAWALL_LOG`.
    #[error("SEAWALL_LOG: expected a level or TARGET=LEVEL such as seawall=warn, got `{0}`")]
    Log(String),
    /// The thread that contains cannot be made, or SIGBUS cannot be watched.
    #[error("{0}")]
    System(String),
}

pub(crate) struct Reporter {
    quiet: bool,
    events: Option<Arc<File>>,
    metrics: Option<(PathBuf, PrometheusHandle)>,
    ledger: Option<(PathBuf, Arc<Keeper>)>,
    /// A file that could not be written was told of.
    has_failed: bool,
}

/// A line of the file of events.
#[derive(Serialize)]
struct Event<'a, T> {
    #[serde(rename = "event")]
    name: &'a str,
    pid: u32,
    #[serde(flatten)]
    fields: T,
}

/// The library is in this program.
#[derive(Serialize)]
struct Wrapped<'a> {
    program: &'a str,
    dry_run: bool,
    sigbus: &'a str,
    version: &'a str,
}

impl Reporter {
    /// Opens what was asked for: later the VMM may be somewhere else, or be somebody else.
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let place = |variable, path: &Path| absolute(path).map_err(|error| file(variable, path, &error));
        let events = settings.events.as_deref().map(|path| -> Result<_, StartError> {
            let file_of = OpenOptions::new().append(true).create(true).open(place("SEAWALL_EVENTS", path)?);
            Ok(Arc::new(file_of.map_err(|error| file("SEAWALL_EVENTS", path, &error))?))
        });
        let ledger = settings.ledger.as_deref().map(|path| -> Result<_, StartError> {
            let at = place("SEAWALL_LEDGER", path)?;
            // A file that is something else stays what it is.
            Ledger::load(&at).map_err(|error| file("SEAWALL_LEDGER", path, &error))?;
            Ledger::default().save(&at).map_err(|error| file("SEAWALL_LEDGER", path, &error))?;
            Ok((at, Arc::new(Keeper::in_memory(Ledger::default()))))
        });
        let metrics = settings.metrics.as_deref().map(|path| -> Result<_, StartError> {
            let at = place("SEAWALL_METRICS", path)?;
            let numbers = recorder().map_err(|error| file("SEAWALL_METRICS", path, &error))?;
            seawall_files::replace(&at, numbers.render().as_bytes())
                .map_err(|error| file("SEAWALL_METRICS", path, &error))?;
            Ok((at, numbers))
        });
        if let Some(log) = &settings.log {
            let targets: Targets = log.parse().map_err(|_| StartError::Log(log.clone()))?;
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
            // It is of this library: there is none before it.
            let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
        }
        let reporter = Self {
            quiet: settings.quiet,
            events: events.transpose()?,
            metrics: metrics.transpose()?,
            ledger: ledger.transpose()?,
            has_failed: false,
        };
        let program = std::env::current_exe().unwrap_or_default();
        let wrapped = Wrapped {
            program: &program.to_string_lossy(),
            dry_run: settings.dry_run,
            sigbus: settings.sigbus.name(),
            version: env!("CARGO_PKG_VERSION"),
        };
        write(reporter.events.as_deref(), "wrapped", wrapped);
        Ok(reporter)
    }

    /// Something that an operator may want to know.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            say(text);
        }
    }

    /// Is told of each error by containment.
    pub(crate) fn sink(&self) -> impl Sink + Send + 'static {
        Errors(self.events.clone())
    }

    /// The ledger of this process, for the one VM that has it.
    pub(crate) fn ledger(&self) -> Option<Arc<Keeper>> {
        self.ledger.as_ref().map(|(_, keeper)| keeper.clone())
    }

    /// Brings the files up to date.
    pub(crate) fn flush(&mut self) {
        let mut failures = Vec::new();
        if let Some((path, keeper)) = &self.ledger {
            let saved = keeper.with(|ledger| {
                seawall::telemetry::ledger(ledger);
                ledger.save(path)
            });
            failures.extend(saved.err().map(|error| format!("the ledger: {error}")));
        }
        if let Some((path, numbers)) = &self.metrics {
            numbers.run_upkeep();
            let saved = seawall_files::replace(path, numbers.render().as_bytes());
            failures.extend(saved.err().map(|error| format!("the metrics, {}: {error}", path.display())));
        }
        if failures.is_empty() || std::mem::replace(&mut self.has_failed, true) {
            return;
        }
        for failure in failures {
            say(format!("cannot write {failure}; containment goes on"));
        }
    }
}

/// For containment.
struct Errors(Option<Arc<File>>);

impl Sink for Errors {
    fn error(&mut self, report: &ErrorReport) {
        Facades.error(report);
        write(self.0.as_deref(), "memory-error", report);
    }
}

/// What cannot be written is lost: a full disk is no reason to stop a guest.
fn write(file: Option<&File>, event: &str, fields: impl Serialize) {
    let Some(mut file) = file else { return };
    let event = Event { name: event, pid: std::process::id(), fields };
    if let Ok(line) = serde_json::to_string(&event) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

fn file(variable: &'static str, path: &Path, problem: &dyn Display) -> StartError {
    StartError::File { variable, path: path.to_owned(), problem: problem.to_string() }
}

/// The library's recorder: no other part of the process has it, and a process that was forked has its parent's.
fn recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(numbers) = RECORDER.get() {
        return Ok(numbers.clone());
    }
    let time = Matcher::Full(EXIT_TO_INJECTION.to_owned());
    let numbers = PrometheusBuilder::new().set_buckets_for_metric(time, &BUCKETS)?.install_recorder()?;
    describe();
    Ok(RECORDER.get_or_init(|| numbers).clone())
}

/// A line on stderr, whatever that is by now, by one call.
pub(crate) fn say(text: impl Display) {
    let line = format!("seawall: {text}\n");
    // SAFETY: the bytes are there. Nothing is to be done if they cannot be written.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}
