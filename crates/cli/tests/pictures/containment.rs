//! Exit, decide, record, inject: the path of one error, with the values of the demo's first error.

use serde_json::Value;

use crate::svg::{Box, Svg, Theme, Tone, bold, mono, sans};

const WIDTH: i32 = 880;
const STEP: i32 = 190;
const GAP: i32 = 30;
const TOP: i32 = 52;
const STEP_HEIGHT: i32 = 134;
const GUEST_TOP: i32 = 242;
const GUEST_HEIGHT: i32 = 86;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

pub(crate) fn draw(theme: Theme, run: &Value) -> String {
    let error = &run["errors"][0];
    let did = text(&run["guest_saw"][0], "did");
    assert!(did.ends_with("nothing lost"), "{did}");
    assert_eq!(text(error, "access"), "fetch");
    let (abort, iss) = text(error, "decision_text").split_once(", ").unwrap();
    let steps: [(&str, &str, [String; 3]); 4] = [
        (
            "Exit",
            "KVM asks the VMM",
            [
                format!("ESR {}", text(error, "exit_esr")),
                format!("gva {}", text(error, "gva")),
                format!("gpa {}", text(error, "gpa")),
            ],
        ),
        (
            "Decide",
            "by the operator's policy",
            ["fetch by a process".into(), abort.to_owned(), iss.to_owned()],
        ),
        (
            "Record",
            "for a guest with ACPI",
            ["CPER in its memory".into(), "Linux takes the".into(), "page offline".into()],
        ),
        (
            "Inject",
            "the abort as it happened",
            [
                format!("ESR {}", text(error, "guest_esr")),
                format!("FAR {}", text(error, "guest_far")),
                "at its own vector".into(),
            ],
        ),
    ];
    let mut svg = Svg::new(
        theme,
        (WIDTH, 340),
        "A memory error on its way: exit, decide, record, inject, the guest's handler",
    );
    svg.panel(Box { x: 4, y: 4, width: WIDTH - 9, height: TOP + STEP_HEIGHT + 12 }, Tone::Muted);
    svg.text(20, 32, bold(14), Tone::Muted, "VMM");
    let left = |n: i32| 16 + n * (STEP + GAP);
    for (n, (name, what, lines)) in (0..).zip(steps) {
        let x = left(n);
        svg.panel(Box { x, y: TOP, width: STEP, height: STEP_HEIGHT }, Tone::Accent);
        svg.text(x + 14, TOP + 28, bold(17), Tone::Accent, format_args!("{}  {name}", n + 1));
        svg.text(x + 14, TOP + 51, sans(13), Tone::Plain, what);
        for (line, y) in lines.iter().zip([78, 98, 118]) {
            svg.text(x + 14, TOP + y, mono(13), Tone::Muted, line);
        }
        if n > 0 {
            svg.arrow(&[(x - GAP + 2, TOP + STEP_HEIGHT / 2), (x - 3, TOP + STEP_HEIGHT / 2)], Tone::Accent);
        }
    }

    svg.panel(Box { x: 4, y: GUEST_TOP, width: WIDTH - 9, height: GUEST_HEIGHT }, Tone::Muted);
    svg.text(20, GUEST_TOP + 26, bold(14), Tone::Muted, "Guest");
    svg.text(20, GUEST_TOP + 50, sans(13), Tone::Bad, "A process fetches code from a bad line.");
    svg.text(20, GUEST_TOP + 70, sans(13), Tone::Muted, "The instruction has not completed.");
    let right = WIDTH - 22;
    svg.text(
        right,
        GUEST_TOP + 50,
        sans(13).to_the_left(),
        Tone::Good,
        "Its kernel puts a clean copy of the page there.",
    );
    svg.text(
        right,
        GUEST_TOP + 70,
        sans(13).to_the_left(),
        Tone::Muted,
        "The process goes on: nothing is lost.",
    );
    let (from, to) = (left(0) + STEP / 2, left(3) + STEP / 2);
    svg.arrow(&[(from, GUEST_TOP - 1), (from, TOP + STEP_HEIGHT + 3)], Tone::Bad);
    svg.arrow(&[(to, TOP + STEP_HEIGHT + 1), (to, GUEST_TOP - 2)], Tone::Good);
    svg.finish()
}
