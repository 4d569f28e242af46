//! README and docs show the command's real output.

mod seawall;

use std::process::Command;

use seawall::{File, seawall, text};

const README: &str = include_str!("../../../README.md");
const EMBEDDING: &str = include_str!("../../../docs/embedding.md");
const PAGE: &str = include_str!("../../../docs/guests.md");

fn listing() -> &'static str {
    PAGE.split("```asm\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

/// The image of a listing; `None` without an assembler.
fn assemble(source: &str) -> Option<File> {
    let (source, object, image) =
        (File::new("guest.s", source.as_bytes()), File::new("guest.o", b""), File::new("guest.bin", b""));
    let run = |tool: &str, args: &[&str]| {
        let output = Command::new(format!("aarch64-linux-gnu-{tool}")).args(args).output().ok()?;
        assert!(output.status.success(), "{}", text(&output.stderr));
        Some(())
    };
    run("as", &[source.path(), "-o", object.path()])?;
    run("objcopy", &["-O", "binary", object.path(), image.path()])?;
    Some(image)
}

#[test]
fn the_listing_of_the_page_contains_an_error() {
    let Some(image) = assemble(listing()) else {
        println!("skipped: there is no aarch64-linux-gnu-as here (package binutils-aarch64-linux-gnu)");
        return;
    };
    let output = seawall(&["run", image.path(), "--poison", "page:data"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "seawall: page data 0x40200000\nguest: abort\nguest: still alive\n");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("ESR 0x96000210, FAR 0x40200000"), "{stderr}");
    // The same without an error, and with a page of another name.
    let output = seawall(&["run", "-q", image.path()]);
    assert_eq!(text(&output.stdout), "seawall: page data 0x40200000\nguest: still alive\n");
    let output = seawall(&["run", "-q", image.path(), "--poison", "page:heap"]);
    assert_eq!(output.status.code(), Some(13));
}

#[test]
fn the_readme_shows_the_demo_as_it_is() {
    let output = seawall(&["demo"]);
    assert!(README.contains(&format!("```text\n{}```\n", text(&output.stdout))), "{}", text(&output.stdout));
}

#[test]
fn the_guide_shows_the_line_of_the_demos_first_error() {
    let trace = text(&seawall(&["demo", "--trace"]).stderr);
    let (_, full) = trace.split_once("--- policy full").unwrap();
    let value = |name: &str| {
        let line = full.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let line = format!("`{}: {}; {}`", value("error "), value("inject "), value("state "));
    assert!(EMBEDDING.replace('\n', " ").contains(&line), "{line}");
}

#[test]
fn pictures_that_the_pages_show_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut shown = 0;
    for (page, folder) in [(README, root.clone()), (EMBEDDING, root.join("docs"))] {
        for attribute in ["src=\"", "srcset=\""] {
            for rest in page.split(attribute).skip(1) {
                let path = folder.join(rest.split('"').next().unwrap());
                assert!(path.is_file(), "{}", path.display());
                shown += 1;
            }
        }
    }
    assert_eq!(shown, 8);
}
