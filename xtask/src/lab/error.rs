//! Why there is no lab: what went wrong, and what to do about it.

use std::fmt;
use std::path::Path;

/// A step of the lab that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    what: String,
    advice: String,
    /// This host or its network cannot give what the lab is made of; nothing is broken.
    unavailable: bool,
}

/// What a step of the lab gives.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Something went wrong.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { what: what.into(), advice: String::new(), unavailable: false }
    }

    /// Something that cannot be had here.
    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self { unavailable: true, ..Self::failed(what) }
    }

    /// A file or folder that could not be worked on.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::failed(format!("{}: {error}", path.display()))
    }

    /// The same, with what to do next.
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    /// What went wrong, without what to do.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Whether the lab cannot be had here, as opposed to broken.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.unavailable
    }
}

impl From<seawall_linux::Error> for Error {
    fn from(error: seawall_linux::Error) -> Self {
        match error {
            seawall_linux::Error::Unavailable { what, advice } => Self::unavailable(what).advise(advice),
            other => Self::failed(other.to_string()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n  what to do: {}", self.advice) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_what_to_do() {
        let error = Error::unavailable("no apt-get here").advise("use a Debian host");
        assert_eq!(error.to_string(), "no apt-get here\n  what to do: use a Debian host");
        assert!(error.is_unavailable());
        let error = Error::failed("the kernel did not boot");
        assert_eq!(error.to_string(), "the kernel did not boot");
        assert!(!error.is_unavailable());
    }
}
