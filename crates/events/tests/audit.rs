//! `AUDIT.md` is true: every rule is there once, names at least one test, and that test exists.

use std::collections::BTreeMap;
use std::path::Path;

/// The rules, in the order of the table.
const RULES: &str = "
    W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 W11 W12 W13
    X1 X2 X3 X4 X5 X6 X7 X8 X9 X10 X11 X12 X13 X14 X15 X16 X17 X18
    S-a S-b S-c S-d S-e S-f S-g S-h Q1 Q2 Q3 Q4
    P1 P2 P3 P4 P5 P6 P7 P8 P9 P10
    G1 G2 G3 G4 G5 G6 C1 C2 C3 C4
    A1 A2 A3 A4 A5 A6 A7 A8 A9
    E1 E2 E3 E4 E5 E6
    T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14 T15 T16 T17 T18
    R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12 R13 R14 R15
    V1 V2 V3 V4 V5 V6 V7 V8 V9
    H1 H2 H3 H4 H5 H6 H7 H8
    M-load-A M-load-B M-store-A M-post-A M-el0-B M-fetch-A M-fetch-B M-walk-load-A M-walk-fetch-A
    M-serror-A M-serror-B M-masked-B M-outside-B M-both-B M-poisoned-page-B M-healed-B M-fetch-el0
    M-walk-el0 M-dabt-esr M-iabt-esr M-exit-load M-exit-fetch M-exit-hole-store M-exit-hole-load
    M-exit-walk
";

/// A row: the rule's id, the rule, the tests that show it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    rule: String,
    tests: Vec<(String, String)>,
}

/// Every row of every table in the text: `| id | rule | `file::name`<br>… |`.
fn rows(text: &str) -> Vec<Row> {
    let lines = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id "));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    cells
        .map(|cells| Row {
            id: cells.first().copied().unwrap_or_default().into(),
            rule: cells.get(1).copied().unwrap_or_default().into(),
            tests: cells.get(2).copied().unwrap_or_default().split("<br>").filter_map(test_name).collect(),
        })
        .collect()
}

fn test_name(cell: &str) -> Option<(String, String)> {
    let (file, name) = cell.strip_prefix('`')?.strip_suffix('`')?.split_once("::")?;
    Some((file.into(), name.into()))
}

/// Returns true if the source has a function of this name with `#[test]` among its attributes.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    lines.iter().enumerate().any(|(n, line)| {
        let above = lines.iter().take(n).rev();
        let mut attributes = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        line.starts_with(&function) && attributes.any(|attribute| *attribute == "#[test]")
    })
}

/// The mistakes of a table: `source` returns the text of a file below `crates/`.
fn problems(text: &str, rules: &[&str], source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows(text) {
        *seen.entry(row.id.clone()).or_default() += 1;
        if row.rule.is_empty() {
            problems.push(format!("{}: no rule", row.id));
        }
        if row.tests.is_empty() {
            problems.push(format!("{}: no test", row.id));
        }
        for (file, name) in &row.tests {
            match source(file) {
                None => problems.push(format!("{}: no file {file}", row.id)),
                Some(source) if has_test(&source, name) => {}
                Some(_) => problems.push(format!("{}: no test {name} in {file}", row.id)),
            }
        }
    }
    for rule in rules {
        match seen.remove(*rule) {
            Some(1) => {}
            Some(times) => problems.push(format!("{rule}: {times} times")),
            None => problems.push(format!("{rule}: not in the table")),
        }
    }
    problems.extend(seen.into_keys().map(|id| format!("{id}: not a rule")));
    problems
}

#[test]
#[cfg_attr(miri, ignore = "it reads every test, with nothing of ours to check")]
fn every_rule_has_a_test_that_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = |file: &str| std::fs::read_to_string(crates.join(file)).ok();
    let text = source("events/AUDIT.md").expect("AUDIT.md is beside Cargo.toml");
    let rules: Vec<&str> = RULES.split_whitespace().collect();
    let problems = problems(&text, &rules, source);
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(rows(&text).iter().map(|row| row.id.as_str()).eq(rules), "the order differs");
}

/// `problems` of a table of rules `X1` and `X2` with these rows, over one source file.
fn check(table: &str, expected: &[&str]) {
    const SOURCE: &str = "#[test]\nfn it_holds() {}\nproptest! {\n    #[test]\n    #[ignore]\n    fn always(a: u8) {}\n}\nfn helper() {}\n";
    let source = |file: &str| (file == "arm/tests/a.rs").then(|| SOURCE.to_string());
    assert_eq!(problems(table, &["X1", "X2"], source), expected, "{table}");
}

#[test]
fn a_sound_table_has_no_problems() {
    check(
        "# Audit\n\n| id | rule | tests |\n|---|---|---|\n| X1 | one | `arm/tests/a.rs::it_holds` |\n\
         | X2 | two | `arm/tests/a.rs::always`<br>`arm/tests/a.rs::it_holds` |\n",
        &[],
    );
}

#[test]
fn a_rule_without_a_test_is_a_problem() {
    check("| X1 | one | `arm/tests/a.rs::it_holds` |\n| X2 | two |  |\n", &["X2: no test"]);
}

#[test]
fn a_test_that_does_not_exist_is_a_problem() {
    check(
        "| X1 | one | `arm/tests/a.rs::it_hold` |\n| X2 | two | `arm/tests/b.rs::it_holds` |\n",
        &["X1: no test it_hold in arm/tests/a.rs", "X2: no file arm/tests/b.rs"],
    );
}

#[test]
fn a_function_that_is_no_test_is_a_problem() {
    check(
        "| X1 | one | `arm/tests/a.rs::helper` |\n| X2 | two | `arm/tests/a.rs::always` |\n",
        &["X1: no test helper in arm/tests/a.rs"],
    );
}

#[test]
fn a_rule_that_is_missing_twice_there_or_unknown_is_a_problem() {
    check(
        "| X1 | one | `arm/tests/a.rs::it_holds` |\n| X1 | one | `arm/tests/a.rs::it_holds` |\n\
         | X3 |  | `arm/tests/a.rs::always` |\n",
        &["X3: no rule", "X1: 2 times", "X2: not in the table", "X3: not a rule"],
    );
}
