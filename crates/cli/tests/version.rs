//! `seawall -V`: the crate's version and the commit, even without `git`.

#[path = "../build/commit.rs"]
mod commit;
mod seawall;

use std::fs;
use std::path::Path;

use commit::{Checkout, checkout};
use seawall::{seawall, text};

const FIRST: &str = "e10f9a4cbd5a3c1b7f0a9d8e7c6b5a4f3e2d1c0b";
const SECOND: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository's files: names and contents.
fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

/// The commit, and the watched paths, below `root`.
fn read(root: &Path, dot_git: &str) -> Option<(String, Vec<String>)> {
    let Checkout { commit, watched } = checkout(&root.join(dot_git))?;
    // Cargo takes a missing file for a changed one, and would build each time.
    assert!(watched.iter().all(|path| path.exists()), "{watched:?}");
    let root = root.canonicalize().unwrap();
    let below = |path: &std::path::PathBuf| {
        path.canonicalize().unwrap().strip_prefix(&root).unwrap().display().to_string()
    };
    Some((commit, watched.iter().map(below).collect()))
}

#[test]
fn the_commit_of_a_branch_is_in_the_branchs_file() {
    let root = repository(&[
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".git/refs/heads/main", &format!("{FIRST}\n")),
        (".git/packed-refs", &format!("{SECOND} refs/heads/main\n")),
    ]);
    let watched = [".git/HEAD", ".git/refs/heads/main"].map(String::from).to_vec();
    assert_eq!(read(root.path(), ".git"), Some(("e10f9a4cbd".into(), watched)));
}

#[test]
fn a_packed_branch_is_watched_by_the_folder_where_its_file_will_be() {
    let packed = format!(
        "# pack-refs with: peeled fully-peeled sorted\n{FIRST} refs/heads/a/b\n^{SECOND}\n{SECOND} refs/heads/main\n"
    );
    let root = repository(&[
        (".git/HEAD", "ref: refs/heads/main"),
        (".git/packed-refs", &packed),
        (".git/refs/heads/x", FIRST),
    ]);
    let watched = [".git/HEAD", ".git/packed-refs", ".git/refs/heads"].map(String::from).to_vec();
    assert_eq!(read(root.path(), ".git"), Some(("0123456789".into(), watched.clone())));
    fs::write(root.path().join(".git/HEAD"), "ref: refs/heads/a/b\n").unwrap();
    assert_eq!(read(root.path(), ".git"), Some(("e10f9a4cbd".into(), watched)));
}

#[test]
fn a_detached_head_and_a_worktree_have_commits_too() {
    let root = repository(&[
        (".git/HEAD", &format!("{SECOND}\n")),
        (".git/refs/heads/topic", FIRST),
        (".git/worktrees/w/HEAD", "ref: refs/heads/topic\n"),
        (".git/worktrees/w/commondir", "../..\n"),
        ("w/.git", "gitdir: ../.git/worktrees/w\n"),
    ]);
    assert_eq!(read(root.path(), ".git"), Some(("0123456789".into(), vec![".git/HEAD".into()])));
    let watched = [".git/worktrees/w/HEAD", ".git/refs/heads/topic"].map(String::from).to_vec();
    assert_eq!(read(root.path(), "w/.git"), Some(("e10f9a4cbd".into(), watched)));
}

#[test]
fn without_a_repository_or_in_one_that_is_stored_otherwise_there_is_no_commit() {
    let empty = repository(&[]);
    assert_eq!(read(empty.path(), ".git"), None);
    // A repository with reftable (gitformat-reftable) has this in place of a branch.
    let tables =
        repository(&[(".git/HEAD", "ref: refs/heads/.invalid\n"), (".git/reftable/tables.list", "")]);
    assert_eq!(read(tables.path(), ".git"), None);
    let unborn = repository(&[(".git/HEAD", "ref: refs/heads/main\n"), (".git/refs/heads/x", FIRST)]);
    assert_eq!(read(unborn.path(), ".git"), None);
    let damaged = repository(&[(".git/HEAD", "what is this\n")]);
    assert_eq!(read(damaged.path(), ".git"), None);
}

#[test]
fn the_version_has_the_commit_that_the_command_was_built_from() {
    let output = seawall(&["-V"]);
    // The version of the build script in the same build: another commit may have been checked out since.
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), concat!("seawall ", env!("SEAWALL_VERSION"), "\n").to_owned())
    );
    let has_commit = |version: &str| {
        let digits = version.strip_prefix("0.1.0 (").and_then(|rest| rest.strip_suffix(')'));
        digits.is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let is_in_repository = checkout(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.git")).is_some();
    if std::env::var_os("SEAWALL_COMMIT").is_none() {
        assert_eq!(has_commit(env!("SEAWALL_VERSION")), is_in_repository, env!("SEAWALL_VERSION"));
    }
    assert_eq!(seawall(&["--version"]).stdout, output.stdout);
}
