//! The reason why a guest is not available, and advice.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::modules::ModuleError;

/// The reason why a guest is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This host or its network lacks something; nothing is broken.
    #[error("{what}\n  what to do: {advice}")]
    Unavailable {
        /// The missing thing.
        what: String,
        /// Advice.
        advice: String,
    },
    /// A program that does part of the work failed.
    #[error("{program}: {status}; its output is in {}, and ends:\n{end}", log.display())]
    Program {
        /// Its name.
        program: String,
        /// Its exit status.
        status: ExitStatus,
        /// The file with all of its output.
        log: PathBuf,
        /// The last lines of the output.
        end: String,
    },
    /// An operation on a file or directory failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A package or a file lacks its usual content.
    #[error("{name}: {what}")]
    Content {
        /// Its name.
        name: String,
        /// The expectation and the finding.
        what: String,
    },
    /// A kernel module cannot be read.
    #[error(transparent)]
    Module(#[from] ModuleError),
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn unavailable(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), advice: advice.into() }
    }

    /// Returns true if this host cannot get the guest, and nothing is broken.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
