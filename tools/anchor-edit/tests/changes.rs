//! A tree is changed as a whole, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use seawall_anchor_edit::{Addition, Changes, Edit, Error, Place, Problem};
use tempfile::TempDir;

const BOOT: &str =
    "int early;\n\nvoid boot(void)\n{\n    start();\n    go();\n}\n\nvoid stop(void)\n{\n    go();\n}\n";
const BUILD: &str = "objects = boot.o\n";

fn tree() -> TempDir {
    let tree = tempfile::tempdir().expect("a folder");
    fs::create_dir(tree.path().join("arch")).expect("a folder");
    fs::write(tree.path().join("arch/boot.c"), BOOT).expect("written");
    fs::write(tree.path().join("build"), BUILD).expect("written");
    tree
}

/// Every file with its contents.
fn contents(tree: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![tree.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(tree).expect("below").display().to_string();
                files.insert(name, fs::read_to_string(&path).expect("text"));
            }
        }
    }
    files
}

const fn edit(anchor: &'static str, place: Place, text: &'static str) -> Edit<'static> {
    Edit { file: "arch/boot.c", within: None, anchor, place, text }
}

fn changes<'a>(edits: &'a [Edit<'a>], additions: &'a [Addition<'a>]) -> Changes<'a> {
    Changes { mark: "our_", edits, additions }
}

/// The file after one edit.
fn after(edit: Edit<'_>) -> String {
    let tree = tree();
    changes(&[edit], &[]).plan(tree.path()).expect("a plan").apply().expect("applied");
    fs::read_to_string(tree.path().join(edit.file)).expect("text")
}

/// The problems of edits; also checks that the tree is unchanged.
fn problems(edits: &[Edit<'_>], additions: &[Addition<'_>]) -> Vec<Problem> {
    let tree = tree();
    let before = contents(tree.path());
    let Err(Error::Places { problems, .. }) = changes(edits, additions).plan(tree.path()) else {
        panic!("expected places that do not fit")
    };
    assert_eq!(contents(tree.path()), before);
    problems
}

fn not_once(within: Option<&str>, text: &str, found: usize) -> Problem {
    Problem::NotOnce { file: "arch/boot.c".into(), within: within.map(Into::into), text: text.into(), found }
}

#[test]
fn a_text_goes_before_after_or_in_place_of_its_anchor() {
    assert_eq!(
        after(edit("start()", Place::Before, "our_1() + ")),
        BOOT.replace("start()", "our_1() + start()")
    );
    assert_eq!(
        after(edit("start()", Place::After, " + our_1()")),
        BOOT.replace("start()", "start() + our_1()")
    );
    assert_eq!(after(edit("start()", Place::Replace, "our_start()")), BOOT.replace("start()", "our_start()"));
}

#[test]
fn a_text_goes_on_lines_of_its_own_before_or_after_the_anchors_line() {
    let two = "    our_1();\n    our_2();";
    assert_eq!(
        after(edit("start", Place::LineBefore, two)),
        BOOT.replace("    start();\n", "    our_1();\n    our_2();\n    start();\n")
    );
    assert_eq!(
        after(edit("start", Place::LineAfter, two)),
        BOOT.replace("    start();\n", "    start();\n    our_1();\n    our_2();\n")
    );
    assert_eq!(after(edit("int early", Place::LineBefore, "int our_int;")), format!("int our_int;\n{BOOT}"));
}

#[test]
fn a_last_line_without_an_end_gets_one() {
    let tree = tree();
    fs::write(tree.path().join("build"), "objects = boot.o").expect("written");
    let edits = [Edit { file: "build", ..edit("objects", Place::LineAfter, "objects += our_.o") }];
    changes(&edits, &[]).plan(tree.path()).expect("a plan").apply().expect("applied");
    assert_eq!(contents(tree.path())["build"], "objects = boot.o\nobjects += our_.o");
}

#[test]
fn an_anchor_need_be_unique_only_within_its_block() {
    let within = |within| Edit { within: Some(within), ..edit("go()", Place::Replace, "our_go()") };
    assert_eq!(after(within("void boot(")), BOOT.replacen("go()", "our_go()", 1));
    let edits = [Edit { within: Some("void stop("), ..edit("start", Place::Before, "our_") }];
    assert_eq!(problems(&edits, &[]), [not_once(Some("void stop("), "start", 0)]);
    assert_eq!(problems(&[within("void")], &[]), [not_once(None, "void", 4)]);
    assert_eq!(
        problems(
            &[Edit { file: "build", within: Some("objects"), ..edit("boot", Place::Before, "our_") }],
            &[]
        ),
        [Problem::NoEnd { file: "build".into(), within: "objects".into() }]
    );
}

#[test]
fn an_anchor_that_is_missing_or_there_twice_is_named_and_nothing_is_changed() {
    let edits = [
        edit("start", Place::Before, "our_"),
        edit("halt", Place::Before, "our_"),
        edit("go()", Place::Before, "our_"),
        Edit { file: "arch/none.c", ..edit("go()", Place::Before, "our_") },
    ];
    let found = problems(&edits, &[Addition { file: "our.c", text: "" }]);
    assert_eq!(found[..2], [not_once(None, "halt", 0), not_once(None, "go()", 2)]);
    assert!(matches!(&found[2..], [Problem::NoFile { file, .. }] if file == "arch/none.c"), "{found:?}");

    let tree = tree();
    let error = changes(&edits[1..3], &[]).plan(tree.path()).expect_err("two places");
    assert_eq!(
        error.to_string(),
        format!(
            "nothing was changed in {}:\n  \
             arch/boot.c: expected \"halt\" exactly once, found it nowhere\n  \
             arch/boot.c: expected \"go()\" exactly once, found it 2 times",
            tree.path().display()
        )
    );
}

#[test]
fn anchors_are_searched_in_the_file_as_it_was_whatever_the_order_of_edits() {
    let edits = [
        edit("void stop", Place::LineBefore, "int our_stop;"),
        edit("start", Place::After, "_early"),
        edit("early", Place::LineBefore, "int our_start;"),
        edit("void stop", Place::LineBefore, "int our_other;"),
    ];
    let tree = tree();
    changes(&edits, &[]).plan(tree.path()).expect("a plan").apply().expect("applied");
    assert_eq!(
        contents(tree.path())["arch/boot.c"],
        "int our_start;\nint early;\n\nvoid boot(void)\n{\n    start_early();\n    go();\n}\n\n\
         int our_stop;\nint our_other;\nvoid stop(void)\n{\n    go();\n}\n"
    );
}

#[test]
fn two_edits_do_not_replace_the_same_text() {
    let edits = [edit("start()", Place::Replace, "our_1()"), edit("art", Place::Replace, "our_2")];
    assert_eq!(
        problems(&edits, &[]),
        [Problem::Overlap { file: "arch/boot.c".into(), anchor: "art".into() }]
    );
}

#[test]
fn a_tree_that_was_changed_before_is_refused_and_stays_as_it_is() {
    let edits = [edit("start()", Place::Replace, "our_start()")];
    let additions = [Addition { file: "arch/own/our.c", text: "int ours;\n" }];
    let tree = tree();
    changes(&edits, &additions).plan(tree.path()).expect("a plan").apply().expect("applied");
    let once = contents(tree.path());
    assert_eq!(once["arch/boot.c"], BOOT.replace("start()", "our_start()"));
    assert_eq!(once["arch/own/our.c"], "int ours;\n");
    assert_eq!(once["build"], BUILD);

    let error = changes(&edits, &additions).plan(tree.path()).expect_err("changed before");
    assert_eq!(
        error.to_string(),
        format!(
            "{} was changed before: arch/boot.c has \"our_\", arch/own/our.c is there; nothing was changed now \
             (a fresh tree is needed)",
            tree.path().display()
        )
    );
    assert_eq!(contents(tree.path()), once);
}

#[test]
fn an_anchor_is_a_few_words_of_one_line() {
    for anchor in ["", "start();\n    go();", "a text that is much longer than any few words can be"] {
        let edits = [edit(anchor, Place::Before, "our_")];
        assert_eq!(
            problems(&edits, &[]),
            [Problem::BadAnchor { file: "arch/boot.c".into(), anchor: anchor.into() }]
        );
    }
}

#[test]
fn an_edited_file_without_the_mark_is_refused_as_a_second_run_could_not_be_told() {
    let edits = [edit("start", Place::Before, "re")];
    assert_eq!(problems(&edits, &[]), [Problem::NoMark { file: "arch/boot.c".into(), mark: "our_".into() }]);
}

#[test]
fn nothing_outside_the_tree_is_written() {
    let outside = |file: &str| Problem::Outside { file: file.into() };
    let additions = ["../our.c", "/our.c", ""].map(|file| Addition { file, text: "" });
    assert_eq!(problems(&[], &additions), ["../our.c", "/our.c", ""].map(outside));
}

#[test]
fn files_keep_their_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = tree();
    let path = tree.path().join("arch/boot.c");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    changes(&[edit("start", Place::Before, "our_")], &[])
        .plan(tree.path())
        .expect("a plan")
        .apply()
        .expect("applied");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o755);
}

#[test]
fn what_was_written_is_taken_back_if_a_later_file_cannot_be() {
    let edits = [edit("start", Place::Before, "our_")];
    // The second file's folder is a file.
    let additions = [Addition { file: "our.c", text: "" }, Addition { file: "build/our.c", text: "" }];
    let tree = tree();
    let before = contents(tree.path());
    let error =
        changes(&edits, &additions).plan(tree.path()).expect("a plan").apply().expect_err("no folder");
    assert!(matches!(&error, Error::File { path, .. } if path.ends_with("build/our.c")), "{error}");
    assert_eq!(contents(tree.path()), before);
}
