//! The figures as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Figure, Promise, Spread, Times};

/// The table: a line for ours, and one for each peer.
pub(super) fn text(figures: &[Figure]) -> String {
    let mut table =
        format!("{:<22} {:>12}  {:<21} {:>12}\n", "", "CPU time", "least .. greatest", "wall time");
    for figure in figures {
        let _ = writeln!(table, "{} ({})", figure.name, figure.unit);
        let promise = match figure.promise {
            Promise::AtLeast(least) => format!("at least {least}"),
            Promise::AtMost(most) => format!("at most {most}"),
            Promise::RateOfPeers(Times { cpu, wall }) | Promise::TimeOfPeers(Times { cpu, wall }) => {
                let by_wall_time = wall.map(|wall| format!(", {wall} by wall time")).unwrap_or_default();
                format!("at least {cpu} times as good as the best peer{by_wall_time}")
            }
        };
        let kept = if figure.is_kept() { "kept" } else { "MISSED" };
        line(&mut table, "seawall", &figure.ours, &format!("{kept}: {promise}"));
        for (name, spread) in &figure.peers {
            let ratio = figure.ratio(spread).map_or_else(String::new, |ratio| {
                format!("seawall is {:.2} times as good, {:.2} by wall time", ratio.cpu, ratio.wall)
            });
            line(&mut table, name, spread, &ratio);
        }
    }
    table
}

fn line(table: &mut String, name: &str, spread: &Result<Spread, String>, note: &str) {
    let text = match spread {
        Err(why) => format!("  {name:<20} {why}  {note}"),
        Ok(spread) => format!(
            "  {name:<20} {:>12}  {:<21} {:>12}  {note}",
            short(spread.median.cpu),
            format!("{} .. {}", short(spread.least), short(spread.greatest)),
            short(spread.median.wall),
        ),
    };
    let _ = writeln!(table, "{}", text.trim_end());
}

fn short(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}")
}

/// The same as one JSON object. `value`'s `cpu` and `wall` are medians, `least` and `greatest` of CPU time.
pub(super) fn json(figures: &[Figure]) -> Value {
    let figures: Vec<Value> = figures.iter().map(figure_json).collect();
    json!({ "figures": figures })
}

fn figure_json(figure: &Figure) -> Value {
    let promise = match figure.promise {
        Promise::AtLeast(least) => json!({ "at_least": least }),
        Promise::AtMost(most) => json!({ "at_most": most }),
        Promise::RateOfPeers(Times { cpu, wall }) | Promise::TimeOfPeers(Times { cpu, wall }) => {
            json!({ "times_as_good_as_the_best_peer": { "cpu": cpu, "wall": wall } })
        }
    };
    let peer = |(name, spread): &(String, Result<Spread, String>)| {
        json!({
            "name": name,
            "value": spread_json(spread),
            "error": spread.as_ref().err(),
            "ratio": figure.ratio(spread).map(|ratio| json!({ "cpu": ratio.cpu, "wall": ratio.wall })),
        })
    };
    json!({
        "name": figure.name,
        "unit": figure.unit,
        "value": spread_json(&figure.ours),
        "error": figure.ours.as_ref().err(),
        "promise": promise,
        "kept": figure.is_kept(),
        "peers": figure.peers.iter().map(peer).collect::<Vec<_>>(),
    })
}

fn spread_json(spread: &Result<Spread, String>) -> Option<Value> {
    let Spread { median, least, greatest } = spread.as_ref().ok()?;
    Some(json!({ "cpu": median.cpu, "wall": median.wall, "least": least, "greatest": greatest }))
}
