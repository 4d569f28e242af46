//! The losses under KVM today, and under Seawall: the demo's guest, twice.

use serde_json::Value;

use crate::svg::{Box, Svg, Theme, Tone, bold, sans};

const WIDTH: i32 = 880;
const PANEL: i32 = 428;
const TILE: i32 = 92;

pub(crate) fn draw(theme: Theme, today: &Value, seawall: &Value) -> String {
    let mut svg = Svg::new(
        theme,
        (WIDTH, 318),
        "Two lines of a guest's memory go bad: under KVM today all of it is lost, under Seawall one process",
    );
    let heads = [
        ("KVM today", "an SError: the guest's kernel panics"),
        ("With Seawall", "the abort as it happened: the guest decides"),
    ];
    for ((n, run), (name, what)) in (0..).zip([today, seawall]).zip(heads) {
        guest(&mut svg, n * (PANEL + 15) + 4, name, what, run);
    }
    svg.finish()
}

fn guest(svg: &mut Svg, x: i32, name: &str, what: &str, run: &Value) {
    svg.panel(Box { x, y: 4, width: PANEL, height: 308 }, Tone::Muted);
    svg.text(x + 18, 34, bold(18), Tone::Plain, name);
    svg.text(x + 18, 56, sans(13), Tone::Muted, what);
    let tasks = run["tasks"].as_array().unwrap();
    for (n, task) in (0..).zip(tasks) {
        let place = Box { x: x + 18 + n * (TILE + 8), y: 74, width: TILE, height: 112 };
        process(svg, place, task);
    }
    let (kernel, tone) = match run["kernel"].as_str() {
        Some("ok") => ("kernel goes on", Tone::Good),
        Some("panic") => ("kernel panics", Tone::Bad),
        other => panic!("{other:?}"),
    };
    let place = Box { x: x + 18, y: 198, width: 4 * TILE + 24, height: 44 };
    svg.panel(place, tone);
    svg.mark(place.x + 14, place.y + 16, tone);
    svg.text(place.x + 36, place.y + 27, bold(14), tone, kernel);
    let survived = run["survived"].as_u64().unwrap();
    let tone = if survived == 0 { Tone::Bad } else { Tone::Good };
    svg.text(x + 18, 286, bold(26), tone, format_args!("{survived} of {}", tasks.len()));
    svg.text(x + 120, 286, sans(13), Tone::Muted, "processes survive two bad lines of memory");
}

fn process(svg: &mut Svg, place: Box, task: &Value) {
    let name = task["name"].as_str().unwrap();
    let (state, tone) = match task["state"].as_str() {
        Some("alive") => ("alive", Tone::Good),
        Some("killed") => ("killed", Tone::Bad),
        Some("lost") => ("lost", Tone::Bad),
        other => panic!("{other:?}"),
    };
    svg.panel(place, tone);
    let middle = place.x + place.width / 2;
    svg.text(middle, place.y + 28, bold(15).centred(), Tone::Plain, name);
    // The place of the demo's poison.
    let bad = match name {
        "web" => "bad code line",
        "db" => "bad data line",
        _ => "",
    };
    svg.text(middle, place.y + 50, sans(11).centred(), Tone::Muted, bad);
    svg.mark(middle - 6, place.y + 64, tone);
    svg.text(middle, place.y + 98, bold(13).centred(), tone, state);
}
