//! The time from a guest's load of bad memory to its handler, beside QEMU.

use serde_json::Value;

use crate::svg::{Box, Svg, Theme, Tone, bold, sans};

const WIDTH: i32 = 880;
/// The start of the bars, and the length of the longest.
const LEFT: i32 = 150;
const LENGTH: i32 = 580;

pub(crate) fn draw(theme: Theme, figures: &Value) -> String {
    let number = |of: &str, name: &str| figures[of][name].as_f64().unwrap();
    let text = |name: &str| figures[name].as_str().unwrap().to_owned();
    let mut svg = Svg::new(
        theme,
        (WIDTH, 306),
        "From a guest's load of bad memory to its handler: time and system calls, beside QEMU",
    );
    svg.panel(Box { x: 4, y: 4, width: WIDTH - 9, height: 296 }, Tone::Muted);
    svg.text(20, 34, bold(18), Tone::Plain, "From a guest's load of bad memory to its handler");
    svg.text(20, 55, sans(13), Tone::Muted, "after SIGBUS; medians of one run; shorter is better");
    let qemu = text("qemu_version");
    let names = ["Seawall".to_owned(), qemu];
    let times = ["seawall", "qemu"].map(|of| number(of, "load_to_handler_ms"));
    let calls = ["seawall", "qemu"].map(|of| number(of, "ioctls_per_error"));
    group(&mut svg, 86, "time", &names, times, |ms| format!("{ms} ms"));
    group(&mut svg, 180, "ioctls for one error", &names, calls, |calls| {
        if calls > 100.0 { format!("about {calls}") } else { calls.to_string() }
    });
    svg.text(20, 286, sans(12), Tone::Muted, text("measured"));
    svg.finish()
}

/// Two bars from `y` on, the second as long as the space allows.
fn group(
    svg: &mut Svg,
    y: i32,
    what: &str,
    names: &[String; 2],
    values: [f64; 2],
    label: impl Fn(f64) -> String,
) {
    svg.text(20, y, bold(13), Tone::Plain, what);
    let longest = values[0].max(values[1]);
    for ((n, value), tone) in (0..).zip(values).zip([Tone::Good, Tone::Muted]) {
        let top = y + 10 + n * 30;
        #[allow(clippy::cast_possible_truncation, reason = "at most LENGTH")]
        let length = (f64::from(LENGTH) * value / longest).round() as i32;
        svg.text(20, top + 16, sans(13), Tone::Plain, &names[n as usize]);
        svg.bar(Box { x: LEFT, y: top, width: length.max(2), height: 22 }, tone);
        svg.text(LEFT + length.max(2) + 10, top + 16, bold(13), Tone::Plain, label(value));
    }
}
