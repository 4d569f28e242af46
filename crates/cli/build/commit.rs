//! The commit that is checked out, read from the repository's files: no `git` is needed to build.

use std::fs;
use std::path::{Path, PathBuf};

/// The number of a commit's hexadecimal digits that are shown.
const DIGITS: usize = 10;

/// The checked-out commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// The first digits of the commit.
    pub(crate) commit: String,
    /// Existing files and folders, of which at least one changes when another commit is checked out.
    pub(crate) watched: Vec<PathBuf>,
}

/// The commit that `.git` names, which is a folder or, in a worktree, a file; `None` if it names none.
///
/// Source: gitrepository-layout(5).
pub(crate) fn checkout(dot_git: &Path) -> Option<Checkout> {
    let git = git_folder(dot_git)?;
    let head = git.join("HEAD");
    let content = fs::read_to_string(&head).ok()?;
    let Some(name) = content.trim().strip_prefix("ref: ") else {
        return Some(Checkout { commit: short(content.trim())?, watched: vec![head] });
    };
    // A worktree has its own HEAD; the branches belong to the repository.
    let common = match fs::read_to_string(git.join("commondir")) {
        Ok(path) => git.join(path.trim()),
        Err(_) => git,
    };
    let branch = common.join(name);
    if let Ok(commit) = fs::read_to_string(&branch) {
        return Some(Checkout { commit: short(commit.trim())?, watched: vec![head, branch] });
    }
    // The branch gets a file of its own at its next commit: its folder, or the nearest existing one, changes
    // then.
    let packed = common.join("packed-refs");
    let folder = branch.ancestors().skip(1).find(|folder| folder.is_dir())?.to_owned();
    let commit = fs::read_to_string(&packed).ok()?.lines().find_map(|line| {
        let (commit, packed_name) = line.split_once(' ')?;
        (packed_name == name).then(|| short(commit))?
    })?;
    Some(Checkout { commit, watched: vec![head, packed, folder] })
}

/// The folder with `HEAD`.
fn git_folder(dot_git: &Path) -> Option<PathBuf> {
    if dot_git.is_dir() {
        return Some(dot_git.to_owned());
    }
    let content = fs::read_to_string(dot_git).ok()?;
    Some(dot_git.parent()?.join(content.strip_prefix("gitdir: ")?.trim()))
}

/// The first digits of a commit's name: 40 hexadecimal digits, or 64 with SHA-256.
fn short(commit: &str) -> Option<String> {
    let is_name = matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    commit.get(..DIGITS).filter(|_| is_name).map(str::to_owned)
}
