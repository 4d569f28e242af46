//! Why a guest cannot be had, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::modules::ModuleError;

/// Why a guest cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This host or its network has not what it takes; nothing is broken.
    #[error("{what}\n  what to do: {advice}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// What to do about it.
        advice: String,
    },
    /// A program that does a part of the work failed.
    #[error("{program}: {status}; its output is in {}, and ends:\n{end}", log.display())]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// All of its output.
        log: PathBuf,
        /// The last lines.
        end: String,
    },
    /// A file or directory that could not be worked on.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A package or a file has not in it what such have.
    #[error("{name}: {what}")]
    Content {
        /// Its name.
        name: String,
        /// What was expected and what came.
        what: String,
    },
    /// A kernel module cannot be read.
    #[error(transparent)]
    Module(#[from] ModuleError),
}

/// What a step gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn unavailable(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), advice: advice.into() }
    }

    /// Whether this host cannot have the guest, as opposed to something being broken.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
