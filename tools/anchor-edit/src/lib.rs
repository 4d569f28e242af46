//! Changes a foreign source tree without storing a line of it in this repository.
//!
//! A patch carries the lines around each change, and those lines have the tree's licence. [`Changes`] names a
//! place by an anchor instead: a few words that occur exactly once, in a file or in one block of it. All
//! other text is ours, and a large change goes into a file of our own ([`Addition`]).
//!
//! [`Changes::plan`] reads the tree and finds every place; [`Plan::apply`] writes. If an anchor is missing or
//! not unique, if a file of ours is in the tree already, or if the tree was changed before, the plan fails,
//! names every such place, and nothing is written.
//!
//! ```
//! use seawall_anchor_edit::{Changes, Edit, Place};
//!
//! const CHANGES: Changes = Changes {
//!     mark: "ours_",
//!     edits: &[Edit {
//!         file: "boot.c",
//!         within: Some("void boot("),
//!         anchor: "return;",
//!         place: Place::LineBefore,
//!         text: "    ours_boot();",
//!     }],
//!     additions: &[],
//! };
//! let tree = tempfile::tempdir()?;
//! std::fs::write(tree.path().join("boot.c"), "void boot(void)\n{\n    return;\n}\n")?;
//! CHANGES.plan(tree.path())?.apply()?;
//! let changed = std::fs::read_to_string(tree.path().join("boot.c"))?;
//! assert_eq!(changed, "void boot(void)\n{\n    ours_boot();\n    return;\n}\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod place;
mod plan;

pub use error::{Error, Problem};
pub use plan::Plan;

/// All changes to a tree.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// A text that marks a changed tree: no edited file contains it before the edits, and each contains it
    /// afterwards.
    pub mark: &'a str,
    /// Changes to the tree's files. Every anchor is searched in the original file, so the order of edits
    /// matters only for the same place.
    pub edits: &'a [Edit<'a>],
    /// New files.
    pub additions: &'a [Addition<'a>],
}

/// One change of one file.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// Relative to the tree.
    pub file: &'a str,
    /// A text that begins the one block in which the anchor is searched: from its only occurrence in the file to the end
    /// of the next line that begins with `}`. The whole file, if there is none.
    pub within: Option<&'a str>,
    /// A text of one line and at most [`ANCHOR_LIMIT`] bytes that occurs exactly once there.
    pub anchor: &'a str,
    /// The place of `text`, seen from the anchor.
    pub place: Place,
    /// Our text. A line break is added if it goes on lines of its own.
    pub text: &'a str,
}

/// The place of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Right before the anchor.
    Before,
    /// Right after the anchor.
    After,
    /// In place of the anchor.
    Replace,
    /// On lines of its own, before the anchor's line.
    LineBefore,
    /// On lines of its own, after the anchor's line.
    LineAfter,
}

/// A new file.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// Relative to the tree; a missing folder is created.
    pub file: &'a str,
    /// The whole content.
    pub text: &'a str,
}

/// The longest anchor in bytes: a name and its neighbours, not a line of the foreign source.
pub const ANCHOR_LIMIT: usize = 48;
