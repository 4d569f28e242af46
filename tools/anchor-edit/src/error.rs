//! Reasons why a tree is not changed.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The reason why a tree is not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The tree contains the mark, or a file of ours.
    #[error(
        "{} was changed before: {}; nothing was changed now (a fresh tree is needed)",
        .tree.display(),
        .found.join(", ")
    )]
    ChangedBefore {
        /// The tree.
        tree: PathBuf,
        /// Each file that shows it.
        found: Vec<String>,
    },
    /// Places that do not match their edits, all of them.
    #[error("nothing was changed in {}:\n  {}", .tree.display(), lines(.problems))]
    Places {
        /// The tree.
        tree: PathBuf,
        /// In the order of the edits.
        problems: Vec<Problem>,
    },
    /// A file could not be read or written. Files written before it were restored.
    #[error("{}: {error}; nothing was changed", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The host's reason.
        error: io::Error,
    },
    /// Writing failed half way, and the files written so far could not be restored.
    #[error("{}: {error}; the tree is changed in part: {}", .path.display(), .changed.join(", "))]
    HalfWay {
        /// The file that could not be written.
        path: PathBuf,
        /// The host's reason.
        error: io::Error,
        /// Files that stay changed.
        changed: Vec<String>,
    },
}

/// A place that does not match its edit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The tree has no such file.
    #[error("{file}: expected a file of text: {reason}")]
    NoFile {
        /// Relative to the tree.
        file: String,
        /// The host's reason.
        reason: String,
    },
    /// A text that must occur exactly once is missing, or occurs more often.
    #[error("{file}: expected {text:?} exactly once{}, found it {}", scope(.within.as_deref()), times(*.found))]
    NotOnce {
        /// Relative to the tree.
        file: String,
        /// The block in which it was searched.
        within: Option<String>,
        /// The anchor, or the text that begins the block.
        text: String,
        /// The number of occurrences.
        found: usize,
    },
    /// The block has no line that begins with `}`.
    #[error("{file}: expected a line that begins with `}}` after {within:?}, found none")]
    NoEnd {
        /// Relative to the tree.
        file: String,
        /// The text that begins the block.
        within: String,
    },
    /// Two edits replace the same text.
    #[error("{file}: {anchor:?} is in the text of another edit's anchor, which is replaced")]
    Overlap {
        /// Relative to the tree.
        file: String,
        /// The second of them.
        anchor: String,
    },
    /// The edit itself is not valid: the anchor is empty, has more than one line or exceeds the limit.
    #[error("{file}: expected an anchor of one line and 1 to {limit} bytes, got {anchor:?}", limit = crate::ANCHOR_LIMIT)]
    BadAnchor {
        /// Relative to the tree.
        file: String,
        /// The anchor, or the text that begins the block.
        anchor: String,
    },
    /// A file without the mark after its edits: a second run could not be recognised.
    #[error("{file}: expected {mark:?} in the text of one of its edits")]
    NoMark {
        /// Relative to the tree.
        file: String,
        /// The mark.
        mark: String,
    },
    /// A path that leaves the tree.
    #[error("{file:?}: expected a path below the tree")]
    Outside {
        /// The path as given.
        file: String,
    },
}

impl Error {
    pub(crate) fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.to_owned(), error }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n  ")
}

fn scope(within: Option<&str>) -> String {
    within.map(|within| format!(" within {within:?}")).unwrap_or_default()
}

fn times(found: usize) -> String {
    match found {
        0 => "nowhere".into(),
        found => format!("{found} times"),
    }
}
