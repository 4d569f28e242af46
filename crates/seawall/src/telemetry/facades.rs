//! Errors and unanswered accesses as `tracing` events, and as numbers by `metrics`.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use super::{AccessReport, ErrorReport, Sink};

const ERRORS: &str = "seawall_errors_total";
const DECISIONS: &str = "seawall_decisions_total";
const STOPS: &str = "seawall_stops_total";
const EVACUATION_ADVICE: &str = "seawall_evacuation_advice_total";
const ACCESSES: &str = "seawall_unanswered_accesses_total";
const RECORDS: &str = "seawall_records_total";
pub(super) const RECORDS_OUTSTANDING: &str = "seawall_records_outstanding";
pub(super) const LEDGER_PAGES: &str = "seawall_ledger_pages";
/// The histogram of the time from an exit to its injection.
pub const EXIT_TO_INJECTION: &str = "seawall_exit_to_injection_seconds";
/// Buckets for that histogram, for recorders that need them: a few microseconds are usual, a millisecond is
/// not.
pub const BUCKETS: [f64; 10] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1];

/// Turns each error into an event of `tracing` (target `seawall`) and counts it by `metrics`.
///
/// The event is a warning if the guest got the decided response; it is an error if the guest was stopped or
/// nothing was delivered. It goes to the subscriber and the recorder of this thread or of the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facades;

/// `tracing` needs the level at compile time.
macro_rules! event {
    ($level:ident, $report:ident) => {
        tracing::$level!(
            target: "seawall",
            vcpu = $report.vcpu,
            source = &*$report.source,
            access = &*$report.access,
            exit_esr = $report.exit_esr.map(tracing::field::display),
            gva = $report.gva.map(tracing::field::display),
            gpa = $report.gpa.map(tracing::field::display),
            size = $report.size,
            walk_level = $report.walk_level,
            exception_level = $report.exception_level,
            pc = %$report.pc,
            decision = &*$report.decision,
            guest = &*$report.guest,
            guest_esr = $report.guest_esr.map(tracing::field::display),
            guest_far = $report.guest_far.map(tracing::field::display),
            record = &*$report.record,
            record_source = $report.record_source,
            host = $report.host.as_deref(),
            stop_reason = $report.stop_reason.as_deref(),
            exit_to_injection_ns = $report.exit_to_injection_ns,
            "{}", $report
        )
    };
}

macro_rules! access_event {
    ($level:ident, $report:ident) => {
        tracing::$level!(
            target: "seawall",
            vcpu = $report.vcpu,
            reason = &*$report.reason,
            access = &*$report.access,
            gpa = %$report.gpa,
            size = $report.size,
            exception_level = $report.exception_level,
            pc = %$report.pc,
            decision = &*$report.decision,
            guest = &*$report.guest,
            guest_esr = $report.guest_esr.map(tracing::field::display),
            guest_far = $report.guest_far.map(tracing::field::display),
            untold = $report.untold,
            stop_reason = $report.stop_reason.as_deref(),
            exit_to_injection_ns = $report.exit_to_injection_ns,
            "{}", $report
        )
    };
}

impl Sink for Facades {
    fn error(&mut self, report: &ErrorReport) {
        tell(report);
        count(report);
    }

    fn access(&mut self, report: &AccessReport) {
        if report.stop_reason.is_none() {
            access_event!(warn, report);
        } else {
            access_event!(error, report);
        }
    }

    fn count_access(&mut self, report: &AccessReport) {
        let level = level(report.exception_level);
        let (reason, access) = (report.reason.clone(), report.access.clone());
        counter!(ACCESSES, "reason" => reason, "access" => access, "level" => level).increment(1);
        if let Some(reason) = &report.stop_reason {
            counter!(STOPS, "reason" => reason.clone()).increment(1);
        }
    }
}

fn tell(report: &ErrorReport) {
    if report.is_contained() {
        event!(warn, report);
    } else {
        event!(error, report);
    }
}

const fn level(exception_level: u8) -> &'static str {
    match exception_level {
        0 => "EL0",
        1 => "EL1",
        2 => "EL2",
        _ => "EL3",
    }
}

fn count(report: &ErrorReport) {
    let level = level(report.exception_level);
    let (source, access) = (report.source.clone(), report.access.clone());
    counter!(ERRORS, "source" => source, "access" => access, "level" => level).increment(1);
    counter!(DECISIONS, "decision" => report.decision.clone()).increment(1);
    if let Some(reason) = &report.stop_reason {
        counter!(STOPS, "reason" => reason.clone()).increment(1);
    }
    if report.evacuate.is_some() {
        counter!(EVACUATION_ADVICE).increment(1);
    }
    if report.record != "none" {
        counter!(RECORDS, "state" => report.record.clone()).increment(1);
    }
    if let Some(time) = report.exit_to_injection_ns {
        histogram!(EXIT_TO_INJECTION).record(Duration::from_nanos(time));
    }
}

/// Describes the numbers to the recorder and sets them to zero: call it once, after the recorder is
/// installed.
pub fn describe() {
    describe_counter!(ERRORS, Unit::Count, "Memory errors that a guest consumed and that were handled.");
    describe_counter!(DECISIONS, Unit::Count, "What was decided about them.");
    describe_counter!(STOPS, Unit::Count, "Guests that were stopped, by reason.");
    describe_counter!(EVACUATION_ADVICE, Unit::Count, "How often it was advised to migrate a guest.");
    describe_counter!(RECORDS, Unit::Count, "Errors for which a record was due, by what became of it.");
    describe_counter!(ACCESSES, Unit::Count, "Accesses of a guest that nobody answered, by reason.");
    describe_gauge!(RECORDS_OUTSTANDING, Unit::Count, "Records that the guest has not acknowledged.");
    describe_gauge!(LEDGER_PAGES, Unit::Count, "Pages of guest memory that are known to be bad.");
    describe_histogram!(EXIT_TO_INJECTION, Unit::Seconds, "From the exit to the injection done.");
    counter!(EVACUATION_ADVICE).increment(0);
}
