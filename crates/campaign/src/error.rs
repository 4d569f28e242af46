//! The errors of a campaign.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of a campaign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it is to be.
    #[error("{}: expected {expected}, got {got}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The expected value.
        expected: String,
        /// The actual value.
        got: String,
    },
    /// The batch system did not take the job: its program is not here, or refused.
    #[error(
        "expected {program} to take the job, on a host that has it (`--print` shows the script), got {got}"
    )]
    Batch {
        /// The program.
        program: String,
        /// The reason.
        got: String,
    },
    /// The guest does not do what a campaign needs of it.
    #[error("the guest {0}")]
    Guest(String),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] seawall_vmm::Error),
    /// A plan cannot be made like this.
    #[error("expected {expected}, got {got}")]
    Option {
        /// The values that the option takes.
        expected: String,
        /// The actual value.
        got: String,
    },
    /// There is no such experiment.
    #[error(
        "there is no experiment {0} in this campaign; an id is FIRMWARE-MOMENT-PAGE-POLICY, such as acpi-0-0x40a3f000-full"
    )]
    NoExperiment(String),
    /// The same experiment had two results.
    #[error(
        "{} and {} disagree about {id}: {first} in the one, {second} in the other; one was made by another program, edited, or made on a \
         broken host: `replay` shows which is right, remove the file that is not",
        paths.0.display(), paths.1.display()
    )]
    Disagree {
        /// The experiment.
        id: String,
        /// The files.
        paths: (PathBuf, PathBuf),
        /// The first one's values that differ.
        first: String,
        /// The second one's values that differ.
        second: String,
    },
    /// A merge lacks results.
    #[error(
        "{missing} of {all} experiments have no result yet, the first is {first}: run them, or merge with --partial"
    )]
    Missing {
        /// How many.
        missing: usize,
        /// Of how many.
        all: usize,
        /// The first.
        first: String,
    },
}

/// An error of a campaign.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::File { path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn content(path: &Path, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), expected: expected.into(), got: got.into() }
    }

    /// Of a snapshot's file, with the reason of the reason.
    pub(crate) fn snapshot(path: &Path, expected: &str, error: &seawall_vmm::Error) -> Self {
        let reason = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::content(path, format!("a snapshot {expected}"), format!("{error}{reason}"))
    }
}
