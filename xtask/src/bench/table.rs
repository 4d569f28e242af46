//! The figures as a table for people and as JSON for programs.

use super::{Figure, Promise};
use serde_json::{Value, json};
use std::fmt::Write;

/// The table: one line a figure.
pub(crate) fn text(figures: &[Figure]) -> String {
    let mut table = format!(
        "{:<34} {:>14} {:>16}  {:<6} {:>26}  {}\n",
        "figure", "seawall", "promised", "", "peer", "ratio"
    );
    for figure in figures {
        let value = shown(&figure.value, figure.unit);
        let promise = match figure.promise {
            Promise::AtLeast(least) => format!(">= {}", with_unit(least, figure.unit)),
            Promise::AtMost(most) => format!("<= {}", with_unit(most, figure.unit)),
        };
        let kept = if figure.is_kept() { "kept" } else { "MISSED" };
        let peer = match &figure.peer {
            None => "-".to_owned(),
            Some((name, value)) => format!("{name}: {}", shown(value, figure.unit)),
        };
        let ratio = figure.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
        let name = figure.name;
        let _ = writeln!(table, "{name:<34} {value:>14} {promise:>16}  {kept:<6} {peer:>26}  {ratio}");
    }
    table
}

fn shown(value: &Result<f64, String>, unit: &str) -> String {
    value.as_ref().map_or_else(Clone::clone, |value| with_unit(*value, unit))
}

fn with_unit(value: f64, unit: &str) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// The same as one JSON object.
pub(crate) fn json(figures: &[Figure]) -> Value {
    let figures: Vec<Value> = figures.iter().map(figure_json).collect();
    json!({ "figures": figures })
}

fn figure_json(figure: &Figure) -> Value {
    let (kind, bound) = match figure.promise {
        Promise::AtLeast(least) => ("at_least", least),
        Promise::AtMost(most) => ("at_most", most),
    };
    json!({
        "name": figure.name,
        "unit": figure.unit,
        "value": figure.value.as_ref().ok(),
        "error": figure.value.as_ref().err(),
        "promise": { kind: bound },
        "kept": figure.is_kept(),
        "peer": figure.peer.as_ref().map(|(name, value)| json!({
            "name": name,
            "value": value.as_ref().ok(),
            "error": value.as_ref().err(),
        })),
        "ratio": figure.ratio(),
    })
}
