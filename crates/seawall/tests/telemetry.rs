//! Reports of memory errors: a line of JSON with a stable schema, `tracing` events, numbers.

mod guest;

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guest::{Guest, Met, PC, vcpu_at};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall::ledger::{Cause, Ledger};
use seawall::telemetry::{
    BUCKETS, EXIT_TO_INJECTION, ErrorReport, Facades, Hex, JsonLines, Sink, describe, ledger, records,
};
use seawall::{Action, Containment, EvacuationThreshold, Now, Outcome, Rules, StormGuard, Verdict};
use seawall_arm::Esr;
use seawall_events::{Abi, Layout, SeaExit};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const POSTED: Abi = Abi::Extended(Layout::Posted);
const GVA: u64 = 0x50_0123;

fn sea(esr: u64) -> Met {
    // Bit 0: the gpa is valid (KVM_EXIT_ARM_SEA_FLAG_GPA_VALID).
    let flags = u64::from(esr & 0x3f == 0x10);
    Met::Sea(SeaExit { flags, esr: Esr::from_bits(esr), gva: GVA, gpa: 0x4021_0000 })
}

fn sigbus(range: Range<u64>) -> Met {
    Met::Sigbus(range)
}

/// A guest at EL0 whose last stage 2 fault was at `far`.
fn guest(far: u64) -> Guest {
    let exit = SeaExit { flags: 0, esr: Esr::from_bits(0), gva: 0, gpa: 0 };
    Guest { vcpu: vcpu_at(0, 0x9200_0007, far), abi: POSTED, exit }
}

fn handle(containment: &mut Containment, far: u64, source: &Met, now: Duration) -> Outcome {
    let mut guest = guest(far);
    let decision = guest::decide(containment, &guest, source, now).unwrap();
    let outcome = containment.inject(&mut guest, decision).unwrap();
    Outcome { took: Some(Duration::from_nanos(7500)), ..outcome }
}

/// 2026-10-01 12:00:00.25 UTC; two seconds into the run.
fn at() -> Now {
    let time = UNIX_EPOCH + Duration::from_millis(1_790_856_000_250);
    Now { vcpu: 3, running: Duration::from_secs(2), time, exited: None }
}

fn report(outcome: &Outcome) -> ErrorReport {
    ErrorReport::new(outcome, &at()).unwrap()
}

fn line(source: &Met, far: u64) -> String {
    let outcome = handle(&mut Containment::new(Rules::FULL), far, source, Duration::ZERO);
    report(&outcome).to_json()
}

/// The outcome of the seventeenth abort of a storm.
fn storm() -> Outcome {
    let mut containment = Containment::new(Rules::FULL);
    (0..17).map(|_| handle(&mut containment, GVA, &sea(0x9200_0210), Duration::ZERO)).last().unwrap()
}

/// The second error of a guest with one source that does not acknowledge the first record.
fn unacknowledged() -> Outcome {
    let base = 0x4000_0000;
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(base), 0x1000)]).unwrap();
    let mut ghes = Ghes::new(GhesRegion { base, sea: 1, polled: 0, poll_interval: 0 });
    ghes.reset(&memory).unwrap();
    let mut containment = Containment::new(Rules::FULL);
    containment.set_records(Some(ghes));
    containment.set_patience(Duration::ZERO);
    let mut last = None;
    for _ in 0..2 {
        let mut guest = guest(GVA);
        let mut decision =
            guest::decide(&mut containment, &guest, &sea(0x9200_0210), Duration::ZERO).unwrap();
        containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
        last = Some(containment.inject(&mut guest, decision).unwrap());
    }
    Outcome { took: Some(Duration::from_nanos(7500)), ..last.unwrap() }
}

const LOAD: &str = concat!(
    r#"{"schema":1,"time":"2026-10-01T12:00:00.250000Z","guest_time_ns":2000000000,"vcpu":3,"source":"sea","#,
    r#""access":"load","exit_esr":"0x92000210","gva":"0x500123","gpa":"0x40210000","size":4096,"#,
    r#""walk_level":null,"exception_level":0,"pc":"0x401040","decision":"data-abort","#,
    r#""decision_text":"data abort, ISS 0x210","guest":"at-vector","guest_esr":"0x92000210","#,
    r#""guest_far":"0x500123","record":"none","record_source":null,"host":null,"evacuate":null,"stop_reason":null,"#,
    r#""exit_to_injection_ns":7500}"#,
);

#[test]
fn a_load_s_line_has_each_field_of_the_schema_in_its_order() {
    assert_eq!(line(&sea(0x9200_0210), GVA), LOAD);
}

/// Each field of schema 1 is a promise: a removed or renamed field needs a new number.
fn with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(LOAD.to_owned(), |line, (from, to)| {
        assert_eq!(line.matches(from).count(), 1, "{from}");
        line.replace(from, to)
    })
}

#[test]
fn a_fetch_is_an_instruction_abort() {
    let expected = with(&[
        (r#""access":"load""#, r#""access":"fetch""#),
        (r#""exit_esr":"0x92000210""#, r#""exit_esr":"0x82000210""#),
        (r#""decision":"data-abort""#, r#""decision":"instruction-abort""#),
        ("data abort, ISS 0x210", "instruction abort, ISS 0x210"),
        (r#""guest_esr":"0x92000210""#, r#""guest_esr":"0x82000210""#),
    ]);
    assert_eq!(line(&sea(0x8200_0210), GVA), expected);
}

#[test]
fn a_table_walk_has_its_level_and_no_gpa() {
    let expected = with(&[
        (r#""exit_esr":"0x92000210""#, r#""exit_esr":"0x92000217""#),
        (r#""gpa":"0x40210000""#, r#""gpa":null"#),
        (r#""walk_level":null"#, r#""walk_level":3"#),
        ("ISS 0x210", "ISS 0x217"),
        (r#""guest_esr":"0x92000210""#, r#""guest_esr":"0x92000217""#),
    ]);
    assert_eq!(line(&sea(0x9200_0217), GVA), expected);
}

#[test]
fn sigbus_has_a_size_and_neither_esr_nor_gva() {
    let expected = with(&[
        (r#""source":"sea""#, r#""source":"sigbus""#),
        (r#""access":"load""#, r#""access":"unknown""#),
        (r#""exit_esr":"0x92000210""#, r#""exit_esr":null"#),
        (r#""gva":"0x500123""#, r#""gva":null"#),
        (r#""gpa":"0x40210000","size":4096"#, r#""gpa":"0x40200000","size":2097152"#),
        (r#""decision":"data-abort""#, r#""decision":"abort-by-far""#),
        ("data abort, ISS 0x210", "abort, data or instruction by its FAR, no ESR given"),
        // The FAR lay in the instruction.
        (r#""guest_esr":"0x92000210""#, r#""guest_esr":"0x82000010""#),
        (r#""guest_far":"0x500123""#, r#""guest_far":"0x401040""#),
    ]);
    assert_eq!(line(&sigbus(0x4020_0000..0x4040_0000), PC), expected);
}

#[test]
fn a_storm_s_line_has_the_reason_and_nothing_of_a_guest() {
    let expected = with(&[
        (r#""decision":"data-abort""#, r#""decision":"stop""#),
        (
            "data abort, ISS 0x210",
            "the guest took the same abort 17 times at PC 0x401040, address 0x500123: it does not handle it (are its \
             vectors or page tables bad?)",
        ),
        (
            r#""guest":"at-vector","guest_esr":"0x92000210","guest_far":"0x500123""#,
            r#""guest":"stopped","guest_esr":null,"guest_far":null"#,
        ),
        (r#""stop_reason":null"#, r#""stop_reason":"storm""#),
    ]);
    assert_eq!(report(&storm()).to_json(), expected);
}

#[test]
fn a_record_that_was_due_and_is_not_there_is_told_from_none() {
    let expected = with(&[(r#""record":"none""#, r#""record":"unacknowledged""#)]);
    assert_eq!(report(&unacknowledged()).to_json(), expected);
}

#[test]
fn an_serror_has_no_far_and_a_masked_one_no_esr_either() {
    let mut guest = guest(GVA);
    let mut containment = Containment::new(Rules::SERROR);
    let decision = guest::decide(&mut containment, &guest, &sea(0x9200_0210), Duration::ZERO).unwrap();
    let at_vector = report(&containment.inject(&mut guest, decision).unwrap());
    assert_eq!((&*at_vector.decision, &*at_vector.guest), ("serror", "at-vector"));
    assert_eq!((at_vector.guest_esr, at_vector.guest_far), (Some(Hex(0xbf00_0000)), None));
    // PSTATE: EL1h, DAIF.
    let mut masked = Guest { vcpu: vcpu_at(0x3c5, 0x9200_0007, GVA), ..guest };
    let decision = guest::decide(&mut containment, &masked, &sea(0x9200_0210), Duration::ZERO).unwrap();
    let pending = report(&containment.inject(&mut masked, decision).unwrap());
    assert_eq!((&*pending.guest, pending.guest_esr, pending.exception_level), ("serror-pending", None, 1));
}

#[test]
fn what_waits_is_no_error_yet() {
    let mut outcome = storm();
    outcome.action = Action::Waiting;
    assert_eq!(ErrorReport::new(&outcome, &at()), None);
}

#[test]
fn what_is_not_known_is_null_and_a_time_that_rfc_3339_has_no_digits_for_is_not_known() {
    let outcome = Outcome { took: None, ..storm() };
    let line = ErrorReport::new(&outcome, &at()).unwrap().to_json();
    assert!(line.ends_with(r#""exit_to_injection_ns":null}"#), "{line}");
    let year_10000 = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    for (time, text) in [
        (year_10000, "null"),
        (year_10000 - Duration::from_micros(1), r#""9999-12-31T23:59:59.999999Z""#),
        (UNIX_EPOCH, r#""1970-01-01T00:00:00.000000Z""#),
        (UNIX_EPOCH - Duration::from_secs(1), "null"),
    ] {
        let at = Now { time, ..at() };
        let line = ErrorReport::new(&outcome, &at).unwrap().to_json();
        assert!(line.contains(&format!(r#""time":{text},"#)), "{line}");
    }
}

#[test]
fn a_line_reads_back_as_what_it_was() {
    for outcome in [storm(), unacknowledged()] {
        let report = report(&outcome);
        assert_eq!(ErrorReport::from_json(&report.to_json()).unwrap(), report);
    }
}

#[test]
fn a_line_with_fields_and_words_of_a_later_version_reads_and_one_without_what_may_be_missing_too() {
    let mut expected =
        report(&handle(&mut Containment::new(Rules::FULL), GVA, &sea(0x9200_0210), Duration::ZERO));
    let later = LOAD.replace(r#"{"schema":1,"#, r#"{"colour":{"r":1},"schema":1,"list":[1,2],"#);
    assert_eq!(ErrorReport::from_json(&later).unwrap(), expected);
    let later = LOAD.replace(r#""guest":"at-vector""#, r#""guest":"gone-fishing""#);
    assert_eq!(ErrorReport::from_json(&later).unwrap().guest, "gone-fishing");
    let fewer =
        LOAD.replace(r#""time":"2026-10-01T12:00:00.250000Z","#, "").replace(r#""walk_level":null,"#, "");
    expected.time = None;
    assert_eq!(ErrorReport::from_json(&fewer).unwrap(), expected);
}

#[test]
fn what_is_no_line_is_refused_in_words() {
    let check = |from: &str, to: &str, words: &str| {
        let error = ErrorReport::from_json(&LOAD.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(r#""0x401040""#, r#""401040""#, "expected a hexadecimal number of at most 64 bits");
    check(r#""0x401040""#, r#""0x1ffffffffffffffff""#, "expected a hexadecimal number of at most 64 bits");
    check(r#""0x401040""#, r#""0x+1""#, "expected a hexadecimal number of at most 64 bits");
    check("2026-10-01T12", "2026-10-01 noon", "expected a time by RFC 3339");
    check(r#""pc":"0x401040","#, "", "missing field `pc`");
    assert!(ErrorReport::from_json(&LOAD[..100]).is_err());
}

#[test]
fn a_sink_is_a_closure_or_a_file_of_lines() {
    let report = report(&storm());
    let mut pages = Vec::new();
    let mut sink = |report: &ErrorReport| pages.push(report.gpa);
    sink.error(&report);
    sink.error(&report);
    assert_eq!(pages, [Some(Hex(0x4021_0000)); 2]);
    let mut file = Vec::new();
    let mut sinks: [Box<dyn Sink + '_>; 1] = [Box::new(JsonLines(&mut file))];
    sinks[0].error(&report);
    drop(sinks);
    assert_eq!(String::from_utf8(file).unwrap(), report.to_json() + "\n");
}

/// The numbers that a recorder of this thread received: `name{label=value,...} value`, sorted.
fn measured(work: impl FnOnce()) -> Vec<String> {
    let recorder = DebuggingRecorder::new();
    let snapshotter: Snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, work);
    let lines = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let key = key.key();
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count.to_string(),
            DebugValue::Gauge(value) => format!("{value}"),
            DebugValue::Histogram(values) => format!("{values:?}"),
        };
        format!("{}{{{}}} {value}", key.name(), labels.join(","))
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

#[test]
fn errors_are_counted_by_what_they_were_and_what_was_decided() {
    let reports = [
        report(&handle(&mut Containment::new(Rules::FULL), GVA, &sea(0x9200_0210), Duration::ZERO)),
        report(&handle(&mut Containment::new(Rules::FULL), GVA, &sea(0x9200_0210), Duration::ZERO)),
        report(&handle(&mut Containment::new(Rules::FULL), GVA, &sea(0x8200_0210), Duration::ZERO)),
        report(&handle(
            &mut Containment::new(Rules::FULL),
            GVA,
            &sigbus(0x4020_0000..0x4020_1000),
            Duration::ZERO,
        )),
        report(&unacknowledged()),
        report(&storm()),
    ];
    let measured = measured(|| {
        describe();
        for report in &reports {
            Facades.error(report);
        }
    });
    let expected = [
        "seawall_decisions_total{decision=abort-by-far} 1",
        "seawall_decisions_total{decision=data-abort} 3",
        "seawall_decisions_total{decision=instruction-abort} 1",
        "seawall_decisions_total{decision=stop} 1",
        "seawall_errors_total{source=sea,access=fetch,level=EL0} 1",
        "seawall_errors_total{source=sea,access=load,level=EL0} 4",
        "seawall_errors_total{source=sigbus,access=unknown,level=EL0} 1",
        "seawall_evacuation_advice_total{} 0",
        "seawall_exit_to_injection_seconds{} [7.5e-6, 7.5e-6, 7.5e-6, 7.5e-6, 7.5e-6, 7.5e-6]",
        "seawall_records_total{state=unacknowledged} 1",
        "seawall_stops_total{reason=storm} 1",
    ];
    assert_eq!(measured, expected);
    assert_eq!(EXIT_TO_INJECTION, "seawall_exit_to_injection_seconds");
    assert!(BUCKETS.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn advice_to_evacuate_is_counted_and_said() {
    let mut containment = Containment::new(Rules::FULL)
        .with_storm_guard(StormGuard::default())
        .with_evacuation_threshold(EvacuationThreshold::new(1, Duration::from_secs(60)));
    let outcome = handle(&mut containment, GVA, &sea(0x9200_0210), Duration::ZERO);
    let report = report(&outcome);
    assert_eq!(report.evacuate.as_deref(), Some("1 pages went bad within 60 s: migrate the guest"));
    let advice = measured(|| Facades.error(&report)).into_iter().find(|line| line.contains("evacuation"));
    assert_eq!(advice.as_deref(), Some("seawall_evacuation_advice_total{} 1"));
}

#[test]
fn outstanding_records_and_bad_pages_are_gauges() {
    let base = 0x4000_0000;
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(base), 0x4000)]).unwrap();
    let mut ghes = Ghes::new(GhesRegion { base, sea: 16, polled: 1, poll_interval: 1000 });
    ghes.reset(&memory).unwrap();
    for page in 0..3 {
        ghes.announce(&memory, page << 12..(page + 1) << 12, UNIX_EPOCH).unwrap();
    }
    let mut containment = Containment::new(Rules::FULL);
    containment.set_records(Some(ghes));
    // Nobody waits for the guest.
    containment.set_patience(Duration::ZERO);
    for _ in 0..4 {
        let mut decision =
            guest::decide(&mut containment, &guest(GVA), &sea(0x9200_0210), Duration::ZERO).unwrap();
        containment.record(&memory, &mut decision, UNIX_EPOCH).unwrap();
        assert!(matches!(decision.verdict, Verdict::Inject(_)));
    }
    let mut pages = Ledger::default();
    pages.insert(0x4020_0000..0x4040_0000, Cause::Consumed, UNIX_EPOCH);
    let measured = measured(|| {
        records(containment.records().unwrap(), &memory).unwrap();
        ledger(&pages);
    });
    let expected = [
        "seawall_ledger_pages{} 512",
        "seawall_records_outstanding{kind=polled} 1",
        "seawall_records_outstanding{kind=queued} 2",
        "seawall_records_outstanding{kind=sea} 4",
    ];
    assert_eq!(measured, expected);
    let elsewhere: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    assert!(records(containment.records().unwrap(), &elsewhere).is_err());
}

/// The output of a subscriber of this thread.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_event_is_a_warning_if_the_guest_got_its_abort_and_an_error_if_it_was_stopped() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        Facades.error(&report(&handle(
            &mut Containment::new(Rules::FULL),
            GVA,
            &sea(0x8200_0210),
            Duration::ZERO,
        )));
        Facades.error(&report(&storm()));
    });
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let contained = " WARN seawall: fetch at EL0, PC 0x401040, gpa 0x40210000: instruction abort, ISS 0x210 vcpu=3 \
                     source=\"sea\" access=\"fetch\" exit_esr=0x82000210 gva=0x500123 gpa=0x40210000 size=4096 \
                     exception_level=0 pc=0x401040 decision=\"instruction-abort\" guest=\"at-vector\" \
                     guest_esr=0x82000210 guest_far=0x500123 record=\"none\" exit_to_injection_ns=7500";
    assert_eq!(lines[0], contained);
    assert!(
        lines[1].starts_with("ERROR seawall: load at EL0, PC 0x401040, gpa 0x40210000: the guest took"),
        "{text}"
    );
    assert!(lines[1].contains(" stop_reason=\"storm\""), "{text}");
    assert_eq!(lines.len(), 2);
}
