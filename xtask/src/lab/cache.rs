//! What was made once is not made again: a folder with a stamp that says of what.

use std::path::{Path, PathBuf};

use super::error::Result;
use super::files;

/// The stamp's name. It holds the key that the folder was made with.
const STAMP: &str = ".made-with";

/// A folder whose content depends on a key alone: versions, patches, options.
pub(crate) struct Cached {
    pub(crate) folder: PathBuf,
    key: String,
}

impl Cached {
    pub(crate) fn new(folder: PathBuf, key: impl Into<String>) -> Self {
        Self { folder, key: key.into() }
    }

    /// Whether it was made with this key, to its end.
    pub(crate) fn is_made(&self) -> bool {
        std::fs::read_to_string(self.stamp()).is_ok_and(|stamp| stamp == self.key)
    }

    /// Makes it, if it was not, in an empty folder.
    pub(crate) fn make(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if self.is_made() {
            return Ok(());
        }
        files::remove_folder(&self.folder)?;
        files::create_folder(&self.folder)?;
        make(&self.folder)?;
        files::write(&self.stamp(), &self.key)
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join(STAMP)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::error::Error;
    use super::*;

    #[test]
    fn it_is_made_once_per_key_and_again_after_a_failure() {
        let folder = std::env::temp_dir().join(format!("seawall-cache-{}", std::process::id()));
        let made = Cell::new(0);
        let make = |key: &str, result: Result<()>| {
            Cached::new(folder.clone(), key).make(|_| {
                made.set(made.get() + 1);
                result
            })
        };
        assert!(make("one", Err(Error::failed("no"))).is_err());
        assert_eq!(made.get(), 1);
        assert_eq!(make("one", Ok(())), Ok(()));
        assert_eq!(make("one", Ok(())), Ok(()));
        assert_eq!(made.get(), 2);
        assert_eq!(make("two", Ok(())), Ok(()));
        assert_eq!(made.get(), 3);
        assert_eq!(files::remove_folder(&folder), Ok(()));
    }
}
