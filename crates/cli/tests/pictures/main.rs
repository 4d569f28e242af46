//! The pictures of README and docs, drawn here from the demo's outcome and from measured figures.
//!
//! `SEAWALL_WRITE_PICTURES=1 cargo test -p seawall-cli --test pictures` writes them to `docs/pictures`.

#[path = "../seawall/mod.rs"]
mod seawall;

mod containment;
mod latency;
mod outcomes;
mod svg;

use std::path::Path;

use seawall::{json, seawall};
use serde_json::Value;
use svg::{THEMES, Theme};

/// Writes a picture in both themes, or checks that the existing ones equal it.
fn check(name: &str, draw: impl Fn(Theme) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures");
    for theme in THEMES {
        let path = folder.join(format!("{name}{}.svg", theme.suffix));
        let drawn = draw(theme);
        if std::env::var_os("SEAWALL_WRITE_PICTURES").is_some() {
            std::fs::write(&path, drawn).unwrap();
            continue;
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == drawn,
            "{} is not up to date: SEAWALL_WRITE_PICTURES=1 cargo test -p seawall-cli --test pictures",
            path.display()
        );
    }
}

/// The demo's run under a policy.
fn demo(policy: &str) -> Value {
    let report = json(&seawall(&["demo", "--json"]));
    let runs = report["runs"].as_array().unwrap();
    runs.iter().find(|run| run["policy"] == policy).unwrap().clone()
}

#[test]
fn the_way_of_an_error_is_that_of_the_demo() {
    let run = demo("full");
    check("containment", |theme| containment::draw(theme, &run));
}

#[test]
fn what_dies_and_what_lives_is_the_demos_outcome() {
    let (today, seawall) = (demo("serror"), demo("full"));
    check("outcomes", |theme| outcomes::draw(theme, &today, &seawall));
}

#[test]
fn the_latency_is_that_of_the_measured_figures() {
    let figures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures/latency.json");
    let figures: Value = serde_json::from_str(&std::fs::read_to_string(figures).unwrap()).unwrap();
    check("latency", |theme| latency::draw(theme, &figures));
}
