//! Some inputs of a fixed seed on every target, because CI has no fuzzer; and the command.

use std::process::Command;

use seawall_hostile::input;
use seawall_hostile::targets::ALL;

#[test]
fn inputs_of_a_fixed_seed_find_nothing() {
    for target in ALL {
        for case in 0..target.cases {
            (target.body)(&input(target, 1, case));
        }
    }
}

#[test]
fn the_same_seed_is_the_same_inputs_and_another_is_others() {
    let target = &ALL[0];
    let of = |seed| (0..20).map(|case| input(target, seed, case)).collect::<Vec<_>>();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert!(of(1).iter().any(Vec::is_empty) || of(1).iter().any(|input| input.len() > 64));
}

#[test]
fn a_fuzz_target_stands_beside_each_body() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/fuzz_targets");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, ALL.iter().map(|target| target.name).collect::<Vec<_>>());
}

#[test]
fn the_command_says_how_many_inputs_it_tried_and_what_they_cost() {
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_seawall-hostile")).args(args).output().unwrap();
    let output = run(&["--target", "ledger", "--case", "7"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.starts_with("ledger: 1 inputs, at most "), "{said}");
    // Not even the program fits into a megabyte.
    let output = run(&["--target", "kernel", "--case", "5", "--memory", "1"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("again: seawall-hostile --target kernel --seed 1 "), "{said}");
    assert_eq!(run(&["--target", "nothing"]).status.code(), Some(2));
}
