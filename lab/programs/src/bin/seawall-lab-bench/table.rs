//! The figures as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::figure::{Figure, Measured, Promise, Report, Way};

const NOTE: &str = "Under a software CPU: the times are not hardware's. Calls and ratios are what is meant.";

/// The table: one line for each figure.
pub(crate) fn text(report: &Report) -> String {
    let Report { kernel, way, batches, repeat, figures, ways } = report;
    let mut table = format!(
        "KVM of Linux {kernel}, extended ABI: {way}; medians of {batches} batches of {repeat}\n{NOTE}\n\n{:<46} {:>6} {:>9}  {:<6} {:>11} {:>21}  {}\n",
        "figure", "calls", "promised", "", "time", "batches", "ratio"
    );
    let mut after = "";
    for figure in figures {
        if figure.after != after {
            after = figure.after;
            let _ = writeln!(table, "{after}");
        }
        let promise = figure.promise.map_or_else(String::new, |more| format!("<= 1+{more}"));
        let kept = match (figure.promise, figure.is_kept()) {
            (None, _) => "",
            (_, true) => "kept",
            (_, false) => "MISSED",
        };
        let time = micros(figure.time.median);
        let batches = format!("{}..{}", micros(figure.time.least), micros(figure.time.most));
        let ratio = figure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
        let Figure { name, calls, .. } = figure;
        let _ = writeln!(
            table,
            "  {name:<44} {calls:>6} {promise:>9}  {kept:<6} {time:>8} us {batches:>18} us  {ratio}"
        );
    }
    let _ = writeln!(
        table,
        "\n{:<52} {:>10}  {:<6} {:>11} {:>21}",
        "from the error to the guest's handler", "promised", "", "time", "batches"
    );
    let mut after = "";
    for way in ways {
        if way.after != after {
            after = way.after;
            let _ = writeln!(table, "{after}");
        }
        let _ = writeln!(table, "{}", way_line(way).trim_end());
    }
    table
}

fn way_line(way: &Way) -> String {
    let promise = match way.promise {
        None => String::new(),
        Some(Promise::Time(most)) => format!("<= {} us", most.as_micros()),
        Some(Promise::Ratio(most)) => format!("<= {most:.2}x"),
    };
    let kept = match (way.promise, &way.measured, way.is_kept()) {
        (None, ..) | (_, Measured::Skipped(_), _) => "",
        (.., true) => "kept",
        (.., false) => "MISSED",
    };
    let measured = match &way.measured {
        Measured::Skipped(why) => format!("skipped: {why}"),
        Measured::Ratio(ratio) => format!("{ratio:>10.3}x"),
        Measured::Time(time) => {
            let batches = format!("{}..{}", micros(time.least), micros(time.most));
            format!("{:>8} us {batches:>18} us", micros(time.median))
        }
    };
    format!("  {:<50} {promise:>10}  {kept:<6} {measured}", way.name)
}

/// The figures as one JSON object.
pub(crate) fn json(report: &Report) -> Value {
    let figures: Vec<Value> = report.figures.iter().map(figure_json).collect();
    json!({
        "kernel": report.kernel,
        "extended_abi": report.way,
        "note": NOTE,
        "batches": report.batches,
        "repeat": report.repeat,
        "figures": figures,
        "ways": report.ways.iter().map(way_json).collect::<Vec<_>>(),
    })
}

fn way_json(way: &Way) -> Value {
    let mut json = json!({
        "after": way.after,
        "name": way.name,
        "promise": way.promise.map(|promise| match promise {
            Promise::Time(most) => json!({ "nanoseconds_at_most": nanos(most) }),
            Promise::Ratio(most) => json!({ "ratio_at_most": most }),
        }),
        "kept": way.is_kept(),
    });
    match &way.measured {
        Measured::Skipped(why) => json["skipped"] = json!(why),
        Measured::Ratio(ratio) => json["ratio"] = json!(ratio),
        Measured::Time(time) => {
            json["nanoseconds"] = json!(nanos(time.median));
            json["nanoseconds_of_batches"] = json!([nanos(time.least), nanos(time.most)]);
        }
    }
    json
}

fn figure_json(figure: &Figure) -> Value {
    json!({
        "after": figure.after,
        "name": figure.name,
        "calls": figure.calls,
        "promise": figure.promise.map(|more| json!({ "at_most": 1 + more })),
        "kept": figure.is_kept(),
        "nanoseconds": nanos(figure.time.median),
        "nanoseconds_of_batches": [nanos(figure.time.least), nanos(figure.time.most)],
        "ratio": figure.ratio,
    })
}

fn micros(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let digits = if micros < 10.0 { 2 } else { usize::from(micros < 100.0) };
    format!("{micros:.digits$}")
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Time;

    fn report() -> Report {
        let [median, least, most] = [7_654, 7_000, 123_456].map(Duration::from_nanos);
        let time = Time { median, least, most };
        let figure = Figure {
            after: "after SIGBUS",
            name: "instruction abort",
            calls: 5,
            promise: Some(3),
            time,
            ratio: Some(2.345),
        };
        Report {
            kernel: "7.2.12".into(),
            way: "assisted".into(),
            batches: 11,
            repeat: 200,
            figures: vec![figure],
            ways: Vec::new(),
        }
    }

    fn way(name: &str, measured: Measured, promise: Option<Promise>) -> Way {
        Way { after: "after SIGBUS", name: name.into(), measured, promise }
    }

    fn ways() -> Vec<Way> {
        let [median, least, most] = [7_654, 7_000, 123_456].map(Duration::from_nanos);
        vec![
            way(
                "our own code",
                Measured::Time(Time { median, least, most }),
                Some(Promise::Time(Duration::from_micros(20))),
            ),
            way("ours to QEMU's", Measured::Ratio(1.25), Some(Promise::Ratio(1.0))),
            way("QEMU", Measured::Skipped("not asked for".into()), Some(Promise::Ratio(1.0))),
        ]
    }

    #[test]
    fn a_way_is_told_with_its_promise_and_what_was_skipped_with_the_reason() {
        let text = text(&Report { ways: ways(), ..report() });
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let last = lines.last_chunk::<3>().expect("three ways");
        assert_eq!(
            last[0],
            ["our", "own", "code", "<=", "20", "us", "kept", "7.65", "us", "7.00..123", "us"]
        );
        assert_eq!(last[1], ["ours", "to", "QEMU's", "<=", "1.00x", "MISSED", "1.250x"]);
        assert_eq!(last[2], ["QEMU", "<=", "1.00x", "skipped:", "not", "asked", "for"]);
    }

    #[test]
    fn json_of_a_way_has_what_was_measured_or_why_not() {
        let json = json(&Report { ways: ways(), ..report() });
        assert_eq!(json["ways"][0]["nanoseconds"], 7654);
        assert_eq!(json["ways"][0]["promise"], json!({ "nanoseconds_at_most": 20_000 }));
        assert_eq!(json["ways"][1]["kept"], false);
        assert_eq!(json["ways"][1]["ratio"], 1.25);
        assert_eq!(json["ways"][2]["skipped"], "not asked for");
    }

    #[test]
    fn the_table_has_calls_promise_time_and_ratio_of_each_case() {
        let text = text(&report());
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some("KVM of Linux 7.2.12, extended ABI: assisted; medians of 11 batches of 200")
        );
        assert!(text.contains("Calls and ratios are what is meant"));
        let last = text.lines().find(|line| line.contains("instruction abort")).expect("a figure");
        let last: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(
            last,
            ["instruction", "abort", "5", "<=", "1+3", "MISSED", "7.65", "us", "7.00..123", "us", "2.35x"]
        );
    }

    #[test]
    fn json_has_the_same_in_nanoseconds() {
        let json = json(&report());
        let figure = &json["figures"][0];
        assert_eq!(figure["calls"], 5);
        assert_eq!(figure["promise"]["at_most"], 4);
        assert_eq!(figure["kept"], false);
        assert_eq!(figure["nanoseconds"], 7654);
        assert_eq!(figure["nanoseconds_of_batches"], json!([7000, 123_456]));
    }
}
